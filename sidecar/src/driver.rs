//! The driver: the one task that owns the ordering core, and the only caller of [`Replica::step`].
//!
//! It awaits in one place. Each turn takes everything that has come since the last one, completions first, so that many
//! requests make one input and many records one write; what comes out goes into bounded queues without waiting.

use crate::app;
use crate::clock::Clock;
use crate::drain::{Around, Drain, Step};
use crate::inputs::{AdminAsk, Control, Inputs};
use crate::intake::{self, Checker, Held, Judged, LinkId, WAIT_MAX, Waiters};
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::peers::{Incoming, Peers};
use crate::publish::Publisher;
use crate::reads::{Reads, Said};
use crate::run::voice;
use crate::snapshot::Snapshots;
use crate::store::{Membership, set_aside};
use crate::transfer::Transfers;
use crate::waiting::answer_started;
use crate::{Config, report};
use anyhow::bail;
use mesh::auth::{self, Checked, Seeking};
use mesh::config::Configuration;
use mesh::framing::Adapter;
use mesh::ids::{Generation, Position, ReplicaId};
use mesh::node::{failpoint, grid};
use mesh::order::{ChangeRefused, Event, Input, Output, Record, Recovered, Replica, Role, To, Unread};
use mesh::time::Instant;
use mesh::wire::admin::{AdminReply, AdminRequest, MembersView, SnapshotsView};
use mesh::wire::peer::PeerFrame;
use mesh::wire::roster::Seat;
use mesh::wire::submit::{Steer, Submit};
use mesh::wire::{Body, Message, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Frames of peers taken in one turn.
const PEER_FRAMES: usize = 256;
/// Requests taken in one turn.
const REQUESTS: usize = 1024;
/// Application events taken in one turn.
const APP_EVENTS: usize = 64;
/// Changes of the members that operators may wait for at one time.
const CHANGES: usize = 16;
/// Between two looks at who gave up.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Driver {
    config: Config,
    /// The protocol as the cluster ordered it.
    adapter: Adapter,
    membership: Membership,
    replica: Replica,
    clock: Clock,
    /// Of the current turn.
    now: Instant,
    out: Vec<Output>,
    journal: Journal,
    snapshots: Option<Snapshots>,
    dumps: Dumps,
    transfers: Transfers,
    app: app::Handle,
    evidence: app::Evidence,
    peers: Peers,
    waiters: Waiters,
    reads: Reads,
    /// With signatures.
    checker: Option<Checker>,
    inputs: Inputs,
    metrics: Metrics,
    publisher: Publisher,
    reporter: report::Reporter,
    next_sweep: Instant,
    drain: Drain,
    /// Another life of this member has its vote: this process must end.
    superseded: bool,
    /// Operators that wait for a change, by the core's name for it; and how often one was asked for.
    changes: BTreeMap<u64, AdminAsk>,
    change_asked: u64,
    /// Members that say that this one was removed; and that a majority of them does, and that its id is to be admitted: nobody
    /// needs what this process holds any more.
    without: BTreeSet<ReplicaId>,
    /// Or that the cluster goes on in another generation, of which nothing rests on this life.
    anew: Option<&'static str>,
}

/// Snapshots of this process.
#[derive(Default)]
struct Dumps {
    taken: u64,
    failed: u64,
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) membership: Membership,
    pub(crate) recovered: Recovered,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    pub(crate) journal: Journal,
    pub(crate) snapshots: Option<Snapshots>,
    pub(crate) transfers: Transfers,
    pub(crate) app: app::Handle,
    pub(crate) evidence: app::Evidence,
    pub(crate) peers: Peers,
    pub(crate) waiters: Waiters,
    pub(crate) checker: Option<Checker>,
    pub(crate) inputs: Inputs,
    pub(crate) metrics: Metrics,
    pub(crate) publisher: Publisher,
}

