//! Bits of entropy-coded JPEG data: removes byte stuffing, stops at markers and at the window's end.
//!
//! Reading never fails: past the last byte the reader supplies zero bits and counts them. Whether any of
//! them was *used* is asked once per MCU ([`Bits::shortage`]), so the hot loop has no checks.

/// Bits read from a window but not yet used, kept from one window to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    acc: u64,
    bits: u32,
}

/// A bit reader over one window. Copying it takes a snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'w> {
    window: &'w [u8],
    at: usize,
    /// The next bits, left-aligned. Below `held` stand zeros or the bits that will be loaded next.
    acc: u64,
    /// How many bits of `acc` count, padding included.
    held: u32,
    /// How many zero bits were supplied past the last byte, at the end of `held`.
    padding: u32,
}

/// Why bits were missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The window ended; more bytes may follow.
    Window,
    /// A marker ended the segment.
    Segment,
}

/// What stands where a segment should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentEnd {
    /// The window ends before the answer.
    Unknown,
    /// More entropy-coded data.
    Excess,
    /// A marker with this code.
    Marker(u8),
}

/// No symbol and its value bits are longer than this.
pub(super) const SYMBOL_BITS_MAX: u32 = 16 + 15;

/// Left-over bytes at the end of a segment that are not counted as damage.
const EXCESS_BYTES_MAX: u32 = 6;

impl<'w> Bits<'w> {
    pub(super) fn resume(window: &'w [u8], held: Held) -> Self {
        Self { window, at: 0, acc: held.acc, held: held.bits, padding: 0 }
    }

    /// Bytes of the window that were read, and the bits of them that are still unused.
    ///
    /// Must not be called while padding bits have been used.
    pub(super) fn suspend(self) -> (usize, Held) {
        (self.at, Held { acc: self.acc, bits: self.held.saturating_sub(self.padding) })
    }

