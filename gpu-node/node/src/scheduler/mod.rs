//! Who goes next: which queue is asked for work ([`queues`]), and which of the taken jobs gets the device
//! ([`device`]). Both are plain state machines; the drivers beside them do the waiting.

mod device;
mod queues;

use futures::future::BoxFuture;

use crate::pipeline::{FamilyInfo, Generated, GenerationRequest, Inference, Monitor, PipelineError};

pub use device::{DeviceQueue, DeviceSlot};
pub(crate) use queues::{Lane, Lanes};

/// What runs a request: the device's inference thread, or a scripted one in tests of the service.
pub trait Engine: Send + Sync + 'static {
    /// Runs a request to its end; dropping the future cancels it.
    fn generate(
        &self,
        request: GenerationRequest,
        monitor: Box<dyn Monitor>,
    ) -> BoxFuture<'_, Result<Generated, PipelineError>>;

    /// The model families that can run.
    fn families(&self) -> &[FamilyInfo];
}

impl Engine for Inference {
    fn generate(
        &self,
        request: GenerationRequest,
        monitor: Box<dyn Monitor>,
    ) -> BoxFuture<'_, Result<Generated, PipelineError>> {
        Box::pin(Inference::generate(self, request, monitor))
    }

    fn families(&self) -> &[FamilyInfo] {
        Inference::families(self)
    }
}
