"""Inputs that are no local file: web servers, buckets, rows that are made; and files of great size."""
import gzip
import os
import signal
import struct
import subprocess
import time
import zipfile
import zlib

import pytest
from fakes.gcs import TORN, Gcs
from fakes.web import Web
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal

import harness

NAME = "2019-Oct-head.csv.gz"


@pytest.fixture
def web(sample):
    web = Web()
    packed = sample.read_bytes()
    web.files = {f"/{NAME}": packed, "/2019-Oct-head.csv": gzip.decompress(packed)}
    yield web
    web.close()


def assert_whole(clickstream, summary, files):
    oracle = Oracle([Source(summary["source"], files)])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)


FAULTS = {
    "none": {},
    "breaks every connection": dict(cut=150_000),
    "breaks them, names no version": dict(cut=150_000, etags=False),
    "breaks them, names weak versions": dict(cut=150_000, etags="weak"),
    "too many requests": dict(refuse=[503, 429, 503]),
    "whole files only": dict(ranges=False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_on_a_web_server(clickstream, web, sample, name):
    for fault, value in FAULTS[name].items():
        setattr(web, fault, list(value) if isinstance(value, list) else value)
    assert_whole(clickstream, clickstream.done(f"{web.url}/{NAME}").summary, [sample])


def test_a_remote_file_is_the_same_source_as_its_copy(clickstream, web, sample):
    source = clickstream.done(sample).summary["source"]
    again = clickstream.done(f"{web.url}/{NAME}").summary
    assert (again["source"], again["outcome"]) == (source, "already_done")


def test_a_plain_remote_file_is_resumed_by_range(clickstream, web, sample):
    header, rows = harness.lines_of(sample)
    days = [harness.shifted(rows, f"2019-10-{day:02}", f"-{day}") for day in range(1, 9)]
    text = "".join([header, *(row for day in days for row in day)]).encode()
    web.files["/days.csv"], url = text, f"{web.url}/days.csv"
    # What is served and not yet played is a few MiB at the most.
    web.slow = 0.02
    process = clickstream.start(url)
    while web.sent < 2 * len(text) / 3:
        assert process.poll() is None, harness.finish(process).describe()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert harness.finish(process).code == 3
    web.slow = 0
    web.requests.clear()
    summary = clickstream.done(url).summary
    assert 0 < summary["this_run"]["events"] < len(rows) * len(days)
    assert summary["totals"]["events"] == len(rows) * len(days)
    assert max(first or 0 for _, first, _ in web.requests) > 1 << 20, web.requests


def test_archives_on_a_web_server(clickstream, web, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    packed = harness.write_csv(tmp_path / "month.zip", rows, header)
    web.files["/month.zip"] = packed.read_bytes()
    web.cut = 200_000
    assert clickstream.done(f"{web.url}/month.zip!month.csv").summary["totals"]["events"] == 17_434


@pytest.mark.parametrize(
    "url, says",
    [
        ("{web}/none.csv", "no such object"),
        ("{web}/" + NAME + "?signature=1", "without a query"),
        ("http://example.com/a.csv", "plain http"),
        ("ftp://example.com/a.csv", "not read"),
        ("{web}/empty.csv", "empty"),
    ],
)
def test_what_cannot_be_read(clickstream, web, url, says):
    web.files["/empty.csv"] = b""
    ended = clickstream.run(url.format(web=web.url))
    assert ended.code == 1 and says in ended.stderr, ended.describe()


def test_a_bucket(clickstream, sample, minio, tmp_path):
    client, url = minio
    header, rows = harness.lines_of(sample)
    files = []
    for day, renamed in (("2019-11-01", "n"), ("2019-10-01", "o")):
        name = f"{day[:7]}.csv.gz"
        files.append(harness.write_csv(tmp_path / name, harness.shifted(rows, day, renamed), header))
        client.fput_object("shop", f"in/{name}", str(files[-1]))
    client.fput_object("shop", "in/other.txt", str(files[0]))
    aws = {**harness.AWS, "AWS_ENDPOINT_URL": url}
    summary = clickstream.done("s3://shop/in/2019-*.csv.gz", **aws).summary
    assert summary["totals"]["events"] == 2 * 17_434
    # In name order, whatever order they were put there.
    assert_whole(clickstream, summary, sorted(files))
    ended = clickstream.run("s3://shop/in/2020-*.csv.gz", **aws)
    assert ended.code == 1 and "no object matches" in ended.stderr, ended.describe()
    ended = clickstream.run("s3://nowhere-at-all/in/a.csv", **aws)
    assert ended.code == 1 and "nowhere-at-all" in ended.stderr, ended.describe()


def test_a_bucket_of_google(clickstream, sample, tmp_path):
    """Bodies break, and requests are refused: it is taken up by range."""
    header, rows = harness.lines_of(sample)
    files = [
        harness.write_csv(tmp_path / f"2019-{month}.csv.gz", harness.shifted(rows, f"2019-{month}-01", name), header)
        for month, name in (("10", "o"), ("11", "n"))
    ]
    refused = []

    def faults(number, method, key):
        if key and number % 3 == 1:
            refused.append(number)
            return TORN if number % 2 else 503

    with Gcs("shop", faults=faults) as gcs:
        gcs.objects["shop"] = {f"in/{file.name}": file.read_bytes() for file in files} | {"in/other.txt": b"", "in/2019.d/2019-1.csv.gz": b""}
        at = ("--input-endpoint", gcs.url)
        summary = clickstream.done("gs://shop/in/2019-*.csv.gz", *at).summary
        assert summary["totals"]["events"] == 2 * 17_434 and refused
        assert_whole(clickstream, summary, files)
        gcs.faults = lambda *_: None
        assert clickstream.done("gs://shop/in/2019-*.csv.gz", *at).summary["outcome"] == "already_done"
        ended = clickstream.run("gs://nowhere/in/a.csv", *at)
        assert ended.code == 1 and "gs://nowhere/in/a.csv" in ended.stderr, ended.describe()


@pytest.mark.parametrize("name", ["month.csv", "month.csv.gz", "month.csv.zst", "month.zip"])
def test_a_file_of_google_goes_on_where_it_was_killed(clickstream, sample, tmp_path, name):
    header, rows = harness.lines_of(sample)
    file = harness.write_csv(tmp_path / name, rows, header)
    with Gcs("shop") as gcs:
        gcs.objects["shop"][f"in/{name}"] = file.read_bytes()
        url, at = f"gs://shop/in/{name}", ("--input-endpoint", gcs.url)
        process = clickstream.start(url, *at, "--rate", "5000/s", "--listen", "0")
        harness.metrics_until(process, clickstream, lambda m: m.get("clickstream_producer_events_total", 0) > 3000)
        process.kill()
        process.communicate()
        summary = clickstream.done(url, *at).summary
        assert 0 < summary["this_run"]["events"] < 17_434 and summary["totals"]["events"] == 17_434
        assert_whole(clickstream, summary, [sample])


# Rows that are made.
def generate(binary, *arguments):
    return subprocess.run([binary, "generate", "-q", *arguments], env=harness.environment(), capture_output=True)


def test_generated_files(binary, tmp_path):
    plan = ("2019-Nov", "--rows", "20k", "--seed", "7")
    plain = generate(binary, *plan).stdout
    lines = plain.decode().splitlines()
    assert lines[0] == harness.HEADER and len(lines) == 20_001
    assert lines[1:] == sorted(lines[1:], key=lambda line: line[:19])
    assert all(line.startswith("2019-11-") and line.count(",") == 8 for line in lines[1:])
    for name, unpacked in (("a.csv", bytes), ("a.csv.gz", gzip.decompress)):
        assert generate(binary, *plan, "-o", str(tmp_path / name)).returncode == 0
        assert unpacked((tmp_path / name).read_bytes()) == plain
    assert generate(binary, "2019-Nov", "--rows", "20k", "--seed", "8").stdout != plain
    assert generate(binary, "2019-Nov", "--rows", "0").stdout.decode() == harness.HEADER + "\n"
    for wrong in (("October",), ("9999-12",), ("2019-Nov", "--rows", "x")):
        assert generate(binary, *wrong).returncode == 2


def test_generated_to_what_is_no_regular_file(binary, tmp_path):
    plan = ("2019-Nov", "--rows", "2k", "--seed", "7")
    plain = generate(binary, *plan).stdout
    fifo, came, link, target = (tmp_path / name for name in ("fifo", "came", "link.csv", "folder/target.csv"))
    os.mkfifo(fifo)
    with open(came, "wb") as file:
        reader = subprocess.Popen(["cat", str(fifo)], stdout=file)
        assert generate(binary, *plan, "-o", str(fifo)).returncode == 0
        assert reader.wait(timeout=60) == 0
    assert came.read_bytes() == plain and fifo.is_fifo()
    came.unlink()
    target.parent.mkdir()
    link.symlink_to("folder/target.csv")
    for _ in ("a link to what is not there yet", "a link to a file"):
        assert generate(binary, *plan, "-o", str(link)).returncode == 0
        assert link.is_symlink() and target.read_bytes() == plain
        target.write_bytes(b"before")
    full = generate(binary, *plan, "-o", "/dev/full")
    assert full.returncode == 1 and b"/dev/full" in full.stderr and os.path.exists("/dev/full")
    assert generate(binary, *plan, "-o", str(target.parent)).returncode == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["fifo", "folder", "link.csv", "target.csv"]


def test_what_a_full_disk_stops_leaves_nothing(binary, tmp_path):
    limited = "ulimit -f 100; trap '' XFSZ; exec \"$@\""
    command = ["sh", "-c", limited, "sh", binary, "generate", "-q", "2019-Nov", "--rows", "20k", "-o", tmp_path / "a.csv"]
    ended = subprocess.run([str(word) for word in command], env=harness.environment(), capture_output=True)
    assert ended.returncode == 1 and b"a.csv" in ended.stderr, ended.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "month, rows, seed",
    [("2019-Oct", "1M", 1), ("2019-Nov", "1M", 1), *(("2019-Nov", "10k", seed) for seed in (2, 4)), ("2019-Nov", "1k", 1)],
)
def test_generated_rows_are_near_the_real_ones(binary, month, rows, seed):
    """A million of them, and few; `make bench-generated` holds whole months."""
    ended = generate(binary, month, "--rows", rows, "--seed", str(seed), "--report")
    assert ended.returncode == 0, ended.stdout.decode()


def test_a_generated_month_is_played(clickstream, binary, tmp_path):
    file = tmp_path / "made.csv"
    assert generate(binary, "2019-Nov", "--rows", "200k", "--seed", "3", "-o", str(file)).returncode == 0
    summary = clickstream.done("generate://2019-Nov?rows=200k&seed=3").summary
    assert summary["totals"]["events"] == 200_000
    assert_whole(clickstream, summary, [file])


def test_a_generated_month_goes_on_where_it_was_killed(clickstream, binary, tmp_path):
    file, url = tmp_path / "made.csv", "generate://2019-Nov?rows=300k&seed=5"
    assert generate(binary, "2019-Nov", "--rows", "300k", "--seed", "5", "-o", str(file)).returncode == 0
    for _ in range(3):
        process = clickstream.start(url, "--rate=60000/s")
        time.sleep(1.5)
        process.kill()
        process.communicate()
    summary = clickstream.done(url).summary
    assert 0 < summary["this_run"]["events"] < 300_000
    assert_whole(clickstream, summary, [file])


def test_generated_inputs_are_refused_by_name(clickstream):
    for url in ("generate://October", "generate://2019-Nov?rows=many", "generate://2019-Nov?speed=1"):
        ended = clickstream.run(url)
        assert ended.code == 1 and url in ended.stderr, ended.describe()


# Great sizes.
ROW = "2019-10-01 00:00:0{} UTC,view,1,2,,,1.00,4,s\n"


def zip64_of(path, head, filler, times, tail):
    """One deflated member: head, then filler so many times, then tail. The filler is packed once."""
    crc, size, pieces = 0, 0, []
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(filler) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(tail) + packer.flush()
    for text, packed, n in ((head, first, 1), (filler, middle, times), (tail, last, 1)):
        pieces.append((packed, n))
        for _ in range(n):
            crc = zlib.crc32(text, crc)
        size += len(text) * n
    packed_size = sum(len(packed) * n for packed, n in pieces)
    name = b"month.csv"
    sizes = struct.pack("<QQ", size, packed_size)
    full, extra = 0xFFFFFFFF, struct.pack("<HH", 1, 16) + sizes
    common = struct.pack("<HHHHHIIIHH", 45, 0, 8, 0, 0x21, crc, full, full, len(name), len(extra))
    with open(path, "wb") as file:
        file.write(b"PK\3\4" + common + name + extra)
        for packed, n in pieces:
            for _ in range(n):
                file.write(packed)
        at = file.tell()
        entry = struct.pack("<H", 45) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name + extra
        file.write(b"PK\1\2" + entry)
        end = file.tell()
        count, directory = 1, end - at
        file.write(b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, directory, at))
        file.write(b"PK\6\7" + struct.pack("<IQI", 0, end, 1))
        file.write(b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, full, full, 0))
    return size


def test_a_member_of_more_than_4_gb(clickstream, tmp_path):
    """Blank lines are no rows: what is read is large, what is kept is small."""
    path = tmp_path / "month.zip"
    head = (harness.HEADER + "\n" + ROW.format(0)).encode()
    size = zip64_of(path, head, b"\r\n" * (32 << 20), 66, ROW.format(1).encode())
    assert size > 1 << 32 and os.path.getsize(path) < 16 << 20
    assert zipfile.ZipFile(path).infolist()[0].file_size == size, "Python reads it as such an archive too"
    assert clickstream.done(path, timeout=300).summary["totals"]["events"] == 2


def test_a_row_of_300_mb(clickstream, tmp_path):
    path = tmp_path / "long.csv"
    with open(path, "wb") as file:
        file.write((harness.HEADER + "\n" + ROW.format(0)).encode())
        for _ in range(300):
            file.write(b"x" * 1_000_000)
        file.write(("\n" + ROW.format(1)).encode())
    summary = clickstream.done(path).summary
    assert (summary["totals"]["events"], summary["this_run"]["dead_letters"]) == (2, 1)
