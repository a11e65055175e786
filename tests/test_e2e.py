"""`clickstream run` from files to marts and lake, each row held against the oracle."""
import fcntl
import gzip
import hashlib
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from datetime import datetime, timedelta

import pytest

import harness
from oracle import HALF_AN_HOUR, Oracle, Source, assert_lake_equal, assert_marts_equal, lake_sources


def assert_outputs(clickstream, sources, gap=HALF_AN_HOUR):
    oracle = Oracle(sources, gap)
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)
    return oracle


def fingerprint(clickstream):
    """All that a second run must leave as it is: every lake file, and every row of the marts."""
    files = {str(p.relative_to(clickstream.lake)): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in clickstream.lake.rglob("*.parquet")}
    with sqlite3.connect(f"file:{clickstream.marts}?mode=ro", uri=True) as db:
        marts = [db.execute(f"SELECT * FROM {mart} ORDER BY 1, 2, 3").fetchall()
                 for mart in ("mart_funnel_daily", "mart_traffic_hourly", "mart_products", "mart_sessions_daily", "abandoned_carts")]
    db.close()
    return files, marts


@pytest.mark.parametrize("gap, seconds, sessions, steps", [("30m", HALF_AN_HOUR, 5067, 12633), ("none", None, 5066, 12632)])
def test_the_sample_then_again(clickstream, sample, gap, seconds, sessions, steps):
    first = clickstream.done(sample, "--gap", gap).summary
    assert first["schema"] == "clickstream.summary/1"
    assert first["outcome"] == "done"
    assert first["this_run"]["events"] == 17_434 and first["this_run"]["dead_letters"] == 0
    assert first["totals"]["events"] == 17_434 and first["totals"]["sessions"] == sessions and first["totals"]["steps"] == steps
    assert first["totals"]["revenue"] == "59442.63" and first["totals"]["abandoned"] == 58
    if gap == "30m":
        assert first["funnel"] == {
            "viewed": 12_295, "carted": 127, "purchased": 211, "viewed_then_carted": 127, "carted_then_purchased": 69}
    assert lake_sources(clickstream.lake) == [first["source"]]
    assert_outputs(clickstream, [Source(first["source"], [sample])], seconds)

    before = fingerprint(clickstream)
    again = clickstream.done(sample, "--gap", gap).summary
    assert again["outcome"] == "already_done"
    assert again["this_run"]["events"] == 0 and again["totals"] == first["totals"]
    assert fingerprint(clickstream) == before


def test_without_json_the_summary_is_for_people(clickstream, sample):
    command = [part for part in clickstream.command(sample) if part not in ("--json", "--quiet")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=harness.environment())
    assert ended.returncode == 0, ended.stderr
    for figure in ("17,434", "5,067", "59,442.63", "12,295"):
        assert figure in ended.stdout or figure.replace(",", "") in ended.stdout, f"{figure} is not in:\n{ended.stdout}"


