-- Sessions and funnel steps from the rows alone, as a batch job would have them.
-- In: events (one row of the files each), settings (gap_us; NULL: no gap, one session a key).
-- Out: tagged, pairs, funnel_steps, sessions, left_in_cart.

-- A session ends where a time exceeds the greatest time of the session so far by more than the gap.
-- `latest_before` is the greatest time of *all* earlier rows of the key, which is the same thing:
-- claim: at every row, the key's running maximum is that of its current session. It holds at the
-- first row. Where no split happens, both maxima take the same new time. Where one happens, the
-- new time exceeds the session's maximum, which is the key's, so it is the new maximum of the key
-- and, alone in its session, of the session too. (gap >= 0 is all that this needs.)
CREATE TABLE tagged AS
WITH paused AS (
    SELECT *, max(event_time) OVER (
        PARTITION BY source, session_key ORDER BY source_row
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest_before
    FROM events
), numbered AS (
    SELECT *, count(*) FILTER (latest_before IS NULL
            OR epoch_us(event_time) - epoch_us(latest_before) > (SELECT gap_us FROM settings)) OVER (
        PARTITION BY source, session_key ORDER BY source_row
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS session_number
    FROM paused
), opened AS (
    SELECT *, first_value(event_time) OVER in_order AS session_start, first_value(source_row) OVER in_order AS opening_row
    FROM numbered
    WINDOW in_order AS (PARTITION BY source, session_key, session_number ORDER BY source_row)
)
SELECT *, source || ':' || session_key || '@' || (epoch_us(session_start) // 1000000)::VARCHAR AS session_id
FROM opened;

-- Session x product: the row of each stage's first event.
CREATE TABLE pairs AS
SELECT source, session_id, product_id, min(source_row) AS touch_row,
    min(source_row) FILTER (event_type = 'view') AS view_row,
    min(source_row) FILTER (event_type = 'cart') AS cart_row,
    min(source_row) FILTER (event_type = 'purchase') AS purchase_row
FROM tagged GROUP BY source, session_id, product_id;

CREATE TABLE funnel_steps AS
WITH reached AS (
    SELECT *, 'view' AS stage, view_row AS step_row FROM pairs
    UNION ALL SELECT *, 'cart', cart_row FROM pairs
    UNION ALL SELECT *, 'purchase', purchase_row FROM pairs
)
SELECT source, session_id, step.user_id, product_id, stage, step.event_time AS step_time,
    touch.category_id, touch.category_code, touch.brand, touch.price, touch.event_time AS first_touch_time,
    coalesce(view_row < step_row, false) AS after_view, coalesce(cart_row < step_row, false) AS after_cart,
    step_row = step.opening_row AS opens_session, step.session_start, step_row
FROM reached
JOIN tagged AS step USING (source, session_id, product_id)
JOIN tagged AS touch USING (source, session_id, product_id)
WHERE step.source_row = step_row AND touch.source_row = touch_row;

CREATE TABLE sessions AS
WITH counted AS (
    SELECT source, session_id, any_value(session_start) AS session_start, max(event_time) AS session_end,
        count(DISTINCT user_id) AS users,
        count(*) FILTER (event_type = 'view') AS views,
        count(*) FILTER (event_type = 'cart') AS carts,
        count(*) FILTER (event_type = 'purchase') AS purchases,
        count(DISTINCT product_id) FILTER (event_type = 'view') AS products_viewed,
        count(DISTINCT product_id) FILTER (event_type = 'cart') AS products_carted,
        count(DISTINCT product_id) FILTER (event_type = 'purchase') AS products_purchased,
        coalesce(sum(price) FILTER (event_type = 'purchase'), 0)::DECIMAL(18, 2) AS revenue,
        min(source_row) AS first_row, max(source_row) AS last_row
    FROM tagged GROUP BY source, session_id
)
SELECT counted.* EXCLUDE (first_row, last_row), entry.user_id,
    CASE WHEN purchases > 0 THEN 'purchase' WHEN carts > 0 THEN 'cart' ELSE 'view' END AS furthest_stage,
    entry.category_code AS entry_category_code, exits.category_code AS exit_category_code,
    exits.event_type AS last_event_type
FROM counted
JOIN events AS entry ON entry.source = counted.source AND entry.source_row = first_row
JOIN events AS exits ON exits.source = counted.source AND exits.source_row = last_row;

-- Carted, and not purchased anywhere in that session; as at first touch.
CREATE TABLE left_in_cart AS
SELECT pairs.source, pairs.session_id, pairs.product_id, touch.category_code, touch.brand, touch.price AS value
FROM pairs
JOIN events AS touch ON touch.source = pairs.source AND touch.source_row = touch_row
WHERE cart_row IS NOT NULL AND purchase_row IS NULL;
