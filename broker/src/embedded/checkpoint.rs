//! Moves what was committed from the write-ahead log into the database, on a thread and a connection
//! of its own: a commit never waits for the disk.
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::Connection;

use super::Options;
use super::schema::{self, explain};
use crate::{Error, Result};

/// So many rounds' worth in the write-ahead log mean that writers never pause long enough for it to
/// begin anew: the rest is moved with their lock held.
const BEHIND_ROUNDS: u64 = 3;

/// Pages that every commit rewrites beside those of its blobs, about.
const COMMIT_BYTES: u64 = 64 << 10;

pub(super) struct Checkpointer {
    round_bytes: u64,
    committed_bytes: AtomicU64,
    /// None once it is being dropped.
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(super) fn start(path: &Path, options: &Options, writing: &Arc<Mutex<Connection>>) -> Result<Self> {
        let (wake, woken) = bounded(1);
        let round_bytes = options.checkpoint_bytes;
        let own = schema::open(path, options)?;
        let (path, writing) = (path.to_owned(), Arc::clone(writing));
        let work = move || run(&path, &own, &writing, round_bytes, &woken);
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Error::Stop(format!("a thread for checkpoints cannot be started: {e}")))?;
        let committed_bytes = AtomicU64::new(0);
        Ok(Self { round_bytes, committed_bytes, wake: Some(wake), thread: Some(thread) })
    }

    /// To be told of every commit, and of about how much it wrote.
    pub(super) fn committed(&self, bytes: u64) {
        let bytes = bytes + COMMIT_BYTES;
        if self.committed_bytes.fetch_add(bytes, Relaxed) + bytes >= self.round_bytes {
            self.begin_round();
        }
    }

    /// Has what was committed so far moved now. Who closes the database waits for what is not moved by then.
    pub(super) fn begin_round(&self) {
        self.committed_bytes.store(0, Relaxed);
        if let Some(wake) = &self.wake {
            // It is woken already where the channel is full.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the process.
            let _ = thread.join();
        }
    }
}

fn run(path: &Path, own: &Connection, writing: &Mutex<Connection>, round_bytes: u64, woken: &Receiver<()>) {
    let mut failed = false;
    while woken.recv().is_ok() {
        let done = checkpoint(own).and_then(|log_bytes| {
            if log_bytes < BEHIND_ROUNDS * round_bytes {
                return Ok(());
            }
            let _held = writing.lock().unwrap_or_else(PoisonError::into_inner);
            checkpoint(own).map(drop)
        });
        // The log grows until it succeeds; said once a row of failures.
        let failed_before = std::mem::replace(&mut failed, done.is_err());
        if let Err(e) = done
            && !failed_before
        {
            tracing::warn!("{}; until then the file beside it, -wal, grows", explain(path, e));
        }
    }
}

/// Moves what it can without keeping anyone waiting; the bytes that the write-ahead log then has.
fn checkpoint(own: &Connection) -> rusqlite::Result<u64> {
    let page_bytes: i64 = own.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    own.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let pages = row.get::<_, i64>(1)?;
        Ok(u64::try_from(pages * page_bytes).unwrap_or(0))
    })
}
