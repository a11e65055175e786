"""What bad input and bad surroundings get: a clear error or a dead letter, and the right exit code."""
import gzip
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import zipfile

import duckdb
import pytest

import harness
from harness import HEADER
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal, lake_sources
from oracle.compare import lake_rows

GOOD = "2019-10-01 00:00:0{} UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde-8bb3-4e00-8c23-a032dfed738c"
A, B, C = GOOD.format(0), GOOD.format(1), GOOD.format(2)


def text(*lines):
    return ("\n".join(lines) + "\n").encode()


# Faults of a file: exit 1, the file is named, no end is written.
CUT_GZIP = gzip.compress(text(HEADER, *[GOOD.format(i % 10) for i in range(5000)]))
FILES = {
    "empty.csv": (b"", "empty"),
    "no-header.csv": (text(A, B), "header"),
    "column-missing.csv": (text(HEADER.replace(",price", ""), A), "price"),
    "column-twice.csv": (text(HEADER + ",price", A), "price"),
    "picture.png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8, "CSV"),
    "cut.csv.gz": (CUT_GZIP[: len(CUT_GZIP) // 2], ""),
    "corrupt.csv.gz": (CUT_GZIP[:200] + b"\xff" * 40 + CUT_GZIP[240:], ""),
    "trailer.csv.gz": (CUT_GZIP[:-8] + b"\0" * 8, ""),
    "neither.csv.gz": (b"\0\1\2\3" * 1000, "CSV"),
    "cut.zip": (b"PK\x03\x04" + CUT_GZIP, ""),
    "cr.csv": (text(HEADER, A, B).replace(b"\n", b"\r"), "its line ends are CR alone"),
    "cr-quoted.csv": (text(HEADER, A.replace("shiseido", '"shiseido"'), B).replace(b"\n", b"\r"), "its line ends are CR alone"),
    "empty.csv.gz": (gzip.compress(b""), "its text is empty"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_refused_by_name(clickstream, tmp_path, name):
    content, says = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    ended = clickstream.run(path)
    assert ended.code == 1, ended.describe()
    assert name in ended.stderr and says.lower() in ended.stderr.lower(), ended.describe()
    # No end was written: the good file under the same name is not taken for finished.
    again = clickstream.run(path)
    assert again.code == 1 and name in again.stderr, again.describe()


def test_garbage_behind_zst(clickstream, tmp_path):
    path = harness.write_csv(tmp_path / "a.csv.zst", [A + "\n", B + "\n"])
    path.write_bytes(path.read_bytes() + b"garbage" * 9)
    ended = clickstream.run(path)
    assert ended.code == 1 and "a.csv.zst" in ended.stderr and "what follows is something else" in ended.stderr, ended.describe()


@pytest.mark.parametrize("name", ["plain.csv.gz", "plain.csv.zst", "plain.zip", "plain"])
def test_a_file_is_what_it_holds_not_what_its_name_says(clickstream, tmp_path, name):
    (tmp_path / name).write_bytes(text(HEADER, A))
    assert clickstream.done(tmp_path / name).summary["totals"]["events"] == 1


def test_no_such_file(clickstream, tmp_path):
    ended = clickstream.run(tmp_path / "nowhere.csv")
    assert ended.code == 1 and "nowhere.csv" in ended.stderr, ended.describe()


def test_a_glob_that_matches_nothing(clickstream, tmp_path):
    ended = clickstream.run(tmp_path / "2031-*.csv")
    assert ended.code == 1 and "2031-*.csv" in ended.stderr, ended.describe()


def test_a_directory(clickstream, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    ended = clickstream.run(tmp_path / "folder.csv")
    assert ended.code == 1 and "folder.csv" in ended.stderr and "director" in ended.stderr.lower(), ended.describe()


def test_one_wrong_file_of_several(clickstream, sample, tmp_path):
    ended = clickstream.run([sample, tmp_path / "second.csv"])
    assert ended.code == 1 and "second.csv" in ended.stderr, ended.describe()


def test_an_empty_zip(clickstream, tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    ended = clickstream.run(tmp_path / "empty.zip")
    assert ended.code == 1 and "empty.zip" in ended.stderr, ended.describe()


def test_a_header_without_rows_is_an_empty_source(clickstream, tmp_path):
    (tmp_path / "none.csv").write_bytes(text(HEADER))
    summary = clickstream.done(tmp_path / "none.csv").summary
    assert summary["outcome"] == "done" and summary["totals"]["events"] == 0
    assert clickstream.done(tmp_path / "none.csv").summary["outcome"] == "already_done"


def test_what_came_before_a_fault_counts_once_when_the_file_is_mended(clickstream, sample, tmp_path):
    plain = gzip.decompress(sample.read_bytes())
    middle = plain.index(b"\n", len(plain) // 2) + 1
    first, second = gzip.compress(plain[:middle]), gzip.compress(plain[middle:])
    whole = first + second
    # The second member begins with a block of no known type. Name, size and head stay, so it is the
    # same file to a resume.
    path = tmp_path / "month.csv.gz"
    path.write_bytes(first + second[:10] + b"\x07" + second[11:])
    ended = clickstream.run(path)
    assert ended.code == 1 and "month.csv.gz" in ended.stderr, ended.describe()
    path.write_bytes(whole)
    summary = clickstream.done(path).summary
    oracle = Oracle([Source(summary["source"], [sample])])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)


# Faults of a row: a dead letter that says the file, the row and why; the exit is 0.
def bad(column, value):
    fields = B.split(",")
    fields[HEADER.split(",").index(column)] = value
    return ",".join(fields)


ROWS = {
    "a spreadsheet's category": (bad("category_id", "2.10381E+18"), "category_id"),
    "a spreadsheet's product": (bad("product_id", "4.46001E+07"), "product_id"),
    "an unknown type": (bad("event_type", "remove_from_cart"), "event_type"),
    "a negative price": (bad("price", "-35.79"), "negative"),
    "an absurd price": (bad("price", "99999999999.00"), "price"),
    "a price that is none": (bad("price", "nan"), "price"),
    "no price": (bad("price", ""), "price"),
    "a bad time": (bad("event_time", "2019-10-32 00:00:00 UTC"), "event_time"),
    "a local time": (bad("event_time", "2019-10-01 00:00:00"), "event_time"),
    "no product": (bad("product_id", ""), "product_id"),
    "no user": (bad("user_id", ""), "user_id"),
    "a field too few": (B.rsplit(",", 1)[0], "8 fields"),
    "a field too many": (B + ",x", "10 fields"),
    "an open quote": (B.replace("shiseido", '"shiseido'), "quote"),
    "a line of text": ("Traceback (most recent call last):", "1 fields"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_row_is_a_dead_letter(clickstream, tmp_path, name):
    row, says = ROWS[name]
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A, row, C))
    check_one_dead_letter(clickstream, path, says)


def test_invalid_utf8_is_a_dead_letter(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A) + B.encode().replace(b"shiseido", b"shi\xffido") + b"\n" + text(C))
    check_one_dead_letter(clickstream, path, "UTF-8")


def test_a_row_over_a_mebibyte_is_a_dead_letter(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A) + B.encode().replace(b"shiseido", b"x" * (1 << 20)) + b"\n" + text(C))
    check_one_dead_letter(clickstream, path, "1 MiB")


def check_one_dead_letter(clickstream, path, says):
    summary = clickstream.done(path).summary
    assert summary["this_run"]["dead_letters"] == 1 and summary["totals"]["events"] == 2, summary
    (reason,) = summary["this_run"]["first_reasons"]
    # Row 2, as a person counts them.
    assert "rows.csv" in reason and "row 2" in reason and says in reason, reason
    assert lake_rows(clickstream.lake, "dead-letters") == 1
    # The rows around it keep their numbers: 0 and 2.
    plain = path.with_name("as-the-oracle-reads-it.csv")
    plain.write_bytes(text(HEADER, A, B, C))
    oracle = Oracle([Source(summary["source"], [plain], bad_rows=[1])])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)


def test_bad_rows_all_over_the_sample(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    spoiled = [i for i in range(len(rows)) if i % 97 == 5]
    for i in spoiled:
        rows[i] = rows[i].replace(" UTC", " MSK")
    path = harness.write_csv(tmp_path / "spoiled.csv", rows, header)
    summary = clickstream.done(path).summary
    assert summary["this_run"]["dead_letters"] == len(spoiled) == lake_rows(clickstream.lake, "dead-letters")
    assert 1 <= len(summary["this_run"]["first_reasons"]) < len(spoiled)
    oracle = Oracle([Source(summary["source"], [sample], bad_rows=spoiled)])
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)
    assert clickstream.done(path).summary["this_run"]["dead_letters"] == 0
    assert lake_rows(clickstream.lake, "dead-letters") == len(spoiled)


def test_the_dead_letter_says_where_it_is_from(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A, bad("price", "-1.00")))
    clickstream.done(path)
    letters = str(clickstream.lake / "dead-letters" / "*" / "*.parquet")
    as_text = f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM read_parquet('{letters}')"
    columns = [name for name, *_ in duckdb.sql(f"DESCRIBE {as_text}").fetchall()]
    (letter,) = duckdb.sql(as_text).fetchall()
    shown = dict(zip(columns, letter))
    assert any("rows.csv" in str(value) for value in shown.values()), shown
    assert any("-1.00" in str(value) and "negative" in str(value) for value in shown.values()), shown
    assert bad("price", "-1.00") in shown.values(), shown


def test_more_dead_letters_than_allowed(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A, bad("price", "-1.00"), bad("price", "-2.00"), C))
    ended = clickstream.run(path, "--max-dead-letters", "1")
    assert ended.code == 1 and "max-dead-letters" in ended.stderr and "rows.csv" in ended.stderr, ended.describe()


def test_as_many_dead_letters_as_allowed(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A, bad("price", "-1.00"), C))
    assert clickstream.done(path, "--max-dead-letters", "1").summary["this_run"]["dead_letters"] == 1


