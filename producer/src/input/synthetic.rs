//! Input that is made as it is read, and can be made again from any row on.
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use memchr::memchr_iter;

use super::Data;
use super::list::{Part, hash_head, opening};
use crate::error::{Error, Result};
use crate::status::Status;

type Open = dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync;

/// Rows that are the same whenever they are made. What they are made of stands in the name.
#[derive(Clone)]
pub struct Synthetic {
    name: String,
    header: &'static str,
    rows: u64,
    open: Arc<Open>,
}

impl Synthetic {
    /// `open` gives the text from a row on (0 is the first), without the header.
    pub fn new(
        name: impl Into<String>,
        header: &'static str,
        rows: u64,
        open: impl Fn(u64) -> io::Result<Box<dyn Read + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), header, rows, open: Arc::new(open) }
    }

    pub(super) fn part(&self) -> Result<Part> {
        let fault = |why: String| Error::file(&self.name, why);
        let mut opening = opening(self.header.as_bytes()).map_err(fault)?;
        // The text that is read has none.
        opening.body = 0;
        let mut text = (self.open)(0).map_err(|e| fault(e.to_string()))?;
        Ok(Part {
            name: self.name.clone(),
            path: self.name.clone(),
            data: Data::Synthetic(self.clone()),
            member: None,
            // Its size is told in rows, as its progress is.
            size: Some(self.rows),
            head_hash: hash_head(&mut text).map_err(|e| fault(e.to_string()))?,
            header: Some(opening),
        })
    }

    pub(super) fn read<T>(
        &self,
        row: u64,
        status: &Status,
        body: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        let text = (self.open)(row)?;
        status.jump(row);
        body(&mut Counted { text, status })
    }
}

impl fmt::Debug for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Synthetic").field(&self.name).finish()
    }
}

/// Adds the rows that pass to the status.
struct Counted<'s> {
    text: Box<dyn Read + Send>,
    status: &'s Status,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.text.read(buffer)?;
        self.status.add_read(memchr_iter(b'\n', &buffer[..n]).count() as u64);
        Ok(n)
    }
}
