"""The sinks on Kafka: killed at every moment of their protocol, and put to sleep until others have their
place. The lake equals the oracle's, the warehouse's tables equal the lake."""
import signal
import time

import pytest

import harness
import make_input
from cluster import metric, until
from fakes.bigquery import BigQuery
from oracle import Oracle, Source, assert_lake_equal
from test_kafka import lag_is_zero
from test_warehouse import assert_tables_equal, init

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


def assert_whole(parts, rows, bigquery, produce, running):
    """Plays the rest, and waits for all that is to be stored."""
    produce.signal(signal.SIGTERM)
    assert produce.wait(180) in (0, 3), produce.describe()
    rest = parts.start("produce", rows, "--flat-out")
    assert rest.wait(180) == 0, rest.describe()
    until("the sessionizer to be done", lambda: lag_is_zero(parts, "sessionizer"), 180, *running)
    until("the warehouse to be done", lambda: lag_is_zero(parts, "warehouse"), 120, *running)
    for part in running:
        part.drain()
    oracle = Oracle([Source(rest.report()["source"], [rows])])
    assert_lake_equal(parts.lake, oracle)
    assert_tables_equal(bigquery, parts.lake)


def dies(part, moment):
    """It has to kill itself there."""
    until(f"a death at {moment}", lambda: not part.is_running(), 180)
    assert part.process.returncode == -signal.SIGKILL, f"{moment}: {part.describe()}"


def test_the_sinks_die_at_every_failpoint(parts, rows, bigquery, failpoint_binary):
    flags = (*bigquery.flags, "--instance", "one")
    sessionize = parts.start("sessionize")
    produce = parts.start("produce", rows, "--rate", f"{RATE}/s")
    of_kafka = ("kafka::before_offset_commit", "kafka::after_offset_commit")
    own = [f"warehouse::{when}_{what}" for what in ("plan", "write", "response", "commit") for when in ("before", "after")]
    for moment in (*own, *of_kafka):
        dies(parts.start("warehouse", *flags, "--warehouse-linger", "30ms", binary=failpoint_binary,
                         FAILPOINTS=f"{moment}=2*off->panic"), moment)
    for moment in (*(f"lake::{when}_{what}" for what in ("plan", "put", "commit") for when in ("before", "after")), *of_kafka):
        # It stores what it holds when it is asked to drain; a plan that stands, at once.
        flags_of_lake = {"binary": failpoint_binary, "FAILPOINTS": f"{moment}={'1*off->' if moment in of_kafka else ''}panic"}
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
