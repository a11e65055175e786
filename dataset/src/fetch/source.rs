//! A month's bytes as gzipped CSV, from any of them on.
//!
//! A member of Kaggle's archive is deflated, and so is the body of a gzip file: its bytes are taken
//! as they are and given gzip's header and trailer. So it is read by ranges, resumed at any byte, and
//! nothing of the other months is sent.
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::Duration;

use remote::{Object, Objects};
use zip::{CompressionMethod, ZipArchive};

use super::kaggle::Token;
use super::{Error, Result};
use crate::generate::Month;

/// Where the months are served without a login, as `2019-Oct.csv.gz`.
pub const MIRROR: &str = "https://data.rees46.com/datasets/marketplace";

/// Magic, deflate, no flags, no time, no extra flags, an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// How long a server that sends nothing is waited for before somebody is asked whether to go on.
const WAKE_EVERY: Duration = Duration::from_millis(200);

/// Who serves the months.
pub enum Origin {
    /// At this URL.
    Mirror(String),
    /// The archive at this URL.
    Kaggle(String, Token),
}

/// A file to be.
pub struct Source {
    pub month: Month,
    /// `2019-Oct.csv.gz`.
    pub name: String,
    pub url: String,
    object: Object,
    range: Range<u64>,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Source {
    pub fn find(origin: &Origin, month: Month) -> Result<Self> {
        match origin {
            Origin::Mirror(base) => mirror(base, month),
            Origin::Kaggle(url, token) => kaggle(url, token, month),
        }
    }

    pub fn size(&self) -> u64 {
        self.before.len() as u64 + (self.range.end - self.range.start) + self.after.len() as u64
    }

    /// What tells this file from one of the same name and size.
    pub(super) fn version(&self) -> String {
        format!("{} {} {}", self.url, self.size(), self.object.version())
    }

    /// Its bytes from one on. A read returns `ErrorKind::Interrupted` now and then while nothing comes.
    pub(super) fn read_from(&self, at: u64) -> io::Result<impl Read> {
        let before = (at.min(self.before.len() as u64), self.before.len() as u64);
        let within = at.saturating_sub(before.1).min(self.range.end - self.range.start);
        let after = at.saturating_sub(before.1 + self.range.end - self.range.start);
        let mut object = self.object.open().waking(WAKE_EVERY);
        object.seek(SeekFrom::Start(self.range.start + within))?;
        let body = object.take(self.range.end - self.range.start - within);
        Ok(tail(&self.before, before.0).chain(body).chain(tail(&self.after, after)))
    }
}

fn tail(bytes: &[u8], from: u64) -> Cursor<Vec<u8>> {
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    Cursor::new(bytes[from..].to_vec())
}

fn object(url: &str, headers: remote::HeaderMap) -> Result<Object> {
    let place = remote::open_with(url, headers).map_err(|why| Error::new("it cannot be fetched", why))?;
    let runtime = remote::runtime().map_err(|e| Error::new(url, e))?;
    let mut listed = Objects::new(place, runtime).list().map_err(|e| Error::new(url, e))?;
    let (_, object, _) = listed.pop().ok_or_else(|| Error::new(url, "there is nothing"))?;
    Ok(object)
}

fn mirror(base: &str, month: Month) -> Result<Source> {
    let name = format!("{month}.csv.gz");
    let url = format!("{}/{name}", base.trim_end_matches('/'));
    let object = object(&url, remote::HeaderMap::new())?;
    Ok(Source { month, name, url, range: 0..object.size(), object, before: Vec::new(), after: Vec::new() })
}

fn kaggle(url: &str, token: &Token, month: Month) -> Result<Source> {
    let object = object(url, token.headers()?)?;
    let fault = |e: &dyn std::fmt::Display| Error::new(url, format!("the archive cannot be read: {e}"));
    let mut archive = ZipArchive::new(object.open()).map_err(|e| fault(&e))?;
    let wanted = format!("{month}.csv");
    let mut names = Vec::new();
    for name in archive.file_names() {
        names.push(name.map_err(|e| fault(&e))?.into_owned());
    }
    let Some(index) = names.iter().position(|name| name.rsplit('/').next() == Some(&wanted)) else {
        return Err(Error::new(url, format!("the archive has no {wanted}; it has {}", names.join(", "))));
    };
    let member = archive.by_index_raw(index).map_err(|e| fault(&e))?;
    if member.compression() != CompressionMethod::Deflated || member.encrypted() {
        return Err(fault(&format!("{wanted} is packed by {}, not deflated", member.compression())));
    }
    let start = member.data_start().ok_or_else(|| fault(&format!("{wanted} has no bytes")))?;
    let length = u32::try_from(member.size() % (1 << 32)).unwrap_or_default();
    let after = [member.crc32().to_le_bytes(), length.to_le_bytes()].concat();
    let range = start..start + member.compressed_size();
    drop(member);
    let name = format!("{month}.csv.gz");
    Ok(Source { month, name, url: format!("{url}!{wanted}"), object, range, before: GZIP_HEADER.to_vec(), after })
}
