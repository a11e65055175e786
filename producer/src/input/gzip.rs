//! gzip as a reader that can be entered in the middle: at a member, or between two blocks of its
//! deflate stream with the text before them at hand. It says where that may be as it passes.
//! The decoder is miniz_oxide; checksums and lengths are checked to the end of each member, wherever
//! it was entered.
use std::io::{self, BufRead, Read};

use crc32fast::Hasher;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

/// How far back deflate refers.
pub(super) const WINDOW_BYTES: usize = 32 << 10;
/// Of text that is unpacked and not read yet, with the window before it. A power of two.
const RING_BYTES: usize = 256 << 10;
/// Every member begins with it.
const MAGIC: u8 = 0x1f;
/// A header holds a name and a comment, at most.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Where it can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes of text before it.
    pub(super) text: u64,
    /// Bytes of the file before it.
    pub(super) raw: u64,
    /// None: a member begins here.
    pub(super) block: Option<Block>,
}

/// Between two blocks of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Bits of the byte before that belong to what follows, and how many.
    pub(super) bits: u8,
    pub(super) bit_count: u8,
    /// Of the member's text so far.
    pub(super) crc: u32,
    pub(super) length: u64,
    /// The text before, as far back as the member goes.
    pub(super) window: Vec<u8>,
}

/// Is told of places to enter at, with the bytes of the file that follow, as many as are at hand.
pub(super) trait Notes {
    /// Whether one at this byte of the text is wanted.
    fn wants(&self, text: u64) -> bool;
    fn note(&mut self, entry: Entry, following: &[u8]);
}

impl<N: Notes> Notes for Option<N> {
    fn wants(&self, text: u64) -> bool {
        self.as_ref().is_some_and(|notes| notes.wants(text))
    }

    fn note(&mut self, entry: Entry, following: &[u8]) {
        if let Some(notes) = self {
            notes.note(entry, following);
        }
    }
}

pub(super) struct Gzip<R, N> {
    raw: R,
    notes: N,
    raw_bytes: u64,
    member: Option<Member>,
    /// Before the first member.
    fresh: bool,
    ring: Box<[u8]>,
    /// Bytes of text before what comes next out of the decoder, and those that were read.
    made: u64,
    read: u64,
}

struct Member {
    inflate: Box<DecompressorOxide>,
    crc: Hasher,
    length: u64,
    /// All of its text is unpacked, its end not looked at.
    over: bool,
}

impl<R: BufRead, N: Notes> Gzip<R, N> {
    pub(super) fn new(raw: R, notes: N) -> Self {
        let ring = vec![0; RING_BYTES].into();
        Self { raw, notes, raw_bytes: 0, member: None, fresh: true, ring, made: 0, read: 0 }
    }

    /// `raw` stands where the entry says.
    pub(super) fn enter(raw: R, notes: N, entry: &Entry) -> Self {
        let mut this = Self::new(raw, notes);
        (this.raw_bytes, this.made, this.read, this.fresh) = (entry.raw, entry.text, entry.text, false);
        if let Some(block) = &entry.block {
            let state =
                BlockBoundaryState { num_bits: block.bit_count, bit_buf: block.bits, ..BlockBoundaryState::default() };
            this.member = Some(Member {
                inflate: Box::new(DecompressorOxide::from_block_boundary_state(&state)),
                crc: Hasher::new_with_initial_len(block.crc, block.length),
                length: block.length,
                over: false,
            });
            for (byte, at) in block.window.iter().rev().zip((0..entry.text).rev()) {
                this.ring[place(at)] = *byte;
            }
        }
        this
    }

