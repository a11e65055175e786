//! An object's bytes from a place on, over a bounded channel. Where a connection breaks, the rest is
//! asked for again; all of it is of one version of the object.
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::error::{CHANGED, Failed};
use crate::objects::{Object, Version};

/// Pieces of a body that lie between the connection and the reader; each is some 10 KiB to 1 MiB.
pub(crate) const PIECES_AHEAD: usize = 16;
/// A connection that brings nothing for this long is taken for broken.
const STALLED: Duration = Duration::from_secs(30);
/// So many times without a byte between them, and it is given up.
const ATTEMPTS: u32 = 8;
/// A request with its retries, until the answer begins.
const ANSWERED: Duration = Duration::from_secs(90);
const FIRST_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
const LONGEST_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 4 } else { 10_000 });

/// How often it failed without a byte between.
#[derive(Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// How long to wait before `what` is tried again, or the error that ends it.
    pub(crate) fn pause(&mut self, failed: Failed, what: &str) -> io::Result<Duration> {
        self.0 += 1;
        if failed.is_final {
            return Err(io::Error::other(failed.why));
        }
        if self.0 >= ATTEMPTS {
            return Err(io::Error::other(format!("{} (after {} attempts)", failed.why, self.0)));
        }
        let pause = (FIRST_PAUSE * 2_u32.pow(self.0 - 1)).min(LONGEST_PAUSE).max(failed.wait);
        tracing::warn!("{}; {what} in {pause:?}", failed.why);
        Ok(pause)
    }
}

/// Size and version. A GET whose body is not read: not every web server answers a HEAD.
pub(crate) async fn look(store: &dyn ObjectStore, path: &Path) -> io::Result<ObjectMeta> {
    let mut attempts = Attempts::default();
    loop {
        let failed = match timeout(ANSWERED, store.get(path)).await {
            Ok(Ok(result)) => return Ok(result.meta),
            Ok(Err(e)) => Failed::of(&e),
            Err(_) => Failed::passing("no answer"),
        };
        // An address may be mistyped: whoever typed it is told soon.
        let failed = Failed { is_final: failed.is_final || failed.is_unheard, ..failed };
        tokio::time::sleep(attempts.pause(failed, &format!("{path} is looked at again"))?).await;
    }
}

impl Object {
    /// Sends the bytes from `at` on, until the end, an error, or nobody wants them.
    pub(crate) async fn send_from(self, mut at: u64, pieces: mpsc::Sender<io::Result<Bytes>>) {
        let mut attempts = Attempts::default();
        while at < self.size {
            let before = at;
            let failed = match self.request(at).await {
                Ok(result) => match self.send_body(result, &mut at, &pieces).await {
                    Ok(()) => return,
                    Err(e) => e,
                },
                Err(e) => e,
            };
            if at > before {
                attempts = Attempts::default();
            }
            match attempts.pause(failed, &format!("{} is taken up again at byte {at}", self.path)) {
                Ok(pause) => tokio::time::sleep(pause).await,
                Err(why) => {
                    let _ = pieces.send(Err(why)).await;
                    return;
                }
            }
        }
    }

    async fn request(&self, at: u64) -> Result<GetResult, Failed> {
        let whole = GetOptions { if_match: self.version.if_match(), ..GetOptions::default() };
        let options =
            if at == 0 { whole.clone() } else { GetOptions { range: Some(GetRange::Offset(at)), ..whole.clone() } };
        let result = match timeout(ANSWERED, self.store.get_opts(&self.path, options)).await {
            // The server gives whole files only: what was read is read over.
            Ok(Err(object_store::Error::NotSupported { .. })) if at > 0 => {
                timeout(ANSWERED, self.store.get_opts(&self.path, whole)).await
            }
            answer => answer,
        };
        let result = result.map_err(|_| Failed::passing("no answer"))?.map_err(|e| Failed::of(&e))?;
        if result.meta.size != self.size || Version::of(&result.meta) != self.version {
            let (was, is) = (self.size, result.meta.size);
            return Err(Failed::last(format!("{CHANGED} ({was} bytes then, {is} now)")));
        }
        Ok(result)
    }

    async fn send_body(
        &self,
        result: GetResult,
        at: &mut u64,
        pieces: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), Failed> {
        let mut position = result.range.start;
        let mut body = result.into_stream();
        while *at < self.size {
            let piece = match timeout(STALLED, body.next()).await {
                Ok(Some(piece)) => piece.map_err(|e| Failed::of(&e))?,
                Ok(None) => return Err(Failed::passing("the connection was closed before the end")),
                Err(_) => return Err(Failed::passing("the connection brings nothing")),
            };
            let known = usize::try_from(*at - position).unwrap_or(usize::MAX).min(piece.len());
            position += piece.len() as u64;
            let piece = piece.slice(known..);
            if piece.is_empty() {
                continue;
            }
            *at += piece.len() as u64;
            if pieces.send(Ok(piece)).await.is_err() {
                // Nobody wants more.
                return Ok(());
            }
        }
        Ok(())
    }
}
