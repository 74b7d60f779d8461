//! A request's pictures, once their bytes are stored (receiving.rs): each digest is looked up on the block list and
//! among what is stored already; only when all of them have passed, the new ones become objects.

use orfeas_edge_nats::jetstream::object::{GetInfo, ObjectInfo, PutInfo, StoredInfo};
use orfeas_edge_nats::jetstream::{ObjectReader, ObjectWriter, PublishAck, PurgeSubject, kv};
use orfeas_edge_nats::{Error as BusError, Pending};
use orfeas_intake::{Declared, Limits, Received, Receiver};
use orfeas_protocol::picture::{from_metadata, is_made_from, metadata};
use orfeas_protocol::subjects::{BLOCKLIST_BUCKET, blocklist_key};
use orfeas_protocol::view::InputImage;
use orfeas_protocol::{Code, Sha256Digest, Side};

use super::clock;
use super::edge::{Bus, Edge, soon};
use super::receiving::refused;
use crate::failure::Failure;
use crate::picture;
use crate::upload::Pictured;

/// A picture that is known by its digest; nothing of it is visible yet.
pub(super) enum Picture {
    /// It came with this request.
    Fresh(Box<Received>, ObjectWriter),
    /// It was uploaded before.
    Stored(Sha256Digest),
}

impl Picture {
    fn digest(&self) -> Sha256Digest {
        match self {
            Self::Fresh(received, _) => received.image.sha256,
            Self::Stored(digest) => *digest,
        }
    }

    /// What holds its chunks, if some of them are with the server already.
    fn begun_writer(&mut self) -> Option<&mut ObjectWriter> {
        match self {
            Self::Fresh(_, writer) if writer.has_sent() => Some(writer),
            _ => None,
        }
    }

    /// What holds its chunks, if they came with this request.
    pub(super) fn into_writer(self) -> Option<ObjectWriter> {
        match self {
            Self::Fresh(_, writer) => Some(writer),
            Self::Stored(_) => None,
        }
    }
}

/// The pictures of a request.
pub(super) struct Pictures {
    pub(super) front: Picture,
    pub(super) others: Vec<(Side, Picture)>,
}

/// Pictures that have passed every check.
pub(super) struct Accepted {
    /// The front.
    pub(super) input: InputImage,
    pub(super) views: Vec<(Side, Sha256Digest)>,
    /// The objects to make visible: those that are not there already.
    pub(super) new_objects: Vec<NewObject>,
}

/// An object whose chunks are stored and whose metadata is not.
pub(super) struct NewObject {
    info: ObjectInfo,
    replaces: u64,
    /// Removes the chunks of the object in its place, which somebody stored with its metadata.
    replaced: Option<PurgeSubject>,
    chunks: ObjectWriter,
}

/// Looks pictures up on the block list and in the store. `beside` is a request that the caller wants answered in the
/// same round trip as the first. Whatever fails, no chunk stays behind.
///
/// # Errors
/// A picture is blocked, or not stored; the block list cannot be read; the bus is away.
pub(super) async fn check(
    edge: &Edge,
    bus: &mut Bus,
    pictures: Pictures,
    beside: Option<Pending<Option<kv::Entry>>>,
) -> Result<(Accepted, Option<kv::Entry>), Failure> {
    let Pictures { front, others } = pictures;
    let mut left = others.into_iter();
    let mut new_objects = Vec::new();
    let outcome = async {
        let (input, new_object, beside) = check_one(edge, bus, front, beside).await?;
        new_objects.extend(new_object);
        let mut views = Vec::new();
        for (side, picture) in left.by_ref() {
            let checked = check_one(edge, bus, picture, None).await;
            let (view, new_object, _) = checked.map_err(|failure| refused(Pictured::Other(side), failure))?;
            views.push((side, view.sha256));
            new_objects.extend(new_object);
        }
        Ok::<_, Failure>((input, views, beside))
    }
    .await;
    match outcome {
        Ok((input, views, beside)) => Ok((Accepted { input, views, new_objects }, beside)),
        Err(failure) => {
            abandon(edge, bus, new_objects).await;
            for writer in left.filter_map(|(_, picture)| picture.into_writer()) {
                discard(edge, bus, writer).await;
            }
            Err(failure)
        }
    }
}

