"""The warehouse, against an emulator of BigQuery over HTTP and gRPC: tables equal to the lake of the
same run, which is held against the oracle."""
import collections
import json
import os
import re
import signal

import duckdb
import pytest
from fakes.bigquery import BigQuery, money
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


def assert_tables_equal(bigquery, lake, repeats=False):
    """Every row of the lake once (at least once, with `repeats`), and nothing else."""
    for table, topic in TABLES.items():
        columns = [(field["name"], field["type"]) for field in bigquery.table(table)["schema"]["fields"]]
        expected, actual = rows_of_lake(lake, topic, columns), rows_of_table(bigquery, table, columns)
        assert expected, topic
        if repeats:
            actual = collections.Counter(actual.keys())
        missing, more = expected - actual, actual - expected
        assert not missing and not more, f"{table}: {len(missing)} missing, {len(more)} too many; {list((missing or more).items())[:2]}"


def assert_whole(clickstream, bigquery, ended, sample, repeats=False):
    assert_lake_equal(clickstream.lake, Oracle([Source(ended["source"], [sample])]))
    assert_tables_equal(bigquery, clickstream.lake, repeats)


def test_tables_equal_the_oracle(binary, clickstream, sample, bigquery):
    made = init(binary, bigquery)
    assert made.code == 0 and made.stdout.count("made ") == 5, made.describe()
    again = init(binary, bigquery)
    assert again.code == 0 and again.stdout.count("is there ") == 5, again.describe()
    ended = clickstream.done(sample, *bigquery.flags).summary
    assert_whole(clickstream, bigquery, ended, sample)
    assert ended["warehouse"]["rows"] == 17434 + 12633 + 5067 and ended["warehouse"]["refused"] == 0
    assert ended["freshness"]["warehouse_ms"]["p50"] > 0
    assert bigquery.query(f"SELECT COUNT(*), COUNT(brand) FROM `{bigquery.dataset}.clickstream_partitioned_clustered`")[0][0] == "17434"
    # The same command again has nothing to send.
    assert clickstream.done(sample, *bigquery.flags).summary["warehouse"]["rows"] == 0


def test_faults_on_the_wire(binary, clickstream, sample, tmp_path):
    faults = {0: "lost", 2: "cut", 4: "throttled", 6: "expired", 8: "slow", 9: "lost", 13: "expired", 14: "cut", 20: "lost"}
    with BigQuery(tmp_path / "bigquery", faults) as bigquery:
        init(binary, bigquery)
        # Paced, so that there are many appends.
        ended = clickstream.done(sample, *bigquery.flags, "--rate", "6000/s", "--warehouse-linger", "100ms").summary
        assert ended["warehouse"]["requests"] > max(faults), ended["warehouse"]
        assert_whole(clickstream, bigquery, ended, sample)


def test_a_refused_row_is_a_dead_letter_and_the_rest_goes_in(binary, clickstream, sample, tmp_path):
    with BigQuery(tmp_path / "bigquery", {3: "rows"}) as bigquery:
        init(binary, bigquery)
        ended = clickstream.done(sample, *bigquery.flags).summary
        assert ended["warehouse"]["refused"] == 1 and ended["warehouse"]["rows"] == 35133, ended
        letters = duckdb.sql(f"SELECT reason FROM read_parquet('{clickstream.lake}/dead-letters/*/*.parquet')").fetchall()
        assert letters == [("the warehouse left it out: refused on purpose",)]


# So that a run comes by every moment early, and does not end before.
SLOWLY = ("--rate", "3000/s", "--warehouse-linger", "30ms")


def test_deaths_at_every_failpoint(binary, failpoint_binary, sample, tmp_path, bigquery):
    init(binary, bigquery)
    clickstream = harness.Clickstream(failpoint_binary, tmp_path / "data")
    moments = [f"{when}_{what}" for what in ("plan", "write", "response", "commit") for when in ("before", "after")]
    for moment in moments:
        for count in ("", "2*off->"):
            killed = clickstream.run(sample, *bigquery.flags, *SLOWLY, FAILPOINTS=f"warehouse::{moment}={count}panic")
            assert killed.code == -signal.SIGKILL, f"{moment}: {killed.describe()}"
    ended = clickstream.done(sample, *bigquery.flags).summary
    assert_whole(clickstream, bigquery, ended, sample)


def test_streaming_inserts_are_there_at_least_once(binary, failpoint_binary, sample, tmp_path, bigquery):
    init(binary, bigquery)
    clickstream = harness.Clickstream(failpoint_binary, tmp_path / "data")
    insert = (*bigquery.flags, "--mode", "insert-all")
    for moment in ("before_write", "after_write", "after_response", "before_commit", "after_commit"):
        killed = clickstream.run(sample, *insert, *SLOWLY, FAILPOINTS=f"warehouse::{moment}=2*off->panic")
        assert killed.code == -signal.SIGKILL, killed.describe()
    ended = clickstream.done(sample, *insert).summary
    assert_whole(clickstream, bigquery, ended, sample, repeats=True)


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


def test_a_table_with_another_schema_is_told_with_a_diff(binary, clickstream, sample, bigquery):
    init(binary, bigquery)
    path = "datasets/clicks/tables"
    whole = bigquery.table("events")
    for change, says, mends in [
        (lambda fields: [f for f in fields if f["name"] != "sent_at"], ["+ sent_at TIMESTAMP"], True),
        (lambda fields: [{**f, "type": "STRING"} if f["name"] == "user_id" else f for f in fields],
         ["- user_id STRING NOT NULL", "+ user_id INT64 NOT NULL"], False),
    ]:
        bigquery.call("DELETE", f"{path}/events")
        table = {key: whole[key] for key in ("tableReference", "timePartitioning", "clustering") if key in whole}
        bigquery.call("POST", path, {**table, "schema": {"fields": change(whole["schema"]["fields"])}})
        refused = clickstream.run(sample, *bigquery.flags)
        assert refused.code == 1 and "shop.clicks.events has another schema" in refused.stderr, refused.describe()
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
    assert ended["warehouse"]["rows"] == 17434 + 12633 + 5067, ended
