-- marts.db: the marts of DESIGN.md, live. Counts and sums are stored, rates are views.
-- Money is whole cents, a month is its first day, times are UTC, NULL is one key.

-- Pairs of session and product, by the day, category and brand of the pair's first touch.
CREATE TABLE mart_funnel_daily (
    day                   TEXT NOT NULL,    -- YYYY-MM-DD
    category_code         TEXT,
    brand                 TEXT,
    viewed                INTEGER NOT NULL,
    carted                INTEGER NOT NULL,
    purchased             INTEGER NOT NULL,
    viewed_then_carted    INTEGER NOT NULL,
    carted_then_purchased INTEGER NOT NULL
) STRICT;
-- No text of the data is stored as '', so '' can stand for NULL here.
CREATE UNIQUE INDEX mart_funnel_daily_key ON mart_funnel_daily (day, ifnull(category_code, ''), ifnull(brand, ''));

CREATE TABLE mart_traffic_hourly (
    hour             TEXT NOT NULL PRIMARY KEY, -- YYYY-MM-DD HH:00:00
    views            INTEGER NOT NULL,
    carts            INTEGER NOT NULL,
    purchases        INTEGER NOT NULL,
    revenue_cents    INTEGER NOT NULL,
    sessions_started INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mart_products (
    month          TEXT NOT NULL,     -- YYYY-MM-01
    product_id     INTEGER NOT NULL,
    category_code  TEXT,              -- as the last event of the product in the month has it
    brand          TEXT,              -- as well
    views          INTEGER NOT NULL,  -- events, by their own month
    carts          INTEGER NOT NULL,
    purchases      INTEGER NOT NULL,
    revenue_cents  INTEGER NOT NULL,
    viewed         INTEGER NOT NULL,  -- pairs of session and product, by the month of first touch
    carted         INTEGER NOT NULL,
    purchased      INTEGER NOT NULL,
    last_time_us   INTEGER,           -- which event the last one was: NULL before the first
    last_source    INTEGER,
    last_row       INTEGER,
    last_copy      INTEGER,
    PRIMARY KEY (month, product_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE mart_sessions_daily (
    day              TEXT NOT NULL,   -- of the session's start
    furthest_stage   TEXT NOT NULL,   -- view, cart, purchase
    sessions         INTEGER NOT NULL,
    events           INTEGER NOT NULL,
    duration_seconds INTEGER NOT NULL,
    revenue_cents    INTEGER NOT NULL,
    PRIMARY KEY (day, furthest_stage)
) STRICT, WITHOUT ROWID;

-- One row for a closed session and a product that it left in the cart. Nothing is unique here: a
-- late event may open a second session with the id of one that is closed, and both count.
CREATE TABLE abandoned_carts (
    session_id    TEXT NOT NULL,
    user_id       INTEGER NOT NULL,
    product_id    INTEGER NOT NULL,
    category_code TEXT,
    brand         TEXT,
    day           TEXT NOT NULL,      -- of the session's start
    value_cents   INTEGER NOT NULL    -- the price at first touch, once
) STRICT;
-- Covers mart_abandoned_carts and the sums by product.
CREATE INDEX abandoned_carts_by_product ON abandoned_carts (product_id, day, value_cents);

-- cart_rate:             of the pairs that were viewed, how many went into the cart after that
-- cart_to_purchase_rate: of the pairs that were carted, how many were bought after that
-- purchase_rate:         bought for one viewed; above 1 where things are bought that nobody viewed
-- A rate of nothing is NULL.
CREATE VIEW mart_funnel AS
SELECT month, category_code, brand, viewed, carted, purchased, viewed_then_carted, carted_then_purchased,
       viewed_then_carted * 1.0 / nullif(viewed, 0) AS cart_rate,
       carted_then_purchased * 1.0 / nullif(carted, 0) AS cart_to_purchase_rate,
       purchased * 1.0 / nullif(viewed, 0) AS purchase_rate
FROM (SELECT substr(day, 1, length(day) - 2) || '01' AS month, category_code, brand,
             sum(viewed) AS viewed, sum(carted) AS carted, sum(purchased) AS purchased,
             sum(viewed_then_carted) AS viewed_then_carted, sum(carted_then_purchased) AS carted_then_purchased
      FROM mart_funnel_daily
      GROUP BY 1, 2, 3);

CREATE VIEW mart_abandoned_carts AS
SELECT day, product_id, count(*) AS sessions, sum(value_cents) AS value_cents
FROM abandoned_carts
GROUP BY day, product_id;

-- How far each partition has been counted: in the same transaction as what was counted.
CREATE TABLE positions (
    topic       TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    incarnation TEXT NOT NULL,        -- of the log that the offset belongs to
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)
) STRICT, WITHOUT ROWID;

-- created_at_us, committed_at_us: wall clock, microseconds since 1970.
CREATE TABLE info (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
