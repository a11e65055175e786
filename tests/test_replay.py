"""The replay as its users steer it: windows, disorder, control from another process, the schedule."""
import json
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone

import duckdb
import pytest

import harness
from oracle import Oracle, Source, assert_lake_equal, assert_marts_equal, lake_sources

FROM, UNTIL = "2019-10-01 00:10:00", "2019-10-01 02:30:00"


def assert_outputs(clickstream, *sources, gap=30 * 60):
    oracle = Oracle(sources, gap)
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)
    return oracle


def events(clickstream, sql):
    """Asked of the lake, by a reader that is not ours."""
    return duckdb.sql(sql.replace("EVENTS", f"read_parquet('{clickstream.lake}/events/*/*.parquet')")).fetchall()


def eventually(what, done, seconds=60):
    until = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        assert time.monotonic() < until, f"it never came to be that {what}"
        time.sleep(0.02)


# --- windows

def test_a_window_is_played_and_nothing_else(clickstream, sample):
    _, rows = harness.lines_of(sample)
    outside = [i for i, row in enumerate(rows) if not FROM <= row[:19] < UNTIL]
    inside = len(rows) - len(outside)
    assert 1000 < inside < len(rows) - 1000
    summary = clickstream.done(sample, "--from", FROM, "--until", UNTIL).summary
    assert summary["this_run"]["events"] == inside
    assert_outputs(clickstream, Source(summary["source"], [sample], bad_rows=outside))
    # The first of them; and another window of the same file is refused, or a source beside it.
    refused = clickstream.run(sample, "--from", FROM, "--limit", "700")
    assert refused.code == 1 and "--until was" in refused.stderr and "--beside" in refused.stderr, refused.describe()
    first = clickstream.done(sample, "--from", FROM, "--limit", "700", "--beside").summary
    before = next(i for i, row in enumerate(rows) if row[:19] >= FROM)
    others = [i for i in range(len(rows)) if not before <= i < before + 700]
    assert_outputs(
        clickstream, Source(summary["source"], [sample], bad_rows=outside), Source(first["source"], [sample], bad_rows=others))


def test_a_sample_is_of_whole_sessions(clickstream, sample):
    _, rows = harness.lines_of(sample)
    summary = clickstream.done(sample, "--sample", "10%").summary
    taken = {row for row, in events(clickstream, "SELECT source_row FROM EVENTS")}
    key = lambda row: row.rstrip().split(",")[-1] or "user-" + row.split(",")[7]  # noqa: E731
    keys = {key(rows[i]) for i in taken}
    all_keys = {key(row) for row in rows}
    assert 0.08 < len(keys) / len(all_keys) < 0.12, f"{len(keys)} of {len(all_keys)} sessions"
    assert taken == {i for i, row in enumerate(rows) if key(row) in keys}, "a session is there in part"
    assert_outputs(clickstream, Source(summary["source"], [sample], bad_rows=[i for i in range(len(rows)) if i not in taken]))


def test_passes_and_rebase_move_whole_days_and_seconds(clickstream, sample):
    summary = clickstream.done(sample, "--loop=3").summary
    assert summary["this_run"]["events"] == 3 * 17_434 and summary["totals"]["sessions"] == 3 * 5_067
    first = {source: start for source, start in events(clickstream, "SELECT source, epoch(min(event_time))::BIGINT FROM EVENTS GROUP BY 1")}
    starts = sorted(first.values())
    assert [start - starts[0] for start in starts] == [0, 86_400, 172_800]
    shifts = {source: start - starts[0] for source, start in first.items()}
    assert_outputs(clickstream, *(Source(source, [sample], shift_seconds=shift) for source, shift in sorted(shifts.items())))
    assert clickstream.done(sample, "--loop=3").summary["outcome"] == "already_done"


def test_rebased_to_now(clickstream, sample):
    before = int(time.time())
    summary = clickstream.done(sample, "--rebase", "now").summary
    start, = events(clickstream, "SELECT epoch(min(event_time)) FROM EVENTS")[0]
    assert before - 1 <= start <= time.time()
    shift = int(start - datetime(2019, 10, 1, tzinfo=timezone.utc).timestamp())
    assert_outputs(clickstream, Source(summary["source"], [sample], shift_seconds=shift))


