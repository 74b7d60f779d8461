//! What a device says about its memory, and how much of that is ours to plan with.

/// The memory of a device, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of the device.
    pub total_bytes: u64,
    /// What nobody uses.
    pub free_bytes: u64,
    /// What our tensors use.
    pub allocated_bytes: u64,
    /// What we keep from others, in use or cached.
    pub reserved_bytes: u64,
    /// The most that we kept since the last job began.
    pub peak_bytes: u64,
}

/// A device that can be asked. On an accelerator libtorch's allocator and the driver answer, on a CPU the kernel
/// does for the process and the machine, in tests a script.
pub trait Probe: Send + Sync {
    /// The figures now; `None` where the device does not tell.
    fn read(&self) -> Option<Reading>;
}

impl Reading {
    /// The same as if the device had no more than `limit_bytes`. Others use of that only what they leave us no room
    /// for: on a machine with plenty of free memory they use nothing of our part.
    pub fn within(self, limit_bytes: u64) -> Self {
        let total_bytes = self.total_bytes.min(limit_bytes);
        let free_bytes = self.free_bytes.min(total_bytes.saturating_sub(self.reserved_bytes));
        Self { total_bytes, free_bytes, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vram::{Capacity, Vram};

    const MACHINE: Reading = Reading {
        total_bytes: 1_000,
        free_bytes: 700,
        allocated_bytes: 100,
        reserved_bytes: 100,
        peak_bytes: 100,
    };

    fn foreign(reading: Reading) -> u64 {
        let vram = Vram::new(Capacity { total_bytes: reading.total_bytes, safety_margin: 1.0 });
        vram.observe(reading.free_bytes, reading.reserved_bytes);
        reading.total_bytes - vram.read(|ledger| ledger.budget_bytes())
    }

    #[test]
    fn of_a_part_of_a_machine_others_use_only_what_they_leave_no_room_for() {
        assert_eq!(foreign(MACHINE), 200, "of the whole");
        assert_eq!(foreign(MACHINE.within(500)), 0, "700 are free, 400 of the part are");
        let crowded = Reading { free_bytes: 150, ..MACHINE };
        assert_eq!(foreign(crowded.within(500)), 250);
        assert_eq!(MACHINE.within(5_000), MACHINE, "a limit beyond the device is none");
    }
}
