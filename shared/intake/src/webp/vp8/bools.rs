//! The boolean entropy decoder of VP8 (RFC 6386, 7), with pauses at the window's end.
//!
//! Reading never fails: past the last byte the decoder supplies zeros and remembers that it did
//! ([`Bools::is_short`]). An encoder's flush always covers what its decoder loads, so a stream that makes the
//! decoder run short is cut.

/// The decoder's state between two windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    value: u64,
    range: u32,
    bits: i32,
}

impl Default for State {
    fn default() -> Self {
        Self { value: 0, range: 255, bits: -8 }
    }
}

/// A decoder over one window. Copying it takes a snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bools<'w> {
    window: &'w [u8],
    at: usize,
    /// What is loaded and not used up; the 8 bits from `bits` up are compared with the split.
    value: u64,
    range: u32,
    /// Loaded bits below the 8 that are compared; negative if some of those are missing.
    bits: i32,
    is_short: bool,
}

impl<'w> Bools<'w> {
    pub(super) fn resume(window: &'w [u8], state: State) -> Self {
        Self { window, at: 0, value: state.value, range: state.range, bits: state.bits, is_short: false }
    }

    /// Bytes of the window that were read, and the state behind them.
    pub(super) fn suspend(self) -> (usize, State) {
        (self.at, State { value: self.value, range: self.range, bits: self.bits })
    }

    /// Whether a byte was needed that is not there.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// Takes one bit that is 0 with a probability of `probability` / 256.
    #[inline(always)]
    pub(super) fn take(&mut self, probability: u8) -> bool {
        if self.bits < 0 {
            self.load();
        }
        let split = 1 + (((self.range - 1) * u32::from(probability)) >> 8);
        let threshold = u64::from(split) << self.bits;
        let bit = self.value >= threshold;
        if bit {
            self.value -= threshold;
            self.range -= split;
        } else {
            self.range = split;
        }
        let shift = self.range.leading_zeros() - 24;
        self.range <<= shift;
        self.bits -= shift as i32;
        bit
    }

    #[inline(always)]
    fn load(&mut self) {
        if let Some(next) = self.window.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            self.value = self.value << 56 | u64::from_be_bytes(*next) >> 8;
            self.at += 7;
            self.bits += 56;
            return;
        }
        self.load_byte();
    }

    #[cold]
    #[inline(never)]
    fn load_byte(&mut self) {
        let byte = self.window.get(self.at).copied();
        self.at += usize::from(byte.is_some());
        self.is_short |= byte.is_none();
        self.value = self.value << 8 | u64::from(byte.unwrap_or_default());
        self.bits += 8;
    }

    /// Takes a flag: a bit that is as likely 0 as 1.
    pub(super) fn flag(&mut self) -> bool {
        self.take(128)
    }

    /// Takes an unsigned number of `bits` bits.
    pub(super) fn literal(&mut self, bits: u32) -> u32 {
        (0..bits).fold(0, |value, _| value << 1 | u32::from(self.flag()))
    }

    /// Takes a flag and, if it is set, a number of `bits` bits.
    pub(super) fn optional(&mut self, bits: u32) -> Option<u32> {
        self.flag().then(|| self.literal(bits))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The encoder of RFC 6386, 7.3, with a big number in place of carries through written bytes.
    pub(in super::super) fn encode(bools: &[(bool, u8)]) -> Vec<u8> {
        let (mut bytes, mut range, mut bottom, mut bits) = (Vec::<u8>::new(), 255u32, 0u32, 24);
        let mut put = |bit: bool, probability: u8| {
            let split = 1 + (((range - 1) * u32::from(probability)) >> 8);
            if bit {
                bottom += split;
                range -= split;
            } else {
                range = split;
            }
            while range < 128 {
                range <<= 1;
                if bottom >> 31 == 1 {
                    for byte in bytes.iter_mut().rev() {
                        *byte = byte.wrapping_add(1);
                        if *byte != 0 {
                            break;
                        }
                    }
                }
                bottom <<= 1;
                bits -= 1;
                if bits == 0 {
                    bytes.push((bottom >> 24) as u8);
                    bottom &= (1 << 24) - 1;
                    bits = 8;
                }
            }
        };
        for &(bit, probability) in bools {
            put(bit, probability);
        }
        for _ in 0..32 {
            put(false, 128);
        }
        bytes
    }

    proptest! {
        #[test]
        fn bools_come_back_over_any_pause(
            bools in prop::collection::vec((any::<bool>(), 1u8..), 0..300),
            split in 0usize..100,
        ) {
            let coded = encode(&bools);
            let split = split.min(coded.len());
            let mut decoder = Bools::resume(&coded[..split], State::default());
            let mut paused = false;
            for (bit, probability) in bools {
                let snapshot = decoder;
                let mut got = decoder.take(probability);
                if decoder.is_short() {
                    prop_assert!(!paused);
                    paused = true;
                    let (read, state) = snapshot.suspend();
                    decoder = Bools::resume(&coded[read..], state);
                    got = decoder.take(probability);
                }
                prop_assert_eq!(got, bit);
                prop_assert!(!decoder.is_short());
            }
        }
    }
}
