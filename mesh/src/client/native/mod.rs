//! The native client, running: links to SMaRtClients, a pool of sessions for whoever needs nothing of them, and
//! sessions of one's own.

mod session;

pub use session::{CloseError, Session};

use super::ReplyVote;
use super::own::{InvokeError, NotRun, OwnSession, SessionName, Unknown};
use super::running::{self, Event, Running, Signing};
use super::sender::{Answer, Carried, Config, Connection, Lending, Refused};
use crate::auth::{Owner, PublicKey, Signatures};
use crate::ids::{ClientId, Seq};
use crate::limits::REQUEST_BYTES_MAX;
use crate::net::{Endpoint, Files, LINK_MAX_AGE, NetError, Role, kept};
use crate::node;
use crate::node::identity::{self, Expected, IdentityError};
use crate::wire::Request;
use crate::wire::client::Unknown as Told;
use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Calls without an answer at most; further ones are refused, definitely.
const HELD: usize = 16_384;
/// The window of a session of one's own. It has one request at a time; the rest is room for a leader whose own
/// application is a little behind those of the majority that answered the request before.
const WINDOW: u16 = 8;

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The cluster's name, as in its certificates.
    pub cluster: String,
    /// The client's id, as in its certificate of role `client`.
    pub id: String,
    /// The directory of that certificate: `tls.crt`, `tls.key`, `ca.crt`.
    pub pki: PathBuf,
    /// Whom to trust instead of the certificate's own `ca.crt`.
    pub trust_bundle: Option<PathBuf>,
    /// Revocation lists, `pki/crl.pem`.
    pub crl: Option<PathBuf>,
    /// The SMaRtClients: their ids where known, HOST:PORT. A name stands for all addresses that it is resolved to.
    pub smart_clients: Vec<(Option<String>, String)>,
    /// After this a request ends with what is known.
    pub deadline: Duration,
    /// Whether requests are signed, with `signing.key` beside the certificate, and the client's certificate shown with
    /// them.
    pub request_signatures: Signatures,
    /// Whether replies must be signed by as many servers as `reply_vote` says.
    pub reply_signatures: Signatures,
    /// How many servers' signatures a reply needs.
    pub reply_vote: ReplyVote,
    /// Sessions of the pool at most: so many calls of [`Client::invoke`] are on their way at once, further ones wait.
    pub sessions: usize,
}

impl ClientConfig {
    /// With the certificate in `pki` for client `id` of `cluster`, the SMaRtClients at these HOST:PORT, a deadline of
    /// 10 s and 64 sessions in the pool.
    pub fn new<A: Into<String>>(
        cluster: impl Into<String>,
        id: impl Into<String>,
        pki: impl Into<PathBuf>,
        smart_clients: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            cluster: cluster.into(),
            id: id.into(),
            pki: pki.into(),
            trust_bundle: None,
            crl: None,
            smart_clients: smart_clients.into_iter().map(|address| (None, address.into())).collect(),
            deadline: Duration::from_secs(10),
            request_signatures: Signatures::Off,
            reply_signatures: Signatures::Off,
            reply_vote: ReplyVote::Majority,
            sessions: 64,
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody to ask.
    #[error("no SMaRtClients are named")]
    NoSmartClients,
    /// The certificate cannot be used, is somebody else's, or no port could be opened.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The signing certificate or its key cannot be used.
    #[error(transparent)]
    Signing(#[from] NetError),
    /// The system's source of chance cannot be read.
    #[error("cannot read /dev/urandom: {0}")]
    Chance(#[from] std::io::Error),
}

/// A native client of a cluster. Clones are cheap and share links and pool; see the [module](crate::client) for what
/// to use when.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    running: Running,
    endpoint: Endpoint,
    deadline: Duration,
    connections: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("deadline", &self.inner.deadline).finish_non_exhaustive()
    }
}

impl Client {
    /// Loads the certificate and begins to dial the SMaRtClients. It does not wait until one is reached: a request waits
    /// for that, until its deadline. Must be called within a tokio runtime, which then carries the client's tasks.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(config: ClientConfig) -> Result<Self, ConnectError> {
        if config.smart_clients.is_empty() {
            return Err(ConnectError::NoSmartClients);
        }
        let mut registry = node::registry();
        let expected = Expected { cluster: &config.cluster, role: Role::Client, id: &config.id };
        let files = Files::new(&config.pki, config.trust_bundle.as_deref(), config.crl.as_deref());
        let (any, limits) = (identity::any_address(), kept::limits(LINK_MAX_AGE));
        let endpoint = identity::bind(&expected, &files, any, &[], limits, &mut registry)?;
        let metrics = running::Metrics::new(&mut registry);
        let pool = Config::new(Lending::Pooled, 1, config.sessions.max(1), HELD, config.deadline);
        let modes = (config.request_signatures, config.reply_signatures);
        let signing = Signing::load(&endpoint, &files, modes, config.reply_vote)?;
        let running = running::start(pool, config.deadline, config.smart_clients, &endpoint, signing, &metrics)?;
        let connections = AtomicU64::new(0);
        let inner = Inner { running, endpoint, deadline: config.deadline, connections };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Has one request executed, in a session of the pool. Calls may be made at the same time; they run in any order.
    ///
    /// Within the life of this process the request runs once at most: however often it is sent, it has one number. After
    /// [`InvokeError::Unknown`], or a crash, nobody can tell any more; where that matters use a [`Session`]. A future
    /// that is dropped leaves its request to run to its end unheard, if it was sent by then.
    ///
    /// # Errors
    /// Definite or unknown: see [`InvokeError`].
    pub async fn invoke(&self, request: impl Into<Bytes>) -> Result<Bytes, InvokeError> {
        let bytes = request.into();
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(NotRun::TooLarge { bytes: bytes.len() }.into());
        }
        let events = &self.inner.running.events;
        let connection = Connection(self.inner.connections.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        if events.send(Event::Call { connection, bytes, read: false, answer }).await.is_err() {
            return Err(NotRun::Refused(Refused::NoSmartClient).into());
        }
        let unheard = Unheard { events, event: Some(Event::Gone(connection)) };
        let answer = answered.await.unwrap_or(Answer::Unknown(Told::Lost));
        unheard.was_heard();
        match answer {
            Answer::Reply(reply) => Ok(reply),
            Answer::Refused(why) => Err(NotRun::Refused(why).into()),
            Answer::Unknown(why) => Err(Unknown::from(why).into()),
        }
    }

