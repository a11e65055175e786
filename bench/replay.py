#!/usr/bin/env python3
"""How well the schedule is kept, and how fast the producer is alone. `make bench-replay`.

1. 10,000 events/s for a minute through the whole pipeline: sending and visible minus intended.
2. 100,000 events/s for ten seconds: the rate that came out, by the times in the lake.
3. Killed deep in a .gz and started again: seconds to the first commit, with its index and without,
   beside `gzip -dc` of what lies before.
4. The producer alone, flat out into the embedded broker, beside the csv crate reading the same file
   and throwing it away (`producer/examples/flat_out`).
Fails when 1 or 2 miss what they must reach.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import duckdb

import make_input
from restart import COMMITS, Process
from run import ROOT, cache, table

PASSES = 60
# Of the .gz: a gigabyte of text.
DEEP_PASSES = 430
# How far into it the kill is.
DEEP = 0.9


def clickstream():
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"


def play(source, rate, events, data):
    binary = clickstream()
    shutil.rmtree(data, ignore_errors=True)
    command = [binary, "run", source, "--rate", f"{rate}/s", "--limit", str(events), "--data-dir", data, "--json", "--quiet", "--listen", "off"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLICKSTREAM_")}
    done = subprocess.run(list(map(str, command)), env=kept, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"exit {done.returncode}\n{done.stdout}{done.stderr}")
    summary = json.loads(done.stdout)
    if summary["this_run"]["events"] != events:
        sys.exit(f"{summary['this_run']['events']} events, not {events}")
    return summary


def errors(source, data, missed):
    summary = play(source, 10_000, 600_000, data)["schedule"]
    rows = [["10,000 events/s for a minute, ms", "p50", "p99", "max", "p99 must be under"]]
    for name, key, must in (("sending minus intended", "sending_minus_intended_ms", 10), ("visible minus intended", "visible_minus_intended_ms", 120)):
        found = summary[key]
        rows.append([name, f"{found['p50']:.2f}", f"{found['p99']:.2f}", f"{found['max']:.1f}", str(must)])
        if found["p99"] >= must:
            missed.append(f"{name}: p99 {found['p99']:.2f} ms")
    return rows


def evenness(source, data, missed):
    play(source, 100_000, 1_000_000, data)
    # Of all rows but the first, by the time from the first to the last.
    rate, = duckdb.sql(
        f"SELECT (count(*) - 1) / epoch(max(sent_at) - min(sent_at)) FROM read_parquet('{data}/lake/events/*/*.parquet')").fetchone()
    if abs(rate / 100_000 - 1) > 0.005:
        missed.append(f"100,000 events/s came out as {rate:,.0f}")
    return [["100,000 events/s for ten seconds", "came out", "off by", "must be within"],
            ["events/s", f"{rate:,.0f}", f"{rate / 100_000 - 1:+.3%}", "0.5%"]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resumes(packed, rows, text_bytes, data):
    """Of a run that is killed when it has sent DEEP of the rows."""
    shutil.rmtree(data, ignore_errors=True)
    events, first = "clickstream_producer_events_total", COMMITS["produce"]
    process = Process(free_port(), clickstream(), "run", packed, "--flat-out", "--data-dir", data)
    process.start()
    while process.counts([events]).get(events, 0) < DEEP * rows:
        if process.process.poll() is not None:
            sys.exit(f"it ended before it was killed, exit {process.process.returncode}")
        time.sleep(0.01)
    process.kill()
    seconds = {}
    for name in ("without its index", "with its index"):
        if name == "without its index":
            (data / "index").rename(data / "index.kept")
        else:
            shutil.rmtree(data / "index", ignore_errors=True)
            (data / "index.kept").rename(data / "index")
        seconds[name] = process.first([first])[first]
        process.kill()
    began = time.monotonic()
    with subprocess.Popen(["gzip", "-dc", packed], stdout=subprocess.PIPE) as floor:
        left = int(DEEP * text_bytes)
        while left > 0 and (piece := floor.stdout.read(min(left, 1 << 20))):
            left -= len(piece)
        floor.kill()
    seconds["gzip -dc of what lies before"] = time.monotonic() - began
    before = DEEP * text_bytes
    shown = [[f"going on at {before / 1e6:,.0f} MB of text in a .gz", "seconds", "MB/s", "rows/s"]]
    for name, took in seconds.items():
        shown.append([name, f"{took:.2f}", f"{before / took / 1e6:,.0f}", f"{DEEP * rows / took:,.0f}"])
    done = subprocess.run([clickstream(), "run", packed, "--flat-out", "--data-dir", data, "--json", "--quiet", "--listen", "off"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode or json.loads(done.stdout)["totals"]["events"] != rows:
        sys.exit(f"exit {done.returncode}, not {rows} events\n{done.stdout}{done.stderr}")
    return shown


def main():
    if PASSES * make_input.ROWS_A_PASS < 1_000_000:
        sys.exit("too few rows")
    source = make_input.make(cache() / f"input-{PASSES}.csv", PASSES)
    data, missed = cache() / "bench-replay", []
    try:
        print(f"Embedded broker, {os.cpu_count()} cores, one run each.\n")
        print(table(errors(source, data, missed)), "\n", sep="")
        print(table(evenness(source, data, missed)), "\n", sep="")
    finally:
        source.unlink()
        shutil.rmtree(data, ignore_errors=True)
    deep = make_input.make(cache() / f"input-{DEEP_PASSES}.csv", DEEP_PASSES)
    packed = deep.with_suffix(".csv.gz")
    try:
        subprocess.run(["gzip", "--keep", "--force", deep], check=True)
        print(table(resumes(packed, DEEP_PASSES * make_input.ROWS_A_PASS, deep.stat().st_size, data)), "\n", sep="")
    finally:
        deep.unlink()
        packed.unlink(missing_ok=True)
        shutil.rmtree(data, ignore_errors=True)
    subprocess.run(["cargo", "run", "--quiet", "--release", "--locked", "-p", "producer", "--example", "flat_out", "--", "230"], cwd=ROOT, check=True)
    if missed:
        sys.exit(f"not reached: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
