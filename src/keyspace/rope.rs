//! Values apart from their records, by reference count. One that was edited lies in pieces.
//!
//! ```text
//! whole    one run of bytes, of any length, as it came
//! pieces   128 KiB each but the last, so that division finds the piece of an offset; a piece is a slice of the run the value
//!          came in, or of zeros, or has its own memory and, if it is the last, room to grow
//! ```
//! § Under a bucket's lock an edit copies at most the two pieces at its ends. The whole pieces between them are copied into
//! the [`Patch`] before the lock is taken, and what they replace is dropped after it.
//!
//! Pieces never keep what an edit brought, only copies, or a few left of many edits could each hold on to 512 MB. The run that
//! a value came in stays until its last slice goes: at most once the value's length.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::keyspace::terms::Value;

/// § Two of them are the most that is copied under a bucket's lock.
pub const PIECE_BYTES: usize = 128 * 1024;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// A value to hold on to without copying it.
#[derive(Debug, Clone)]
pub struct SharedValue(Form);

#[derive(Debug, Clone)]
enum Form {
    Whole(Bytes),
    Pieces(Arc<Vec<Piece>>),
}

#[derive(Debug, Clone)]
pub enum Piece {
    Slice(Bytes),
    Own(Arc<Vec<u8>>),
}

/// Bytes to write into a value. § To be made before the bucket's lock is taken: it copies them, but for the ends.
#[derive(Debug)]
pub struct Patch<'a> {
    offset: usize,
    bytes: &'a [u8],
    /// The pieces that the bytes cover from end to end.
    whole: Vec<Piece>,
}

/// Lets a reader hold a piece without copying it.
struct Held(Arc<Vec<u8>>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for SharedValue {
    fn from(bytes: Bytes) -> Self {
        Self(Form::Whole(bytes))
    }
}

impl SharedValue {
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Pieces(pieces) => length(pieces),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes; `None` if they are in several pieces.
    pub fn as_slice(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Whole(bytes) => Some(bytes),
            Form::Pieces(pieces) => match &pieces[..] {
                [] => Some(&[]),
                [piece] => Some(piece.as_slice()),
                [_, _, ..] => None,
            },
        }
    }

    /// The bytes of `range`, which must be within the value.
    pub fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Bytes> {
        let piece_bytes = match &self.0 {
            Form::Whole(bytes) => bytes.len().max(1),
            Form::Pieces(_) => PIECE_BYTES,
        };
        (range.start / piece_bytes..range.end.div_ceil(piece_bytes)).map(move |index| {
            let piece = match &self.0 {
                Form::Whole(bytes) => bytes.clone(),
                Form::Pieces(pieces) => pieces[index].share(),
            };
            let start = index * piece_bytes;
            piece.slice(range.start.saturating_sub(start)..piece.len().min(range.end - start))
        })
    }

    /// All bytes in one run. Copies those in several pieces: not under a bucket's lock.
    pub fn to_bytes(&self) -> Bytes {
        match (&self.0, self.as_slice()) {
            (Form::Whole(bytes), _) => bytes.clone(),
            (Form::Pieces(pieces), Some(_)) => pieces.first().map_or_else(Bytes::new, Piece::share),
            (Form::Pieces(pieces), None) => {
                let slices: Vec<&[u8]> = pieces.iter().map(Piece::as_slice).collect();
                slices.concat().into()
            }
        }
    }

    /// Bytes of the value with its room to grow.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Pieces(pieces) => length(pieces) + pieces.last().map_or(0, Piece::spare_bytes),
        }
    }

    /// Writes the patch, over a gap of zeros if it begins past the end. What it replaced, for the caller to drop outside the lock.
    pub(super) fn write(&mut self, patch: Patch<'_>) -> Vec<Piece> {
        if let Form::Whole(bytes) = &self.0 {
            self.0 = Form::Pieces(Arc::new(cut(bytes)));
        }
        match &mut self.0 {
            Form::Pieces(pieces) => patch.write_to(Arc::make_mut(pieces)),
            Form::Whole(_) => unreachable!("it was cut just now"),
        }
    }
}

fn length(pieces: &[Piece]) -> usize {
    pieces.last().map_or(0, |last| (pieces.len() - 1) * PIECE_BYTES + last.as_slice().len())
}

/// Slices of one run. No bytes are copied.
fn cut(bytes: &Bytes) -> Vec<Piece> {
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    starts.map(|start| Piece::Slice(bytes.slice(start..bytes.len().min(start + PIECE_BYTES)))).collect()
}

