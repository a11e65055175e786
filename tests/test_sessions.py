"""Where sessions are hard: pauses on the very edge of the gap, disorder, keys without a session,
several users, long lists left in the cart. Made rows, since the sample has little of it."""
import random
from datetime import datetime, timezone

import duckdb
import pytest

import harness
from oracle import HALF_AN_HOUR, Oracle, Source, assert_lake_equal, assert_marts_equal

START = 1_569_888_000 + 3600


def row(second, kind, product, user, key, cents=1000, category="", brand=""):
    stamp = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    category_id = "" if product % 7 == 0 else 2_000_000_000_000_000_000 + product
    return f"{stamp},{kind},{product},{category_id},{category},{brand},{cents // 100}.{cents % 100:02},{user},{key}\n"


def made(draw, count, gap, late=0):
    """Rows in order but for `late` seconds at most; days pass, and a month's end with them."""
    clock, keys, timed = START + 27 * 86_400, [f"key-{i}" for i in range(40)] + ["", "", ""], []
    pending = []
    for _ in range(count):
        clock += int(draw.expovariate(1 / 90))
        key = draw.choice(keys)
        user = draw.randint(1, 6) if draw.random() < 0.1 or not key else 100 + keys.index(key)
        what = (draw.choices(["view", "cart", "purchase"], [6, 2, 1])[0], draw.randint(1, 30), user, key,
                draw.choice([0, 99, 12345, 257407]), draw.choice(["", "a.b", "electronics.smartphone"]), draw.choice(["", "nan", "é\u4e2d"]))
        timed.append((clock, what))
        if draw.random() < 0.2:
            # The same key again after a pause of exactly the gap, or a second more, or less.
            pending.append((clock + gap + draw.choice([-1, 0, 0, 1, 1, 2]), what))
        timed += [one for one in pending if one[0] <= clock]
        pending = [one for one in pending if one[0] > clock]
    timed.sort(key=lambda one: one[0] + (draw.randint(0, late) if late else 0))
    return [row(second, *what) for second, what in timed]


def check(clickstream, path, gap=HALF_AN_HOUR, *flags):
    summary = clickstream.done(path, *flags).summary
    oracle = Oracle([Source(summary["source"], [path])], gap)
    assert_marts_equal(clickstream.marts, oracle)
    assert_lake_equal(clickstream.lake, oracle)
    return summary, oracle


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gap, seconds", [("30m", HALF_AN_HOUR), ("5m", 300), ("none", None)])
def test_pauses_on_the_edge_of_the_gap(clickstream, tmp_path, gap, seconds, seed):
    rows = made(random.Random(seed), 6000, seconds or 300)
    summary, oracle = check(clickstream, harness.write_csv(tmp_path / "edges.csv", rows), seconds, "--gap", gap)
    assert summary["this_run"]["late_events"] == 0
    # The rows are what they are meant to be: many splits, keys of users, sessions of several users.
    if seconds:
        assert oracle.one("SELECT count(*) FROM sessions") > 1000
    assert oracle.one("SELECT count(*) FROM sessions WHERE users > 1") > 10
    assert oracle.one("SELECT count(*) FROM sessions WHERE session_id LIKE '%:user-%'") > 5


@pytest.mark.parametrize("seed", range(3))
def test_disorder_within_the_allowed_lateness_is_no_different(clickstream, tmp_path, seed):
    rows = made(random.Random(seed), 6000, 300, late=120)
    assert rows != sorted(rows)
    path = harness.write_csv(tmp_path / "disorder.csv", rows)
    summary, _ = check(clickstream, path, 300, "--gap", "5m", "--allowed-lateness", "120s")
    assert summary["this_run"]["late_events"] == 0


def test_a_long_list_left_in_the_cart(clickstream, tmp_path):
    rows = [row(START + i // 4, "cart", 1 + i, 7, "bot", 101 + i % 50, "electronics.smartphone", "samsung") for i in range(9000)]
    rows += [row(START + 3000, "purchase", 1 + i, 7, "bot", 101) for i in range(0, 9000, 10)]
    summary, oracle = check(clickstream, harness.write_csv(tmp_path / "bot.csv", rows))
    assert summary["totals"]["sessions"] == 1 and summary["totals"]["abandoned"] == 8100
    # It goes on in further records.
    parts = duckdb.sql(f"SELECT max(part), count(*) FROM read_parquet('{clickstream.lake}/sessions/*/*.parquet')").fetchone()
    assert parts[0] >= 1 and parts[1] == parts[0] + 1, parts


def test_years_apart_and_before_1970(clickstream, tmp_path):
    rows = [row(second, "view", 1 + i % 3, 7, f"s{i % 2}") for i, second in enumerate(
        [-86_400 * 365, -1, 0, 1, 951_782_400, 1_582_934_400, 4_102_444_800, 253_402_300_799])]
    check(clickstream, harness.write_csv(tmp_path / "years.csv", rows))
