"""`clickstream fetch`, against a web server that misbehaves in every way that was thought of."""
import email.utils
import gzip
import io
import json
import os
import signal
import subprocess
import time
import zipfile

import pytest
from fakes.gcs import Gcs
from fakes.web import Web

import harness

MONTH, NAME = "2019-Oct", "2019-Oct.csv.gz"


@pytest.fixture
def web():
    web = Web()
    yield web
    web.close()


@pytest.fixture
def month(sample):
    """The real sample, under a month's name."""
    return sample.read_bytes()


@pytest.fixture
def fetch(binary, tmp_path):
    folder = tmp_path / "raw"

    class Fetch:
        path, part = folder / NAME, folder / f"{NAME}.part"

        def start(self, web, *flags, months=(MONTH,), url=None, **env):
            to = () if "--to" in flags else ("--to", folder)
            command = [binary, "fetch", *months, "--from-url", url or web.url, *to, *flags]
            # No token of whoever runs the tests.
            surroundings = harness.environment(**{"HOME": str(tmp_path), **env})
            for name in [name for name in surroundings if name.startswith("KAGGLE_") and name not in env]:
                del surroundings[name]
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings)

        def started(self, web, bytes_there):
            """One that has stored more than so many bytes."""
            process = self.start(web)
            while not (self.part.exists() and self.part.stat().st_size > bytes_there):
                assert process.poll() is None, harness.finish(process).describe()
                time.sleep(0.02)
            return process

        def run(self, web, *flags, **more):
            return harness.finish(self.start(web, *flags, **more))

        def done(self, web, *flags, **more):
            ended = self.run(web, *flags, **more)
            assert ended.code == 0, ended.describe()
            return ended

        def refused(self, web, *says, **more):
            ended = self.run(web, *more.pop("flags", ()), **more)
            assert ended.code == 1 and not self.path.exists(), ended.describe()
            for text in says:
                assert text in ended.stderr, ended.describe()
            return ended

    return Fetch()


