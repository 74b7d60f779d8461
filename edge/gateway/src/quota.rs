//! What a tenant uses of what its key allows: open jobs, and a rate. One value per tenant in a bucket holds both
//! and is moved by compare-and-set, so the bounds hold across edges, and hold without a node.
//!
//! Jobs end without anybody telling this value. Only when the list is full are its jobs' records looked at, and
//! those that have ended leave it. The rate is the generic cell rate algorithm (ITU-T I.371): one time stands for
//! a bucket of tokens.

use std::time::Duration;

use orfeas_protocol::{Code, JobId, KeyLimits, Problem, Timestamp};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A job whose record is not there yet may still be on its way to it for this long.
pub const UNRECORDED_MAX: Duration = Duration::from_secs(60);

/// What the rate counts in.
const MINUTE_MS: u64 = 60_000;

/// When to come back with too many jobs: one takes seconds.
const RETRY_AFTER_JOBS_SECONDS: u32 = 10;

/// Why a request is more than its tenant may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// As many jobs as the limit have not ended.
    Jobs {
        /// The limit.
        limit: u32,
    },
    /// The rate.
    Rate {
        /// The limit.
        per_minute: u32,
        /// Until the next request may come.
        wait: Duration,
    },
}

impl From<Excess> for Failure {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Jobs { limit } => {
                let detail = format!("{limit} jobs of this tenant have not ended; that is its limit");
                Problem::new(Code::TooManyJobs, detail)
                    .with("limit", limit)
                    .retry_after(RETRY_AFTER_JOBS_SECONDS)
            }
            Excess::Rate { per_minute, wait } => {
                let detail = format!("this tenant may upload or submit {per_minute} times a minute");
                let seconds = u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
                Problem::new(Code::RateLimited, detail).with("limit", per_minute).retry_after(seconds.max(1))
            }
        }
        .into()
    }
}

/// What a tenant uses: the value in the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Jobs that had not ended when they were last looked at.
    open: Vec<JobId>,
    /// Milliseconds since the epoch up to which the rate is used up, were requests spread evenly.
    rate_used_until_ms: u64,
}

impl Usage {
    /// Reads the value. One that cannot be read counts as no use: it must not lock its tenant out.
    pub fn read(json: Option<&[u8]>) -> Self {
        json.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
    }

    /// The value.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings and a number always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The jobs that are counted.
    pub fn open(&self) -> &[JobId] {
        &self.open
    }

    /// Leaves those jobs that the test keeps.
    pub fn retain(&mut self, keep: impl Fn(JobId) -> bool) {
        self.open.retain(|id| keep(*id));
    }

    /// Whether another request is within the limits; with `job`, also whether a job that is not counted yet is.
    ///
    /// # Errors
    /// What is exceeded.
    pub fn check(&self, limits: KeyLimits, now: Timestamp, job: Option<JobId>) -> Result<(), Excess> {
        if let Some(per_minute) = limits.per_minute {
            let interval_ms = interval_ms(per_minute.get());
            let ahead_ms = self.used_ahead_ms(now) + interval_ms;
            if ahead_ms > MINUTE_MS {
                let wait = Duration::from_millis(ahead_ms - MINUTE_MS);
                return Err(Excess::Rate { per_minute: per_minute.get(), wait });
            }
        }
        let Some(limit) = limits.jobs.map(|jobs| jobs.get().min(KeyLimits::JOBS_MAX)) else { return Ok(()) };
        let is_new = job.is_some_and(|job| !self.open.contains(&job));
        if is_new && self.open.len() >= limit as usize {
            return Err(Excess::Jobs { limit });
        }
        Ok(())
    }

    /// Counts a request, and its job.
    ///
    /// # Errors
    /// What is exceeded; nothing is counted then.
    pub fn take(&mut self, limits: KeyLimits, now: Timestamp, job: Option<JobId>) -> Result<(), Excess> {
        self.check(limits, now, job)?;
        if let Some(per_minute) = limits.per_minute {
            self.rate_used_until_ms = now.unix_ms() + self.used_ahead_ms(now) + interval_ms(per_minute.get());
        }
        if let Some(job) = job.filter(|job| limits.jobs.is_some() && !self.open.contains(job)) {
            self.open.push(job);
        }
        Ok(())
    }

