//! One request as a view into the read buffer: no argument is copied. Hot path.

use std::ops::Index;

/// Where one argument lies, as byte offsets from the start of the read buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgRange {
    pub start: u32,
    pub end: u32,
}

/// The words of one request; `args[0]` is the command's name as the client spelt it.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Args<'a> {
    /// `ranges` must lie within `bytes`.
    pub fn new(bytes: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { bytes, ranges }
    }

    /// Number of words, the command's name included.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes from where the first word begins to where the last one ends.
    pub fn span(&self) -> usize {
        let ends = self.ranges.first().zip(self.ranges.last());
        ends.map_or(0, |(first, last)| (last.end - first.start) as usize)
    }

    /// Outlives the `Args` itself, unlike `args[index]`.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let range = self.ranges.get(index)?;
        Some(&self.bytes[range.start as usize..range.end as usize])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.ranges.iter().map(move |range| &bytes[range.start as usize..range.end as usize])
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    fn index(&self, index: usize) -> &[u8] {
        let range = self.ranges[index];
        &self.bytes[range.start as usize..range.end as usize]
    }
}

/// A copy of a request that outlives the read buffer (parked reads, the slow log).
#[derive(Debug, Clone)]
pub struct OwnedArgs {
    bytes: Box<[u8]>,
    ranges: Box<[ArgRange]>,
}

impl OwnedArgs {
    pub fn copy(args: &Args<'_>) -> Self {
        let mut bytes = Vec::with_capacity(args.iter().map(<[u8]>::len).sum());
        let mut ranges = Vec::with_capacity(args.len());
        for arg in args.iter() {
            let start = bytes.len() as u32;
            bytes.extend_from_slice(arg);
            ranges.push(ArgRange { start, end: bytes.len() as u32 });
        }
        Self { bytes: bytes.into_boxed_slice(), ranges: ranges.into_boxed_slice() }
    }

    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.ranges)
    }
}
