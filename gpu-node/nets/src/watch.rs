//! How long work is followed and stopped.

use crate::Error;
use orfeas_torch::memory;
use std::ops::ControlFlow;
use tch::Device;

/// Follows work of `total` parts (denoising steps, chunks of points).
///
/// Any closure `FnMut(done, total) -> ControlFlow<()>` is one.
pub trait Watch {
    /// `done` parts are done, from 0 on. `Break` stops the work with
    /// [`Error::Cancelled`] before the next part.
    fn tick(&mut self, done: usize, total: usize) -> ControlFlow<()>;
}

impl<F: FnMut(usize, usize) -> ControlFlow<()>> Watch for F {
    fn tick(&mut self, done: usize, total: usize) -> ControlFlow<()> {
        self(done, total)
    }
}

/// Nobody watches: the work runs to its end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn tick(&mut self, _done: usize, _total: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Reports to the watch once the device has done what it was given: it works
/// asynchronously, and neither progress nor cancelling may run ahead of it.
pub(crate) fn tick(watch: &mut dyn Watch, device: Device, done: usize, total: usize) -> Result<(), Error> {
    if device != Device::Cpu {
        memory::synchronize(device)?;
    }
    match watch.tick(done, total) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    }
}
