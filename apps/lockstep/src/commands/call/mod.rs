//! `lockstep call`: one request through the native client.

mod report;
mod session_file;

use crate::exit::{Exit, Failure};
use crate::parts::adapter::Vote;
use crate::parts::addresses::{Target, target};
use crate::parts::common::{Logging, certificate, cluster_name};
use crate::parts::signatures::{Mode, Modes};
use crate::up::output::Format;
use crate::up::state::State;
use anyhow::Context;
use bytes::Bytes;
use mesh::client::{Client, ClientConfig, InvokeError, NotRun, Session, SessionName, Unknown};
use mesh::ids::{ClientId, Seq};
use mesh::node::config::Problems;
use mesh::node::human;
use report::{Asked, End, Report};
use session_file::{SessionFile, Stored};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the session of a single call may take to be closed, once the reply is out.
const CLOSING: Duration = Duration::from_secs(2);

/// Settings of a call.
///
/// A request has a number in a session on the servers, and is executed once at most under it, however often it is sent.
/// Without --session-file or --client-id the session is this call's own and ends with it.
///
/// Exactly once from a script: give --session-file FILE, and run the same command again until it ends with 0 or 7. FILE
/// has the session, its next number and the request that is in doubt, written and synced before the request is sent. After a
/// crash, a SIGKILL or exit code 6 the same request is asked again under the same number: its reply is printed whether it
/// ran then or runs now. Another request first settles the one in doubt (its fate is told on stderr): if it did not run
/// by then, it never will. One call at a time uses a FILE; FILE.lock beside it sees to that.
///
/// Exit codes: 0 the reply is on stdout, 6 the outcome is unknown, 7 the request did not run and never will.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Data directory of a running `up`: says the cluster, its SMaRtClients and a certificate
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Name of the cluster
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    cluster: Option<String>,
    /// The client's id, as in its certificate
    #[arg(long, value_name = "ID", default_value = "0")]
    id: String,
    /// Directory with the client's certificate, or one with client/ID in it; pki where nothing else says more
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Trusted certificate authorities, instead of ca.crt beside the certificate
    #[arg(long, value_name = "FILE")]
    trust_bundle: Option<PathBuf>,
    /// Revocation lists, as pki/crl.pem; with --data-dir those of the running `up`
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// QUIC addresses of the SMaRtClients: HOST:PORT or ID=HOST:PORT
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = target)]
    smart_clients: Vec<Target>,
    /// After this the outcome is what is known by then
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = human::parse_positive_duration)]
    deadline: Duration,
    /// Keep session, number and request in FILE, so that the request runs exactly once even if this call is killed
    #[arg(long, value_name = "FILE", conflicts_with = "client_id")]
    session_file: Option<PathBuf>,
    /// For experts: use the session of this client id (hexadecimal), opened there, as -o json names it; without
    /// SLOT and GENERATION it is opened unless it lives. The caller sees to it that each number is used for one request only
    #[arg(long, value_name = "ID[@SLOT@GENERATION]", value_parser = chosen)]
    client_id: Option<Chosen>,
    /// For experts: the request's number in the session of --client-id. The first is 1, each the one after the last
    #[arg(long, value_name = "N", requires = "client_id", value_parser = clap::value_parser!(u64).range(1..))]
    seq: Option<u64>,
    /// Whether the request is signed, with signing.key beside the certificate; by default as the running `up` has it
    #[arg(long, value_enum, value_name = "MODE")]
    request_signatures: Option<Mode>,
    /// Whether the reply must be signed by the servers; by default as the running `up` has it
    #[arg(long, value_enum, value_name = "MODE")]
    reply_signatures: Option<Mode>,
    /// So many servers must have signed it; by default as the running `up` has it, or a majority
    #[arg(long, value_enum, value_name = "RULE")]
    reply_vote: Option<Vote>,
    /// Send REQUEST as it is, without a line end behind it
    #[arg(long)]
    raw: bool,
    /// How the end is shown
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    logging: Logging,
    /// The request, a line; without it the request is read from stdin, as it is
    #[arg(value_name = "REQUEST")]
    request: Option<String>,
}

/// A session that an expert chose.
#[derive(Clone, Copy, Debug)]
enum Chosen {
    /// The live one of that client id.
    Living(ClientId),
    /// That one.
    Named(SessionName),
}

