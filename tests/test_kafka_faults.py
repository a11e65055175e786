"""What a cluster and its users do to the parts short of killing them: zombies, rivals, more and fewer
of a kind, topics made again, partitions added, positions that expired, records that are gone,
transactions that time out, a full disk. Nothing is lost or counted twice, and what cannot go on says why."""
import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import IsolationLevel, Producer, TopicPartition, admin

import harness
import make_input
from cluster import Cluster, Pipeline, metric, until
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal
from test_kafka import SOON, lag_is_zero

# The least that a broker takes by default.
SESSION_SECONDS = 6


class Rows:
    """The sample so many times over."""

    def __init__(self, passes):
        self.count = passes * make_input.ROWS_A_PASS
        self.path = make_input.make(harness.cache() / f"input-{passes}.csv", passes)

    def play(self, parts, seconds, **how):
        return parts.start("produce", self.path, "--rate", f"{self.count // seconds}/s", **how)


@pytest.fixture(scope="module")
def rows(request):
    return Rows(request.config.getoption("--fault-passes"))


@pytest.fixture(scope="module")
def log():
    """Of faults: the moment of each."""
    path = Path(os.environ.get("CARGO_TARGET_DIR", harness.ROOT / "target")) / "faults-kafka.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", buffering=1) as file:
        file.write("test\tat_seconds\tfault\n")
        yield file


@pytest.fixture
def fault(request, log):
    began = time.monotonic()
    return lambda what: log.write(f"{request.node.name}\t{time.monotonic() - began:.2f}\t{what}\n")


@pytest.fixture
def parts(on_kafka):
    on_kafka.flags += ["--session-timeout", f"{SESSION_SECONDS}s"]
    on_kafka.ask("topics", "create")
    return on_kafka


def assert_whole(parts, rows, running):
    """Once the input is done, what is running drains; all outputs are the oracle's."""
    for part in running:
        part.drain()
    ended = parts.run(rows.path)
    assert ended["outcome"] == "already_done" and ended["totals"]["events"] == rows.count
    oracle = Oracle([Source(ended["source"], [rows.path])])
    assert_marts_equal(parts.marts, oracle)
    assert_lake_equal(parts.lake, oracle)


