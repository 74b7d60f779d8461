//! A connection with one owner: moves bytes between the [`Session`] and the [`Transport`], by deadlines.

use std::time::{Duration, Instant};

use crate::error::{Error, Unavailable};
use crate::jetstream::{Call, Publish, PublishAck, Request};
use crate::protocol::{Credentials, Headers, Message, ServerInfo};
use crate::session::{Session, Subscription, Token};
use crate::transport::{ReadOutcome, Transport};

/// One read: what a socket buffer holds.
const READ_BYTES: usize = 64 * 1024;

/// A request that was queued and whose reply, a `V`, is awaited.
#[derive(Debug)]
#[must_use = "the request is not sent until a reply is awaited"]
pub struct Pending<V> {
    token: Token,
    subject: String,
    decode: fn(Message) -> Result<V, Error>,
}

/// A connection. Once it [is broken](Self::is_broken), every call fails: drop it.
#[derive(Debug)]
pub struct Connection<T> {
    transport: T,
    session: Session,
    read_buffer: Vec<u8>,
    last_heard: Instant,
    is_broken: bool,
}

impl<T: Transport> Connection<T> {
    /// Greets the server over a fresh transport.
    ///
    /// # Errors
    /// The server does not answer in time, or refuses.
    pub async fn open(
        transport: T,
        nonce: u64,
        credentials: Credentials,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let session = Session::new(nonce, credentials);
        let read_buffer = Vec::with_capacity(READ_BYTES);
        let mut connection =
            Self { transport, session, read_buffer, last_heard: Instant::now(), is_broken: false };
        connection.settle("greeting the server", deadline).await?;
        Ok(connection)
    }

