"""What an account may not do in BigQuery: one message that names the resource, the permission and
the command that grants it; before anything is sent, where that can be known."""
import json
import re
import subprocess

import pytest
from fakes.bigquery import BigQuery
from fakes.rest_proxy import RestProxy
from test_warehouse import assert_whole, init

import harness

TABLE = re.compile(r"/bigquery/v2/projects/shop/datasets/clicks/tables/(\w+)(:testIamPermissions|/insertAll)?$")


def flags_through(rest, bigquery):
    return tuple(rest.url if flag == bigquery.url else flag for flag in bigquery.flags)


def denied(permission, resource):
    return 403, "accessDenied", f"Access Denied: {resource}: Permission {permission} denied on it (or it may not exist)."


def refused(ended, *says):
    assert ended.code == 1, ended.describe()
    lines = [line for line in ended.stderr.strip().splitlines() if line.startswith("clickstream:")]
    assert len(lines) == 1, ended.describe()
    for text in says:
        assert text in lines[0], ended.describe()


def faults(wrong):
    """Of the proxy, and what is said of the first thing that meets it."""
    binding = "projects add-iam-policy-binding shop "

    def at(method, path, body):
        table = TABLE.search(path)
        if wrong == "the dataset" and path.endswith("/datasets/clicks"):
            return denied("bigquery.datasets.get", "Dataset shop:clicks")
        if wrong == "its tables" and table and method == "GET":
            return denied("bigquery.tables.get", f"Table shop:clicks.{table[1]}")
        if wrong == "writing" and table and table[2] == ":testIamPermissions":
            return {"permissions": ["bigquery.tables.get"] + ([] if table[1] == "sessions" else ["bigquery.tables.updateData"])}
        if wrong == "anything at all" and path.endswith(":testIamPermissions"):
            return {}

    says = {
        "the dataset": ["shop.clicks: ", "bigquery.datasets.get", binding],
        "its tables": ["shop.clicks.events: ", "bigquery.tables.get", binding],
        "writing": ["shop.clicks.sessions: ", "needs bigquery.tables.updateData", "roles/bigquery.dataEditor", binding],
        "anything at all": ["shop.clicks.events: ", "needs bigquery.tables.get"],
    }
    return at, ["permission denied", *says[wrong]]


@pytest.fixture(scope="module")
def bigquery(tmp_path_factory, binary):
    with BigQuery(tmp_path_factory.mktemp("bigquery")) as bigquery:
        made = init(binary, bigquery)
        assert made.code == 0, made.describe()
        yield bigquery


@pytest.mark.parametrize("wrong", ["the dataset", "its tables", "writing", "anything at all"])
def test_what_is_denied_is_told_before_anything_is_sent(clickstream, sample, bigquery, wrong):
    at, says = faults(wrong)
    with RestProxy(bigquery.url, at) as rest:
        flags = flags_through(rest, bigquery)
        refused(clickstream.run(sample, *flags), *says)
        assert not clickstream.lake.exists() or not list(clickstream.lake.glob("*/*/*.parquet"))
        looked = harness.command(clickstream.binary, "check", *flags)
        assert looked.code == 1 and "WRONG warehouse shop.clicks" in looked.stdout, looked.describe()
        assert all(text in looked.stdout for text in says), looked.stdout
    assert bigquery.query(f"SELECT COUNT(*) FROM `{bigquery.dataset}.events`") == [("0",)]


@pytest.mark.parametrize(
    ("path", "permission", "says"),
    [
        ("/datasets", "bigquery.datasets.create", "shop.fresh: "),
        ("/tables", "bigquery.tables.create", "shop.fresh.events: "),
    ],
)
def test_init_says_what_it_may_not_make(binary, bigquery, path, permission, says):
    at = lambda method, asked, body: denied(permission, asked) if method == "POST" and asked.endswith(path) else None
    with RestProxy(bigquery.url, at) as rest:
        flags = ["shop.fresh" if flag == bigquery.dataset else flag for flag in flags_through(rest, bigquery)]
        refused(harness.command(binary, "warehouse", "init", *flags), "permission denied", says, f"needs {permission}")