fn chosen(text: &str) -> Result<Chosen, String> {
    if text.contains('@') {
        return text.parse().map(Chosen::Named).map_err(|error: mesh::client::own::NameError| error.to_string());
    }
    text.parse().map(Chosen::Living).map_err(|error: mesh::ids::ClientIdError| error.to_string())
}

/// Prints the reply, or why there is none.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut args = args;
    // A reply on stdout needs no report of success beside it.
    args.logging.log.get_or_insert_with(|| "warn".to_owned());
    args.logging.init()?;
    let (output, request) = (args.output, request(args.request.take(), args.raw)?);
    let (session_file, chosen) = (args.session_file.clone(), args.client_id);
    let seq = Seq(args.seq.unwrap_or(1));
    let config = config(args)?;
    let cluster = config.cluster.clone();
    let deadline = Deadline { from: Instant::now(), length: config.deadline };
    let client = Client::connect(config).await.map_err(anyhow::Error::from)?;
    let mut caller = Caller { client: &client, deadline, report: Report::new(output) };
    let end = match (session_file, chosen) {
        (Some(path), _) => caller.stored(SessionFile::take(&path, &cluster)?, request).await,
        (None, Some(chosen)) => caller.chosen(chosen, seq, request).await,
        (None, None) => caller.alone(request).await,
    };
    client.shutdown().await;
    end
}

/// When the whole call ends.
#[derive(Clone, Copy)]
struct Deadline {
    from: Instant,
    length: Duration,
}

impl Deadline {
    fn left(self) -> Duration {
        self.length.saturating_sub(self.from.elapsed())
    }
}

/// What a call is made with.
struct Caller<'a> {
    client: &'a Client,
    deadline: Deadline,
    report: Report,
}

impl Caller<'_> {
    /// One request in a session of its own, which is closed behind it: so it takes no other caller's place.
    async fn alone(&mut self, request: Bytes) -> Result<(), Failure> {
        let mut session = match self.client.open_session().await {
            Ok(session) => session,
            Err(error) => return self.report.end(None, End::NotRun(without_session(&error))),
        };
        let end = self.invoke(&mut session, request).await;
        session.set_deadline(CLOSING);
        // Whatever becomes of it, the call has ended: a session that is left behind is evicted in time.
        let _ = session.close().await;
        end
    }

    /// One request under a number that an expert chose.
    async fn chosen(&mut self, chosen: Chosen, seq: Seq, request: Bytes) -> Result<(), Failure> {
        let name = match chosen {
            Chosen::Named(name) => name,
            Chosen::Living(id) => match self.client.open_session_as(id).await {
                Ok(session) => session.name(),
                Err(error) => return self.report.end(None, End::NotRun(without_session(&error))),
            },
        };
        self.invoke(&mut self.client.resume(name, seq), request).await
    }

    async fn invoke(&mut self, session: &mut Session, request: Bytes) -> Result<(), Failure> {
        session.set_deadline(self.deadline.left());
        let asked = Asked { session: session.name(), seq: session.next() };
        let end = match session.invoke(request).await {
            Ok(reply) => End::Reply(reply),
            Err(InvokeError::NotRun(why)) => End::NotRun(why.to_string()),
            Err(InvokeError::Unknown(why)) => End::Unknown(format!("{why}; read before you try again")),
        };
        self.report.end(Some(asked), end)
    }

    /// One request exactly once, by what is stored.
    async fn stored(&mut self, file: SessionFile, request: Bytes) -> Result<(), Failure> {
        let most = mesh::limits::REQUEST_BYTES_MAX;
        if request.len() > most {
            return self.report.end(None, End::NotRun(NotRun::TooLarge { bytes: request.len() }.to_string()));
        }
        let mut session = match file.load()? {
            Some(Stored { session, next, request: Some(doubt) }) => self.client.resume_in_doubt(session, next, doubt),
            Some(Stored { session, next, request: None }) => self.client.resume_settled(session, next),
            None => match self.client.open_session().await {
                Ok(session) => session,
                Err(error) => return self.report.end(None, End::NotRun(without_session(&error))),
            },
        };
        session.set_deadline(self.deadline.left());
        if session.in_doubt().is_some_and(|doubt| *doubt != request) {
            let asked = Asked { session: session.name(), seq: session.next() };
            match session.settle().await {
                Ok(settled) => self.report.settled(asked, settled),
                Err(why) => {
                    let hint = way_out(&why, &file);
                    let what = format!(
                        "the request in doubt before it could not be settled: {why}{hint}; this one was not run"
                    );
                    return self.report.end(None, End::NotRun(what));
                }
            }
        }
        file.store(&Stored::of(&session, Some(request.clone())))?;
        session.set_deadline(self.deadline.left());
        let asked = Asked { session: session.name(), seq: session.next() };
        let end = match session.invoke(request).await {
            Ok(reply) => End::Reply(reply),
            Err(InvokeError::NotRun(why)) => End::NotRun(why.to_string()),
            Err(InvokeError::Unknown(why)) => {
                let hint = way_out(&why, &file);
                return self.report.end(Some(asked), End::Unknown(format!("{why}{hint}")));
            }
        };
        // The reply is out before it is forgotten that it was in doubt.
        let ended = self.report.end(Some(asked), end);
        file.store(&Stored::of(&session, None))?;
        ended
    }
}

