"""Holds marts.db and the lake against an oracle, every row both ways."""
import re
import sqlite3
from collections import Counter
from pathlib import Path

import duckdb

SHOWN = 8
FUNNEL = ["viewed", "carted", "purchased", "viewed_then_carted", "carted_then_purchased"]

# Each mart's columns. Further ones that a fold needs are allowed in marts.db.
MARTS = {
    "mart_funnel_daily": ["day", "category_code", "brand", *FUNNEL],
    "mart_funnel": ["month", "category_code", "brand", *FUNNEL],
    "mart_traffic_hourly": ["hour", "views", "carts", "purchases", "revenue_cents", "sessions_started"],
    "mart_products": [
        "month", "product_id", "views", "carts", "purchases", "revenue_cents", "viewed", "carted", "purchased",
        "category_code", "brand",
    ],
    "mart_sessions_daily": ["day", "furthest_stage", "sessions", "events", "duration_seconds", "revenue_cents"],
    "abandoned_carts": ["session_id", "user_id", "product_id", "category_code", "brand", "day", "value_cents"],
    "mart_abandoned_carts": ["day", "product_id", "sessions", "value_cents"],
}

# Each topic's columns in the lake, with their types as DuckDB reads them.
BIGINT, TEXT, TIME, MONEY, FLAG = "BIGINT", "VARCHAR", "TIMESTAMP WITH TIME ZONE", "DECIMAL(12,2)", "BOOLEAN"
ANY_INTEGER, ANY_MONEY = "an integer", "a DECIMAL(…,2)"
PLACE = {"source": TEXT, "topic_partition": ANY_INTEGER, "topic_offset": BIGINT}
LAKE = {
    "events": {
        "event_time": TIME, "event_type": TEXT, "product_id": BIGINT, "category_id": BIGINT, "category_code": TEXT, "brand": TEXT,
        "price": MONEY, "user_id": BIGINT, "user_session": TEXT, "source_row": ANY_INTEGER, "copy": ANY_INTEGER, "sent_at": TIME, **PLACE,
    },
    "funnel-steps": {
        "session_id": TEXT, "user_id": BIGINT, "product_id": BIGINT, "stage": TEXT, "step_time": TIME, "category_id": BIGINT,
        "category_code": TEXT, "brand": TEXT, "price": MONEY, "first_touch_time": TIME, "after_view": FLAG, "after_cart": FLAG,
        "opens_session": FLAG, "session_start": TIME, **PLACE,
    },
    "sessions": {
        "session_id": TEXT, "part": ANY_INTEGER, "user_id": BIGINT, "users": ANY_INTEGER, "session_start": TIME, "session_end": TIME,
        "views": ANY_INTEGER, "carts": ANY_INTEGER, "purchases": ANY_INTEGER, "products_viewed": ANY_INTEGER,
        "products_carted": ANY_INTEGER, "products_purchased": ANY_INTEGER, "revenue": ANY_MONEY, "furthest_stage": TEXT,
        "entry_category_code": TEXT, "exit_category_code": TEXT, "last_event_type": TEXT,
        "left_in_cart": "a list of structs", **PLACE,
    },
}
# Not in the files, so the oracle cannot know them.
UNKNOWN = {"topic_partition", "topic_offset", "sent_at"}


def _difference(what, columns, expected, actual):
    """What stands in one of the two and not, or not as often, in the other."""
    missing, extra = Counter(expected), Counter(actual)
    missing.subtract(actual)
    extra.subtract(expected)
    missing, extra = +missing, +extra
    if not missing and not extra:
        return []
    lines = [f"{what}: {sum(missing.values())} rows missing, {sum(extra.values())} too many ({', '.join(columns)})"]
    for mark, rows in (("-", missing), ("+", extra)):
        lines += [f"  {mark} {row}" for row in sorted(rows.elements(), key=repr)[:SHOWN]]
    return lines


def _fail(problems):
    if problems:
        raise AssertionError("differs from the oracle (- the oracle's, + the pipeline's)\n" + "\n".join(problems))


def assert_marts_equal(marts_db, oracle):
    """Every row of every mart and view in the SQLite file."""
    problems = []
    with sqlite3.connect(f"file:{Path(marts_db).resolve()}?mode=ro", uri=True) as db:
        for mart, columns in MARTS.items():
            selected = f"SELECT {', '.join(columns)} FROM {mart}"
            problems += _difference(mart, columns, oracle.rows(selected), db.execute(selected).fetchall())
    db.close()
    _fail(problems)


def _connect():
    db = duckdb.connect(config={"threads": 2, "memory_limit": "6GB"})
    db.execute("SET TimeZone = 'UTC'")
    return db


