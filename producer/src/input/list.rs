//! The files of a source, in order, each looked at before the first row is sent: that it can be
//! read, that its header is right, and what tells it from another file of the same name.
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;

use memchr::memchr;
use xxhash_rust::xxh3::xxh3_64;
use zip::ZipArchive;

use super::decompress::{self, Data, Form, ReadSeek, archive, head_of};
use super::lines::MAX_ROW_BYTES;
use crate::error::{Error, Result};
use crate::row::{CR_ENDS, Header};
use crate::settings::{Input, Stream};
use crate::status::Status;

const HEAD_BYTES: u64 = 64 << 10;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One file of rows: a file, a member of an archive, or a stream.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Without its folder; a member as `archive.zip!member.csv`.
    pub(crate) name: String,
    /// As errors name it.
    pub(crate) path: String,
    pub(crate) data: Data,
    pub(crate) member: Option<String>,
    /// Bytes of the file (of a member: unpacked). None for a stream.
    pub(crate) size: Option<u64>,
    /// Of the first 64 KiB of the same bytes; 0 for a stream.
    pub(crate) head_hash: u64,
    /// None for a stream: it comes with the first bytes.
    pub(crate) header: Option<Opening>,
}

/// A file's header and the byte after it, in the decompressed text.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) header: Header,
    pub(crate) body: u64,
}

/// Lists what the inputs name and looks at each file.
pub(crate) fn list(inputs: &[Input]) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for input in inputs {
        match input {
            Input::Path(path) => list_path(path, &mut parts)?,
            Input::Memory { name, bytes } => list_data(name, Data::Memory(bytes), None, &mut parts)?,
            Input::Remote(objects) => {
                let listed = objects.list().map_err(|e| Error::file(objects.url(), describe(&e)))?;
                for (url, object, member) in listed {
                    list_data(&url, Data::Remote(object), member.as_deref(), &mut parts)?;
                }
            }
            Input::Synthetic(made) => parts.push(made.part()?),
            Input::Stream(stream) => parts.push(Part {
                name: stream.name.clone(),
                path: if stream.name == "-" { "standard input".to_owned() } else { stream.name.clone() },
                data: Data::Stream(stream.clone()),
                member: None,
                size: None,
                head_hash: 0,
                header: None,
            }),
        }
    }
    Ok(parts)
}

/// Lists them, and looks at what comes as a stream too; what is read of it for that is put back.
pub(crate) fn look(inputs: &[Input]) -> Result<()> {
    for part in list(inputs)? {
        if let Data::Stream(stream) = &part.data {
            let opening = look_at(stream).map_err(|e| Error::file(&part.path, describe(&e)))?;
            opening.transpose().map_err(|why| Error::file(&part.path, why))?;
        }
    }
    Ok(())
}

fn look_at(stream: &Stream) -> io::Result<Option<Result<Opening, String>>> {
    let mut taken = Taken { from: stream.open()?, bytes: Vec::new() };
    let opening = decompress::read_stream(&mut taken, 0, &Status::new(), &|| true, |text| read_header(text));
    stream.put_back(Box::new(Cursor::new(taken.bytes).chain(taken.from)));
    opening
}

/// Keeps what was read.
struct Taken<R> {
    from: R,
    bytes: Vec<u8>,
}

impl<R: Read> Read for Taken<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..n]);
        Ok(n)
    }
}

fn list_path(given: &str, parts: &mut Vec<Part>) -> Result<()> {
    let file = |path: &str, member: Option<&str>, parts: &mut Vec<Part>| {
        list_data(path, Data::Path(path.into()), member, parts)
    };
    if Path::new(given).exists() {
        return file(given, None, parts);
    }
    if let Some((zip, member)) = given.split_once('!')
        && Path::new(zip).is_file()
    {
        return file(zip, Some(member), parts);
    }
    if given.contains(['*', '?', '[']) {
        let paths = glob::glob(given).map_err(|e| Error::file(given, format!("it is not a glob: {e}")))?;
        let mut matched = false;
        for path in paths {
            let path = path.map_err(|e| Error::file(given, e.to_string()))?;
            if path.is_file() {
                matched = true;
                file(&path.to_string_lossy(), None, parts)?;
            }
        }
        return if matched { Ok(()) } else { Err(Error::file(given, "no file matches it")) };
    }
    // Says which: missing, or not allowed.
    match std::fs::metadata(given) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::file(given, "no such file")),
        Err(e) => Err(Error::file(given, e.to_string())),
        Ok(_) => file(given, None, parts),
    }
}

fn list_data(path: &str, data: Data, member: Option<&str>, parts: &mut Vec<Part>) -> Result<()> {
    let fault = |e: io::Error| Error::file(path, describe(&e));
    if let Data::Path(on_disk) = &data
        && on_disk.is_dir()
    {
        return Err(Error::file(path, format!("it is a folder; give its files, as in {path}/*.csv.gz")));
    }
    if let Data::Path(on_disk) = &data
        && !on_disk.metadata().map_err(fault)?.is_file()
    {
        let why = "it is a pipe or a device, which can be read only once: give - and let it come on standard input, \
                   as in: zcat x.csv.gz | clickstream run -";
        return Err(Error::file(path, why));
    }
    let Some(mut raw) = data.open().map_err(fault)? else {
        return Err(Error::file(path, "it cannot be opened"));
    };
    let name = Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned());
    let form = Form::of(&head_of(&mut raw).map_err(fault)?);
    raw.rewind().map_err(fault)?;
    match form {
        Form::Other(kind) => Err(Error::file(path, format!("it is {kind}; plain CSV, .gz, .zst and .zip are read"))),
        Form::Zip => list_archive(path, &name, &data, raw, member, parts),
        _ if member.is_some() => Err(Error::file(path, "it is not a zip archive, so no member of it can be chosen")),
        _ => {
            let (size, head_hash) = size_and_head(&mut raw).map_err(fault)?;
            if size == 0 {
                return Err(Error::file(path, "it is empty (0 bytes); a CSV file with a header is expected"));
            }
            parts.push(part(name, path.to_owned(), data, None, size, head_hash)?);
            Ok(())
        }
    }
}

