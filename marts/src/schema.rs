//! The tables of `marts.db`, and how a database is recognised.
use std::path::Path;

use rusqlite::Connection;

use crate::error::{ANEW, Error, Result};

const SCHEMA: &str = include_str!("schema.sql");

/// "CLKM", in SQLite's header.
const APPLICATION_ID: i32 = 0x434c_4b4d;
/// Raise it with every change of `schema.sql`.
pub(crate) const VERSION: i32 = 1;

/// Makes the tables where there are none yet; refuses a database that is not ours.
pub(crate) fn create(db: &mut Connection, path: &Path, now_us: i64) -> Result<()> {
    if is_ours(db, path)? {
        return Ok(());
    }
    let create = |db: &mut Connection| {
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        tx.execute_batch(SCHEMA)?;
        tx.execute("INSERT INTO info VALUES ('created_at_us', ?1)", [now_us])?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()
    };
    create(db).map_err(Error::sqlite(path, "making the tables"))
}

/// Whether our tables are in it; false where it is empty. Anything else is refused.
pub(crate) fn is_ours(db: &Connection, path: &Path) -> Result<bool> {
    let number = |pragma: &str| {
        db.query_row(pragma, [], |row| row.get::<_, i32>(0)).map_err(Error::sqlite(path, "reading the schema version"))
    };
    let id = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let shown = path.display();
    match (id, version, tables) {
        (0, 0, 0) => Ok(false),
        (APPLICATION_ID, VERSION, _) => Ok(true),
        (APPLICATION_ID, ..) => Err(Error::Stop(format!(
            "{shown} has schema version {version}, and this program reads and writes version {VERSION}: use the \
             program that made it, or {ANEW}"
        ))),
        _ => Err(Error::Stop(format!(
            "{shown} is a database of another program (application_id {id}); name another folder with --data-dir"
        ))),
    }
}
