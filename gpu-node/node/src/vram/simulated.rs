//! A device whose memory a test takes and gives back.

use std::sync::Mutex;

use super::probe::{Probe, Reading};

/// The device.
#[derive(Debug)]
pub(crate) struct SimulatedDevice {
    total_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    own_bytes: u64,
    peak_bytes: u64,
    foreign_bytes: u64,
}

/// The device has no more memory to give.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

impl SimulatedDevice {
    pub(crate) fn new(total_bytes: u64) -> Self {
        Self { total_bytes, held: Mutex::new(Held::default()) }
    }

    pub(crate) fn allocate(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let mut held = self.held.lock().unwrap();
        if held.own_bytes + held.foreign_bytes + bytes > self.total_bytes {
            return Err(OutOfMemory);
        }
        held.own_bytes += bytes;
        held.peak_bytes = held.peak_bytes.max(held.own_bytes);
        Ok(())
    }

    pub(crate) fn free(&self, bytes: u64) {
        self.held.lock().unwrap().own_bytes -= bytes;
    }

    /// Another process takes or gives back; it gets no more than there is.
    pub(crate) fn set_foreign(&self, bytes: u64) -> u64 {
        let mut held = self.held.lock().unwrap();
        held.foreign_bytes = bytes.min(self.total_bytes - held.own_bytes);
        held.foreign_bytes
    }
}

impl Probe for SimulatedDevice {
    fn read(&self) -> Option<Reading> {
        let held = self.held.lock().unwrap();
        Some(Reading {
            total_bytes: self.total_bytes,
            free_bytes: self.total_bytes - held.own_bytes - held.foreign_bytes,
            allocated_bytes: held.own_bytes,
            reserved_bytes: held.own_bytes,
            peak_bytes: held.peak_bytes,
        })
    }
}