impl<'a> Patch<'a> {
    pub fn new(offset: usize, bytes: &'a [u8]) -> Self {
        let head = bytes.len().min(offset.next_multiple_of(PIECE_BYTES) - offset);
        let copy = |piece: &[u8]| Piece::Own(Arc::new(piece.to_vec()));
        let whole = bytes[head..].chunks_exact(PIECE_BYTES).map(copy).collect();
        Self { offset, bytes, whole }
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Where the patch ends in the value.
    pub fn end(&self) -> usize {
        self.offset + self.bytes.len()
    }

    /// Writes the patch into a short value that lies in one run.
    pub(super) fn write_to_short(&self, value: &mut Vec<u8>) {
        overwrite(value, self.offset, self.bytes);
    }

    /// The value of a key that was not there.
    pub(super) fn into_value(self) -> Value<'a> {
        if self.offset == 0 && self.whole.is_empty() {
            return Value::Slice(self.bytes);
        }
        let mut pieces = Vec::new();
        self.write_to(&mut pieces);
        Value::Shared(SharedValue(Form::Pieces(Arc::new(pieces))))
    }

    fn write_to(self, pieces: &mut Vec<Piece>) -> Vec<Piece> {
        let mut replaced = Vec::new();
        fill_gap(pieces, self.offset, &mut replaced);
        let (mut at, mut rest, mut whole) = (self.offset, self.bytes, self.whole.into_iter());
        while !rest.is_empty() {
            let (index, start) = (at / PIECE_BYTES, at % PIECE_BYTES);
            let (part, tail) = rest.split_at(rest.len().min(PIECE_BYTES - start));
            if part.len() == PIECE_BYTES {
                let piece = whole.next().expect("a whole part has its piece");
                match pieces.get_mut(index) {
                    Some(old) => replaced.push(std::mem::replace(old, piece)),
                    None => pieces.push(piece),
                }
            } else {
                if index == pieces.len() {
                    pieces.push(Piece::Own(Arc::default()));
                }
                overwrite(pieces[index].edit(start + part.len(), &mut replaced), start, part);
            }
            (at, rest) = (at + part.len(), tail);
        }
        replaced
    }
}

/// Zeros from the end of `pieces` to `offset`.
fn fill_gap(pieces: &mut Vec<Piece>, offset: usize, replaced: &mut Vec<Piece>) {
    let start = pieces.len().saturating_sub(1) * PIECE_BYTES;
    if let Some(last) = pieces.last_mut()
        && start + last.as_slice().len() < offset
        && last.as_slice().len() < PIECE_BYTES
    {
        let length = PIECE_BYTES.min(offset - start);
        last.edit(length, replaced).resize(length, 0);
    }
    while pieces.len() * PIECE_BYTES < offset {
        let length = PIECE_BYTES.min(offset - pieces.len() * PIECE_BYTES);
        pieces.push(Piece::Slice(Bytes::from_static(&ZEROS[..length])));
    }
}

fn overwrite(value: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    value.resize(value.len().max(offset), 0);
    let (over, past) = bytes.split_at(bytes.len().min(value.len() - offset));
    value[offset..offset + over.len()].copy_from_slice(over);
    value.extend_from_slice(past);
}

impl Piece {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn share(&self) -> Bytes {
        match self {
            Self::Slice(bytes) => bytes.clone(),
            Self::Own(bytes) => Bytes::from_owner(Held(bytes.clone())),
        }
    }

    fn spare_bytes(&self) -> usize {
        match self {
            Self::Slice(_) => 0,
            Self::Own(bytes) => bytes.capacity() - bytes.len(),
        }
    }

    /// The bytes, to be changed and to become `length` at least: a copy of them if others hold them, and then the old ones go to
    /// `replaced`.
    fn edit(&mut self, length: usize, replaced: &mut Vec<Self>) -> &mut Vec<u8> {
        let alone = match self {
            Self::Slice(_) => false,
            Self::Own(bytes) => Arc::get_mut(bytes).is_some(),
        };
        if !alone {
            let mut copy = Vec::with_capacity(with_spare(length.max(self.as_slice().len())));
            copy.extend_from_slice(self.as_slice());
            replaced.push(std::mem::replace(self, Self::Own(Arc::new(copy))));
        }
        let Self::Own(bytes) = self else { unreachable!("it has its own memory by now") };
        let bytes = Arc::get_mut(bytes).expect("nobody else holds it by now");
        if bytes.capacity() < length {
            bytes.reserve_exact(with_spare(length) - bytes.len());
        }
        bytes
    }
}

/// Room for a growing piece, as Redis's SDS has: as much again.
fn with_spare(length: usize) -> usize {
    (2 * length).min(PIECE_BYTES)
}

#[cfg(test)]
#[path = "rope_tests.rs"]
mod tests;
