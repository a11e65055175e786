#!/usr/bin/env python3
"""Makes a big input out of the real sample: pass after pass, each 3 hours later than the one before,
in sessions of its own. The same call makes the same bytes.

A pass spans 2 h 50 min, so rows stay sorted by time and a pass counts for itself: 250 passes hold
250 times the sample's sessions and steps. (The pass stands in the first digits of user_session, so
a row keeps its length.)
"""
import argparse
import gzip
import os
from datetime import datetime, timedelta
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "2019-Oct-head.csv.gz"
START = datetime(2019, 10, 1)
PASS = timedelta(hours=3)
DIGITS = 4

# What one pass of the sample gives, with sessions cut at 30 minutes.
ROWS_A_PASS, SESSIONS_A_PASS, STEPS_A_PASS = 17_434, 5_067, 12_633


def template(sample=SAMPLE):
    """The header; and the rows with a mark in place of each date and hour and each session's head."""
    header, *rows = gzip.decompress(Path(sample).read_bytes()).splitlines(keepends=True)
    assert len(rows) == ROWS_A_PASS, f"{sample} has {len(rows)} rows, not {ROWS_A_PASS}"
    marked, sessions, cut = [], set(), set()
    for row in rows:
        before, session = row.rsplit(b",", 1)
        hour = int(row[11:13])
        assert row[:11] == b"2019-10-01 " and hour < 3 and len(session) > 32, row
        sessions.add(session)
        cut.add(session[DIGITS:])
        marked.append(b"\x00%d" % hour + before[13:] + b",\x01" + session[DIGITS:])
    assert len(sessions) == len(cut), "two sessions differ in their first digits only"
    return header, b"".join(marked)


def passes(count, sample=SAMPLE):
    """The header, then each pass."""
    assert count <= 16**DIGITS
    header, marked = template(sample)
    yield header
    for number in range(count):
        rows = marked.replace(b"\x01", b"%0*x" % (DIGITS, number))
        for hour in range(3):
            moment = START + number * PASS + timedelta(hours=hour)
            rows = rows.replace(b"\x00%d" % hour, moment.strftime("%Y-%m-%d %H").encode())
        yield rows


def make(path, count, sample=SAMPLE):
    """Writes the file, unless it is there; under another name until it is whole."""
    path = Path(path)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    with open(unfinished, "wb") as file:
        for rows in passes(count, sample):
            file.write(rows)
    unfinished.rename(path)
    return path


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--passes", type=int, default=250)
    arguments.add_argument("out", type=Path)
    given = arguments.parse_args()
    print(make(given.out, given.passes))
