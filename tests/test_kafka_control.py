"""A replay of two shards on Kafka, steered through the topic replay-control."""
import json
import time
from datetime import datetime, timezone

from cluster import get, until
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal
from test_kafka import lag_is_zero
from test_kafka_clients import messages, read_all  # noqa: F401: a fixture

SHARDS = ("0/2", "1/2")
# How long after the stated instant a shard on a machine that does much else may still hear of it.
PATIENCE_US = 3_000_000


def instant(told):
    at = datetime.strptime(told["effective_at"], "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=timezone.utc)
    return int(at.timestamp() * 1_000_000)


def rows_of_both(on_kafka, shards):
    """Committed: what was only sent is lost with its shard, and nobody knows of that one."""
    def are_there():
        status = on_kafka.ask("control", "status", "--json", check=False)
        return status.code == 0 and sum(feed["events"] > 0 for feed in json.loads(status.stdout)["feeds"]) == len(SHARDS)
    until("rows of both shards", are_there, 180, *[part for part, _ in shards])


def test_two_shards_obey_at_one_instant(on_kafka, kafka, messages, sample):  # noqa: F811
    on_kafka.ask("topics", "create")
    sinks = [on_kafka.start(name) for name in ("sessionize", "lake", "marts")]
    # Most of a minute, unless it is told otherwise.
    shards = [on_kafka.serving("produce", sample, "--shard", shard, "--rate", "400/s") for shard in SHARDS]
    parts = [part for part, _ in shards]
    replays = lambda: [json.loads(get(address, "/replay")[1]) for _, address in shards]  # noqa: E731
    control = lambda *words: json.loads(on_kafka.ask("control", *words, "--json").stdout)  # noqa: E731
    all_say = lambda what, says: until(what, lambda: all(says(replay) for replay in replays()), 180, *parts)  # noqa: E731

    rows_of_both(on_kafka, shards)
    paused = control("pause")
    all_say("both to pause", lambda replay: replay["paused"])
    stands = control("status")
    assert stands["paused"] and stands["phase"] == "unfinished" and len(stands["feeds"]) == 2, stands
    assert all(feed["events"] > 0 and not feed["ended"] for feed in stands["feeds"]), stands
    # So long that a pause which one of them had not heard of would show.
    time.sleep(2 * PATIENCE_US / 1_000_000)
    resumed = control("resume")
    all_say("both to go on", lambda replay: not replay["paused"])
    assert control("rate", "500/s")["rate"] == 500
    all_say("the rate", lambda replay: replay["rate"] == 500)
    assert control("speed", "100x")["speed"] == 100
    all_say("the speed", lambda replay: replay["speed"] == 100)
    assert control("rate", "50000/s")["rate"] == 50_000
    for part in parts:
        assert part.wait(180) == 0, part.describe()
    assert control("status", "--source", paused["source"])["phase"] == "ended"

    for group in ("sessionizer", "marts"):
        until(f"{group} to be done", lambda group=group: lag_is_zero(on_kafka, group), 120, *sinks)
    for sink in sinks:
        sink.drain(timeout=30)
    oracle = Oracle([Source(paused["source"], [sample], shards=2)])
    assert_marts_equal(on_kafka.marts, oracle)
    assert_lake_equal(on_kafka.lake, oracle)

    # Each record says for when it was meant: nothing was meant for the time between the two instants,
    # and both shards were at work until the one and from the other.
    pause_us, resume_us = instant(paused), instant(resumed)
    assert resume_us - pause_us > 2 * PATIENCE_US
    kinds = messages.EventType
    meant = {0: [], 1: []}
    for record in read_all(kafka, f"{on_kafka.prefix}events"):
        event = messages.Event.FromString(record.value())
        if event.event_type in (kinds.VIEW, kinds.CART, kinds.PURCHASE):
            meant[event.shard].append(int.from_bytes(dict(record.headers())["intended-at"], "big", signed=True))
    assert sum(map(len, meant.values())) == 17_434
    for shard, times in meant.items():
        between = [at for at in times if pause_us + PATIENCE_US < at < resume_us]
        assert not between, f"shard {shard}: {len(between)} rows were meant for the pause"
        before, after = max(at for at in times if at < resume_us), min(at for at in times if at >= resume_us)
        print(f"shard {shard}: stood {(before - pause_us) / 1000:.1f} ms from the pause, went on {(after - resume_us) / 1000:.1f} ms after")
        assert before > pause_us - 1_000_000 and after < resume_us + 1_000_000, (shard, before - pause_us, after - resume_us)


def test_an_end_that_is_written_for_shards_that_do_not_come_back(on_kafka, sample):
    on_kafka.ask("topics", "create")
    sinks = [on_kafka.start(name) for name in ("sessionize", "lake", "marts")]
    shards = [on_kafka.serving("produce", sample, "--shard", shard, "--rate", "400/s") for shard in SHARDS]
    rows_of_both(on_kafka, shards)
    for part, _ in shards:
        part.kill()
    told = json.loads(on_kafka.ask("control", "end", "--json").stdout)
    assert told["end"] and sorted(told["ended"]) == [f"{told['source']}/0", f"{told['source']}/1"], told
    again = on_kafka.start("produce", sample, "--shard", "0/2", "--flat-out")
    assert again.wait(180) == 0 and again.report()["outcome"] == "already_done", again.describe()
    until("the sessionizer to be done", lambda: lag_is_zero(on_kafka, "sessionizer"), 120, *sinks)
    counts = sinks[0].drain(timeout=30)["counts"]
    assert counts["sessions"] > 0 and counts["events"] > 0, counts


def test_an_end_that_shards_which_run_write_themselves(on_kafka, sample):
    on_kafka.ask("topics", "create")
    shards = [on_kafka.serving("produce", sample, "--shard", shard, "--rate", "400/s") for shard in SHARDS]
    rows_of_both(on_kafka, shards)
    on_kafka.ask("control", "end")
    for part, _ in shards:
        assert part.wait(180) == 0, part.describe()
    assert json.loads(on_kafka.ask("control", "status", "--json", "--source", shards[0][0].report()["source"]).stdout)["phase"] == "ended"
