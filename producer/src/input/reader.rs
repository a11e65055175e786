//! Reads and decompresses on a thread of its own, ahead of the replay by a bounded number of chunks.
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use xxhash_rust::xxh3::xxh3_64;

use super::decompress::{self, Data};
use super::index::GzipIndex;
use super::lines::{MARK_BYTES, Mark};
use super::list::{Part, describe, look_again};
use crate::status::{Phase, Status};

pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// How many chunks may lie between the reader and the replay.
const CHUNKS_AHEAD: usize = 4;

/// Where to begin: a file, and a byte of its decompressed text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) file: usize,
    /// None: after its header.
    pub(crate) byte: Option<u64>,
    /// The row that stands there.
    pub(crate) row: u64,
    /// What the text before it must be.
    pub(crate) mark: Option<Mark>,
}

pub(super) enum Message {
    /// `bytes[..len]` is text of the file at hand.
    Text {
        bytes: Vec<u8>,
        len: usize,
    },
    /// The file at hand is over; what follows is of the next one.
    EndOfFile,
    /// The file at hand cannot be read on. Nothing follows.
    Fault(String),
    End,
}

pub(super) struct Reader {
    messages: Option<Receiver<Message>>,
    /// Chunks to be filled again.
    empty: Sender<Vec<u8>>,
    stop: Arc<AtomicBool>,
    /// None where it may be waiting for what never comes, a stream or a connection: that is left to
    /// itself.
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(super) fn spawn(parts: Vec<Part>, start: Start, index: Option<GzipIndex>, status: Status) -> io::Result<Self> {
        let (sender, messages) = bounded(CHUNKS_AHEAD);
        let (empty, recycled) = bounded(CHUNKS_AHEAD + 2);
        let stop = Arc::new(AtomicBool::new(false));
        let joins = !parts.iter().any(|part| matches!(part.data, Data::Stream(_) | Data::Remote(_)));
        let work = Work { sender, recycled, stop: Arc::clone(&stop), index, status };
        let thread = std::thread::Builder::new().name("reader".into()).spawn(move || work.run(&parts, start))?;
        Ok(Self { messages: Some(messages), empty, stop, thread: joins.then_some(thread) })
    }

    /// None when nothing came within the time-out.
    pub(super) fn next(&self, timeout: Duration) -> Option<Message> {
        let gone = || Message::Fault("its reader has stopped without saying why".into());
        match self.messages.as_ref()?.recv_timeout(timeout) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(gone()),
        }
    }

    pub(super) fn recycle(&self, chunk: Vec<u8>) {
        let _ = self.empty.try_send(chunk);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.messages = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    sender: Sender<Message>,
    recycled: Receiver<Vec<u8>>,
    stop: Arc<AtomicBool>,
    index: Option<GzipIndex>,
    status: Status,
}

/// The replay wants no more.
struct Unwanted;

impl Work {
    fn run(self, parts: &[Part], start: Start) {
        for (i, part) in parts.iter().enumerate() {
            if i < start.file {
                self.status.jump(part.size.unwrap_or(0));
                continue;
            }
            let body = part.header.as_ref().map_or(0, |opening| opening.body);
            let row_at = start.byte.filter(|_| i == start.file).unwrap_or(body);
            let (from, mark) = match start.mark.filter(|mark| i == start.file && mark.byte <= row_at) {
                Some(mark) => (mark.byte.saturating_sub(MARK_BYTES as u64), Some(mark)),
                None => (row_at, None),
            };
            if from > body {
                self.status.set_phase(Phase::Skipping);
            }
            let keep_on = || !self.stop.load(Relaxed);
            let eager = matches!(part.data, Data::Stream(_));
            let text = |text: &mut dyn Read| {
                if let (Some(mark), Data::Path(_) | Data::Memory(_) | Data::Remote(_)) = (mark, &part.data) {
                    self.pass_over(text, mark, row_at)?;
                }
                self.status.set_phase(Phase::Replaying);
                self.send_all(text, eager)
            };
            let read = match &part.data {
                Data::Synthetic(made) => {
                    let row = if i == start.file { start.row } else { 0 };
                    made.read(row, &self.status, text).map(Some)
                }
                _ => look_again(part).and_then(|()| {
                    let index = self.index.as_ref().zip(part.size).map(|(index, size)| index.of(size, part.head_hash));
                    decompress::read(part, from, index, &self.status, &keep_on, text)
                }),
            };
            let message = match read {
                Ok(Some(Ok(()))) => Message::EndOfFile,
                Ok(None | Some(Err(Unwanted))) => return,
                Err(e) => Message::Fault(describe(&e)),
            };
            let fault = matches!(message, Message::Fault(_));
            if self.sender.send(message).is_err() || fault {
                return;
            }
        }
        let _ = self.sender.send(Message::End);
    }

    /// Reads over what a mark is of, and what lies between it and a row.
    fn pass_over(&self, text: &mut dyn Read, mark: Mark, row_at: u64) -> io::Result<()> {
        let mut before = [0; MARK_BYTES];
        text.read_exact(&mut before)?;
        if xxh3_64(&before) != mark.hash {
            return Err(io::Error::other(format!(
                "it was changed: the text before byte {} is not what it was when the replay came there. Go on with \
                 the file as it was, or play this one anew (--restart) or under another name",
                mark.byte
            )));
        }
        io::copy(&mut text.take(row_at - mark.byte), &mut io::sink())?;
        self.status.add_skipped(row_at.saturating_sub(mark.byte) + before.len() as u64);
        Ok(())
    }

    /// Sends the text in chunks; what was read before an error is sent before it is returned.
    fn send_all(&self, text: &mut dyn Read, eager: bool) -> io::Result<Result<(), Unwanted>> {
        loop {
            let mut bytes = self.recycled.try_recv().unwrap_or_else(|_| vec![0; CHUNK_BYTES]);
            let mut len = 0;
            let mut result = Ok(true);
            while len < bytes.len() {
                match text.read(&mut bytes[len..]) {
                    Ok(0) => {
                        result = Ok(false);
                        break;
                    }
                    Ok(n) => {
                        len += n;
                        self.status.add_text(n as u64);
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        result = Err(e);
                        break;
                    }
                }
                if eager {
                    break;
                }
            }
            if len > 0 && self.sender.send(Message::Text { bytes, len }).is_err() {
                return Ok(Err(Unwanted));
            }
            if !result? {
                return Ok(Ok(()));
            }
        }
    }
}
