"""What a month costs, computed from a lake and from the pricing rules below, with the arithmetic.

    scripts/env python bench/cost.py LAKE [--events 42448764]

LAKE is the folder of a lake that any run has written: rows are weighed as BigQuery bills them, and
counted in proportion to its events. The rules are Google's list prices for the US multi-region
(BigQuery) and a US region (Cloud Storage), in dollars: look them up for another place or day.
"""
import argparse
import math

import duckdb

GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10
# cloud.google.com/bigquery/pricing
WRITE_PER_GIB, WRITE_FREE_GIB = 0.025, 2 * 1024
INSERT_PER_200_MIB, INSERT_ROW_AT_LEAST = 0.01, KIB
TABLE_PER_GIB, TABLE_FREE_GIB = 0.02, 10
# cloud.google.com/storage/pricing
LAKE_PER_GIB, PUTS_PER_1000 = 0.02, 0.005
# What the program does, at its defaults.
FLUSH_SECONDS, LINGER_SECONDS, PARTITIONS, TOPICS = 60, 0.5, 4, 3
# October has 31 days.
MONTH_SECONDS = 31 * 24 * 3600

# What a value counts for: docs "data type sizes". NULL counts nothing, a text its bytes and 2.
BYTES = {"BIGINT": "8", "INTEGER": "8", "DOUBLE": "8", "BOOLEAN": "1", "TIMESTAMP WITH TIME ZONE": "8", "VARCHAR": "2 + strlen({0})"}


def weight(name, kind):
    if kind.startswith("DECIMAL"):
        size = "16"
    elif kind.startswith("STRUCT") and kind.endswith("[]"):
        # An item: an id, two texts, money.
        text = "list_sum(list_transform({0}, i -> 8 + 16 + 2 * (i.brand IS NOT NULL)::INT + 2 * (i.category_code IS NOT NULL)::INT" \
            " + coalesce(strlen(i.brand), 0) + coalesce(strlen(i.category_code), 0)))"
        size = f"coalesce({text}, 0)"
    else:
        size = BYTES[kind]
    return f'CASE WHEN "{name}" IS NULL THEN 0 ELSE {size.format(chr(34) + name + chr(34))} END'


def weigh(lake, topic):
    files = f"read_parquet('{lake}/{topic}/*/*.parquet', hive_partitioning = false)"
    columns = [(row[0], row[1]) for row in duckdb.sql(f"DESCRIBE SELECT * FROM {files}").fetchall()]
    total = " + ".join(weight(name, kind) for name, kind in columns)
    rows, billed, stored = duckdb.sql(
        f"SELECT count(*), sum({total}), (SELECT sum(total_compressed_size) FROM parquet_metadata('{lake}/{topic}/*/*.parquet')) FROM {files}"
    ).fetchone()
    return rows, billed / rows, stored / rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lake")
    parser.add_argument("--events", type=int, default=42_448_764, help="in the month (the October of the data)")
    args = parser.parse_args()
    weighed = {topic: weigh(args.lake, topic) for topic in ("events", "funnel-steps", "sessions")}
    share = args.events / weighed["events"][0]
    rows = {topic: round(rows * share) for topic, (rows, *_) in weighed.items()}
    print("| table | rows in the month | bytes a row, as billed | GiB | as Parquet, GiB |\n|---|---:|---:|---:|---:|")
    for topic, (_, billed, stored) in weighed.items():
        print(f"| {topic} | {rows[topic]:,} | {billed:.1f} | {rows[topic] * billed / GIB:.2f} | {rows[topic] * stored / GIB:.2f} |")
    written = sum(rows[topic] * billed for topic, (_, billed, _) in weighed.items()) / GIB
    parquet = sum(rows[topic] * stored for topic, (*_, stored) in weighed.items()) / GIB
    all_rows = sum(rows.values())
    inserted = sum(rows[topic] * max(billed, INSERT_ROW_AT_LEAST) for topic, (_, billed, _) in weighed.items()) / MIB
    paid = max(0, written - WRITE_FREE_GIB)
    kept = max(0, written - TABLE_FREE_GIB)
    files = math.ceil(MONTH_SECONDS / FLUSH_SECONDS) * PARTITIONS * TOPICS
    requests = math.ceil(MONTH_SECONDS / LINGER_SECONDS) * PARTITIONS * TOPICS
    print(f"""
- **storage-write**: max(0, {written:.2f} GiB − {WRITE_FREE_GIB:,} GiB free) × ${WRITE_PER_GIB} = **${paid * WRITE_PER_GIB:.2f}**. Without the free part: {written:.2f} × ${WRITE_PER_GIB} = ${written * WRITE_PER_GIB:.2f}. Requests cost nothing; at most {requests:,} of them.
- **insert-all**: {all_rows:,} rows × {INSERT_ROW_AT_LEAST:,} bytes at the least = {inserted:,.0f} MiB; / 200 × ${INSERT_PER_200_MIB} = **${inserted / 200 * INSERT_PER_200_MIB:.2f}**.
- **tables kept for the month**, either way: max(0, {written:.2f} − {TABLE_FREE_GIB} GiB free) × ${TABLE_PER_GIB} = **${kept * TABLE_PER_GIB:.2f}**.
- **lake**: {parquet:.2f} GiB × ${LAKE_PER_GIB} + at most {files:,} PUTs (one a partition, topic and {FLUSH_SECONDS} s) / 1,000 × ${PUTS_PER_1000} = **${parquet * LAKE_PER_GIB + files / 1000 * PUTS_PER_1000:.2f}**; loading it into BigQuery costs nothing.""")


if __name__ == "__main__":
    main()
