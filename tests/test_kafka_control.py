"""A replay of two shards on Kafka, steered through the topic replay-control."""
import json
import shlex
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone

import pytest

import harness
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


def test_what_has_ended_takes_no_orders(on_kafka, sample, tmp_path):
    on_kafka.ask("topics", "create")
    small = harness.write_csv(tmp_path / "small.csv", harness.lines_of(sample)[1][:50])
    produce = on_kafka.start("produce", small, "--flat-out")
    assert produce.wait(180) == 0, produce.describe()
    source = produce.report()["source"]
    for words in (["pause"], ["speed", "9x"], ["resume"]):
        refused = on_kafka.ask("control", *words, "--source", source, check=False)
        assert refused.code == 1 and f"source {source} has ended" in refused.stderr, refused.describe()
    assert "it has ended" in on_kafka.ask("control", "end", source).stdout
    looped = on_kafka.start("produce", small, "--flat-out", "--loop=2")
    assert looped.wait(180) == 0 and looped.report()["counts"]["events"] == 50, looped.describe()


def test_a_loop_is_steered_at_any_moment(on_kafka, sample, tmp_path):
    """Between two passes, too: there is none that has ended before the next one has begun."""
    on_kafka.ask("topics", "create")
    small = harness.write_csv(tmp_path / "small.csv", harness.lines_of(sample)[1][:20])
    looped = on_kafka.start("produce", small, "--flat-out", "--loop")

    def status():
        answer = on_kafka.ask("control", "status", "--json", check=False)
        return json.loads(answer.stdout) if answer.code == 0 else {"phase": answer.stderr}

    until("the first pass", lambda: status()["phase"] == "unfinished", 180, looped)
    seen = [status() for _ in range(20)]
    assert all(stands["phase"] == "unfinished" for stands in seen), seen
    assert len(seen[-1]["feeds"]) > len(seen[0]["feeds"]), "passes went by"
    assert json.loads(on_kafka.ask("control", "end", "--json").stdout)["end"]
    assert looped.wait(60) == 0, looped.describe()
    again = on_kafka.start("produce", small, "--flat-out", "--loop")
    assert again.wait(60) == 0 and again.report()["outcome"] == "already_done", again.describe()


def test_what_plays_elsewhere_is_named_as_such(on_kafka, sample, tmp_path):
    on_kafka.ask("topics", "create")
    _, rows = harness.lines_of(sample)
    first = harness.write_csv(tmp_path / "first.csv", rows[:200])
    other = harness.write_csv(tmp_path / "other.csv", rows[:300])
    plays, address = on_kafka.serving("produce", first, "--rate", "5/s")
    until("rows of the first", lambda: json.loads(get(address, "/replay")[1])["events"] > 0, 180, plays)
    said = on_kafka.ask("produce", other, "--flat-out", "--listen", "off").stdout
    line, = [line for line in said.splitlines() if "has not ended" in line]
    assert "of another source" in line and "Unless another process plays it now" in line, line
    source = json.loads(get(address, "/replay")[1])["source"]
    words = shlex.split(line.split("clickstream ")[-1])
    assert words == ["control", "end", source, *on_kafka.on()], line
    # It is looked at when all is done: what was there at the start has ended by then.
    slow, address = on_kafka.serving("produce", other, "--beside", "--limit", "299", "--rate", "5/s")
    until("rows of the slow one", lambda: json.loads(get(address, "/replay")[1])["events"] > 0, 180, slow, plays)
    slow_source = json.loads(get(address, "/replay")[1])["source"]
    for name, part in ((source, plays), (slow_source, slow)):
        on_kafka.ask("control", "rate", "50000/s", "--source", name)
        assert part.wait(60) == 0, part.describe()
    assert plays.report()["unfinished"] == [f"{slow_source}/0"], plays.describe()
    assert slow.report()["unfinished"] == [], slow.describe()


def test_a_page_where_nothing_is_played_says_where_to_steer(on_kafka):
    on_kafka.ask("topics", "create")
    marts, address = on_kafka.serving("marts")
    replay = json.loads(get(address, "/replay")[1])
    assert replay["plays"] is False and shlex.join(on_kafka.on()) in replay["says"], replay
    assert json.loads(get(address, "/api/status")[1])["phase"] is None
    request = urllib.request.Request(
        f"http://{address}/replay/pause", data=b"{}", headers={"Content-Type": "application/json"}, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code == 400 and "clickstream control --broker" in json.load(refused.value)["error"]
    marts.drain()
