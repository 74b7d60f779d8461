//! Time and randomness from the host.

use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::{Either, select};
use orfeas_protocol::Timestamp;
use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::random::random::get_random_u64;

/// The time of day.
pub(super) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Random bytes.
pub(super) fn random() -> [u8; 16] {
    u128_random().to_le_bytes()
}

/// A random number.
pub(super) fn u128_random() -> u128 {
    u128::from(get_random_u64()) << 64 | u128::from(get_random_u64())
}

/// The future's output, or `None` if it takes longer.
pub(super) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let timer = pin!(wait_for(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)));
    match select(pin!(future), timer).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}
