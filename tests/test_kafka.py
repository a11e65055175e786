"""The pipeline on a real Apache Kafka: all parts in one process, and each as a process of its own."""
import json
import os
import signal
import sqlite3
import subprocess
import time
import tomllib

import pytest

from cluster import Cluster, Pipeline, get, metric, until
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal
import harness
import make_input


def assert_outputs(pipeline, sources):
    oracle = Oracle(sources)
    assert_marts_equal(pipeline.marts, oracle)
    assert_lake_equal(pipeline.lake, oracle)


# What a lake has read it has stored, soon after.
SOON = ("--lake-file-age", "1s")


def lag_is_zero(pipeline, group):
    """By what `check` says of the group."""
    said = {finding["what"]: finding["says"] for finding in json.loads(pipeline.ask("check", "--json", check=False).stdout)}
    return said.get(f"group {pipeline.prefix}{group}", "").startswith("0 ")


def test_all_parts_in_one_process_then_again(on_kafka, sample):
    first = on_kafka.run(sample)
    assert first["outcome"] == "done" and first["this_run"]["events"] == 17_434
    assert first["totals"]["sessions"] == 5_067 and first["totals"]["steps"] == 12_633
    assert first["totals"]["revenue"] == "59442.63" and first["totals"]["abandoned"] == 58
    assert_outputs(on_kafka, [Source(first["source"], [sample])])
    again = on_kafka.run(sample)
    assert again["outcome"] == "already_done" and again["totals"] == first["totals"]
    assert_outputs(on_kafka, [Source(first["source"], [sample])])


def test_many_partitions_in_one_process(on_kafka):
    """So many that what is fetched for all of them at once is more than there is room for."""
    path = make_input.make(harness.cache() / "input-20.csv", 20)
    played = on_kafka.run(path, "--partitions", "48")
    assert played["outcome"] == "done" and played["totals"]["events"] == 20 * make_input.ROWS_A_PASS
    assert played["totals"]["sessions"] == 20 * make_input.SESSIONS_A_PASS
    assert_outputs(on_kafka, [Source(played["source"], [path])])


def test_each_part_as_a_process(on_kafka, sample):
    missing = on_kafka.start("sessionize")
    assert missing.wait(180) == 1 and "topics create" in missing.says(), missing.describe()
    assert "made" in on_kafka.ask("topics", "create", "--partitions", "3").stdout

    # No port collides: each takes the next one that is free.
    parts, addresses = {}, {}
    for name in ("sessionize", "lake", "marts"):
        parts[name], addresses[name] = on_kafka.serving(name, *(SOON if name == "lake" else ()))
    assert len(set(addresses.values())) == 3

    produce = on_kafka.start("produce", sample, "--flat-out")
    assert produce.wait(180) == 0, produce.describe()
    report = produce.report()
    assert report["schema"] == "clickstream.part/1" and report["outcome"] == "done"
    assert report["counts"]["events"] == 17_434
    until("the sessionizer to be done", lambda: lag_is_zero(on_kafka, "sessionizer"), 180, *parts.values())
    for group in ("marts", "lake"):
        until(f"the {group} to be done", lambda group=group: lag_is_zero(on_kafka, group), 180, *parts.values())
    metrics = get(addresses["sessionize"], "/metrics")[1]
    assert "clickstream_kafka_round_trip_seconds" in metrics and "clickstream_sessionizer_lag_records" in metrics
    assert get(addresses["sessionize"], "/api/totals")[0] == 503
    assert json.loads(get(addresses["marts"], "/api/totals")[1])["views"] == 17_055

    # A drain ends with what is in hand stored, and 0: these parts have no end of their own.
    assert parts["sessionize"].drain()["counts"]["sessions"] == 5_067
    assert parts["lake"].drain()["counts"]["rows"] == 17_434 + 12_633 + 5_067
    parts["marts"].drain()
    assert_outputs(on_kafka, [Source(report["source"], [sample])])
    again = on_kafka.start("produce", sample, "--flat-out")
    assert again.wait(180) == 0 and again.report()["outcome"] == "already_done", again.describe()


