"""The warehouse, against an emulator of BigQuery over HTTP and gRPC: tables equal to the lake of the
same run, which is held against the oracle."""
import collections
import json
import os
import re
import shutil
import signal
import threading

import duckdb
import pytest
from fakes.bigquery import BigQuery, money
from fakes.gcs import Gcs
from fakes.rest_proxy import LOST, RestProxy
from oracle import Oracle, Source, assert_lake_equal

import harness

TABLES = {"events": "events", "funnel_steps": "funnel-steps", "sessions": "sessions"}


@pytest.fixture
def bigquery(tmp_path):
    with BigQuery(tmp_path / "bigquery") as bigquery:
        yield bigquery


def init(binary, bigquery, *flags):
    return harness.command(binary, "warehouse", "init", *bigquery.flags, *flags)


def rows_of_table(bigquery, table, columns):
    shown = {"TIMESTAMP": "UNIX_MICROS({0})", "NUMERIC": "CAST({0} AS STRING)", "RECORD": "TO_JSON_STRING({0})"}
    select = ", ".join(shown.get(kind, "{0}").format(name) for name, kind in columns)
    return collections.Counter(
        tuple(typed(kind, value) for (_, kind), value in zip(columns, row)) for row in
        bigquery.query(f"SELECT {select} FROM `{bigquery.dataset}.{table}`")
    )


def typed(kind, value):
    if value is None:
        return None
    if kind == "NUMERIC":
        return money(value)
    if kind == "RECORD":
        return tuple(
            tuple(money(str(item[key])) if key == "value" else None if item.get(key) is None else str(item[key])
                  for key in ("product_id", "category_code", "brand", "value"))
            for item in json.loads(value)
        )
    return {"INTEGER": int, "TIMESTAMP": int, "BOOLEAN": lambda v: v in (True, "true")}.get(kind, str)(value)


def rows_of_lake(lake, topic, columns):
    shown = {"TIMESTAMP": "epoch_us({0})"}
    select = ", ".join(shown.get(kind, "{0}").format(name) for name, kind in columns)
    rows = duckdb.sql(f"SELECT {select} FROM read_parquet('{lake}/{topic}/*/*.parquet', hive_partitioning = false)").fetchall()

    def value(kind, value):
        if kind == "RECORD":
            return tuple((str(i["product_id"]), i["category_code"], i["brand"], money(i["value"])) for i in value)
        return money(value) if kind == "NUMERIC" else value

    return collections.Counter(tuple(value(kind, v) for (_, kind), v in zip(columns, row)) for row in rows)


def assert_tables_equal(bigquery, lake, repeats=False, refused=lambda table, partition, offset: False):
    """Every row of the lake that is not refused once (at least once, with `repeats`), and nothing else."""
    for table, topic in TABLES.items():
        columns = [(field["name"], field["type"]) for field in bigquery.table(table)["schema"]["fields"]]
        expected, actual = rows_of_lake(lake, topic, columns), rows_of_table(bigquery, table, columns)
        at = [[name for name, _ in columns].index(column) for column in ("topic_partition", "topic_offset")]
        expected = collections.Counter({row: n for row, n in expected.items() if not refused(table, *(row[i] for i in at))})
        assert expected, topic
        if repeats:
            actual = collections.Counter(actual.keys())
        missing, more = expected - actual, actual - expected
        assert not missing and not more, f"{table}: {len(missing)} missing, {len(more)} too many; {list((missing or more).items())[:2]}"


def assert_whole(clickstream, bigquery, ended, sample, repeats=False):
    assert_lake_equal(clickstream.lake, Oracle([Source(ended["source"], [sample])]))
    assert_tables_equal(bigquery, clickstream.lake, repeats)


SAMPLE_ROWS = 17434 + 12633 + 5067


def scraped(clickstream, sample, rows, *flags):
    """A run, and the warehouse's metrics once it has stored so many rows: by name, summed over the tables."""
    def sums(metrics):
        sums = collections.Counter()
        for name, value in metrics.items():
            if name.startswith(PREFIX) and "_bucket" not in name:
                sums[name.split("{")[0].removeprefix(PREFIX)] += value
        return sums

    process = clickstream.start(sample, *flags, "--stay", "--listen", "0")
    try:
        metrics = harness.metrics_until(process, clickstream, lambda metrics: sums(metrics)["rows_total"] >= rows)
    finally:
        process.send_signal(signal.SIGTERM)
        ended = harness.finish(process)
    assert ended.code == 0, ended.describe()
    assert sums(metrics)["rows_total"] == rows == ended.summary["warehouse"]["rows"], ended.describe()
    return ended, sums(metrics)


