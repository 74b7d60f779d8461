//! Huffman tables of JPEG (ITU-T T.81, annexes C and F), built for walking instead of decoding.
//!
//! A walker needs no coefficient values, only how many bits to pass over and how far the coefficient index
//! moves. So a table entry covers a code *and* the value bits behind it, and an AC entry covers as many whole
//! (run, size) symbols as fit into the look-up's window: most blocks take a few look-ups.

use std::ops::Range;

use super::bits::{Bits, SYMBOL_BITS_MAX};

/// A table as a DHT segment defines it: how many codes have each length 1 to 16, and their symbols in order.
///
/// Look-up tables are built from it only when a scan uses it, so that a file of nothing but tables costs
/// no more than reading it.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    counts: [u8; 16],
    symbols: Vec<u8>,
}

impl Definition {
    /// Reads one definition from the front of a DHT segment's rest; returns it with its length.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let counts = *bytes.first_chunk::<16>()?;
        let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
        let symbols = bytes.get(16..16 + total)?.to_vec();
        let definition = Self { counts, symbols };
        // The code space must not be over-subscribed.
        CodeBook::new(&definition)?;
        Some((definition, 16 + total))
    }

    /// Calls `visit(prefixes, symbol, length)` for each code of at most `bits` bits, with the range of
    /// `bits`-bit prefixes that start with it.
    fn for_each_prefix(&self, bits: u32, mut visit: impl FnMut(Range<usize>, u8, u32)) {
        let mut first = 0;
        let mut symbols = self.symbols.iter();
        for (length, &count) in (1..=bits).zip(&self.counts) {
            for &symbol in symbols.by_ref().take(usize::from(count)) {
                let behind = first + (1usize << (bits - length));
                visit(first..behind, symbol, length);
                first = behind;
            }
        }
    }
}

/// A canonical code book: finds codes of any length, one length after the other.
#[derive(Debug, Clone)]
struct CodeBook {
    /// By length: the first left-aligned 16-bit code that is longer.
    limit: [u32; 17],
    /// By length: what to add to a code to get the index of its symbol.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl CodeBook {
    fn new(definition: &Definition) -> Option<Self> {
        let mut book = Self { limit: [0; 17], offset: [0; 17], symbols: definition.symbols.clone() };
        let mut code = 0u32;
        let mut index = 0i32;
        for (length, &count) in (1..=16usize).zip(&definition.counts) {
            book.offset[length] = index - code as i32;
            code += u32::from(count);
            index += i32::from(count);
            if code > 1 << length {
                return None;
            }
            book.limit[length] = code << (16 - length);
            code <<= 1;
        }
        Some(book)
    }

    /// The symbol and code length at the head of 16 left-aligned bits.
    fn look_up(&self, bits: u32, length_min: usize) -> Option<(u8, u32)> {
        let length = (length_min..=16).find(|&length| bits < self.limit[length])?;
        let index = (bits >> (16 - length)) as i32 + self.offset[length];
        let symbol = self.symbols.get(usize::try_from(index).ok()?)?;
        Some((*symbol, length as u32))
    }
}

const DC_BITS: u32 = 9;
const AC_BITS: u32 = 12;

/// A DC table: passes over one difference.
#[derive(Debug, Clone)]
pub(super) struct DcTable {
    /// By prefix: bits of code and value; 0 = a longer code.
    totals: Box<[u8; 1 << DC_BITS]>,
    book: CodeBook,
}

impl DcTable {
    pub(super) fn new(definition: &Definition) -> Option<Self> {
        // A difference of 8-bit samples has at most 11 bits; common decoders let 15 pass.
        if definition.symbols.iter().any(|&size| size > 15) {
            return None;
        }
        let book = CodeBook::new(definition)?;
        let mut totals = Box::new([0; 1 << DC_BITS]);
        definition.for_each_prefix(DC_BITS, |prefixes, size, length| {
            if let Some(entries) = totals.get_mut(prefixes) {
                entries.fill(length as u8 + size);
            }
        });
        Some(Self { totals, book })
    }

    /// Passes over a difference; `None` for an invalid code.
    #[inline(always)]
    pub(super) fn skip_difference(&self, bits: &mut Bits<'_>) -> Option<()> {
        bits.refill();
        let total = self.totals[bits.peek(DC_BITS)];
        if total != 0 {
            bits.skip(u32::from(total));
            return Some(());
        }
        let (size, length) = self.book.look_up(bits.peek(16) as u32, DC_BITS as usize + 1)?;
        bits.skip(length + u32::from(size));
        Some(())
    }
}

/// An AC table of a sequential scan: passes over the coefficients of whole blocks.
#[derive(Debug, Clone)]
pub(super) struct AcJumps {
    entries: Box<[Jump; 1 << AC_BITS]>,
    book: CodeBook,
}

/// What one look-up passes over, twice: all symbols that fit, and the first one alone.
///
/// The first alone is needed where the block ends without an end-of-block code, at coefficient 63: what
/// follows belongs to the next block.
#[derive(Debug, Clone, Copy, Default)]
struct Jump {
    all_bits: u8,
    /// Coefficients advanced, plus [`END`] if the last symbol ends the block.
    all_advance: u8,
    first_bits: u8,
    first_advance: u8,
}

