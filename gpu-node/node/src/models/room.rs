//! Memory for models, from whoever accounts for it.

use futures::future::BoxFuture;
use thiserror::Error;

/// Memory that is set aside; dropping it gives it back.
pub type Reserved = Box<dyn Send + Sync>;

/// There is no room for a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no room for a model: {0}")]
pub struct NoRoom(pub String);

/// Who accounts for the device's memory.
pub trait Room: Send + Sync + 'static {
    /// Sets memory aside for a model's weights, and waits for it if need be; it may have other models evicted.
    /// Dropping the future leaves nothing behind. The caller bounds the wait.
    ///
    /// # Errors
    /// There will never be so much room.
    fn reserve(&self, bytes: u64) -> BoxFuture<'_, Result<Reserved, NoRoom>>;
}

/// A device whose memory nobody accounts for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unlimited;

impl Room for Unlimited {
    fn reserve(&self, _bytes: u64) -> BoxFuture<'_, Result<Reserved, NoRoom>> {
        Box::pin(async { Ok(Box::new(()) as Reserved) })
    }
}
