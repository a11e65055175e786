//! One Parquet file: rows are gathered, encoded a chunk at a time, and cut into row groups.
//!
//! The finished row groups are kept as they are, so that a growing file is never copied.
use std::sync::Arc;

use bytes::Bytes;
use object_store::PutPayload;
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData};
use parquet::schema::types::SchemaDescPtr;

use super::page::{Chunk, Scratch};
use crate::lake::columns::{CHUNK_ROWS, Columns};

/// How a Parquet file begins; it ends so as well.
const MAGIC: &[u8] = b"PAR1";
/// Of the format: data pages of the first version.
const VERSION: i32 = 1;
/// A chunk of long texts goes to the encoders before it has [`CHUNK_ROWS`].
const CHUNK_BYTES: usize = 4 << 20;
/// How often a chunk's bytes are looked at.
const CHECK_ROWS: usize = 32;
/// A file that held more than this is not used again.
const REUSE_BYTES: usize = 4 << 20;

/// What all files of a topic have in common.
pub(in crate::lake) struct FileFormat {
    schema: SchemaDescPtr,
    pub(super) chunk_rows: usize,
    row_group_rows: usize,
}

pub(in crate::lake) struct OpenFile<C> {
    pub(in crate::lake) columns: C,
    chunks: Vec<Chunk>,
    /// Encoded, of the open row group.
    group_rows: usize,
    group_bytes: usize,
    /// Memory of the open row group, but for what is gathered.
    group_memory_bytes: usize,
    /// The finished row groups.
    stored: Vec<Bytes>,
    stored_bytes: usize,
    groups: Vec<RowGroupMetaData>,
}

impl FileFormat {
    pub(in crate::lake) fn new<C: Columns>(row_group_rows: usize) -> Result<Self> {
        let schema = Arc::new(ArrowSchemaConverter::new().convert(&C::schema())?);
        Ok(Self { schema, chunk_rows: CHUNK_ROWS, row_group_rows: row_group_rows.max(1) })
    }
}

impl<C: Columns> OpenFile<C> {
    pub(in crate::lake) fn new(format: &FileFormat) -> Self {
        Self {
            columns: C::new(),
            chunks: (0..format.schema.num_columns()).map(|_| Chunk::default()).collect(),
            group_rows: 0,
            group_bytes: 0,
            group_memory_bytes: 0,
            stored: Vec::new(),
            stored_bytes: 0,
            groups: Vec::new(),
        }
    }

    /// Encoded so far.
    pub(in crate::lake) fn bytes(&self) -> usize {
        self.group_bytes + self.stored_bytes
    }

    pub(in crate::lake) fn memory_bytes(&self) -> usize {
        self.columns.bytes() + self.group_memory_bytes + self.stored_bytes
    }

    /// To be called after each row.
    #[inline]
    pub(in crate::lake) fn encode_full_chunk(&mut self, format: &FileFormat, scratch: &mut Scratch) -> Result<()> {
        let rows = self.columns.rows();
        if rows >= format.chunk_rows.min(format.row_group_rows.saturating_sub(self.group_rows))
            || (rows.is_multiple_of(CHECK_ROWS) && self.columns.bytes() >= CHUNK_BYTES)
        {
            self.encode_chunk(format, scratch)?;
        }
        Ok(())
    }

    fn encode_chunk(&mut self, format: &FileFormat, scratch: &mut Scratch) -> Result<()> {
        self.group_rows += self.columns.rows();
        (self.group_bytes, self.group_memory_bytes) = (0, 0);
        for (leaf, chunk) in self.columns.leaves().into_iter().zip(&mut self.chunks) {
            chunk.add(leaf, scratch)?;
            self.group_bytes += chunk.bytes();
            self.group_memory_bytes += chunk.kept_bytes() + leaf.kept_bytes();
        }
        if self.group_rows >= format.row_group_rows {
            self.end_row_group(format, scratch)?;
        }
        Ok(())
    }

    fn end_row_group(&mut self, format: &FileFormat, scratch: &mut Scratch) -> Result<()> {
        let leaves = self.columns.leaves();
        let dictionaries = leaves.iter().filter_map(|leaf| leaf.dictionary());
        let dictionary_bytes: usize = dictionaries.map(|(plain, _)| plain.len() + plain.len() / 8 + 64).sum();
        let mut group = Vec::with_capacity(MAGIC.len() + self.group_bytes + dictionary_bytes);
        if self.groups.is_empty() {
            group.extend_from_slice(MAGIC);
        }
        let begins_at = self.stored_bytes + group.len();
        let mut columns = Vec::with_capacity(leaves.len());
        for (i, (leaf, chunk)) in leaves.into_iter().zip(&mut self.chunks).enumerate() {
            columns.push(chunk.finish(leaf, format.schema.column(i), self.stored_bytes, &mut group, scratch)?);
        }
        let metadata = RowGroupMetaData::builder(format.schema.clone())
            .set_total_byte_size(columns.iter().map(|column| column.uncompressed_size()).sum())
            .set_column_metadata(columns)
            .set_num_rows(number(self.group_rows)?)
            .set_ordinal(number(self.groups.len())?)
            .set_file_offset(number(begins_at)?)
            .build()?;
        self.groups.push(metadata);
        self.stored_bytes += group.len();
        self.stored.push(group.into());
        (self.group_rows, self.group_bytes) = (0, 0);
        let of_chunks: usize = self.chunks.iter().map(Chunk::kept_bytes).sum();
        let of_leaves: usize = self.columns.leaves().iter().map(|leaf| leaf.kept_bytes()).sum();
        self.group_memory_bytes = of_chunks + of_leaves;
        Ok(())
    }

    /// Ends the file, which has a row at least. What is left can take another file's rows.
    pub(in crate::lake) fn finish(
        &mut self,
        footer: &[KeyValue],
        format: &FileFormat,
        scratch: &mut Scratch,
    ) -> Result<PutPayload> {
        if self.columns.rows() > 0 {
            self.encode_chunk(format, scratch)?;
        }
        if self.group_rows > 0 {
            self.end_row_group(format, scratch)?;
        }
        let rows = self.groups.iter().map(RowGroupMetaData::num_rows).sum();
        let created_by = concat!("clickstream ", env!("CARGO_PKG_VERSION")).to_owned();
        let (footer, schema) = (Some(footer.to_vec()), format.schema.clone());
        let file = FileMetaData::new(VERSION, rows, Some(created_by), footer, schema, None);
        let metadata = ParquetMetaData::new(file, std::mem::take(&mut self.groups));
        let mut end = Vec::new();
        ParquetMetaDataWriter::new(&mut end, &metadata).finish()?;
        self.stored_bytes = 0;
        Ok(self.stored.drain(..).chain([end.into()]).collect())
    }

    /// Whether its buffers are worth keeping for another file.
    pub(in crate::lake) fn is_reusable(&self) -> bool {
        self.memory_bytes() <= REUSE_BYTES
    }
}

fn number<T: TryFrom<usize>>(value: usize) -> Result<T> {
    T::try_from(value).map_err(|_| ParquetError::General(format!("{value} is more than a Parquet file can say")))
}