def test_a_last_line_cut_off(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, A, B) + C[:50].encode())
    summary = clickstream.done(path).summary
    assert summary["totals"]["events"] == 2 and summary["this_run"]["dead_letters"] == 1


def test_a_row_of_300_megabytes(clickstream, tmp_path):
    path = tmp_path / "rows.csv"
    with open(path, "wb") as file:
        file.write(text(HEADER, A))
        for _ in range(300):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + text(C))
    before = os.times().children_user
    summary, peak_mb = clickstream.peak(path)
    assert summary["totals"]["events"] == 2 and summary["this_run"]["dead_letters"] == 1
    # The row is not held in memory.
    assert peak_mb < 250
    assert os.times().children_user - before < 60


# Wrong usage: exit 2, and what would be right.
@pytest.mark.parametrize(
    "flags, says",
    [(["--speed", "fast"], "600x"), (["--rate", "many"], "5000/s"), (["--gap", "sometimes"], "30m"),
     (["--rate", "5/s", "--flat-out"], "--flat-out"), (["--nonsense"], "--nonsense"), (["--gap", "0s"], "from 1s on"),
     (["--from", "2019-10-02", "--until", "2019-10-01"], "--from 2019-10-02 00:00:00 UTC is not before --until"),
     (["--input=-", "--input=-"], "- is named more than once"), (["--lake", "s3:/shop/x"], "two slashes")],
)
def test_wrong_usage(clickstream, sample, flags, says):
    ended = clickstream.run(sample, *flags)
    assert ended.code == 2 and says in ended.stderr, ended.describe()