def test_a_zombie_comes_back(parts, rows, fault):
    """Stopped for longer than its session and its transaction may last, and then woken."""
    first, second = parts.start("sessionize", "--instance", "first"), parts.start("sessionize", "--instance", "second")
    lake, other = parts.start("lake", "--instance", "first"), parts.start("lake", "--instance", "second")
    produce = rows.play(parts, 24)
    time.sleep(4)
    for part in (first, lake):
        fault(f"SIGSTOP {part.name}")
        part.signal(signal.SIGSTOP)
    # Longer than the session, and than a transaction that was open.
    time.sleep(SESSION_SECONDS + 6)
    for part in (first, lake):
        fault(f"SIGCONT {part.name}")
        part.signal(signal.SIGCONT)
    assert produce.wait(180) == 0, produce.describe()
    running = (first, second, lake, other)
    until("the sessionizers to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    assert_whole(parts, rows, running)


def test_a_rival_of_the_same_name(parts, rows, fault):
    """Of two live processes of one name one goes on, and the other says why it does not."""
    old, produce = parts.start("sessionize", "--instance", "same"), rows.play(parts, 10)
    lake = parts.start("lake", "--instance", "same")
    time.sleep(3)
    fault("a second sessionizer and lake of the same instance")
    new, rival_lake = parts.start("sessionize", "--instance", "same"), parts.start("lake", "--instance", "same")

    def loser(pair):
        gone = [part for part in pair if not part.is_running()]
        return gone and gone[0]

    for pair in ((old, new), (lake, rival_lake)):
        lost = until("one of them to give way", lambda pair=pair: loser(pair), 180)
        assert lost.process.returncode == 1 and "same instance" in lost.says(), lost.describe()
        assert sum(part.is_running() for part in pair) == 1
    # Two that play the same input: one of them does.
    fault("a second producer of the same feed")
    twin = rows.play(parts, 10)
    codes = sorted([produce.wait(180), twin.wait(180)])
    assert codes in ([0, 0], [0, 1]), produce.describe() + twin.describe()
    if codes == [0, 1]:
        lost = next(part for part in (produce, twin) if part.process.returncode == 1)
        assert "another producer" in lost.says(), lost.describe()
    running = [part for part in (old, new, lake, rival_lake) if part.is_running()]
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    assert_whole(parts, rows, running)


def test_one_becomes_three_becomes_one(parts, rows, fault):
    running = [parts.start("sessionize"), parts.start("lake")]
    produce = rows.play(parts, 20)
    time.sleep(3)
    fault("one becomes three")
    # Their names come of themselves, and none is taken twice.
    more = [parts.start(part, "--listen", "127.0.0.1:0", *flags) for part, *flags in (("sessionize",), ("sessionize",), ("lake", *SOON))]
    work = {"sessionize": "clickstream_sessionizer_events_total", "lake": "clickstream_lake_rows_total"}
    until("each to have its share", lambda: all(metric(part, work[part.name]) > 0 for part in more), 180, *more)
    fault("three become one")
    counts = [part.drain()["counts"] for part in more]
    assert all(count.get("events", count.get("rows")) > 0 for count in counts), counts
    assert produce.wait(180) == 0, produce.describe()
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    assert_whole(parts, rows, running)


def test_sessionizers_of_other_rules_do_not_share_a_group(on_kafka, sample):
    """Before there is any event to tell them apart by."""
    on_kafka.ask("topics", "create")
    other = ("--gap", "10m")
    # What made nothing binds nobody who is alone.
    on_kafka.serving("sessionize", *other)[0].drain()
    first, _ = on_kafka.serving("sessionize")
    stops(on_kafka, "sessionize", "begun with --gap 30m, not 10m", flags=other)
    stops(on_kafka, "sessionize", "begun with --allowed-lateness 0s, not 1m", flags=("--allowed-lateness", "1m"))
    # Of two that begin at once, one at most goes on.
    first.drain()
    both = [on_kafka.start("sessionize"), on_kafka.start("sessionize", *other)]
    until("one of them to stop", lambda: not all(part.is_running() for part in both), 120, *both)
    for part in both:
        if part.is_running():
            part.drain()
        else:
            assert part.process.returncode == 1 and "it was begun with --gap" in part.says(), part.describe()
    ended = on_kafka.run(sample)
    assert_marts_equal(on_kafka.marts, Oracle([Source(ended["source"], [sample])]))


def stops(parts, name, *says, flags=()):
    part = parts.start(name, *flags)
    assert part.wait(180) == 1, part.describe()
    for text in says:
        assert text in part.says(), part.describe()


def test_a_topic_made_again_is_not_gone_on_with(on_kafka, kafka, sample, fault):
    first = on_kafka.run(sample)
    events = f"{on_kafka.prefix}events"
    fault("events deleted")
    kafka.tool("TopicCommand", "--delete", "--topic", events)
    until("it to be gone", lambda: events not in kafka.tool("TopicCommand", "--list"), 180)
    on_kafka.ask("topics", "create")
    # A group's positions go with their topic; the marts have the topic's id.
    stops(on_kafka, "sessionize", "no committed position")
    stops(on_kafka, "lake", "no position is committed")
    stops(on_kafka, "marts", "made from another log")
    # Nothing was counted a second time.
    assert_marts_equal(on_kafka.marts, Oracle([Source(first["source"], [sample])]))


def test_a_topic_made_again_while_nobody_looks(on_kafka, kafka, sample, fault):
    """The parts are stopped meanwhile, and the new log is longer than the old one was: every offset of
    theirs is in it, and means something else."""
    on_kafka.ask("topics", "create")
    running = [on_kafka.start("sessionize"), on_kafka.start("marts"), on_kafka.start("lake", *SOON)]
    produce = on_kafka.start("produce", sample, "--flat-out")
    assert produce.wait(180) == 0, produce.describe()
    for group in ("sessionizer", "marts", "lake"):
        until(f"{group} to be done", lambda group=group: lag_is_zero(on_kafka, group), 120, *running)
    for part in running:
        part.signal(signal.SIGSTOP)
    client, topic = admin.AdminClient({"bootstrap.servers": kafka.servers}), f"{on_kafka.prefix}events"
    fault("events deleted while the parts are stopped")
    client.delete_topics([topic])[topic].result(30)
    until("it to be gone", lambda: topic not in client.list_topics(timeout=30).topics, 60)
    on_kafka.ask("topics", "create")
    for _ in range(2):
        play_once_more(on_kafka, sample)
    for part in running:
        part.signal(signal.SIGCONT)
    for part in running:
        assert part.wait(180) == 1 and "was deleted and made again" in part.says(), part.describe()
    oracle = Oracle([Source(produce.report()["source"], [sample])])
    assert_marts_equal(on_kafka.marts, oracle)
    assert_lake_equal(on_kafka.lake, oracle)


def test_partitions_added_in_the_middle_of_a_feed(on_kafka, kafka, sample, fault):
    """Keys move between partitions: nobody goes on until the feed has ended, and then all do."""
    on_kafka.ask("topics", "create")
    soon = ("--kafka-property", "topic.metadata.refresh.interval.ms=1000")
    sessionize, produce = on_kafka.start("sessionize", *soon), on_kafka.start("produce", sample, "--rate", "400/s")
    until("rows to be committed", lambda: "0 events" not in on_kafka.ask("control", "status", check=False).stdout, 120, produce)
    fault("a partition added to three topics")
    for name in ("funnel-steps", "sessions", "events"):
        kafka.tool("TopicCommand", "--alter", "--topic", f"{on_kafka.prefix}{name}", "--partitions", "5")
    moved = "had 4 partitions and now has 5"
    assert sessionize.wait(180) == 1 and moved in sessionize.says(), sessionize.describe()
    produce.kill()
    produce = on_kafka.start("produce", sample, "--flat-out")
    assert produce.wait(180) == 1 and moved in produce.says() and "control end" in produce.says(), produce.describe()
    stops(on_kafka, "sessionize", moved)
    on_kafka.ask("control", "end")
    sessionize = on_kafka.start("sessionize")
    play_once_more(on_kafka, sample)
    until("the sessionizer to be done", lambda: lag_is_zero(on_kafka, "sessionizer"), 180, sessionize)
    assert sessionize.drain()["counts"]["finished_feeds"] == 2 * 5


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


def remove_records(kafka, topic):
    """All that the topic holds now, as retention would."""
    client = admin.AdminClient({"bootstrap.servers": kafka.servers})
    partitions = client.list_topics(topic, 30).topics[topic].partitions
    # -1: up to the high watermark.
    removed = client.delete_records([TopicPartition(topic, number, -1) for number in partitions])
    assert all(done.result(60).low_watermark > 0 for done in removed.values())


def play_once_more(parts, path):
    produce = parts.start("produce", path, "--restart", "--flat-out")
    assert produce.wait(180) == 0, produce.describe()


def test_records_that_are_gone_are_not_skipped(on_kafka, kafka, sample):
    first = on_kafka.run(sample)
    sessionize, _ = on_kafka.serving("sessionize")
    sessionize.signal(signal.SIGSTOP)
    play_once_more(on_kafka, sample)
    remove_records(kafka, f"{on_kafka.prefix}events")
    # One that reads on, and those that are started.
    sessionize.signal(signal.SIGCONT)
    assert sessionize.wait(180) == 1 and "outside the log" in sessionize.says(), sessionize.describe()
    for part in ("sessionize", "lake", "marts"):
        stops(on_kafka, part, f"{on_kafka.prefix}events-")
    found = on_kafka.ask("check", check=False)
    assert found.code == 1 and "its position is outside the log" in found.stdout, found.describe()
    oracle = Oracle([Source(first["source"], [sample])])
    assert_marts_equal(on_kafka.marts, oracle)
    assert_lake_equal(on_kafka.lake, oracle)


def test_records_that_were_gone_before_anyone_came_are_told(on_kafka, kafka, sample):
    on_kafka.ask("topics", "create")
    assert on_kafka.start("produce", sample, "--flat-out", "--limit", "1000").wait(180) == 0
    remove_records(kafka, f"{on_kafka.prefix}events")
    for name in ("sessionize", "lake", "marts"):
        part, _ = on_kafka.serving(name)
        part.drain()
        assert "begins late" in part.says() and f"{on_kafka.prefix}events-0 are gone" in part.says(), part.describe()


def test_a_strangers_record_among_the_progress_stops_nobody(on_kafka, kafka, sample):
    on_kafka.ask("topics", "create")
    stranger = Producer({"bootstrap.servers": kafka.servers})
    for key in (b"what", b"\xff", None):
        stranger.produce(f"{on_kafka.prefix}replay-progress", key=key or b"", value=b"\xff garbage")
    stranger.flush(30)
    ended = on_kafka.run(sample)
    assert_marts_equal(on_kafka.marts, Oracle([Source(ended["source"], [sample])]))
    assert on_kafka.ask("control", "status", check=False).code == 1
    assert "every source here has ended" in on_kafka.ask("control", "pause", check=False).stderr
    # One under a feed's name is the feed's: nobody guesses what it said.
    stranger.produce(f"{on_kafka.prefix}replay-progress", key=f"{ended['source']}/0".encode(), value=b"\xff garbage")
    stranger.flush(30)
    stops(on_kafka, "produce", "replay-progress-0 offset", flags=(sample,))


def test_transactions_that_time_out_are_done_again(parts, rows, failpoint_binary, fault):
    """Each sleeps once in an open transaction, for longer than the broker leaves it open; it looks for
    such ones every ten seconds."""
    parts.flags += ["--transaction-timeout", "3s"]
    fault("each is to sleep 15 s in a transaction")
    sleeps = lambda after: {"binary": failpoint_binary, "FAILPOINTS": f"kafka::before_commit={after}*off->1*sleep(15000)->off"}  # noqa: E731
    sessionize, lake = parts.start("sessionize", **sleeps(5)), parts.start("lake")
    produce = rows.play(parts, 10, **sleeps(100))
    assert produce.wait(180) == 0, produce.describe()
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, sessionize, lake)
    assert "the broker did not take it; trying again" in produce.says(), produce.describe()
    assert "going back to the last commit" in sessionize.says(), sessionize.describe()
    assert_whole(parts, rows, [sessionize, lake])