PREFIX = "clickstream_warehouse_"


def assert_fresh(metrics):
    """A sample of the rows has an age, of more than nothing and less than the test takes."""
    count, total = metrics["freshness_seconds_count"], metrics["freshness_seconds_sum"]
    assert SAMPLE_ROWS / 1000 < count < SAMPLE_ROWS and 0 < total / count < 60, metrics


def test_tables_equal_the_oracle(binary, clickstream, sample, bigquery):
    made = init(binary, bigquery)
    assert made.code == 0 and made.stdout.count("made ") == 5, made.describe()
    again = init(binary, bigquery)
    assert again.code == 0 and again.stdout.count("is there ") == 5, again.describe()
    ended = clickstream.done(sample, *bigquery.flags).summary
    assert_whole(clickstream, bigquery, ended, sample)
    assert ended["warehouse"]["rows"] == SAMPLE_ROWS and ended["warehouse"]["refused"] == 0
    assert ended["freshness"]["warehouse_ms"]["p50"] > 0
    assert bigquery.query(f"SELECT COUNT(*), COUNT(brand) FROM `{bigquery.dataset}.clickstream_partitioned_clustered`")[0][0] == "17434"
    # The same command again has nothing to send.
    assert clickstream.done(sample, *bigquery.flags).summary["warehouse"]["rows"] == 0


def counts(bigquery):
    return [int(bigquery.query(f"SELECT COUNT(*) FROM `{bigquery.dataset}.{table}`")[0][0]) for table in TABLES]


def test_restart_begins_beside_the_rows_that_are_there(binary, clickstream, sample, bigquery):
    """What was begun anew on purpose is told from a log that was lost."""
    init(binary, bigquery)
    clickstream.done(sample, *bigquery.flags)
    again = clickstream.done(sample, *bigquery.flags, "--restart", "--yes").summary
    assert again["outcome"] == "done" and again["warehouse"]["rows"] == SAMPLE_ROWS, again
    assert counts(bigquery) == [2 * 17434, 2 * 12633, 2 * 5067]
    assert clickstream.done(sample, *bigquery.flags).summary["warehouse"]["rows"] == 0
    shutil.rmtree(clickstream.data)
    lost = clickstream.run(sample, *bigquery.flags)
    assert lost.code == 1 and "already has rows, but no position is committed" in lost.stderr and "--restart" in lost.stderr, lost.describe()
    assert counts(bigquery) == [2 * 17434, 2 * 12633, 2 * 5067]


def test_a_table_that_was_made_again_stops_it(binary, clickstream, sample, bigquery):
    """Whether or not there is more to send; what has nothing in it may be made again."""
    init(binary, bigquery)
    bigquery.remake("sessions")
    clickstream.done(sample, *bigquery.flags)
    bigquery.remake("sessions")
    for _ in range(2):
        stopped = clickstream.run(sample, *bigquery.flags)
        assert stopped.code == 1 and "went into shop.clicks.sessions, which has none of them" in stopped.stderr, stopped.describe()
        assert "Put it back as it was" in stopped.stderr and "--restart" in stopped.stderr, stopped.describe()
    assert counts(bigquery) == [17434, 12633, 0]


def test_faults_on_the_wire(binary, clickstream, sample, tmp_path):
    faults = {0: "lost", 2: "cut", 4: "throttled", 6: "expired", 8: "slow", 9: "lost", 11: "gone", 13: "expired", 14: "cut", 20: "lost"}
    with BigQuery(tmp_path / "bigquery", faults) as bigquery:
        init(binary, bigquery)
        ended = clickstream.done(sample, *bigquery.flags, *PACED).summary
        assert ended["warehouse"]["requests"] > max(faults), ended["warehouse"]
        assert_whole(clickstream, bigquery, ended, sample)


# Paced, so that there are many appends.
PACED = ("--rate", "6000/s", "--warehouse-linger", "100ms")