    /// Asks the server for a sign of life.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn ping(&mut self, deadline: Instant) -> Result<(), Error> {
        self.session.ping();
        self.settle("awaiting a pong", deadline).await
    }

    async fn settle(&mut self, action: &'static str, deadline: Instant) -> Result<(), Error> {
        while !self.session.is_settled() {
            self.exchange(action, deadline).await?;
        }
        Ok(())
    }

    /// Queues a request. It goes out with the next wait for a reply, together with all others in the queue.
    ///
    /// # Errors
    /// The request cannot be written.
    pub fn start<R: Request>(&mut self, request: &R) -> Result<Pending<R::Reply>, Error> {
        let Call { subject, headers, payload } = request.call();
        let token = self.session.request(&subject, &headers, &payload)?;
        Ok(Pending { token, subject, decode: R::decode })
    }

    /// Queues a message for a stream without a copy of its payload in between.
    ///
    /// # Errors
    /// The message cannot be written.
    pub(crate) fn start_publish(
        &mut self,
        subject: &str,
        headers: &Headers,
        payload: &[u8],
    ) -> Result<Pending<PublishAck>, Error> {
        let token = self.session.request(subject, headers, payload)?;
        Ok(Pending { token, subject: subject.to_owned(), decode: Publish::decode })
    }

    /// Waits for the reply to a request.
    ///
    /// # Errors
    /// The reply is an error, or does not come in time; in the latter case the connection is broken.
    pub async fn finish<V>(&mut self, pending: Pending<V>, deadline: Instant) -> Result<V, Error> {
        let message = self.reply(pending.token, deadline).await;
        self.session.close(pending.token);
        let message = message?;
        if message.status() == Some(503) {
            return Err(Error::NoResponders { subject: pending.subject });
        }
        (pending.decode)(message)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::finish`].
    pub async fn call<R: Request>(&mut self, request: &R, deadline: Instant) -> Result<R::Reply, Error> {
        let pending = self.start(request)?;
        self.finish(pending, deadline).await
    }

    /// Gives a queued request up: its reply is dropped when it comes.
    pub fn abandon<V>(&mut self, pending: Pending<V>) {
        self.session.close(pending.token);
    }

    /// Queues a request with more than one reply; [`Self::close`] ends it.
    ///
    /// # Errors
    /// The request cannot be written.
    pub(crate) fn open_request(&mut self, call: &Call) -> Result<Token, Error> {
        self.session.request(&call.subject, &call.headers, &call.payload)
    }

    /// The next reply of a request.
    ///
    /// # Errors
    /// It does not come in time; the connection is broken then.
    pub(crate) async fn reply(&mut self, token: Token, deadline: Instant) -> Result<Message, Error> {
        loop {
            if let Some(message) = self.session.take_reply(token) {
                return Ok(message);
            }
            self.exchange("awaiting a reply", deadline).await?;
        }
    }

    /// Ends a request with more than one reply.
    pub(crate) fn close(&mut self, token: Token) {
        self.session.close(token);
    }

    /// Queues a message that nobody answers; [`Self::flush`] sends it.
    ///
    /// # Errors
    /// The message cannot be written.
    pub fn publish(&mut self, subject: &str, headers: &Headers, payload: &[u8]) -> Result<(), Error> {
        self.session.publish(subject, headers, payload)
    }

    /// Queues a subscription; it goes out with the next wait or flush.
    ///
    /// # Errors
    /// The subject cannot be written.
    pub fn subscribe(&mut self, subject: &str) -> Result<Subscription, Error> {
        self.session.subscribe(subject)
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, subscription: Subscription) {
        self.session.unsubscribe(subscription);
    }

    /// The next event of a subscription, or `None` at the deadline, which does not harm the connection.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn event(
        &mut self,
        subscription: Subscription,
        deadline: Instant,
    ) -> Result<Option<Message>, Error> {
        self.flush(write_deadline(deadline)).await?;
        loop {
            if let Some(message) = self.session.take_event(subscription) {
                return Ok(Some(message));
            }
            if self.fill(deadline).await? == ReadOutcome::Deadline {
                return Ok(None);
            }
            // A PING of the server wants its PONG even while no event comes.
            self.flush(write_deadline(deadline)).await?;
        }
    }

    /// Writes what is queued.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn flush(&mut self, deadline: Instant) -> Result<(), Error> {
        self.check()?;
        if self.session.outgoing().is_empty() {
            return Ok(());
        }
        let bytes = self.session.outgoing().take();
        match self.transport.write(bytes, deadline).await {
            Ok(buffer) => {
                self.session.outgoing().recycle(buffer);
                Ok(())
            }
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The server's last INFO.
    pub fn server(&self) -> Option<&ServerInfo> {
        self.session.server()
    }

    /// How long ago the server was last heard.
    pub fn idle(&self) -> Duration {
        self.last_heard.elapsed()
    }

    /// Whether the connection can no longer be used.
    pub const fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Makes the connection ready for another owner. `false` if it must be dropped: it is broken, or requests
    /// that were never sent would go out in the next owner's name.
    pub async fn reset(&mut self, deadline: Instant) -> bool {
        if self.is_broken || !self.session.outgoing().is_empty() || !self.session.is_settled() {
            return false;
        }
        self.session.reset();
        self.flush(deadline).await.is_ok()
    }

    /// Writes what is queued, then reads once.
    async fn exchange(&mut self, action: &'static str, deadline: Instant) -> Result<(), Error> {
        self.flush(deadline).await?;
        match self.fill(deadline).await? {
            ReadOutcome::Deadline => Err(self.broken(Unavailable::Deadline(action).into())),
            ReadOutcome::Bytes | ReadOutcome::Closed => Ok(()),
        }
    }

    async fn fill(&mut self, deadline: Instant) -> Result<ReadOutcome, Error> {
        self.check()?;
        let buffer = std::mem::take(&mut self.read_buffer);
        let (outcome, buffer) = self.transport.read(buffer, deadline).await;
        self.read_buffer = buffer;
        let received = match outcome {
            ReadOutcome::Closed => Err(Unavailable::Lost("reading").into()),
            ReadOutcome::Deadline => Ok(()),
            ReadOutcome::Bytes => {
                self.last_heard = Instant::now();
                self.session.receive(&self.read_buffer)
            }
        };
        self.read_buffer.clear();
        received.map_err(|error| self.broken(error))?;
        Ok(outcome)
    }

    fn check(&self) -> Result<(), Error> {
        if self.is_broken { Err(Unavailable::Lost("using a broken connection").into()) } else { Ok(()) }
    }

    fn broken(&mut self, error: Error) -> Error {
        self.is_broken = true;
        error
    }
}

/// Waiting for an event may end at once; writing a few bytes to a live peer must still be allowed a moment.
fn write_deadline(deadline: Instant) -> Instant {
    deadline.max(Instant::now() + Duration::from_secs(1))
}
