//! Waiting for a condition, with a limit that fails the test.

use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value.
///
/// # Panics
/// When `limit` has passed first.
pub async fn until<T, F, C>(what: &str, limit: Duration, mut condition: C) -> T
where
    F: Future<Output = Option<T>>,
    C: FnMut() -> F,
{
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(POLL).await;
    }
}