def test_a_month_of_the_mirror(fetch, web, month):
    web.files["/" + NAME] = month
    fetch.done(web)
    assert fetch.path.read_bytes() == month
    assert [p.name for p in fetch.path.parent.iterdir()] == [NAME], "nothing is left beside it"
    written = fetch.path.stat()
    again = fetch.done(web)
    untouched = fetch.path.stat()
    assert "already" in again.stderr, again.describe()
    assert (untouched.st_ino, untouched.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


FAULTS = {
    "breaks every connection": dict(cut=100_000),
    "breaks them, names no version": dict(cut=150_000, etags=False),
    "too many requests": dict(refuse=[429, 503, 429]),
    "names weak versions": dict(cut=150_000, etags="weak"),
    "gives whole files only": dict(ranges=False, refuse=[503]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_misbehaves(fetch, web, month, name):
    web.files["/" + NAME] = month
    for fault, value in FAULTS[name].items():
        setattr(web, fault, list(value) if isinstance(value, list) else value)
    fetch.done(web)
    assert fetch.path.read_bytes() == month


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_that_asks_for_time_is_given_it(fetch, web, month, first, as_date):
    """Of the look at the file, and of the request for its bytes."""
    web.files["/" + NAME] = month
    web.refuse, web.cut = ([429, 503] if first else []), (None if first else 150_000)
    web.retry_after = email.utils.formatdate(time.time() + 3, usegmt=True) if as_date else "2"
    begun = time.monotonic()
    if first:
        fetch.done(web)
        assert time.monotonic() - begun > 1
    else:
        process = fetch.started(web, 100_000)
        web.refuse = [429]
        assert harness.finish(process).code == 0
    assert fetch.path.read_bytes() == month


def test_a_server_that_asks_for_more_time_than_is_waited(fetch, web, month):
    web.files["/" + NAME], web.refuse, web.retry_after = month, [429], "7200"
    fetch.refused(web, NAME, "7200 s", "longer than the 300 s", "come back after 20")
    assert len(web.requests) == 1, web.requests


def test_a_first_look_is_as_patient_as_the_rest(fetch, web, month):
    web.files["/" + NAME], web.refuse = month, [500] * 14
    fetch.done(web)
    assert fetch.path.read_bytes() == month


@pytest.mark.parametrize("ranges", [True, False])
def test_it_goes_on_where_it_was_stopped(fetch, web, month, ranges):
    web.files["/" + NAME] = month
    web.slow = 0.2
    process = fetch.started(web, 200_000)
    process.send_signal(signal.SIGTERM)
    assert harness.finish(process).code == 3
    there = fetch.part.stat().st_size
    assert 200_000 < there < len(month) and not fetch.path.exists()
    web.slow, web.ranges = 0, ranges
    web.requests.clear()
    fetch.done(web)
    assert fetch.path.read_bytes() == month
    assert there in [first for _, first, _ in web.requests]


def test_a_signal_is_heard_while_the_server_stalls(fetch, web, month):
    web.files["/" + NAME], web.stall = month, 131_072
    for waits_for in ("more", "the first answer"):
        if waits_for == "more":
            process = fetch.started(web, 100_000)
        else:
            web.silent = True
            process = fetch.start(web)
            while not web.requests:
                time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        ended = harness.finish(process, timeout=10)
        assert ended.code == 3 and not fetch.path.exists(), ended.describe()
        web.requests.clear()
    web.stall, web.silent = None, False
    fetch.done(web)
    assert fetch.path.read_bytes() == month


def test_two_do_not_fetch_the_same_file_at_once(fetch, web, month):
    web.files["/" + NAME] = month
    web.slow = 0.2
    first = fetch.started(web, 0)
    first.send_signal(signal.SIGSTOP)
    try:
        fetch.refused(web, f"{NAME}.part", "another process")
    finally:
        web.slow = 0
        first.send_signal(signal.SIGCONT)
    ended = harness.finish(first)
    assert ended.code == 0, ended.describe()
    assert fetch.path.read_bytes() == month


def test_two_versions_at_once_are_not_mixed(fetch, web, month):
    """A second fetch that is served another version leaves the first one's file alone."""
    other = Web()
    try:
        web.files["/" + NAME] = month
        other.files["/" + NAME] = month[:1000] + bytes(byte ^ 0xFF for byte in month[1000:])
        web.slow = 0.2
        first = fetch.started(web, 100_000)
        first.send_signal(signal.SIGSTOP)
        fetch.refused(other, f"{NAME}.part", "another process")
    finally:
        other.close()
        web.slow = 0
        first.send_signal(signal.SIGCONT)
    ended = harness.finish(first)
    assert ended.code == 0, ended.describe()
    assert fetch.path.read_bytes() == month


def test_a_file_that_changed_is_not_mended_with_the_new_one(fetch, web, month):
    fetch.path.parent.mkdir()
    web.files["/" + NAME] = month
    fetch.part.write_bytes(b"x" * 1000)
    (fetch.path.parent / f"{NAME}.part.of").write_text("another version")
    fetch.done(web)
    assert fetch.path.read_bytes() == month


@pytest.mark.parametrize("etags", [False, "weak"])
def test_another_version_is_seen_by_when_it_was_changed(fetch, web, month, etags):
    """Without a tag, or with one that says nothing of bytes, the same size is not the same file."""
    first = month[:1000] + bytes(len(month) - 1000)
    web.files["/" + NAME], web.etags, web.modified, web.slow = first, etags, [1_569_888_000], 0.2
    process = fetch.started(web, 100_000)
    process.send_signal(signal.SIGTERM)
    assert harness.finish(process).code == 3 and fetch.part.stat().st_size > 100_000
    web.files["/" + NAME], web.modified, web.slow = month, [1_569_888_060], 0
    fetch.done(web)
    assert fetch.path.read_bytes() == month


def test_a_file_that_is_changed_while_it_is_fetched(fetch, web, month):
    web.files["/" + NAME], web.etags, web.cut = month, False, 150_000
    # It is looked at, and its beginning comes; what is asked for after that is another version.
    web.modified = [1_569_888_000, 1_569_888_000, 1_569_888_060]
    fetch.refused(web, NAME, "changed")


def test_what_is_not_there(fetch, web):
    fetch.refused(web, f"{web.url}/{NAME}", "no such object")


def test_a_length_that_is_not_kept(fetch, web, month):
    web.files["/" + NAME] = month
    web.longer = 1000
    fetch.refused(web, NAME, "attempts")
    assert fetch.part.stat().st_size == len(month), "what came is kept"


@pytest.mark.parametrize(
    "body, says",
    [
        (b"<html>Please log in</html>" * 50, "not gzipped"),
        (gzip.compress(b"a,b\n1,2\n"), "header"),
        (gzip.compress((harness.HEADER + "\n2019-11-01 00:00:00 UTC,view,1,2,,,1.00,1,s\n").encode()), "2019-Oct"),
        (b"", "nothing"),
    ],
)
def test_what_is_not_that_month(fetch, web, body, says):
    web.files["/" + NAME] = body
    fetch.refused(web, NAME, says)
    assert not fetch.part.exists()


def test_another_file_of_that_name_is_not_overwritten(fetch, web, month):
    web.files["/" + NAME] = month
    fetch.path.parent.mkdir()
    fetch.path.write_bytes(b"mine")
    ended = fetch.run(web)
    assert ended.code == 1 and "move it away" in ended.stderr, ended.describe()
    assert fetch.path.read_bytes() == b"mine"


# Kaggle: an archive of several months, behind a login and a redirect.
@pytest.fixture
def kaggle(web, sample):
    """The API, and the server that it sends on to."""
    storage = Web()
    csv = gzip.decompress(sample.read_bytes())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        # What is not asked for is the greater part, and hardly gets smaller.
        with packed.open("2019-Nov.csv", "w", force_zip64=True) as member:
            member.write(harness.HEADER.encode() + bytes(range(256)) * 4 + os.urandom(4_000_000))
        with packed.open("2019-Oct.csv", "w", force_zip64=True) as member:
            member.write(csv)
    storage.files["/signed"] = archive.getvalue()
    web.login = ("ann", "k1")
    web.redirect["/archive"] = f"{storage.url}/signed?X-Goog-Signature=abc"
    yield web, storage, csv
    storage.close()


TOKEN = {"KAGGLE_USERNAME": "ann", "KAGGLE_KEY": "k1"}


def test_a_month_of_kaggles_archive(fetch, kaggle):
    api, storage, csv = kaggle
    storage.cut = 300_000
    fetch.done(api, "--from", "kaggle", url=f"{api.url}/archive", **TOKEN)
    assert gzip.decompress(fetch.path.read_bytes()) == csv
    assert all("Authorization" not in headers for _, _, headers in storage.requests), "the token stays with Kaggle"
    firsts = [first for _, first, _ in storage.requests if first is not None]
    assert storage.requests and min(firsts) > 3_000_000, f"November was not asked for: {firsts}"


def test_kaggles_token_in_a_file(fetch, kaggle, tmp_path):
    api, _, csv = kaggle
    (tmp_path / ".kaggle").mkdir()
    (tmp_path / ".kaggle" / "kaggle.json").write_text(json.dumps({"username": "ann", "key": "k1"}))
    fetch.done(api, "--from", "kaggle", url=f"{api.url}/archive")
    assert gzip.decompress(fetch.path.read_bytes()) == csv


def test_kaggle_refuses(fetch, kaggle):
    api, *_ = kaggle
    url = f"{api.url}/archive"
    fetch.refused(api, "kaggle.com", "mirror", flags=("--from", "kaggle"), url=url)
    wrong = fetch.refused(api, "credentials", flags=("--from", "kaggle"), url=url, **{**TOKEN, "KAGGLE_KEY": "no"})
    assert "no such" not in wrong.stderr
    fetch.refused(api, "2020-Jan.csv", "2019-Nov.csv, 2019-Oct.csv", flags=("--from", "kaggle"), url=url, months=["2020-Jan"], **TOKEN)


def test_into_a_bucket(fetch, web, month, minio):
    client, url = minio
    web.files["/" + NAME] = month
    web.cut = 200_000
    aws = {**harness.AWS, "AWS_ENDPOINT_URL": url}
    fetch.done(web, "--to", "s3://shop/raw/kaggle", **aws)
    assert client.get_object("shop", f"raw/kaggle/{NAME}").read() == month
    assert "already" in fetch.done(web, "--to", "s3://shop/raw/kaggle", **aws).stderr
    web.files["/" + NAME] = b"<html>" * 100
    ended = fetch.run(web, "--to", "s3://shop/other", **aws)
    assert ended.code == 1 and "not gzipped" in ended.stderr, ended.describe()
    assert not list(client.list_objects("shop", prefix="other/", recursive=True)), "nothing is left there"


def test_into_a_bucket_of_google(fetch, web, month):
    """In parts, some of which are refused; what breaks off leaves nothing there."""
    name = f"raw/kaggle/{NAME}"
    web.files["/" + NAME] = month
    web.cut = 200_000
    refused = []

    def faults(number, method, key):
        if method == "PUT" and len(refused) < 2:
            return refused.append(number) or 503

    with Gcs("shop", faults=faults) as gcs:
        to = ("--to", "gs://shop/raw/kaggle", "--to-endpoint", gcs.url)
        fetch.done(web, *to)
        assert gcs.objects["shop"] == {name: month} and refused and not gcs.uploads
        assert "already" in fetch.done(web, *to).stderr
        web.files["/" + NAME] = b"<html>" * 100
        ended = fetch.run(web, "--to", "gs://shop/other", "--to-endpoint", gcs.url)
        assert ended.code == 1 and "not gzipped" in ended.stderr, ended.describe()
        assert list(gcs.objects["shop"]) == [name] and not gcs.uploads, "nothing is left there"
        gcs.faults = lambda number, method, key: 403
        ended = fetch.run(web, "--to", "gs://shop/denied", "--to-endpoint", gcs.url)
        assert ended.code == 1 and "gs://shop/denied" in ended.stderr, ended.describe()


def test_usage(binary):
    for arguments in (["fetch"], ["fetch", "October"], ["fetch", "2019-Oct", "--from", "nowhere"]):
        assert subprocess.run([binary, *arguments], capture_output=True).returncode == 2