def test_a_later_month_first_then_the_earlier_one(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    november = harness.write_csv(tmp_path / "2019-Nov-head.csv.gz", harness.shifted(rows, "2019-11-02", ""), header)
    clickstream.done(november)
    after = clickstream.done(sample).summary
    assert after["totals"]["events"] == 2 * 17_434 and after["totals"]["sessions"] == 2 * 5_067
    assert after["this_run"]["late_events"] == 0
    october, later = lake_sources(clickstream.lake)
    assert october == after["source"]
    # The sessions of both have the same keys: only their sources keep them apart.
    assert_outputs(clickstream, [Source(october, [sample]), Source(later, [november])])


def test_several_files_are_one_history(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    cuts = [0, 4_001, 9_000, 13_333, len(rows)]
    names = ["a.csv", "b.csv.gz", "c.csv.zst", "d.zip"]
    parts = [harness.write_csv(tmp_path / name, rows[a:b], header) for name, a, b in zip(names, cuts, cuts[1:])]
    # A session goes on from file to file.
    summary = clickstream.done(parts).summary
    assert summary["totals"]["sessions"] == 5_067 and summary["totals"]["events"] == 17_434
    plain = [harness.write_csv(tmp_path / f"{i}.csv", rows[a:b], header) for i, (a, b) in enumerate(zip(cuts, cuts[1:]))]
    assert_outputs(clickstream, [Source(summary["source"], plain)])


def test_a_glob_is_read_in_order(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    parts = [harness.write_csv(tmp_path / f"2019-{i}.csv", rows[i * 6000 : (i + 1) * 6000], header) for i in range(3)]
    summary = clickstream.done(tmp_path / "2019-*.csv").summary
    assert_outputs(clickstream, [Source(summary["source"], parts)])


def test_columns_in_another_order_with_crlf_and_offsets_in_times(clickstream, sample, tmp_path):
    header, rows = harness.lines_of(sample)
    turned = lambda line: ",".join(reversed(line.strip().split(",")))  # noqa: E731
    odd = [turned(row).replace(" UTC", "+00:00") + "\r\n" for row in rows]
    # The last line has no line end, as many a file's.
    odd[-1] = odd[-1].strip()
    path = harness.write_csv(tmp_path / "odd.csv", odd, "\ufeff" + turned(header) + "\r\n")
    summary = clickstream.done(path).summary
    assert summary["this_run"]["dead_letters"] == 0
    assert_outputs(clickstream, [Source(summary["source"], [sample])])


def test_json_on_the_topics(clickstream, sample):
    summary = clickstream.done(sample, "--format", "json").summary
    assert_outputs(clickstream, [Source(summary["source"], [sample])])


@pytest.mark.parametrize("partitions", ["1", "7"])
def test_other_partition_counts(clickstream, sample, partitions):
    summary = clickstream.done(sample, "--partitions", partitions).summary
    assert_outputs(clickstream, [Source(summary["source"], [sample])])


def test_standard_input(clickstream, sample):
    summary = clickstream.done("-", stdin=gzip.decompress(sample.read_bytes())).summary
    assert summary["totals"]["events"] == 17_434
    assert_outputs(clickstream, [Source(summary["source"], [sample])])


def test_a_replay_in_time_is_no_different(clickstream, sample):
    # 2 h 50 min with long silences, in a second or so.
    summary = clickstream.done(sample, "--speed", "20000x", "--max-gap", "30s").summary
    assert_outputs(clickstream, [Source(summary["source"], [sample])])


def events_so_far(marts):
    try:
        with sqlite3.connect(f"file:{marts}?mode=ro", uri=True) as db:
            found = db.execute("SELECT sum(views + carts + purchases) FROM mart_traffic_hourly").fetchone()[0]
        db.close()
        return found or 0
    except sqlite3.Error:
        return 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drained_by_a_signal_then_resumed(clickstream, sample, number):
    process = clickstream.start(sample, "--rate", "2500/s")
    deadline = time.monotonic() + 60
    while events_so_far(clickstream.marts) < 1500:
        assert process.poll() is None and time.monotonic() < deadline, "no event in the marts after 60 s"
        time.sleep(0.05)
    process.send_signal(number)
    ended = harness.finish(process)
    assert ended.code == 3, ended.describe()
    drained = ended.summary
    assert drained["outcome"] == "drained" and 1500 <= drained["this_run"]["events"] < 17_434
    # The marts may have left a little of what was published to the next start, and never hold more.
    assert 1500 <= events_so_far(clickstream.marts) <= drained["this_run"]["events"]

    resumed = clickstream.done(sample).summary
    assert resumed["outcome"] == "done" and resumed["source"] == drained["source"]
    assert resumed["this_run"]["events"] == 17_434 - drained["this_run"]["events"]
    assert_outputs(clickstream, [Source(resumed["source"], [sample])])


def test_a_loop_is_drained_at_any_moment(clickstream, sample, tmp_path):
    """Its passes are so short that most signals come where one begins."""
    header, rows = harness.lines_of(sample)
    short = harness.write_csv(tmp_path / "short.csv", rows[:5], header)
    drawn = random.Random(7)
    for flags, code in [((), 3), ((), 3), (("--stay",), 0), ((), 3)]:
        process = clickstream.start(short, "--loop", *flags)
        before, deadline = events_so_far(clickstream.marts), time.monotonic() + 60
        while events_so_far(clickstream.marts) <= before:
            assert process.poll() is None and time.monotonic() < deadline, harness.finish(process).describe()
            time.sleep(0.05)
        time.sleep(drawn.uniform(0, 0.1))
        process.send_signal(signal.SIGTERM)
        ended = harness.finish(process)
        assert ended.code == code and ended.summary["outcome"] == "drained", ended.describe()


def test_a_second_signal_leaves_at_once_and_nothing_is_lost(clickstream, sample):
    process = clickstream.start(sample, "--rate", "2500/s")
    deadline = time.monotonic() + 60
    while events_so_far(clickstream.marts) < 1000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    ended = harness.finish(process)
    # The drain may have been quicker than the second signal.
    assert ended.code in (130, 3), ended.describe()
    assert_outputs(clickstream, [Source(clickstream.done(sample).summary["source"], [sample])])


def test_restart_empties_the_folder_and_plays_anew(clickstream, sample):
    first = clickstream.done(sample).summary
    again = clickstream.done(sample, "--restart", "--yes").summary
    assert again["outcome"] == "done" and again["totals"] == first["totals"]
    assert_outputs(clickstream, [Source(again["source"], [sample])])


def test_restart_deletes_nothing_before_it_is_sure_to_begin(clickstream, sample, tmp_path):
    clickstream.done(sample)
    before = fingerprint(clickstream)
    with socket.create_server(("127.0.0.1", 0)) as busy, open(clickstream.data / "marts.db.lock") as lock:
        port = str(busy.getsockname()[1])
        for path, flags, code, says in (
            (tmp_path / "typo.csv", (), 1, "typo.csv: no such file"),
            (sample, ("--listen", port), 1, port),
            (sample, ("--max-gap", "0s"), 2, "--max-gap"),
            (sample, ("--lake-memory", "1MiB"), 2, "--lake-memory"),
            ("-", ("--loop",), 2, "--loop"),
            (sample, ("--google-credentials", "none.json", "--warehouse", "p.d"), 1, "none.json"),
            (sample, None, 1, "another process writes to"),
        ):
            if flags is None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ended = clickstream.run(path, *(flags or ()), "--restart", "--yes")
            assert ended.code == code and says in ended.stderr, f"{flags}: {ended.describe()}"
            assert fingerprint(clickstream) == before, flags
    ended = clickstream.run(sample, "--restart")
    assert ended.code == 1 and "--yes" in ended.stderr, ended.describe()
    assert clickstream.done(sample).summary["outcome"] == "already_done" and fingerprint(clickstream) == before


def test_restart_leaves_a_lake_elsewhere_alone(clickstream, sample, tmp_path):
    lake = tmp_path / "elsewhere"
    clickstream.done(sample, "--lake", str(lake))
    before = [fingerprint(clickstream), sorted(lake.rglob("*"))]
    ended = clickstream.run(sample, "--lake", str(lake), "--restart", "--yes")
    assert ended.code == 1 and f"{lake} still holds" in ended.stderr, ended.describe()
    assert [fingerprint(clickstream), sorted(lake.rglob("*"))] == before
    shutil.rmtree(lake)
    assert clickstream.done(sample, "--lake", str(lake), "--restart", "--yes").summary["outcome"] == "done"
    # The data folder's own by its name.
    clickstream.done(sample, "--restart", "--yes")
    summary = clickstream.done(sample, "--lake", str(clickstream.lake), "--restart", "--yes").summary
    assert_outputs(clickstream, [Source(summary["source"], [sample])])


@pytest.mark.parametrize("before, flags, code", [("finished", (), 3), ("already done", (), 3), ("finished", ("--stay",), 0)])
def test_a_signal_before_the_outputs_have_caught_up(clickstream, sample, tmp_path, before, flags, code):
    empty = harness.write_csv(tmp_path / "empty.csv", [])
    clickstream.done(empty)
    # Nobody else writes to the marts while this has them.
    marts = sqlite3.connect(clickstream.marts, isolation_level=None)
    marts.execute("BEGIN IMMEDIATE")

    def read_to_the_end():
        command = [part for part in clickstream.command(sample, ("--listen", "0", *flags)) if part != "--quiet"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.environment())
        harness.status_until(process, clickstream, lambda status: status["phase"] == "done")
        return process

    if before == "already done":
        process = read_to_the_end()
        process.kill()
        harness.finish(process)
    process = read_to_the_end()
    process.send_signal(signal.SIGTERM)
    # Not before it has heard of it.
    assert harness.said(process, "draining")
    marts.execute("ROLLBACK")
    ended = harness.finish(process)
    assert ended.code == code and ended.summary["outcome"] == "drained", ended.describe()
    again = clickstream.done(sample).summary
    assert again["outcome"] == "already_done"
    marts.close()
    assert_outputs(clickstream, [Source(again["source"], [sample])])


def test_another_gap_lateness_or_partition_count_is_refused_with_the_remedy(clickstream, sample):
    clickstream.done(sample)
    before = fingerprint(clickstream)
    for flag, value in (("--gap", "20m"), ("--gap", "none"), ("--allowed-lateness", "5m"), ("--partitions", "3")) * 8:
        ended = clickstream.run(sample, flag, value)
        assert ended.code == 1, f"{flag} {value}: {ended.describe()}"
        assert "restart" in ended.stderr or "another data folder" in ended.stderr, ended.describe()
    assert fingerprint(clickstream) == before


def test_a_second_process_on_the_folder_is_refused(clickstream, sample):
    process = clickstream.start(sample, "--rate", "500/s")
    try:
        deadline = time.monotonic() + 60
        while not events_so_far(clickstream.marts):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        for flags in ((), ("--restart", "--yes")):
            second = clickstream.run(sample, *flags)
            assert second.code == 1 and str(clickstream.data) in second.stderr, second.describe()
    finally:
        process.send_signal(signal.SIGTERM)
        assert harness.finish(process).code == 3
    assert_outputs(clickstream, [Source(clickstream.done(sample).summary["source"], [sample])])


@pytest.mark.parametrize("partitions", [4, 32])
def test_many_days_of_a_few_rows_each(clickstream, tmp_path, partitions):
    """A file is open for each day, topic and partition: little of the memory that the lake may have goes to each."""
    first = datetime(2019, 10, 1)
    rows = [
        f"{first + timedelta(days=day, seconds=600 * i):%Y-%m-%d %H:%M:%S} UTC,view,{i + 1},1,,,1.00,{i + 1},{day:08d}-0000-4000-8000-{i:012d}\n"
        for day in range(200) for i in range(100)
    ]
    path = harness.write_csv(tmp_path / "days.csv", rows)
    summary, peak_mb = clickstream.peak(path, "--partitions", str(partitions))
    assert summary["totals"]["events"] == len(rows) and len(list(clickstream.lake.glob("events/*"))) == 200
    assert peak_mb < 400


def test_a_group_of_an_earlier_run_is_told_and_given_up(clickstream, sample):
    """As a warehouse's, which this run has not: it would hold the log once that is full."""
    clickstream.done(sample)
    with sqlite3.connect(clickstream.data / "broker.db") as db:
        db.execute("INSERT INTO registered VALUES ('clickstream.warehouse', 'clickstream.events')")
    told = "--forget-group clickstream.warehouse"
    assert told in clickstream.run(sample).stderr
    given_up = ["--forget-group", "clickstream.warehouse"]
    for flags in (given_up, []):
        ended = clickstream.run(sample, *flags)
        assert ended.code == 0 and told not in ended.stderr, ended.describe()
    unknown = clickstream.run(sample, *given_up)
    assert unknown.code == 1 and "there is no such group" in unknown.stderr, unknown.describe()
    assert clickstream.run(sample, *given_up, "--broker", "kafka://127.0.0.1:1").code == 2