@pytest.mark.parametrize(("fault", "streams"), [("exists", 1), ("gone", 1), ("stall", 0)])
def test_what_an_answer_costs(binary, clickstream, sample, tmp_path, fault, streams):
    """Rows that are said to be there before they were sent, and a stream that is gone, cost a stream; silence a repeat."""
    within = ("--warehouse-answer-within", "3s") if fault == "stall" else ()
    with BigQuery(tmp_path / "bigquery", {4: fault}) as bigquery:
        init(binary, bigquery)
        ended, metrics = scraped(clickstream, sample, SAMPLE_ROWS, *bigquery.flags, *PACED, *within)
        assert_whole(clickstream, bigquery, ended.summary, sample)
        written = sum(int(bigquery.query(f"SELECT COUNT(DISTINCT topic_partition) FROM `{bigquery.dataset}.{table}`")[0][0]) for table in TABLES)
        assert metrics["streams_total"] == written + streams, metrics
        assert (metrics["retries_total"] > 0) == (fault == "stall") and metrics["throttles_total"] == 0, metrics


def test_a_stream_with_fewer_rows_than_were_acknowledged_stops_it(binary, clickstream, sample, tmp_path):
    """And where that was not so, the same command goes on."""
    with BigQuery(tmp_path / "bigquery", {0: "beyond"}) as bigquery:
        init(binary, bigquery)
        stopped = clickstream.run(sample, *bigquery.flags, *PACED)
        assert stopped.code == 1 and "fewer rows than were acknowledged" in stopped.stderr, stopped.describe()
        assert_whole(clickstream, bigquery, clickstream.done(sample, *bigquery.flags).summary, sample)


def test_a_stream_that_is_gone_with_rows_in_doubt_is_settled_by_the_table(binary, failpoint_binary, sample, tmp_path):
    with BigQuery(tmp_path / "bigquery", {number: "gone" for number in range(1, 8)}) as bigquery, RestProxy(bigquery.url) as rest:
        init(binary, bigquery)
        flags = [rest.url if flag == bigquery.url else flag for flag in bigquery.flags]
        clickstream = harness.Clickstream(failpoint_binary, tmp_path / "data")
        killed = clickstream.run(sample, *flags, *SLOWLY, FAILPOINTS="warehouse::after_write=2*off->panic")
        assert killed.code == -signal.SIGKILL, killed.describe()
        assert_whole(clickstream, bigquery, clickstream.done(sample, *flags).summary, sample)
        assert any(path.endswith("/queries") for _, path in rest.requests), "nobody asked the table"


def test_metrics_after_faults(binary, clickstream, sample, tmp_path):
    faults = {1: "lost", 4: "throttled", 8: "rows", 12: "cut", 16: "expired"}
    with BigQuery(tmp_path / "bigquery", faults) as bigquery:
        init(binary, bigquery)
        ended, metrics = scraped(clickstream, sample, SAMPLE_ROWS - 1, *bigquery.flags, *PACED)
    assert metrics["refused_rows_total"] == 1 == ended.summary["warehouse"]["refused"]
    assert metrics["requests_total"] == ended.summary["warehouse"]["requests"] > max(faults)
    assert metrics["retries_total"] >= 3 and metrics["throttles_total"] >= 1, metrics
    assert metrics["streams_total"] >= len(TABLES) + 2 and metrics["unreadable_records_total"] == 0, metrics
    assert_fresh(metrics)
    # As the columns are: ids and times of 8 bytes, money of 16, text; repeats among them.
    assert 150 < metrics["sent_bytes_total"] / SAMPLE_ROWS < 300, metrics


def test_a_refused_row_is_a_dead_letter_and_the_rest_goes_in(binary, clickstream, sample, tmp_path):
    with BigQuery(tmp_path / "bigquery", {3: "rows"}) as bigquery:
        init(binary, bigquery)
        ended = clickstream.done(sample, *bigquery.flags).summary
        assert ended["warehouse"]["refused"] == 1 and ended["warehouse"]["rows"] == 35133, ended
        letters = duckdb.sql(f"SELECT reason FROM read_parquet('{clickstream.lake}/dead-letters/*/*.parquet')").fetchall()
        assert letters == [("the warehouse left it out: refused on purpose",)]


# So that a run comes by every moment early, and does not end before.
SLOWLY = ("--rate", "3000/s", "--warehouse-linger", "30ms")
MOMENTS = [f"warehouse::{when}_{what}" for what in ("plan", "write", "response", "commit") for when in ("before", "after")]


