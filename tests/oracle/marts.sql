-- The marts, under their own names, from sessions.sql's tables. Money in cents, days as text: as SQLite holds them.

CREATE TABLE mart_funnel_daily AS
SELECT strftime(touch.event_time, '%Y-%m-%d') AS day, touch.category_code, touch.brand,
    count(view_row) AS viewed, count(cart_row) AS carted, count(purchase_row) AS purchased,
    count(*) FILTER (view_row < cart_row) AS viewed_then_carted,
    count(*) FILTER (cart_row < purchase_row) AS carted_then_purchased
FROM pairs JOIN events AS touch ON touch.n = touch_row
GROUP BY ALL;

CREATE VIEW mart_funnel AS
SELECT substr(day, 1, 7) || '-01' AS month, category_code, brand,
    sum(viewed) AS viewed, sum(carted) AS carted, sum(purchased) AS purchased,
    sum(viewed_then_carted) AS viewed_then_carted, sum(carted_then_purchased) AS carted_then_purchased
FROM mart_funnel_daily GROUP BY ALL;

CREATE TABLE mart_traffic_hourly AS
WITH counted AS (
    SELECT strftime(event_time, '%Y-%m-%d %H:00:00') AS hour,
        count(*) FILTER (event_type = 'view') AS views, count(*) FILTER (event_type = 'cart') AS carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        coalesce(sum(price) FILTER (event_type = 'purchase'), 0) * 100 AS revenue_cents
    FROM events GROUP BY ALL
), started AS (
    SELECT strftime(session_start, '%Y-%m-%d %H:00:00') AS hour, count(*) AS sessions_started FROM sessions GROUP BY ALL
)
-- A session starts with an event, so no hour is in `started` alone.
SELECT hour, views, carts, purchases, revenue_cents::BIGINT AS revenue_cents, coalesce(sessions_started, 0) AS sessions_started
FROM counted LEFT JOIN started USING (hour);

CREATE TABLE mart_products AS
WITH counted AS (
    SELECT strftime(event_time, '%Y-%m-01') AS month, product_id,
        count(*) FILTER (event_type = 'view') AS views, count(*) FILTER (event_type = 'cart') AS carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        coalesce(sum(price) FILTER (event_type = 'purchase'), 0) * 100 AS revenue_cents
    FROM events GROUP BY ALL
), reached AS (
    SELECT strftime(touch.event_time, '%Y-%m-01') AS month, pairs.product_id,
        count(view_row) AS viewed, count(cart_row) AS carted, count(purchase_row) AS purchased
    FROM pairs JOIN events AS touch ON touch.n = touch_row
    GROUP BY ALL
), latest AS (
    SELECT strftime(event_time, '%Y-%m-01') AS month, product_id, category_code, brand FROM events
    QUALIFY row_number() OVER (PARTITION BY month, product_id ORDER BY event_time DESC, source DESC, source_row DESC) = 1
)
SELECT month, product_id, views, carts, purchases, revenue_cents::BIGINT AS revenue_cents,
    coalesce(viewed, 0) AS viewed, coalesce(carted, 0) AS carted, coalesce(purchased, 0) AS purchased,
    category_code, brand
FROM counted LEFT JOIN reached USING (month, product_id) JOIN latest USING (month, product_id);

CREATE TABLE mart_sessions_daily AS
SELECT strftime(session_start, '%Y-%m-%d') AS day, furthest_stage, count(*) AS sessions,
    sum(views + carts + purchases)::BIGINT AS events,
    sum(epoch_us(session_end) - epoch_us(session_start)) // 1000000 AS duration_seconds,
    (sum(revenue) * 100)::BIGINT AS revenue_cents
FROM sessions GROUP BY ALL;

CREATE TABLE abandoned_carts AS
SELECT session_id, user_id, product_id, category_code, brand,
    strftime(session_start, '%Y-%m-%d') AS day, (value * 100)::BIGINT AS value_cents
FROM left_in_cart;

CREATE VIEW mart_abandoned_carts AS
SELECT day, product_id, count(*) AS sessions, sum(value_cents)::BIGINT AS value_cents FROM abandoned_carts GROUP BY ALL;
