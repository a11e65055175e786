//! Columns into Parquet pages, without a copy that can be spared.
//!
//! arrow-rs's writer takes Arrow arrays, hashes every value of a dictionary column for each row and
//! keeps unpacked indices and plain values until a page is full; here rows are gathered in the form
//! in which they are encoded, a page is written for each chunk of rows, and buffers are used again.
//! The schema and the footer are still the `parquet` crate's.
//!
//! | file | what it holds |
//! |---|---|
//! | `bits` | bit packing and variable-length integers |
//! | `rle` | the hybrid of runs and packed values: levels, dictionary indices |
//! | `delta` | `DELTA_BINARY_PACKED` |
//! | `values` | the kinds of values: packed integers, dictionaries, plain bytes, flags |
//! | `column` | values with their levels: required, optional, or items of a list |
//! | `page` | page headers, compression, a column's chunk |
//! | `file` | one Parquet file: chunks into row groups, the footer |
mod bits;
mod column;
mod delta;
mod file;
mod page;
mod rle;
#[cfg(test)]
mod tests;
mod values;

pub(super) use column::{Column, Leaf};
pub(super) use file::{FileFormat, OpenFile};
pub(super) use page::Scratch;
pub(super) use values::{Flags, IntegerDictionary, Integers, PlainBytes, TextDictionary};