/// What came since the last turn.
#[derive(Default)]
struct Turn {
    app: Vec<app::Event>,
    peers: Vec<Incoming>,
    requests: Vec<intake::Event>,
    judged: Vec<Judged>,
    admin: Option<AdminAsk>,
    control: Option<Control>,
    transfer: Option<Input>,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts {
            config,
            membership,
            recovered,
            clock,
            seed,
            journal,
            snapshots,
            transfers,
            app,
            evidence,
            peers,
            mut waiters,
            checker,
            inputs,
            metrics,
            publisher,
        } = parts;
        command(&app, app::Command::Answered { through: recovered.answered });
        let now = clock.now();
        let core = mesh::config::Config {
            name: config.cluster.clone(),
            id: config.replica(),
            life: membership.life,
            configuration: membership.configuration.clone(),
            timing: config.timing.clone(),
            limits: config.limits.clone(),
            snapshots: config.snapshots,
            divergence: config.divergence,
            wall_base: clock.wall_base(),
        };
        let adapter = Adapter { request_bytes: core.configuration.cluster.request_bytes as usize, ..config.adapter };
        let replica = Replica::new(core, seed, recovered, now);
        // What was replayed may have changed it since this life began.
        take_up(&peers, &mut waiters, replica.configuration());
        let drain = Drain::new(config.replica(), config.timing.drain);
        Self {
            adapter,
            replica,
            reads: Reads::new(config.read_only.clone(), config.reply_signatures),
            config,
            membership,
            clock,
            now,
            out: Vec::new(),
            journal,
            dumps: Dumps::default(),
            snapshots,
            transfers,
            app,
            evidence,
            peers,
            waiters,
            checker,
            inputs,
            reporter: report::Reporter::new(metrics.clone()),
            metrics,
            publisher,
            next_sweep: now + SWEEP_EVERY,
            drain,
            superseded: false,
            changes: BTreeMap::new(),
            change_asked: 0,
            without: BTreeSet::new(),
            anew: None,
        }
    }

    /// Drives until the replica was told to stop and nothing is in flight.
    ///
    /// # Errors
    /// A part of this process ended that must not.
    pub(crate) async fn run(&mut self) -> anyhow::Result<()> {
        let mut turn = Turn::default();
        self.step(Input::Timeout);
        self.finish_turn();
        loop {
            self.wait(&mut turn).await?;
            mesh::node::spin::stir();
            self.gather(&mut turn);
            self.now = self.clock.now();
            self.process(&mut turn);
            self.finish_turn();
            if self.superseded {
                bail!("{}", report::SUPERSEDED);
            }
            if let Some(why) = self.anew {
                set_aside(self.config.data_dir.as_deref(), self.membership.life)?;
                bail!("{why}");
            }
            if self.look_after_drain() {
                return Ok(());
            }
        }
    }

    /// The one place that awaits: until there is anything to do.
    async fn wait(&mut self, turn: &mut Turn) -> anyhow::Result<()> {
        let mut wake = self.next_sweep;
        wake = self.replica.deadline().map_or(wake, |deadline| wake.min(deadline));
        wake = self.publisher.due().map_or(wake, |due| wake.min(due));
        wake = self.drain.due().map_or(wake, |due| wake.min(due));
        let (takes_requests, wake) = (!self.journal.behind(), self.clock.timer(wake));
        // A follower's may be an election.
        let wake = if self.replica.reign().is_some() { grid::later(wake) } else { wake };
        let Inputs { peers, requests, admin, control } = &mut self.inputs;
        tokio::select! {
            biased;
            () = self.journal.completed() => {}
            taken = self.app.events.recv_many(&mut turn.app, APP_EVENTS) => if taken == 0 {
                bail!("the application's task ended");
            },
            _ = peers.recv_many(&mut turn.peers, PEER_FRAMES) => {}
            _ = requests.recv_many(&mut turn.requests, REQUESTS), if takes_requests => {}
            () = tokio::time::sleep_until(wake) => {}
            ask = admin.recv() => turn.admin = ask,
            order = control.recv() => turn.control = order,
            judged = next_judged(&mut self.checker) => turn.judged = judged,
            input = self.transfers.next() => turn.transfer = Some(input),
        }
        Ok(())
    }

    /// Takes what else is there, without waiting.
    fn gather(&mut self, turn: &mut Turn) {
        while turn.app.len() < APP_EVENTS
            && let Ok(event) = self.app.events.try_recv()
        {
            turn.app.push(event);
        }
        while turn.peers.len() < PEER_FRAMES
            && let Ok(incoming) = self.inputs.peers.try_recv()
        {
            turn.peers.push(incoming);
        }
        while turn.judged.len() < REQUESTS
            && let Some(judged) = self.checker.as_mut().and_then(Checker::try_next)
        {
            turn.judged.extend(judged);
        }
        if !self.journal.behind() {
            while turn.requests.len() < REQUESTS
                && let Ok(event) = self.inputs.requests.try_recv()
            {
                turn.requests.push(event);
            }
        }
    }

    fn process(&mut self, turn: &mut Turn) {
        if let Some(lsn) = self.journal.take_completed() {
            self.step(Input::Persisted { lsn });
        }
        for event in turn.app.drain(..) {
            if !matches!(event, app::Event::Executed { .. } | app::Event::Read { .. }) {
                // A snapshot that was asked for of a run that is over gets no answer of its own.
                self.publisher.dumping(false);
            }
            match &event {
                app::Event::Dumped { .. } => self.dumps.taken += 1,
                app::Event::DumpFailed { .. } => self.dumps.failed += 1,
                app::Event::Executed { .. } => {
                    failpoint::reach(self.config.data_dir.as_deref(), failpoint::AFTER_EXECUTE_BEFORE_REPLY);
                }
                _ => {}
            }
            let input = match event {
                app::Event::Restored { run } => Input::Restored { run },
                app::Event::Executed { run, slot, replies } => Input::Executed { run, slot, replies },
                app::Event::Read { run, read, replies } => {
                    self.reads.replied(read, replies);
                    Input::ReadDone { run, read }
                }
                app::Event::Silent { run, slot, answered } => Input::AppSilent { run, slot, answered },
                app::Event::Lost { run } => Input::AppLost { run },
                app::Event::SnapshotLost { slot } => Input::SnapshotLost { slot },
                app::Event::Dumped { slot } => Input::Dumped { slot },
                app::Event::DumpFailed { slot } => Input::DumpFailed { slot },
            };
            self.step(input);
        }
        for incoming in turn.peers.drain(..) {
            self.on_frame(incoming);
        }
        self.on_requests(&mut turn.requests, &mut turn.judged);
        if self.replica.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.step(Input::Timeout);
        }
        if let Some(input) = turn.transfer.take() {
            self.step(input);
        }
        if let Some(ask) = turn.admin.take() {
            self.on_admin(ask);
        }
        if let Some(order) = turn.control.take() {
            self.on_control(order);
        }
    }

    fn on_frame(&mut self, Incoming { from, frame, share }: Incoming) {
        let Some(frame) = frame else { return self.step(Input::Left { member: from }) };
        match frame {
            PeerFrame::Core(generation, life, message) if generation == self.generation() => {
                self.step(Input::Message { from, life, message });
            }
            PeerFrame::Proposal(generation, life, message, desks) if generation == self.generation() => {
                if let Message::Accept { slot, batch, .. } = &message
                    && *slot > self.replica.executed()
                {
                    self.waiters.expect(self.now + WAIT_MAX, &batch.requests, &desks);
                }
                self.step(Input::Message { from, life, message });
            }
            PeerFrame::Core(generation, ..) | PeerFrame::Proposal(generation, ..) => {
                self.on_other_generation(from, generation);
            }
            // It joins what it hears of first, so whoever belongs to the past says nothing.
            PeerFrame::WhichCluster if self.is_left_behind() => {}
            PeerFrame::WhichCluster => self.tell_configuration(from),
            PeerFrame::Cluster(configuration) if configuration.generation != self.generation() => {
                self.on_other_generation(from, configuration.generation);
            }
            PeerFrame::Cluster(configuration) => {
                self.on_configuration(from, &configuration);
            }
            // The peers' own business.
            PeerFrame::Roster(_) => {}
        }
        drop(share);
    }

    /// The generation that this process is part of: another one begins with another process.
    const fn generation(&self) -> Generation {
        self.membership.configuration.generation
    }

    fn tell_configuration(&self, to: ReplicaId) {
        let frame = PeerFrame::Cluster(self.replica.configuration().clone());
        self.peers.send_frame(To::One(to), "cluster", &frame);
    }

    /// Nothing that it says counts (rule 14). Whoever belongs to the past learns of it.
    fn on_other_generation(&mut self, from: ReplicaId, generation: Generation) {
        let own = self.generation();
        self.reporter.other_generation(self.now, from, (generation, own));
        if generation < own {
            self.tell_configuration(from);
        } else {
            self.publisher.superseded_by(generation);
            self.publisher.touch(self.replica.executed());
            if self.is_left_behind() && self.never_voted() {
                self.anew = Some(report::FOLLOWED_THE_PAST);
            }
        }
    }

    /// Whether there is a newer generation and this one is over. While it has a leader it is not: what speaks of a newer one
    /// may be a copy of the cluster that was restored for a trial.
    fn is_left_behind(&self) -> bool {
        self.publisher.newer().is_some() && self.replica.status().leader.is_none()
    }

    /// Whether this life was never given a vote: it joined what it heard of first.
    fn never_voted(&self) -> bool {
        let (cluster, life) = (&self.replica.configuration().cluster, self.membership.life);
        let own = cluster.member(self.config.replica()).filter(|own| own.life == life);
        !own.is_some_and(|own| own.votes) && !cluster.retired.iter().any(|retired| retired.life == life)
    }

    /// All requests of the turn make one input, so that they make one batch.
    fn on_requests(&mut self, events: &mut Vec<intake::Event>, judged: &mut Vec<Judged>) {
        let mut sought = Vec::new();
        for event in events.drain(..) {
            match event {
                intake::Event::Up(link, out) => self.waiters.link_up(link, out),
                intake::Event::Desk(link, desk) => self.waiters.set_desk(link, desk),
                intake::Event::Down(link) => {
                    self.waiters.link_down(link);
                    self.reads.link_down(link);
                }
                intake::Event::Ask(ask) if self.drain.stops() => {
                    self.waiters.refuse(ask.link, ask.submit.request.tag(), Steer::NotReady);
                }
                intake::Event::Ask(ask) => self.on_ask(ask, judged, &mut sought),
            }
        }
        if let Some(checker) = self.checker.as_mut().filter(|_| !sought.is_empty()) {
            judged.extend(checker.ask(sought));
        }
        let mut requests = Vec::new();
        for Judged { verdict, held: Held { link, tag, whole, until, share: _share } } in judged.drain(..) {
            match verdict {
                Ok(request) => {
                    if self.waiters.register(link, tag, whole, until) {
                        requests.push(request);
                    }
                }
                Err(steer) => self.waiters.refuse(link, tag, steer),
            }
        }
        if !requests.is_empty() {
            self.step(Input::Requests(requests));
        }
        let reads = self.reads.take_fresh();
        if !reads.is_empty() {
            self.step(Input::Reads(reads));
        }
    }

    fn on_ask(
        &mut self,
        intake::Ask { link, submit, share }: intake::Ask,
        judged: &mut Vec<Judged>,
        sought: &mut Vec<(Seeking, Held)>,
    ) {
        let Submit { request, whole, within_ms } = submit;
        let until = self.now + Duration::from_millis(within_ms.into()).min(WAIT_MAX);
        if let Body::Read(_) = request.body {
            return self.on_read(link, request);
        }
        if !self.is_orderable(&request) {
            // Said, so that it holds no place among what the asker waits for.
            self.waiters.steer(link, request.tag(), Steer::NoRequest);
            return self.reporter.not_orderable(self.now, link);
        }
        let (needed, mode) = (self.replica.needed(&request), self.replica.configuration().cluster.request_signatures);
        let held = Held { link, tag: request.tag(), whole, until, share };
        match auth::check(request, needed, mode, &self.config.cluster, self.replica.verifier()) {
            Ok(Checked::Verified(request)) => judged.push(Judged { verdict: Ok(request), held }),
            Ok(Checked::Sought(seeking)) => sought.push((seeking, held)),
            Err(why) => judged.push(Judged { verdict: Err(Steer::Rejected(why)), held }),
        }
    }

    /// Whatever it says of itself, it is a read by its bytes, or nothing here.
    fn on_read(&mut self, link: LinkId, request: Request) {
        let (tag, mode) = (request.tag(), self.replica.configuration().cluster.request_signatures);
        let Body::Read(requests) = request.body else { return };
        if !self.reads.are(&self.adapter, mode, &requests) {
            return self.waiters.refuse(link, tag, Steer::NoRead);
        }
        if !self.reads.take(link, tag, requests) {
            self.metrics.read("busy");
            self.waiters.steer(link, tag, Steer::Unread);
        }
    }

    /// Whether a call is exactly one request of the protocol: without an ingress in between it may be anything, and the
    /// application must not wait for ever, nor run two at once. Too large a one is refused by the core.
    fn is_orderable(&self, request: &Request) -> bool {
        match &request.body {
            Body::Call(bytes) => bytes.len() > self.adapter.request_bytes || self.adapter.is_orderable(bytes),
            Body::Open { .. } | Body::Cancel | Body::Close => true,
            Body::Refused(_) | Body::Read(_) => false,
        }
    }

    fn on_admin(&mut self, ask: AdminAsk) {
        let reply = match (&ask.request, answer_started(&ask.request, &self.config)) {
            (_, Some(reply)) => reply,
            (AdminRequest::Save, _) if self.snapshots.is_none() || self.config.snapshots.is_none() => {
                AdminReply::Refused("snapshots are off on this member: start it with --snapshot".to_owned())
            }
            (AdminRequest::Save, _) => {
                // As it is before the snapshot: whoever asks waits for a change.
                let view = self.snapshots_view();
                if view.executed > view.newest {
                    self.step(Input::Save);
                }
                AdminReply::Snapshots(view)
            }
            (AdminRequest::Abort { at }, _) => self.on_abort(*at),
            (AdminRequest::Members, _) => AdminReply::Members(self.members_view()),
            (AdminRequest::Change(_) | AdminRequest::TransferLeader { .. }, _) => return self.on_change(ask),
            _ => AdminReply::Snapshots(self.snapshots_view()),
        };
        ask.answer(&reply);
    }

    /// The core answers when it is done.
    fn on_change(&mut self, ask: AdminAsk) {
        if self.changes.len() >= CHANGES {
            return ask.answer(&AdminReply::Refused("too many changes are asked for at once: try again".to_owned()));
        }
        self.change_asked += 1;
        let token = self.change_asked;
        let input = match ask.request {
            AdminRequest::TransferLeader { to } => Input::TransferLeader { token, to },
            AdminRequest::Change(change) => Input::Change { token, change },
            _ => return,
        };
        self.changes.insert(token, ask);
        self.step(input);
    }

    fn members_view(&self) -> MembersView {
        let status = self.replica.status();
        MembersView {
            configuration: self.replica.configuration().clone(),
            leader: status.leader,
            changing: status.changing,
            decided: status.decided,
            places: self.peers.places(),
        }
    }

    /// A peer says which cluster it is in.
    fn on_configuration(&mut self, from: ReplicaId, theirs: &Configuration) {
        let ours = self.replica.configuration();
        if !theirs.cluster.is_of_one_cluster(&ours.cluster) {
            return self.reporter.other_cluster(self.now, from);
        }
        let gone = theirs.cluster.member(self.config.replica()).is_none();
        if gone && ours.cluster.member(self.config.replica()).is_none() && theirs.epoch >= ours.epoch {
            self.without.insert(from);
            let majority = mesh::quorum::majority(theirs.cluster.voter_count());
            let said = theirs.cluster.voters().filter(|voter| self.without.contains(&voter.id)).count();
            if said >= majority && self.config.id < theirs.cluster.target_members {
                self.anew = Some(report::JOINS_ANEW);
            }
        }
    }

    /// The core checks that there is such a request; here is what can be said of it.
    fn on_abort(&mut self, at: Position) -> AdminReply {
        let status = self.replica.status();
        if status.role != Role::Leader {
            let leader = status.leader.map_or("nobody".to_owned(), |leader| format!("member {leader}"));
            return AdminReply::Refused(format!("this member does not lead, {leader} does"));
        }
        if at.slot <= status.settled {
            return AdminReply::Refused(format!(
                "a majority executed every slot up to {}, and what a majority executed is never aborted",
                status.settled
            ));
        }
        if at.slot > status.decided {
            return AdminReply::Refused(format!("the log ends with slot {}", status.decided));
        }
        self.step(Input::Abort { at });
        AdminReply::Done
    }

    fn snapshots_view(&self) -> SnapshotsView {
        let snapshots = self.snapshots.as_ref();
        SnapshotsView {
            newest: snapshots.and_then(Snapshots::newest).unwrap_or_default(),
            executed: self.replica.status().executed,
            taken: self.dumps.taken,
            failed: self.dumps.failed,
            writing: snapshots.and_then(Snapshots::writing),
        }
    }

    fn on_control(&mut self, order: Control) {
        match order {
            Control::Sign(signer) => {
                self.waiters.sign_with(self.now, voice(&self.config, self.replica.configuration()), signer);
            }
            Control::Drain(done) => self.drain.ask(done),
            Control::Stop => self.drain.stop(),
        }
    }

    /// The only call of the core.
    fn step(&mut self, input: Input) {
        let asked = matches!(input, Input::Requests(_));
        self.replica.step(self.now, input, &mut self.out);
        self.perform(asked);
        // Without a file a record is durable at once; with one this has the newest completion, which is as good now as
        // in the next turn.
        while let Some(lsn) = self.journal.take_completed() {
            self.replica.step(self.now, Input::Persisted { lsn }, &mut self.out);
            self.perform(false);
        }
        self.publisher.touch(self.replica.executed());
    }

    /// Does what the core said. `asked`: replies among it answer from the stored ones.
    fn perform(&mut self, asked: bool) {
        for output in self.out.drain(..) {
            match output {
                Output::Send { to, message } => {
                    let desks = match &message {
                        Message::Accept { batch, .. } => self.waiters.desks(&batch.requests),
                        _ => Vec::new(),
                    };
                    self.peers.send(to, self.membership.configuration.generation, self.membership.life, message, desks);
                }
                Output::Persist { lsn, record } => {
                    if let Record::Accepted { slot, batch, .. } = &record {
                        tracing::trace!(%lsn, %slot, "a vote goes to the journal");
                        self.metrics.batch_requests.observe(batch.requests.len() as f64);
                    }
                    self.journal.append(lsn, record);
                }
                Output::Reset { run, snapshot } => {
                    self.publisher.dumping(false);
                    command(&self.app, app::Command::Reset { run, snapshot });
                }
                Output::Resume { run } => command(&self.app, app::Command::Resume { run }),
                Output::Execute { run, slot, time: _, operations, patient } => {
                    command(&self.app, app::Command::Execute { run, slot, operations, patient });
                }
                Output::Dump { run, image } => {
                    self.publisher.dumping(true);
                    command(&self.app, app::Command::Dump { run, image });
                }
                Output::Cut { through } => {
                    self.journal.cut(through);
                    self.snapshots.iter().for_each(|snapshots| snapshots.cut(through));
                }
                Output::Discard { after } => {
                    self.snapshots.iter().for_each(|snapshots| snapshots.discard(after));
                }
                Output::Transfer { from, least } => self.transfers.fetch(from, least),
                Output::Reply { tag, slot, form, outcome } => {
                    if asked {
                        self.metrics.reply_cache_hits.inc();
                    }
                    self.waiters.on_reply(tag, slot, form, outcome);
                }
                Output::Steer { tag, steer } => self.waiters.on_steer(tag, steer),
                Output::Read { run, read } => {
                    let requests = self.reads.requests(read);
                    command(&self.app, app::Command::Read { run, read, requests });
                }
                Output::ReadAnswer { read, slot } => {
                    let answer = self.reads.answer(read, slot);
                    let said = answer.map(|(given, said)| (if given { "answered" } else { "too_large" }, said));
                    say(&mut self.waiters, &self.metrics, said);
                }
                Output::ReadVoid { read, why } => {
                    let said = self.reads.void(read).map(|said| (unread(why), said));
                    say(&mut self.waiters, &self.metrics, said);
                }
                Output::Changed { token, result } => {
                    if let Some(ask) = self.changes.remove(&token) {
                        ask.answer(&changed(result));
                    }
                }
                Output::Reconfigured(configuration) => {
                    take_up(&self.peers, &mut self.waiters, &configuration);
                    self.publisher.hurry(self.now);
                }
                Output::Event(event) => {
                    if let Event::Diverged { slot, agreed, .. } = &event {
                        self.evidence.diverged(*slot, *agreed);
                    }
                    self.superseded |= event == Event::Superseded;
                    self.publisher.hurry(self.now);
                    self.reporter.event(self.now, &event);
                }
            }
        }
    }

    /// Hands over what the turn brought about, then looks after what is due.
    fn finish_turn(&mut self) {
        // A leader's proposals go out while its own vote is being stored; a follower has nothing to say before.
        let reign = self.replica.reign();
        self.journal.flush(reign.is_none());
        self.waiters.set_leads(reign);
        self.waiters.finish_turn();
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP_EVERY;
            let status = self.replica.status();
            if status.role == Role::Removed || status.role == Role::Learner && status.leader.is_none() {
                // Whether the others hold that as well; whether the cluster went on in another generation.
                self.peers.send_frame(To::Others, "which_cluster", &PeerFrame::WhichCluster);
            }
            self.waiters.sweep(self.now);
        }
        if self.publisher.is_due(self.now) {
            let status = self.replica.status();
            self.publisher.publish(self.now, status, self.journal.bytes());
        }
    }

    /// Does what stopping asks for; true when the process may end.
    fn look_after_drain(&mut self) -> bool {
        if !self.drain.wants() {
            return false;
        }
        let status = self.replica.status();
        let (leaving, staying) = self.peers.company();
        let around = Around {
            handed_over: status.role != Role::Leader || staying.is_empty(),
            // Without a leader nothing in flight will end soon: its senders ask elsewhere.
            idle: !self.waiters.anybody_waits() || status.leader.is_none(),
            successor: !staying.is_empty(),
            leaving,
        };
        let mut ends = false;
        for step in self.drain.steps(self.now, &around) {
            match step {
                Step::Say(leaving) => {
                    self.metrics.drain_state.set(i64::from(leaving));
                    self.peers.set_leaving(leaving);
                }
                Step::HandOver => {
                    self.step(Input::Drain);
                    self.finish_turn();
                }
                Step::End => ends = true,
            }
        }
        ends
    }
}

