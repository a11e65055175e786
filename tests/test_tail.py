"""`tail` on a data folder: of the process that has it, of the folder alone, and of one whose process
was killed."""
import json
import time

import pytest

import harness


@pytest.fixture
def tail(binary, clickstream):
    def tail(*words, code=0):
        ended = harness.command(binary, "tail", *words, "--data-dir", str(clickstream.data), "--json")
        assert ended.code == code, ended.describe()
        return [json.loads(line) for line in ended.stdout.splitlines()] if code == 0 else ended.stderr

    return tail


def serving(clickstream, sample):
    process = clickstream.start(sample, "--rate", "2000/s", "--listen", "127.0.0.1:0", "--stay")
    deadline = time.monotonic() + 60
    while not (clickstream.data / "address").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def until_there(tail, *words):
    deadline = time.monotonic() + 60
    while not (rows := tail(*words)):
        assert time.monotonic() < deadline, f"nothing in {words}"
        time.sleep(0.1)
    return rows


def test_of_a_folder_in_use_killed_and_alone(clickstream, sample, tail):
    process = serving(clickstream, sample)
    try:
        live = until_there(tail, "events", "--from", "start", "--partition", "1", "--limit", "5")
        assert len(live) <= 5 and live[0]["offset"] == 0 and {row["partition"] for row in live} == {1}
        assert all(row["headers"]["content-type"] and row["value"]["source"] for row in live)
        until_there(tail, "funnel-steps", "--from", "start", "--limit", "1")
        assert "--follow" in tail("events", "--follow", code=2)
    finally:
        process.kill()
        harness.finish(process)
    # Its address lies there, and nobody listens.
    assert (clickstream.data / "address").exists()
    killed = tail("events", "--from", "start", "--partition", "1", "--limit", "5")
    assert killed[: len(live)] == live
    ended = clickstream.done(sample)
    assert ended.summary["totals"]["events"] == 17_434
    # Kept is what some group has yet to read, and the progress of each feed.
    progress = tail("replay-progress", "--from", "start")
    assert [row["value"]["events"] for row in progress if row["value"].get("ended")] == ["17434"], progress
    assert "orders" in tail("orders", code=2)
    assert "broker.db" in harness.command(clickstream.binary, "tail", "events", "--data-dir", str(clickstream.data / "none")).stderr
