//! The clients' protocol: a sender that is told anything by SMaRtClients, a SMaRtClient that is asked anything.

use super::wire;
use crate::fuzz::{Bound, Seen, Target};
use bytes::Bytes;
use mesh::client::sender::{self, Answer, Connection, Endpoint, Lending, Sender};
use mesh::client::smart_client::{self, SmartClient, Ticket};
use mesh::client::{RESENDS_SAVED, ReplyVote};
use mesh::ids::{Digest, Generation, ReplicaId, Slot};
use mesh::time::{Duration, Instant};
use mesh::wire::client::{NothingSent, Told, Unknown};
use mesh::wire::roster::Roster;
use mesh::wire::submit::{self, Steer, Vote};
use mesh::wire::{Body, Kind, Outcome, Request, Tag, decode, encode};
use std::collections::{BTreeMap, BTreeSet};

const BOUND: Bound = Bound { per_byte: 1024, base: 1 << 20 };

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "sender",
        about: "an ingress' protocol, told anything by SMaRtClients",
        seeds: sender_seeds,
        words: &[],
        longest: 2048,
        bound: BOUND,
        run: told_anything,
    },
    Target {
        name: "smart-client",
        about: "a SMaRtClient's protocol, asked anything by clients and answered anything by servers",
        seeds: smart_seeds,
        words: &[],
        longest: 2048,
        bound: BOUND,
        run: asked_anything,
    },
];

/// Outputs of one step at most: a storm is a finding.
const OUTPUTS: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// Commands of a script: what, and so many bytes for it.
fn commands(mut script: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&[what, length], rest) = script.split_first_chunk::<2>()?;
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        script = rest;
        Some((what, bytes))
    })
}

fn command(what: u8, bytes: &[u8]) -> Vec<u8> {
    [&[what, bytes.len() as u8][..], bytes].concat()
}

const CALL: u8 = 0;
const TELL: u8 = 1;
const ANSWER: u8 = 2;
const WAIT: u8 = 3;
const UP: u8 = 4;
const DOWN: u8 = 5;
const GONE: u8 = 6;
const CARRY: u8 = 7;
const KINDS: u8 = 8;

fn sender_seeds() -> Vec<Vec<u8>> {
    let told: Vec<Vec<u8>> = wire::outcomes()
        .into_iter()
        .map(Told::unsigned)
        .chain([
            Told::NothingSent(NothingSent::Busy),
            Told::Unknown(Unknown::Deadline),
            Told::Unknown(Unknown::SessionGone),
        ])
        .map(|told| encode(&told).to_vec())
        .collect();
    let up = [command(UP, &[]), command(UP + KINDS, &[])].concat();
    let calls = [command(CALL, b"GET a\n"), command(CALL + KINDS, b"GET b\n"), command(CALL, b"GET c\n")].concat();
    let opened = command(ANSWER, &[]);
    let mut seeds: Vec<Vec<u8>> = told
        .iter()
        .map(|told| [&[0][..], &up, &calls, &opened, &command(TELL, told), &opened, &opened].concat())
        .collect();
    seeds.push([&[1][..], &up, &calls, &opened, &opened, &command(DOWN, &[]), &opened, &command(WAIT, &[50])].concat());
    let carried: Vec<u8> = wire::requests().iter().flat_map(|request| command(CARRY, &encode(request))).collect();
    let leave = command(UP, &[1]);
    let told = command(TELL, &encode(&Told::NothingSent(NothingSent::Stopping)));
    seeds.push([&[0][..], &up, &calls, &opened, &leave, &told, &opened, &command(UP, &[0]), &opened].concat());
    seeds.push([&[0][..], &up, &carried, &opened, &opened, &command(GONE, &[]), &command(WAIT, &[200])].concat());
    seeds
}

/// A sender, and what is known of its calls.
struct Ingress {
    sender: Sender,
    now: Instant,
    out: Vec<sender::Output>,
    /// What was asked and not answered, the oldest first.
    asked: Vec<(Endpoint, Request)>,
    calls: BTreeMap<Connection, usize>,
    gone: BTreeSet<Connection>,
    /// Bytes that some SMaRtClient said an application replied.
    replies: BTreeSet<Bytes>,
}

