#!/usr/bin/env python3
"""The batch job as it is done with Spark: CSV to Parquet, then the funnel mart by session x product.
local[*], in a session that is up before the clock starts."""
import json
import os
import sys
import time

import pyspark
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

COLUMNS = ("event_time STRING, event_type STRING, product_id BIGINT, category_id BIGINT, category_code STRING, brand STRING,"
           " price DECIMAL(12,2), user_id BIGINT, user_session STRING")


def run(source, folder, cores):
    spark = (SparkSession.builder.master(f"local[{cores}]").config("spark.ui.enabled", "false").config("spark.driver.memory", "4g")
             .config("spark.sql.session.timeZone", "UTC").config("spark.sql.shuffle.partitions", str(4 * cores)).getOrCreate())
    spark.sparkContext.setLogLevel("ERROR")
    spark.range(1000).count()
    began = time.monotonic()
    events = spark.read.schema(COLUMNS).option("header", True).csv(source)
    events = events.withColumn("event_time", f.to_timestamp("event_time", "yyyy-MM-dd HH:mm:ss 'UTC'"))
    events.write.parquet(f"{folder}/events.parquet")
    written = time.monotonic()
    events = spark.read.parquet(f"{folder}/events.parquet")
    when = lambda kind: f.min(f.when(f.col("event_type") == kind, f.col("event_time")))  # noqa: E731
    pairs = events.groupBy("user_session", "product_id").agg(
        f.first("category_code").alias("category_code"), f.first("brand").alias("brand"), f.min("event_time").alias("touched"),
        when("view").alias("viewed_at"), when("cart").alias("carted_at"), when("purchase").alias("purchased_at"),
        f.sum(f.when(f.col("event_type") == "purchase", f.col("price"))).alias("revenue"))
    mart = pairs.groupBy(f.to_date("touched").alias("day"), "category_code", "brand").agg(
        f.count("viewed_at").alias("viewed"), f.count("carted_at").alias("carted"), f.count("purchased_at").alias("purchased"),
        f.count(f.when(f.col("viewed_at") <= f.col("carted_at"), 1)).alias("viewed_then_carted"),
        f.count(f.when(f.col("carted_at") <= f.col("purchased_at"), 1)).alias("carted_then_purchased"),
        f.sum("revenue").alias("revenue"))
    mart.write.parquet(f"{folder}/mart.parquet")
    ended = time.monotonic()
    rows = events.count()
    spark.stop()
    return {"rows": rows, "seconds": ended - began, "csv_to_parquet": written - began, "mart": ended - written, "version": pyspark.__version__}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], sys.argv[2], os.cpu_count())))