/// The members that are CSV, in name order, or the one that was chosen.
fn list_archive(
    path: &str,
    name: &str,
    data: &Data,
    raw: Box<dyn ReadSeek>,
    chosen: Option<&str>,
    parts: &mut Vec<Part>,
) -> Result<()> {
    let fault = |e: &dyn std::fmt::Display| Error::file(path, format!("the archive cannot be read: {e}"));
    let mut archive = archive(raw).map_err(|e| fault(&e))?;
    let mut names = Vec::new();
    for name in archive.file_names() {
        names.push(name.map_err(|e| fault(&e))?.into_owned());
    }
    names.sort_unstable();
    let csv = |name: &String| name.to_ascii_lowercase().ends_with(".csv") && !name.starts_with("__MACOSX/");
    let members: Vec<_> = match chosen {
        Some(chosen) => names.iter().filter(|name| *name == chosen).collect(),
        None => names.iter().filter(|name| csv(name)).collect(),
    };
    if members.is_empty() {
        let wanted = chosen.map_or("no .csv file".to_owned(), |chosen| format!("no file {chosen}"));
        return Err(Error::file(path, format!("the archive holds {wanted}; it holds {}", first_of(&names))));
    }
    for member in members {
        let path = format!("{path}!{member}");
        let (size, head_hash) = of_member(&mut archive, member).map_err(|e| Error::file(&path, describe(&e)))?;
        parts.push(part(format!("{name}!{member}"), path, data.clone(), Some(member.clone()), size, head_hash)?);
    }
    Ok(())
}

fn part(name: String, path: String, data: Data, member: Option<String>, size: u64, head_hash: u64) -> Result<Part> {
    let mut part = Part { name, path, data, member, size: Some(size), head_hash, header: None };
    // The status of the replay is not touched by looking at a header.
    let opening = decompress::read(&part, 0, None, &Status::new(), &|| true, |text| read_header(text));
    let opening = opening.map_err(|e| Error::file(&part.path, describe(&e)))?;
    part.header = opening.transpose().map_err(|why| Error::file(&part.path, why))?;
    Ok(part)
}

/// Its size, and the hash of its first bytes; it is left at its beginning.
fn size_and_head(raw: &mut dyn ReadSeek) -> io::Result<(u64, u64)> {
    let size = raw.seek(io::SeekFrom::End(0))?;
    raw.rewind()?;
    Ok((size, hash_head(raw)?))
}

fn of_member(archive: &mut ZipArchive<Box<dyn ReadSeek>>, member: &str) -> io::Result<(u64, u64)> {
    let mut file = archive.by_name(member).map_err(io::Error::other)?;
    Ok((file.size(), hash_head(&mut file)?))
}

/// Fails where a file on disk is not the one that was listed any more: that may be days ago.
pub(super) fn look_again(part: &Part) -> io::Result<()> {
    let (Data::Path(_), Some(mut raw), Some(was)) = (&part.data, part.data.open()?, part.size) else { return Ok(()) };
    let (is, head_hash) = match &part.member {
        Some(member) => of_member(&mut archive(raw)?, member)?,
        None => size_and_head(&mut raw)?,
    };
    if (is, head_hash) == (was, part.head_hash) {
        return Ok(());
    }
    let how = if is == was { "and begins differently now".to_owned() } else { format!("and has {is} now") };
    Err(io::Error::other(format!(
        "it was changed after the replay had begun: it had {was} bytes, {how}. Go on with the file as it was, or play \
         this one anew (--restart) or under another name"
    )))
}

/// Reads up to the end of the first line.
fn read_header(text: &mut dyn Read) -> io::Result<Result<Opening, String>> {
    let mut line = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = memchr(b'\n', &line) {
            return Ok(opening(&line[..=end]));
        }
        if line.len() > MAX_ROW_BYTES {
            let cr = line.contains(&b'\r').then_some(CR_ENDS);
            return Ok(Err(cr.unwrap_or("it is not CSV: its first line does not end within 1 MiB").into()));
        }
        match text.read(&mut chunk)? {
            0 => return Ok(opening(&line)),
            n => line.extend_from_slice(&chunk[..n]),
        }
    }
}

/// A file's first line, with its line end if it has one, as its header.
pub(super) fn opening(line: &[u8]) -> Result<Opening, String> {
    if line.is_empty() {
        return Err("its text is empty (0 bytes); a CSV file with a header is expected".into());
    }
    let text = line.strip_prefix(BOM).unwrap_or(line);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Ok(Opening { header: Header::parse(text)?, body: line.len() as u64 })
}

pub(super) fn hash_head(reader: &mut dyn Read) -> io::Result<u64> {
    let mut head = Vec::new();
    reader.take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok(xxh3_64(&head))
}

/// An error of reading, as a person should see it.
pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off: it ends in the middle of its compressed data".into(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => format!("it is damaged: {error}"),
        _ => error.to_string(),
    }
}

fn first_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0 => "nothing".to_owned(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}