impl Ingress {
    fn step(&mut self, input: sender::Input, seen: &mut Seen) {
        if let sender::Input::Told { told: Told::Outcome { outcome: Outcome::Executed(bytes), .. }, .. } = &input {
            self.replies.insert(bytes.clone());
        }
        if let sender::Input::Told { told: Told::Outcome { outcome: Outcome::Read(replies), .. }, .. } = &input {
            self.replies.extend(replies.iter().cloned());
        }
        self.sender.step(self.now, input, &mut self.out);
        assert!(self.out.len() < OUTPUTS, "one input, a storm of outputs");
        for output in std::mem::take(&mut self.out) {
            match output {
                sender::Output::Send { endpoint, request, .. } => {
                    seen.note(("send", request.tag().kind));
                    self.asked.push((endpoint, request));
                }
                sender::Output::Answer { connection, answer } => {
                    assert!(!self.gone.contains(&connection), "nobody is there to be answered");
                    let left = self
                        .calls
                        .get_mut(&connection)
                        .and_then(|calls| calls.checked_sub(1).map(|left| *calls = left));
                    assert!(left.is_some(), "a call is answered once");
                    if let Answer::Reply(bytes) = &answer {
                        assert!(self.replies.contains(bytes), "nobody said so");
                    }
                    seen.shape("answer", &answer);
                }
                sender::Output::Carried { end, .. } => seen.shape("carried", &end),
                sender::Output::Resent | sender::Output::Withheld => {}
                sender::Output::Read { answered } => seen.note(("read", answered)),
            }
        }
        self.asked.truncate(256);
    }

    fn wait(&mut self, time: Duration, seen: &mut Seen) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some(due) = self.sender.deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.step(sender::Input::Timeout, seen);
            steps += 1;
            assert!(steps < OUTPUTS, "time-outs without end");
        }
        self.now = end;
    }
}

fn told_anything(script: &[u8], seen: &mut Seen) {
    let Some((&own, script)) = script.split_first() else { return };
    let lending = if own & 1 == 1 { Lending::Own } else { Lending::Pooled };
    let config = sender::Config { reads: own & 2 == 0, ..sender::Config::new(lending, 2, 3, 16, PATIENCE) };
    let now = Instant::from_nanos(1_000_000_000);
    let mut ingress = Ingress {
        sender: Sender::new(config, [1, 2, 3, 4]),
        now,
        out: Vec::new(),
        asked: Vec::new(),
        calls: BTreeMap::new(),
        gone: BTreeSet::new(),
        replies: BTreeSet::new(),
    };
    for (what, bytes) in commands(script).take(128) {
        let which = u64::from(what / KINDS) % 4;
        let (connection, endpoint) = (Connection(which), Endpoint(which % 3));
        let input = match what % KINDS {
            CALL if ingress.gone.contains(&connection) => continue,
            CALL => {
                *ingress.calls.entry(connection).or_default() += 1;
                sender::Input::Call {
                    read: bytes.starts_with(b"G"),
                    connection,
                    bytes: Bytes::copy_from_slice(bytes),
                    deadline: ingress.now + PATIENCE,
                }
            }
            // Its word on what it was asked, or on anything.
            TELL => {
                let Ok(told) = decode::<Told>(bytes) else { continue };
                let at = usize::from(what / KINDS) % ingress.asked.len().max(1);
                let (endpoint, tag) = match ingress.asked.get(at) {
                    Some((endpoint, request)) => (*endpoint, request.tag()),
                    None => (endpoint, wire::requests()[1].tag()),
                };
                sender::Input::Told { endpoint, tag, told }
            }
            ANSWER if ingress.asked.is_empty() => continue,
            ANSWER => {
                let (endpoint, request) = ingress.asked.remove(0);
                sender::Input::Told { endpoint, tag: request.tag(), told: Told::unsigned(answer(&request)) }
            }
            WAIT => {
                let time = Duration::from_millis(50 * u64::from(bytes.first().copied().unwrap_or(1)));
                ingress.wait(time, seen);
                continue;
            }
            UP => match bytes.first() {
                Some(byte) => sender::Input::Leaving { endpoint, leaving: byte & 1 == 1 },
                None => sender::Input::Up(endpoint),
            },
            DOWN => sender::Input::Down(endpoint),
            GONE => {
                ingress.gone.insert(connection);
                ingress.calls.remove(&connection);
                sender::Input::Gone(connection)
            }
            _ => {
                let Ok(request) = decode::<Request>(bytes) else { continue };
                sender::Input::Carry { request, deadline: ingress.now + PATIENCE }
            }
        };
        ingress.step(input, seen);
        seen.note((
            ingress.sender.outstanding().min(20),
            ingress.sender.ready().len(),
            ingress.sender.ejected().count(),
        ));
    }
    ingress.wait(PATIENCE + Duration::from_secs(1), seen);
    assert!(
        ingress.calls.values().all(|left| *left == 0),
        "a call without an answer at its deadline: {:?}",
        ingress.calls
    );
}