# --- disorder on purpose

def test_shuffled_rows_within_the_allowed_lateness_are_as_batch(clickstream, sample):
    flags = ("--shuffle", "30s", "--seed", "7", "--allowed-lateness", "30s")
    summary = clickstream.done(sample, *flags).summary
    assert summary["this_run"]["late_events"] == 0
    behind, = events(
        clickstream,
        "SELECT max(epoch(latest - event_time)) FROM (SELECT event_time, max(event_time) OVER"
        " (PARTITION BY topic_partition ORDER BY topic_offset) AS latest FROM EVENTS)")[0]
    assert 10 < behind < 30, f"disorder of {behind} s"
    assert summary["disorder"]["shuffled"] > 10_000
    assert_outputs(clickstream, Source(summary["source"], [sample], published=clickstream.lake))


def test_copies_and_damage(clickstream, sample):
    flags = ("--duplicate", "1%", "--corrupt", "1%", "--seed", "5", "--shuffle", "10s", "--allowed-lateness", "10s")
    summary = clickstream.done(sample, *flags).summary
    damaged = [row for row, in duckdb.sql(
        f"SELECT source_row FROM read_parquet('{clickstream.lake}/dead-letters/*/*.parquet')").fetchall()]
    copies, = events(clickstream, "SELECT count(*) FROM EVENTS WHERE copy = 1")[0]
    counted = summary["disorder"]
    assert (counted["copies"], counted["damaged"], summary["this_run"]["dead_letters"]) == (copies, len(damaged), len(damaged))
    assert 100 < copies < 260 and 100 < len(damaged) < 260
    assert_outputs(clickstream, Source(summary["source"], [sample], bad_rows=damaged, published=clickstream.lake))


# --- the schedule

def test_a_foreign_reader_confirms_the_errors_of_the_schedule(clickstream, sample):
    rate = 5_000
    summary = clickstream.done(sample, "--rate", f"{rate}/s", "--listen", "off").summary
    # Row k is meant for start + k / rate; the start is where the row least late says.
    early = events(
        clickstream,
        f"WITH late AS (SELECT epoch_us(sent_at) - source_row * 1000000 / {rate} AS us FROM EVENTS)"
        " SELECT quantile_disc(us - least, 0.5) / 1000, quantile_disc(us - least, 0.99) / 1000, max(us - least) / 1000"
        " FROM late, (SELECT min(us) AS least FROM late)")[0]
    ours = summary["schedule"]["sending_minus_intended_ms"]
    for found, told in zip(early, (ours["p50"], ours["p99"], ours["max"])):
        assert abs(found - told) <= 1 + 0.02 * told, f"{early} ms in the lake, {ours} in the summary"
    assert summary["schedule"]["visible_minus_intended_ms"]["p50"] >= ours["p50"]


@pytest.mark.parametrize("rate, rows", [(10, 15), (500_000, 17_434)])
def test_rates_slow_and_fast(clickstream, sample, rate, rows):
    """Row k at start + k / rate, and late by no more than is told: so the lake shows them as even as they are said to be."""
    summary = clickstream.done(sample, "--rate", f"{rate}/s", "--limit", str(rows)).summary
    assert summary["this_run"]["events"] == rows
    numbers, apart_us = events(
        clickstream,
        f"SELECT count(DISTINCT source_row), max(us) - min(us)"
        f" FROM (SELECT source_row, epoch_us(sent_at) - source_row * 1000000 // {rate} AS us FROM EVENTS)")[0]
    assert numbers == rows
    assert apart_us <= 1000 * (summary["schedule"]["sending_minus_intended_ms"]["max"] + 1)


def test_the_rows_of_a_second_in_a_burst(clickstream, sample):
    """With --spread burst none waits for its share of the second; the outputs are the same."""
    flags = ("--speed", "60x", "--limit", "200", "--spread", "burst")
    summary = clickstream.done(sample, *flags).summary
    assert summary["this_run"]["events"] == 200
    together, seconds = events(
        clickstream,
        "SELECT count(*) FILTER (instants = 1), count(*)"
        " FROM (SELECT count(*) AS rows, count(DISTINCT sent_at) AS instants FROM EVENTS GROUP BY event_time) WHERE rows > 1")[0]
    # A busy machine may read the clock in the middle of one.
    assert together > seconds / 2 > 10, f"the rows of {together} seconds of {seconds} went out at one instant"
    _, rows = harness.lines_of(sample)
    assert_outputs(clickstream, Source(summary["source"], [sample], bad_rows=range(200, len(rows))))