/// Checks one picture. If it fails, its own chunks are gone.
async fn check_one(
    edge: &Edge,
    bus: &mut Bus,
    mut picture: Picture,
    beside: Option<Pending<Option<kv::Entry>>>,
) -> Result<(InputImage, Option<NewObject>, Option<kv::Entry>), Failure> {
    let bucket = edge.settings.region.names().uploads_bucket();
    let digest = picture.digest();
    let looked_up = look_up(bus, &bucket, digest, picture.begun_writer(), beside).await;
    match (picture, looked_up) {
        (picture, Err(failure)) => {
            if let Some(writer) = picture.into_writer() {
                discard(edge, bus, writer).await;
            }
            Err(failure)
        }
        (Picture::Stored(digest), Ok((stored, beside))) => {
            Ok((stored_input(bus, digest, stored).await?, None, beside))
        }
        (Picture::Fresh(received, mut writer), Ok((stored, beside))) => {
            let input = picture::input(&received.image);
            let found = stored.as_ref().map(|stored| &stored.info).filter(|info| !info.deleted);
            if found.is_some_and(|info| is_made_from(&digest, &info.metadata)) {
                discard(edge, bus, writer).await;
                return Ok((input, None, beside));
            }
            let replaced = found.map(ObjectInfo::purge_chunks);
            let replaces = stored.map_or(0, |stored| stored.sequence);
            // The name is the digest of what was sent; the store's own digest is that of what it holds.
            let (name, now) = (digest.to_string(), clock::now().to_string());
            match writer.finish(bus, name, received.stored_sha256.as_bytes(), now).await {
                Ok(info) => {
                    let info = ObjectInfo { metadata: metadata(&input), ..info };
                    Ok((input, Some(NewObject { info, replaces, replaced, chunks: writer }), beside))
                }
                Err(error) => {
                    discard(edge, bus, writer).await;
                    Err(error.into())
                }
            }
        }
    }
}

/// Looks a digest up on the block list and among what is stored. The last chunk of `begun` goes out with the questions:
/// it is on the server's disk when the answers are here. Of a small picture nothing is sent before them.
async fn look_up(
    bus: &mut Bus,
    bucket: &str,
    digest: Sha256Digest,
    begun: Option<&mut ObjectWriter>,
    beside: Option<Pending<Option<kv::Entry>>>,
) -> Result<(Option<StoredInfo>, Option<kv::Entry>), Failure> {
    let key = blocklist_key(&digest);
    let blocked = bus.start(&kv::Get { bucket: BLOCKLIST_BUCKET, key: &key })?;
    let stored = bus.start(&GetInfo { bucket, name: &digest.to_string() })?;
    if let Some(writer) = begun {
        writer.send_rest(bus).await?;
    }
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
        _ => return Err(Failure::new(Code::NotFound, "no stored picture has this digest")),
    };
    if let Some(input) = from_metadata(digest, info.size, &info.metadata) {
        return Ok(input);
    }
    let is_marked = is_made_from(&digest, &info.metadata);
    let mut receiver = Receiver::new(Declared::default(), Limits::default());
    let mut reader = ObjectReader::new(info);
    let mut stripped = Vec::new();
    while let Some(bytes) = reader.next(bus).await? {
        receiver.push(&bytes, &mut stripped)?;
        stripped.clear();
    }
    let Received { image, stored_sha256 } = receiver.finish(&mut stripped)?;
    // Either the bytes are what was sent, or what is left of it without its metadata.
    let is_left = is_marked && stored_sha256 == image.sha256;
    if image.sha256 != digest && !is_left {
        return Err(Failure::internal("a stored picture differs from its name"));
    }
    Ok(InputImage { sha256: digest, ..picture::input(&image) })
}

/// Objects that are becoming visible: what was asked of the bus together with other requests.
pub(super) struct Appearing(Vec<(NewObject, Pending<PublishAck>)>);

/// Asks for objects to become visible, to be sent together with other requests.
///
/// # Errors
/// The bus is away.
pub(super) fn start_appearing(bus: &mut Bus, objects: Vec<NewObject>) -> Result<Appearing, BusError> {
    let mut appearing = Vec::with_capacity(objects.len());
    for object in objects {
        let pending = bus.start(&PutInfo { info: &object.info, replaces: object.replaces })?;
        appearing.push((object, pending));
    }
    Ok(Appearing(appearing))
}

impl Appearing {
    /// Waits until every object is visible, or another upload of the same picture was faster. Tells whether one of
    /// them was not there before.
    ///
    /// # Errors
    /// The bus is away; no chunk of an object that is not visible stays behind.
    pub(super) async fn finish(self, edge: &Edge, bus: &mut Bus) -> Result<bool, Failure> {
        let mut outcome = Ok(false);
        for (object, pending) in self.0 {
            match bus.finish(pending, soon()).await {
                Ok(_) => match object.replaced {
                    None => outcome = outcome.map(|_| true),
                    Some(purge) => {
                        if let Err(error) = bus.call(&purge, soon()).await {
                            eprintln!("replaced chunks stay until their age removes them: {error}");
                        }
                    }
                },
                Err(error) => {
                    discard(edge, bus, object.chunks).await;
                    if error != BusError::Conflict {
                        outcome = outcome.and(Err(error.into()));
                    }
                }
            }
        }
        outcome
    }
}

/// Gives objects up before they are visible.
pub(super) async fn abandon(edge: &Edge, bus: &mut Bus, objects: Vec<NewObject>) {
    for object in objects {
        discard(edge, bus, object.chunks).await;
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