/// From now on the others are told of these members, and replies state how many of them answer.
fn take_up(peers: &Peers, waiters: &mut Waiters, configuration: &Configuration) {
    let seats = configuration.cluster.members.iter().map(|member| Seat { id: member.id, answers: member.elects() });
    peers.set_members(configuration.edition(), seats.collect());
    waiters.set_electorate(configuration.cluster.electorate());
}

/// Answers a read, if anybody is there.
fn say(waiters: &mut Waiters, metrics: &Metrics, said: Option<(&'static str, Said)>) {
    let Some((result, (link, said))) = said else { return };
    metrics.read(result);
    match said {
        Ok(answer) => waiters.answer(link, answer),
        Err(tag) => waiters.steer(link, tag, Steer::Unread),
    }
}

/// The label of a read without an answer.
const fn unread(why: Unread) -> &'static str {
    match why {
        Unread::NotReady => "not_ready",
        Unread::Busy => "busy",
        Unread::Late => "late",
        Unread::Lost => "lost",
    }
}

fn changed(result: Result<(), ChangeRefused>) -> AdminReply {
    match result {
        Ok(()) => AdminReply::Done,
        Err(ChangeRefused::NotLeader { leader }) => AdminReply::NotLeader { leader },
        Err(why @ (ChangeRefused::InFlight | ChangeRefused::Unsettled)) => AdminReply::NotYet(why.to_string()),
        Err(why) => AdminReply::Refused(why.to_string()),
    }
}

/// The next answers of the threads that check signatures; never, where there are none.
async fn next_judged(checker: &mut Option<Checker>) -> Vec<Judged> {
    match checker {
        Some(checker) => checker.next().await,
        None => std::future::pending().await,
    }
}

/// The core has few slots outstanding, so the queue is never full; a task that is gone is noticed by its events' end.
fn command(app: &app::Handle, command: app::Command) {
    if let Err(tokio::sync::mpsc::error::TrySendError::Full(command)) = app.commands.try_send(command) {
        panic!("more commands wait for the application than slots can be outstanding: {command:?}");
    }
}
