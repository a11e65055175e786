//! From inputs as typed to rows: files are listed and looked at (`list`), read and decompressed
//! on a thread of their own (`decompress`, `reader`; `synthetic`: what is no file), and split into rows
//! (`lines`). A gzip file is noted in an `index` as it is read, and entered by it.
//! Knows nothing of what the rows say beyond their header.
mod decompress;
mod gzip;
mod index;
mod lines;
mod list;
mod reader;
mod synthetic;

use decompress::Data;
pub use index::GzipIndex;
pub(crate) use lines::{Line, Lines, MAX_ROW_BYTES, Mark, Next, Place};
pub(crate) use list::{Part, list, look};
pub use synthetic::Synthetic;
