//! The database file: its tables, its settings, its lock, and what SQLite's errors mean here.
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::{Durability, Options};
use crate::{Error, Result};

/// "clkb", so that another program's database is not taken for a log.
const APPLICATION_ID: i32 = 0x636c_6b62;
const SCHEMA_VERSION: i32 = 1;

/// Of the database's page. Every commit rewrites half a dozen pages beside those of its blobs: of
/// 64 KiB each they were as much as the blobs.
const PAGE_BYTES: u32 = 8_192;
/// SQLite's cache of the writing connection, and of a reading one.
const WRITE_CACHE_KIB: u32 = 16_384;
const READ_CACHE_KIB: u32 = 1_024;

/// The key of `batch` and of `latest` is partition id × 2^40 + offset (of a batch: of its first record), so
/// that a partition's rows lie together and in order.
const TABLES: &str = "
    CREATE TABLE log (incarnation TEXT NOT NULL) STRICT;
    CREATE TABLE topic (
        name TEXT NOT NULL PRIMARY KEY, partitions INTEGER NOT NULL,
        cleanup TEXT NOT NULL CHECK (cleanup IN ('delete', 'compact', 'bounded')), max_bytes INTEGER
    ) STRICT;
    CREATE TABLE topic_partition (
        id INTEGER PRIMARY KEY, topic TEXT NOT NULL REFERENCES topic, partition INTEGER NOT NULL,
        next_offset INTEGER NOT NULL, UNIQUE (topic, partition)
    ) STRICT;
    CREATE TABLE batch (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
    CREATE TABLE latest (
        id INTEGER PRIMARY KEY, partition INTEGER NOT NULL, key BLOB NOT NULL, data BLOB NOT NULL,
        UNIQUE (partition, key)
    ) STRICT;
    CREATE TABLE registered (name TEXT NOT NULL, topic TEXT NOT NULL, PRIMARY KEY (name, topic)) STRICT;
    CREATE TABLE position (
        name TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
        keep_from INTEGER NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (name, partition)
    ) STRICT;
";

/// The right to a database: the lock beside it, for as long as this is held.
pub struct Lock {
    pub(super) database: PathBuf,
    _file: File,
}

impl Lock {
    /// Of the database at this path, whether it is there or not; the folder must be there.
    ///
    /// # Errors
    /// [`Error::Stop`] if another process has it.
    pub fn take(database: impl Into<PathBuf>) -> Result<Self> {
        let database = database.into();
        let file = lock(&database)?;
        Ok(Self { database, _file: file })
    }
}

fn lock(database: &Path) -> Result<File> {
    let path = beside(database, ".lock");
    let stop = |e: &dyn std::fmt::Display| {
        Error::Stop(format!("{}: {e}; the folder must be there and be writable", path.display()))
    };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|e| stop(&e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            return Err(Error::Stop(format!(
                "{} is in use by {}; one process at a time can open it: stop that one, or take another folder",
                database.display(),
                if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") },
            )));
        }
        Err(e) => return Err(stop(&e)),
    }
    // Who holds it is for people only; the lock is what counts.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The writing connection. The database is made if it is not there: under another name first, so
/// that a process killed while making it leaves nothing that looks like a log.
pub(super) fn open(path: &Path, options: &Options) -> Result<Connection> {
    let failed = |e| explain(path, e);
    if !path.try_exists().map_err(|e| Error::Stop(format!("{}: {e}", path.display())))? {
        let new = beside(path, ".new");
        create(&new).map_err(|e| explain(&new, e))?;
        // What a deleted database left behind belongs to no log.
        for left in [beside(path, "-wal"), beside(path, "-shm")] {
            let _ = std::fs::remove_file(left);
        }
        std::fs::rename(&new, path).map_err(|e| Error::Stop(format!("{}: {e}", path.display())))?;
    } else if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file() || meta.len() == 0) {
        return Err(damaged(path, "it is empty or not a file"));
    }
    let database =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(failed)?;
    let number = |pragma: &str| database.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0));
    if number("application_id").map_err(failed)? != APPLICATION_ID {
        return Err(damaged(path, "it is another program's SQLite database"));
    }
    let version = number("user_version").map_err(failed)?;
    if version != SCHEMA_VERSION {
        return Err(Error::Stop(format!(
            "{}: its schema version is {version}, this program's is {SCHEMA_VERSION}; use the program that made it, \
             or move the data folder away and play the source again",
            path.display()
        )));
    }
    let synchronous = match options.durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    // To cut the write-ahead log shorter is dear, and it grows again at once.
    let kept_bytes = 2 * options.checkpoint_bytes;
    database
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -{WRITE_CACHE_KIB}; PRAGMA wal_autocheckpoint = 0; \
             PRAGMA journal_size_limit = {kept_bytes}; PRAGMA temp_store = MEMORY;"
        ))
        .map_err(failed)?;
    database.set_prepared_statement_cache_capacity(32);
    Ok(database)
}

fn create(path: &Path) -> rusqlite::Result<()> {
    for left in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm"), beside(path, "-journal")] {
        let _ = std::fs::remove_file(left);
    }
    let database = Connection::open(path)?;
    database.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN; {TABLES} \
         INSERT INTO log VALUES (lower(hex(randomblob(8)))); \
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    ))?;
    // All into the one file that is renamed. Closing does so too, but tells nobody when the disk is
    // full, and the rename would leave the WAL behind.
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    database.close().map_err(|(_, e)| e)
}

/// A connection that only reads: it waits for no writer.
pub(super) fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let database =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    database.execute_batch(&format!("PRAGMA cache_size = -{READ_CACHE_KIB};"))?;
    Ok(database)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn damaged(path: &Path, what: &str) -> Error {
    Error::Stop(format!(
        "{}: {what}; it cannot be used as a log. Restore it, or move the whole data folder away and play the source again",
        path.display()
    ))
}

/// What SQLite's error means for the one who has the file.
pub(super) fn explain(path: &Path, e: rusqlite::Error) -> Error {
    let file = path.display();
    let code = e.sqlite_error_code();
    match code {
        Some(ErrorCode::DiskFull) => Error::Stop(format!(
            "{file}: the disk is full ({e}); what was committed is kept: free some space and start again"
        )),
        Some(ErrorCode::SystemIoFailure) => Error::Stop(format!(
            "{file}: it could not be read or written ({e}); look after the disk and its free space, then start again"
        )),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            Error::Stop(format!("{file}: {e}; the file and its folder must be there and be writable"))
        }
        Some(ErrorCode::NotADatabase) => damaged(path, "it is not an SQLite database"),
        Some(ErrorCode::DatabaseCorrupt) => damaged(path, "it is damaged or cut short"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Retry(format!("{file}: another program has it locked ({e}); close that one"))
        }
        _ => Error::Stop(format!("{file}: {e}")),
    }
}