# Bad surroundings.


def test_a_busy_port_that_was_asked_for(clickstream, sample):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = clickstream.run(sample, "--listen", str(port))
        assert ended.code == 1 and str(port) in ended.stderr, ended.describe()
    assert clickstream.done(sample, "--listen", str(port)).summary["outcome"] == "done"


def unprivileged():
    """Root writes into read-only folders all the same, so there the mount must say no."""
    return os.geteuid() != 0


def mounted(path, options):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True).returncode == 0


def test_a_read_only_folder(clickstream, sample):
    clickstream.data.mkdir(parents=True)
    if unprivileged():
        clickstream.data.chmod(0o555)
    elif not mounted(clickstream.data, "ro,size=1m"):
        harness.not_tested("a read-only folder: root, and this machine lets it mount nothing")
    try:
        ended = clickstream.run(sample)
    finally:
        clickstream.data.chmod(0o755) if unprivileged() else subprocess.run(["umount", str(clickstream.data)], check=True)
    assert ended.code == 1 and str(clickstream.data) in ended.stderr, ended.describe()


@pytest.mark.parametrize("folder, size, says", [
    *(("data", size, "room|full|space") for size in ("64k", "512k", "1m", "1536k", "2500k")),
    # The first file, one within the first flush, the last but one.
    *(("lake", size, "[.]parquet: there is no room") for size in ("100k", "300k", "600k")),
])
def test_a_full_disk_then_room_again(clickstream, sample, folder, size, says):
    folder = getattr(clickstream, folder)
    folder.mkdir(parents=True)
    if unprivileged() or not mounted(folder, f"size={size}"):
        harness.not_tested("a full disk: mounting needs root and a machine that allows it")
    try:
        ended = clickstream.run(sample)
        assert ended.code == 1 and re.search(says, ended.stderr), ended.describe()
        subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)
        summary = clickstream.done(sample).summary
        oracle = Oracle([Source(summary["source"], [sample])])
        assert_marts_equal(clickstream.marts, oracle)
        assert_lake_equal(clickstream.lake, oracle)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# Parts of the data folder lost or mixed up: never a silent skip, never a second count.


