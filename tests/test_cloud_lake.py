"""The lake in buckets: S3 on a real MinIO, GCS on a fake of its XML API that misbehaves."""
import itertools
import re
import shutil
import signal
import threading

import duckdb
import pytest
from fakes.gcs import CUT, DELAY, LOST, TORN, Gcs
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal

import harness
import make_input

MOMENTS = [f"lake::{when}_{what}" for what in ("plan", "put", "commit") for when in ("before", "after")]


def saved(client, prefix, folder):
    for item in client.list_objects("shop", prefix=f"{prefix}/", recursive=True):
        client.fget_object("shop", item.object_name, str(folder / item.object_name.removeprefix(f"{prefix}/")))
    return folder


def assert_whole(ended, sample, lake):
    """The lake holds every row of the sample once."""
    assert_lake_equal(lake, Oracle([Source(ended["source"], [sample])]))


def test_the_lake_on_a_real_s3_store(clickstream, sample, minio, tmp_path):
    client, url = minio
    at = ("--lake", "s3://shop/whole", "--lake-endpoint", url)
    ended = clickstream.done(sample, *at, **harness.AWS).summary
    assert_whole(ended, sample, saved(client, "whole", tmp_path / "lake"))
    files = {item.object_name for item in client.list_objects("shop", prefix="whole/", recursive=True)}
    assert clickstream.done(sample, *at, **harness.AWS).summary["lake"]["files"] == 0
    assert files == {item.object_name for item in client.list_objects("shop", prefix="whole/", recursive=True)}


def deaths(binary, sample, data, at):
    """Dies at every moment between a plan and its commit, then plays to the end."""
    clickstream = harness.Clickstream(binary, data)
    for moment in MOMENTS:
        killed = clickstream.run(sample, *at, **harness.AWS, FAILPOINTS=f"{moment}=panic")
        assert killed.code == -signal.SIGKILL, f"{moment}: {killed.describe()}"
    return clickstream.done(sample, *at, **harness.AWS).summary


def test_deaths_between_plan_and_commit_on_a_real_s3_store(failpoint_binary, sample, minio, tmp_path):
    client, url = minio
    ended = deaths(failpoint_binary, sample, tmp_path / "data", ("--lake", "s3://shop/deaths", "--lake-endpoint", url))
    assert_whole(ended, sample, saved(client, "deaths", tmp_path / "lake"))


def test_deaths_between_plan_and_commit_on_gcs(failpoint_binary, sample, tmp_path):
    with Gcs("shop") as gcs:
        ended = deaths(failpoint_binary, sample, tmp_path / "data", ("--lake", "gs://shop/deaths", "--lake-endpoint", gcs.url))
        assert_whole(ended, sample, gcs.save("shop", "deaths", tmp_path / "lake"))


def test_a_gcs_that_misbehaves_gets_every_row_once(clickstream, sample, tmp_path):
    """Each file is refused in another way at first; lists, looks and reads are, too."""
    kinds = itertools.cycle([LOST, 503, CUT, 429, 500, DELAY])
    met, lock = set(), threading.Lock()

    def faults(number, method, key):
        with lock:
            if method != "PUT":
                return TORN if number % 3 == 0 and method == "GET" else 500 if number % 5 == 0 else None
            if key not in met:
                met.add(key)
                return next(kinds)

    with Gcs("shop", faults=faults) as gcs:
        ended = clickstream.done(sample, "--lake", "gs://shop/a/lake", "--lake-endpoint", gcs.url).summary
        assert_whole(ended, sample, gcs.save("shop", "a/lake", tmp_path / "lake"))
        assert len(met) >= 12


