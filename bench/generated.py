#!/usr/bin/env python3
"""A generated month, flat out through the whole pipeline; then how near its rows come to the real ones.
Fails when a row is missing or counted twice, or when the report does. `make bench-generated`.
"""
import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from run import ROOT, cache, measured

REACH = {"records": "clickstream_sessionizer_recovery_reach_records", "seconds": "clickstream_sessionizer_recovery_reach_seconds"}
LOOK_SECONDS = 0.5
OCTOBER_ROWS, NOVEMBER_ROWS = 42_448_764, 67_501_979


def clean():
    return {k: v for k, v in os.environ.items() if not k.startswith("CLICKSTREAM_")}


def watch(data, worst, over):
    """Keeps the furthest that recovery would have had to read."""
    while not over.wait(LOOK_SECONDS):
        try:
            address = (Path(data) / "address").read_text().splitlines()[0]
            text = urllib.request.urlopen(f"{address}/metrics", timeout=5).read().decode()
        except (OSError, ValueError, IndexError):
            continue
        for name, metric in REACH.items():
            for line in text.splitlines():
                if line.startswith(metric):
                    worst[name] = max(worst.get(name, 0), float(line.rsplit(" ", 1)[1]))


def replay(binary, url, rows, data):
    shutil.rmtree(data, ignore_errors=True)
    worst, over = {}, threading.Event()
    watcher = threading.Thread(target=watch, args=(data, worst, over))
    watcher.start()
    try:
        command = [binary, "run", url, "--flat-out", "--data-dir", data, "--json", "--quiet", "--listen", "0"]
        result = measured(command, env=clean(), stdin=subprocess.DEVNULL)
    finally:
        over.set()
        watcher.join()
    totals = result["out"]["totals"]
    if totals["events"] != rows:
        sys.exit(f"{totals['events']} events of {rows} rows")
    stored = sum(p.stat().st_size for p in Path(data).rglob("*") if p.is_file()) / 1e6
    shutil.rmtree(data)
    print(f"{url}, flat out, embedded broker, {os.cpu_count()} cores: {result['wall']:.1f} s, {rows / result['wall']:,.0f} events/s,"
          f" {result['cpu'] / rows * 1e6:.2f} CPU µs/event, peak {result['peak_mb']:,.0f} MB, {stored:,.0f} MB stored.")
    print(f"{totals['sessions']:,} sessions, {totals['steps']:,} steps. Furthest that recovery would have had to read:"
          f" {worst.get('records', 0):,.0f} records, {worst.get('seconds', 0):,.0f} s of event time.")


def rate(binary, rows):
    began = time.monotonic()
    with open(os.devnull, "wb") as nowhere:
        subprocess.run([binary, "generate", "2019-Nov", "--rows", str(rows), "-q"], stdout=nowhere, env=clean(), check=True)
    seconds = time.monotonic() - began
    print(f"clickstream generate: {rows:,} rows of CSV in {seconds:.1f} s, {rows / seconds:,.0f} rows/s, on one thread, the model's fit included.")


def report(binary, month, rows):
    command = [binary, "generate", month, "--rows", str(rows), "--report", "-q"]
    ended = subprocess.run(command, capture_output=True, text=True, env=clean())
    lines = ended.stdout.splitlines()
    print("\n".join([f"{month}: {lines[-1]}", *(line for line in lines if line.endswith("outside"))]))
    return ended.returncode


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rows", type=int, default=NOVEMBER_ROWS)
    arguments.add_argument("--no-replay", action="store_true")
    arguments.add_argument("--data", type=Path, help="the data folder, emptied before and after [in the cache]")
    given = arguments.parse_args()
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"
    rate(binary, min(given.rows, 10_000_000))
    if not given.no_replay:
        replay(binary, f"generate://2019-Nov?rows={given.rows}", given.rows, given.data or cache() / "bench-generated")
    # October's are as many in proportion.
    october = given.rows * OCTOBER_ROWS // NOVEMBER_ROWS
    sys.exit(max(report(binary, month, rows) for month, rows in (("2019-Oct", october), ("2019-Nov", given.rows))))


if __name__ == "__main__":
    main()
