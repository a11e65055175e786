//! `marts.db` as its one writer sees it: sums and positions, in one transaction.
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use broker::{Incarnation, Offset, Topic, TopicPartition};
use records::{EventTime, clock};
use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior, params};

use crate::deltas::{Day, Deltas};
use crate::error::{ANEW, Error, Result};
use crate::position::{Position, Stored};
use crate::schema;

/// How long a commit waits for somebody who writes to the database by hand.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const PRAGMAS: &str = "
    PRAGMA page_size = 8192;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA cache_size = -16384;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 1000;
    PRAGMA journal_size_limit = 33554432;
";

#[derive(Debug)]
pub(crate) struct Store {
    db: Connection,
    path: PathBuf,
    /// Held while this lives: one writer.
    _lock: Arc<Lock>,
}

/// The right to write to a `marts.db`: a lock on a file beside it, which the system drops with the process.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _file: File,
}

impl Store {
    /// Opens the database, or makes it; refuses where another process has it, and a database of
    /// another schema.
    pub(crate) fn open(lock: Arc<Lock>) -> Result<Self> {
        let path = lock.path.as_path();
        let mut db = Connection::open(path).map_err(Error::sqlite(path, "opening the marts"))?;
        db.busy_timeout(BUSY_TIMEOUT).map_err(Error::sqlite(path, "opening the marts"))?;
        db.set_prepared_statement_cache_capacity(32);
        // Before anything is written to it: it may be somebody else's.
        schema::is_ours(&db, path)?;
        db.execute_batch(PRAGMAS).map_err(Error::sqlite(path, "opening the marts"))?;
        schema::create(&mut db, path, clock::wall_us())?;
        Ok(Self { db, path: path.to_path_buf(), _lock: lock })
    }

    pub(crate) fn positions(&self) -> Result<HashMap<TopicPartition, Stored>> {
        let read = || {
            let mut select = self.db.prepare("SELECT topic, partition, incarnation, next_offset FROM positions")?;
            let rows = select.query_map([], |row| {
                let partition =
                    TopicPartition { topic: Topic::from(row.get_ref(0)?.as_str()?), partition: row.get(1)? };
                let incarnation = Incarnation(row.get_ref(2)?.as_str()?.into());
                Ok((partition, Stored { incarnation, next_offset: Offset(row.get(3)?) }))
            })?;
            rows.collect::<rusqlite::Result<HashMap<_, _>>>()
        };
        read().map_err(Error::sqlite(&self.path, "reading the positions"))
    }

    /// Writes positions for the first time.
    pub(crate) fn add_positions<'p>(&mut self, added: impl Iterator<Item = &'p Position>) -> Result<()> {
        let add = |db: &mut Connection| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for position in added {
                tx.prepare_cached("INSERT INTO positions VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                    position.partition.topic.as_str(),
                    position.partition.partition,
                    &*position.incarnation.0,
                    position.stored.0
                ])?;
            }
            tx.commit()
        };
        add(&mut self.db).map_err(Error::sqlite(&self.path, "writing the first positions"))
    }

    /// Adds the sums and moves the positions from `stored` to `read`: all of it, or nothing. After
    /// an error the deltas still hold what they held. Returns the rows written.
    pub(crate) fn commit(&mut self, deltas: &Deltas, positions: &[Position], now_us: i64) -> Result<usize> {
        let failed = |e| Error::sqlite(&self.path, "committing the marts")(e);
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        for position in positions.iter().filter(|position| position.read != position.stored) {
            if !swap(&tx, position).map_err(failed)? {
                return Err(Error::Stop(format!(
                    "{}: the position of {} is no longer at offset {}: something else has written to it. Restore \
                     it, or {ANEW}",
                    self.path.display(),
                    position.partition,
                    position.stored
                )));
            }
        }
        upsert(&tx, deltas).map_err(failed)?;
        tx.prepare_cached("INSERT OR REPLACE INTO info VALUES ('committed_at_us', ?1)")
            .and_then(|mut statement| statement.execute([now_us]))
            .map_err(failed)?;
        tx.commit().map_err(failed)?;
        Ok(deltas.keys())
    }
}

/// Compare and swap; false where the offset is not the expected one.
fn swap(tx: &Transaction<'_>, position: &Position) -> rusqlite::Result<bool> {
    let moved = tx
        .prepare_cached(
            "UPDATE positions SET next_offset = ?5
             WHERE topic = ?1 AND partition = ?2 AND incarnation = ?3 AND next_offset = ?4",
        )?
        .execute(params![
            position.partition.topic.as_str(),
            position.partition.partition,
            &*position.incarnation.0,
            position.stored.0,
            position.read.0
        ])?;
    Ok(moved == 1)
}

