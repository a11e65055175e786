-- Sessions and funnel steps from the rows alone, as a batch job would have them.
-- In: events (one row of the files each; n: its place among all, in row order within its source),
--     settings (gap_us; NULL: no gap, one session a key).
-- Out: pairs, sessions, funnel_steps, left_in_cart.
-- A session is named by `opening`, the n of its first row, until its session_id is written: whole
-- numbers join and sort several times faster than texts.

CREATE TABLE keys AS
SELECT source, session_key, row_number() OVER () AS key FROM (SELECT DISTINCT source, session_key FROM events);

-- A session ends where a time exceeds the greatest time of the session so far by more than the gap.
-- `latest_before` is the greatest time of *all* earlier rows of the key, which is the same thing:
-- claim: at every row, the key's running maximum is that of its current session. It holds at the
-- first row. Where no split happens, both maxima take the same new time. Where one happens, the
-- new time exceeds the session's maximum, which is the key's, so it is the new maximum of the key
-- and, alone in its session, of the session too. (gap >= 0 is all that this needs.)
CREATE TABLE tagged AS
WITH keyed AS (
    SELECT n, key, epoch_us(event_time) AS at_us, event_type, product_id FROM events JOIN keys USING (source, session_key)
), paused AS (
    SELECT *, max(at_us) OVER (PARTITION BY key ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest_before
    FROM keyed
), opened AS (
    SELECT *, CASE WHEN latest_before IS NULL OR at_us - latest_before > (SELECT gap_us FROM settings) THEN n END AS opens
    FROM paused
)
SELECT n, at_us, event_type, product_id,
    max(opens) OVER (PARTITION BY key ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS opening
FROM opened;

-- Session x product: the row of each stage's first event.
CREATE TABLE pairs AS
SELECT opening, product_id, min(n) AS touch_row,
    min(n) FILTER (event_type = 'view') AS view_row,
    min(n) FILTER (event_type = 'cart') AS cart_row,
    min(n) FILTER (event_type = 'purchase') AS purchase_row
FROM tagged GROUP BY opening, product_id;

CREATE TABLE sessions AS
WITH counted AS (
    SELECT opening, max(tagged.at_us) AS end_us, max(n) AS last_row,
        count(*) FILTER (tagged.event_type = 'view') AS views,
        count(*) FILTER (tagged.event_type = 'cart') AS carts,
        count(*) FILTER (tagged.event_type = 'purchase') AS purchases,
        coalesce(sum(price) FILTER (tagged.event_type = 'purchase'), 0)::DECIMAL(18, 2) AS revenue
    FROM tagged JOIN events USING (n) GROUP BY opening
), users AS (
    -- count(DISTINCT …) in so many groups is ten times slower.
    SELECT opening, count(*) AS users FROM (SELECT DISTINCT opening, user_id FROM tagged JOIN events USING (n)) GROUP BY opening
), products AS (
    SELECT opening, count(view_row) AS products_viewed, count(cart_row) AS products_carted,
        count(purchase_row) AS products_purchased
    FROM pairs GROUP BY opening
)
SELECT opening, entry.source,
    entry.source || ':' || entry.session_key || '@' || (epoch_us(entry.event_time) // 1000000)::VARCHAR AS session_id,
    entry.user_id, users, entry.event_time AS session_start, make_timestamp(end_us) AS session_end,
    views, carts, purchases, products_viewed, products_carted, products_purchased, revenue,
    CASE WHEN purchases > 0 THEN 'purchase' WHEN carts > 0 THEN 'cart' ELSE 'view' END AS furthest_stage,
    entry.category_code AS entry_category_code, exits.category_code AS exit_category_code,
    exits.event_type AS last_event_type
FROM counted JOIN users USING (opening) JOIN products USING (opening)
JOIN events AS entry ON entry.n = opening
JOIN events AS exits ON exits.n = last_row;

CREATE TABLE funnel_steps AS
WITH reached AS (
    SELECT *, 'view' AS stage, view_row AS step_row FROM pairs WHERE view_row IS NOT NULL
    UNION ALL SELECT *, 'cart', cart_row FROM pairs WHERE cart_row IS NOT NULL
    UNION ALL SELECT *, 'purchase', purchase_row FROM pairs WHERE purchase_row IS NOT NULL
)
SELECT sessions.source, session_id, step.user_id, reached.product_id, stage, step.event_time AS step_time,
    touch.category_id, touch.category_code, touch.brand, touch.price, touch.event_time AS first_touch_time,
    coalesce(view_row < step_row, false) AS after_view, coalesce(cart_row < step_row, false) AS after_cart,
    step_row = opening AS opens_session, session_start, step_row
FROM reached JOIN sessions USING (opening)
JOIN events AS step ON step.n = step_row
JOIN events AS touch ON touch.n = touch_row;

-- Carted, and not purchased anywhere in that session; as at first touch.
CREATE TABLE left_in_cart AS
SELECT sessions.source, session_id, pairs.product_id, touch.category_code, touch.brand, touch.price AS value,
    sessions.user_id, session_start
FROM pairs JOIN sessions USING (opening) JOIN events AS touch ON touch.n = touch_row
WHERE cart_row IS NOT NULL AND purchase_row IS NULL;
