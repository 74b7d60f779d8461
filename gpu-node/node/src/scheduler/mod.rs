//! Who goes next: which queue is asked for work ([`queues`]), and which of the taken jobs gets the device
//! ([`device`]). Both are plain state machines; the drivers beside them do the waiting.

mod device;
pub mod queue;
mod queues;

pub use device::{DeviceQueue, DeviceSlot};
pub(crate) use queues::{Lane, Lanes};
