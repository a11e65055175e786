"""The sinks on Kafka: killed at every moment of their protocol, and put to sleep until others have their
place. The lake equals the oracle's, the warehouse's tables equal the lake."""
import re
import signal
import time

import pytest

import harness
import make_input
from cluster import metric, until
from fakes.bigquery import BigQuery
from fakes.gcs import Gcs
from oracle import Oracle, Source, assert_lake_equal
from test_cloud_lake import MOMENTS as LAKE_MOMENTS
from test_kafka import lag_is_zero
from test_kafka_faults import remove_records
from test_warehouse import MOMENTS, Inserts, assert_tables_equal, init

PASSES = 2
ROWS = PASSES * make_input.ROWS_A_PASS
# So slowly that there is something to store at every death, on a slow machine too.
RATE = 300
SESSION_SECONDS = 6
LAKE_ATTEMPTS = 50


@pytest.fixture
def rows():
    return make_input.make(harness.cache() / f"input-{PASSES}.csv", PASSES)


@pytest.fixture
def bigquery(tmp_path):
    with BigQuery(tmp_path / "bigquery") as bigquery:
        yield bigquery


@pytest.fixture
def parts(on_kafka, binary, bigquery):
    init(binary, bigquery)
    on_kafka.flags += ["--session-timeout", f"{SESSION_SECONDS}s"]
    on_kafka.ask("topics", "create")
    return on_kafka


def play_the_rest(parts, rows, produce, running):
    """Waits for all that is to be stored; the source that was played."""
    produce.signal(signal.SIGTERM)
    assert produce.wait(180) in (0, 3), produce.describe()
    rest = parts.start("produce", rows, "--flat-out")
    assert rest.wait(180) == 0, rest.describe()
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    until("the warehouse to be done", lambda: lag_is_zero(parts, "warehouse"), 120, *running)
    for part in running:
        part.drain()
    return Source(rest.report()["source"], [rows])


def assert_whole(parts, rows, bigquery, produce, running):
    source = play_the_rest(parts, rows, produce, running)
    assert_lake_equal(parts.lake, Oracle([source]))
    assert_tables_equal(bigquery, parts.lake)


def dies(part, moment):
    """It has to kill itself there."""
    until(f"a death at {moment}", lambda: not part.is_running(), 180)
    assert part.process.returncode == -signal.SIGKILL, f"{moment}: {part.describe()}"


OF_KAFKA = ("kafka::before_offset_commit", "kafka::after_offset_commit")
# Of the transactions that hold dead letters.
OF_LETTERS = ("kafka::before_send_offsets", "kafka::before_commit", "kafka::after_commit")


def kill_the_warehouse(parts, failpoint_binary, flags, moments):
    for moment in moments:
        part = parts.start("warehouse", *flags, "--warehouse-linger", "30ms", binary=failpoint_binary, FAILPOINTS=f"{moment}=2*off->panic")
        dies(part, moment)


def test_the_sinks_die_at_every_failpoint(parts, rows, bigquery, failpoint_binary):
    flags = (*bigquery.flags, "--instance", "one")
    sessionize = parts.start("sessionize")
    produce = parts.start("produce", rows, "--rate", f"{RATE}/s")
    kill_the_warehouse(parts, failpoint_binary, flags, [*MOMENTS, *OF_KAFKA])
    for moment in (*LAKE_MOMENTS, *OF_KAFKA):
        # It stores what it holds when it is asked to drain; a plan that stands, at once.
        flags_of_lake = {"binary": failpoint_binary, "FAILPOINTS": f"{moment}={'1*off->' if moment in OF_KAFKA else ''}panic"}
        for _ in range(LAKE_ATTEMPTS):
            part = parts.start("lake", "--instance", "one", "--listen", "127.0.0.1:0", **flags_of_lake)
            until("rows to store", lambda part=part: not part.is_running() or holds_rows(part), 180)
            if part.is_running():
                part.signal(signal.SIGTERM)
            # One that had but a part of a plan's rows ends with nothing to store.
            if part.wait(180) != 0:
                break
        dies(part, moment)
    assert produce.is_running(), "the input has to last for all deaths"
    running = [sessionize, parts.start("warehouse", *flags), parts.start("lake", "--instance", "one")]
    assert_whole(parts, rows, bigquery, produce, running)


