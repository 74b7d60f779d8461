use super::super::bits::Held;
use super::*;
use proptest::prelude::*;

/// A DHT definition from code lengths per symbol.
fn definition(codes: &[(u8, u8)]) -> Definition {
    let mut bytes = vec![0; 16];
    for length in 1..=16u8 {
        for &(symbol, _) in codes.iter().filter(|(_, l)| *l == length) {
            bytes[usize::from(length) - 1] += 1;
            bytes.push(symbol);
        }
    }
    Definition::read(&bytes).unwrap().0
}

/// The code word of each symbol.
fn words(codes: &[(u8, u8)]) -> Vec<(u8, u32, u8)> {
    let mut words = Vec::new();
    let mut code = 0;
    for length in 1..=16u8 {
        for &(symbol, _) in codes.iter().filter(|(_, l)| *l == length) {
            words.push((symbol, code, length));
            code += 1;
        }
        code <<= 1;
    }
    words
}

/// Bits as a stuffed segment with a marker behind it.
#[derive(Default)]
struct Writer {
    bits: Vec<bool>,
}

impl Writer {
    fn put(&mut self, value: u32, count: u32) {
        self.bits.extend((0..count).rev().map(|i| value >> i & 1 == 1));
    }

    fn finish(mut self) -> Vec<u8> {
        while !self.bits.len().is_multiple_of(8) {
            self.bits.push(true);
        }
        let mut out = Vec::new();
        for byte in self.bits.chunks(8) {
            let byte = byte.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
            out.push(byte);
            if byte == 0xff {
                out.push(0);
            }
        }
        out.extend([0xff, 0xd9]);
        out
    }
}

/// Short, long and value-carrying symbols; END is 0x00.
const AC: [(u8, u8); 9] =
    [(0x01, 2), (0x00, 3), (0x11, 3), (0x02, 4), (0xf0, 5), (0x31, 6), (0x05, 8), (0x8a, 13), (0x2f, 16)];

#[test]
fn over_subscribed_definitions_are_refused() {
    let mut bytes = vec![0; 16];
    bytes[0] = 2;
    bytes.extend([1, 2]);
    assert!(Definition::read(&bytes).is_some(), "a full code");
    bytes[1] = 1;
    bytes.push(3);
    assert!(Definition::read(&bytes).is_none());
    assert!(Definition::read(&bytes[..17]).is_none(), "cut");
}

#[test]
fn differences_of_too_many_bits_are_refused() {
    assert!(DcTable::new(&definition(&[(15, 1), (0, 2)])).is_some());
    assert!(DcTable::new(&definition(&[(16, 1), (0, 2)])).is_none());
}

#[test]
fn a_code_that_is_not_in_the_table_is_invalid() {
    let table = AcJumps::new(&definition(&AC)).unwrap();
    let mut bits = Bits::resume(&[0xf7; 16], Held::default());
    assert_eq!(table.skip_block(&mut bits), None);
}

proptest! {
    /// Blocks of random symbols are passed over one by one, whatever the look-up joins.
    #[test]
    fn jumps_end_with_their_block(
        blocks in prop::collection::vec(prop::collection::vec((0usize..AC.len(), any::<u16>()), 1..70), 1..20),
        values in any::<u16>(),
    ) {
        let words = words(&AC);
        let mut writer = Writer::default();
        let mut ends = Vec::new();
        for block in &blocks {
            let mut next = 1;
            for &(pick, value) in block.iter().chain(&[(1, 0)]) {
                let &(symbol, code, length) = words.iter().find(|(symbol, ..)| *symbol == AC[pick].0).unwrap();
                writer.put(code, length.into());
                writer.put(u32::from(value ^ values), u32::from(symbol & 15));
                next += match symbol {
                    0xf0 => 16,
                    0x00 => 64,
                    _ => u32::from(symbol >> 4) + 1,
                };
                if next >= 64 {
                    break;
                }
            }
            ends.push(writer.bits.len());
        }
        let coded = writer.finish();
        let jumps = AcJumps::new(&definition(&AC)).unwrap();
        let mut bits = Bits::resume(&coded, Held::default());
        let mut whole = Bits::resume(&coded, Held::default());
        let mut at = 0;
        for end in ends {
            prop_assert_eq!(jumps.skip_block(&mut bits), Some(()));
            whole.discard((end - at) as u32);
            at = end;
            bits.refill_full();
            whole.refill_full();
            prop_assert_eq!(bits.peek(31), whole.peek(31));
        }
    }

    #[test]
    fn progressive_symbols_come_back(picks in prop::collection::vec(0usize..AC.len(), 1..60)) {
        let words = words(&AC);
        let mut writer = Writer::default();
        for &pick in &picks {
            let &(_, code, length) = words.iter().find(|(symbol, ..)| *symbol == AC[pick].0).unwrap();
            writer.put(code, length.into());
        }
        let coded = writer.finish();
        let table = AcSymbols::new(&definition(&AC)).unwrap();
        let mut bits = Bits::resume(&coded, Held::default());
        for pick in picks {
            prop_assert_eq!(table.take(&mut bits), Some(AC[pick].0));
        }
    }
}
