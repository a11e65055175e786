#!/usr/bin/env python3
"""The whole pipeline through a real Apache Kafka on this machine's cores, broker included, beside
- the bare traffic: the same records through the same broker, with nothing done to them: fetched back,
  once for all readers, and by each for itself; and had by them from memory once they are committed, as
  the parts of the pipeline's one process have them;
- the Spark batch job over the same rows;
- and the producer alone beside Kafka's own ProducerPerformance, with records of the same size (as the
  producer's are found to be), and batches, memory, linger, compression and acknowledgements as librdkafka
  has them there.
All in one run, the sides in turn, `--runs` times (the bare traffic fetched by each: once); medians are
shown. Fails when the counts are wrong. `make bench-kafka`.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

import make_input
from run import ROOT, TICK, cache, measured, table

PYSPARK = "pyspark==3.5.9"
# Records that are looked at for their size.
LOOKED_AT = 20_000
# What our producer sets (broker/src/kafka/config.rs), and room for such batches.
PRODUCER = ("compression.type=lz4", "linger.ms=1000", "batch.size=4194304", "max.request.size=10485760", "buffer.memory=67108864", "acks=all", "enable.idempotence=true")
# The command's own.
ALLOCATOR = re.search(r'c"(narenas:[^"]+)"', (ROOT / "clickstream" / "src" / "lib.rs").read_text())[1]
PORT = 19_092
# Runs until the broker takes no less any more.
WARM_UP = 7


class Broker:
    def __init__(self, port):
        self.folder = tempfile.mkdtemp(prefix="clickstream-bench-kafka-", dir=cache())
        self.port = port
        self.script("start", "--port", str(port))

    servers = property(lambda self: f"127.0.0.1:{self.port}")

    def script(self, *arguments):
        return subprocess.run([str(ROOT / "scripts" / "kafka"), arguments[0], "--dir", self.folder, *arguments[1:]], check=True, capture_output=True, text=True).stdout

    def cpu(self):
        """Seconds of CPU that the broker has used."""
        pid = (Path(self.folder) / "node-1" / "pid").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def end(self):
        self.script("kill")
        shutil.rmtree(self.folder, ignore_errors=True)


def kept():
    return {k: v for k, v in os.environ.items() if not k.startswith("CLICKSTREAM_") or k == "CLICKSTREAM_CACHE"}


def pipeline(binary, broker, source, passes, prefix):
    data = Path(broker.folder) / "data"
    flags = ["--broker", f"kafka://{broker.servers}", "--topic-prefix", prefix, "--flat-out", "--json", "--quiet", "--listen", "off"]
    before = broker.cpu()
    result = measured([binary, "run", source, "--data-dir", data, *flags], env=kept(), stdin=subprocess.DEVNULL)
    result["broker_cpu"] = broker.cpu() - before
    totals = result["out"]["totals"]
    expected = {"events": make_input.ROWS_A_PASS, "sessions": make_input.SESSIONS_A_PASS, "steps": make_input.STEPS_A_PASS}
    wrong = {name: (totals[name], passes * count) for name, count in expected.items() if totals[name] != passes * count}
    if wrong:
        sys.exit(f"the counts are wrong (found, expected): {wrong}")
    shutil.rmtree(data)
    return result


def produce(binary, broker, source, prefix):
    flags = ["--broker", f"kafka://{broker.servers}", "--topic-prefix", prefix]
    subprocess.run([binary, "topics", "create", *flags], check=True, capture_output=True, env=kept())
    before = broker.cpu()
    result = measured([binary, "produce", source, *flags, "--flat-out", "--json", "--quiet", "--listen", "off"], env=kept(), stdin=subprocess.DEVNULL)
    result["broker_cpu"] = broker.cpu() - before
    return result


def traffic(broker, events, *how):
    built = subprocess.run(
        ["cargo", "build", "--release", "--locked", "-p", "broker", "--features", "kafka", "--example", "kafka_traffic"],
        cwd=ROOT, capture_output=True, text=True)
    if built.returncode:
        sys.exit(built.stderr)
    example = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / "kafka_traffic"
    before = broker.cpu()
    result = measured([example, broker.servers, str(events), *how], env=os.environ | {"MALLOC_CONF": ALLOCATOR})
    result["broker_cpu"] = broker.cpu() - before
    return result


def record_bytes(broker, topic):
    """Of a record as it lies in the topic, on average: key, value and headers."""
    consumer = Consumer({"bootstrap.servers": broker.servers, "group.id": "bench-size", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    sizes = []
    while len(sizes) < LOOKED_AT:
        found = consumer.consume(LOOKED_AT - len(sizes), 10)
        assert found and not any(record.error() for record in found), f"{topic}: {len(sizes)} records and no more"
        sizes += [len(r.key() or b"") + len(r.value()) + sum(len(k) + len(v or b"") for k, v in r.headers() or ()) for r in found]
    consumer.close()
    return round(sum(sizes) / len(sizes))


def performance(broker, records, size, topic):
    """Kafka's own producer, on as many partitions and set as ours is."""
    tool = [str(ROOT / "scripts" / "kafka"), "tool"]
    subprocess.run([*tool, "TopicCommand", "--bootstrap-server", broker.servers, "--create", "--topic", topic, "--partitions", "4", "--config", "max.message.bytes=10485760"], check=True, capture_output=True)
    began = time.monotonic()
    done = subprocess.run(
        [*tool, "ProducerPerformance", "--topic", topic, "--num-records", str(records), "--record-size", str(size), "--throughput", "-1",
         "--command-property", f"bootstrap.servers={broker.servers}", *PRODUCER],
        capture_output=True, text=True)
    found = re.findall(r"([\d.]+) records/sec", done.stdout)
    if done.returncode or not found:
        sys.exit(f"ProducerPerformance: {done.stdout}{done.stderr}")
    return {"per_second": float(found[-1]), "wall": time.monotonic() - began}


