//! The read API: what the page, `/api/…` and the summary show of the marts.
//!
//! Opens `marts.db` read-only, beside the writer, and sums what the tables hold. One connection
//! serves one thread at a time; each answer is of one moment.
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::schema;

const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// A reader of `marts.db`.
#[derive(Debug)]
pub struct Marts {
    db: Connection,
    path: PathBuf,
}

/// Sums over everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Events, by type.
    pub views: i64,
    pub carts: i64,
    pub purchases: i64,
    /// Of every purchase event.
    pub revenue_cents: i64,
    pub sessions_started: i64,
    /// Closed ones.
    pub sessions: i64,
    /// Steps by stage: pairs of session and product that reached it.
    pub viewed: i64,
    pub carted: i64,
    pub purchased: i64,
    pub viewed_then_carted: i64,
    pub carted_then_purchased: i64,
    /// Pairs of closed session and product left in its cart.
    pub abandoned: i64,
    pub abandoned_value_cents: i64,
    /// The hours of the first and of the last event, `YYYY-MM-DD HH:00:00`.
    pub first_hour: Option<String>,
    pub last_hour: Option<String>,
}

/// One category of `mart_funnel`, all months and brands. A rate of nothing is None.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FunnelRow {
    /// The category_code or the brand; None where the data has none.
    pub name: Option<String>,
    pub viewed: i64,
    pub carted: i64,
    pub purchased: i64,
    pub viewed_then_carted: i64,
    pub carted_then_purchased: i64,
    pub cart_rate: Option<f64>,
    pub cart_to_purchase_rate: Option<f64>,
    pub purchase_rate: Option<f64>,
}

/// A row of `mart_traffic_hourly`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrafficRow {
    pub hour: String,
    pub views: i64,
    pub carts: i64,
    pub purchases: i64,
    pub revenue_cents: i64,
    pub sessions_started: i64,
}

/// A product of `mart_products`, all months; category and brand as in the last month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProductRow {
    pub product_id: i64,
    pub category_code: Option<String>,
    pub brand: Option<String>,
    pub views: i64,
    pub carts: i64,
    pub purchases: i64,
    pub revenue_cents: i64,
    pub viewed: i64,
    pub carted: i64,
    pub purchased: i64,
}

/// A furthest stage of `mart_sessions_daily`, all days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionsRow {
    pub furthest_stage: String,
    pub sessions: i64,
    pub events: i64,
    pub duration_seconds: i64,
    pub revenue_cents: i64,
}

/// A product of `mart_abandoned_carts`, all days; category and brand as it was last left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AbandonedRow {
    pub product_id: i64,
    pub category_code: Option<String>,
    pub brand: Option<String>,
    pub sessions: i64,
    pub value_cents: i64,
}

/// How far the marts have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Freshness {
    /// Wall clock of the last commit, microseconds since 1970.
    pub committed_at_us: Option<i64>,
    pub positions: Vec<PositionRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PositionRow {
    pub topic: String,
    pub partition: u32,
    pub next_offset: i64,
}

/// What products are ranked by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RankBy {
    #[default]
    Revenue,
    Views,
    Purchases,
}

const FUNNEL: &str = "SELECT name, viewed, carted, purchased, viewed_then_carted, carted_then_purchased,
           viewed_then_carted * 1.0 / nullif(viewed, 0), carted_then_purchased * 1.0 / nullif(carted, 0),
           purchased * 1.0 / nullif(viewed, 0)
    FROM (SELECT $name AS name, sum(viewed) AS viewed, sum(carted) AS carted, sum(purchased) AS purchased,
                 sum(viewed_then_carted) AS viewed_then_carted, sum(carted_then_purchased) AS carted_then_purchased
          FROM mart_funnel_daily GROUP BY 1)
    ORDER BY viewed + carted + purchased DESC, name LIMIT ?1";