def test_deaths_at_every_failpoint(binary, failpoint_binary, sample, tmp_path, bigquery):
    init(binary, bigquery)
    clickstream = harness.Clickstream(failpoint_binary, tmp_path / "data")
    for moment in MOMENTS:
        for count in ("", "2*off->"):
            killed = clickstream.run(sample, *bigquery.flags, *SLOWLY, FAILPOINTS=f"{moment}={count}panic")
            assert killed.code == -signal.SIGKILL, f"{moment}: {killed.describe()}"
    ended = clickstream.done(sample, *bigquery.flags).summary
    assert_whole(clickstream, bigquery, ended, sample)


class Inserts:
    """Streaming inserts as they pass a proxy before the emulator, which refuses one row of the events in
    so many; and what they promise."""

    REFUSED = 101

    def __init__(self, bigquery, faults=None):
        """`faults`: what happens to the n-th insert, from 0."""
        self.bigquery, self.lock, self.ids = bigquery, threading.Lock(), {}
        self.faults, self.bodies, self.lost = faults or {}, [], set()
        self.rest = RestProxy(bigquery.url, self.at)

    @property
    def flags(self):
        return (*(self.rest.url if flag == self.bigquery.url else flag for flag in self.bigquery.flags), "--mode", "insert-all")

    def refuses(self, table, partition, offset):
        return table == "events" and offset % self.REFUSED == self.REFUSED - 1

    def at(self, method, path, body):
        if not path.endswith("/insertAll"):
            return None
        table, rows, errors = path.split("/")[-2], json.loads(body)["rows"], []
        with self.lock:
            fault = self.faults.get(len(self.bodies))
            self.bodies.append(len(body))
        for index, row in enumerate(rows):
            place = (table, int(row["json"]["topic_partition"]), int(row["json"]["topic_offset"]))
            with self.lock:
                self.ids.setdefault(place, []).append(row["insertId"])
            if self.refuses(*place):
                errors.append({"index": index, "errors": [{"reason": "invalid", "location": "price", "message": "on purpose"}]})
            if fault == LOST and not errors:
                self.lost.add(place)
        if fault or not errors:
            return fault
        wrong = {error["index"] for error in errors}
        stopped = [{"index": i, "errors": [{"reason": "stopped"}]} for i in range(len(rows)) if i not in wrong]
        return {"insertErrors": [*stopped, *errors]}

    def assert_whole(self, lake):
        """No row is missing, and none that is there twice had two ids; what was refused is a dead letter, once."""
        assert_tables_equal(self.bigquery, lake, repeats=True, refused=self.refuses)
        assert all(len(set(ids)) == 1 for ids in self.ids.values()), "a row was sent with two ids"
        assert len({ids[0] for ids in self.ids.values()}) == len(self.ids), "two rows were sent with one id"
        letters = duckdb.sql(f"SELECT record_partition, record_offset FROM read_parquet('{lake}/dead-letters/*/*.parquet')").fetchall()
        refused = [place[1:] for place in self.ids if self.refuses(*place)]
        assert refused and sorted(letters) == sorted(refused)


def test_streaming_inserts_are_there_at_least_once(binary, failpoint_binary, sample, tmp_path, bigquery):
    """A plan is committed before it is sent only where rows were refused."""
    init(binary, bigquery)
    clickstream, inserts = harness.Clickstream(failpoint_binary, tmp_path / "data"), Inserts(bigquery)
    with inserts.rest:
        for moment in MOMENTS:
            killed = clickstream.run(sample, *inserts.flags, *SLOWLY, FAILPOINTS=f"{moment}=2*off->panic")
            assert killed.code == -signal.SIGKILL, f"{moment}: {killed.describe()}"
        ended = clickstream.done(sample, *inserts.flags).summary
    assert ended["totals"]["events"] == 17434, ended
    inserts.assert_whole(clickstream.lake)