/// What a correct cluster might say.
fn answer(request: &Request) -> Outcome {
    match request.tag().kind {
        Kind::Open => Outcome::Opened { opened: Generation::FIRST.at(Slot(9)), window: 2 },
        Kind::Call => Outcome::Executed(Bytes::from_static(b"OK\n")),
        Kind::Cancel => Outcome::Settled,
        Kind::Close => Outcome::Closed,
        Kind::Read => match &request.body {
            Body::Read(requests) => Outcome::Read(vec![Bytes::from_static(b"OK\n"); requests.len()]),
            _ => Outcome::Read(Vec::new()),
        },
    }
}

const ASK: u8 = 0;
const VOTES: u8 = 1;
const WHOLE: u8 = 2;
const STEER: u8 = 4;
const LINK: u8 = 5;
const AGREE: u8 = 7;

/// Requests that a SMaRtClient holds at most.
const HELD: usize = 8;
const HELD_BYTES: usize = 64;

fn smart_seeds() -> Vec<Vec<u8>> {
    let up: Vec<u8> = (0..3).flat_map(|server| command(LINK + KINDS * server, &[])).collect();
    let asks: Vec<u8> = wire::requests().iter().flat_map(|request| command(ASK, &encode(request))).collect();
    let tag = wire::requests()[1].tag();
    let vote = Vote { tag, slot: Slot(5), form: Digest::of(b"x"), signed: None };
    let votes: Vec<u8> =
        (0..3).flat_map(|server| command(VOTES + KINDS * server, &encode(&vec![vote.clone()]))).collect();
    let mut seeds = vec![[&up[..], &asks, &votes, &command(WAIT, &[100])].concat()];
    for outcome in wire::outcomes() {
        let whole = submit::Answer { tag, slot: Slot(5), form: outcome.form(), outcome, signed: None };
        seeds.push([&up[..], &asks, &command(WHOLE, &encode(&whole)), &votes].concat());
    }
    for steer in [Steer::Busy, Steer::NoSession, Steer::OutOfWindow, Steer::TooOld, Steer::NotReady] {
        let steers: Vec<u8> =
            (0..3).flat_map(|server| command(STEER + KINDS * server, &encode(&(tag, steer)))).collect();
        seeds.push([&up[..], &asks, &steers, &command(WAIT, &[250]), &command(AGREE, &[])].concat());
    }
    let rosters = |leaving| -> Vec<u8> {
        let word = encode(&Roster { leaving, ..wire::roster() });
        (0..3).flat_map(|server| command(LINK + KINDS * server, &word)).collect()
    };
    seeds.push([&up[..], &rosters(false), &asks, &votes, &rosters(true), &asks, &command(WAIT, &[250])].concat());
    seeds.push(
        [&asks[..], &up, &command(AGREE, &[]), &command(GONE, &[0]), &command(LINK, &[]), &command(WAIT, &[9])]
            .concat(),
    );
    seeds
}