def _glob(lake_dir, topic):
    return str(Path(lake_dir) / topic / "*" / "*.parquet")


def lake_sources(lake_dir):
    """The ids of the sources in the lake, by the time of their first event."""
    db = _connect()
    found = db.execute(
        "SELECT source FROM read_parquet(?) GROUP BY source ORDER BY min(event_time)", [_glob(lake_dir, "events")]
    ).fetchall()
    return [source for (source,) in found]


def lake_rows(lake_dir, topic):
    if not any((Path(lake_dir) / topic).glob("*/*.parquet")):
        return 0
    return _connect().execute("SELECT count(*) FROM read_parquet(?)", [_glob(lake_dir, topic)]).fetchone()[0]


def _type_fits(wanted, actual):
    if wanted == ANY_INTEGER:
        return actual in ("INTEGER", "UINTEGER", "BIGINT", "UBIGINT")
    if wanted == ANY_MONEY:
        return re.fullmatch(r"DECIMAL\(\d+,2\)", actual) is not None
    if wanted == "a list of structs":
        return actual.startswith("STRUCT(") and actual.endswith("[]")
    return actual == wanted


def _structure(db, topic, files):
    """Types, names of files, offsets and days: what holds whatever the rows are."""
    problems = []
    types = {name: kind for name, kind, *_ in db.execute("DESCRIBE SELECT * FROM lake").fetchall()}
    for column, wanted in LAKE[topic].items():
        if column not in types:
            problems.append(f"{topic}: no column {column}")
        elif not _type_fits(wanted, types[column]):
            problems.append(f"{topic}: {column} is {types[column]}, not {wanted}")
    if problems:
        return problems

    repeated = db.execute(
        "SELECT topic_partition, topic_offset, count(*) FROM lake GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT ?", [SHOWN]
    ).fetchall()
    problems += [f"{topic}: partition {p} offset {o} stands {n} times" for p, o, n in repeated]

    ranges = {}
    for name in files:
        matched = re.fullmatch(r"(\d+)-(\d+)-(\d+)\.parquet", name.name)
        if not matched or not re.fullmatch(r"dt=\d{4}-\d\d-\d\d", name.parent.name):
            problems.append(f"{topic}: {name.parent.name}/{name.name} is not dt=YYYY-MM-DD/<partition>-<first>-<last>.parquet")
            continue
        partition, first, last = map(int, matched.groups())
        ranges.setdefault(partition, set()).add((first, last))
    for partition, spans in ranges.items():
        spans = sorted(spans)
        for (first, last), (following, _) in zip(spans, spans[1:]):
            if following <= last:
                problems.append(f"{topic}: partition {partition}: files {first}-{last} and from {following} on overlap")

    day_of = {"events": "event_time", "funnel-steps": "step_time", "sessions": "session_start"}[topic]
    misplaced = db.execute(
        "WITH placed AS (SELECT *, regexp_extract(filename, 'dt=([0-9-]+)/(\\d+)-(\\d+)-(\\d+)\\.parquet$', ['day', 'p', 'a', 'z']) AS f FROM lake)"
        f" SELECT filename, count(*), min(topic_offset) FROM placed WHERE strftime({day_of}, '%Y-%m-%d') <> f.day"
        " OR topic_partition <> f.p::BIGINT OR topic_offset NOT BETWEEN f.a::BIGINT AND f.z::BIGINT GROUP BY ALL ORDER BY ALL LIMIT ?",
        [SHOWN],
    ).fetchall()
    problems += [f"{topic}: {n} rows of {name} do not belong there (first offset {o})" for name, n, o in misplaced]
    return problems


def _multiset(db, what, select, columns):
    """Equality as multisets, both ways in one pass: each row counts +1 for the oracle, -1 for the pipeline."""
    named = ", ".join(columns)
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE difference AS SELECT {named}, sum(sign)::BIGINT AS surplus FROM"
        f" (SELECT 1 AS sign, {select['expected']} UNION ALL SELECT -1 AS sign, {select['actual']}) GROUP BY {named} HAVING surplus <> 0"
    )
    problems = []
    for mark, word, chosen in (("-", "missing", "surplus > 0"), ("+", "too many", "surplus < 0")):
        count = db.execute(f"SELECT coalesce(sum(abs(surplus)), 0)::BIGINT FROM difference WHERE {chosen}").fetchone()[0]
        if count:
            problems.append(f"{what}: {count} rows {word} ({named})")
            rows = db.execute(f"SELECT {named} FROM difference WHERE {chosen} ORDER BY ALL LIMIT {SHOWN}").fetchall()
            problems += [f"  {mark} {row}" for row in rows]
    return problems