/// Why a request was not run that had no session to run in; whether one was opened does not matter to it.
fn without_session(error: &InvokeError) -> String {
    match error {
        InvokeError::NotRun(why) => why.to_string(),
        InvokeError::Unknown(why) => format!("no session could be opened ({why}); the request was not run"),
    }
}

/// What can be done about an unknown outcome.
fn way_out(why: &Unknown, file: &SessionFile) -> String {
    match why {
        Unknown::SessionGone | Unknown::TooOld | Unknown::OtherBody => format!(
            ", and will stay unknown; find out by reading, then remove {} to begin a new session",
            file.path().display()
        ),
        _ => "; run the same again to learn it".to_owned(),
    }
}

fn config(args: Args) -> Result<ClientConfig, Failure> {
    let state = match &args.data_dir {
        Some(dir) => Some(State::of_running(dir)?),
        None => None,
    };
    let given: Vec<_> = args.smart_clients.into_iter().map(|target| (target.id, target.address)).collect();
    let known = || state.as_ref().map(State::smart_clients).unwrap_or_default();
    let smart_clients = if given.is_empty() { known() } else { given };
    let cluster = args.cluster.or_else(|| state.as_ref().map(|state| state.cluster.clone()));
    let pki = args.pki.or_else(|| state.as_ref().map(|state| state.pki.clone())).unwrap_or_else(|| "pki".into());
    let modes = state.as_ref().map_or_else(Modes::default, |state| state.signatures);
    let vote = args.reply_vote.or_else(|| state.as_ref().map(|state| state.reply_vote)).unwrap_or_default();
    let mut problems = Problems::default();
    problems.check(cluster.is_some(), "--cluster is missing: give it, or --data-dir of a running up");
    problems.check(!smart_clients.is_empty(), "--smart-clients is missing: give it, or --data-dir of a running up");
    let cluster = problems.into_result(cluster)?;
    Ok(ClientConfig {
        cluster,
        pki: certificate(&pki, "client", &args.id),
        id: args.id,
        trust_bundle: args.trust_bundle,
        crl: args.crl.or_else(|| state.as_ref().map(State::revocations)),
        smart_clients,
        deadline: args.deadline,
        request_signatures: args.request_signatures.unwrap_or(modes.requests).into(),
        reply_signatures: args.reply_signatures.unwrap_or(modes.replies).into(),
        reply_vote: vote.into(),
        sessions: 1,
    })
}

/// The request's bytes, from the command line or from stdin; never more than any configuration takes.
fn request(given: Option<String>, raw: bool) -> anyhow::Result<Bytes> {
    if let Some(mut line) = given {
        if !raw && !line.ends_with('\n') {
            line.push('\n');
        }
        return Ok(line.into());
    }
    let most = mesh::limits::REQUEST_BYTES_MAX;
    let mut bytes = Vec::new();
    std::io::stdin().take(most as u64 + 1).read_to_end(&mut bytes).context("cannot read the request from stdin")?;
    anyhow::ensure!(bytes.len() <= most, "a request has {} at most", human::format_size(most as u64));
    Ok(bytes.into())
}

/// A failure with the exit code of an end without a reply.
fn failure(exit: Exit, what: &str, why: &str) -> Failure {
    Failure::new(exit, format!("{what}: {why}"))
}
