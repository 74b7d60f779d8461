//! The header `traceparent` of W3C Trace Context, level 1.

use std::fmt;
use std::str::FromStr;

/// A position in a trace: what a span's children begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; not 0.
    pub trace_id: u128,
    /// The span; not 0.
    pub span_id: u64,
    /// Bit 0: the trace is recorded.
    pub flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct InvalidTraceParent;

impl TraceParent {
    /// The first span of a new trace, which is recorded.
    pub fn root() -> Self {
        let mut random = [0; 16];
        // Without randomness the trace has an id that others may have too, which is better than no service.
        let _ = getrandom::fill(&mut random);
        Self { trace_id: u128::from_be_bytes(random).max(1), span_id: random_span_id(), flags: 1 }
    }

    /// A new span of the same trace.
    pub fn child(self) -> Self {
        Self { span_id: random_span_id(), ..self }
    }

    /// Whether the trace is recorded.
    pub const fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

fn random_span_id() -> u64 {
    getrandom::u64().unwrap_or(1).max(1)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Section 3.2: version 00 has exactly four fields, later ones may add some; ff is not a version.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut fields = text.split('-');
        let mut field = |digits| hex(fields.next(), digits).ok_or(InvalidTraceParent);
        let (version, trace_id, span_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let is_well_formed = version != 0xff && (version != 0 || fields.next().is_none());
        if !is_well_formed || trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceParent);
        }
        let narrow = |_| InvalidTraceParent;
        Ok(Self {
            trace_id,
            span_id: u64::try_from(span_id).map_err(narrow)?,
            flags: u8::try_from(flags).map_err(|_| InvalidTraceParent)?,
        })
    }
}

fn hex(text: Option<&str>, digits: usize) -> Option<u128> {
    let text = text?;
    let is_lower_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == digits && is_lower_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_child_stays_in_its_trace_and_has_an_id_of_its_own() {
        let root = TraceParent::root();
        let child = root.child();
        assert_eq!((child.trace_id, child.flags), (root.trace_id, root.flags));
        assert_ne!(child.span_id, root.span_id);
        assert!(root.is_sampled());
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(good.parse::<TraceParent>().unwrap().to_string(), good);
        assert!(
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more".parse::<TraceParent>().is_ok()
        );
        for bad in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_position_reads_back_as_it_was_written(
            trace_id in 1u128.., span_id in 1u64.., flags in any::<u8>()
        ) {
            let parent = TraceParent { trace_id, span_id, flags };
            prop_assert_eq!(parent.to_string().parse(), Ok(parent));
        }

        #[test]
        fn no_text_is_more_than_refused(text in ".{0,80}") {
            let _ = text.parse::<TraceParent>();
        }
    }
}