    /// Makes at least [`SYMBOL_BITS_MAX`] bits available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.held > SYMBOL_BITS_MAX {
            return;
        }
        self.refill_full();
    }

    /// Makes at least 56 bits available.
    #[inline(always)]
    pub(super) fn refill_full(&mut self) {
        if let Some(next) = self.window.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let next = u64::from_be_bytes(*next);
            let has_ff = next & !next.wrapping_add(0x0101_0101_0101_0101) & 0x8080_8080_8080_8080;
            if has_ff == 0 && self.held < 64 {
                // Bits of a byte that fits only in part are loaded too, and again, the same, next time.
                self.acc |= next >> self.held;
                let bytes = (63 - self.held) >> 3;
                self.at += bytes as usize;
                self.held += bytes * 8;
                return;
            }
        }
        *self = self.refilled_bytewise();
    }

    /// By value, here and in the other cold paths: a reader whose address is given away lives in memory, and every
    /// look-up of the hot loop waits for its loads and stores.
    #[cold]
    #[inline(never)]
    fn refilled_bytewise(mut self) -> Self {
        while self.held <= 56 {
            let mut byte = 0;
            match self.window.get(self.at) {
                Some(0xff) => match self.window.get(self.at + 1) {
                    Some(0) => {
                        byte = 0xff;
                        self.at += 2;
                    }
                    _ => self.padding += 8,
                },
                Some(&plain) => {
                    byte = plain;
                    self.at += 1;
                }
                None => self.padding += 8,
            }
            self.acc |= u64::from(byte) << (56 - self.held);
            self.held += 8;
        }
        self
    }

    /// The next `count` (1 to 31) bits, without using them.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> usize {
        (self.acc >> (64 - count)) as usize
    }

    /// Uses `count` bits (at most 63, and available).
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.acc <<= count;
        self.held = self.held.wrapping_sub(count);
    }

    /// Takes `count` (0 to 15) bits.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        self.refill();
        let value = self.peek(count) as u32;
        self.skip(count);
        value
    }

    /// Uses up to 64 bits whose values do not matter.
    #[inline]
    pub(super) fn discard(&mut self, count: u32) {
        let mut left = count;
        while left > 0 {
            self.refill();
            let now = left.min(SYMBOL_BITS_MAX);
            self.skip(now);
            left -= now;
        }
    }

    /// Whether bits were used that are not there.
    #[inline(always)]
    pub(super) fn shortage(&self) -> Option<Shortage> {
        (self.padding > self.held).then(|| self.shortage_kind())
    }

    /// Like [`shortage`](Self::shortage), but also if a Huffman code of 16 bits might have been cut.
    #[cold]
    pub(super) fn shortage_of_code(&mut self) -> Option<Shortage> {
        if self.padding <= self.held {
            self.refill_full();
        }
        (self.held.wrapping_sub(self.padding) as i32 - 16 < 0).then(|| self.shortage_kind())
    }

    #[cold]
    fn shortage_kind(self) -> Shortage {
        match (self.window.get(self.at), self.window.get(self.at + 1)) {
            (None, _) | (Some(0xff), None) => Shortage::Window,
            _ => Shortage::Segment,
        }
    }

    /// Looks at the end of a segment whose last symbol was read: a marker (after any number of fill bytes)
    /// must follow. On `Marker`, the reader stands behind it.
    ///
    /// Up to [`EXCESS_BYTES_MAX`] left-over bytes are let pass: decoders read ahead that far, so none of them
    /// notices, and a few encoders leave some.
    pub(super) fn end_segment(&mut self) -> SegmentEnd {
        self.refill_full();
        if self.held - self.padding >= 8 * (EXCESS_BYTES_MAX + 1) {
            return SegmentEnd::Excess;
        }
        let rest = self.window.get(self.at..).unwrap_or_default();
        let fill = rest.iter().take_while(|&&byte| byte == 0xff).count();
        match rest.get(fill) {
            None => SegmentEnd::Unknown,
            Some(_) if fill == 0 => SegmentEnd::Excess,
            Some(0) => SegmentEnd::Excess,
            Some(&code) => {
                *self = Self { at: self.at + fill + 1, ..Self::resume(self.window, Held::default()) };
                SegmentEnd::Marker(code)
            }
        }
    }

    /// Steps back over a marker's code, so that the segment parser finds the marker.
    pub(super) fn unread_marker(&mut self) {
        self.at = self.at.saturating_sub(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for &byte in bytes {
            out.push(byte);
            if byte == 0xff {
                out.push(0);
            }
        }
        out.extend([0xff, 0xd9]);
        out
    }

    proptest! {
        #[test]
        fn bits_come_back_in_order(
            bytes in prop::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..40),
            counts in prop::collection::vec(1u32..16, 1..60),
        ) {
            let coded = stuffed(&bytes);
            let mut bits = Bits::resume(&coded, Held::default());
            let mut at = 0;
            for count in counts {
                let got = bits.take(count);
                let expected = (at..at + count as usize).fold(0, |value, i| {
                    value << 1 | bytes.get(i / 8).map_or(0, |byte| u32::from(byte >> (7 - i % 8) & 1))
                });
                prop_assert_eq!(got, expected);
                at += count as usize;
                let short = (at > bytes.len() * 8).then_some(Shortage::Segment);
                prop_assert_eq!(bits.shortage(), short);
                if short.is_some() {
                    break;
                }
            }
        }

        #[test]
        fn a_pause_anywhere_changes_nothing(
            bytes in prop::collection::vec(prop_oneof![Just(0xffu8), any::<u8>()], 1..40),
            split in 0usize..80,
        ) {
            let coded = stuffed(&bytes);
            let split = split.min(coded.len());
            let mut whole = Bits::resume(&coded, Held::default());
            let mut part = Bits::resume(&coded[..split], Held::default());
            let mut seen = 0;
            let mut paused = false;
            for _ in 0..bytes.len() {
                let snapshot = part;
                let mut got = part.take(8);
                if part.shortage() == Some(Shortage::Window) {
                    prop_assert!(!paused);
                    let (read, held) = snapshot.suspend();
                    seen += read;
                    part = Bits::resume(&coded[seen..], held);
                    paused = true;
                    got = part.take(8);
                }
                prop_assert_eq!(got, whole.take(8));
                prop_assert_eq!(part.shortage(), None);
            }
            prop_assert_eq!(whole.end_segment(), SegmentEnd::Marker(0xd9));
        }
    }

    #[test]
    fn left_over_data_is_excess() {
        for (left_over, end) in
            [(0, SegmentEnd::Marker(0xd9)), (6, SegmentEnd::Marker(0xd9)), (7, SegmentEnd::Excess)]
        {
            let mut coded = vec![0b1010_0000];
            coded.resize(1 + left_over, 0x12);
            coded.extend([0xff, 0xd9]);
            let mut bits = Bits::resume(&coded, Held::default());
            bits.take(1);
            assert_eq!(bits.end_segment(), end, "{left_over}");
        }
    }

    #[test]
    fn fill_bytes_before_a_marker_are_skipped() {
        let mut bits = Bits::resume(&[0xff, 0xff, 0xff, 0xd0, 7], Held::default());
        assert_eq!(bits.end_segment(), SegmentEnd::Marker(0xd0));
        assert_eq!(bits.take(8), 7);
        let mut cut = Bits::resume(&[0xff, 0xff], Held::default());
        assert_eq!(cut.end_segment(), SegmentEnd::Unknown);
    }
}
