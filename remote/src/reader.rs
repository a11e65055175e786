//! An object as a file: read and sought, with the connections in the background.
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::body::PIECES_AHEAD;
use crate::objects::Object;

/// What lies so near ahead is read over; for more, another request is made.
const READ_OVER_BYTES: u64 = 1 << 20;

/// A seek costs a request only where what is wanted is neither at hand nor near ahead.
pub struct Reader {
    object: Object,
    at: u64,
    /// The last piece that came, and where it begins.
    piece: Bytes,
    piece_from: u64,
    body: Option<Body>,
    wakes_every: Option<Duration>,
}

struct Body {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    task: JoinHandle<()>,
    /// Where its next piece begins.
    next: u64,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    pub(crate) fn new(object: Object) -> Self {
        Self { object, at: 0, piece: Bytes::new(), piece_from: 0, body: None, wakes_every: None }
    }

    /// A read that has waited for so long returns `ErrorKind::Interrupted`, so that its caller can look
    /// around; the next one waits on.
    #[must_use]
    pub fn waking(mut self, every: Duration) -> Self {
        self.wakes_every = Some(every);
        self
    }

    /// The next piece that holds the byte at `self.at`.
    fn fetch(&mut self) -> io::Result<()> {
        let near = |body: &Body| body.next <= self.at && self.at - body.next <= READ_OVER_BYTES;
        if !self.body.as_ref().is_some_and(near) {
            let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
            let task = self.object.runtime.spawn(self.object.clone().send_from(self.at, sender));
            self.body = Some(Body { pieces, task, next: self.at });
        }
        let Some(body) = &mut self.body else { return Ok(()) };
        loop {
            let piece = match self.wakes_every {
                None => body.pieces.blocking_recv(),
                Some(every) => {
                    let received = self.object.runtime.block_on(async { timeout(every, body.pieces.recv()).await });
                    received.map_err(|_| io::ErrorKind::Interrupted)?
                }
            };
            let Some(piece) = piece else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let piece = match piece {
                Ok(piece) => piece,
                Err(e) => {
                    self.body = None;
                    return Err(e);
                }
            };
            self.piece_from = body.next;
            body.next += piece.len() as u64;
            self.piece = piece;
            if self.at < body.next {
                return Ok(());
            }
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.object.size || buffer.is_empty() {
            return Ok(0);
        }
        let within = self.piece_from..self.piece_from + self.piece.len() as u64;
        if !within.contains(&self.at) {
            self.fetch()?;
        }
        let from = usize::try_from(self.at - self.piece_from).map_err(io::Error::other)?;
        let n = (self.piece.len() - from).min(buffer.len());
        buffer[..n].copy_from_slice(&self.piece[from..from + n]);
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.object.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at =
            at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a place before the file's beginning"))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::objects::tests::{content, objects, runtime};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Reads and seeks give what a file in memory gives.
        #[test]
        fn it_reads_as_a_file_does(
            body_bytes in 200_usize..5_000,
            steps in prop::collection::vec((0_u64..4_200, 0_usize..900), 1..12),
        ) {
            let runtime = runtime();
            let listed = objects(&runtime, &[("x", 4_000)], body_bytes, "x").list().unwrap();
            let (mut file, content) = (listed[0].1.open(), content(4_000));
            for (at, len) in steps {
                file.seek(SeekFrom::Start(at)).unwrap();
                let mut got = Vec::new();
                Read::take(&mut file, len as u64).read_to_end(&mut got).unwrap();
                let from = usize::try_from(at).unwrap().min(content.len());
                prop_assert_eq!(&got[..], &content[from..(from + len).min(content.len())]);
            }
        }
    }
}