fn upsert(tx: &Transaction<'_>, deltas: &Deltas) -> rusqlite::Result<()> {
    funnel(tx, deltas)?;
    products(tx, deltas)?;
    let mut day = DayText::default();
    let mut traffic = tx.prepare_cached(
        "INSERT INTO mart_traffic_hourly VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (hour) DO UPDATE SET views = views + excluded.views, carts = carts + excluded.carts,
             purchases = purchases + excluded.purchases, revenue_cents = revenue_cents + excluded.revenue_cents,
             sessions_started = sessions_started + excluded.sessions_started",
    )?;
    for (hour, sums) in deltas.traffic.iter() {
        let hour = EventTime::from_hours(*hour).hour_text();
        traffic.execute(params![
            hour,
            sums.views,
            sums.carts,
            sums.purchases,
            sums.revenue_cents,
            sums.sessions_started
        ])?;
    }
    let mut sessions = tx.prepare_cached(
        "INSERT INTO mart_sessions_daily VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (day, furthest_stage) DO UPDATE SET sessions = sessions + excluded.sessions,
             events = events + excluded.events, duration_seconds = duration_seconds + excluded.duration_seconds,
             revenue_cents = revenue_cents + excluded.revenue_cents",
    )?;
    for ((start, stage), sums) in &deltas.sessions {
        sessions.execute(params![
            day.of(*start),
            stage.as_str(),
            sums.sessions,
            sums.events,
            sums.duration_seconds,
            sums.revenue_cents
        ])?;
    }
    let mut abandoned = tx.prepare_cached("INSERT INTO abandoned_carts VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
    for left in &deltas.abandoned {
        abandoned.execute(params![
            deltas.session_id(left),
            left.user_id,
            left.product_id,
            deltas.texts.nullable(left.category_code),
            deltas.texts.nullable(left.brand),
            day.of(left.day),
            left.value_cents
        ])?;
    }
    Ok(())
}

fn funnel(tx: &Transaction<'_>, deltas: &Deltas) -> rusqlite::Result<()> {
    let mut statement: CachedStatement<'_> = tx.prepare_cached(
        "INSERT INTO mart_funnel_daily VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (day, ifnull(category_code, ''), ifnull(brand, '')) DO UPDATE SET
             viewed = viewed + excluded.viewed, carted = carted + excluded.carted,
             purchased = purchased + excluded.purchased,
             viewed_then_carted = viewed_then_carted + excluded.viewed_then_carted,
             carted_then_purchased = carted_then_purchased + excluded.carted_then_purchased",
    )?;
    let mut rows: Vec<_> = deltas
        .funnel
        .iter()
        .map(|((day, category_code, brand), sums)| {
            (*day, deltas.texts.nullable(*category_code), deltas.texts.nullable(*brand), sums)
        })
        .collect();
    // In the order of the index, so that neighbours share its pages.
    rows.sort_unstable_by_key(|(day, category_code, brand, _)| (*day, *category_code, *brand));
    let mut text = DayText::default();
    for (day, category_code, brand, sums) in rows {
        statement.execute(params![
            text.of(day),
            category_code,
            brand,
            sums.viewed,
            sums.carted,
            sums.purchased,
            sums.viewed_then_carted,
            sums.carted_then_purchased
        ])?;
    }
    Ok(())
}

/// The upsert of mart_products: sums are added, and the last event's attributes stay or are replaced.
static PRODUCTS: LazyLock<String> = LazyLock::new(|| {
    const NEWER: &str = "(last_time_us IS NULL OR (excluded.last_time_us, excluded.last_source, excluded.last_row, \
                         excluded.last_copy) > (last_time_us, last_source, last_row, last_copy))";
    let mut sql = String::from(
        "INSERT INTO mart_products VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
         ON CONFLICT (month, product_id) DO UPDATE SET
             views = views + excluded.views, carts = carts + excluded.carts,
             purchases = purchases + excluded.purchases, revenue_cents = revenue_cents + excluded.revenue_cents,
             viewed = viewed + excluded.viewed, carted = carted + excluded.carted,
             purchased = purchased + excluded.purchased",
    );
    // A NULL on the left, from steps alone, is greater than nothing: the comparison is NULL, not true.
    for column in ["category_code", "brand", "last_time_us", "last_source", "last_row", "last_copy"] {
        sql.push_str(&format!(", {column} = iif({NEWER}, excluded.{column}, {column})"));
    }
    sql
});

fn products(tx: &Transaction<'_>, deltas: &Deltas) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(&PRODUCTS)?;
    let mut rows: Vec<_> = deltas.products.iter().collect();
    rows.sort_unstable_by_key(|(key, _)| **key);
    let mut text = DayText::default();
    for ((month, product_id), sums) in rows {
        // Without an event the category and brand are those of a step: not what the column says.
        let attribute = |id| sums.last.and_then(|_| deltas.texts.nullable(id));
        statement.execute(params![
            text.of(*month),
            product_id,
            attribute(sums.category_code),
            attribute(sums.brand),
            sums.views,
            sums.carts,
            sums.purchases,
            sums.revenue_cents,
            sums.viewed,
            sums.carted,
            sums.purchased,
            sums.last.map(|last| last.time_us),
            sums.last.map(|last| last.source),
            // Rows of a source are counted, never near the greatest.
            sums.last.map(|last| i64::try_from(last.row).unwrap_or(i64::MAX)),
            sums.last.map(|last| last.copy),
        ])?;
    }
    Ok(())
}

/// `YYYY-MM-DD` of a day, remembered: rows come sorted by it.
#[derive(Debug, Default)]
struct DayText(Option<(Day, String)>);

impl DayText {
    fn of(&mut self, day: Day) -> &str {
        if self.0.as_ref().is_none_or(|(of, _)| *of != day) {
            self.0 = Some((day, EventTime::from_days(i64::from(day)).day_text()));
        }
        self.0.as_ref().map_or("", |(_, text)| text)
    }
}

impl Lock {
    /// Of the database at this path, whether it is there or not; the folder must be there. Refused
    /// where another process has it.
    pub fn take(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = lock(&path)?;
        Ok(Self { path, _file: file })
    }
}

fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let refused = |why: &dyn std::fmt::Display| Error::Stop(format!("{}: {why}", name.display()));
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name).map_err(|e| {
        refused(&format!("it cannot be opened for writing ({e}); the folder must be there and be writable"))
    })?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
        rustix::io::Errno::WOULDBLOCK => refused(&format!(
            "another process writes to {}; stop it, or give this one a file of its own",
            path.display()
        )),
        e => refused(&e),
    })?;
    Ok(file)
}
