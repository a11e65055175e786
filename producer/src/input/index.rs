//! Where a gzip file can be entered in the middle: noted while it is read, kept in a file, used by a
//! resume. It is a help and no more: what is missing, damaged or of another file is not used, and what
//! cannot be written is done without.
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::gzip::{Block, Entry, Notes, WINDOW_BYTES};

/// Text between two entries: what a resume may have to read over, in a fifth of a second.
const ENTRY_EVERY_BYTES: u64 = 64 << 20;
/// Of the file after an entry: tells whether it still is the file that was read.
const FOLLOWING_BYTES: usize = 512;
/// The numbers of an entry: see [`encode`].
const FIXED_BYTES: usize = 8 * 4 + 4 + 3;
const MAX_ENTRY_BYTES: usize = FIXED_BYTES + WINDOW_BYTES;

/// Where such files are kept.
#[derive(Clone, Debug)]
pub struct GzipIndex {
    pub folder: PathBuf,
    /// Text between two entries.
    pub every_bytes: u64,
}

impl GzipIndex {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, every_bytes: ENTRY_EVERY_BYTES }
    }

    /// That of a file of so many bytes, which begins with this.
    pub(super) fn of(&self, size: u64, head_hash: u64) -> Index {
        let path = self.folder.join(format!("{head_hash:016x}-{size}.gzip-index"));
        Index { every_bytes: self.every_bytes, path }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Index {
    path: PathBuf,
    every_bytes: u64,
}

/// An entry, and a hash of what follows it in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Noted {
    entry: Entry,
    following: u64,
}

impl Index {
    /// The last place at or before a byte of the text, if the file is what it was there. `raw`, which
    /// stands at its beginning, is left there, or in that place.
    pub(super) fn before(&self, text: u64, raw: &mut (impl Read + Seek)) -> io::Result<Option<Entry>> {
        let usable = |noted: &Noted| noted.entry.text <= text;
        let Some(noted) = self.load().into_iter().filter(usable).max_by_key(|noted| noted.entry.text) else {
            return Ok(None);
        };
        let mut following = Vec::with_capacity(FOLLOWING_BYTES);
        raw.seek(SeekFrom::Start(noted.entry.raw))?;
        raw.by_ref().take(FOLLOWING_BYTES as u64).read_to_end(&mut following)?;
        if xxh3_64(&following) == noted.following {
            raw.seek(SeekFrom::Start(noted.entry.raw))?;
            return Ok(Some(noted.entry));
        }
        tracing::warn!("{}: it is not of the file as it is now, and is made anew", self.path.display());
        let _ = std::fs::remove_file(&self.path);
        raw.rewind()?;
        Ok(None)
    }

    /// All that is whole. What follows a damaged entry could not be found again: it is cut off.
    fn load(&self) -> Vec<Noted> {
        let read = || -> io::Result<Vec<Noted>> {
            let bytes = std::fs::read(&self.path)?;
            let (all, whole) = decode_all(&bytes);
            if whole < bytes.len() {
                OpenOptions::new().write(true).open(&self.path)?.set_len(whole as u64)?;
            }
            Ok(all)
        };
        read().unwrap_or_else(|e| {
            if e.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{}: {e}; it is done without", self.path.display());
            }
            Vec::new()
        })
    }

    /// Notes what is not noted yet.
    pub(super) fn notes(self) -> Taken {
        let last = self.load().iter().map(|noted| noted.entry.text).max();
        Taken { wanted: last.unwrap_or(0).saturating_add(self.every_bytes), index: self, broken: false }
    }
}

/// Writes an index while its file is read.
#[derive(Debug)]
pub(super) struct Taken {
    index: Index,
    /// The next entry is wanted from this byte of the text on.
    wanted: u64,
    /// It could not be written to, which was said.
    broken: bool,
}

impl Notes for Taken {
    fn wants(&self, text: u64) -> bool {
        text >= self.wanted && !self.broken
    }

    fn note(&mut self, entry: Entry, following: &[u8]) {
        // Too little at hand: the next block will do as well.
        let Some(following) = following.get(..FOLLOWING_BYTES) else { return };
        self.wanted = entry.text.saturating_add(self.index.every_bytes);
        if let Err(e) = append(&self.index.path, &encode(&Noted { entry, following: xxh3_64(following) })) {
            self.broken = true;
            tracing::warn!("{}: {e}; a resume will read the file over", self.index.path.display());
        }
    }
}

/// One write: what another process adds at the same time is whole as well.
fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let open = || -> io::Result<File> { OpenOptions::new().create(true).append(true).open(path) };
    let mut file = match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            open()?
        }
        opened => opened?,
    };
    file.write_all(bytes)
}

/// Its length, a hash of it, and the entry: numbers in little-endian order, then the window. That no
/// block stands there is said by a count of bits that there cannot be.
fn encode(noted: &Noted) -> Vec<u8> {
    let Noted { entry: Entry { text, raw, block }, following } = noted;
    let empty = Block { bits: 0, bit_count: u8::MAX, crc: 0, length: 0, window: Vec::new() };
    let block = block.as_ref().unwrap_or(&empty);
    let mut body = Vec::with_capacity(MAX_ENTRY_BYTES);
    for number in [*text, *raw, *following, block.length] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&block.crc.to_le_bytes());
    // Of which version this is.
    body.extend_from_slice(&[1, block.bits, block.bit_count]);
    body.extend_from_slice(&block.window);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes()[..], &xxh3_64(&body).to_le_bytes(), &body].concat()
}

/// All up to the first that is cut off, damaged or of another version; and how many bytes those are.
fn decode_all(bytes: &[u8]) -> (Vec<Noted>, usize) {
    let (mut all, mut rest, mut whole) = (Vec::new(), bytes, 0);
    while let Some(noted) = decode(&mut rest) {
        all.push(noted);
        whole = bytes.len() - rest.len();
    }
    (all, whole)
}

fn decode(bytes: &mut &[u8]) -> Option<Noted> {
    let length = usize::try_from(u32::from_le_bytes(take(bytes)?)).ok()?;
    let hash = u64::from_le_bytes(take(bytes)?);
    let (mut body, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    if xxh3_64(body) != hash {
        return None;
    }
    let [text, raw, following, length] = [(); 4].map(|()| take(&mut body).map(u64::from_le_bytes));
    let crc = u32::from_le_bytes(take(&mut body)?);
    let [version, bits, bit_count] = take(&mut body)?;
    let (entry_text, length) = (text?, length?);
    let block = match bit_count {
        u8::MAX => None,
        0..8 => Some(Block { bits, bit_count, crc, length, window: body.to_vec() }),
        _ => return None,
    };
    let whole = body.len() as u64 == length.min(WINDOW_BYTES as u64) && length <= entry_text && version == 1;
    whole.then_some(Noted { entry: Entry { text: entry_text, raw: raw?, block }, following: following? })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
