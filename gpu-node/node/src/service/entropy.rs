//! The clock and the dice: the two inputs that plain code gets as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

use orfeas_protocol::{JobId, Timestamp};

/// The time now.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A number in 0..1 for jitter. Without randomness everybody draws the middle, which is safe.
pub(crate) fn unit() -> f64 {
    getrandom::u32().map_or(0.5, |draw| f64::from(draw) / (f64::from(u32::MAX) + 1.0))
}

/// A fresh job id.
///
/// # Errors
/// The operating system gives no randomness.
pub(crate) fn job_id() -> Result<JobId, getrandom::Error> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    Ok(JobId::new(now(), random))
}