def spark(source):
    home = cache() / "venv-spark"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"installing {PYSPARK} into {home}", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYSPARK], check=True)
        (home / "ready").touch()
    folder = cache() / "bench-spark"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    result = measured([python, Path(__file__).resolve().parent / "spark_batch.py", source, folder])
    shutil.rmtree(folder)
    return result


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--passes", type=int, default=250, help="of the sample's 17,434 rows")
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--port", type=int, default=PORT)
    arguments.add_argument("--no-spark", action="store_true")
    given = arguments.parse_args()
    binary = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "clickstream"
    source = make_input.make(cache() / f"input-{given.passes}.csv", given.passes)
    events = given.passes * make_input.ROWS_A_PASS
    load = os.getloadavg()[0]
    broker = Broker(given.port)
    once, supplied, apart = "fetched once", "had from memory", "each reader fetching for itself"
    whole, alone, peer, batch, bare = [], [], [], [], {once: [], supplied: [], apart: []}
    try:
        # A JVM compiles what it runs: a broker that was just started takes twice the CPU of one that is warm.
        first, *_ = [pipeline(binary, broker, source, given.passes, f"warm{run}.") for run in range(WARM_UP)]
        for run in range(given.runs):
            whole.append(pipeline(binary, broker, source, given.passes, f"whole{run}."))
            if not given.no_spark:
                batch.append(spark(source))
                assert batch[-1]["out"]["rows"] == events
            bare[once].append(traffic(broker, events))
            bare[supplied].append(traffic(broker, events, "supplied"))
            alone.append(produce(binary, broker, source, f"alone{run}."))
            size = record_bytes(broker, f"alone{run}.events")
            peer.append(performance(broker, events, size, f"performance{run}"))
        bare[apart].append(traffic(broker, events, "apart"))
    finally:
        broker.end()

    def rate_of(run):
        return events / run["out"].get("this_run", run["out"])["seconds"]

    def median(runs, rate=rate_of):
        """The run whose rate is the median, and all rates."""
        ranked = sorted(runs, key=rate)
        rates = ", ".join(f"{rate(run):,.0f}" for run in runs)
        return ranked[(len(ranked) - 1) // 2], rates

    (middle, rates), first_rate = median(whole), rate_of(first)
    rate = rate_of(middle)
    rows = [["", "events/s", "of it", "CPU s, ours", "CPU s, broker", "peak MB", "each run"]]
    rows.append(["clickstream run --broker kafka://: the whole pipeline", f"{rate:,.0f}", "1.00", f"{middle['cpu']:.1f}", f"{middle['broker_cpu']:.1f}", f"{middle['peak_mb']:,.0f}", rates])
    for how, runs in bare.items():
        run, rates = median(runs)
        rows.append([f"its bare traffic, nothing done to the records, {how}", f"{rate_of(run):,.0f}", f"{rate / rate_of(run):.2f}", f"{run['cpu']:.1f}", f"{run['broker_cpu']:.1f}", f"{run['peak_mb']:,.0f}", rates])
    if batch:
        run, rates = median(batch)
        rows.append([f"Spark {run['out']['version']}: batch, 1 table, 1 mart", f"{rate_of(run):,.0f}", f"{rate / rate_of(run):.2f}", "", "", "", rates])
        pairs = ", ".join(f"{rate_of(ours) / rate_of(sparks):.2f}" for ours, sparks in zip(whole, batch))
    own, rates = median(alone)
    rows.append(["clickstream produce alone", f"{rate_of(own):,.0f}", "", f"{own['cpu']:.1f}", f"{own['broker_cpu']:.1f}", f"{own['peak_mb']:,.0f}", rates])
    run, rates = median(peer, lambda run: run["per_second"])
    rows.append([f"Kafka's ProducerPerformance, {size} B, lz4", f"{run['per_second']:,.0f}", f"{rate_of(own) / run['per_second']:.2f} (produce to it)", "", "", "", rates])
    print(f"{events:,} events ({given.passes} passes of the sample), Apache Kafka and all else on the same {os.cpu_count()} cores; load when it began: {load:.1f}.")
    print("Medians. \"of it\": the whole pipeline's rate to that row's.")
    print(f"The broker was warm, as Spark's session is up before its clock starts. Just started it gave the whole {first_rate:,.0f} events/s.\n")
    print(table(rows))
    if batch:
        print(f"\nThe whole to the run of Spark that came next to it: {pairs}.")
    print(f"\nSummary's quantiles: {json.dumps(middle['out']['freshness'])}")


if __name__ == "__main__":
    main()
