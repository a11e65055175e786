//! The object store: files that are only ever created, the check of one that is there already, and
//! what is there.
use std::error::Error as _;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use broker::{Cancel, Incarnation};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use parquet::file::metadata::{FooterTail, KeyValue, ParquetMetaDataReader};
use records::clock;

use super::Metrics;
use super::cloud::{late, reason, status, upload_time};
use super::error::{Error, Result};
use super::plan::{FileName, Range};
use super::settings::Settings;
use crate::retry::Backoff;

const INCARNATION: &str = "clickstream.incarnation";
const TOPIC: &str = "clickstream.topic";
const PARTITION: &str = "clickstream.partition";
const FIRST_OFFSET: &str = "clickstream.first_offset";
const LAST_OFFSET: &str = "clickstream.last_offset";
const KEYS: [&str; 5] = [INCARNATION, TOPIC, PARTITION, FIRST_OFFSET, LAST_OFFSET];

/// A file that has been written to more recently may still be.
const STAGING_AGE_US: i64 = 60_000_000;

/// No footer of ours is larger.
const FOOTER_MAX_BYTES: u64 = 64 << 20;

/// A lake in a folder, which is made if it is missing. A file that was stored survives a killed
/// process.
pub fn open_local(dir: &FilePath) -> Result<Arc<dyn ObjectStore>> {
    open(dir, false)
}

/// As [`open_local`], and what was stored survives a power loss: every file and its folder are synced.
pub fn open_local_synced(dir: &FilePath) -> Result<Arc<dyn ObjectStore>> {
    open(dir, true)
}

