"""What every output should hold, computed by DuckDB from the CSV files alone.

It shares no code with the pipeline: rows are numbered as they stand in the files, sessions are cut
by window functions (sessions.sql), marts are grouped from them (marts.sql). `compare` holds what
the pipeline wrote against it.
"""
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence

import duckdb

from .compare import assert_lake_equal, assert_marts_equal, lake_sources

HERE = Path(__file__).parent
COLUMNS = ("event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id", "user_session")
HALF_AN_HOUR = 30 * 60


@dataclass(frozen=True)
class Source:
    """Files read as one history, in order; `id` is what the pipeline calls it.

    `bad_rows` are the numbers of the rows that should be dead letters, or that are not of the source
    (outside its window or sample): they are counted in the numbering and left out of everything else.
    `shift_seconds` are added to every time. `published` is the lake of a replay that
    shuffles or sends copies: the order of rows and which of them came twice are taken from it, and
    nothing else. `shards` of it were played beside each other: their rows mingle."""

    id: str
    paths: Sequence[Path]
    bad_rows: Sequence[int] = ()
    shift_seconds: int = 0
    published: Optional[Path] = None
    shards: int = 1


class Oracle:
    """Tables `events`, `sessions`, `funnel_steps`, `left_in_cart` and the marts, in `self.db`."""

    def __init__(self, sources: Sequence[Source], gap_seconds: Optional[int] = HALF_AN_HOUR, threads: int = 2):
        self.sources = list(sources)
        self.db = duckdb.connect(config={"threads": threads, "memory_limit": "6GB"})
        self.db.execute("SET TimeZone = 'UTC'")
        # It takes a file for unchanged by its path and second of change; tests write faster than that.
        self.db.execute("SET enable_external_file_cache = false")
        gap = "NULL" if gap_seconds is None else str(int(gap_seconds) * 1_000_000)
        self.db.execute(f"CREATE TABLE settings AS SELECT {gap}::BIGINT AS gap_us")
        self.db.execute(
            "CREATE TABLE events (n BIGINT, source VARCHAR, source_row BIGINT, copy INTEGER, event_time TIMESTAMP, event_type VARCHAR,"
            " product_id BIGINT, category_id BIGINT, category_code VARCHAR, brand VARCHAR, price DECIMAL(12, 2),"
            " user_id BIGINT, user_session VARCHAR, session_key VARCHAR)"
        )
        for source in self.sources:
            self._load(source)
        for script in ("sessions.sql", "marts.sql"):
            self.db.execute((HERE / script).read_text())

    def _load(self, source: Source) -> None:
        first, place = 0, self.one("SELECT coalesce(max(n) + 1, 0) FROM events")
        for path in source.paths:
            columns = "{" + ", ".join(f"'{name}': 'VARCHAR'" for name in COLUMNS) + "}"
            # A table keeps the order of the file (preserve_insertion_order), and without deletions
            # its rowid is the row's number.
            self.db.execute(
                f"CREATE OR REPLACE TEMP TABLE raw AS SELECT * FROM read_csv(?, header = true, auto_detect = false, delim = ',',"
                f" quote = '\"', columns = {columns}, nullstr = '')",
                [str(path)],
            )
            rows, highest = self.db.execute("SELECT count(*), coalesce(max(rowid) + 1, 0) FROM raw").fetchone()
            assert rows == highest, f"{path}: rows are not numbered without holes"
            self.db.execute(
                "INSERT INTO events SELECT rowid + ?, ?, rowid + ? AS source_row, 0, strptime(event_time, '%Y-%m-%d %H:%M:%S UTC'),"
                " event_type, product_id::BIGINT, category_id::BIGINT, category_code, brand, price::DECIMAL(12, 2),"
                " user_id::BIGINT, user_session, coalesce(user_session, 'user-' || user_id)"
                " FROM raw WHERE NOT list_contains(?::BIGINT[], rowid + ?)",
                [place + first, source.id, first, list(source.bad_rows), first],
            )
            first += rows
        self.db.execute("DROP TABLE IF EXISTS raw")
        if source.shift_seconds:
            self.db.execute(
                "UPDATE events SET event_time = event_time + to_seconds(?) WHERE source = ?", [source.shift_seconds, source.id])
        if source.published:
            self._as_published(source, place)

    def _as_published(self, source: Source, place: int) -> None:
        """Puts the source's rows into the order of their offsets, with their copies. (Only the order
        within a partition means anything.)"""
        self.db.execute(
            "CREATE OR REPLACE TEMP TABLE published AS SELECT source_row, copy, ? + row_number() OVER"
            " (ORDER BY topic_offset, topic_partition) AS n FROM read_parquet(?) WHERE source = ?",
            [place, str(source.published / "events" / "*" / "*.parquet"), source.id])
        rows, once = self.one("SELECT count(*), count(*) FILTER (copy = 0) FROM published")
        known = self.one("SELECT count(*) FROM events WHERE source = ?", source.id)
        assert known == once, f"{once} rows were published, {known} should have been"
        self.db.execute(
            "CREATE OR REPLACE TEMP TABLE ordered AS SELECT events.* REPLACE (published.n AS n, published.copy AS copy)"
            " FROM events JOIN published USING (source_row) WHERE source = ?", [source.id])
        assert self.one("SELECT count(*) FROM ordered") == rows, "rows were published that are not of the source"
        self.db.execute("DELETE FROM events WHERE source = ?", [source.id])
        self.db.execute("INSERT INTO events SELECT * FROM ordered")

    def rows(self, sql: str, *parameters):
        return self.db.execute(sql, parameters).fetchall()

    def one(self, sql: str, *parameters):
        row = self.db.execute(sql, parameters).fetchone()
        return row[0] if len(row) == 1 else row


__all__ = ["Oracle", "Source", "HALF_AN_HOUR", "assert_lake_equal", "assert_marts_equal", "lake_sources"]