def _comparable(columns, types):
    """Casts that make both sides of one type: microseconds for times, one width for numbers."""
    shown = []
    for column in columns:
        kind = types[column]
        if kind == TIME:
            shown.append(f"epoch_us({column}) AS {column}")
        elif kind in (ANY_INTEGER, BIGINT):
            shown.append(f"{column}::BIGINT AS {column}")
        elif kind in (ANY_MONEY, MONEY):
            shown.append(f"{column}::DECIMAL(18,2) AS {column}")
        else:
            shown.append(column)
    return ", ".join(shown)


def _topic(db, oracle, lake_dir, topic):
    table = topic.replace("-", "_")
    files = sorted((Path(lake_dir) / topic).glob("*/*.parquet"))
    expected_rows = oracle.one(f"SELECT count(*) FROM {table}")
    if not files:
        return [f"{topic}: no file in {lake_dir}, {expected_rows} rows expected"] if expected_rows else []
    db.execute(
        "CREATE OR REPLACE TEMP VIEW lake AS SELECT * FROM read_parquet("
        f"'{_glob(lake_dir, topic)}', filename = true, hive_partitioning = false)"
    )
    problems = _structure(db, topic, files)
    if problems:
        return problems
    columns = [c for c in LAKE[topic] if c not in UNKNOWN | {"left_in_cart", "part"}]
    seen = _comparable(columns, LAKE[topic])
    only_first = " WHERE part = 0" if topic == "sessions" else ""
    problems += _multiset(
        db, topic, {"expected": f"{seen} FROM {table}", "actual": f"{seen} FROM lake{only_first}"}, columns
    )
    if topic == "events":
        repeated = db.execute(
            "SELECT source, source_row, copy, count(*) FROM lake GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT ?", [SHOWN]
        ).fetchall()
        problems += [f"events: source {s} row {r} copy {c} stands {n} times" for s, r, c, n in repeated]
        on_purpose = [source.id for source in oracle.sources if source.published]
        # Shards keep the order of a session, and none between them.
        in_shards = [source.id for source in oracle.sources if source.shards > 1]
        session = "CASE WHEN list_contains(?::VARCHAR[], source) THEN coalesce(user_session, 'user-' || user_id) END"
        shuffled = db.execute(
            "SELECT count(*), min(source_row) FROM (SELECT source_row, source_row < lag(source_row) OVER "
            f"(PARTITION BY topic_partition, source, {session} ORDER BY topic_offset) AS back FROM lake"
            " WHERE NOT list_contains(?::VARCHAR[], source)) WHERE back",
            [in_shards, on_purpose],
        ).fetchone()
        if shuffled[0]:
            problems.append(f"events: {shuffled[0]} rows are out of order within their partition (row {shuffled[1]} first)")
    if topic == "sessions":
        left = ["session_id", "product_id", "category_code", "brand", "value"]
        parts = "(SELECT session_id, unnest(left_in_cart) AS item FROM lake)"
        select = {
            "expected": "session_id, product_id, category_code, brand, value::DECIMAL(18,2) AS value FROM left_in_cart",
            "actual": f"session_id, item.product_id::BIGINT AS product_id, item.category_code AS category_code, item.brand AS brand, item.value::DECIMAL(18,2) AS value FROM {parts}",
        }
        problems += _multiset(db, "sessions.left_in_cart", select, left)
    return problems


def _partitions_agree(db, lake_dir):
    """A session's events, steps and summary stand in partitions of one number."""
    key = "source || ':' || coalesce(user_session, 'user-' || user_id)"
    split = db.execute(
        f"WITH places AS (SELECT {key} AS key, topic_partition FROM read_parquet('{_glob(lake_dir, 'events')}')"
        + "".join(
            f" UNION ALL SELECT regexp_replace(session_id, '@-?[0-9]+$', ''), topic_partition FROM read_parquet('{_glob(lake_dir, topic)}')"
            for topic in ("funnel-steps", "sessions")
        )
        + ") SELECT key, list_sort(list(DISTINCT topic_partition)) FROM places GROUP BY key"
        f" HAVING count(DISTINCT topic_partition) > 1 ORDER BY key LIMIT {SHOWN}"
    ).fetchall()
    return [f"session {key} is spread over partitions {places}" for key, places in split]


def assert_lake_equal(lake_dir, oracle):
    """Every row of events, funnel-steps and sessions, once each, in files that say what they hold.

    Reads through the oracle's own connection, so that millions of rows are compared inside DuckDB."""
    problems = []
    for topic in LAKE:
        problems += _topic(oracle.db, oracle, lake_dir, topic)
    if not problems and oracle.one("SELECT count(*) FROM events"):
        problems += _partitions_agree(oracle.db, lake_dir)
    _fail(problems)