@pytest.mark.parametrize("lost", ["broker.db", "marts.db", "lake"])
def test_a_part_of_the_data_folder_is_gone(clickstream, sample, lost):
    clickstream.done(sample)
    for path in clickstream.data.glob(f"{lost}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # What the first refusal leaves behind does not make the second try pass.
    for _ in range(12):
        ended = clickstream.run(sample)
        assert ended.code == 1, ended.describe()
        assert any(remedy in ended.stderr for remedy in ("restart", "Restore", " back")), f"no remedy: {ended.describe()}"


def test_the_broker_is_gone_beside_the_marts_alone(clickstream, sample):
    clickstream.done(sample)
    shutil.rmtree(clickstream.lake)
    for path in clickstream.data.glob("broker.db*"):
        path.unlink()
    ended = clickstream.run(sample)
    assert ended.code == 1 and "marts.db" in ended.stderr, ended.describe()


def test_the_broker_is_gone_beside_the_lake_alone(clickstream, sample):
    clickstream.done(sample)
    for name in ("broker.db", "marts.db"):
        for path in clickstream.data.glob(f"{name}*"):
            path.unlink()
    ended = clickstream.run(sample)
    assert ended.code == 1 and "lake" in ended.stderr, ended.describe()


def test_all_outputs_and_the_broker_gone_is_a_new_start(clickstream, sample):
    first = clickstream.done(sample).summary
    shutil.rmtree(clickstream.data)
    assert clickstream.done(sample).summary["totals"] == first["totals"]


@pytest.mark.parametrize("name", ["broker.db", "marts.db"])
def test_a_database_that_is_none(clickstream, sample, name):
    clickstream.done(sample)
    for path in clickstream.data.glob(f"{name}-*"):
        path.unlink()
    (clickstream.data / name).write_bytes(b"this is no database" * 1000)
    ended = clickstream.run(sample)
    assert ended.code == 1 and name in ended.stderr, ended.describe()


@pytest.mark.parametrize("name", ["broker.db", "marts.db"])
def test_a_torn_database(clickstream, sample, name):
    clickstream.done(sample)
    with open(clickstream.data / name, "r+b") as file:
        size = file.seek(0, 2)
        file.truncate(size // 2)
    ended = clickstream.run(sample)
    assert ended.code == 1 and name in ended.stderr, ended.describe()


def test_a_sum_beyond_the_digits_of_a_price(clickstream, tmp_path):
    top = "9999999999.99"
    path = tmp_path / "rows.csv"
    path.write_bytes(text(HEADER, *[bad("price", top).replace(",view,", ",purchase,")] * 5))
    summary = clickstream.done(path).summary
    assert summary["totals"]["revenue"] == "49999999999.95"
    (kind, value), = duckdb.sql(f"SELECT typeof(revenue), revenue FROM read_parquet('{clickstream.lake}/sessions/*/*.parquet')").fetchall()
    assert (kind, str(value)) == ("DECIMAL(18,2)", "49999999999.95")


def test_a_changed_input_under_the_same_name_is_refused(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    path = harness.write_csv(tmp_path / "month.csv", rows[:1000], header)
    clickstream.done(path)
    harness.write_csv(path, rows[:1200], header)
    ended = clickstream.run(path)
    assert ended.code == 1 and all(word in ended.stderr for word in ("month.csv", "--beside", "--restart")), ended.describe()
    summary = clickstream.done(path, "--beside").summary
    assert summary["totals"]["events"] == 2200
    assert len(lake_sources(clickstream.lake)) == 2
    # Each goes on by its own command, whatever lies beside it.
    for count in (1200, 1000):
        harness.write_csv(path, rows[:count], header)
        assert clickstream.done(path).summary["outcome"] == "already_done"


def test_a_file_beside_standard_input_is_not_counted_twice(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    path = harness.write_csv(tmp_path / "part.csv", rows[:1000], header)
    play = lambda *flags: clickstream.run([path, "-"], *flags, stdin=(header + "".join(rows[1000:1500])).encode())
    assert play().summary["totals"]["events"] == 1500
    ended = play()
    assert ended.code == 1 and "part.csv" in ended.stderr and "cannot be read again" in ended.stderr, ended.describe()
    assert play("--restart", "--yes").summary["totals"]["events"] == 1500
    assert play("--beside").summary["totals"]["events"] == 3000


@pytest.mark.parametrize("stdin, says", [(b"", "its text is empty"), (text(A), "it has no header")])
def test_a_stream_that_cannot_be_played_empties_nothing(clickstream, tmp_path, stdin, says):
    good = text(HEADER, A, B)
    assert clickstream.run("-", stdin=good).summary["totals"]["events"] == 2
    ended = clickstream.run("-", "--restart", "--yes", stdin=stdin)
    assert ended.code == 1 and f"standard input: {says}" in ended.stderr, ended.describe()
    assert duckdb.sql(f"select count(*) from read_parquet('{clickstream.lake}/events/*/*.parquet')").fetchone() == (2,)
    assert clickstream.run("-", "--restart", "--yes", stdin=gzip.compress(good)).summary["totals"]["events"] == 2


def test_a_signal_is_heard_while_a_stream_is_waited_for(clickstream):
    process = clickstream.start("-", "--restart", "--yes", stdin=subprocess.PIPE)
    while not clickstream.data.exists() or not list(clickstream.data.glob("marts.db*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 3, harness.finish(process).describe()