impl Marts {
    /// Opens `marts.db` for reading. It must be there and have the schema version of this program.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Error::sqlite(path, "opening the marts for reading");
        let db = Connection::open_with_flags(path, flags).map_err(opened)?;
        db.busy_timeout(BUSY_TIMEOUT).map_err(Error::sqlite(path, "opening the marts for reading"))?;
        if !schema::is_ours(&db, path)? {
            return Err(Error::Stop(format!("{} is empty: nothing has been written to it yet", path.display())));
        }
        Ok(Self { db, path: path.to_path_buf() })
    }

    pub fn totals(&self) -> Result<Totals> {
        // One statement, so that all of it is of one moment.
        let sql = "SELECT t.*, s.*, f.*, a.* FROM
            (SELECT ifnull(sum(views), 0), ifnull(sum(carts), 0), ifnull(sum(purchases), 0),
                    ifnull(sum(revenue_cents), 0), ifnull(sum(sessions_started), 0),
                    min(hour) FILTER (WHERE views + carts + purchases > 0),
                    max(hour) FILTER (WHERE views + carts + purchases > 0) FROM mart_traffic_hourly) t,
            (SELECT ifnull(sum(sessions), 0) FROM mart_sessions_daily) s,
            (SELECT ifnull(sum(viewed), 0), ifnull(sum(carted), 0), ifnull(sum(purchased), 0),
                    ifnull(sum(viewed_then_carted), 0), ifnull(sum(carted_then_purchased), 0)
             FROM mart_funnel_daily) f,
            (SELECT count(*), ifnull(sum(value_cents), 0) FROM abandoned_carts) a";
        let rows = self.rows(sql, [], |row| {
            Ok(Totals {
                views: row.get(0)?,
                carts: row.get(1)?,
                purchases: row.get(2)?,
                revenue_cents: row.get(3)?,
                sessions_started: row.get(4)?,
                first_hour: row.get(5)?,
                last_hour: row.get(6)?,
                sessions: row.get(7)?,
                viewed: row.get(8)?,
                carted: row.get(9)?,
                purchased: row.get(10)?,
                viewed_then_carted: row.get(11)?,
                carted_then_purchased: row.get(12)?,
                abandoned: row.get(13)?,
                abandoned_value_cents: row.get(14)?,
            })
        })?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// The categories with the most steps.
    pub fn funnel_by_category(&self, limit: u32) -> Result<Vec<FunnelRow>> {
        self.rows(&FUNNEL.replace("$name", "category_code"), [limit], funnel_row)
    }

    /// The brands with the most steps.
    pub fn funnel_by_brand(&self, limit: u32) -> Result<Vec<FunnelRow>> {
        self.rows(&FUNNEL.replace("$name", "brand"), [limit], funnel_row)
    }

    /// The last `limit` hours that have traffic, in order.
    pub fn traffic_by_hour(&self, limit: u32) -> Result<Vec<TrafficRow>> {
        let sql = "SELECT hour, views, carts, purchases, revenue_cents, sessions_started
                   FROM mart_traffic_hourly ORDER BY hour DESC LIMIT ?1";
        let mut rows = self.rows(sql, [limit], |row| {
            Ok(TrafficRow {
                hour: row.get(0)?,
                views: row.get(1)?,
                carts: row.get(2)?,
                purchases: row.get(3)?,
                revenue_cents: row.get(4)?,
                sessions_started: row.get(5)?,
            })
        })?;
        rows.reverse();
        Ok(rows)
    }

    pub fn top_products(&self, by: RankBy, limit: u32) -> Result<Vec<ProductRow>> {
        let by = match by {
            RankBy::Revenue => "revenue_cents",
            RankBy::Views => "views",
            RankBy::Purchases => "purchases",
        };
        // With a lone max(), SQLite takes bare columns from the row that has it.
        let sql = format!(
            "SELECT product_id, category_code, brand, sum(views) AS views, sum(carts), sum(purchases) AS purchases,
                    sum(revenue_cents) AS revenue_cents, sum(viewed), sum(carted), sum(purchased), max(month)
             FROM mart_products GROUP BY product_id ORDER BY {by} DESC, product_id LIMIT ?1"
        );
        self.rows(&sql, [limit], |row| {
            Ok(ProductRow {
                product_id: row.get(0)?,
                category_code: row.get(1)?,
                brand: row.get(2)?,
                views: row.get(3)?,
                carts: row.get(4)?,
                purchases: row.get(5)?,
                revenue_cents: row.get(6)?,
                viewed: row.get(7)?,
                carted: row.get(8)?,
                purchased: row.get(9)?,
            })
        })
    }

    /// In the order of the funnel.
    pub fn sessions_by_stage(&self) -> Result<Vec<SessionsRow>> {
        let sql = "SELECT furthest_stage, sum(sessions), sum(events), sum(duration_seconds), sum(revenue_cents)
                   FROM mart_sessions_daily GROUP BY 1
                   ORDER BY CASE furthest_stage WHEN 'view' THEN 0 WHEN 'cart' THEN 1 ELSE 2 END";
        self.rows(sql, [], |row| {
            Ok(SessionsRow {
                furthest_stage: row.get(0)?,
                sessions: row.get(1)?,
                events: row.get(2)?,
                duration_seconds: row.get(3)?,
                revenue_cents: row.get(4)?,
            })
        })
    }

    /// The products most often left in a cart.
    pub fn top_abandoned(&self, limit: u32) -> Result<Vec<AbandonedRow>> {
        let latest = |column: &str| {
            format!(
                "(SELECT {column} FROM abandoned_carts l WHERE l.product_id = a.product_id ORDER BY day DESC, rowid \
                 DESC LIMIT 1)"
            )
        };
        let sql = format!(
            "SELECT product_id, {}, {}, sessions, value_cents
             FROM (SELECT product_id, count(*) AS sessions, sum(value_cents) AS value_cents
                   FROM abandoned_carts GROUP BY product_id
                   ORDER BY sessions DESC, value_cents DESC, product_id LIMIT ?1) a",
            latest("category_code"),
            latest("brand")
        );
        self.rows(&sql, [limit], |row| {
            Ok(AbandonedRow {
                product_id: row.get(0)?,
                category_code: row.get(1)?,
                brand: row.get(2)?,
                sessions: row.get(3)?,
                value_cents: row.get(4)?,
            })
        })
    }

    pub fn freshness(&self) -> Result<Freshness> {
        let committed_at_us =
            self.rows("SELECT value FROM info WHERE name = 'committed_at_us'", [], |row| row.get(0))?;
        let sql = "SELECT topic, partition, next_offset FROM positions ORDER BY topic, partition";
        let positions = self.rows(sql, [], |row| {
            Ok(PositionRow { topic: row.get(0)?, partition: row.get(1)?, next_offset: row.get(2)? })
        })?;
        Ok(Freshness { committed_at_us: committed_at_us.into_iter().next(), positions })
    }

    fn rows<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let read = || self.db.prepare_cached(sql)?.query_map(params, row)?.collect::<rusqlite::Result<Vec<T>>>();
        read().map_err(Error::sqlite(&self.path, "reading the marts"))
    }
}

fn funnel_row(row: &Row<'_>) -> rusqlite::Result<FunnelRow> {
    Ok(FunnelRow {
        name: row.get(0)?,
        viewed: row.get(1)?,
        carted: row.get(2)?,
        purchased: row.get(3)?,
        viewed_then_carted: row.get(4)?,
        carted_then_purchased: row.get(5)?,
        cart_rate: row.get(6)?,
        cart_to_purchase_rate: row.get(7)?,
        purchase_rate: row.get(8)?,
    })
}
