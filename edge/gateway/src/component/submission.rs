//! A picture becomes a job. The order is what makes a submission safe to lose half-way:
//!
//! ```text
//!  pictures checked ─▶ claim of the idempotency key ┐
//!                      pictures visible             ┴─▶ record ─▶ work item ─▶ 202
//! ```
//! Until the work item is acknowledged nothing was promised; whoever sends the same request again finds the
//! claim, and with it the job that it began.

use bytes::Bytes;
use orfeas_edge_nats::jetstream::{Publish, PublishAck, kv};
use orfeas_edge_nats::{Error as BusError, Headers, Lease, Pending};
use orfeas_intake::Limits;
use orfeas_protocol::job::{NewJob, WorkItem};
use orfeas_protocol::options::RequestOptions;
use orfeas_protocol::rollout::{Rollout, RolloutKey};
use orfeas_protocol::subjects::{HEADER_REQUEST_ID, HEADER_TRACEPARENT, ROLLOUT_BUCKET};
use orfeas_protocol::view::JobError;
use orfeas_protocol::{Channel, JobId, JobRecord, JobStatus, Scope};

use super::clock;
use super::edge::{Access, Bus, Edge, soon};
use super::inbound::RequestBody;
use super::jobs::{self, JobWatch};
use super::picture::{self, Accepted};
use super::quota;
use super::receiving::receive;
use crate::auth::Caller;
use crate::failure::Failure;
use crate::head::Head;
use crate::idempotency::{self, Claim};
use crate::reply::CHANNEL;
use crate::upload::{Purpose, UploadReader};

/// JetStream's number for "the stream is full".
const STREAM_FULL: u32 = 10_077;

/// How a resource takes submissions.
pub(super) struct Terms {
    /// Looks at the options before anything is stored for good.
    pub(super) check: fn(&Head, &RequestOptions) -> Result<(), Failure>,
}

/// A job that was submitted, on the connection that did it.
pub(super) struct Submitted {
    pub(super) lease: Lease<'static>,
    pub(super) watch: JobWatch,
    pub(super) record: JobRecord,
    pub(super) options: RequestOptions,
}

/// Takes a request's pictures in and makes a job of them.
///
/// # Errors
/// Whatever is wrong with the request, the picture or the bus.
pub(super) async fn submit(
    edge: &'static Edge,
    head: &Head,
    body: RequestBody,
    terms: Terms,
) -> Result<Submitted, Failure> {
    let reader = UploadReader::new(head, Purpose::Job, Limits::default())?;
    let wanted_channel = channel_override(head)?;
    let Access { mut lease, caller, first: rollout } = edge.enter(head, Scope::Submit, read_rollout).await?;
    let request = Request { edge, head, caller, wanted_channel, rollout };
    match request.run(&mut lease, reader, body, terms.check).await {
        Ok((watch, record, options)) => Ok(Submitted { lease, watch, record, options }),
        Err(failure) => {
            lease.give_back().await;
            Err(failure)
        }
    }
}

/// `X-Orfeas-Channel` of a request.
fn channel_override(head: &Head) -> Result<Option<Channel>, Failure> {
    let channel = head.headers.get(CHANNEL).map(|value| value.to_str().unwrap_or_default().parse());
    channel.transpose().map_err(|error| Failure::invalid(format!("X-Orfeas-Channel is {error}")))
}