    /// How much of the coming time is used up: a minute at most, or a little more by another machine's clock.
    /// Much more is a clock that was wrong, and must not lock its tenant out.
    fn used_ahead_ms(&self, now: Timestamp) -> u64 {
        match self.rate_used_until_ms.saturating_sub(now.unix_ms()) {
            nonsense if nonsense > 2 * MINUTE_MS => 0,
            ahead => ahead.min(MINUTE_MS),
        }
    }
}

/// The time that one request takes of a minute.
fn interval_ms(per_minute: u32) -> u64 {
    (MINUTE_MS / u64::from(per_minute.max(1))).max(1)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn at(unix_ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(unix_ms)
    }

    fn job(number: u8) -> JobId {
        JobId::new(at(1), [number; 10])
    }

    fn limits(jobs: Option<u32>, per_minute: Option<u32>) -> KeyLimits {
        KeyLimits { jobs: jobs.and_then(NonZeroU32::new), per_minute: per_minute.and_then(NonZeroU32::new) }
    }

    #[test]
    fn a_job_is_counted_once_and_room_comes_with_its_end() {
        let limits = limits(Some(2), None);
        let mut usage = Usage::default();
        for id in [job(1), job(1), job(2)] {
            usage.take(limits, at(0), Some(id)).unwrap();
        }
        assert_eq!(usage.take(limits, at(0), Some(job(3))), Err(Excess::Jobs { limit: 2 }));
        assert_eq!(usage.take(limits, at(0), Some(job(2))), Ok(()), "a job that is counted is within");
        usage.retain(|id| id != job(1));
        usage.take(limits, at(0), Some(job(3))).unwrap();
        assert_eq!(usage.open(), [job(2), job(3)]);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let limits = limits(None, Some(6));
        let mut usage = Usage::default();
        for _ in 0..6 {
            usage.take(limits, at(1_000), None).unwrap();
        }
        let excess = usage.take(limits, at(1_000), None).unwrap_err();
        assert_eq!(excess, Excess::Rate { per_minute: 6, wait: Duration::from_secs(10) });
        assert!(usage.take(limits, at(10_999), None).is_err());
        usage.take(limits, at(11_000), None).unwrap();
        let reply = Failure::from(excess).into_reply("r".parse().unwrap());
        assert_eq!((reply.status.as_u16(), &reply.headers["retry-after"]), (429, &"10".parse().unwrap()));
    }

    #[test]
    fn a_value_of_a_wrong_clock_or_of_nonsense_locks_nobody_out() {
        let mut usage = Usage::read(Some(br#"{"rate_used_until_ms":18446744073709551615}"#));
        usage.take(limits(None, Some(60)), at(0), None).unwrap();
        assert_eq!(Usage::read(Some(b"x")), Usage::default());
        let mut once_a_minute = Usage::default();
        once_a_minute.take(limits(None, Some(1)), at(0), None).unwrap();
        assert!(once_a_minute.take(limits(None, Some(1)), at(59_999), None).is_err());
        once_a_minute.take(limits(None, Some(1)), at(60_000), None).unwrap();
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_twice_the_rate_and_none_of_even_requests_is_refused(
            per_minute in 1u32..200, gaps in prop::collection::vec(0u64..5_000, 1..300)
        ) {
            let limits = limits(None, Some(per_minute));
            let (mut usage, mut now, mut taken) = (Usage::default(), 1_000_000, Vec::new());
            for gap in gaps {
                now += gap;
                if usage.take(limits, at(now), None).is_ok() {
                    taken.push(now);
                }
            }
            for start in &taken {
                let within = taken.iter().filter(|time| (*start..start + MINUTE_MS).contains(*time)).count();
                // A full minute's worth at once, and what comes back while it passes.
                prop_assert!(within as u32 <= 2 * per_minute + 1, "{within} in a minute of {per_minute}");
            }
            let (mut even, mut now) = (Usage::default(), 1_000_000);
            for _ in 0..50 {
                prop_assert!(even.take(limits, at(now), None).is_ok());
                now += interval_ms(per_minute);
            }
        }
    }
}