def test_a_burst_is_no_larger_than_asked(clickstream, sample):
    """What was missed while the process stood still goes out by bursts of so many rows, at most twice as fast."""
    rate, burst = 1000, 50
    process = clickstream.start(sample, "--rate", f"{rate}/s", "--burst", str(burst), "--limit", "4000", "--listen", "0")
    harness.metrics_until(process, clickstream, lambda values: values.get("clickstream_producer_events_total", 0) > 200)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    process.send_signal(signal.SIGCONT)
    ended = harness.finish(process)
    assert ended.code == 0 and ended.summary["this_run"]["events"] == 4000, ended.describe()
    beyond, = events(
        clickstream,
        "WITH sent AS (SELECT epoch_us(sent_at) AS us, row_number() OVER (ORDER BY source_row) AS n FROM EVENTS)"
        f" SELECT max((b.n - a.n) - {burst} - (b.us - a.us) * 2.0 * {rate} / 1e6)"
        " FROM sent a JOIN sent b ON b.n > a.n AND b.n <= a.n + 1500 WHERE a.n % 10 = 0 AND b.n % 10 = 0")[0]
    # The clock that `sent_at` is of is read for up to 64 rows at once.
    assert beyond <= 64, f"{beyond} rows more than a burst and twice the rate"


def test_ramps_and_steps(clickstream, sample, tmp_path):
    steps = tmp_path / "steps.txt"
    steps.write_text("10000/s for 500ms  # 5,000 rows\n0/s for 1s\n20000/s\n")
    began = time.monotonic()
    summary = clickstream.done(sample, "--rate-steps", str(steps)).summary
    # 0.5 s, a pause of 1 s, then 12,434 rows at 20,000/s: never sooner.
    assert time.monotonic() - began > 2.1 and summary["this_run"]["events"] == 17_434
    pause, = events(
        clickstream,
        "SELECT max(gap) FROM (SELECT epoch(sent_at - lag(sent_at) OVER (ORDER BY source_row)) AS gap FROM EVENTS)")[0]
    assert pause > 0.9
    wrong = clickstream.run(sample, "--ramp", "fast")
    assert wrong.code == 2 and "1000/s..50000/s over 5m" in wrong.stderr, wrong.describe()
    steps.write_text("10/s for 5s\nnever\n")
    wrong = clickstream.run(sample, "--rate-steps", str(steps))
    assert wrong.code == 2 and "line 2" in wrong.stderr, wrong.describe()


# --- steering from another process

class Steered:
    """A replay that serves, and the command that steers it."""

    def __init__(self, clickstream, path, *flags):
        self.clickstream = clickstream
        listen = () if "--listen" in flags else ("--listen", "0")
        self.process = clickstream.start(path, *listen, *flags)

    def control(self, *words, code=0):
        command = [str(self.clickstream.binary), "control", *words, "--data-dir", str(self.clickstream.data), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=harness.environment())
        assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout) if code == 0 else done.stderr

    def address(self):
        file = self.clickstream.data / "address"
        return eventually("it serves", lambda: self.alive() and file.exists() and file.read_text().splitlines())

    def alive(self):
        assert self.process.poll() is None, harness.finish(self.process).describe()
        return True

    def status(self):
        with urllib.request.urlopen(self.address()[0] + "/replay", timeout=10) as answer:
            return json.load(answer)

    def until(self, what, done):
        return eventually(what, lambda: self.alive() and done(self.status()))