def test_inserts_that_fail_are_sent_again(binary, clickstream, sample, bigquery):
    """What was refused as a whole is there once, whatever the reason; of what an answer was lost, at least once."""
    quota = [(403, "quotaExceeded", "Exceeded quota"), (403, "rateLimitExceeded", "Exceeded rate limits"), (429, "", "too many requests")]
    faults = dict(zip(range(2, 16, 2), [*quota, (500, "internalError", "no"), (503, "backendError", "no"), LOST, LOST]))
    init(binary, bigquery)
    inserts = Inserts(bigquery, faults)
    inserts.REFUSED = 1 << 40
    with inserts.rest:
        ended, metrics = scraped(clickstream, sample, SAMPLE_ROWS, *inserts.flags)
    assert inserts.lost and all(len(inserts.ids[place]) > 1 for place in inserts.lost)
    assert_tables_equal(bigquery, clickstream.lake, repeats=True)
    for table in TABLES:
        places = bigquery.query(f"SELECT topic_partition, topic_offset, COUNT(*) FROM `{bigquery.dataset}.{table}` GROUP BY 1, 2")
        repeated = {(table, int(p), int(o)) for p, o, n in places if int(n) > 1}
        assert repeated <= inserts.lost, f"{table}: {sorted(repeated - inserts.lost)[:3]}"
    # Of what is under way together in one partition, one answer is heard: all are sent again.
    assert 0 < metrics["throttles_total"] <= len(quota) and metrics["throttles_total"] < metrics["retries_total"] <= len(faults), metrics
    assert metrics["requests_total"] == len(inserts.bodies) == ended.summary["warehouse"]["requests"], metrics
    assert metrics["sent_bytes_total"] == sum(inserts.bodies), metrics
    assert metrics["streams_total"] == 0, metrics
    assert_fresh(metrics)


def test_the_ddl_makes_what_init_makes(binary, bigquery):
    ddl = harness.command(binary, "warehouse", "ddl", "--warehouse", bigquery.dataset)
    assert ddl.code == 0, ddl.describe()
    bigquery.call("POST", "datasets", {"datasetReference": {"projectId": "shop", "datasetId": "clicks"}})
    statements = [statement for statement in ddl.stdout.split(";\n") if statement.strip()]
    assert len(statements) == 4
    for statement in statements:
        # The emulator cannot read NOT NULL within a STRUCT, which GoogleSQL has.
        bigquery.query(re.sub(r"STRUCT<[^>]*>", lambda struct: struct[0].replace(" NOT NULL", ""), statement))
    made = init(binary, bigquery)
    assert made.code == 0 and made.stdout.count("is there ") == 5, made.describe()
    assert harness.command(binary, "check", *bigquery.flags).code == 0


def test_check_finds_what_is_wrong(binary, bigquery):
    wrong = harness.command(binary, "check", *bigquery.flags)
    assert wrong.code == 1 and "WRONG warehouse shop.clicks" in wrong.stdout and "no dataset" in wrong.stdout, wrong.describe()
    init(binary, bigquery, "--location", "EU")
    right = harness.command(binary, "check", *bigquery.flags, "--location", "EU")
    assert right.code == 0 and "ok    warehouse shop.clicks" in right.stdout, right.describe()
    wrong = harness.command(binary, "check", *bigquery.flags, "--location", "US")
    assert wrong.code == 1 and "is in EU, not in US" in wrong.stdout, wrong.describe()


EVENTS_CLUSTERED = "event_type, category_code, brand, product_id"


@pytest.mark.parametrize(
    ("changes", "runs", "says"),
    [
        ({"timePartitioning": {"type": "MONTH", "field": "event_time"}}, True,
         ["- PARTITION BY TIMESTAMP_TRUNC(event_time, MONTH)", "+ PARTITION BY DATE(event_time)"]),
        ({"timePartitioning": None}, True, ["- (no PARTITION BY)"]),
        ({"clustering": {"fields": ["brand"]}}, True, ["- CLUSTER BY brand", f"+ CLUSTER BY {EVENTS_CLUSTERED}"]),
        ({"timePartitioning": {"type": "DAY", "field": "event_time", "expirationMs": "5184000000"}}, False,
         ["partition_expiration_days = 60", "ALTER TABLE `shop.clicks.events` SET OPTIONS (partition_expiration_days = NULL)"]),
        ({"price": {"precision": "5", "scale": "2"}}, False, ["- price NUMERIC(5, 2) NOT NULL", "+ price NUMERIC(12, 2) NOT NULL"]),
        ({"schema": None, "timePartitioning": None, "clustering": None,
          "view": {"query": "SELECT 1 AS one", "useLegacySql": False}}, False, ["- VIEW", "+ TABLE"]),
    ],
    ids=["by month", "not partitioned", "clustered otherwise", "expiring", "short prices", "a view"],
)
def test_a_table_that_is_otherwise_is_told_by_all(binary, clickstream, bigquery, tmp_path, changes, runs, says):
    """`check` and `init` fail, `run` where rows would not go in or not stay."""
    init(binary, bigquery)
    if price := changes.pop("price", None):
        fields = bigquery.table("events")["schema"]["fields"]
        changes["schema"] = {"fields": [{**f, **price} if f["name"] == "price" else f for f in fields]}
    bigquery.remake("events", **changes)
    one = harness.write_csv(tmp_path / "one.csv", ["2019-10-01 00:00:00 UTC,view,1,2,,,3.00,4,s\n"])
    looked, made, ran = harness.command(binary, "check", *bigquery.flags), init(binary, bigquery), clickstream.run(one, *bigquery.flags)
    assert looked.code == 1 and "WRONG warehouse shop.clicks" in looked.stdout and "as they must be" not in looked.stdout, looked.describe()
    assert made.code == 1 and "differs   shop.clicks.events" in made.stdout, made.describe()
    assert ran.code == (0 if runs else 1), ran.describe()
    for text in says:
        assert text in looked.stdout and text in made.stdout and text in ran.stderr, f"{text}: {looked.describe()}{made.describe()}{ran.describe()}"
    assert runs or not clickstream.marts.exists(), "nothing was begun"


