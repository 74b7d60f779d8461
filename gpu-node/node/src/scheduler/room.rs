//! Memory for models, out of the budget that jobs share.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::timeout;

use super::driver::Shared;
use crate::models::{NoRoom, Reserved, Room};
use crate::vram::Refusal;

/// How often somebody who waits looks again whether an idle model can go and whether others have given memory back.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// The room of a scheduler's device.
pub(super) struct DeviceRoom {
    shared: Arc<Shared>,
}

impl DeviceRoom {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Room for DeviceRoom {
    fn reserve(&self, bytes: u64) -> BoxFuture<'_, Result<Reserved, NoRoom>> {
        let Shared { memory, models, .. } = self.shared.as_ref();
        Box::pin(async move {
            loop {
                memory.refresh();
                match memory.vram().try_reserve(bytes) {
                    Ok(permit) => return Ok(Box::new(permit) as Reserved),
                    Err(refusal @ Refusal::NeverFits { .. }) => return Err(NoRoom(refusal.to_string())),
                    Err(Refusal::NoRoomNow { available_bytes, .. }) => {
                        if models.evict_idle(bytes - available_bytes).await > 0 {
                            continue;
                        }
                        if let Ok(Ok(permit)) = timeout(LOOK_INTERVAL, memory.vram().reserve(bytes)).await {
                            return Ok(Box::new(permit) as Reserved);
                        }
                    }
                }
            }
        })
    }
}
