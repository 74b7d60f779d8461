//! The device allocator: what it holds, and how to make it give back.
//!
//! libtorch keeps freed blocks for itself (`reserved`); what tensors use is
//! `allocated`. The CPU has no such allocator and answers
//! [`TorchError::NoAccelerator`].

use crate::TorchError;
use crate::ffi::{self, RawStats, check};
use std::ffi::c_int;
use tch::Device;

/// Memory of one device, in bytes, as libtorch's caching allocator counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryStats {
    /// Free on the device, as the driver says: other processes count.
    pub free_bytes: u64,
    /// The device's memory.
    pub total_bytes: u64,
    /// In use by this process's tensors.
    pub allocated_bytes: u64,
    /// Held by this process's allocator, in use or cached.
    pub reserved_bytes: u64,
    /// Highest `allocated_bytes` since start or [`reset_peak`].
    pub peak_allocated_bytes: u64,
    /// Highest `reserved_bytes` since start or [`reset_peak`].
    pub peak_reserved_bytes: u64,
    /// Allocations refused for lack of memory since start.
    pub num_ooms: u64,
    /// Allocations that succeeded only after the cache was emptied, since start.
    pub num_retries: u64,
}

/// Reads a device's figures.
pub fn stats(device: Device) -> Result<MemoryStats, TorchError> {
    let index = accelerator_index(device)?;
    let mut raw = RawStats::default();
    // SAFETY: `raw` has the shim's layout and outlives the call.
    check(unsafe { ffi::orfeas_torch_memory_stats(index, &mut raw) })?;
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(MemoryStats {
        free_bytes: raw.free_bytes,
        total_bytes: raw.total_bytes,
        allocated_bytes: count(raw.allocated_bytes),
        reserved_bytes: count(raw.reserved_bytes),
        peak_allocated_bytes: count(raw.allocated_peak_bytes),
        peak_reserved_bytes: count(raw.reserved_peak_bytes),
        num_ooms: count(raw.num_ooms),
        num_retries: count(raw.num_alloc_retries),
    })
}

/// Starts the peaks again from the present figures.
pub fn reset_peak(device: Device) -> Result<(), TorchError> {
    let index = accelerator_index(device)?;
    // SAFETY: plain values.
    check(unsafe { ffi::orfeas_torch_reset_peak(index) })
}

/// Returns cached blocks to the driver. It waits for the device and empties the
/// cache of all accelerators, as libtorch has it.
pub fn empty_cache(device: Device) -> Result<(), TorchError> {
    accelerator_index(device)?;
    // SAFETY: no arguments.
    check(unsafe { ffi::orfeas_torch_empty_cache() })
}

/// Waits until the device has done all work given to it. Errors of that work surface here.
pub fn synchronize(device: Device) -> Result<(), TorchError> {
    let index = accelerator_index(device)?;
    // SAFETY: plain values.
    check(unsafe { ffi::orfeas_torch_synchronize(index) })
}

fn accelerator_index(device: Device) -> Result<c_int, TorchError> {
    match device {
        Device::Cuda(index) => c_int::try_from(index).map_err(|_| TorchError::NoAccelerator),
        _ => Err(TorchError::NoAccelerator),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says_no_accelerator<T: std::fmt::Debug>(outcome: Result<T, TorchError>) -> bool {
        matches!(outcome, Err(TorchError::NoAccelerator))
    }

    #[test]
    fn the_cpu_answers_that_it_is_no_accelerator() {
        assert!(says_no_accelerator(stats(Device::Cpu)));
        assert!(says_no_accelerator(empty_cache(Device::Cpu)));
        assert!(says_no_accelerator(synchronize(Device::Cpu)));
        assert!(says_no_accelerator(reset_peak(Device::Cpu)));
    }

    #[test]
    fn a_cuda_device_answers_with_figures_or_says_that_it_is_not_there() {
        let backend = crate::Backend::load(None).unwrap();
        if backend.cuda_devices() == 0 {
            assert!(says_no_accelerator(stats(Device::Cuda(0))));
            assert!(says_no_accelerator(empty_cache(Device::Cuda(0))));
            assert!(says_no_accelerator(synchronize(Device::Cuda(0))));
            return;
        }
        let device = Device::Cuda(0);
        let tensor = tch::Tensor::zeros([1 << 20], (tch::Kind::Float, device));
        synchronize(device).unwrap();
        let with = stats(device).unwrap();
        assert!(with.allocated_bytes >= 4 << 20 && with.reserved_bytes >= with.allocated_bytes);
        assert!(with.total_bytes >= with.free_bytes && with.peak_allocated_bytes >= with.allocated_bytes);
        drop(tensor);
        empty_cache(device).unwrap();
        assert!(stats(device).unwrap().allocated_bytes < with.allocated_bytes);
    }
}
