"""The oracle itself: the sample's known numbers, a second opinion in plain Python over random rows,
and that each kind of difference in marts.db or the lake is seen."""
import random
import shutil
import sqlite3
from collections import defaultdict

import duckdb
import pytest

import harness
from oracle import HALF_AN_HOUR, Oracle, Source, assert_lake_equal, assert_marts_equal
from oracle.compare import LAKE, MARTS, lake_sources

SOURCE = "0123abcd"


@pytest.fixture(scope="module")
def of_sample(sample):
    return Oracle([Source(SOURCE, [sample])])


def test_the_samples_numbers(of_sample):
    assert of_sample.one("SELECT count(*) FROM events") == 17_434
    assert of_sample.one("SELECT count(*) FROM sessions") == 5_067
    assert of_sample.one("SELECT count(*) FROM funnel_steps") == 12_633
    sums = "SELECT sum(viewed), sum(carted), sum(purchased), sum(viewed_then_carted), sum(carted_then_purchased) FROM mart_funnel"
    assert of_sample.one(sums) == (12_295, 127, 211, 127, 69)
    for mart in ("mart_traffic_hourly", "mart_products", "mart_sessions_daily"):
        assert of_sample.one(f"SELECT sum(revenue_cents) FROM {mart}") == 5_944_263, mart
    assert of_sample.one("SELECT count(*) FROM abandoned_carts") == 58
    assert of_sample.one("SELECT sum(sessions) FROM mart_abandoned_carts") == 58
    assert of_sample.one("SELECT sum(sessions_started) FROM mart_traffic_hourly") == 5_067


def test_the_samples_numbers_without_a_gap(sample):
    oracle = Oracle([Source(SOURCE, [sample])], None)
    assert oracle.one("SELECT count(*) FROM sessions") == 5_066
    assert oracle.one("SELECT count(*) FROM funnel_steps") == 12_632


def test_rows_are_numbered_through_the_list(sample, tmp_path):
    header, rows = harness.lines_of(sample)
    cut = [harness.write_csv(tmp_path / name, part, header) for name, part in
           (("a.csv", rows[:5000]), ("b.csv.gz", rows[5000:5000]), ("c.csv.zst", rows[5000:]))]
    whole, parts = Oracle([Source(SOURCE, [sample])]), Oracle([Source(SOURCE, cut)])
    for table in ("events", "funnel_steps", "mart_products"):
        # Files of one history, or one file: the same.
        assert sorted(whole.rows(f"SELECT * FROM {table}"), key=repr) == sorted(parts.rows(f"SELECT * FROM {table}"), key=repr)


# A second opinion: one pass in row order, as one would do it by hand.


def by_hand(rows, gap):
    latest, number, state = {}, defaultdict(int), {}
    steps, sessions = [], {}
    for row, (second, kind, product, user, key, price, category) in enumerate(rows):
        key = key or f"user-{user}"
        if key not in latest or (gap is not None and second > latest[key] + gap):
            number[key] += 1
            latest[key] = second
            state[key] = {"id": f"{SOURCE}:{key}@{second}", "start": second, "reached": {}, "touch": {}, "user": user}
            sessions[state[key]["id"]] = {"users": set(), "end": second, "counts": defaultdict(int), "revenue": 0}
        open_session = state[key]
        session = sessions[open_session["id"]]
        first = not session["users"]
        latest[key] = session["end"] = max(latest[key], second)
        session["users"].add(user)
        session["counts"][kind] += 1
        session["revenue"] += price if kind == "purchase" else 0
        session["last"] = kind
        touch = open_session["touch"].setdefault(product, (second, price, category))
        reached = open_session["reached"].setdefault(product, set())
        if kind not in reached:
            steps.append((open_session["id"], user, product, kind, second, touch[0], touch[1], touch[2],
                          "view" in reached, "cart" in reached, first, open_session["start"]))
            reached.add(kind)
        session["left"] = {p for p, stages in open_session["reached"].items() if "cart" in stages and "purchase" not in stages}
    return steps, sessions


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_a_count_by_hand(seed, tmp_path):
    draw = random.Random(seed)
    gap = draw.choice([None, 1, 60, HALF_AN_HOUR])
    scale = (gap or 600) * draw.choice([0.2, 1, 3])
    clock, rows = 1_569_888_000, []
    for _ in range(draw.choice([1, 40, 600])):
        clock += int(draw.expovariate(1) * scale / 4)
        # Out of order, and on the very edge of the gap.
        second = clock - draw.choice([0, 0, 0, gap or 5, int(scale)])
        kind = draw.choice(["view", "view", "view", "cart", "purchase"])
        key = draw.choice(["", "a", "b", "c", "d"])
        rows.append((second, kind, draw.randint(1, 4), draw.randint(1, 3), key, draw.randint(0, 500), draw.choice(["", "x.y"])))
    from datetime import datetime, timezone

    stamp = lambda second: datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")  # noqa: E731
    text = [f"{stamp(s)},{kind},{p},7,{category},,{price / 100:.2f},{u},{key}\n" for s, kind, p, u, key, price, category in rows]
    oracle = Oracle([Source(SOURCE, [harness.write_csv(tmp_path / "rows.csv", text)])], gap)

    steps, sessions = by_hand(rows, gap)
    got = oracle.rows(
        "SELECT session_id, user_id, product_id, stage, epoch_us(step_time) // 1000000, epoch_us(first_touch_time) // 1000000,"
        " (price * 100)::BIGINT, coalesce(category_code, ''), after_view, after_cart, opens_session,"
        " epoch_us(session_start) // 1000000 FROM funnel_steps ORDER BY step_row"
    )
    assert got == steps
    got = oracle.rows(
        "SELECT session_id, users, epoch_us(session_end) // 1000000, views, carts, purchases, (revenue * 100)::BIGINT, last_event_type FROM sessions"
    )
    assert sorted(got) == sorted(
        (id, len(s["users"]), s["end"], s["counts"]["view"], s["counts"]["cart"], s["counts"]["purchase"], s["revenue"], s["last"])
        for id, s in sessions.items()
    )
    left = oracle.rows("SELECT session_id, product_id FROM abandoned_carts")
    assert sorted(left) == sorted((id, p) for id, s in sessions.items() for p in s["left"])


