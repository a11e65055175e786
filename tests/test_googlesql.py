"""Every statement that this writes for BigQuery, before Google's own analyser of GoogleSQL."""
import json
import re
import signal
import subprocess

import pytest
from fakes.bigquery import BigQuery
from fakes.rest_proxy import RestProxy
from test_warehouse import SLOWLY

import harness

WAREHOUSE, LAKE = "my-project.clicks", "gs://shop/a/lake"


@pytest.fixture(scope="module")
def ddl(binary):
    """What both commands print: all tables, so that queries find their columns."""
    told = [
        harness.command(binary, "warehouse", "ddl", "--warehouse", WAREHOUSE),
        harness.command(binary, "lake", "ddl", "--lake", LAKE, "--warehouse", WAREHOUSE),
    ]
    assert all(ended.code == 0 for ended in told), [ended.describe() for ended in told]
    return "\n".join(ended.stdout for ended in told)


def analysed(*statements):
    """What the analyser says of them, the later ones knowing the tables of the earlier."""
    harness.installed("googlesql")
    sql = ";\n".join(statement.strip().rstrip(";") for statement in statements) + ";\n"
    done = subprocess.run([harness.ROOT / "scripts/googlesql", "check"], input=sql, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def test_the_ddl(ddl):
    code, says = analysed(ddl)
    assert code == 0, says
    assert "8 statements, 0 wrong" in says
    for table in ("events", "funnel_steps", "sessions", "clickstream_partitioned_clustered"):
        assert f"{WAREHOUSE}.{table}" in says and f"{WAREHOUSE}.lake_{table}" in says


def test_a_name_is_one_thing(binary, ddl):
    """In a dataset of the warehouse's the name of the batch pipelines is taken; in another it is not."""
    lake = ("lake", "ddl", "--lake", "gs://shop/a/lake", "--table", "clickstream_partitioned_clustered", "--warehouse")
    here, elsewhere = (harness.command(binary, *lake, dataset) for dataset in (WAREHOUSE, "my-project.batch"))
    code, says = analysed(ddl, here.stdout)
    assert code == 1 and f"{WAREHOUSE}.clickstream_partitioned_clustered is not allowed" in says and ", 1 wrong" in says, says
    # The analyser takes the columns of an external table from the warehouse's of that name.
    tables = ddl[:ddl.index("CREATE OR REPLACE VIEW")].replace(WAREHOUSE, "my-project.batch")
    code, says = analysed(tables, elsewhere.stdout)
    assert code == 0 and "my-project.batch.clickstream_partitioned_clustered" in says, says


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (f"SELECT brands FROM `{WAREHOUSE}.events`", "Unrecognized name: brands"),
        (f"SELECT event_time FROM `{WAREHOUSE}.lake_sessions`", "Unrecognized name: event_time"),
        (f"SELECT sent_at FROM `{WAREHOUSE}.clickstream_partitioned_clustered`", "Unrecognized name: sent_at"),
        (f"SELECT price + brand FROM `{WAREHOUSE}.events`", "No matching signature"),
        (f"SELECT price::INT64 FROM `{WAREHOUSE}.events`", "Syntax error"),
        ("CREATE TABLE `p.d.t` (a INT32)", "INT32"),
        (f"CREATE TABLE `p.d.t` (a INT64) PARTITION BY DATE(b)", "Unrecognized name: b"),
    ],
)
def test_it_refuses_what_is_wrong(ddl, query, says):
    code, told = analysed(ddl, query)
    assert code == 1 and says in told and "9 statements, 1 wrong" in told, told


def test_the_view_that_init_makes(binary, tmp_path, ddl):
    """It is sent to BigQuery as a query, not as DDL."""
    with BigQuery(tmp_path / "bigquery") as bigquery:
        made = harness.command(binary, "warehouse", "init", *bigquery.flags)
        assert made.code == 0, made.describe()
        view = bigquery.table("clickstream_partitioned_clustered")["view"]["query"]
    code, says = analysed(ddl, view.replace(bigquery.dataset, WAREHOUSE))
    assert code == 0 and "FROM `" in view, says


def test_what_is_asked_and_said_where_a_stream_is_gone(binary, failpoint_binary, sample, tmp_path, ddl):
    """The table is asked for the rows in doubt; where no whole requests make them, a person is told what to do."""
    asked = []

    def counts_wrong(method, path, body):
        if not path.endswith("/queries"):
            return None
        asked.append(json.loads(body)["query"])
        field = {"name": "f0_", "type": "INTEGER", "mode": "NULLABLE"}
        return {"jobComplete": True, "schema": {"fields": [field]}, "totalRows": "1", "rows": [{"f": [{"v": "1000000"}]}]}

    gone = {number: "gone" for number in range(1, 8)}
    with BigQuery(tmp_path / "bigquery", gone) as bigquery, RestProxy(bigquery.url, counts_wrong) as rest:
        assert harness.command(binary, "warehouse", "init", *bigquery.flags).code == 0
        flags = [rest.url if flag == bigquery.url else flag for flag in bigquery.flags]
        clickstream = harness.Clickstream(failpoint_binary, tmp_path / "data")
        killed = clickstream.run(sample, *flags, *SLOWLY, FAILPOINTS="warehouse::after_write=2*off->panic")
        assert killed.code == -signal.SIGKILL, killed.describe()
        stopped = clickstream.run(sample, *flags)
    assert stopped.code == 1 and "its write stream is gone" in stopped.stderr, stopped.describe()
    told = re.search(r"DELETE FROM .* BETWEEN \d+ AND \d+", stopped.stderr)[0]
    assert asked
    for statement in (*asked, told):
        code, says = analysed(ddl, statement.replace(bigquery.dataset, WAREHOUSE))
        assert code == 0, f"{statement}: {says}"