    /// Until there is text to be read; false at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        while self.read == self.made {
            match self.member.as_ref().map(|member| member.over) {
                Some(false) => self.inflate()?,
                Some(true) => self.end_member()?,
                None if self.next_member()? => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn next_member(&mut self) -> io::Result<bool> {
        let following = self.raw.fill_buf()?;
        if following.is_empty() {
            return if self.fresh { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(false) };
        }
        if !self.fresh && following[0] != MAGIC {
            return self.padding().map(|()| false);
        }
        if self.notes.wants(self.made) {
            self.notes.note(Entry { text: self.made, raw: self.raw_bytes, block: None }, following);
        }
        let mut header = (&mut self.raw).take(MAX_HEADER_BYTES);
        match gzip_header::read_gz_header(&mut header) {
            Err(e) if !self.fresh && e.kind() != io::ErrorKind::UnexpectedEof => return Err(garbage(self.raw_bytes)),
            read => read?,
        };
        self.raw_bytes += MAX_HEADER_BYTES - header.limit();
        self.fresh = false;
        self.member = Some(Member { inflate: Box::default(), crc: Hasher::new(), length: 0, over: false });
        Ok(true)
    }

    /// After the last member there may be zeros to the end of the file, as on a tape.
    fn padding(&mut self) -> io::Result<()> {
        let ended = self.raw_bytes;
        loop {
            let rest = self.raw.fill_buf()?;
            if rest.iter().any(|byte| *byte != 0) {
                return Err(garbage(ended));
            }
            match rest.len() {
                0 => return Ok(()),
                n => self.raw.consume(n),
            }
        }
    }

    /// One step of the decoder.
    fn inflate(&mut self) -> io::Result<()> {
        let Some(member) = &mut self.member else { return Ok(()) };
        let input = self.raw.fill_buf()?;
        let more = if input.is_empty() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
        let at = place(self.made);
        let (status, taken, made) =
            decompress(&mut member.inflate, input, &mut self.ring, at, more | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY);
        member.crc.update(&self.ring[at..at + made]);
        member.length += made as u64;
        self.made += made as u64;
        self.raw_bytes += taken as u64;
        let cut = input.is_empty() && made == 0;
        if status == TINFLStatus::BlockBoundary
            && self.notes.wants(self.made)
            && let Some(state) = member.inflate.block_boundary_state()
        {
            let length = member.length.min(WINDOW_BYTES as u64);
            let window = (self.made - length..self.made).map(|at| self.ring[place(at)]).collect();
            let crc = member.crc.clone().finalize();
            let block = Block { bits: state.bit_buf, bit_count: state.num_bits, crc, length: member.length, window };
            self.notes.note(Entry { text: self.made, raw: self.raw_bytes, block: Some(block) }, &input[taken..]);
        }
        self.raw.consume(taken);
        match status {
            TINFLStatus::Done => {
                member.over = true;
                Ok(())
            }
            TINFLStatus::BlockBoundary | TINFLStatus::HasMoreOutput => Ok(()),
            TINFLStatus::NeedsMoreInput if !cut => Ok(()),
            // What was unpacked before a fault is read before it is told.
            _ if made > 0 => Ok(()),
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "its compressed data is corrupt")),
        }
    }

    /// The checksum and the length that it ends with.
    fn end_member(&mut self) -> io::Result<()> {
        let Some(member) = self.member.take() else { return Ok(()) };
        let mut trailer = [0; 8];
        self.raw.read_exact(&mut trailer)?;
        self.raw_bytes += trailer.len() as u64;
        let [c0, c1, c2, c3, length @ ..] = trailer;
        let rest = member.length % (1 << 32);
        if u32::from_le_bytes([c0, c1, c2, c3]) != member.crc.finalize()
            || u64::from(u32::from_le_bytes(length)) != rest
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its text does not match its checksum"));
        }
        Ok(())
    }
}

impl<R: BufRead, N: Notes> Read for Gzip<R, N> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || !self.fill()? {
            return Ok(0);
        }
        let at = place(self.read);
        let ready = usize::try_from(self.made - self.read).unwrap_or(usize::MAX);
        let n = ready.min(buffer.len()).min(RING_BYTES - at);
        buffer[..n].copy_from_slice(&self.ring[at..at + n]);
        self.read += n as u64;
        Ok(n)
    }
}

fn garbage(ended: u64) -> io::Error {
    let why = format!("its gzip data ends at byte {ended}, and what follows is something else; cut that off");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Of a byte of the text, in the ring.
#[allow(clippy::cast_possible_truncation, reason = "below RING_BYTES")]
fn place(text: u64) -> usize {
    (text % RING_BYTES as u64) as usize
}
