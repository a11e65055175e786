//! From inputs as typed to rows: files are listed and looked at (`list`), read and decompressed
//! on a thread of their own (`decompress`, `reader`; `synthetic`: what is no file), and split into rows
//! (`lines`).
//! Knows nothing of what the rows say beyond their header.
mod decompress;
mod lines;
mod list;
mod reader;
mod synthetic;

use decompress::Data;
pub(crate) use lines::{Line, Lines, MAX_ROW_BYTES, Next, Place};
pub(crate) use list::{Part, list};
pub use synthetic::Synthetic;
