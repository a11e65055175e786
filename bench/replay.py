#!/usr/bin/env python3
"""How well the schedule is kept, and how fast the producer is alone. `make bench-replay`.

1. 10,000 events/s for a minute through the whole pipeline: sending and visible minus intended.
2. 100,000 events/s for ten seconds: the rate that came out, by the times in the lake.
3. The producer alone, flat out into the embedded broker, beside the csv crate reading the same file
   and throwing it away (`producer/examples/flat_out`).
"""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb

import make_input
from run import ROOT, cache, table

PASSES = 60


def play(source, rate, events, data):
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"
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


def errors(source, data):
    summary = play(source, 10_000, 600_000, data)["schedule"]
    rows = [["10,000 events/s for a minute, ms", "p50", "p99", "max", "p99 must be under"]]
    for name, key, must in (("sending minus intended", "sending_minus_intended_ms", 10), ("visible minus intended", "visible_minus_intended_ms", 120)):
        found = summary[key]
        rows.append([name, f"{found['p50']:.2f}", f"{found['p99']:.2f}", f"{found['max']:.1f}", str(must)])
    return rows


def evenness(source, data):
    play(source, 100_000, 1_000_000, data)
    # Of all rows but the first, by the time from the first to the last.
    rate, = duckdb.sql(
        f"SELECT (count(*) - 1) / epoch(max(sent_at) - min(sent_at)) FROM read_parquet('{data}/lake/events/*/*.parquet')").fetchone()
    return [["100,000 events/s for ten seconds", "came out", "off by", "must be within"],
            ["events/s", f"{rate:,.0f}", f"{rate / 100_000 - 1:+.3%}", "0.5%"]]


def main():
    if PASSES * make_input.ROWS_A_PASS < 1_000_000:
        sys.exit("too few rows")
    source = make_input.make(cache() / f"input-{PASSES}.csv", PASSES)
    data = cache() / "bench-replay"
    try:
        print(f"Embedded broker, {os.cpu_count()} cores, one run each.\n")
        print(table(errors(source, data)), "\n", sep="")
        print(table(evenness(source, data)), "\n", sep="")
    finally:
        source.unlink()
        shutil.rmtree(data, ignore_errors=True)
    subprocess.run(["cargo", "run", "--quiet", "--release", "--locked", "-p", "producer", "--example", "flat_out", "--", "230"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