def test_a_lake_in_a_bucket_dies_at_every_moment(on_kafka, sample, failpoint_binary, tmp_path):
    on_kafka.ask("topics", "create")
    sessionize = on_kafka.start("sessionize")
    source = play(on_kafka, sample)
    until("the sessionizer to be done", lambda: lag_is_zero(on_kafka, "sessionizer"), 180, sessionize)
    with Gcs("shop") as gcs:
        at = ("--instance", "one", "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url, "--lake-file-age", "500ms")
        for moment in LAKE_MOMENTS:
            dies(on_kafka.start("lake", *at, binary=failpoint_binary, FAILPOINTS=f"{moment}=panic"), moment)
        lake = on_kafka.start("lake", *at)
        until("the lake to be done", lambda: lag_is_zero(on_kafka, "lake"), 180, lake)
        lake.drain()
        assert_lake_equal(gcs.save("shop", "lake", tmp_path / "lake"), Oracle([Source(source, [sample])]))


def test_streaming_inserts_die_at_every_failpoint(parts, rows, bigquery, failpoint_binary):
    """Rows that are refused are left out by a plan, whose transaction has their dead letters."""
    inserts = Inserts(bigquery)
    with inserts.rest:
        flags = (*inserts.flags, "--instance", "one")
        running = [parts.start("sessionize"), parts.start("lake")]
        produce = parts.start("produce", rows, "--rate", f"{RATE}/s")
        kill_the_warehouse(parts, failpoint_binary, flags, [*MOMENTS, *OF_KAFKA, *OF_LETTERS])
        assert produce.is_running(), "the input has to last for all deaths"
        source = play_the_rest(parts, rows, produce, [*running, parts.start("warehouse", *flags)])
    assert_lake_equal(parts.lake, Oracle([source]))
    inserts.assert_whole(parts.lake)


def test_records_that_are_gone_are_not_skipped(parts, kafka, bigquery, sample):
    """One that reads on, and one that is started: which offset of which partition, and nothing is sent."""
    one = ("--instance", "one")
    running = parts.start("sessionize"), parts.start("lake"), parts.serving("warehouse", *bigquery.flags, *one)[0]
    first = play(parts, sample)
    until("all to be stored", lambda: all(lag_is_zero(parts, group) for group in ("sessionizer", "warehouse")), 180, *running)
    for part in running[:2]:
        part.drain()
    assert_tables_equal(bigquery, parts.lake)
    warehouse = running[2]
    warehouse.signal(signal.SIGSTOP)
    # What it had asked for is answered with the first rows that come, if need be with all of one replay.
    for _ in range(2):
        play(parts, sample, "--restart")
    events = f"{parts.prefix}events"
    remove_records(kafka, events)
    warehouse.signal(signal.SIGCONT)
    for start in (lambda: warehouse, lambda: parts.start("warehouse", *bigquery.flags, *one)):
        part = start()
        assert part.wait(180) == 1, part.describe()
        says = [line for line in part.says().splitlines() if line.startswith("clickstream: warehouse: ")]
        assert len(says) == 1, part.describe()
        # Topic and partition, the offset that it wanted, and that it is gone.
        assert re.search(rf"{re.escape(events)}-\d(, offset|: the warehouse's position is) \d+.*records (are gone|were deleted)", says[0]), says
    found = parts.ask("check", check=False)
    assert found.code == 1 and f"group {parts.prefix}warehouse: its position is outside the log" in found.stdout, found.describe()
    # What it had read when they went may have been sent; what it had sent was not sent again.
    assert dict(bigquery.query(f"SELECT source, COUNT(*) FROM `{bigquery.dataset}.events` GROUP BY source"))[first] == "17434"


def play(parts, path, *flags):
    produce = parts.start("produce", path, "--flat-out", *flags)
    assert produce.wait(180) == 0, produce.describe()
    return produce.report()["source"]


def holds_rows(lake):
    """It has rows that it has yet to store."""
    return metric(lake, "clickstream_lake_open_bytes") > 0


def stored(warehouse):
    return metric(warehouse, "clickstream_warehouse_rows_total")


def test_a_warehouse_that_lost_its_place_goes_on(parts, rows, bigquery):
    """Stopped for longer than its session may last, with rows under way; then woken."""
    flags = (*bigquery.flags, "--warehouse-linger", "100ms", "--listen", "127.0.0.1:0", "--instance")
    first, second = parts.start("warehouse", *flags, "first"), parts.start("warehouse", *flags, "second")
    running = [first, second, parts.start("sessionize"), parts.start("lake")]
    produce = parts.start("produce", rows, "--rate", f"{RATE}/s")
    until("both to have stored something", lambda: min(stored(first), stored(second)) > 100, 180, *running)
    before = stored(first)
    first.signal(signal.SIGSTOP)
    time.sleep(SESSION_SECONDS + 2)
    has = stored(second)
    until("the other to go on", lambda: stored(second) > has + 100, 180, second)
    first.signal(signal.SIGCONT)
    until("it to go on as well", lambda: stored(first) > before + 100, 180, *running)
    assert_whole(parts, rows, bigquery, produce, running)
