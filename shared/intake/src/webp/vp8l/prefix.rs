//! Prefix codes of VP8L (RFC 9649, 3.7.2): how they are written, and a compact look-up.

use super::super::corrupt;
use super::bits::Bits;
use crate::Rejection;

/// Longest code.
const LENGTH_MAX: usize = 15;
/// Codes up to this length are found in one look-up.
const ROOT_BITS_MAX: u32 = 8;
/// Literals, length codes and the largest colour cache.
const ALPHABET_MAX: usize = 256 + 24 + (1 << 11);
/// In the root table: a code that is longer.
const LONGER: u16 = u16::MAX;

/// A complete prefix code, or one symbol that takes no bits.
#[derive(Debug)]
pub(super) struct PrefixCode {
    /// By the next `root_bits` bits: length (4 bits), symbol (12 bits).
    root: Box<[u16]>,
    root_bits: u32,
    longer: Option<Box<LongCodes>>,
}

/// A canonical search for codes longer than the root table's prefixes.
#[derive(Debug)]
struct LongCodes {
    /// By length: the first left-aligned 15-bit code that is longer.
    limit: [u32; LENGTH_MAX + 1],
    /// By length: what to add to a code to get the index of its symbol.
    offset: [i32; LENGTH_MAX + 1],
    /// Symbols, by length and then by value.
    symbols: Box<[u16]>,
}

impl PrefixCode {
    /// Builds the code from each symbol's length; `None` if the code space is not filled exactly.
    pub(super) fn new(lengths: &[u8]) -> Option<Self> {
        let mut counts = [0usize; LENGTH_MAX + 1];
        for &length in lengths {
            *counts.get_mut(usize::from(length))? += 1;
        }
        let used = lengths.len() - counts[0];
        if used <= 1 {
            let symbol = lengths.iter().position(|&length| length > 0)?;
            return Some(Self { root: Box::new([symbol as u16]), root_bits: 0, longer: None });
        }
        let filled: usize = (1..=LENGTH_MAX).map(|length| counts[length] << (LENGTH_MAX - length)).sum();
        if filled != 1 << LENGTH_MAX {
            return None;
        }
        let longest = (1..=LENGTH_MAX).rev().find(|&length| counts[length] > 0)?;
        let root_bits = ROOT_BITS_MAX.min(longest as u32);
        let sorted = sort_symbols(lengths, &counts);
        let longer = (longest as u32 > root_bits).then(|| Box::new(LongCodes::new(&counts, &sorted)));
        let root = fill_root(root_bits, lengths, &sorted);
        Some(Self { root, root_bits, longer })
    }

    /// Takes one symbol. At least 15 bits must be available.
    #[inline(always)]
    pub(super) fn take(&self, bits: &mut Bits<'_>) -> u16 {
        let entry = self.root.get(bits.peek(self.root_bits)).copied().unwrap_or_default();
        if entry != LONGER {
            bits.skip(u32::from(entry >> 12));
            return entry & 0xfff;
        }
        self.take_longer(bits)
    }

    #[cold]
    fn take_longer(&self, bits: &mut Bits<'_>) -> u16 {
        self.longer.as_ref().map_or(0, |longer| longer.take(bits))
    }

    /// Whether there is one symbol only, which takes no bits.
    pub(super) fn is_trivial(&self) -> bool {
        self.root_bits == 0
    }

    /// Heap memory in use.
    pub(super) fn heap_bytes(&self) -> usize {
        let longer =
            self.longer.as_ref().map_or(0, |longer| size_of::<LongCodes>() + size_of_val(&*longer.symbols));
        size_of_val(&*self.root) + longer
    }
}

fn sort_symbols(lengths: &[u8], counts: &[usize; LENGTH_MAX + 1]) -> Vec<u16> {
    let mut next = [0usize; LENGTH_MAX + 2];
    for length in 1..=LENGTH_MAX {
        next[length + 1] = next[length] + counts[length];
    }
    let mut sorted = vec![0; next[LENGTH_MAX + 1]];
    for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let place = &mut next[usize::from(length)];
        if let Some(slot) = sorted.get_mut(*place) {
            *slot = symbol as u16;
        }
        *place += 1;
    }
    sorted
}

/// Codes are packed from their most significant bit on, so that the table is indexed by reversed codes.
fn fill_root(root_bits: u32, lengths: &[u8], sorted: &[u16]) -> Box<[u16]> {
    let mut root = vec![LONGER; 1 << root_bits].into_boxed_slice();
    // The next code, left-aligned to 15 bits.
    let mut code = 0u32;
    for &symbol in sorted {
        let length = u32::from(lengths.get(usize::from(symbol)).copied().unwrap_or_default());
        if length > root_bits {
            break;
        }
        let reversed = (code << (32 - LENGTH_MAX)).reverse_bits() as usize;
        for slot in root.iter_mut().skip(reversed).step_by(1 << length) {
            *slot = (length as u16) << 12 | symbol;
        }
        code += 1 << (LENGTH_MAX as u32 - length);
    }
    root
}

impl LongCodes {
    fn new(counts: &[usize; LENGTH_MAX + 1], sorted: &[u16]) -> Self {
        let mut codes =
            Self { limit: [0; LENGTH_MAX + 1], offset: [0; LENGTH_MAX + 1], symbols: sorted.into() };
        let (mut code, mut index) = (0u32, 0i32);
        for (length, &count) in counts.iter().enumerate().skip(1) {
            codes.offset[length] = index - code as i32;
            code += count as u32;
            index += count as i32;
            codes.limit[length] = code << (LENGTH_MAX - length);
            code <<= 1;
        }
        codes
    }

