//! One pass over a file that is made of heads and bodies, as all three formats are.

use super::Output;

/// What becomes of the bytes behind a head.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// `kept` bytes stay, `blanked` behind them go, and then comes the next head.
    Body { kept: u64, blanked: u64 },
    /// Behind the picture: all of it goes.
    Tail,
    /// No head where one has to be, so it is not a valid file: all of it stays.
    Lost,
}

impl Fate {
    /// A head follows at once.
    pub(super) const HEAD: Self = Self::Body { kept: 0, blanked: 0 };
}

/// How a format's files are made.
pub(super) trait Format {
    /// Reads a head from the front of `rest`, which is not empty, with what of its body has to be known, and puts as much
    /// into the output. Returns how many bytes that are, and what becomes of those behind; `None` if more are needed.
    fn head(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)>;
}

/// Redacts one file from its first byte to the end of the upload.
#[derive(Debug)]
pub(super) struct Pass<F> {
    format: F,
    fate: Fate,
}

impl<F: Default> Default for Pass<F> {
    fn default() -> Self {
        Self { format: F::default(), fate: Fate::HEAD }
    }
}

impl<F: Format> Pass<F> {
    /// Puts as much of `window` into the output as it reads, and returns how many bytes that are.
    pub(super) fn read(&mut self, window: &[u8], out: &mut Output<'_>) -> usize {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            at += match &mut self.fate {
                Fate::Body { kept: 0, blanked: 0 } => {
                    let Some((read, fate)) = self.format.head(rest, out) else { return at };
                    self.fate = fate;
                    read
                }
                Fate::Body { kept: 0, blanked } => out.blank(take(rest, blanked)),
                Fate::Body { kept, .. } => out.keep(take(rest, kept)),
                Fate::Tail => out.blank(rest),
                Fate::Lost => out.keep(rest),
            };
        }
    }
}

/// The part of `rest` that belongs to something of which `left` bytes are still to come, which are counted down.
fn take<'r>(rest: &'r [u8], left: &mut u64) -> &'r [u8] {
    let taken = usize::try_from(*left).ok().and_then(|left| rest.get(..left)).unwrap_or(rest);
    *left -= taken.len() as u64;
    taken
}