/// Marks the end of a block in a [`Jump`]'s advance.
const END: u8 = 128;

/// The first coefficient index behind a block.
const BLOCK_END: u32 = 64;

/// Zero run length symbol: 16 zeros.
const ZRL: u8 = 0xf0;

fn advance_of(symbol: u8) -> u8 {
    match symbol {
        ZRL => 16,
        _ if symbol & 15 == 0 => END,
        _ => (symbol >> 4) + 1,
    }
}

impl AcJumps {
    pub(super) fn new(definition: &Definition) -> Option<Self> {
        let book = CodeBook::new(definition)?;
        let mut entries = Box::new([Jump::default(); 1 << AC_BITS]);
        definition.for_each_prefix(AC_BITS, |prefixes, symbol, length| {
            let bits = length as u8 + (symbol & 15);
            let advance = advance_of(symbol);
            let jump =
                Jump { all_bits: bits, all_advance: advance, first_bits: bits, first_advance: advance };
            if let Some(entries) = entries.get_mut(prefixes) {
                entries.fill(jump);
            }
        });
        chain(&mut entries);
        Some(Self { entries, book })
    }

    /// Passes over the AC coefficients of a sequential block; `None` for an invalid code.
    ///
    /// A run beyond the block ends it: decoders let that pass without a word.
    #[inline(always)]
    pub(super) fn skip_block(&self, bits: &mut Bits<'_>) -> Option<()> {
        let mut next = 1u32;
        loop {
            bits.refill();
            let jump = self.entries[bits.peek(AC_BITS)];
            let behind = next + u32::from(jump.all_advance);
            if behind < BLOCK_END && jump.all_bits != 0 {
                bits.skip(u32::from(jump.all_bits));
                next = behind;
                continue;
            }
            let in_block =
                behind == BLOCK_END || (behind >= u32::from(END) && behind < u32::from(END) + BLOCK_END);
            if in_block && jump.all_bits != 0 {
                bits.skip(u32::from(jump.all_bits));
                return Some(());
            }
            next += self.skip_one(bits, jump)?;
            if next >= BLOCK_END {
                return Some(());
            }
        }
    }

    /// Passes over one symbol and its value; returns its advance.
    #[inline(always)]
    fn skip_one(&self, bits: &mut Bits<'_>, jump: Jump) -> Option<u32> {
        if jump.first_bits != 0 {
            bits.skip(u32::from(jump.first_bits));
            return Some(u32::from(jump.first_advance));
        }
        let (symbol, length) = self.book.look_up(bits.peek(16) as u32, AC_BITS as usize + 1)?;
        bits.skip(length + u32::from(symbol & 15));
        Some(u32::from(advance_of(symbol)))
    }
}

/// Extends each entry by the symbols that follow within its prefix.
fn chain(entries: &mut [Jump; 1 << AC_BITS]) {
    let firsts: Vec<(u8, u8)> = entries.iter().map(|jump| (jump.first_bits, jump.first_advance)).collect();
    for (prefix, jump) in entries.iter_mut().enumerate() {
        while jump.all_bits != 0 && u32::from(jump.all_bits) < AC_BITS && jump.all_advance < BLOCK_END as u8 {
            // The bits behind what is covered, with zeros below: a symbol counts only if all of it is known.
            let behind = (prefix << jump.all_bits) & ((1 << AC_BITS) - 1);
            let Some(&(bits, advance)) = firsts.get(behind) else { break };
            if bits == 0 || u32::from(jump.all_bits + bits) > AC_BITS {
                break;
            }
            jump.all_bits += bits;
            jump.all_advance += advance;
        }
    }
}

const SYMBOL_PREFIX_BITS: u32 = 9;

/// An AC table of a progressive scan: gives one symbol at a time.
#[derive(Debug, Clone)]
pub(super) struct AcSymbols {
    /// By prefix: symbol and code length; length 0 = a longer code.
    entries: Box<[(u8, u8); 1 << SYMBOL_PREFIX_BITS]>,
    book: CodeBook,
}

impl AcSymbols {
    pub(super) fn new(definition: &Definition) -> Option<Self> {
        let book = CodeBook::new(definition)?;
        let mut entries = Box::new([(0, 0); 1 << SYMBOL_PREFIX_BITS]);
        definition.for_each_prefix(SYMBOL_PREFIX_BITS, |prefixes, symbol, length| {
            if let Some(entries) = entries.get_mut(prefixes) {
                entries.fill((symbol, length as u8));
            }
        });
        Some(Self { entries, book })
    }

    /// Takes one symbol, not the value behind it (which is available too); `None` for an invalid code.
    #[inline(always)]
    pub(super) fn take(&self, bits: &mut Bits<'_>) -> Option<u8> {
        bits.refill();
        let (symbol, length) = self.entries[bits.peek(SYMBOL_PREFIX_BITS)];
        if length != 0 {
            bits.skip(u32::from(length));
            return Some(symbol);
        }
        let (symbol, length) = self.book.look_up(bits.peek(16) as u32, SYMBOL_PREFIX_BITS as usize + 1)?;
        bits.skip(length);
        Some(symbol)
    }
}

const _: () = assert!(AC_BITS <= SYMBOL_BITS_MAX && END as u32 >= 2 * BLOCK_END);

#[cfg(test)]
mod tests;
