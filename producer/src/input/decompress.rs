//! A file's bytes, decompressed as its first bytes ask for (its name says nothing).
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::PathBuf;

use zip::ZipArchive;

use super::gzip::Gzip;
use super::index::{Index, Taken};
use super::list::Part;
use super::synthetic::Synthetic;
use crate::settings::Stream;
use crate::status::Status;

const BUFFER_BYTES: usize = 256 << 10;
/// How much is read over between two looks at whether to stop.
const SKIP_BYTES: u64 = 1 << 20;

/// Where bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Path(PathBuf),
    Memory(&'static [u8]),
    Remote(remote::Object),
    Stream(Stream),
    /// Has no bytes of its own: `Synthetic::read` gives its text.
    Synthetic(Synthetic),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
    Zip,
    /// Known, and not read.
    Other(&'static str),
}

pub(crate) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

impl Form {
    /// By the first bytes of a file; 8 are enough.
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Self::Other("xz"),
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Self::Other("7z"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Other("lz4"),
            [b'P', b'A', b'R', b'1', ..] => Self::Other("Parquet"),
            _ => Self::Plain,
        }
    }
}

impl Data {
    /// The bytes as they lie there; None where there are none.
    pub(crate) fn open(&self) -> io::Result<Option<Box<dyn ReadSeek>>> {
        Ok(match self {
            Self::Path(path) => Some(Box::new(File::open(path)?)),
            Self::Remote(object) => Some(Box::new(object.open())),
            Self::Memory(bytes) => Some(Box::new(Cursor::new(*bytes))),
            Self::Stream(_) | Self::Synthetic(_) => None,
        })
    }
}

/// Opens an archive; its errors as I/O errors.
pub(crate) fn archive(raw: Box<dyn ReadSeek>) -> io::Result<ZipArchive<Box<dyn ReadSeek>>> {
    ZipArchive::new(raw).map_err(io::Error::other)
}

/// Gives `body` the decompressed bytes from byte `from` on. `keep_on` is asked while it reads over
/// what lies before; when it says no, `body` is not called and the result is None. With an index a
/// gzip file is entered as near to that byte as it knows, and is noted in it.
pub(super) fn read<T>(
    part: &Part,
    from: u64,
    index: Option<Index>,
    status: &Status,
    keep_on: &dyn Fn() -> bool,
    body: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let raw = match (&part.data, part.data.open()?) {
        (Data::Stream(stream), _) => return read_stream(stream.open()?, from, status, keep_on, body),
        (_, None) => return Err(io::Error::other("it cannot be opened")),
        (_, Some(raw)) => raw,
    };
    if let Some(member) = &part.member {
        let mut archive = archive(raw)?;
        let file = archive.by_name(member).map_err(io::Error::other)?;
        // A member is counted by what comes out of it.
        return skip(&mut Counted { inner: file, status }, from, status, keep_on, body);
    }
    let mut raw = Whole { inner: raw, at: 0, size: part.size.unwrap_or_default() };
    let head = head_of(&mut raw)?;
    let form = Form::of(&head);
    if form == Form::Plain {
        raw.seek(SeekFrom::Start(from))?;
        status.jump(from);
        return body(&mut Counted { inner: raw, status }).map(Some);
    }
    raw.rewind()?;
    let Some(index) = index.filter(|_| form == Form::Gzip) else {
        return decompress(form, raw, from, status, keep_on, body);
    };
    let Some(entry) = index.before(from, &mut raw)? else {
        return skip(&mut Gzip::new(buffered(raw, status), Some(index.notes())), from, status, keep_on, body);
    };
    status.jump(entry.raw);
    let mut entered = Gzip::enter(buffered(raw, status), Some(index.notes()), &entry);
    skip(&mut entered, from - entry.text, status, keep_on, body)
}

/// The same of what is read once.
pub(super) fn read_stream<T>(
    mut inner: impl Read,
    from: u64,
    status: &Status,
    keep_on: &dyn Fn() -> bool,
    body: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let head = head_of(&mut inner)?;
    let form = Form::of(&head);
    decompress(form, Cursor::new(head).chain(inner), from, status, keep_on, body)
}

/// Counts what a decoder takes, and not what is read ahead of it.
fn buffered<R: Read>(raw: R, status: &Status) -> Counted<'_, BufReader<R>> {
    Counted { inner: BufReader::with_capacity(BUFFER_BYTES, raw), status }
}

/// Up to 8 bytes; what follows is left unread.
pub(crate) fn head_of(reader: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(8);
    reader.take(8).read_to_end(&mut head)?;
    Ok(head)
}

fn decompress<T>(
    form: Form,
    raw: impl Read,
    from: u64,
    status: &Status,
    keep_on: &dyn Fn() -> bool,
    body: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<Option<T>> {
    match form {
        Form::Plain => skip(&mut Counted { inner: raw, status }, from, status, keep_on, body),
        Form::Gzip => skip(&mut Gzip::new(buffered(raw, status), None::<Taken>), from, status, keep_on, body),
        Form::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(buffered(raw, status))?;
            skip(&mut Zstd(decoder), from, status, keep_on, body)
        }
        Form::Zip => Err(io::Error::other("a zip archive cannot be read from a stream; unpack it or give its file")),
        Form::Other(kind) => Err(io::Error::other(format!("it is {kind}; plain CSV, .gz, .zst and .zip are read"))),
    }
}

/// Reads over `from` bytes and gives `body` the rest.
fn skip<T>(
    reader: &mut dyn Read,
    from: u64,
    status: &Status,
    keep_on: &dyn Fn() -> bool,
    body: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> io::Result<Option<T>> {
    let mut left = from;
    while left > 0 {
        if !keep_on() {
            return Ok(None);
        }
        let skipped = io::copy(&mut Read::take(&mut *reader, left.min(SKIP_BYTES)), &mut io::sink())?;
        if skipped == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        status.add_skipped(skipped);
        left -= skipped;
    }
    body(reader).map(Some)
}

/// A file that is as long as it was when it was listed, or an error: what was cut off it would be taken
/// for its end, and what is written behind it belongs to no source.
struct Whole<R> {
    inner: R,
    at: u64,
    size: u64,
}

impl<R: Read + Seek> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let n = self.inner.read(&mut buffer[..wanted])?;
        self.at += n as u64;
        if n == 0 && !buffer.is_empty() {
            let (was, is) = (self.size, self.inner.seek(SeekFrom::End(0))?);
            if left > 0 || is != was {
                let how = if left > 0 { "was cut" } else { "grew" };
                return Err(io::Error::other(format!(
                    "it {how} while it was read: it had {was} bytes and has {is} now. Its rows so far are played, and \
                     not its end; play it when nobody writes to it"
                )));
            }
        }
        Ok(n)
    }
}

impl<R: Seek> Seek for Whole<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.inner.seek(to)?;
        Ok(self.at)
    }
}

/// Says of its own errors what they mean.
struct Zstd<R>(R);

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| match e.to_string().as_str() {
            "Unknown frame descriptor" => {
                let why = "its zstd data ends before the file does, and what follows is something else; cut that off";
                io::Error::new(io::ErrorKind::InvalidData, why)
            }
            _ => e,
        })
    }
}

/// Adds what passes to the status.
struct Counted<'s, R> {
    inner: R,
    status: &'s Status,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.status.add_read(n as u64);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.status.add_read(bytes as u64);
        self.inner.consume(bytes);
    }
}