# The comparison: outputs made from the oracle are equal to it, and one change in them is not.


def write_marts(oracle, path):
    with sqlite3.connect(path) as db:
        for mart, columns in MARTS.items():
            db.execute(f"CREATE TABLE {mart} ({', '.join(columns)})")
            rows = oracle.rows(f"SELECT {', '.join(columns)} FROM {mart}")
            db.executemany(f"INSERT INTO {mart} VALUES ({', '.join('?' * len(columns))})", rows)
    db.close()


def write_lake(oracle, folder):
    """Files as the lake has them, from the oracle's tables: partition by the key's first byte."""
    db = oracle.db
    left = ("(SELECT coalesce(list(struct_pack(product_id, category_code, brand, value)), []) FROM left_in_cart l"
            " WHERE l.session_id = sessions.session_id) AS left_in_cart")
    extra = {"events": "NULL::TIMESTAMPTZ AS sent_at", "funnel-steps": "1 AS unused", "sessions": f"0 AS part, {left}"}
    day = {"events": "event_time", "funnel-steps": "step_time", "sessions": "session_start"}
    key = {"events": "session_key", "funnel-steps": "session_id[10:]", "sessions": "session_id[10:]"}
    order = {"events": "source_row", "funnel-steps": "step_row", "sessions": "session_start, session_id"}
    for topic, columns in LAKE.items():
        times = ", ".join(f"{c}::TIMESTAMPTZ AS {c}" for c, kind in columns.items() if kind == "TIMESTAMP WITH TIME ZONE" and c != "sent_at")
        db.execute(
            f"CREATE OR REPLACE TEMP TABLE out AS SELECT * REPLACE ({times}), {extra[topic]}, strftime({day[topic]}, '%Y-%m-%d') AS dt,"
            f" ascii({key[topic]}) % 2 AS topic_partition,"
            f" row_number() OVER (PARTITION BY ascii({key[topic]}) % 2 ORDER BY {order[topic]}) - 1 AS topic_offset"
            f" FROM {topic.replace('-', '_')}"
        )
        for dt, p, first, last in db.execute(
            "SELECT dt, topic_partition, min(topic_offset), max(topic_offset) FROM out GROUP BY ALL"
        ).fetchall():
            target = folder / topic / f"dt={dt}"
            target.mkdir(parents=True, exist_ok=True)
            db.execute(
                f"COPY (SELECT * EXCLUDE (dt) FROM out WHERE dt = '{dt}' AND topic_partition = {p})"
                f" TO '{target / f'{p}-{first}-{last}.parquet'}' (FORMAT parquet)"
            )