def test_parts_in_terminals_of_their_own_killed_in_turn(on_kafka, sample):
    """Each served, killed and started with the same words, as a person would, while the sample is played."""
    on_kafka.ask("topics", "create")
    words = {"sessionize": (), "lake": (), "marts": (), "produce": (sample, "--speed", "400x", "--max-gap", "30s")}
    commits = {"sessionize": "clickstream_sessionizer_transaction_seconds_count", "lake": "clickstream_lake_open_bytes",
               "marts": "clickstream_marts_commits_total", "produce": "clickstream_producer_transactions_total"}
    parts = {name: on_kafka.start(name, *more, "--listen", "127.0.0.1:0") for name, more in words.items()}

    def works(name):
        """Or nothing is left to do: the input is done."""
        if not parts["produce"].is_running():
            return parts["produce"].process.returncode == 0
        assert parts[name].is_running(), parts[name].describe()
        return metric(parts[name], commits[name]) > 0

    for name in (*words, "sessionize", "produce"):
        for other in words:
            until(f"{other} to work", lambda other=other: works(other), 180)
        parts[name].kill()
        parts[name] = on_kafka.start(name, *words[name], "--listen", "127.0.0.1:0")
    assert parts["produce"].wait(180) == 0, parts["produce"].describe()
    until("the sessionizer to be done", lambda: lag_is_zero(on_kafka, "sessionizer"), 180)
    for name in ("sessionize", "lake", "marts"):
        parts[name].drain()
    ended = on_kafka.run(sample)
    assert ended["outcome"] == "already_done" and ended["totals"]["events"] == 17_434
    assert ended["totals"]["sessions"] == 5_067 and ended["totals"]["steps"] == 12_633 and ended["totals"]["revenue"] == "59442.63"
    assert_outputs(on_kafka, [Source(ended["source"], [sample])])


def test_produce_drained_by_a_signal_goes_on(on_kafka, sample):
    on_kafka.ask("topics", "create")
    produce = on_kafka.start("produce", sample, "--rate", "2000/s", "--listen", "127.0.0.1:0")
    said = until("its address", lambda: "http://" in produce.says() and produce.says(), 20, produce)
    address = said.split("http://")[1].split("/")[0]
    until("events", lambda: json.loads(get(address, "/api/status")[1] or "{}").get("events", 0) > 500, 180, produce)
    produce.signal(signal.SIGTERM)
    assert produce.wait(15) == 3, produce.describe()
    drained = produce.report()
    assert drained["outcome"] == "drained" and 500 < drained["counts"]["events"] < 17_434
    rest = on_kafka.run(sample)
    assert rest["this_run"]["events"] == 17_434 - drained["counts"]["events"]
    assert_outputs(on_kafka, [Source(rest["source"], [sample])])


def test_an_input_played_anew_is_one_more_source(on_kafka, sample):
    first = on_kafka.run(sample)
    anew = on_kafka.run(sample, "--restart")
    assert anew["outcome"] == "done" and anew["this_run"]["events"] == 17_434 and anew["totals"]["events"] == 2 * 17_434
    # Another begins and is killed; the same command without the flag goes on with that one.
    killed = on_kafka.start("produce", sample, "--restart", "--rate", "4000/s", "--listen", "127.0.0.1:0")
    said = until("its address", lambda: "http://" in killed.says() and killed.says(), 180, killed)
    address = said.split("http://")[1].split("/")[0]
    until("events", lambda: json.loads(get(address, "/api/status")[1] or "{}").get("events", 0) > 500, 180, killed)
    killed.kill()
    last = on_kafka.run(sample)
    assert last["outcome"] == "done" and 0 < last["this_run"]["events"] < 17_434 and last["totals"]["events"] == 3 * 17_434
    sources = [ended["source"] for ended in (first, anew, last)]
    assert len(set(sources)) == 3 and last["unfinished"] == []
    assert on_kafka.run(sample)["outcome"] == "already_done"
    assert_outputs(on_kafka, [Source(source, [sample]) for source in sources])