def test_columns_are_added_where_the_layout_differs_too(binary, clickstream, bigquery, tmp_path):
    """What `run` advises is what `init` does."""
    init(binary, bigquery)
    fields = [field for field in bigquery.table("events")["schema"]["fields"] if field["name"] != "sent_at"]
    bigquery.remake("events", schema={"fields": fields}, clustering={"fields": ["brand"]})
    one = harness.write_csv(tmp_path / "one.csv", ["2019-10-01 00:00:00 UTC,view,1,2,,,3.00,4,s\n"])
    refused = clickstream.run(one, *bigquery.flags)
    assert refused.code == 1 and "+ sent_at TIMESTAMP" in refused.stderr and "init --add-columns" in refused.stderr, refused.describe()
    added = init(binary, bigquery, "--add-columns")
    assert added.code == 1 and "extended  shop.clicks.events\n  + sent_at TIMESTAMP" in added.stdout, added.describe()
    assert "differs   shop.clicks.events" in added.stdout and "- CLUSTER BY brand" in added.stdout, added.describe()
    clickstream.done(one, *bigquery.flags)
    assert counts(bigquery) == [1, 1, 1]


def test_tables_do_not_take_the_expiration_of_their_dataset(binary, bigquery):
    """Which BigQuery gives to what is made there."""
    def given(method, path, body):
        if method == "POST" and path.endswith("/tables") and b"timePartitioning" in body:
            table = json.loads(body)
            table["timePartitioning"]["expirationMs"] = "5184000000"
            return bigquery.call("POST", "datasets/clicks/tables", table)

    with RestProxy(bigquery.url, given) as rest:
        made = harness.command(binary, "warehouse", "init", *(rest.url if flag == bigquery.url else flag for flag in bigquery.flags))
        assert made.code == 0 and made.stdout.count("made ") == 5, made.describe()
    for table in TABLES:
        partitioned = bigquery.table(table)["timePartitioning"]
        assert partitioned["type"] == "DAY" and partitioned["field"] and not partitioned.get("expirationMs"), partitioned


def test_check_sees_the_view_and_the_storage_api(binary, bigquery):
    init(binary, bigquery)
    path = "datasets/clicks/tables"
    reference = {"projectId": "shop", "datasetId": "clicks", "tableId": "clickstream_partitioned_clustered"}
    bigquery.call("DELETE", f"{path}/clickstream_partitioned_clustered")
    looked = harness.command(binary, "check", *bigquery.flags)
    assert looked.code == 1 and "no view shop.clicks.clickstream_partitioned_clustered" in looked.stdout, looked.describe()
    bigquery.call("POST", path, {"tableReference": reference, "schema": {"fields": [{"name": "event_time", "type": "TIMESTAMP"}]}})
    looked = harness.command(binary, "check", *bigquery.flags)
    assert looked.code == 1 and "is something else: - TABLE + VIEW AS SELECT" in looked.stdout, looked.describe()
    bigquery.call("DELETE", f"{path}/clickstream_partitioned_clustered")
    init(binary, bigquery)
    nobody = [f"http://127.0.0.1:{harness.free_port()}" if flag == bigquery.flags[-1] else flag for flag in bigquery.flags]
    looked = harness.command(binary, "check", *nobody)
    assert looked.code == 1 and "the Storage API does not answer" in looked.stdout, looked.describe()