    /// Opens a session of one's own, by order.
    ///
    /// # Errors
    /// It was not opened, or may have been: then nobody knows its name, and it is evicted in time.
    pub async fn open_session(&self) -> Result<Session, InvokeError> {
        let chance = node::seed().map_err(|_| NotRun::Refused(Refused::NoSession))?;
        self.open_session_as(ClientId(u128::from(chance[0]) << 64 | u128::from(chance[1]))).await
    }

    /// The same with a client id of the caller's. While a session of that id lives, it is that one that is found, with
    /// whatever numbers it has used: resume it by its name instead, for after it is gone this opens another one.
    ///
    /// # Errors
    /// As [`Client::open_session`].
    ///
    /// With signatures the id is the nonce of which, with the key, the client id is made (rule 17).
    pub async fn open_session_as(&self, client: ClientId) -> Result<Session, InvokeError> {
        let owner = self.inner.running.card.borrow().as_ref().map(|card| card.owner(client.0));
        let key = owner.as_ref().map(|owner| owner.key);
        let client = owner.as_ref().map_or_else(|| ClientId::unowned(client.0), Owner::client);
        let end = self.carry(Request::open(client, WINDOW, owner), key, self.inner.deadline).await;
        Ok(Session::new(self.clone(), key, OwnSession::opened(client, end)?))
    }

    /// Takes up a session of an earlier life of this program, at the number that its next request has. Asks nobody.
    ///
    /// If that life sent a request of this number, [`Session::invoke`] with the same request returns its reply if it
    /// ran, and runs it if it did not. With another request it ends as [`Unknown::OtherBody`].
    #[must_use]
    pub fn resume(&self, name: SessionName, next: Seq) -> Session {
        Session::new(self.clone(), self.key(), OwnSession::resume(name, next))
    }

    /// The same, where the caller knows that no request of this number was ever sent, as it stores each before it sends
    /// it: then a request that cannot be sent now is definitely not run.
    #[must_use]
    pub fn resume_settled(&self, name: SessionName, next: Seq) -> Session {
        Session::new(self.clone(), self.key(), OwnSession::resume_settled(name, next))
    }

    /// The same, where the caller stored the request too: nothing else is invoked before it is invoked again or
    /// [settled](Session::settle).
    #[must_use]
    pub fn resume_in_doubt(&self, name: SessionName, seq: Seq, request: impl Into<Bytes>) -> Session {
        Session::new(self.clone(), self.key(), OwnSession::resume_in_doubt(name, seq, request.into()))
    }

    /// Says goodbye to the SMaRtClients, for all clones: what is still on its way ends unheard.
    pub async fn shutdown(self) {
        self.inner.endpoint.close().await;
    }

    /// What is signed with now.
    fn key(&self) -> Option<PublicKey> {
        self.inner.running.card.borrow().as_ref().map(|card| card.key)
    }

    /// Has a request carried, signed with that key, until its end or the deadline.
    async fn carry(&self, request: Request, key: Option<PublicKey>, within: Duration) -> Carried {
        let events = &self.inner.running.events;
        let tag = request.tag();
        let (end, ended) = oneshot::channel();
        if events.send(Event::Carry { request, within, key, end }).await.is_err() {
            return Carried::Refused(Refused::NoSmartClient);
        }
        let unheard = Unheard { events, event: Some(Event::Drop(tag)) };
        let end = ended.await.unwrap_or(Carried::Unknown(Told::Lost));
        unheard.was_heard();
        end
    }
}

/// What the sender is told when a future is dropped before its end. If there is no room for it the request goes on
/// until its deadline, which does no harm.
struct Unheard<'a> {
    events: &'a mpsc::Sender<Event>,
    event: Option<Event>,
}

impl Unheard<'_> {
    fn was_heard(mut self) {
        self.event = None;
    }
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            let _ = self.events.try_send(event);
        }
    }
}