def is_held(kafka, topic):
    """Whether a transaction hides a good many commits that came after it began."""
    client = admin.AdminClient({"bootstrap.servers": kafka.servers})
    partition = TopicPartition(topic, 0)

    def end(level):
        return client.list_offsets({partition: admin.OffsetSpec.latest()}, isolation_level=level)[partition].result(30).offset

    return end(IsolationLevel.READ_COMMITTED) + 20 < end(IsolationLevel.READ_UNCOMMITTED)


def test_an_open_transaction_hides_nothing_from_who_comes_back(on_kafka, kafka, sample, failpoint_binary, fault):
    """One shard hangs in a transaction, and the other is killed and comes back: what it has committed
    since then cannot be read yet, and is not to be sent again."""
    on_kafka.ask("topics", "create")
    sinks = [on_kafka.start(name) for name in ("sessionize", "lake", "marts")]
    killed = on_kafka.start("produce", sample, "--shard", "0/2", "--rate", "400/s")

    def has_begun():
        status = on_kafka.ask("control", "status", "--json", check=False)
        return status.code == 0 and any(feed["events"] > 0 for feed in json.loads(status.stdout)["feeds"])

    # One that comes while the other hangs would wait for it, and have nothing to hide.
    until("rows of the one that is killed", has_begun, 120, killed)
    hangs = on_kafka.start("produce", sample, "--shard", "1/2", "--rate", "400/s", binary=failpoint_binary,
                           FAILPOINTS="kafka::before_commit=20*off->1*sleep(15000)->off")
    until("commits to be hidden", lambda: is_held(kafka, f"{on_kafka.prefix}replay-progress"), 120, hangs, killed)
    fault("SIGKILL produce while another hangs in a transaction")
    killed.kill()
    again = on_kafka.start("produce", sample, "--shard", "0/2", "--flat-out")
    assert again.wait(180) == 0, again.describe()
    assert hangs.wait(180) == 0, hangs.describe()
    for group in ("sessionizer", "marts"):
        until(f"{group} to be done", lambda group=group: lag_is_zero(on_kafka, group), 120, *sinks)
    for sink in sinks:
        sink.drain(timeout=30)
    oracle = Oracle([Source(again.report()["source"], [sample], shards=2)])
    assert_marts_equal(on_kafka.marts, oracle)
    assert_lake_equal(on_kafka.lake, oracle)
    assert "a transaction of another writer is open" in again.says(), again.describe()


