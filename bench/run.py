#!/usr/bin/env python3
"""Plays a big input flat out through the whole pipeline, then gives DuckDB's batch the same rows, and
prints what each took. Fails when the counts are wrong. `make bench`, `make bench-large`.
"""
import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import make_input

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TICK = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.1

# Threads by what they do; the rest is shown under its own name.
PARTS = {
    "producer": "produce: publish", "reader": "produce: read and parse", "sessionizer": "sessionize", "lake": "lake", "marts": "marts",
    "async": "lake: store; HTTP",
}


def cache():
    folder = os.environ.get("CLICKSTREAM_CACHE")
    if not folder:
        sys.exit("run it through scripts/env: make bench")
    return Path(folder)


def thread_seconds(pid, seen):
    """Adds to `seen` the CPU of each thread: a thread that ends keeps the last that was seen of it."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            name, rest = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        except (OSError, IndexError):
            continue
        fields = rest.split()
        seen[task.name] = (name, (int(fields[11]) + int(fields[12])) / TICK)


def measured(command, **options):
    """Runs it; wall, CPU and peak memory by wait4, CPU by thread name as sampled."""
    began, threads = time.monotonic(), {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    while True:
        # Output is small: one JSON object, so the pipe never fills.
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        thread_seconds(process.pid, threads)
        time.sleep(SAMPLE_SECONDS)
    wall = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status) if hasattr(os, "waitstatus_to_exitcode") else status
    out, err = process.stdout.read(), process.stderr.read()
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nexit {process.returncode}\n{out}{err}")
    by_name = {}
    for name, seconds in threads.values():
        by_name[name] = by_name.get(name, 0) + seconds
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss / 1000, "threads": by_name, "out": json.loads(out)}


def pipeline(binary, source, data, passes, flags):
    shutil.rmtree(data, ignore_errors=True)
    command = [binary, "run", source, "--flat-out", "--data-dir", data, "--json", "--quiet", "--listen", "off", *flags]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLICKSTREAM_")}
    result = measured(command, env=kept, stdin=subprocess.DEVNULL)
    totals = result["out"]["totals"]
    expected = {
        "events": passes * make_input.ROWS_A_PASS, "sessions": passes * make_input.SESSIONS_A_PASS, "steps": passes * make_input.STEPS_A_PASS}
    wrong = {name: (totals[name], count) for name, count in expected.items() if totals[name] != count}
    if wrong:
        sys.exit(f"the counts are wrong (found, expected): {wrong}")
    result["stored_mb"] = sum(p.stat().st_size for p in Path(data).rglob("*") if p.is_file()) / 1e6
    shutil.rmtree(data)
    return result


def batch(source, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    result = measured([sys.executable, HERE / "duckdb_batch.py", source, folder])
    shutil.rmtree(folder)
    return result


def part_of(thread):
    for start, part in PARTS.items():
        if thread.startswith(start):
            return part
    return "the rest"


def middle(results):
    return sorted(results, key=lambda result: result["wall"])[len(results) // 2]


def table(rows):
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def report(passes, ours, theirs, runs):
    events = passes * make_input.ROWS_A_PASS
    rows = [["", "seconds", "events/s", "of DuckDB", "CPU seconds", "CPU µs/event", "peak MB"]]
    # Of both, from when the work begins until every output is there: neither's start and exit.
    seconds, duck_seconds = ours["out"]["this_run"]["seconds"], theirs["out"]["seconds"] if theirs else None
    rows.append([
        "clickstream: read, broker, sessions, lake of 3 tables, 6 marts", f"{seconds:.1f}", f"{events / seconds:,.0f}",
        f"{duck_seconds / seconds:.2f}" if theirs else "", f"{ours['cpu']:.1f}", f"{ours['cpu'] / events * 1e6:.2f}", f"{ours['peak_mb']:,.0f}"])
    if theirs:
        assert theirs["out"]["rows"] == events
        rows.append([
            f"DuckDB {theirs['out']['version']}: batch, 1 table, 1 mart", f"{duck_seconds:.1f}", f"{events / duck_seconds:,.0f}", "1.00",
            f"{theirs['cpu']:.1f}", f"{theirs['cpu'] / events * 1e6:.2f}", f"{theirs['peak_mb']:,.0f}"])
    shares = {}
    for thread, seconds in ours["threads"].items():
        shares[part_of(thread)] = shares.get(part_of(thread), 0) + seconds
    # Threads that ended between two looks.
    shares["the rest"] = shares.get("the rest", 0) + max(0, ours["cpu"] - sum(shares.values()))
    parts = [["part", "CPU µs/event", "share"]]
    for part, seconds in sorted(shares.items(), key=lambda item: -item[1]):
        parts.append([part, f"{seconds / events * 1e6:.2f}", f"{seconds / ours['cpu']:.0%}"])
    said = f"the median of {runs} runs each" if runs > 1 else "one run each"
    return "\n".join([
        f"{events:,} events ({passes} passes of the sample), flat out, embedded broker, {os.cpu_count()} cores, {said}.",
        f"Counts verified: {passes * make_input.SESSIONS_A_PASS:,} sessions, {passes * make_input.STEPS_A_PASS:,} steps."
        f" Left in the data folder: {ours['stored_mb']:,.0f} MB.",
        "", table(rows), "", table(parts)])


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--passes", type=int, default=250, help="of the sample's 17,434 rows")
    arguments.add_argument("--runs", type=int, default=1, help="of each, taking turns; the median is shown")
    arguments.add_argument("--no-duckdb", action="store_true")
    arguments.add_argument("--keep-input", action="store_true", help="for the next time (134 bytes a row)")
    arguments.add_argument("flags", nargs="*", help="more flags for `clickstream run`, after --")
    given = arguments.parse_args()
    if platform.system() != "Linux":
        sys.exit("the CPU of threads is read from /proc: Linux only")
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"
    source = make_input.make(cache() / f"input-{given.passes}.csv", given.passes)
    ours, theirs = [], []
    try:
        for _ in range(given.runs):
            ours.append(pipeline(binary, source, cache() / "bench-data", given.passes, given.flags))
            if not given.no_duckdb:
                theirs.append(batch(source, cache() / "bench-duckdb"))
    finally:
        if not given.keep_input:
            source.unlink()
    print(report(given.passes, middle(ours), middle(theirs) if theirs else None, given.runs))
    if given.runs > 1:
        seconds = ", ".join(f"{result['wall']:.1f}" for result in ours)
        print(f"\nSeconds of each run, start and exit included: {seconds}.")


if __name__ == "__main__":
    main()