def test_topics_tail_and_check(on_kafka, kafka, sample):
    on_kafka.run(sample, "--partitions", "2")
    # They have as many partitions as they have, unless a number is asked for.
    assert on_kafka.ask("topics", "describe", "--partitions", "3", check=False).code == 1
    described = json.loads(on_kafka.ask("topics", "describe", "--json").stdout)
    assert described["faults"] == [] and len(described["topics"]) == 6
    # As it is read back, so it was written: the sample's first row.
    rows = [json.loads(line) for line in on_kafka.ask("tail", "events", "--from", "start", "--json").stdout.splitlines()]
    events = [row["value"] for row in rows if row["value"]["eventType"] not in ("WATERMARK", "END")]
    assert len(events) == 17_434
    first = min(events, key=lambda event: int(event.get("sourceRow", 0)))
    assert (first["productId"], first["userId"], first["priceCents"]) == ("44600062", "541312140", "3579")
    one = on_kafka.ask("tail", "sessions", "--from", "-3", "--partition", "1", "--json").stdout.splitlines()
    assert 1 <= len(one) <= 3 and all(json.loads(line)["partition"] == 1 for line in one)
    assert len(on_kafka.ask("tail", "funnel-steps", "--from", "start", "--limit", "5").stdout.splitlines()) == 5
    assert on_kafka.ask("tail", "orders", check=False).code == 2
    found = on_kafka.ask("check").stdout
    assert all(what in found for what in ("topics", "rights", "sessionizer", "lake", "marts", "writing")) and "WRONG" not in found

    # A setting that would lose months of events is found, with the command that mends it.
    kafka.tool("kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", f"{on_kafka.prefix}events",
               "--add-config", "retention.ms=604800000")
    wrong = on_kafka.ask("check", check=False)
    assert wrong.code == 1 and "retention.ms=-1" in wrong.stdout, wrong.describe()
    refused = on_kafka.start("run", sample, "--flat-out", "--partitions", "2")
    assert refused.wait(180) == 1 and "retention.ms=-1" in refused.says(), refused.describe()
    assert on_kafka.ask("topics", "describe", check=False).code == 1
    mends = wrong.stdout.split("kafka-configs.sh ")[1].splitlines()[0].split()
    assert mends[:2] == ["--bootstrap-server", kafka.servers], mends
    kafka.tool("kafka.admin.ConfigCommand", *mends[2:])
    assert "WRONG" not in on_kafka.ask("check").stdout


@pytest.mark.parametrize("words, code, says", [
    (["produce", "x.csv"], 2, "--broker"),
    (["sessionize", "--broker", "localhost:9092"], 2, "kafka://"),
    (["marts", "--broker", "kafka://a", "--kafka-property", "sasl.password=hunter2"], 1, "${env:NAME}"),
    (["sessionize", "--broker", "kafka://a", "--kafka-property", "isolation.level=read_uncommitted"], 1, "isolation.level"),
    (["sessionize", "--broker", "kafka://a", "--instance", "a/b"], 1, "--instance"),
    (["tail", "events", "--from", "tomorrow"], 2, "start, end"),
])
def test_wrong_usage_is_said(binary, tmp_path, words, code, says):
    done = subprocess.run([str(binary), *words, *(["--data-dir", str(tmp_path)] if words[0] == "marts" else [])],
                          capture_output=True, text=True, timeout=60, env=harness.environment())
    assert done.returncode == code and says in done.stderr, done.stderr
    assert "hunter2" not in done.stderr


def test_settings_of_kafka_come_from_anywhere_and_secrets_show_nowhere(binary, tmp_path):
    file = tmp_path / "clickstream.toml"
    file.write_text('kafka-property = ["security.protocol=SASL_SSL", "sasl.password=hunter2"]\nbroker = "kafka://a:1"\n')

    def shown(*flags, **env):
        done = subprocess.run([str(binary), "sessionize", *flags, "--print-config"], capture_output=True, text=True,
                              timeout=60, env=harness.environment(**env))
        assert done.returncode == 0 and "hunter2" not in done.stdout, done.stdout + done.stderr
        return tomllib.loads(done.stdout)

    from_file = shown("--config", str(file))
    assert from_file["broker"] == "kafka://a:1"
    assert from_file["kafka-property"] == ["security.protocol=SASL_SSL", "sasl.password=…"]
    from_variable = shown(CLICKSTREAM_KAFKA_PROPERTY="linger.ms=1\nsasl.password=hunter2", CLICKSTREAM_BROKER="kafka://b:1")
    assert from_variable["kafka-property"] == ["linger.ms=1", "sasl.password=…"]
    by_flag = shown("--kafka-property", "sasl.password=${env:X}", "--kafka-property", "sasl.pasword=hunter2")
    assert by_flag["kafka-property"] == ["sasl.password=${env:X}", "sasl.pasword=…"]


def serving_all(pipeline, sample):
    """Every part, once it is ready and rows are sent; and the wait for all to say a code."""
    pipeline.ask("topics", "create")
    served = [pipeline.serving(name, *flags) for name, *flags in
              (("sessionize",), ("lake",), ("marts",), ("produce", sample, "--rate", "50/s"))]
    parts = [part for part, _ in served]

    def all_say(code):
        for part, address in served:
            until(f"{part.name}: {code}", lambda address=address: get(address, "/readyz")[0] == code, 60, *parts)

    until("rows to be sent", lambda: metric(parts[-1], "clickstream_producer_transactions_total") > 0, 60, *parts)
    return served, parts, all_say


