#!/usr/bin/env python3
"""How long a part that was killed takes from its start to what it commits first: each part as a process
on a real Apache Kafka of this machine, with default settings and under an instance of its own, and all
of them in one process on the embedded broker. Each is killed some times while events are played.
`make bench-restart`.

The lake gathers rows for up to a minute before it commits a file: here for 100 ms, so that what is
measured is the restart.
"""
import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import make_input
from kafka import Broker, kept
from run import ROOT, cache, table

# What a part counts with each commit.
COMMITS = {
    "produce": "clickstream_producer_transactions_total",
    "sessionize": "clickstream_sessionizer_transaction_seconds_count",
    "marts": "clickstream_marts_commits_total",
    "consume lake": "clickstream_lake_freshness_seconds_count",
}
SOON = ("--lake-file-age", "100ms")
# Events a second.
RATE = 5_000
LOOK_SECONDS = 0.005
PATIENCE_SECONDS = 60
# What a part lives between two kills.
LIFE_SECONDS = 1.5
PORT, KAFKA_PORT = 18_650, 19_192


class Process:
    """One that serves its metrics on a port of its own."""

    def __init__(self, port, *command):
        self.port, self.command, self.process = port, [str(word) for word in (*command, "--listen", f"127.0.0.1:{port}", "--quiet")], None

    def start(self):
        self.process = subprocess.Popen(self.command, env=kept(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def counts(self, names):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=1) as answer:
                served = answer.read().decode()
        except OSError:
            return {}
        values = dict(line.rsplit(" ", 1) for line in served.splitlines() if not line.startswith("#"))
        return {name: float(values.get(name, 0)) for name in names}

    def first(self, names):
        """Seconds from its start to the first commit of each."""
        began, found = time.monotonic(), {}
        self.start()
        while len(found) < len(names):
            now = time.monotonic() - began
            found.update({name: now for name, value in self.counts(names).items() if value > 0 and name not in found})
            if self.process.poll() is not None or now > PATIENCE_SECONDS:
                sys.exit(f"{' '.join(self.command)}: exit {self.process.poll()}, after {now:.0f} s no {set(names) - set(found)}")
            time.sleep(LOOK_SECONDS)
        return found

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def on_kafka(binary, source, folder, broker, kills, instance):
    """Seconds of each kill, by part."""
    prefix = f"{'instance' if instance else 'default'}."
    to = ["--broker", f"kafka://{broker.servers}", "--topic-prefix", prefix]
    subprocess.run([binary, "topics", "create", *to], check=True, capture_output=True, env=kept())
    data = ["--data-dir", folder / prefix]
    own = ["--instance", "bench"] if instance else []
    words = {"sessionize": own, "consume lake": [*data, *own, *SOON], "marts": [*data, *own], "produce": [source, "--rate", f"{RATE}/s"]}
    parts = {name: Process(PORT + i, binary, *name.split(), *more, *to) for i, (name, more) in enumerate(words.items())}
    seconds = {name: [] for name in parts}
    try:
        for part in parts.values():
            part.start()
        for name in parts:
            if name == "produce" and instance:
                continue
            for _ in range(kills):
                time.sleep(LIFE_SECONDS)
                parts[name].kill()
                seconds[name] += parts[name].first([COMMITS[name]]).values()
    finally:
        for part in parts.values():
            if part.process:
                part.kill()
    return {name: found for name, found in seconds.items() if found}


def embedded(binary, source, folder, kills):
    process = Process(PORT, binary, "run", source, "--rate", f"{RATE}/s", "--data-dir", folder / "embedded", *SOON)
    seconds = {name: [] for name in COMMITS}
    process.start()
    try:
        for _ in range(kills):
            time.sleep(LIFE_SECONDS)
            process.kill()
            found = process.first(list(COMMITS.values()))
            for name, counter in COMMITS.items():
                seconds[name].append(found[counter])
    finally:
        process.kill()
    return seconds


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=9, help="of each part")
    arguments.add_argument("--passes", type=int, default=80, help="of the sample's 17,434 rows")
    given = arguments.parse_args()
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"
    source = make_input.make(cache() / f"input-{given.passes}.csv", given.passes)
    folder = Path(tempfile.mkdtemp(prefix="clickstream-bench-restart-", dir=cache()))
    rows = [["", "median s", "max s"]]

    def show(what, seconds):
        for name, found in seconds.items():
            rows.append([f"{what}: {name}", f"{statistics.median(found):.2f}", f"{max(found):.2f}"])

    load, broker = os.getloadavg()[0], Broker(KAFKA_PORT)
    try:
        show("Kafka, default settings", on_kafka(binary, source, folder, broker, given.kills, instance=False))
        show("Kafka, under its own --instance", on_kafka(binary, source, folder, broker, given.kills, instance=True))
        show("embedded, one process", embedded(binary, source, folder, given.kills))
    finally:
        broker.end()
        shutil.rmtree(folder)
    print(f"From the start after kill -9 to the first commit, {given.kills} kills each at {RATE:,} events/s,")
    print(f"broker and all parts on the same {os.cpu_count()} cores; load when it began: {load:.1f}.\n")
    print(table(rows))


if __name__ == "__main__":
    main()