def test_a_lost_answer_is_recognised_by_the_footer(clickstream, sample, tmp_path):
    lost = set()

    def faults(number, method, key):
        first = method == "PUT" and key.endswith(".parquet") and key not in lost
        return lost.add(key) or LOST if first else None

    with Gcs("shop", faults=faults) as gcs:
        ended = clickstream.done(sample, "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url).summary
        assert lost and lost == {key for key in gcs.objects["shop"] if key.endswith(".parquet")}
        assert_whole(ended, sample, gcs.save("shop", "lake", tmp_path / "lake"))


def test_a_file_of_somebody_else_is_never_taken_for_ours(clickstream, sample):
    with Gcs("shop") as gcs:
        at = ("--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)

        def faults(number, method, key):
            if method == "PUT" and key.endswith(".parquet"):
                gcs.objects["shop"].setdefault(key, b"PAR1 of another pipeline PAR1")

        gcs.faults = faults
        ended = clickstream.run(sample, *at)
        assert ended.code == 1 and "not a whole Parquet file" in ended.stderr and "gs://shop/lake" in ended.stderr, ended.describe()


def test_throttles_slow_it_down(clickstream, sample):
    """While it is asked for less, requests come one after the other and ever more seldom."""
    refused = []

    def faults(number, method, key):
        if key.endswith(".parquet") and len(refused) < 4:
            refused.append(key)
            return 503

    with Gcs("shop", faults=faults) as gcs:
        process = clickstream.start(sample, "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url, "--stay", "--listen", "0")
        try:
            values = harness.metrics_until(process, clickstream, lambda m: m.get("clickstream_lake_throttles_total", 0) >= 4)
        finally:
            process.send_signal(signal.SIGTERM)
            harness.finish(process)
        assert values['clickstream_lake_requests_total{method="put"}'] >= 1


class Outage:
    """From the first file on the store refuses everything, until `ends`."""

    def __init__(self):
        self.begun = self.over = False

    def __call__(self, number, method, key):
        self.begun |= method == "PUT" and key.endswith(".parquet")
        return 500 if self.begun and not self.over else None

    def ends(self):
        self.over = True


TRIED_ON = "it is tried on, and the other parts go on"


def test_a_store_that_cannot_be_reached_stops_nobody_else(clickstream, sample, tmp_path):
    outage = Outage()
    with Gcs("shop", faults=outage) as gcs:
        at = ("--lake", "gs://shop/lake", "--lake-endpoint", gcs.url, "--lake-retry", "1s")
        process = clickstream.start(sample, *at, "--stay", "--listen", "0")
        try:
            alone = lambda m: m.get("clickstream_lake_stuck") == 1 and m["clickstream_producer_events_total"] == 17_434
            done = lambda m: m["clickstream_sessionizer_lag_records"] == m["clickstream_marts_lag_records"] == 0
            harness.metrics_until(process, clickstream, lambda m: alone(m) and done(m))
            outage.ends()
            harness.metrics_until(process, clickstream, lambda m: m["clickstream_lake_stuck"] == m["clickstream_lake_lag_records"] == 0)
        finally:
            process.send_signal(signal.SIGTERM)
            ended = harness.finish(process)
        assert ended.code == 0, ended.describe()
        # Once, however often it was begun again.
        assert ended.stderr.count(TRIED_ON) == 1, ended.describe()
        assert ended.summary["lake"]["rows"] == 17_434 + 12_633 + 5_067, "of all that was begun"
        assert_outputs(clickstream, ended, sample, gcs.save("shop", "lake", tmp_path / "lake"))


def test_a_store_that_is_never_reached_again_fails_the_run_at_its_end(clickstream, sample, tmp_path):
    outage = Outage()
    with Gcs("shop", faults=outage) as gcs:
        at = ("--lake", "gs://shop/lake", "--lake-endpoint", gcs.url, "--lake-retry", "1s")
        ended = clickstream.run(sample, *at)
        refused(ended, ["lake: gs://shop/lake", "nothing is lost: the same command goes on"])
        assert ended.stderr.count(TRIED_ON) == 1, ended.describe()
        for file in clickstream.data.glob("marts.db*"):
            shutil.copy(file, tmp_path / file.name)
        outage.ends()
        ended = clickstream.done(sample, *at)
        assert_marts_equal(tmp_path / "marts.db", Oracle([Source(ended.summary["source"], [sample])]))
        assert ended.summary["this_run"]["events"] == 0, "all had been played"
        assert_outputs(clickstream, ended, sample, gcs.save("shop", "lake", tmp_path / "lake"))


def test_a_full_log_names_who_holds_it(clickstream, tmp_path):
    rows = make_input.make(harness.cache() / "input-8.csv", 8)
    outage = Outage()
    with Gcs("shop", faults=outage) as gcs:
        at = ("--lake", "gs://shop/lake", "--lake-endpoint", gcs.url, "--lake-retry", "1s")
        process = clickstream.start(rows, *at, "--max-log-mib", "8")
        kill = threading.Timer(90, process.kill)
        kill.start()
        said = ""
        for line in process.stderr:
            said += line.decode()
            if "the log is full" in said:
                break
        assert "the log is full" in said and "group=clickstream.lake" in said and TRIED_ON in said, said
        outage.ends()
        ended = harness.finish(process)
        kill.cancel()
        assert ended.code == 0, ended.describe()
        assert_outputs(clickstream, ended, rows, gcs.save("shop", "lake", tmp_path / "lake"))


def assert_outputs(clickstream, ended, path, lake):
    oracle = Oracle([Source(ended.summary["source"], [path])])
    assert_lake_equal(lake, oracle)
    assert_marts_equal(clickstream.marts, oracle)


def test_an_upload_that_outlives_the_drain_is_left(clickstream, sample):
    hangs, ends = threading.Event(), threading.Event()

    def faults(number, method, key):
        if method == "PUT" and key.endswith(".parquet"):
            hangs.set()
            ends.wait(60)

    with Gcs("shop", faults=faults) as gcs:
        process = clickstream.start(sample, "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)
        try:
            assert hangs.wait(60)
            process.send_signal(signal.SIGTERM)
            ended = harness.finish(process)
        finally:
            ends.set()
        assert "panicked" not in ended.stderr, ended.describe()
        refused(ended, ["did not drain within 9s", "the same command goes on"])


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        (lambda n, m, k: 403, ["permission denied: storage.objects.list is missing", "roles/storage.objectUser", "gs://shop/lake"]),
        (lambda n, m, k: 403 if m == "PUT" else None, ["permission denied: storage.objects.create is missing", "gs://shop"]),
        (lambda n, m, k: 403 if m != "PUT" and k else None, ["permission denied: storage.objects.get is missing", "gs://shop"]),
        (lambda n, m, k: 401, ["no credentials", "--google-credentials"]),
    ],
    ids=["all denied", "creating is denied", "reading is denied", "no credentials"],
)
def test_a_bucket_that_cannot_be_used_is_told_before_anything_is_sent(clickstream, sample, faults, says):
    with Gcs("shop", faults=faults) as gcs:
        at = ("--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)
        refused(clickstream.run(sample, *at), says)
        assert not [key for key in gcs.objects["shop"] if key.endswith(".parquet")]
        assert not clickstream.marts.exists(), "nothing was begun"
        looked = harness.command(clickstream.binary, "check", *at)
        assert looked.code == 1 and "WRONG lake gs://shop/lake" in looked.stdout, looked.describe()
        assert all(text in looked.stdout for text in says), looked.stdout


def test_rights_that_are_taken_away_stop_the_lake_and_given_back_it_goes_on(clickstream, sample, tmp_path):
    with Gcs("shop") as gcs:
        at = ("--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)
        gcs.faults = lambda number, method, key: 403 if method == "PUT" and "/sessions/" in key else None
        ended = clickstream.run(sample, *at)
        refused(ended, ["permission denied", "gs://shop/lake", "sessions/dt=2019-10-01/", "roles/storage.objectUser"])
        gcs.faults = lambda number, method, key: None
        assert_whole(clickstream.done(sample, *at).summary, sample, gcs.save("shop", "lake", tmp_path / "lake"))


def test_a_bucket_that_is_deleted_meanwhile(clickstream, sample):
    with Gcs("shop") as gcs:
        gcs.faults = lambda number, method, key: gcs.objects.pop("shop", None) and None if key and key.endswith(".parquet") else None
        ended = clickstream.run(sample, "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)
        refused(ended, ["lake: gs://shop/lake, ", "the bucket is gone", "put back what it held", "--restart"])


def test_a_missing_bucket(clickstream, sample, minio):
    with Gcs("shop") as gcs:
        ended = clickstream.run(sample, "--lake", "gs://elsewhere/lake", "--lake-endpoint", gcs.url)
        refused(ended, ["no bucket elsewhere", "gcloud storage buckets create gs://elsewhere"])
    ended = clickstream.run(sample, "--lake", "s3://elsewhere/lake", "--lake-endpoint", minio[1], **harness.AWS)
    refused(ended, ["no bucket elsewhere", "aws s3 mb s3://elsewhere"])


def test_wrong_credentials(clickstream, sample, minio, tmp_path):
    wrong = {**harness.AWS, "AWS_SECRET_ACCESS_KEY": "wrong"}
    ended = clickstream.run(sample, "--lake", "s3://shop/x", "--lake-endpoint", minio[1], **wrong)
    refused(ended, ["permission denied", "s3:PutObject"])
    missing = tmp_path / "key.json"
    ended = clickstream.run(sample, "--lake", "gs://shop/x", "--google-credentials", str(missing))
    refused(ended, ["key.json"])


def test_check_looks_at_the_lake(binary, tmp_path):
    with Gcs("shop") as gcs:
        right = harness.command(binary, "check", "--lake", "gs://shop/lake", "--lake-endpoint", gcs.url)
        assert right.code == 0 and "ok    lake gs://shop/lake" in right.stdout, right.describe()
        wrong = harness.command(binary, "check", "--lake", "gs://other/lake", "--lake-endpoint", gcs.url)
        assert wrong.code == 1 and "WRONG lake gs://other/lake" in wrong.stdout and "no bucket other" in wrong.stdout, wrong.describe()
    file, folder = tmp_path / "file", tmp_path / "lake"
    file.touch()
    for lake, good, says in [(folder / "new", True, "is not there yet"), (tmp_path, True, "can be listed"), (file / "x", False, "is not a folder")]:
        looked = harness.command(binary, "check", "--lake", str(lake))
        assert (looked.code == 0) == good and says in looked.stdout, looked.describe()
    assert set(tmp_path.iterdir()) == {file}, "nothing was made"


@pytest.mark.parametrize("codec", ["lz4", "snappy", "zstd", "none"])
def test_files_are_as_they_are_asked_for(clickstream, failpoint_binary, sample, codec):
    """Of that codec and about that size; those that a killed run stored in another codec stay."""
    before = {"lz4": "none", "none": "zstd"}.get(codec, "lz4")
    failing = harness.Clickstream(failpoint_binary, clickstream.data)
    killed = failing.run(sample, "--lake-codec", before, "--lake-file-size", "64KiB", FAILPOINTS="lake::after_put=1*off->panic")
    assert killed.code == -signal.SIGKILL, killed.describe()
    files = lambda: set(clickstream.lake.glob("*/*/*.parquet"))
    stored = files()
    ended = clickstream.done(sample, "--lake-codec", codec, "--lake-file-size", "64KiB").summary
    assert_whole(ended, sample, clickstream.lake)
    named = {"lz4": "LZ4_RAW", "none": "UNCOMPRESSED"}
    for these, asked in ((stored, before), (files() - stored, codec)):
        assert these
        got = duckdb.sql(f"SELECT DISTINCT compression FROM parquet_metadata({[str(path) for path in these]})").fetchall()
        assert got == [(named.get(asked, asked.upper()),)]
    # A file ends at the first look at which it is large enough: a look comes each 16,384 records.
    assert max(path.stat().st_size for path in files()) < 4 << 20


def test_no_more_files_than_a_flush_has_days(clickstream):
    """A month flat out in little memory: a flush of a partition leaves one file for each day that is in it,
    all days of it together, and it flushes only what holds a fair part of the memory."""
    memory, days, partitions = 2 << 20, 30, 4
    month = "generate://2019-Nov?rows=400k&seed=11"
    ended = clickstream.done(month, "--lake-memory", str(memory), "--lake-file-size", "1MiB", "--lake-file-age", "1h").summary
    files = sorted(clickstream.lake.glob("*/*/*.parquet"))
    assert len(files) == ended["lake"]["files"]
    flushes = {topic: {path.stem for path in files if path.parts[-3] == topic} for topic in ("events", "funnel-steps", "sessions")}
    for topic, of_topic in flushes.items():
        found = sum(path.parts[-3] == topic for path in files)
        assert len({path.parts[-2] for path in files if path.parts[-3] == topic}) == days
        # Rows come in the order of their days: two flushes that follow each other share a day at the most.
        assert len(of_topic) > partitions, f"{topic} was flushed {len(of_topic)} times only"
        assert found <= len(of_topic) + (days - 1) * partitions, f"{topic}: {found} files of {len(of_topic)} flushes"
    # The one that holds most goes first, so it holds no less than the mean of all that are open.
    flushed = sum(map(len, flushes.values()))
    fair = memory / (len(flushes) * partitions)
    assert sum(path.stat().st_size for path in files) / flushed > fair / 4, f"{flushed} flushes"


def test_a_file_is_ended_by_age(clickstream, sample):
    """Rows are there for readers while the replay goes on."""
    process = clickstream.start(sample, "--rate", "200/s", "--lake-file-age", "100ms", "--listen", "0")
    try:
        harness.metrics_until(process, clickstream, lambda m: m.get('clickstream_lake_cuts_total{reason="age"}', 0) >= 3)
    finally:
        process.kill()
        harness.finish(process)


def test_the_ddl_of_a_lake(binary):
    told = harness.command(binary, "lake", "ddl", "--lake", "gs://shop/a/lake", "--warehouse", "p.d")
    assert told.code == 0, told.describe()
    assert "CREATE OR REPLACE EXTERNAL TABLE `p.d.lake_events`\nWITH PARTITION COLUMNS (dt DATE)" in told.stdout
    assert "uris = ['gs://shop/a/lake/events/*']" in told.stdout
    table = "CREATE OR REPLACE TABLE `p.d.{}`\nPARTITION BY DATE(event_time)\nCLUSTER BY event_type"
    assert table.format("lake_clickstream_partitioned_clustered") in told.stdout
    named = harness.command(binary, "lake", "ddl", "--lake", "gs://shop/a/lake", "--warehouse", "p.d",
                            "--table", "clickstream_partitioned_clustered")
    assert table.format("clickstream_partitioned_clustered") in named.stdout, named.describe()
    wrong = harness.command(binary, "lake", "ddl", "--lake", "gs://shop/a/lake", "--warehouse", "p.d", "--table", "a`b")
    assert wrong.code == 2 and "--table" in wrong.stderr and "letters, digits and _" in wrong.stderr, wrong.describe()
    refused(harness.command(binary, "lake", "ddl", "--lake", "s3://shop/lake", "--warehouse", "p.d"), ["gs://", "s3://shop/lake"])


def refused(ended, says):
    assert ended.code == 1, ended.describe()
    message = ended.stderr.strip().splitlines()[-1]
    for expected in says:
        assert expected in message, message
    assert len(re.findall("clickstream:", ended.stderr)) == 1, ended.stderr
