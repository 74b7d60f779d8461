//! The recovery ladder as a plain decision: what to change before the next try of a run, or that there is none.
//!
//! ```text
//!   out of memory   1st  empty the cache, evict idle models, halve the batch   (costs time, no quality)
//!                   2nd  one preset lower; if that is not allowed, halve the batch again
//!   weights missing 1st  fetch them into place if a source is known; scan and load again
//!                   2nd  the same after a back-off, if a source is known: it may have been unreachable
//!   connection      back off
//!   time-out        one preset lower
//!   bad input, bug, lost device: nothing here helps
//! ```
//! What costs nothing is done together, so that the last rung is reached within [`TRIES_MAX`] tries.

use super::FailureClass;

/// Tries of one run, the first included.
pub const TRIES_MAX: u32 = 3;

/// Something that is done before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Give the allocator's cached blocks back to the device.
    EmptyCache,
    /// Unload models that nobody uses.
    EvictIdle,
    /// Work on half as much at one time.
    HalveBatch,
    /// Make a cheaper model.
    LowerPreset,
    /// Bring the weights from the configured source.
    FetchWeights,
    /// Look for the model folder again and load it.
    ReloadModel,
    /// Wait.
    BackOff,
}

impl Rung {
    /// The name in job objects and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmptyCache => "empty_cache",
            Self::EvictIdle => "evict_idle",
            Self::HalveBatch => "halve_batch",
            Self::LowerPreset => "lower_preset",
            Self::FetchWeights => "fetch_weights",
            Self::ReloadModel => "reload_model",
            Self::BackOff => "back_off",
        }
    }

    /// Whether the model that comes out is a lesser one.
    pub const fn lowers_quality(self) -> bool {
        matches!(self, Self::LowerPreset)
    }
}

/// What of the present settings can be reduced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reductions {
    /// The batch, or the chunks of the decoder, can be halved.
    pub batch: bool,
    /// There is a lower preset.
    pub preset: bool,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Another try, after these rungs in this order.
    Again(Vec<Rung>),
    /// Nothing helps here.
    GiveUp,
}

/// The ladder of one run.
#[derive(Debug, Clone)]
pub struct Ladder {
    exact: bool,
    has_source: bool,
    tries: u32,
    out_of_memory: u32,
    weights_missing: u32,
}

impl Ladder {
    /// A run that has not been tried yet. `exact` forbids what lowers the quality; `has_source` says whether weights
    /// can be fetched.
    pub fn new(exact: bool, has_source: bool) -> Self {
        Self { exact, has_source, tries: 0, out_of_memory: 0, weights_missing: 0 }
    }

    /// Tries that have failed so far.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// Decides after a failed try.
    pub fn next(&mut self, class: FailureClass, can: Reductions) -> Step {
        self.tries = self.tries.saturating_add(1);
        if self.tries >= TRIES_MAX {
            return Step::GiveUp;
        }
        let can = Reductions { preset: can.preset && !self.exact, ..can };
        let rungs = match class {
            FailureClass::OutOfMemory => self.more_memory(can),
            FailureClass::WeightsMissing => self.weights(),
            FailureClass::Connection => vec![Rung::BackOff],
            FailureClass::TimeOut if can.preset => vec![Rung::LowerPreset],
            FailureClass::TimeOut | FailureClass::BadInput | FailureClass::Bug | FailureClass::DeviceLost => {
                vec![]
            }
        };
        if rungs.is_empty() { Step::GiveUp } else { Step::Again(rungs) }
    }

    fn more_memory(&mut self, can: Reductions) -> Vec<Rung> {
        self.out_of_memory += 1;
        let halved = can.batch.then_some(Rung::HalveBatch);
        if self.out_of_memory == 1 {
            return [Rung::EmptyCache, Rung::EvictIdle].into_iter().chain(halved).collect();
        }
        let lowered = can.preset.then_some(Rung::LowerPreset);
        lowered.or(halved).into_iter().collect()
    }

    fn weights(&mut self) -> Vec<Rung> {
        self.weights_missing += 1;
        match (self.has_source, self.weights_missing) {
            (true, 1) => vec![Rung::FetchWeights, Rung::ReloadModel],
            (true, _) => vec![Rung::BackOff, Rung::FetchWeights, Rung::ReloadModel],
            (false, 1) => vec![Rung::ReloadModel],
            (false, _) => vec![],
        }
    }
}

#[cfg(test)]
mod tests;