def test_a_project_that_is_not_there(binary, clickstream, sample, bigquery):
    """As Google tells it: 404 of one's own projects, 403 of those of others."""
    flags = ["nowhere.clicks" if flag == bigquery.dataset else flag for flag in bigquery.flags]
    refused(clickstream.run(sample, *flags), "no dataset nowhere.clicks, or no such project", "clickstream warehouse init")
    looked = harness.command(binary, "check", *flags)
    assert looked.code == 1 and "no such project" in looked.stdout, looked.describe()
    gone = lambda method, path, body: (404, "notFound", "Not found: Project nowhere") if "/nowhere/" in path else None
    with RestProxy(bigquery.url, gone) as rest:
        through = [rest.url if flag == bigquery.url else flag for flag in flags]
        refused(harness.command(binary, "warehouse", "init", *through), "no project nowhere", "gcloud projects list")
    with RestProxy(bigquery.url, lambda method, path, body: denied("bigquery.datasets.get", "Project nowhere")) as rest:
        through = [rest.url if flag == bigquery.url else flag for flag in flags]
        refused(clickstream.run(sample, *through), "permission denied", "nowhere.clicks", "bigquery.datasets.get")


def test_a_right_that_is_taken_away_stops_the_sink_and_given_back_it_goes_on(binary, clickstream, sample, tmp_path):
    with BigQuery(tmp_path / "bigquery", {2: "denied"}) as bigquery:
        init(binary, bigquery)
        refused(clickstream.run(sample, *bigquery.flags), "permission denied", "shop.clicks.", "needs bigquery.tables.updateData",
                "projects add-iam-policy-binding shop ")
        assert_whole(clickstream, bigquery, clickstream.done(sample, *bigquery.flags).summary, sample)


def test_rows_go_in_with_a_key_file(binary, clickstream, sample, tmp_path):
    """A service account's: a token is made from it, and sent with every call."""
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", key], check=True, capture_output=True, timeout=60)
    account = {"type": "service_account", "client_email": "clickstream@shop.iam.gserviceaccount.com", "private_key_id": "1",
               "private_key": key.read_text(), "project_id": "shop", "token_uri": "https://oauth2.googleapis.com/token"}
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    with BigQuery(tmp_path / "bigquery") as bigquery, RestProxy(bigquery.url) as rest:
        flags = (*flags_through(rest, bigquery), "--google-credentials", str(file))
        made = harness.command(binary, "warehouse", "init", *flags)
        assert made.code == 0, made.describe()
        assert_whole(clickstream, bigquery, clickstream.done(sample, *flags).summary, sample)
        assert rest.tokens and all(token.startswith("Bearer ey") for token in rest.tokens), rest.tokens


def test_no_credentials_at_all(clickstream, sample, tmp_path):
    """Nobody has logged in, and no metadata server answers: nothing of Google's is asked."""
    nobody = {"HOME": str(tmp_path), "GCE_METADATA_HOST": f"127.0.0.1:{harness.free_port()}", "GOOGLE_APPLICATION_CREDENTIALS": None}
    refused(clickstream.run(sample, "--warehouse", "shop.clicks", **nobody), "shop.clicks: no credentials", "--google-credentials",
            "gcloud auth application-default login")
    assert not clickstream.marts.exists(), "nothing was begun"


def test_inserts_that_are_denied(clickstream, sample, bigquery):
    at = lambda method, path, body: denied("bigquery.tables.updateData", "Table shop:clicks.events") if path.endswith("/insertAll") else None
    with RestProxy(bigquery.url, at) as rest:
        ended = clickstream.run(sample, *flags_through(rest, bigquery), "--mode", "insert-all")
        refused(ended, "permission denied", "shop.clicks.", "needs bigquery.tables.updateData", "binding shop ")


@pytest.mark.parametrize("mode", ["storage-write", "insert-all"])
def test_long_rows_go_in_few_at_a_time(binary, clickstream, tmp_path, mode):
    """BigQuery refuses a request of more than 10 MB, as the proxy before the emulator does."""
    row = "2019-10-01 00:00:{:02} UTC,view,{},2,,{},1.00,4,s\n"
    rows = [row.format(i, i + 1, "x" * (1_000_000 if i % 2 else 100)) for i in range(40)]
    path = harness.write_csv(tmp_path / "long.csv", rows)
    with BigQuery(tmp_path / "bigquery", {}) as bigquery:
        init(binary, bigquery)
        flags = (*bigquery.flags, "--warehouse-linger", "30s", "--mode", mode)
        ended = clickstream.done(path, *flags).summary
        assert_whole(clickstream, bigquery, ended, path)