@pytest.mark.parametrize("fault", [(503, "backendError", "later"), (429, "rateLimitExceeded", "later")], ids=["503", "429"])
def test_a_fault_that_passes_stops_nobody_at_the_start(binary, clickstream, bigquery, tmp_path, fault):
    """Each call of REST fails once."""
    one = harness.write_csv(tmp_path / "one.csv", ["2019-10-01 00:00:00 UTC,view,1,2,,,3.00,4,s\n"])
    asked = set()

    def once(method, path, body):
        if (method, path) not in asked and not path.endswith(":testIamPermissions"):
            asked.add((method, path))
            return fault

    with RestProxy(bigquery.url, once) as rest:
        flags = [rest.url if flag == bigquery.url else flag for flag in bigquery.flags]
        made = harness.command(binary, "warehouse", "init", *flags)
        assert made.code == 0 and made.stdout.count("made ") == 5, made.describe()
        asked.clear()
        looked = harness.command(binary, "check", *flags)
        assert looked.code == 0, looked.describe()
        asked.clear()
        clickstream.done(one, *flags)


def test_a_bigquery_that_hangs_holds_up_nobody(binary, clickstream, sample, tmp_path):
    """It is given up after --warehouse-retry, and a drain ends in time; the same command goes on."""
    with BigQuery(tmp_path / "bigquery", {}) as bigquery:
        init(binary, bigquery)
        bigquery.hangs()
        process = clickstream.start(sample, *bigquery.flags, "--listen", "0", "--warehouse-retry", "1s", "--stay")
        try:
            stuck = lambda m: m.get("clickstream_warehouse_stuck") == 1 and m["clickstream_producer_events_total"] == 17_434
            harness.metrics_until(process, clickstream, stuck)
        finally:
            process.send_signal(signal.SIGTERM)
            assert harness.finish(process, timeout=20).code == 0
        process = clickstream.start(sample, *bigquery.flags, "--listen", "0")
        held = lambda m: m.get("clickstream_warehouse_held_bytes", 0) > 0 and m["clickstream_marts_lag_records"] == 0
        harness.metrics_until(process, clickstream, held)
        process.send_signal(signal.SIGTERM)
        ended = harness.finish(process, timeout=20)
        assert ended.code == 3 and "did not drain" not in ended.stderr, ended.describe()
        bigquery.hangs(False)
        assert_whole(clickstream, bigquery, clickstream.done(sample, *bigquery.flags).summary, sample)