    fn take(&self, bits: &mut Bits<'_>) -> u16 {
        let code = (bits.peek(LENGTH_MAX as u32) as u32).reverse_bits() >> (32 - LENGTH_MAX);
        let length = (1..LENGTH_MAX).find(|&length| code < self.limit[length]).unwrap_or(LENGTH_MAX);
        bits.skip(length as u32);
        let index = (code >> (LENGTH_MAX - length)) as i32 + self.offset[length];
        usize::try_from(index).ok().and_then(|index| self.symbols.get(index)).copied().unwrap_or_default()
    }
}

/// The order in which the lengths of the code of code lengths are written.
const CODE_LENGTH_ORDER: [usize; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// The length that a repetition repeats if no other came before.
const LENGTH_DEFAULT: u8 = 8;

fn malformed() -> Rejection {
    corrupt("a prefix code is malformed")
}

/// Reads a prefix code for `alphabet` symbols.
pub(super) fn read_code(bits: &mut Bits<'_>, alphabet: usize) -> Result<PrefixCode, Rejection> {
    let mut lengths = [0; ALPHABET_MAX];
    let lengths = lengths.get_mut(..alphabet).ok_or_else(malformed)?;
    if bits.take(1) == 1 {
        read_simple(bits, lengths)?;
    } else {
        read_lengths(bits, lengths)?;
    }
    PrefixCode::new(lengths).ok_or_else(malformed)
}

/// One or two symbols, written out.
fn read_simple(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Result<(), Rejection> {
    let has_second = bits.take(1) == 1;
    let first_bits = if bits.take(1) == 1 { 8 } else { 1 };
    let first = bits.take(first_bits) as usize;
    *lengths.get_mut(first).ok_or_else(malformed)? = 1;
    if has_second {
        let second = bits.take(8) as usize;
        *lengths.get_mut(second).ok_or_else(malformed)? = 1;
    }
    Ok(())
}

/// Code lengths, themselves prefix-coded and run-length-coded.
fn read_lengths(bits: &mut Bits<'_>, lengths: &mut [u8]) -> Result<(), Rejection> {
    let mut code_lengths = [0; CODE_LENGTH_ORDER.len()];
    let written = 4 + bits.take(4) as usize;
    for &symbol in CODE_LENGTH_ORDER.get(..written).ok_or_else(malformed)? {
        code_lengths[symbol] = bits.take(3) as u8;
    }
    let code = PrefixCode::new(&code_lengths).ok_or_else(malformed)?;
    let mut symbols_left = lengths.len();
    if bits.take(1) == 1 {
        let count_bits = 2 + 2 * bits.take(3);
        symbols_left = 2 + bits.take(count_bits) as usize;
        if symbols_left > lengths.len() {
            return Err(malformed());
        }
    }
    let mut previous = LENGTH_DEFAULT;
    let mut at = 0;
    while at < lengths.len() && symbols_left > 0 {
        symbols_left -= 1;
        bits.refill();
        let (value, repeat) = match code.take(bits) {
            literal @ 0..16 => {
                if literal != 0 {
                    previous = literal as u8;
                }
                (literal as u8, 1)
            }
            16 => (previous, 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            _ => (0, 11 + bits.take(7)),
        };
        let run = lengths.get_mut(at..at + repeat as usize).ok_or_else(malformed)?;
        run.fill(value);
        at += repeat as usize;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bits::Held;
    use super::*;

    /// The reversed code words of a canonical code, by symbol.
    fn words(lengths: &[u8]) -> Vec<(u32, u32)> {
        let mut words = vec![(0, 0); lengths.len()];
        let mut code = 0u32;
        for length in 1..=LENGTH_MAX as u32 {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, l)| u32::from(**l) == length) {
                words[symbol] = (code.reverse_bits() >> (32 - length), length);
                code += 1;
            }
            code <<= 1;
        }
        words
    }

    #[track_caller]
    fn check(lengths: &[u8]) {
        let code = PrefixCode::new(lengths).unwrap();
        for (symbol, &(word, length)) in words(lengths).iter().enumerate().filter(|(_, word)| word.1 > 0) {
            let coded = (word | u32::MAX << length).to_le_bytes();
            let mut bits = Bits::resume(&coded, Held::default());
            bits.refill();
            assert_eq!(code.take(&mut bits), symbol as u16, "{symbol}");
            assert_eq!(bits.take(32 - length), u32::MAX >> length, "length of {symbol}");
        }
    }

    #[test]
    fn symbols_of_all_lengths_are_found() {
        check(&[1, 1]);
        check(&[0, 2, 1, 0, 2]);
        check(&[8; 256]);
        let long: Vec<u8> = (1..=14).chain([15, 15]).collect();
        check(&long);
        let mut wide = vec![11; 2048 - 8];
        wide.extend([8]);
        check(&wide);
    }

    #[test]
    fn a_lone_symbol_takes_no_bits() {
        let code = PrefixCode::new(&[0, 0, 7]).unwrap();
        let mut bits = Bits::resume(&[0xa5], Held::default());
        bits.refill();
        assert_eq!(code.take(&mut bits), 2);
        assert_eq!(bits.take(8), 0xa5);
        assert!(code.is_trivial());
    }

    #[test]
    fn incomplete_and_overfull_codes_are_refused() {
        for lengths in [&[][..], &[0, 0], &[1, 2], &[1, 1, 1], &[2, 2, 2], &[15, 1]] {
            assert!(PrefixCode::new(lengths).is_none(), "{lengths:?}");
        }
    }
}