/// The state of the rollout. No state, or no bucket, is 0 %.
async fn read_rollout(bus: &mut Bus) -> Result<Rollout, BusError> {
    let get = kv::Get { bucket: ROLLOUT_BUCKET, key: Rollout::KEY };
    let value = match bus.call(&get, soon()).await {
        Ok(entry) => entry.and_then(|entry| entry.value),
        Err(BusError::NoResponders { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(value) = value else { return Ok(Rollout::default()) };
    Ok(serde_json::from_slice(&value).unwrap_or_else(|error| {
        // A state that cannot be read must not send anybody to the canary.
        eprintln!("rollout state is not readable: {error}");
        Rollout::default()
    }))
}

/// A request that was let in.
struct Request<'r> {
    edge: &'static Edge,
    head: &'r Head,
    caller: Caller,
    wanted_channel: Option<Channel>,
    rollout: Rollout,
}

impl Request<'_> {
    async fn run(
        self,
        bus: &mut Bus,
        reader: UploadReader,
        body: RequestBody,
        check_options: fn(&Head, &RequestOptions) -> Result<(), Failure>,
    ) -> Result<(JobWatch, JobRecord, RequestOptions), Failure> {
        let Self { edge, head, caller, wanted_channel, rollout } = self;
        if wanted_channel.is_some() {
            caller.demand(Scope::Admin)?;
        }
        let entry_key = idempotency::entry_key(head, &caller.tenant)?;
        quota::look(edge, bus, &caller, new_job_id()).await?;
        let check_options = |options: &RequestOptions| check_options(head, options);
        let (mut options, pictures) = receive(edge, bus, reader, body, check_options).await?;
        let bucket = edge.settings.region.names().idempotency_bucket();
        let earlier = match &entry_key {
            Some(key) => Some(bus.start(&kv::Get { bucket: &bucket, key })?),
            None => None,
        };
        let (accepted, earlier) = picture::check(edge, bus, pictures, earlier).await?;
        for (side, digest) in &accepted.views {
            options.job.set_view(*side, *digest);
        }
        let by = match caller.is_authenticated {
            true => RolloutKey::Tenant(&caller.tenant),
            false => RolloutKey::Content(&accepted.input.sha256),
        };
        let channel = wanted_channel.unwrap_or_else(|| rollout.channel(by));
        let submission = Submission { edge, head, caller, options, channel, entry_key };
        let (watch, record) = submission.create(bus, accepted, earlier).await?;
        Ok((watch, record, submission.options))
    }
}

/// A request whose pictures were accepted.
struct Submission<'r> {
    edge: &'static Edge,
    head: &'r Head,
    caller: Caller,
    options: RequestOptions,
    channel: Channel,
    /// Where the claim of the idempotency key stands.
    entry_key: Option<String>,
}

