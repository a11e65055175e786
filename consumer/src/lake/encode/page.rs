//! Pages: header, compression, and the pages of a column in a row group.
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::schema::types::ColumnDescPtr;

use super::bits::zigzag;
use super::column::{Encoded, Leaf};
use crate::lake::settings::Codec;

/// What all files of a partition share while they are encoded.
pub(in crate::lake) struct Scratch {
    body: Vec<u8>,
    /// Never shorter than it was, so that it is cleared once only.
    compressed: Vec<u8>,
    compressor: Compressor,
}

enum Compressor {
    Lz4(CompressTable),
    Snappy(Box<snap::raw::Encoder>),
    Zstd(Box<zstd::bulk::Compressor<'static>>),
    None,
}

/// The pages of one column in a row group.
#[derive(Default)]
pub(super) struct Chunk {
    pages: Vec<u8>,
    uncompressed_bytes: usize,
    values: usize,
    encodings: Vec<Encoding>,
}

impl Scratch {
    pub(in crate::lake) fn new(codec: Codec) -> Result<Self> {
        let compressor = match codec {
            Codec::Lz4Raw => Compressor::Lz4(CompressTable::default()),
            Codec::Snappy => Compressor::Snappy(Box::new(snap::raw::Encoder::new())),
            Codec::Zstd => Compressor::Zstd(Box::new(
                zstd::bulk::Compressor::new(ZstdLevel::default().compression_level()).map_err(external)?,
            )),
            Codec::None => Compressor::None,
        };
        Ok(Self { body: Vec::new(), compressed: Vec::new(), compressor })
    }

    /// What the column is compressed with: the quick codecs gain nothing from packed integers.
    fn compression(&self, leaf: &dyn Leaf) -> Compression {
        match self.compressor {
            Compressor::Lz4(_) if !leaf.is_packed() => Compression::LZ4_RAW,
            Compressor::Snappy(_) if !leaf.is_packed() => Compression::SNAPPY,
            Compressor::Zstd(_) => Compression::ZSTD(ZstdLevel::default()),
            _ => Compression::UNCOMPRESSED,
        }
    }

    /// The body as it is stored with this compression.
    fn stored(&mut self, compression: Compression) -> Result<&[u8]> {
        if compression == Compression::UNCOMPRESSED {
            return Ok(&self.body);
        }
        let most = match &self.compressor {
            Compressor::Lz4(_) => get_maximum_output_size(self.body.len()),
            Compressor::Snappy(_) => snap::raw::max_compress_len(self.body.len()),
            Compressor::Zstd(_) => zstd::zstd_safe::compress_bound(self.body.len()),
            Compressor::None => 0,
        };
        if self.compressed.len() < most {
            self.compressed.resize(most, 0);
        }
        let bytes = match &mut self.compressor {
            Compressor::Lz4(table) => {
                compress_into_with_table(&self.body, &mut self.compressed, table).map_err(external)?
            }
            Compressor::Snappy(encoder) => encoder.compress(&self.body, &mut self.compressed).map_err(external)?,
            Compressor::Zstd(encoder) => {
                encoder.compress_to_buffer(&self.body, &mut self.compressed[..]).map_err(external)?
            }
            Compressor::None => 0,
        };
        Ok(&self.compressed[..bytes])
    }
}

impl Chunk {
    /// Encodes what the column has gathered as one page.
    pub(super) fn add(&mut self, leaf: &mut dyn Leaf, scratch: &mut Scratch) -> Result<()> {
        scratch.body.clear();
        let Some(Encoded { values, encoding }) = leaf.encode(&mut scratch.body) else { return Ok(()) };
        let compression = scratch.compression(leaf);
        let plain_bytes = scratch.body.len();
        let stored = scratch.stored(compression)?;
        let before = self.pages.len();
        header(Kind::Data, plain_bytes, stored.len(), values, encoding, &mut self.pages)?;
        self.uncompressed_bytes += self.pages.len() - before + plain_bytes;
        self.pages.extend_from_slice(stored);
        self.values += values;
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.pages.capacity()
    }

