"""Rows a second into a Storage Write API on loopback that keeps nothing, through the whole pipeline
flat out; and how fresh the warehouse is at 10,000 events a second, at its defaults.

    scripts/env python bench/warehouse.py [--passes 40] [--seconds 15]

The client, the pipeline and the server (`tests/fakes/write_sink.py`) share the machine.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]
import harness  # noqa: E402
import make_input  # noqa: E402


def run(binary, server, path, folder, *pace):
    rest, grpc = harness.free_port(), harness.free_port()
    python = harness.installed("bigquery")
    log = folder / "server.log"
    with open(log, "w") as out:
        serving = subprocess.Popen([python, server, str(rest), str(grpc)], stdout=out, stderr=out)
    try:
        harness.wait_for_port(grpc, serving, log)
        harness.wait_for_port(rest, serving, log)
        ends = ("--bigquery-endpoint", f"http://127.0.0.1:{rest}", "--bigquery-storage-endpoint", f"http://127.0.0.1:{grpc}")
        flags = ("--warehouse", "shop.clicks", *ends)
        made = harness.command(binary, "warehouse", "init", *flags)
        assert made.code == 0, made.describe()
        clickstream = harness.Clickstream(binary, folder / "data")
        started = time.monotonic()
        summary = clickstream.done(path, *flags, *pace, timeout=600).summary
        return summary, time.monotonic() - started
    finally:
        serving.kill()
        serving.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", type=int, default=40, help="of the sample, flat out (17,434 events each)")
    parser.add_argument("--seconds", type=int, default=15, help="at 10,000 events/s")
    args = parser.parse_args()
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"
    server = ROOT / "tests/fakes/write_sink.py"
    for passes, pace in ((args.passes, ()), (max(1, args.seconds * 10_000 // make_input.ROWS_A_PASS), ("--rate", "10000/s"))):
        path = make_input.make(harness.cache() / f"input-{passes}.csv", passes)
        with tempfile.TemporaryDirectory() as folder:
            summary, seconds = run(binary, server, path, Path(folder), *pace)
        warehouse, fresh = summary["warehouse"], summary["freshness"]["warehouse_ms"]
        rows = warehouse["rows"]
        print(f"{' '.join(pace) or 'flat out'}: {summary['totals']['events']:,} events, {rows:,} rows in {warehouse['requests']:,} requests, "
              f"{seconds:.1f} s, {rows / seconds:,.0f} rows/s; sent to acknowledged p50 {fresh['p50']:,.0f} ms, p99 {fresh['p99']:,.0f} ms")
        assert rows == passes * (make_input.ROWS_A_PASS + make_input.SESSIONS_A_PASS + make_input.STEPS_A_PASS), json.dumps(summary)


if __name__ == "__main__":
    main()