impl Submission<'_> {
    async fn create(
        &self,
        bus: &mut Bus,
        accepted: Accepted,
        earlier: Option<kv::Entry>,
    ) -> Result<(JobWatch, JobRecord), Failure> {
        let Accepted { input, new_objects, .. } = accepted;
        let new_id = new_job_id();
        let fingerprint = idempotency::fingerprint(&input.sha256, self.options.job_type, &self.options.job);
        let claimed = match earlier.and_then(|entry| entry.value).map(|json| Claim::read(&json, &fingerprint))
        {
            Some(Ok(claim)) => Some(claim.job_id),
            None => None,
            Some(Err(failure)) => {
                picture::abandon(self.edge, bus, new_objects).await;
                return Err(failure);
            }
        };
        let appearing = picture::start_appearing(bus, new_objects)?;
        let claimed = match (claimed, &self.entry_key) {
            (Some(id), _) => Ok(id),
            (None, Some(key)) => self.claim(bus, key, Claim { job_id: new_id, fingerprint }).await,
            (None, None) => Ok(new_id),
        };
        appearing.finish(self.edge, bus).await?;
        let id = claimed?;

        let region = &self.edge.settings.region;
        let watch = JobWatch::start(bus, region, id)?;
        let new = NewJob {
            id,
            job_type: self.options.job_type,
            tenant: self.caller.tenant.clone(),
            region: region.clone(),
            channel: self.channel,
            options: self.options.job.clone(),
            input,
            request_id: Some(self.head.request_id.clone()),
            traceparent: self.head.traceparent.clone(),
        };
        let record = JobRecord::new(new, clock::now());
        // A job that an earlier request began has been counted with it.
        let counted = match id == new_id {
            true => quota::take(self.edge, bus, &self.caller, Some(id)).await,
            false => Ok(()),
        };
        let outcome = match counted {
            Ok(()) => self.record_and_enqueue(bus, record).await,
            Err(failure) => Err(failure),
        };
        if let (Err(_), Some(key)) = (&outcome, self.entry_key.as_ref().filter(|_| id == new_id)) {
            self.release(bus, key).await;
        }
        Ok((watch, outcome?))
    }

    /// Claims the idempotency key for a job; gives the job that holds the claim, which may be another one's.
    async fn claim(&self, bus: &mut Bus, key: &str, claim: Claim) -> Result<JobId, Failure> {
        let bucket = self.edge.settings.region.names().idempotency_bucket();
        let json = serde_json::to_vec(&claim).map_err(|error| Failure::internal(error.to_string()))?;
        match bus.kv_create(&bucket, key, Bytes::from(json), soon()).await {
            Ok(_) => return Ok(claim.job_id),
            Err(BusError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        let entry = bus.call(&kv::Get { bucket: &bucket, key }, soon()).await?;
        match entry.and_then(|entry| entry.value) {
            Some(json) => Ok(Claim::read(&json, &claim.fingerprint)?.job_id),
            None => Err(Failure::unavailable("an idempotency claim came and went")),
        }
    }

    /// Lets the key be used again after the submission failed, best effort.
    async fn release(&self, bus: &mut Bus, key: &str) {
        let bucket = self.edge.settings.region.names().idempotency_bucket();
        let delete = kv::Put { bucket: &bucket, key, expected: kv::Expected::Anything, value: None };
        let released = match bus.is_broken() {
            false => bus.call(&delete, soon()).await,
            true => self.edge.pool.run(async |bus| bus.call(&delete, soon()).await).await,
        };
        if let Err(error) = released {
            eprintln!("an idempotency claim stays behind: {error}");
        }
    }

    /// Stores the record and puts its work item into the queue. If the record is there already, an earlier try
    /// of this request came that far: its work item is sent once more, as it may never have arrived.
    async fn record_and_enqueue(&self, bus: &mut Bus, record: JobRecord) -> Result<JobRecord, Failure> {
        let pending = jobs::start_store(bus, &record, kv::Expected::Nothing)?;
        let (revision, record) = match bus.finish(pending, soon()).await {
            Ok(revision) => (revision, record),
            Err(BusError::Conflict) => {
                let stored = jobs::load(bus, &record.job.region, record.job.id).await?;
                let stored = stored.ok_or_else(|| Failure::unavailable("a job record came and went"))?;
                if stored.record.job.status != JobStatus::Queued {
                    return Ok(stored.record);
                }
                (stored.revision, stored.record)
            }
            Err(error) => return Err(error.into()),
        };
        jobs::announce(bus, &record)?;
        let enqueued = match self.start_enqueue(bus, &record) {
            Ok(pending) => bus.finish(pending, soon()).await,
            Err(error) => Err(error),
        };
        match enqueued {
            Ok(_) => Ok(record),
            Err(error) => {
                let failure = match error {
                    BusError::Api { err_code: STREAM_FULL, .. } => Failure::queue_full(),
                    error => error.into(),
                };
                self.give_up(bus, record, revision, &failure).await;
                Err(failure)
            }
        }
    }

    fn start_enqueue(&self, bus: &mut Bus, record: &JobRecord) -> Result<Pending<PublishAck>, BusError> {
        let mut headers = Headers::new().with(HEADER_REQUEST_ID, self.head.request_id.as_str());
        if let Some(traceparent) = &self.head.traceparent {
            headers = headers.with(HEADER_TRACEPARENT, traceparent);
        }
        let job = &record.job;
        let subject = job.region.names().work(job.channel, job.priority);
        // A struct with one id always has a JSON form.
        let payload = serde_json::to_vec(&WorkItem { id: job.id }).unwrap_or_default();
        bus.start(&Publish::once(subject, &job.id.to_string(), headers, Bytes::from(payload)))
    }

    /// Marks the record of a job that never came into the queue, best effort. If a node has it after all, the
    /// record has moved on, and stays as it is.
    async fn give_up(&self, bus: &mut Bus, mut record: JobRecord, revision: u64, failure: &Failure) {
        let error = JobError::new(failure.code(), "the job could not be put into the queue");
        if record.fail(error, clock::now()).is_err() {
            return;
        }
        let expected = kv::Expected::Revision(revision);
        let store = async |bus: &mut Bus| match jobs::start_store(bus, &record, expected) {
            Ok(pending) => bus.finish(pending, soon()).await.map(drop),
            Err(_) => Ok(()),
        };
        let stored = match bus.is_broken() {
            false => store(bus).await,
            true => self.edge.pool.run(store).await,
        };
        if let Err(error) = stored {
            eprintln!("record of job {} stays queued without a work item: {error}", record.job.id);
        }
    }
}

fn new_job_id() -> JobId {
    let mut random = [0; 10];
    random.copy_from_slice(clock::random().split_at(10).0);
    JobId::new(clock::now(), random)
}