@pytest.fixture
def steered(clickstream):
    """Starts a replay; what a failed test leaves running is killed."""
    started = []

    def start(*args):
        started.append(Steered(clickstream, *args))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def test_steered_from_another_process(clickstream, steered, sample):
    run = steered(sample, "--rate", "1000/s")
    run.until("rows are sent", lambda status: status["events"] > 0)
    for action in (["pause"], ["speed", "9x"], ["end"]):
        assert "no source deadbeef was begun here" in run.control(*action, "--source", "deadbeef", code=1)
    with urllib.request.urlopen(run.address()[0], timeout=10) as page:
        assert 'id="steer"' in page.read().decode(), "the page has its buttons"
    told = run.control("pause")
    assert told["paused"] and told["source"] == run.status()["source"]
    run.until("it is paused", lambda status: status["paused"])
    # What was open is committed; after that nothing comes.
    def stands():
        before = run.control("status")
        time.sleep(0.5)
        after = run.control("status")
        return before["events"] == after["events"] and after

    status = eventually("it stands still", stands)
    events_then = status["events"]
    assert status["paused"] and status["rate"] == 1000
    assert run.control("rate", "2000/s")["rate"] == 2000
    assert run.control("resume")["paused"] is False
    run.until("it goes on at that rate", lambda status: not status["paused"] and status["rate"] == 2000 and status["events"] > events_then)
    assert run.control("speed", "600x")["speed"] == 600
    assert "as in 600x" in run.control("speed", "fast", code=2)
    assert "takes no value" in run.control("pause", "now", code=2)
    # What is answered is what holds, and what cannot hold is wrong usage.
    assert run.control("speed", "600.0004x")["speed"] == 600
    assert "0.001 to" in run.control("rate", "0.0004/s", code=2)
    run.control("rate", "100000/s")
    ended = harness.finish(run.process, timeout=120)
    assert ended.code == 0, ended.describe()
    assert_outputs(clickstream, Source(ended.summary["source"], [sample]))
    # Nobody is there any more, and it has ended.
    assert "no process runs" in run.control("pause", code=1)
    told = run.control("end", ended.summary["source"])
    assert told["end"] and "ended" not in told


def test_obeyed_at_the_stated_instant(clickstream, steered, sample):
    run = steered(sample, "--rate", "500/s")
    run.until("rows are sent", lambda status: status["events"] > 0)
    asked = time.time()
    told = run.control("rate", "50000/s")
    at = datetime.strptime(told["effective_at"], "%Y-%m-%d %H:%M:%S.%f UTC").replace(tzinfo=timezone.utc).timestamp()
    # The instant is stated: 150 ms after it was written, which the command's own start comes before.
    assert at > asked
    ended = harness.finish(run.process, timeout=120)
    assert ended.code == 0, ended.describe()
    # Event by event the lake shows when the rate changed; a busy machine may be late, never early.
    changed, = events(
        clickstream,
        "SELECT epoch(max(sent_at)) FROM (SELECT sent_at, sent_at - lag(sent_at) OVER (ORDER BY source_row) AS step FROM EVENTS)"
        " WHERE step BETWEEN INTERVAL 1900 microseconds AND INTERVAL 2100 microseconds")[0]
    assert changed < at + 10, f"the last row at the old rate was sent {changed - at} s after the instant"


def test_a_source_that_will_not_come_back_is_ended(clickstream, steered, sample):
    run = steered(sample, "--rate", "1000/s")
    source = run.until("rows are sent", lambda status: status["events"] > 0 and status["source"])
    run.process.send_signal(signal.SIGKILL)
    harness.finish(run.process)
    assert "say which source" in run.control("end", code=1)
    assert "no source 00000000 was begun here" in run.control("end", "00000000", code=1)
    assert run.control("end", source)["ended"] == [f"{source}/0"]
    again = clickstream.done(sample).summary
    assert again["outcome"] == "already_done" and 0 < again["totals"]["events"] < 17_434
    sent, = events(clickstream, "SELECT count(*) FROM EVENTS")[0]
    assert sent == again["totals"]["events"]
    assert_outputs(clickstream, Source(source, [sample], bad_rows=range(sent, 17_434)))


def text_of(clickstream, *args, stdin=None, then=None):
    """What a run says for people; `then` is done to it while it runs."""
    command = [word for word in clickstream.command(*args) if word != "--json"]
    process = subprocess.Popen(
        command, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.environment())
    if then:
        then(process)
    return harness.finish(process, timeout=60)