fn open(dir: &FilePath, synced: bool) -> Result<Arc<dyn ObjectStore>> {
    let refused = |why: &dyn std::fmt::Display| {
        Error::Stop(format!("{} cannot hold the lake: {why}. Choose a folder that can be written to", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => refused(&"it is not a folder"),
        _ => refused(&e),
    })?;
    // Found out now rather than when the first file is full.
    let probe = dir.join(format!(".write-check-{}", std::process::id()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(|e| refused(&e))?;
    sweep(dir, clock::wall_us());
    let store = LocalFileSystem::new_with_prefix(dir).map_err(|e| refused(&e))?;
    Ok(Arc::new(store.with_fsync(synced)))
}

/// A file that a lake has stored there, if there is any.
pub async fn first_file(store: &dyn ObjectStore) -> Result<Option<String>> {
    for topic in super::TOPICS {
        let mut files = store.list(Some(&Path::from(topic)));
        while let Some(file) = files.try_next().await.map_err(|e| Error::Unavailable(format!("{topic}: {e}")))? {
            let path = file.location.to_string();
            if FileName::parse(&path).is_some() {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// Removes what a PUT leaves behind that was killed before its file had its name: nobody reads it,
/// and only its room is lost if it cannot be removed. One that another process may be writing just
/// now is left alone.
fn sweep(dir: &FilePath, now_us: i64) {
    let folders = |dir: &FilePath| std::fs::read_dir(dir).into_iter().flatten().flatten();
    for topic in super::TOPICS {
        for day in folders(&dir.join(topic)).filter(|day| day.file_name().to_string_lossy().starts_with("dt=")) {
            for file in folders(&day.path()).filter(|file| is_staging(&file.file_name().to_string_lossy())) {
                let modified = file.metadata().and_then(|metadata| metadata.modified());
                let since = modified.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let age_us = since.and_then(|since| now_us.checked_sub(i64::try_from(since.as_micros()).ok()?));
                if age_us.is_some_and(|age_us| age_us >= STAGING_AGE_US) {
                    let path = file.path();
                    match std::fs::remove_file(&path) {
                        Ok(()) => tracing::info!(path = %path.display(), "removed what a killed process left behind"),
                        Err(e) => tracing::warn!(path = %path.display(), "cannot be removed: {e}"),
                    }
                }
            }
        }
    }
}

/// `<partition>-<first>-<last>.parquet#<n>`: as object_store names a file that it is writing.
fn is_staging(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(file, n)| {
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && FileName::parse(file).is_some()
    })
}

/// What a file's footer says of the plan that it belongs to.
pub(super) fn footer(incarnation: &Incarnation, topic: &str, partition: u32, range: Range) -> Vec<KeyValue> {
    let values = [
        incarnation.to_string(),
        topic.to_owned(),
        partition.to_string(),
        range.first.to_string(),
        range.last.to_string(),
    ];
    KEYS.iter().zip(values).map(|(key, value)| KeyValue::new((*key).to_owned(), value)).collect()
}

/// How often a name may be said to be taken, and then not to be there: S3 answers a create that
/// meets another one in flight like that.
const CONFLICTS: usize = 5;

/// What a file's footer says.
enum Footer {
    Missing,
    /// It is not a whole Parquet file.
    Broken(String),
    Says(Vec<KeyValue>),
}

/// A file to be stored.
pub(super) struct NewFile {
    pub(super) path: String,
    pub(super) payload: PutPayload,
    pub(super) footer: Arc<Vec<KeyValue>>,
}

/// What mends a file that stands where another is to be stored.
const IN_THE_WAY: &str = "Delete it if no other pipeline writes into this lake: its rows will be stored again; or choose \
                          an empty folder for the lake";
/// And the loss of one whose rows are past.
const PAST: &str = "Its rows were stored and are not read again: put it back from a copy, or play the input anew into an \
                    empty lake (--restart)";

#[derive(Clone)]
pub(super) struct Store<'a> {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) settings: &'a Settings,
    pub(super) metrics: &'a Metrics,
    pub(super) cancel: &'a Cancel,
}

/// What came of a call.
enum Answer<T> {
    Is(T),
    Exists,
    Again,
}

/// What a failed call means.
enum Verdict {
    Exists,
    Stop(String),
    Retry(String),
}

impl Store<'_> {
    /// Creates the file. One that is there already is right if it belongs to the same plan: it was
    /// stored before a restart, or by an attempt whose answer was lost.
    pub(super) async fn create(&self, file: NewFile) -> Result<()> {
        let path = Path::from(file.path.as_str());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = || async { self.store.put_opts(&path, file.payload.clone(), options.clone()).await.map(|_| true) };
        let bytes = file.payload.content_length();
        for _ in 0..CONFLICTS {
            if self.retrying(&file.path, bytes, put, false).await?
                || self.is_ours(&file.path, &file.footer, IN_THE_WAY).await?
            {
                return Ok(());
            }
        }
        Err(Error::Unavailable(format!(
            "{}, {}: the store says that it is there, and that it is not",
            self.settings.lake, file.path
        )))
    }

    /// That the file is there, whole, and belongs to this plan.
    pub(super) async fn check(&self, path: &str, footer: &[KeyValue]) -> Result<()> {
        if self.is_ours(path, footer, PAST).await? {
            return Ok(());
        }
        Err(Error::Stop(format!("{}: {path}, the file stored last, is missing. {PAST}", self.settings.lake)))
    }

    /// Whether the file is there; it must be whole and belong to this plan, or the remedy is told.
    async fn is_ours(&self, path: &str, footer: &[KeyValue], remedy: &str) -> Result<bool> {
        let found = match self.retrying(path, 0, || self.read_footer(path), Footer::Missing).await? {
            Footer::Missing => return Ok(false),
            Footer::Says(found) => Ok(found),
            Footer::Broken(why) => Err(why),
        };
        let found = found.map_err(|why| {
            Error::Stop(format!(
                "{}: {path} is there, but it is not a whole Parquet file: {why}. {remedy}",
                self.settings.lake
            ))
        })?;
        let ours = |entries: &[KeyValue]| {
            KEYS.map(|key| entries.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.clone()))
        };
        let (is, should) = (ours(&found), ours(footer));
        if is == should {
            return Ok(true);
        }
        let of = |[incarnation, topic, partition, first, last]: [Option<String>; 5]| {
            let text = |value: Option<String>| value.unwrap_or_else(|| "?".into());
            let (topic, partition) = (text(topic), text(partition));
            format!("{topic}-{partition}, offsets {} to {}, of the log {}", text(first), text(last), text(incarnation))
        };
        Err(Error::Stop(format!(
            "{}: {path} is there already, but its footer says {}, where {} is to be stored. {remedy}",
            self.settings.lake,
            of(is),
            of(should)
        )))
    }

    /// Shows the paths of all files of a topic (its name without the prefix), some of them perhaps
    /// again; false once cancelled. However many there are, what is waited for and tried again is a
    /// page of them.
    pub(super) async fn list(&self, topic: &str, mut show: impl FnMut(&str)) -> Result<bool> {
        let (prefix, in_order) = (Path::from(topic), self.settings.lists_in_order);
        let after = |last: Option<&Path>| match last.filter(|_| in_order) {
            Some(last) => self.store.list_with_offset(Some(&prefix), last),
            None => self.store.list(Some(&prefix)),
        };
        let (mut objects, mut last) = (after(None), None);
        let (mut seen, mut most) = (0_u64, 0);
        let mut backoff = self.backoff(0);
        while !self.cancel.is_cancelled() {
            match self.attempt(topic, 0, &mut backoff, objects.try_next()).await? {
                Answer::Is(Some(object)) => {
                    show(object.location.as_ref());
                    last = Some(object.location);
                    seen += 1;
                    if seen > most {
                        (most, backoff) = (seen, self.backoff(0));
                    }
                }
                Answer::Is(None) => return Ok(true),
                Answer::Exists | Answer::Again => {
                    objects = after(last.as_ref());
                    seen = if in_order { seen } else { 0 };
                }
            }
        }
        Ok(false)
    }

    async fn read_footer(&self, path: &str) -> object_store::Result<Footer> {
        let path = Path::from(path);
        let size = match self.store.head(&path).await {
            Ok(head) => head.size,
            Err(object_store::Error::NotFound { .. }) => return Ok(Footer::Missing),
            Err(e) => return Err(e),
        };
        let Some(tail_at) = size.checked_sub(8) else { return Ok(Footer::Broken(format!("it has {size} bytes"))) };
        let tail: Bytes = self.store.get_range(&path, tail_at..size).await?;
        let length = <[u8; 8]>::try_from(tail.as_ref())
            .map_err(|e| e.to_string())
            .and_then(|tail| FooterTail::try_from(tail).map_err(|e| e.to_string()))
            .map(|tail| tail.metadata_length() as u64);
        let length = match length {
            Ok(length) if length <= FOOTER_MAX_BYTES.min(tail_at) => length,
            Ok(length) => return Ok(Footer::Broken(format!("its footer would have {length} bytes"))),
            Err(why) => return Ok(Footer::Broken(why)),
        };
        let metadata = self.store.get_range(&path, tail_at - length..tail_at).await?;
        Ok(match ParquetMetaDataReader::decode_metadata(&metadata) {
            Ok(metadata) => Footer::Says(metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default()),
            Err(why) => Footer::Broken(why.to_string()),
        })
    }

    /// Calls until it goes through, bounded; `exists` is the answer where the file is there already.
    async fn retrying<T, F>(&self, path: &str, bytes_sent: usize, call: impl Fn() -> F, exists: T) -> Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut backoff = self.backoff(bytes_sent);
        loop {
            match self.attempt(path, bytes_sent, &mut backoff, call()).await? {
                Answer::Is(answer) => return Ok(answer),
                Answer::Exists => return Ok(exists),
                Answer::Again => {}
            }
        }
    }

    fn backoff(&self, bytes_sent: usize) -> Backoff {
        Backoff::new(clock::now(), self.settings.retry_for + upload_time(bytes_sent), self.settings.grace)
    }

    /// One call. Where it is to be made again, that has been waited for.
    async fn attempt<T>(
        &self,
        path: &str,
        bytes_sent: usize,
        backoff: &mut Backoff,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Answer<T>> {
        let lake = &self.settings.lake;
        let answer = tokio::time::timeout(backoff.left(clock::now()), call).await;
        let why = match answer.map(|answer| answer.map_err(|e| verdict(&e))) {
            Ok(Ok(answer)) => return Ok(Answer::Is(answer)),
            Ok(Err(Verdict::Exists)) => return Ok(Answer::Exists),
            Ok(Err(Verdict::Stop(why))) => return Err(Error::Stop(format!("{lake}, {path}: {why}"))),
            Ok(Err(Verdict::Retry(why))) => why,
            Err(_) => late(bytes_sent),
        };
        let Some(pause) = backoff.pause(clock::now(), self.cancel.is_cancelled()) else {
            return Err(Error::Unavailable(format!("{lake}, {path}: {why}")));
        };
        tracing::warn!(path, why, "the object store did not do it: trying again");
        self.metrics.retries.inc();
        tokio::time::sleep(pause).await;
        Ok(Answer::Again)
    }
}

fn verdict(error: &object_store::Error) -> Verdict {
    use object_store::Error as E;
    match error {
        E::AlreadyExists { .. } => return Verdict::Exists,
        _ if matches!(status(error), Some(401 | 403)) => {
            return Verdict::Stop(format!(
                "permission denied: {error}. Give the account the right to list, create and read objects there \
                 (roles/storage.objectUser; s3:ListBucket, s3:PutObject and s3:GetObject), and start again: nothing is \
                 lost. clickstream check says which is missing"
            ));
        }
        // Names that are not there yet are asked for, and answered, elsewhere.
        _ if status(error) == Some(404) => {
            return Verdict::Stop(format!(
                "the bucket is gone ({}). Make it again and put back what it held, from a copy; or play the input anew \
                 into an empty lake (--restart)",
                reason(error)
            ));
        }
        E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => return Verdict::Stop(error.to_string()),
        _ => {}
    }
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(fault) = inner.downcast_ref::<io::Error>() {
            use io::ErrorKind as K;
            return match fault.kind() {
                K::StorageFull | K::QuotaExceeded => Verdict::Stop(format!(
                    "there is no room left ({fault}). Make room and start again: nothing is lost"
                )),
                K::PermissionDenied | K::ReadOnlyFilesystem | K::NotADirectory | K::IsADirectory => {
                    Verdict::Stop(format!("it cannot be written ({fault}). Choose a folder that can, and start again"))
                }
                _ => Verdict::Retry(format!("{error}: {fault}")),
            };
        }
        source = inner.source();
    }
    Verdict::Retry(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_folder_stop_and_name_the_remedy() {
        for (kind, stops) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::PermissionDenied, true),
            (io::ErrorKind::ReadOnlyFilesystem, true),
            (io::ErrorKind::TimedOut, false),
            (io::ErrorKind::ConnectionReset, false),
        ] {
            let error = object_store::Error::Generic { store: "x", source: Box::new(io::Error::from(kind)) };
            assert_eq!(matches!(verdict(&error), Verdict::Stop(_)), stops, "{kind:?}");
        }
    }

    #[test]
    fn a_folder_is_made_and_a_file_refused() {
        let dir = tempfile::tempdir().unwrap();
        open_local(&dir.path().join("a/b")).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 0, "the check leaves nothing");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for wrong in [file.clone(), file.join("below")] {
            let says = open_local(&wrong).unwrap_err().to_string();
            assert!(says.contains("not a folder") && says.contains("file"), "{says}");
        }
    }

    #[test]
    fn what_a_killed_put_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("events/dt=2019-10-01/0-0-9.parquet#1", false),
            ("sessions/dt=2019-10-01/3-10-12.parquet#23", false),
            ("events/dt=2019-10-01/0-0-9.parquet", true),
            ("events/dt=2019-10-01/0-0-9.parquet#", true),
            ("events/dt=2019-10-01/0-0-9.parquet#1a", true),
            ("events/dt=2019-10-01/other.parquet#1", true),
            ("events/0-0-9.parquet#1", true),
            ("elsewhere/dt=2019-10-01/0-0-9.parquet#1", true),
        ];
        for (file, _) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        open_local_synced(dir.path()).unwrap();
        assert!(files.iter().all(|(file, _)| dir.path().join(file).exists()), "they may still be written");
        sweep(dir.path(), clock::wall_us() + 2 * STAGING_AGE_US);
        for (file, stays) in files {
            assert_eq!(dir.path().join(file).exists(), stays, "{file}");
        }
    }
}