def test_a_lake_that_the_dataset_cannot_read_is_told(binary, clickstream, sample, bigquery):
    """Both are written to all the same; what cannot be seen is not guessed at."""
    init(binary, bigquery, "--location", "EU")
    for location, good, says in [
        ("US", False, "the dataset shop.clicks is in EU, gs://shop/lake in US"),
        ("EU", True, "gs://shop/lake is in EU, shop.clicks in EU"),
        (None, True, None),
    ]:
        with Gcs("shop", location=location) as gcs:
            flags = (*bigquery.flags, "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)
            looked = harness.command(binary, "check", *flags)
            assert (looked.code == 0) == good, looked.describe()
            assert f"{'ok   ' if good else 'WRONG'} places: {says}" in looked.stdout if says else "places" not in looked.stdout
            assert "ok    lake gs://shop/lake" in looked.stdout and "it is in EU" in looked.stdout, looked.stdout
            if not good:
                ended = clickstream.done(sample, *flags)
                assert ended.stderr.count(says) == 1, ended.describe()


def test_what_has_the_views_name_is_told(binary, bigquery):
    """In a dataset of the batch pipelines it is a table."""
    init(binary, bigquery)
    reference = {"projectId": "shop", "datasetId": "clicks", "tableId": "clickstream_partitioned_clustered"}
    for there, says in [
        ({"schema": {"fields": [{"name": "event_time", "type": "TIMESTAMP"}]}}, "- TABLE"),
        ({"view": {"query": "SELECT 1 AS one", "useLegacySql": False}}, "- VIEW AS SELECT 1 AS one"),
    ]:
        bigquery.call("DELETE", "datasets/clicks/tables/clickstream_partitioned_clustered")
        bigquery.call("POST", "datasets/clicks/tables", {"tableReference": reference, **there})
        told = init(binary, bigquery)
        assert told.code == 1 and "differs   shop.clicks.clickstream_partitioned_clustered" in told.stdout, told.describe()
        assert says in told.stdout and "+ VIEW AS SELECT event_time, event_type" in told.stdout, told.stdout


def test_a_table_with_another_schema_is_told_with_a_diff(binary, clickstream, sample, bigquery):
    init(binary, bigquery)
    path = "datasets/clicks/tables"
    without = lambda name: lambda fields: [field for field in fields if field["name"] != name]
    in_list = lambda change: lambda fields: [{**f, "fields": change(f["fields"])} if "fields" in f else f for f in fields]
    for name, change, says, mends in [
        ("events", without("sent_at"), ["+ sent_at TIMESTAMP"], True),
        ("sessions", in_list(without("brand")), ["- left_in_cart ARRAY<STRUCT<product_id", "+ left_in_cart ARRAY<STRUCT<product_id"], True),
        ("events", lambda fields: [{**f, "type": "STRING"} if f["name"] == "user_id" else f for f in fields],
         ["- user_id STRING NOT NULL", "+ user_id INT64 NOT NULL"], False),
    ]:
        whole = bigquery.table(name)
        bigquery.call("DELETE", f"{path}/{name}")
        table = {key: whole[key] for key in ("tableReference", "timePartitioning", "clustering") if key in whole}
        bigquery.call("POST", path, {**table, "schema": {"fields": change(whole["schema"]["fields"])}})
        refused = clickstream.run(sample, *bigquery.flags)
        assert refused.code == 1 and f"shop.clicks.{name} has another schema" in refused.stderr, refused.describe()
        assert all(line in refused.stderr for line in says), refused.stderr
        assert not clickstream.broker.exists() or "events" not in refused.stdout
        told = init(binary, bigquery)
        assert told.code == 1 and all(line in told.stdout for line in says), told.describe()
        added = init(binary, bigquery, "--add-columns")
        assert (added.code == 0) == mends, added.describe()


@pytest.mark.parametrize("wrong", ["no dataset", "no table", "no server", "another region", "no credentials"])
def test_what_is_wrong_is_told_in_one_message(binary, clickstream, sample, bigquery, tmp_path, wrong):
    if wrong == "no dataset":
        refused, says = clickstream.run(sample, *bigquery.flags), ["no dataset shop.clicks", "clickstream warehouse init"]
    elif wrong == "no table":
        init(binary, bigquery)
        bigquery.call("DELETE", "datasets/clicks/tables/sessions")
        refused, says = clickstream.run(sample, *bigquery.flags), ["no table shop.clicks.sessions", "clickstream warehouse init"]
    elif wrong == "no server":
        flags = ("--warehouse", "shop.clicks", "--bigquery-endpoint", f"http://127.0.0.1:{harness.free_port()}")
        refused, says = clickstream.run(sample, *flags), ["shop.clicks", "start again"]
    elif wrong == "another region":
        init(binary, bigquery, "--location", "EU")
        refused, says = init(binary, bigquery, "--location", "US"), ["shop.clicks is in EU, not in US"]
        assert refused.code == 1 and all(text in refused.stderr for text in says), refused.describe()
        refused = clickstream.run(sample, *bigquery.flags, "--location", "US")
        assert not clickstream.marts.exists(), "nothing was begun"
    else:
        missing = tmp_path / "key.json"
        refused = clickstream.run(sample, "--warehouse", "shop.clicks", "--google-credentials", str(missing))
        says = ["key.json", "shop.clicks"]
    assert refused.code == 1, refused.describe()
    message = refused.stderr.strip().splitlines()[-1]
    assert all(text in message for text in says), message


def test_a_real_project(binary, clickstream, sample):
    """Runs where CLICKSTREAM_TEST_WAREHOUSE=PROJECT.DATASET and credentials are given."""
    dataset = os.environ.get("CLICKSTREAM_TEST_WAREHOUSE")
    if not dataset:
        pytest.skip("NOT TESTED against a real project: CLICKSTREAM_TEST_WAREHOUSE=PROJECT.DATASET (an empty one) names it")
    flags = ("--warehouse", dataset)
    made = harness.command(binary, "warehouse", "init", *flags)
    assert made.code == 0, made.describe()
    ended = clickstream.done(sample, *flags, timeout=600).summary
    assert ended["warehouse"]["rows"] == SAMPLE_ROWS, ended
