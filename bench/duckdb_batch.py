#!/usr/bin/env python3
"""The batch that the pipeline is measured beside: CSV to one Parquet table of events, then from that
one funnel mart by session x product. DuckDB, on as many threads as the machine has cores."""
import json
import os
import sys
import time
from pathlib import Path

import duckdb

COLUMNS = {
    "event_time": "VARCHAR", "event_type": "VARCHAR", "product_id": "BIGINT", "category_id": "BIGINT", "category_code": "VARCHAR",
    "brand": "VARCHAR", "price": "DECIMAL(12,2)", "user_id": "BIGINT", "user_session": "VARCHAR",
}


def run(source, folder, threads):
    db = duckdb.connect(config={"threads": threads})
    events, mart = Path(folder) / "events.parquet", Path(folder) / "mart.parquet"
    began = time.monotonic()
    db.execute(
        f"COPY (SELECT * REPLACE (strptime(event_time, '%Y-%m-%d %H:%M:%S UTC') AS event_time)"
        f" FROM read_csv('{source}', header = true, auto_detect = false, delim = ',', columns = {COLUMNS}))"
        f" TO '{events}' (FORMAT parquet)"
    )
    written = time.monotonic()
    db.execute(
        f"""COPY (
        WITH pairs AS (
            SELECT user_session, product_id, any_value(category_code) AS category_code, any_value(brand) AS brand,
                min(event_time) AS touched, min(event_time) FILTER (event_type = 'view') AS viewed_at,
                min(event_time) FILTER (event_type = 'cart') AS carted_at,
                min(event_time) FILTER (event_type = 'purchase') AS purchased_at,
                coalesce(sum(price) FILTER (event_type = 'purchase'), 0) AS revenue
            FROM read_parquet('{events}') GROUP BY user_session, product_id
        )
        SELECT touched::DATE AS day, category_code, brand, count(viewed_at) AS viewed, count(carted_at) AS carted,
            count(purchased_at) AS purchased, count(*) FILTER (viewed_at <= carted_at) AS viewed_then_carted,
            count(*) FILTER (carted_at <= purchased_at) AS carted_then_purchased, sum(revenue) AS revenue
        FROM pairs GROUP BY ALL) TO '{mart}' (FORMAT parquet)"""
    )
    ended = time.monotonic()
    rows = db.execute(f"SELECT count(*) FROM read_parquet('{events}')").fetchone()[0]
    return {"rows": rows, "seconds": ended - began, "csv_to_parquet": written - began, "mart": ended - written, "version": duckdb.__version__}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2], os.cpu_count())))
