//! Hands a walker contiguous windows of the upload, whatever the chunks are.
//!
//! A walker reads what it can of a window and says how far it got; the rest, which is always short (one
//! MCU, one chunk header, one Huffman table), is carried over to the next window. A chunk is walked where
//! it lies: only its first and last few bytes are ever copied.

/// Bytes of a new chunk that join a carried rest at a time. More than any walker needs to make progress
/// on entropy-coded data, little enough to copy without thought.
const SPLICE_BYTES: usize = 16 * 1024;

/// The unread end of the bytes seen so far.
#[derive(Debug, Default)]
pub(crate) struct Carry {
    bytes: Vec<u8>,
}

impl Carry {
    /// Bytes seen but not yet read.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes
    }

    /// Shows `chunk`, after what was carried, to `step`, which returns how many bytes of its window it read.
    pub(crate) fn feed<E>(
        &mut self,
        chunk: &[u8],
        mut step: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let mut rest = chunk;
        while !self.bytes.is_empty() {
            if rest.is_empty() {
                return Ok(());
            }
            let carried = self.bytes.len();
            let (splice, after) = rest.split_at(rest.len().min(SPLICE_BYTES));
            self.bytes.extend_from_slice(splice);
            let read = step(&self.bytes)?;
            match read.checked_sub(carried) {
                Some(into_chunk) => {
                    rest = rest.get(into_chunk..).unwrap_or_default();
                    self.bytes.clear();
                }
                None => {
                    self.bytes.drain(..read);
                    rest = after;
                }
            }
        }
        if !rest.is_empty() {
            let read = step(rest)?;
            self.bytes.extend_from_slice(rest.get(read..).unwrap_or_default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// A reader of length-prefixed records sees the same records for any split of the bytes.
        #[test]
        fn any_split_shows_the_same_bytes(
            records in prop::collection::vec(0u16..20_000, 1..8),
            cuts in prop::collection::vec(1usize..9_000, 1..64),
        ) {
            let stream: Vec<u8> = records
                .iter()
                .flat_map(|&n| n.to_be_bytes().into_iter().chain((0..n).map(|i| i as u8)))
                .collect();
            let mut carry = Carry::default();
            let mut seen = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                carry.feed(chunk, |window| {
                    let mut at = 0;
                    while let Some(head) = window.get(at..at + 2) {
                        let n = u16::from_be_bytes([head[0], head[1]]);
                        let Some(body) = window.get(at + 2..at + 2 + usize::from(n)) else { break };
                        assert!(body.iter().enumerate().all(|(i, &b)| b == i as u8));
                        seen.push(n);
                        at += 2 + usize::from(n);
                    }
                    Ok::<_, Infallible>(at)
                }).unwrap();
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(seen, records);
            prop_assert!(carry.pending().is_empty());
        }
    }
}