def remedies(ended):
    """The commands that it names, as words."""
    return [shlex.split(line.split("clickstream ")[-1]) for line in ended.stdout.splitlines() if "control end" in line]


def test_the_shards_of_a_source_end_together_or_alone(clickstream, steered, sample):
    first = steered(sample, "--shard", "0/2", "--rate", "1000/s")
    source = first.until("rows are sent", lambda status: status["events"] > 0 and status["source"])
    first.process.kill()
    harness.finish(first.process)
    # The one that has not ended is named, with a command that ends it and no other.
    ended = text_of(clickstream, sample, ("--shard", "1/2"))
    assert ended.code == 0 and f"The feed {source}/0 of this source (shard 0/2) has not ended" in ended.stdout, ended.describe()
    (control, end, *words), = remedies(ended)
    assert (control, end, words[0]) == ("control", "end", f"{source}/0")
    done = harness.command(clickstream.binary, control, end, *words)
    assert done.code == 0 and f"the end of {source}/0 is written" in done.stdout, done.describe()
    assert clickstream.done(sample, "--shard", "0/2").summary["outcome"] == "already_done"
    assert clickstream.done(sample, "--shard", "1/2").summary["unfinished"] == []


def test_the_end_of_a_source_is_that_of_the_shards_that_nobody_plays(clickstream, steered, sample):
    killed = steered(sample, "--shard", "0/2", "--rate", "1000/s")
    source = killed.until("rows are sent", lambda status: status["events"] > 0 and status["source"])
    killed.process.kill()
    harness.finish(killed.process)
    (clickstream.data / "address").unlink()
    run = steered(sample, "--shard", "1/2", "--rate", "1000/s")
    run.until("rows are sent", lambda status: status["events"] > 0)
    assert "this process plays" in run.control("end", f"{source}/1", code=1)
    told = run.control("end")
    assert told["effective_at"] and told["ended"] == [f"{source}/0"], told
    ended = harness.finish(run.process)
    assert ended.code == 0 and ended.summary["unfinished"] == [], ended.describe()
    for shard in ("0/2", "1/2"):
        assert clickstream.done(sample, "--shard", shard).summary["outcome"] == "already_done"


def test_what_is_done_takes_no_orders(clickstream, steered, sample, tmp_path):
    run = steered(sample, "--limit", "50", "--flat-out", "--stay")
    source = run.until("it is done", lambda status: status["phase"] == "done" and status["source"])
    for action in (["pause"], ["speed", "9x"], ["rate", "9/s"], ["end"]):
        assert f"source {source} has ended" in run.control(*action, code=1)
    told = run.control("end", source)
    assert told["end"] and told["effective_at"] is None and "ended" not in told
    # How another source stands is not what this process plays.
    assert "no source deadbeef was begun here" in run.control("status", "--source", "deadbeef", code=1)
    assert run.control("status", "--source", source)["phase"] == "done"
    run.process.send_signal(signal.SIGINT)
    assert harness.finish(run.process).code == 0
    # Nothing of it holds for a loop that is begun later.
    looped = clickstream.done(sample, "--limit", "50", "--loop=2").summary
    assert looped["outcome"] == "done" and looped["this_run"]["events"] == 50
    other = steered(harness.write_csv(tmp_path / "other.csv", harness.lines_of(sample)[1][:900]), "--rate", "100/s")
    other.until("rows are sent", lambda status: status["events"] > 0)
    stands = other.control("status", "--source", source)
    assert (stands["source"], stands["phase"], stands["events"]) == (source, "ended", 100), stands
    assert "has ended" in other.control("pause", "--source", source, code=1)
    assert not other.status()["paused"]


def test_events_are_counted_over_runs_and_passes(clickstream, steered, sample):
    run = steered(sample, "--limit", "3000", "--rate", "1000/s", "--loop=2")
    run.until("a thousand rows are sent", lambda status: status["events"] > 1000)
    run.process.send_signal(signal.SIGTERM)
    first = harness.finish(run.process).summary["this_run"]["events"]
    again = steered(sample, "--limit", "3000", "--rate", "1000/s", "--loop=2")
    status = again.until("it goes on", lambda status: status["events_this_run"] > 0 and status)
    assert status["events"] == first + status["events_this_run"], (first, status)
    status = again.until("the second pass", lambda status: status["pass"] == 1 and status["fraction"] and status)
    assert status["events"] >= 3000 and status["fraction"] < 1
    # The order to end is heard in any pass, and what has not been played never is.
    again.control("end", status["source"])
    assert harness.finish(again.process).code == 0
    assert clickstream.done(sample, "--limit", "3000", "--loop=4").summary["outcome"] == "already_done"


