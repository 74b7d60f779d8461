//! The engine's device, as the memory's probe.

use std::sync::Arc;

use crate::pipeline::Engine;
use crate::vram::probe::{Probe, Reading};

/// Asks the engine.
pub struct EngineProbe(
    /// Whose device it is.
    pub Arc<dyn Engine>,
);

impl Probe for EngineProbe {
    fn read(&self) -> Option<Reading> {
        let memory = self.0.memory();
        // All zero where the device does not tell.
        (memory.total_bytes > 0).then_some(Reading {
            total_bytes: memory.total_bytes,
            free_bytes: memory.free_bytes,
            allocated_bytes: memory.allocated_bytes,
            reserved_bytes: memory.reserved_bytes,
            peak_bytes: memory.peak_bytes,
        })
    }
}