    /// Appends the whole chunk to `out`, the dictionary first; what the footer says of it. Starts
    /// anew. `before` bytes of the file come before `out`.
    pub(super) fn finish(
        &mut self,
        leaf: &mut dyn Leaf,
        column: ColumnDescPtr,
        before: usize,
        out: &mut Vec<u8>,
        scratch: &mut Scratch,
    ) -> Result<ColumnChunkMetaData> {
        let begins_at = out.len();
        let compression = scratch.compression(leaf);
        if let Some((plain, values)) = leaf.dictionary() {
            scratch.body.clear();
            scratch.body.extend_from_slice(plain);
            let stored = scratch.stored(compression)?;
            header(Kind::Dictionary, plain.len(), stored.len(), values, Encoding::PLAIN, out)?;
            self.uncompressed_bytes += out.len() - begins_at + plain.len();
            out.extend_from_slice(stored);
            if !self.encodings.contains(&Encoding::PLAIN) {
                self.encodings.push(Encoding::PLAIN);
            }
        }
        if leaf.has_levels() {
            self.encodings.push(Encoding::RLE);
        }
        let data_at = out.len();
        out.extend_from_slice(&self.pages);
        let dictionary_at = if data_at > begins_at { Some(size(before + begins_at)?) } else { None };
        let metadata = ColumnChunkMetaData::builder(column)
            .set_compression(compression)
            .set_encodings(std::mem::take(&mut self.encodings))
            .set_total_compressed_size(size(out.len() - begins_at)?)
            .set_total_uncompressed_size(size(self.uncompressed_bytes)?)
            .set_num_values(size(self.values)?)
            .set_dictionary_page_offset(dictionary_at)
            .set_data_page_offset(size(before + data_at)?)
            .set_statistics(leaf.statistics())
            .build()?;
        leaf.reset();
        self.reset();
        Ok(metadata)
    }

    fn reset(&mut self) {
        self.pages.clear();
        self.uncompressed_bytes = 0;
        self.values = 0;
        self.encodings.clear();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Dictionary,
}

/// `PageHeader` of parquet.thrift, in Thrift's compact protocol.
fn header(
    kind: Kind,
    plain_bytes: usize,
    stored_bytes: usize,
    values: usize,
    encoding: Encoding,
    out: &mut Vec<u8>,
) -> Result<()> {
    const STRUCT: u8 = 12;
    const END: u8 = 0;
    let number = |skipped: u8, value: i64, out: &mut Vec<u8>| {
        const I32: u8 = 5;
        out.push((skipped + 1) << 4 | I32);
        zigzag(value, out);
    };
    let (of_kind, skipped) = if kind == Kind::Data { (0, 1) } else { (2, 3) };
    number(0, of_kind, out);
    number(0, page_size(plain_bytes)?, out);
    number(0, page_size(stored_bytes)?, out);
    out.push((skipped + 1) << 4 | STRUCT);
    number(0, page_size(values)?, out);
    number(0, encoding_number(encoding), out);
    if kind == Kind::Data {
        // Of both levels.
        number(0, encoding_number(Encoding::RLE), out);
        number(0, encoding_number(Encoding::RLE), out);
    }
    out.extend_from_slice(&[END, END]);
    Ok(())
}

const fn encoding_number(encoding: Encoding) -> i64 {
    match encoding {
        Encoding::RLE => 3,
        Encoding::DELTA_BINARY_PACKED => 5,
        Encoding::RLE_DICTIONARY => 8,
        _ => 0,
    }
}

fn page_size(size: usize) -> Result<i64> {
    i32::try_from(size).map(i64::from).map_err(external)
}

fn size(size: usize) -> Result<i64> {
    i64::try_from(size).map_err(external)
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> ParquetError {
    ParquetError::External(Box::new(error))
}
