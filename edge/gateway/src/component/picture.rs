//! The way of a picture into the object store: its bytes are checked and stored while they arrive; then its
//! digest is looked up on the block list and among what is stored already; only then it becomes an object.

use orfeas_edge_nats::jetstream::object::{GetInfo, ObjectInfo, PutInfo, StoredInfo, nuid};
use orfeas_edge_nats::jetstream::{ObjectReader, ObjectWriter, PublishAck, kv};
use orfeas_edge_nats::{Error as BusError, Pending};
use orfeas_intake::{Declared, Inspector, Limits, ValidImage};
use orfeas_protocol::options::RequestOptions;
use orfeas_protocol::subjects::{BLOCKLIST_BUCKET, blocklist_key};
use orfeas_protocol::view::InputImage;
use orfeas_protocol::{Code, Sha256Digest};

use super::clock;
use super::edge::{Bus, Edge, soon};
use super::inbound::RequestBody;
use crate::failure::Failure;
use crate::picture;
use crate::upload::{Event, UploadReader};

/// A picture that is known by its digest; nothing of it is visible yet.
pub(super) enum Picture {
    /// It came with this request.
    Fresh(Box<ValidImage>, ObjectWriter),
    /// It was uploaded before.
    Stored(Sha256Digest),
}

/// A picture that passed every check.
pub(super) struct Accepted {
    pub(super) input: InputImage,
    /// The object to make visible; `None` if it is there already.
    pub(super) new_object: Option<NewObject>,
}

/// An object whose chunks are stored and whose metadata is not.
pub(super) struct NewObject {
    info: ObjectInfo,
    replaces: u64,
    chunks: ObjectWriter,
}

/// Reads the body to its end, and lets `check_options` look at its options. Whatever fails, no chunk stays behind.
///
/// # Errors
/// The body is malformed, or the picture is refused, or the bus is away.
pub(super) async fn receive(
    edge: &Edge,
    bus: &mut Bus,
    reader: UploadReader,
    body: RequestBody,
    check_options: impl Fn(&RequestOptions) -> Result<(), Failure>,
) -> Result<(RequestOptions, Picture), Failure> {
    let bucket = edge.settings.region.names().uploads_bucket();
    let mut intake =
        Intake { inspector: None, writer: ObjectWriter::new(&bucket, nuid(clock::u128_random())) };
    let read = intake.read(bus, reader, body).await;
    match read.and_then(|(options, valid)| check_options(&options).map(|()| (options, valid))) {
        Ok((options, valid)) => {
            let picture = match (valid, options.image_sha256) {
                (Some(valid), _) => Picture::Fresh(Box::new(valid), intake.writer),
                (None, Some(digest)) => Picture::Stored(digest),
                (None, None) => return Err(Failure::internal("an upload without picture was not refused")),
            };
            Ok((options, picture))
        }
        Err(failure) => {
            discard(edge, bus, intake.writer).await;
            Err(failure)
        }
    }
}

struct Intake {
    inspector: Option<Inspector>,
    writer: ObjectWriter,
}

impl Intake {
    async fn read(
        &mut self,
        bus: &mut Bus,
        mut reader: UploadReader,
        mut body: RequestBody,
    ) -> Result<(RequestOptions, Option<ValidImage>), Failure> {
        while let Some(bytes) = body.next().await? {
            reader.push(bytes)?;
            while let Some(event) = reader.next_event()? {
                self.take(bus, event).await?;
            }
        }
        body.finish().await?;
        let upload = reader.finish()?;
        for event in upload.last {
            self.take(bus, event).await?;
        }
        let valid = self.inspector.take().map(Inspector::finish).transpose()?;
        Ok((upload.options, valid))
    }

    async fn take(&mut self, bus: &mut Bus, event: Event) -> Result<(), Failure> {
        match event {
            Event::Image(head) => self.inspector = Some(Inspector::new(head.declared(), Limits::default())),
            Event::Data(bytes) => {
                if let Some(inspector) = &mut self.inspector {
                    inspector.push(&bytes)?;
                }
                self.writer.write(bus, &bytes).await?;
            }
        }
        Ok(())
    }
}

