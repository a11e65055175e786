//! One Parquet file: rows are gathered, encoded a chunk at a time, and cut into row groups.
//!
//! The finished row groups are kept in pieces, so that a growing file is never copied.
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use object_store::PutPayload;
use parquet::arrow::ArrowSchemaConverter;
use parquet::errors::Result;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescPtr;

use super::page::{Chunk, Scratch};
use crate::lake::columns::{CHUNK_ROWS, Columns};

const PIECE_BYTES: usize = 1 << 20;
/// A chunk of long texts goes to the encoders before it has [`CHUNK_ROWS`].
const CHUNK_BYTES: usize = 4 << 20;
/// How often a chunk's bytes are looked at.
const CHECK_ROWS: usize = 32;
/// A file that held more than this is not used again.
const REUSE_BYTES: usize = 4 << 20;

/// What all files of a topic have in common.
pub(in crate::lake) struct FileFormat {
    schema: SchemaDescPtr,
    properties: Arc<WriterProperties>,
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
    file: Option<SerializedFileWriter<Pieces>>,
}

impl FileFormat {
    pub(in crate::lake) fn new<C: Columns>(row_group_rows: usize) -> Result<Self> {
        let schema = Arc::new(ArrowSchemaConverter::new().convert(&C::schema())?);
        let properties = WriterProperties::builder()
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .set_created_by(concat!("clickstream ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        Ok(Self {
            schema,
            properties: Arc::new(properties),
            chunk_rows: CHUNK_ROWS,
            row_group_rows: row_group_rows.max(1),
        })
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
            file: None,
        }
    }

    /// Encoded so far.
    pub(in crate::lake) fn bytes(&self) -> usize {
        self.group_bytes + self.file.as_ref().map_or(0, SerializedFileWriter::bytes_written)
    }

    pub(in crate::lake) fn memory_bytes(&self) -> usize {
        let finished = self.file.as_ref().map_or(0, |file| file.inner().bytes());
        self.columns.bytes() + self.group_memory_bytes + finished
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
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let (schema, properties) = (format.schema.root_schema_ptr(), format.properties.clone());
                none.insert(SerializedFileWriter::new(Pieces::default(), schema, properties)?)
            }
        };
        let mut group = file.next_row_group()?;
        for (i, (leaf, chunk)) in self.columns.leaves().into_iter().zip(&mut self.chunks).enumerate() {
            let (bytes, close) = chunk.finish(self.group_rows as u64, leaf, format.schema.column(i), scratch)?;
            group.append_column(&bytes, close)?;
        }
        group.close()?;
        (self.group_rows, self.group_bytes) = (0, 0);
        let of_chunks: usize = self.chunks.iter().map(Chunk::kept_bytes).sum();
        let of_leaves: usize = self.columns.leaves().iter().map(|leaf| leaf.kept_bytes()).sum();
        self.group_memory_bytes = of_chunks + of_leaves;
        Ok(())
    }

    /// Ends the file. What is left can take another file's rows.
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
        let Some(mut file) = self.file.take() else { return Ok(PutPayload::default()) };
        for entry in footer {
            file.append_key_value_metadata(entry.clone());
        }
        Ok(file.into_inner()?.into_payload())
    }

    /// Whether its buffers are worth keeping for another file.
    pub(in crate::lake) fn is_reusable(&self) -> bool {
        self.file.is_none() && self.memory_bytes() <= REUSE_BYTES
    }
}

/// Bytes in pieces that never move.
#[derive(Debug, Default)]
struct Pieces {
    full: Vec<Bytes>,
    full_bytes: usize,
    open: Vec<u8>,
}

impl Pieces {
    fn bytes(&self) -> usize {
        self.full_bytes + self.open.capacity()
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.full_bytes += self.open.len();
            // It grew by doubling: what it did not use goes back.
            self.open.shrink_to_fit();
            self.full.push(std::mem::take(&mut self.open).into());
        }
    }

    fn into_payload(mut self) -> PutPayload {
        self.seal();
        self.full.into_iter().collect()
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.open.len() + bytes.len() > PIECE_BYTES {
            self.seal();
        }
        if bytes.len() > PIECE_BYTES {
            self.full_bytes += bytes.len();
            self.full.push(Bytes::copy_from_slice(bytes));
        } else {
            self.open.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