@pytest.fixture
def broken_brokers(request):
    """What brokers lose is Kafka's; how long it takes to settle differs by minutes."""
    if not request.config.getoption("--broken-brokers"):
        pytest.skip("NOT TESTED here: a full disk, one of three brokers killed (make kafka-kills)")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "clickstream-test", folder], capture_output=True, text=True)
    if mounted.returncode:
        harness.not_tested(f"a full disk: a small one cannot be mounted here ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk):
    with open(disk / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
        except OSError as error:
            assert error.errno == errno.ENOSPC, error


def abort_what_hangs(cluster, prefix):
    """Transactions that the broker has forgotten and its logs have not, by Kafka's own tool."""
    for name in ("events", "funnel-steps", "sessions", "dead-letters", "replay-progress"):
        topic = f"{prefix}{name}"
        partitions = admin.AdminClient({"bootstrap.servers": cluster.servers}).list_topics(topic, 30).topics[topic].partitions
        for partition in partitions:
            of = ("--topic", topic, "--partition", str(partition))
            lines = cluster.tool("org.apache.kafka.tools.TransactionsCommand", "describe-producers", *of).splitlines()
            head = next(at for at, line in enumerate(lines) if line.startswith("ProducerId"))
            column = lines[head].split().index("CurrentTransactionStartOffset")
            for line in lines[head + 1:]:
                if (start := line.split()[column]) != "None":
                    cluster.tool("org.apache.kafka.tools.TransactionsCommand", "abort", *of, "--start-offset", start)


def test_a_full_disk(binary, broken_brokers, small_disk, rows, tmp_path, fault):
    """The broker gives up; the parts wait for it, and go on when there is room again. It may have forgotten
    a transaction that its logs have: that is said, and they go on once it is ended."""
    cluster = Cluster(properties=[f"log.dirs={small_disk / 'logs'}", "log.index.size.max.bytes=1048576"])
    parts = Pipeline(binary, cluster, tmp_path, "full.")
    try:
        parts.ask("topics", "create")
        running = [parts.serving(name)[0] for name in ("sessionize", "lake")]
        produce = rows.play(parts, 10)
        time.sleep(2)
        fault("the disk is full")
        fill(small_disk)
        until("the broker to give up", lambda: not cluster.runs(), 180, *running)
        for part in (*running, produce):
            until("that it says so", lambda part=part: "no Kafka broker answers" in part.says(), 180, part)
        fault("the disk has room, and the broker starts")
        os.remove(small_disk / "filler")
        cluster.start()
        has_stopped = produce.wait(600) != 0
        if has_stopped:
            assert "stays open" in produce.says() and "kafka-transactions.sh" in produce.says(), produce.describe()
        for part in running:
            part.drain()
        abort_what_hangs(cluster, parts.prefix)
        running = [parts.serving(name)[0] for name in ("sessionize", "lake")]
        if has_stopped:
            produce = rows.play(parts, 10)
            assert produce.wait(180) == 0, produce.describe()
        until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
        assert_whole(parts, rows, running)
    finally:
        parts.end()
        cluster.end()


def test_a_leader_killed_under_load(binary, broken_brokers, rows, tmp_path, fault):
    """Of three brokers each leads some partitions, groups and transactions; two of them die in turn."""
    cluster = Cluster(nodes=3, heap="256m")
    parts = Pipeline(binary, cluster, tmp_path, "three.")
    try:
        parts.ask("topics", "create")
        running = [parts.serving(name)[0] for name in ("sessionize", "lake", "marts")]
        produce = rows.play(parts, 20)
        for node in (1, 2):
            time.sleep(2)
            fault(f"SIGKILL broker {node}")
            cluster.kill(node)
            time.sleep(2)
            cluster.start(node)
            until("its replicas to be in sync", lambda: is_in_sync(cluster, parts.prefix), 180, *running)
        assert produce.wait(300) == 0, produce.describe()
        until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
        assert_whole(parts, rows, running)
    finally:
        parts.end()
        cluster.end()


def is_in_sync(cluster, prefix):
    """Every partition of every topic has all its replicas: one more broker may go."""
    topics = admin.AdminClient({"bootstrap.servers": cluster.servers}).list_topics(timeout=30).topics
    partitions = [partition for topic in topics.values() for partition in topic.partitions.values()]
    return f"{prefix}events" in topics and all(len(partition.isrs) == cluster.nodes for partition in partitions)