def test_an_outage_is_one_line_and_readiness_shows_it(binary, tmp_path, sample):
    """Of every part; a drain does not wait for its end."""
    cluster = Cluster()
    pipeline = Pipeline(binary, cluster, tmp_path, "outage.")
    try:
        served, parts, all_say = serving_all(pipeline, sample)
        cluster.kill()
        all_say(503)
        assert all(get(address, "/healthz")[0] == 200 for _, address in served)
        began = time.monotonic()
        found = pipeline.ask("check", "--json", check=False)
        assert time.monotonic() - began < 20 and found.code == 1, found.describe()
        assert [(one["what"], one["good"]) for one in json.loads(found.stdout)] == [("broker", False)], found.describe()
        cluster.start()
        all_say(200)
        for part in parts:
            assert part.says().count("no Kafka broker answers") == 1, part.describe()

        cluster.kill()
        all_say(503)
        for part in parts:
            part.signal(signal.SIGTERM)
        for part in parts:
            assert part.wait(20) == (3 if part.name == "produce" else 0), part.describe()
        # One that is started while none answers waits for it, and says so once.
        produce = pipeline.start("produce", sample, "--flat-out")
        pipeline.ask("check", check=False)
        cluster.start()
        assert produce.wait(180) == 0, produce.describe()
        assert produce.says().count("trying on for") == 1, produce.describe()
        sessionize = pipeline.start("sessionize")
        until("the rest", lambda: lag_is_zero(pipeline, "sessionizer"), 180, sessionize)
        sessionize.drain()
    finally:
        pipeline.end()
        cluster.end()


def test_a_broker_that_hangs(binary, tmp_path, sample):
    """For longer than members' sessions: every part says so, and goes on."""
    cluster = Cluster()
    pipeline = Pipeline(binary, cluster, tmp_path, "hangs.", ["--session-timeout", "6s"])
    try:
        _, parts, all_say = serving_all(pipeline, sample)
        hangs = int((cluster.folder / "node-1" / "pid").read_text())
        os.kill(hangs, signal.SIGSTOP)
        try:
            all_say(503)
        finally:
            os.kill(hangs, signal.SIGCONT)
        all_say(200)
        produce = parts[-1]
        sent = lambda: metric(produce, "clickstream_producer_transactions_total")  # noqa: E731
        before = sent()
        until("it to go on", lambda: sent() > before, 120, *parts)
        produce.drain()
        until("the rest", lambda: lag_is_zero(pipeline, "sessionizer"), 180, *parts[:-1])
        for part in parts[:-1]:
            part.drain()
    finally:
        pipeline.end()
        cluster.end()


def test_marts_moved_elsewhere_and_a_second_copy(on_kafka, sample, tmp_path):
    first = on_kafka.run(sample)
    # The folder's file goes to another machine: what it holds says where it goes on.
    moved = on_kafka.folder / "elsewhere"
    moved.mkdir()
    for file in on_kafka.data.glob("marts.db*"):
        file.rename(moved / file.name)
    elsewhere = Pipeline(on_kafka.binary, on_kafka.cluster, on_kafka.folder / "moved", on_kafka.prefix)
    elsewhere.data = moved
    marts, _ = elsewhere.serving("marts")
    marts.drain()
    assert_marts_equal(moved / "marts.db", Oracle([Source(first["source"], [sample])]))
    # An empty file under the same name would count what was counted: it is refused, and says what to do.
    empty = on_kafka.start("marts")
    assert empty.wait(180) == 1 and "marts.db" in empty.says(), empty.describe()
    # A copy of its own has a name of its own.
    copy = Pipeline(on_kafka.binary, on_kafka.cluster, on_kafka.folder / "copy", on_kafka.prefix)
    marts = copy.start("marts", "--instance", "copy")

    def events():
        try:
            with sqlite3.connect(f"file:{copy.marts}?mode=ro", uri=True) as db:
                return db.execute("SELECT sum(views + carts + purchases) FROM mart_traffic_hourly").fetchone()[0]
        except sqlite3.Error:
            return 0

    until("the copy to be whole", lambda: events() == 17_434, 180, marts)
    marts.drain()
    assert_marts_equal(copy.marts, Oracle([Source(first["source"], [sample])]))