fn asked_anything(script: &[u8], seen: &mut Seen) {
    let mut smart = SmartClient::new(smart_client::Config {
        servers: (0..3).map(ReplicaId).collect(),
        vote: ReplyVote::Majority,
        resend: Duration::from_millis(250),
        margin: Duration::from_millis(100),
        held: HELD,
        held_bytes: HELD_BYTES,
        resends_saved: RESENDS_SAVED,
    });
    let mut now = Instant::from_nanos(1_000_000_000);
    let (mut out, mut waiting, mut tickets, mut tags) = (Vec::new(), BTreeSet::new(), 0, Vec::<Tag>::new());
    let mut linked = BTreeSet::new();
    let mut inputs = Vec::new();
    for (what, bytes) in commands(script).take(128) {
        let from = ReplicaId(u32::from(what / KINDS) % 3);
        match what % KINDS {
            ASK => {
                let Ok(request) = decode::<Request>(bytes) else { continue };
                tags.push(request.tag());
                tickets += 1;
                waiting.insert(Ticket(tickets));
                inputs.push(smart_client::Input::Ask { ticket: Ticket(tickets), request, deadline: now + PATIENCE });
            }
            VOTES => {
                inputs.extend(decode::<Vec<Vote>>(bytes).ok().map(|votes| smart_client::Input::Votes { from, votes }));
            }
            WHOLE => inputs.extend(decode(bytes).ok().map(|answer| smart_client::Input::Answer { from, answer })),
            STEER => {
                inputs.extend(decode(bytes).ok().map(|(tag, steer)| smart_client::Input::Steer { from, tag, steer }));
            }
            AGREE => {
                // Every server says the same of the newest request.
                for (server, tag) in tags.last().into_iter().flat_map(|tag| (0..3).map(move |server| (server, *tag))) {
                    let outcome = Outcome::Settled;
                    let answer = submit::Answer { tag, slot: Slot(5), form: outcome.form(), outcome, signed: None };
                    inputs.push(smart_client::Input::Answer { from: ReplicaId(server), answer });
                }
            }
            GONE => {
                let ticket = Ticket(u64::from(bytes.first().copied().unwrap_or(1)));
                waiting.remove(&ticket);
                inputs.push(smart_client::Input::Gone(ticket));
            }
            LINK if !bytes.is_empty() => {
                inputs.extend(decode(bytes).ok().map(|roster| smart_client::Input::Roster { from, roster }));
            }
            LINK if linked.remove(&from) => inputs.push(smart_client::Input::Down(from)),
            LINK => {
                linked.insert(from);
                inputs.push(smart_client::Input::Up(from));
            }
            _ => {
                now += Duration::from_millis(50 * u64::from(bytes.first().copied().unwrap_or(1)));
                inputs.push(smart_client::Input::Timeout);
            }
        }
        for input in inputs.drain(..) {
            smart.step(now, input, &mut out);
            tell(&mut out, &mut waiting, seen);
        }
        assert!(smart.waiting() <= HELD, "more requests than it may hold");
        seen.note((smart.waiting(), smart.has_quorum(), waiting.len().min(12)));
    }
    now += PATIENCE * 2;
    smart.step(now, smart_client::Input::Timeout, &mut out);
    tell(&mut out, &mut waiting, seen);
    assert!(waiting.is_empty() && smart.waiting() == 0, "asked and never told: {waiting:?}");
}

fn tell(out: &mut Vec<smart_client::Output>, waiting: &mut BTreeSet<Ticket>, seen: &mut Seen) {
    assert!(out.len() < OUTPUTS, "one input, a storm of outputs");
    for output in out.drain(..) {
        match output {
            smart_client::Output::Tell { ticket, told } => {
                assert!(waiting.remove(&ticket), "who asks is told once");
                seen.shape("told", &told);
            }
            smart_client::Output::Send { whole, .. } => seen.note(("send", whole)),
            smart_client::Output::Disagreed { .. } => seen.note("disagreed"),
            smart_client::Output::Resent => seen.note("resent"),
            smart_client::Output::Seated { members, .. } => seen.note(("seated", members.len())),
            smart_client::Output::Withheld => seen.note("withheld"),
        }
    }
}