/// Looks the picture up on the block list and in the store. `beside` is a request that the caller wants answered
/// in the same round trip. Whatever fails, no chunk stays behind.
///
/// # Errors
/// The picture is blocked, or not stored; the block list cannot be read; the bus is away.
pub(super) async fn check(
    edge: &Edge,
    bus: &mut Bus,
    picture: Picture,
    beside: Option<Pending<Option<kv::Entry>>>,
) -> Result<(Accepted, Option<kv::Entry>), Failure> {
    let bucket = edge.settings.region.names().uploads_bucket();
    let digest = match &picture {
        Picture::Fresh(valid, _) => valid.sha256,
        Picture::Stored(digest) => *digest,
    };
    let looked_up = look_up(bus, &bucket, digest, beside).await;
    match (picture, looked_up) {
        (Picture::Fresh(_, writer), Err(failure)) => {
            discard(edge, bus, writer).await;
            Err(failure)
        }
        (Picture::Stored(_), Err(failure)) => Err(failure),
        (Picture::Stored(digest), Ok((stored, beside))) => {
            let input = stored_input(bus, digest, stored).await?;
            Ok((Accepted { input, new_object: None }, beside))
        }
        (Picture::Fresh(valid, mut writer), Ok((stored, beside))) => {
            let input = picture::input(&valid);
            if stored.as_ref().is_some_and(|stored| !stored.info.deleted) {
                discard(edge, bus, writer).await;
                return Ok((Accepted { input, new_object: None }, beside));
            }
            let replaces = stored.map_or(0, |stored| stored.sequence);
            let (name, now) = (digest.to_string(), clock::now().to_string());
            match writer.finish(bus, name, digest.as_bytes(), now).await {
                Ok(info) => {
                    let info = ObjectInfo { metadata: picture::metadata(&input), ..info };
                    let new_object = NewObject { info, replaces, chunks: writer };
                    Ok((Accepted { input, new_object: Some(new_object) }, beside))
                }
                Err(error) => {
                    discard(edge, bus, writer).await;
                    Err(error.into())
                }
            }
        }
    }
}

async fn look_up(
    bus: &mut Bus,
    bucket: &str,
    digest: Sha256Digest,
    beside: Option<Pending<Option<kv::Entry>>>,
) -> Result<(Option<StoredInfo>, Option<kv::Entry>), Failure> {
    let key = blocklist_key(&digest);
    let blocked = bus.start(&kv::Get { bucket: BLOCKLIST_BUCKET, key: &key })?;
    let stored = bus.start(&GetInfo { bucket, name: &digest.to_string() })?;
    // A list that cannot be read blocks everything.
    let blocked = bus.finish(blocked, soon()).await?;
    if blocked.is_some_and(|entry| entry.value.is_some()) {
        return Err(Failure::new(Code::FileFlagged, "the picture is on the block list"));
    }
    let stored = bus.finish(stored, soon()).await?;
    let beside = match beside {
        Some(pending) => bus.finish(pending, soon()).await?,
        None => None,
    };
    Ok((stored, beside))
}

/// What is known of a stored picture. One that other clients stored may lack our metadata: then it passes the
/// checks now.
async fn stored_input(
    bus: &mut Bus,
    digest: Sha256Digest,
    stored: Option<StoredInfo>,
) -> Result<InputImage, Failure> {
    let info = match stored {
        Some(StoredInfo { info, .. }) if !info.deleted => info,
        _ => return Err(Failure::new(Code::NotFound, "no stored picture has this `image_sha256`")),
    };
    if let Some(input) = picture::from_metadata(digest, info.size, &info.metadata) {
        return Ok(input);
    }
    let mut inspector = Inspector::new(Declared::default(), Limits::default());
    let mut reader = ObjectReader::new(info);
    while let Some(bytes) = reader.next(bus).await? {
        inspector.push(&bytes)?;
    }
    let valid = inspector.finish()?;
    if valid.sha256 != digest {
        return Err(Failure::internal("a stored picture differs from its name"));
    }
    Ok(picture::input(&valid))
}

impl NewObject {
    /// The request that makes the object visible, to be sent together with others.
    pub(super) fn start(&self, bus: &mut Bus) -> Result<Pending<PublishAck>, BusError> {
        bus.start(&PutInfo { info: &self.info, replaces: self.replaces })
    }

    /// Gives the object up.
    pub(super) async fn abandon(self, edge: &Edge, bus: &mut Bus) {
        discard(edge, bus, self.chunks).await;
    }

    /// Waits until the object is visible, or another upload of the same picture was faster.
    ///
    /// # Errors
    /// The bus is away; no chunk stays behind.
    pub(super) async fn finish(
        self,
        edge: &Edge,
        bus: &mut Bus,
        pending: Pending<PublishAck>,
    ) -> Result<bool, Failure> {
        match bus.finish(pending, soon()).await {
            Ok(_) => Ok(true),
            Err(error) => {
                discard(edge, bus, self.chunks).await;
                if error == BusError::Conflict { Ok(false) } else { Err(error.into()) }
            }
        }
    }
}

/// Removes what was stored, over this connection if it lives, else over another.
pub(super) async fn discard(edge: &Edge, bus: &mut Bus, writer: ObjectWriter) {
    if bus.is_broken() {
        if let Some(purge) = writer.into_purge() {
            edge.purge(purge).await;
        }
    } else if let Err(error) = writer.discard(bus).await {
        eprintln!("chunks stay behind: {error}");
    }
}
