//! Requests for the tests of this folder.

use crate::protocol::{ArgRange, Args, OwnedArgs};

/// A request of the given words.
pub fn args(words: &[&[u8]]) -> OwnedArgs {
    let bytes = words.concat();
    let mut end = 0;
    let ranges: Vec<ArgRange> = words
        .iter()
        .map(|word| {
            let start = end;
            end += u32::try_from(word.len()).expect("tests use short words");
            ArgRange { start, end }
        })
        .collect();
    OwnedArgs::copy(&Args::new(&bytes, &ranges))
}
