//! A request's pictures on their way from its body into the object store: each is checked, and stored without its
//! metadata, while it arrives, one after the other, so that a request needs the memory of one picture's checks.
//!
//! ```text
//!  body ─▶ UploadReader ─▶ Receiver ─▶ ObjectWriter of the picture that comes ─▶ Picture: chunks, not yet visible
//! ```

use orfeas_edge_nats::jetstream::ObjectWriter;
use orfeas_edge_nats::jetstream::object::nuid;
use orfeas_intake::{Limits, Receiver};
use orfeas_protocol::options::RequestOptions;

use super::clock;
use super::edge::{Bus, Edge};
use super::inbound::RequestBody;
use super::picture::{self, Picture, Pictures};
use crate::failure::Failure;
use crate::upload::{Event, Pictured, UploadReader};

/// Reads the body to its end, and lets `check_options` look at its options. Whatever fails, no chunk stays behind.
///
/// # Errors
/// The body is malformed, or a picture is refused, or the bus is away.
pub(super) async fn receive(
    edge: &Edge,
    bus: &mut Bus,
    reader: UploadReader,
    body: RequestBody,
    check_options: impl Fn(&RequestOptions) -> Result<(), Failure>,
) -> Result<(RequestOptions, Pictures), Failure> {
    let bucket = edge.settings.region.names().uploads_bucket();
    let mut arrival = Arrival { bucket, coming: None, complete: Vec::new() };
    let read = arrival.read(bus, reader, body).await;
    match read.and_then(|options| check_options(&options).map(|()| options)) {
        Ok(options) => match arrival.pictures(&options) {
            Some(pictures) => Ok((options, pictures)),
            None => Err(Failure::internal("an upload without picture was not refused")),
        },
        Err(failure) => {
            arrival.discard(edge, bus).await;
            Err(failure)
        }
    }
}

/// What has arrived of a request's pictures.
struct Arrival {
    bucket: String,
    coming: Option<Coming>,
    complete: Vec<(Pictured, Picture)>,
}

/// The picture whose bytes are coming.
struct Coming {
    pictured: Pictured,
    /// `None` once it has said what it thinks.
    receiver: Option<Receiver>,
    /// What it gave and the writer has not taken yet: empty between two events.
    stripped: Vec<u8>,
    writer: ObjectWriter,
}

impl Arrival {
    async fn read(
        &mut self,
        bus: &mut Bus,
        mut reader: UploadReader,
        mut body: RequestBody,
    ) -> Result<RequestOptions, Failure> {
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
        self.end_picture(bus).await?;
        Ok(upload.options)
    }

    async fn take(&mut self, bus: &mut Bus, event: Event) -> Result<(), Failure> {
        match event {
            Event::Image(pictured, head) => {
                self.end_picture(bus).await?;
                let receiver = Receiver::new(head.declared(), Limits::default());
                let writer = ObjectWriter::new(&self.bucket, nuid(clock::u128_random()));
                self.coming =
                    Some(Coming { pictured, receiver: Some(receiver), stripped: Vec::new(), writer });
            }
            Event::Data(bytes) => {
                if let Some(Coming { pictured, receiver: Some(receiver), stripped, writer }) =
                    &mut self.coming
                {
                    let pushed = receiver.push(&bytes, stripped);
                    pushed.map_err(|rejection| refused(*pictured, rejection.into()))?;
                    writer.write(bus, stripped).await?;
                    stripped.clear();
                }
            }
        }
        Ok(())
    }

    async fn end_picture(&mut self, bus: &mut Bus) -> Result<(), Failure> {
        let Some(Coming { pictured, receiver, stripped, writer }) = &mut self.coming else { return Ok(()) };
        let pictured = *pictured;
        if let Some(receiver) = receiver.take() {
            // Of a picture that is refused the writer stays where it is, to be discarded with the others.
            let received = receiver.finish(stripped);
            let received = received.map_err(|rejection| refused(pictured, rejection.into()))?;
            writer.write(bus, stripped).await?;
            let writer = self.coming.take().map(|coming| coming.writer);
            let picture = writer.map(|writer| (pictured, Picture::Fresh(Box::new(received), writer)));
            self.complete.extend(picture);
        }
        Ok(())
    }

    /// Those that came, and those that the options name; `None` without a front.
    fn pictures(self, options: &RequestOptions) -> Option<Pictures> {
        let mut front = options.image_sha256.map(Picture::Stored);
        let mut others: Vec<_> =
            options.job.views().map(|(side, digest)| (side, Picture::Stored(digest))).collect();
        for (pictured, picture) in self.complete {
            match pictured {
                Pictured::Front => front = Some(picture),
                Pictured::Other(side) => others.push((side, picture)),
            }
        }
        Some(Pictures { front: front?, others })
    }

    async fn discard(self, edge: &Edge, bus: &mut Bus) {
        let complete = self.complete.into_iter().filter_map(|(_, picture)| picture.into_writer());
        for writer in complete.chain(self.coming.map(|coming| coming.writer)) {
            picture::discard(edge, bus, writer).await;
        }
    }
}

/// Tells which of a request's pictures was refused.
pub(super) fn refused(pictured: Pictured, failure: Failure) -> Failure {
    match pictured {
        Pictured::Front => failure,
        Pictured::Other(side) => failure.with_field("side", side.as_str()),
    }
}
