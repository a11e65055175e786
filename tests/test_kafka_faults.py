"""What a cluster and its users do to the parts short of killing them: zombies, rivals, more and fewer
of a kind, topics made again, partitions added, positions that expired. Nothing is lost or counted
twice, and what cannot go on says why."""
import signal
import time

import pytest

import harness
import make_input
from cluster import metric, until
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal
from test_kafka import SOON, lag_is_zero

PASSES = 8
ROWS = PASSES * make_input.ROWS_A_PASS
# The least that a broker takes by default.
SESSION_SECONDS = 6


@pytest.fixture(scope="module")
def rows():
    return make_input.make(harness.cache() / f"input-{PASSES}.csv", PASSES)


@pytest.fixture
def parts(on_kafka):
    on_kafka.flags += ["--session-timeout", f"{SESSION_SECONDS}s"]
    on_kafka.ask("topics", "create")
    return on_kafka


def play(parts, rows, seconds):
    return parts.start("produce", rows, "--rate", f"{ROWS // seconds}/s")


def assert_whole(parts, rows, running):
    """Once the input is done, what is running drains; all outputs are the oracle's."""
    for part in running:
        part.drain()
    ended = parts.run(rows)
    assert ended["outcome"] == "already_done" and ended["totals"]["events"] == ROWS
    oracle = Oracle([Source(ended["source"], [rows])])
    assert_marts_equal(parts.marts, oracle)
    assert_lake_equal(parts.lake, oracle)


def test_a_zombie_comes_back(parts, rows):
    """Stopped for longer than its session and its transaction may last, and then woken."""
    first, second = parts.start("sessionize", "--instance", "first"), parts.start("sessionize", "--instance", "second")
    lake, other = parts.start("lake", "--instance", "first"), parts.start("lake", "--instance", "second")
    produce = play(parts, rows, 24)
    time.sleep(4)
    for part in (first, lake):
        part.signal(signal.SIGSTOP)
    # Longer than the session, and than a transaction that was open.
    time.sleep(SESSION_SECONDS + 6)
    for part in (first, lake):
        part.signal(signal.SIGCONT)
    assert produce.wait(180) == 0, produce.describe()
    running = (first, second, lake, other)
    until("the sessionizers to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    assert_whole(parts, rows, running)


def test_a_rival_of_the_same_name(parts, rows):
    """Of two live processes of one name one goes on, and the other says why it does not."""
    old, produce = parts.start("sessionize", "--instance", "same"), play(parts, rows, 10)
    lake = parts.start("lake", "--instance", "same")
    time.sleep(3)
    new, rival_lake = parts.start("sessionize", "--instance", "same"), parts.start("lake", "--instance", "same")

    def loser(pair):
        gone = [part for part in pair if not part.is_running()]
        return gone and gone[0]

    for pair in ((old, new), (lake, rival_lake)):
        lost = until("one of them to give way", lambda pair=pair: loser(pair), 180)
        assert lost.process.returncode == 1 and "same instance" in lost.says(), lost.describe()
        assert sum(part.is_running() for part in pair) == 1
    # Two that play the same input: one of them does.
    twin = play(parts, rows, 10)
    codes = sorted([produce.wait(180), twin.wait(180)])
    assert codes in ([0, 0], [0, 1]), produce.describe() + twin.describe()
    if codes == [0, 1]:
        lost = next(part for part in (produce, twin) if part.process.returncode == 1)
        assert "another producer" in lost.says(), lost.describe()
    running = [part for part in (old, new, lake, rival_lake) if part.is_running()]
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    assert_whole(parts, rows, running)


def test_one_becomes_three_becomes_one(parts, rows):
    running = [parts.start("sessionize"), parts.start("lake")]
    produce = play(parts, rows, 20)
    time.sleep(3)
    # Their names come of themselves, and none is taken twice.
    more = [parts.start(part, "--listen", "127.0.0.1:0", *flags) for part, *flags in (("sessionize",), ("sessionize",), ("lake", *SOON))]
    work = {"sessionize": "clickstream_sessionizer_events_total", "lake": "clickstream_lake_rows_total"}
    until("each to have its share", lambda: all(metric(part, work[part.name]) > 0 for part in more), 180, *more)
    counts = [part.drain()["counts"] for part in more]
    assert all(count.get("events", count.get("rows")) > 0 for count in counts), counts
    assert produce.wait(180) == 0, produce.describe()
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    assert_whole(parts, rows, running)


def stops(parts, name, *says):
    part = parts.start(name)
    assert part.wait(180) == 1, part.describe()
    for text in says:
        assert text in part.says(), part.describe()


def test_a_topic_made_again_is_not_gone_on_with(on_kafka, kafka, sample):
    first = on_kafka.run(sample)
    events = f"{on_kafka.prefix}events"
    kafka.tool("TopicCommand", "--delete", "--topic", events)
    until("it to be gone", lambda: events not in kafka.tool("TopicCommand", "--list"), 180)
    on_kafka.ask("topics", "create")
    # A group's positions go with their topic; the marts have the topic's id.
    stops(on_kafka, "sessionize", "no committed position")
    stops(on_kafka, "lake", "no position is committed")
    stops(on_kafka, "marts", "made from another log")
    # Nothing was counted a second time.
    assert_marts_equal(on_kafka.marts, Oracle([Source(first["source"], [sample])]))


def test_a_partition_added_is_not_gone_on_with(on_kafka, kafka, sample):
    on_kafka.run(sample)
    kafka.tool("TopicCommand", "--alter", "--topic", f"{on_kafka.prefix}events", "--partitions", "5")
    stops(on_kafka, "sessionize", "partitions")
    assert on_kafka.ask("check", check=False).code == 1


def test_positions_that_expired_are_not_begun_anew(on_kafka, kafka, sample):
    first = on_kafka.run(sample)
    for group in ("sessionizer", "lake", "marts"):
        kafka.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--delete", "--group", f"{on_kafka.prefix}{group}")
    stops(on_kafka, "sessionize", "no committed position")
    stops(on_kafka, "lake", "no position is committed")
    # The marts hold theirs themselves.
    marts = on_kafka.start("marts")
    until("its positions to be back", lambda: lag_is_zero(on_kafka, "marts"), 180, marts)
    marts.drain()
    assert_marts_equal(on_kafka.marts, Oracle([Source(first["source"], [sample])]))
