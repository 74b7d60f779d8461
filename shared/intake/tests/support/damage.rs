//! Damaged uploads, for property tests.

use proptest::prelude::*;

use super::{SAMPLES, Sample};

/// A valid file with some damage, or none.
#[derive(Clone)]
pub(crate) struct Damaged {
    description: String,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.description)
    }
}

/// Any sample with up to three edits.
pub(crate) fn damaged() -> impl Strategy<Value = Damaged> {
    let place = any::<prop::sample::Index>;
    let edit = prop_oneof![
        (place(), 0u32..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        place().prop_map(Edit::Cut),
        (place(), 1usize..40).prop_map(|(at, count)| Edit::Remove(at, count)),
        (place(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
    ];
    (place(), prop::collection::vec(edit, 0..4)).prop_map(|(sample, edits)| {
        let Sample { name, bytes } = sample.get(&SAMPLES);
        let mut bytes = bytes.clone();
        let places: Vec<String> = edits.iter().map(|edit| edit.apply(&mut bytes)).collect();
        Damaged { description: format!("{name}: {}", places.join(", ")), bytes }
    })
}

#[derive(Debug, Clone)]
enum Edit {
    Flip(prop::sample::Index, u32),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

impl Edit {
    /// Damages `bytes`; says how.
    fn apply(&self, bytes: &mut Vec<u8>) -> String {
        let length = bytes.len().max(1);
        if bytes.is_empty() {
            return "empty".into();
        }
        match self {
            Self::Flip(at, bit) => {
                bytes[at.index(length)] ^= 1 << bit;
                format!("flip bit {bit} at {}", at.index(length))
            }
            Self::Set(at, byte) => {
                bytes[at.index(length)] = *byte;
                format!("set {} to {byte}", at.index(length))
            }
            Self::Cut(at) => {
                bytes.truncate(at.index(length));
                format!("cut at {}", at.index(length))
            }
            Self::Remove(at, count) => {
                let range = at.index(length)..(at.index(length) + count).min(length);
                bytes.drain(range.clone());
                format!("remove {range:?}")
            }
            Self::Insert(at, new) => {
                bytes.splice(at.index(length)..at.index(length), new.iter().copied());
                format!("insert {new:?} at {}", at.index(length))
            }
        }
    }
}

/// `PROPTEST_CASES` asks for more cases.
pub(crate) fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(2000), failure_persistence: None, ..default }
}
