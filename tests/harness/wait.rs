//! Waiting for a condition, with a limit that fails the test.

use std::future::Future;
use std::time::{Duration, Instant};

/// For whatever comes at once by itself: long enough for a machine that does other things, or nothing for a while.
pub const PATIENCE: Duration = Duration::from_secs(60);
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

/// The longest of some times but one. A machine stalls now and then; what is slow by itself is slow each time.
///
/// # Panics
/// When there are fewer than two.
pub fn longest_but_one(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() - 2]
}