def test_a_right_marts_db_is_equal_and_a_changed_one_is_not(of_sample, tmp_path):
    right = tmp_path / "right.db"
    write_marts(of_sample, right)
    assert_marts_equal(right, of_sample)
    changes = [
        ("mart_funnel_daily", "UPDATE mart_funnel_daily SET viewed = viewed + 1 WHERE rowid = 7"),
        ("mart_funnel_daily", "UPDATE mart_funnel_daily SET brand = '' WHERE brand IS NULL"),
        ("mart_funnel", "DELETE FROM mart_funnel WHERE rowid = 3"),
        ("mart_traffic_hourly", "UPDATE mart_traffic_hourly SET revenue_cents = revenue_cents - 1 WHERE rowid = 1"),
        ("mart_products", "UPDATE mart_products SET brand = NULL WHERE rowid = (SELECT min(rowid) FROM mart_products WHERE brand IS NOT NULL)"),
        ("mart_sessions_daily", "UPDATE mart_sessions_daily SET duration_seconds = duration_seconds + 1"),
        ("abandoned_carts", "INSERT INTO abandoned_carts SELECT * FROM abandoned_carts LIMIT 1"),
        ("mart_abandoned_carts", "UPDATE mart_abandoned_carts SET day = '2019-10-02' WHERE rowid = 2"),
    ]
    for mart, change in changes:
        wrong = tmp_path / "wrong.db"
        shutil.copy(right, wrong)
        with sqlite3.connect(wrong) as db:
            assert db.execute(change).rowcount > 0, change
        db.close()
        with pytest.raises(AssertionError, match=f"{mart}: "):
            assert_marts_equal(wrong, of_sample)


@pytest.fixture(scope="module")
def right_lake(of_sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    write_lake(of_sample, folder)
    return folder


def test_a_right_lake_is_equal(of_sample, right_lake):
    assert lake_sources(right_lake) == [SOURCE]
    assert_lake_equal(right_lake, of_sample)


REWRITES = [
    ("events", "price = price + 0.01 WHERE topic_offset = 9", "events: 1 rows missing"),
    ("events", "brand = '' WHERE brand IS NULL", "rows missing"),
    ("events", "source_row = source_row + 100000 WHERE topic_offset = 9", "events: 1 rows too many"),
    ("events", "topic_offset = topic_offset - 1 WHERE topic_offset = 9", "offset 8 stands 2 times"),
    ("events", "topic_offset = topic_offset + 1000000 WHERE topic_offset = 9", "do not belong there"),
    ("events", "topic_partition = 5 WHERE topic_offset = 9", "do not belong there"),
    ("funnel-steps", "after_view = NOT after_view WHERE topic_offset = 0", "funnel-steps: 1 rows missing"),
    ("funnel-steps", "session_start = session_start + INTERVAL 1 SECOND WHERE topic_offset = 0", "funnel-steps: 1 rows"),
    ("sessions", "revenue = revenue + 1 WHERE topic_offset = 0", "sessions: 1 rows missing"),
    ("sessions", "left_in_cart = []", "sessions.left_in_cart: "),
    ("sessions", "users = 2 WHERE topic_offset = 3", "sessions: 1 rows too many"),
]


@pytest.mark.parametrize("topic, change, seen", REWRITES)
def test_a_changed_lake_is_not_equal(of_sample, right_lake, tmp_path, topic, change, seen):
    lake = shutil.copytree(right_lake, tmp_path / "lake")
    file = sorted((lake / topic).glob("*/*.parquet"))[0]
    db = duckdb.connect()
    db.execute(f"CREATE TABLE rows AS SELECT * FROM read_parquet('{file}', hive_partitioning = false)")
    db.execute(f"UPDATE rows SET {change}")
    db.execute(f"COPY rows TO '{file}' (FORMAT parquet)")
    with pytest.raises(AssertionError, match=seen.replace(".", r"\.")):
        assert_lake_equal(lake, of_sample)


def test_a_file_too_many_or_missing_in_the_lake_is_seen(of_sample, right_lake, tmp_path):
    lake = shutil.copytree(right_lake, tmp_path / "lake")
    file = sorted((lake / "events").glob("*/*.parquet"))[0]
    partition, first, last = file.stem.split("-")
    again = file.with_name(f"{partition}-{first}-{int(last) + 1}.parquet")
    shutil.copy(file, again)
    with pytest.raises(AssertionError, match="overlap"):
        assert_lake_equal(lake, of_sample)
    again.unlink()
    file.unlink()
    with pytest.raises(AssertionError, match="rows missing"):
        assert_lake_equal(lake, of_sample)
    shutil.rmtree(lake / "sessions")
    with pytest.raises(AssertionError, match="sessions: no file"):
        assert_lake_equal(lake, of_sample)