def test_a_stream_that_was_stopped_is_not_said_to_go_on(clickstream, sample):
    def stop(process):
        process.stdin.write("".join((harness.HEADER + "\n", *harness.lines_of(sample)[1][:100])).encode())
        process.stdin.flush()
        harness.status_until(process, clickstream, lambda status: status["events"] > 0)
        process.send_signal(signal.SIGTERM)

    ended = text_of(clickstream, "-", ("--rate", "1000/s", "--listen", "0"), stdin=subprocess.PIPE, then=stop)
    assert ended.code == 3 and "cannot be given again" in ended.stdout, ended.describe()
    assert "same command" not in ended.stdout and "ive its input" not in ended.stdout, ended.describe()
    words, = remedies(ended)
    assert harness.command(clickstream.binary, *words).code == 0


def test_what_a_killed_process_left_behind_steers_no_other(clickstream, steered, sample, tmp_path):
    run = steered(sample, "--rate", "1000/s")
    source = run.until("rows are sent", lambda status: status["events"] > 0 and status["source"])
    url, _ = run.address()
    run.process.kill()
    harness.finish(run.process)
    other = Steered(harness.Clickstream(clickstream.binary, tmp_path / "other"), sample, "--rate", "1000/s", "--listen", url.split(":")[-1])
    try:
        other.until("rows are sent", lambda status: status["events"] > 0)
        assert other.address()[0] == url
        for action in (["pause"], ["speed", "9x"], ["status"]):
            assert "no process runs" in run.control(*action, code=1)
        # Of its own folder, which nobody has.
        assert run.control("end", source)["ended"] == [f"{source}/0"]
        assert not other.status()["paused"] and other.control("pause")["paused"]
    finally:
        other.process.kill()
        harness.finish(other.process)


def post(url, body=b"{}", **headers):
    request = urllib.request.Request(url + "/replay/pause", data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        assert json.load(error)["error"]
        return error.code


def test_a_page_whose_name_was_bound_to_loopback_steers_nothing(clickstream, steered, sample):
    run = steered(sample, "--rate", "1000/s")
    run.until("rows are sent", lambda status: status["events"] > 0)
    url, token = run.address()
    as_json = {"Content-Type": "application/json"}
    assert post(url, **as_json, Host="evil.example:8650") == 403
    assert not run.status()["paused"]
    assert post(url, **as_json, Host="localhost:1") == 200
    assert post(url, **as_json, Host="evil.example", Authorization=f"Bearer {token}") == 200
    assert post(url, **as_json, Authorization="Bearer " + "0" * 32) == 401


def test_beyond_loopback_a_token_is_asked_for(clickstream, steered, sample):
    run = steered(sample, "--rate", "1000/s", "--listen", "0.0.0.0:0")
    url, token = run.address()
    assert len(token) == 32 and (clickstream.data / "address").stat().st_mode & 0o077 == 0
    run.until("rows are sent", lambda status: status["events"] > 0)
    as_json = {"Content-Type": "application/json"}
    assert post(url, **as_json) == 401
    assert post(url, **as_json, Authorization="Bearer " + "0" * 32) == 401
    # What a page of another origin can send without being asked is refused.
    assert post(url, Authorization="Bearer " + token, **{"Content-Type": "text/plain"}) == 415
    for wrong in (b'{"value": 50}', b'{"valu": "50x"}', b"pause"):
        assert post(url, wrong, **as_json, Authorization="Bearer " + token) == 400
    assert post(url, **as_json, Authorization="Bearer " + token) == 200
    run.until("it is paused", lambda status: status["paused"])
    assert run.control("rate", "100000/s")["rate"] == 100_000
    run.control("resume")
    assert harness.finish(run.process, timeout=120).code == 0
