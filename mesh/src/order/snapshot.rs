//! Snapshots: when one is taken, what is cut behind it, and those of peers (rule 10).

use super::catch_up::Fetching;
use super::execute::Base;
use super::image::{Image, Work};
use super::sessions::Sessions;
use super::{AfterDisk, Event, Mutant, Output, Record, Replica, State, Timer, mutant};
use crate::config::{Configuration, Snapshots};
use crate::ids::{Lsn, ReplicaId, Slot};
use crate::quorum::{ELECTORATE_MIN, majority, reached_by};
use crate::time::{Duration, Instant};

/// A snapshot that is being taken.
#[derive(Debug)]
pub(super) struct Dumping {
    /// Complete but for what execution up to its slot yields, and the sessions.
    pub image: Box<Image>,
    /// The session table at its slot.
    pub sessions: Sessions,
    /// The record with which the journal has everything that a witness's snapshot stands for. Without that it would be taken
    /// for one that reaches further than the log, and the log be let go behind it.
    pub recorded: Lsn,
    /// When the application was asked for its part.
    pub since: Option<Instant>,
}

/// After a snapshot the next one waits so many times as long as it took, so that the application is not paused for more
/// than a small part of the time.
const REST: u32 = 9;
/// But no longer than this: a process that stood still in between took no longer for it.
const REST_MAX: Duration = Duration::from_secs(300);
/// A pause for which requests would wait noticeably.
const LONG_PAUSE_MS: u32 = 1000;
/// After one that failed.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The next snapshot is due when the work done passes a multiple of `every`, shifted for each member so that they do not
/// pause together.
fn turns(work: u64, every: u64, index: usize, members: usize) -> u64 {
    let every = every.max(1);
    let shift = (u128::from(every) * (index as u128 + 1) / members as u128) as u64;
    work.saturating_add(every - shift) / every
}

impl Replica {
    /// What there is to do after any input: begin a snapshot, ask for the application's part, tell that the log grows.
    pub(super) fn look_after_snapshots(&mut self, now: Instant, out: &mut Vec<Output>) {
        let due = self.execution.dumping.is_none() && self.snapshot_is_due(now);
        self.turn_wanted = due && !self.has_turn();
        if due && !self.turn_wanted {
            self.begin_snapshot(out);
        }
        self.dump(now, out);
        self.alarm_of_size(out);
    }

    fn has_turn(&self) -> bool {
        match &self.state {
            // Nothing stands still for that of a witness.
            _ if !self.application => true,
            State::Leader(leading) => leading.turn == Some(self.own_index()) || !self.has_others(),
            _ => self.turn,
        }
    }

    /// How long the application is expected to stand still for the snapshot that is due or being taken, in ms.
    pub(super) fn expected_pause(&self) -> Option<u32> {
        let wanted = self.turn_wanted || self.execution.dumping.is_some();
        wanted.then(|| u32::try_from(self.last_pause.as_millis()).unwrap_or(u32::MAX))
    }

    /// The leader lets one member take a snapshot at a time: while its application stands still, the others' go on. Where
    /// they would be too few, a long pause waits until everybody is back, or the log has grown.
    pub(super) fn give_turn(&mut self, now: Instant) {
        let (own, members) = (self.own_index(), self.members());
        let cluster = &self.configuration.cluster;
        let counted: Vec<bool> = cluster.members.iter().map(crate::config::Member::elects).collect();
        let electorate = cluster.electorate();
        let (own_pause, grown) = (self.expected_pause(), self.log.bytes() >= self.config.limits.log_bytes / 2);
        let silence = self.config.timing.election_timeout;
        let State::Leader(leading) = &mut self.state else { return };
        let lives = |index: usize| index == own || leading.peers[index].lives(now, silence);
        let wants = |index: usize| {
            let pause = if index == own { own_pause } else { leading.peers[index].marks.turn };
            pause.filter(|_| lives(index))
        };
        if leading.turn.is_some_and(|index| wants(index).is_some()) {
            return;
        }
        let living = (0..members).filter(|index| counted[*index] && lives(*index)).count();
        let spared = living > majority(electorate) || electorate < ELECTORATE_MIN;
        let bearable = |pause: u32| pause < LONG_PAUSE_MS || spared || grown;
        let after = leading.turn.map_or(0, |index| index + 1);
        let mut others = (0..members).map(|step| (after + step) % members);
        leading.turn = others.find(|index| wants(*index).is_some_and(bearable));
    }

    fn snapshot_is_due(&self, now: Instant) -> bool {
        let execution = &self.execution;
        let Some(base) = execution.base else { return false };
        if !execution.is_running()
            || execution.silence.is_some()
            || execution.judgement.differs()
            || (execution.executed() <= base.slot && !base.lost)
            // It would have a configuration of the future, where this member began with one.
            || self.configuration.configured > self.log.decided()
            || self.own().is_none()
        {
            return false;
        }
        let Some(Snapshots { every_requests, every_bytes }) = self.config.snapshots else { return false };
        if self.save || base.lost {
            return true;
        }
        let Some(done) = self.log.get(execution.executed()).map(|entry| entry.admission.work) else { return false };
        let (index, members) = (self.own_index(), self.members());
        let passed = |of: fn(&Work) -> u64, every| {
            turns(of(&done), every, index, members) > turns(of(&base.work), every, index, members)
        };
        now >= self.next_snapshot
            && (passed(|work| work.requests, every_requests) || passed(|work| work.bytes, every_bytes))
    }

    /// The session table goes ahead of the application, so the snapshot is of where the table is; the application then
    /// executes up to there and not further.
    fn begin_snapshot(&mut self, out: &mut Vec<Output>) {
        self.save = false;
        let recorded = if self.application {
            // It has a state of its own to give.
            Lsn(0)
        } else {
            self.record_decided(out);
            Lsn(self.next_lsn.0 - 1)
        };
        let (time, work) = self.admitted;
        let image = Image {
            slot: self.log.decided(),
            time,
            work,
            generation: self.sessions.generation(),
            epoch: self.configuration.epoch,
            configured: self.configuration.configured,
            elected: self.configuration.elected,
            hollow: !self.application,
            ..Image::genesis(self.configuration.cluster.clone())
        };
        self.execution.dumping =
            Some(Dumping { image: Box::new(image), sessions: self.sessions.clone(), recorded, since: None });
    }

    /// Only settled slots enter a snapshot: what is not settled may still be aborted (rule 23).
    fn dump(&mut self, now: Instant, out: &mut Vec<Output>) {
        let (digest, milestone) = (self.execution.digest(), self.execution.milestone());
        let (run, executed, idle) = (self.execution.run(), self.execution.executed(), self.execution.is_idle());
        let usable = self.execution.is_running() && self.execution.silence.is_none();
        let Some(slot) = self.execution.dumping.as_ref().map(|dumping| dumping.image.slot) else { return };
        if !usable || self.execution.judgement.differs() || !self.aborts_known(slot) {
            return;
        }
        let Some(dumping) = &mut self.execution.dumping else { return };
        if dumping.since.is_some()
            || dumping.recorded > self.durable
            || executed != slot
            || !idle
            || self.settled < slot
        {
            return;
        }
        dumping.since = Some(now);
        dumping.image.digest = digest;
        dumping.image.milestone = milestone;
        let mut image = dumping.image.clone();
        if !mutant::on(Mutant::SessionsForgotten) {
            // Nothing is executed before the answer, so no reply is missing from it.
            image.sessions = dumping.sessions.take_table();
        }
        out.push(Output::Dump { run, image });
    }

    /// The snapshot of a slot that the application was asked for, now that there is an answer.
    fn take_dumping(&mut self, slot: Slot) -> Option<Dumping> {
        let asked = |dumping: &mut Dumping| dumping.image.slot == slot && dumping.since.is_some();
        self.execution.dumping.take_if(asked)
    }

    pub(super) fn on_dumped(&mut self, now: Instant, slot: Slot, out: &mut Vec<Output>) {
        let Some(dumping) = self.take_dumping(slot) else { return };
        self.execution.base = Some(Base::of(&dumping.image));
        self.last_pause = now.since(dumping.since.unwrap_or(now));
        self.next_snapshot = now + (self.last_pause * REST).min(REST_MAX);
        self.cut(out);
        self.execute(out);
        self.propose(now, out);
    }

    pub(super) fn on_dump_failed(&mut self, now: Instant, slot: Slot, out: &mut Vec<Output>) {
        if self.take_dumping(slot).is_some() {
            self.next_snapshot = now + REST_AFTER_FAILURE;
            self.execute(out);
            self.propose(now, out);
        }
    }

    /// A snapshot is damaged or gone, as a reset that was to load it, or a peer that fetches it, found.
    pub(super) fn on_snapshot_lost(&mut self, now: Instant, slot: Slot, out: &mut Vec<Output>) {
        let running = self.execution.is_running();
        let Some(base) = self.execution.base.as_mut().filter(|base| base.slot == slot) else { return };
        if running {
            base.lost = true;
        } else {
            self.begin_from_log(now);
            self.restart_app(out);
        }
    }

    /// There is no snapshot to go on from: the log alone must do, if it is whole.
    pub(super) fn begin_from_log(&mut self, now: Instant) {
        self.execution.base = None;
        if self.log.first() == Slot(1) {
            let genesis = Image::genesis(self.bootstrap.clone());
            self.go_back(now, genesis);
        }
    }

    /// The application is to begin from this snapshot. What of the slots after it is executed may not be known here, where
    /// a later one was installed: then they go through the session table again.
    fn go_back(&mut self, now: Instant, image: Image) {
        if image.slot.next() >= self.log.replayable() {
            self.execution.base = Some(Base::of(&image));
            self.sessions.take_replies(&image.sessions, &self.config.limits);
            return;
        }
        let decided = self.log.decided();
        let voting = std::mem::replace(&mut self.voting, false);
        let recorded = std::mem::replace(&mut self.decided_recorded, decided);
        self.log.go_back(image.slot);
        self.install(image);
        // Everybody who waited was told; what the application does begins anew afterwards.
        let mut told = Vec::new();
        while self.log.decided() < decided
            && let Some((slot, batch)) = self.log.advance()
        {
            self.admit(now, slot, &batch, &mut told);
        }
        (self.voting, self.decided_recorded) = (voting, recorded);
    }

    /// The mark up to which verified snapshots of a majority reach, as far as the leader knows.
    pub(super) fn update_covered(&mut self) {
        let State::Leader(leading) = &self.state else { return };
        let mut marks: Vec<Slot> = self.heard_of_applications(leading).map(|(_, marks)| marks.snapshot).collect();
        let covering = self.configuration.cluster.covering();
        self.covered = self.covered.max(reached_by(covering, &mut marks));
    }

    /// Lets go of what is covered (rule 10): by the own snapshot, by those of a majority, settled, not needed by a
    /// transfer; but for a tail.
    pub(super) fn cut(&mut self, out: &mut Vec<Output>) {
        self.update_covered();
        let own = self.execution.snapshot();
        let covered = if mutant::on(Mutant::CutUncovered) { own } else { self.covered };
        let serving = self.serving.unwrap_or(own);
        let limit = own.min(covered).min(self.settled).min(serving);
        if limit < self.log.first() {
            return;
        }
        let limits = &self.config.limits;
        let through = self.log.cut_below_tail(limit, limits.log_tail_slots, limits.log_tail_bytes);
        if through >= self.log.first() {
            self.log.cut(through);
            out.push(Output::Cut { through });
        }
    }

    /// Whether the leader takes no more calls.
    pub(super) fn log_is_full(&self) -> bool {
        self.log.bytes() >= self.config.limits.log_bytes
    }

    fn alarm_of_size(&mut self, out: &mut Vec<Output>) {
        let (bytes, half) = (self.log.bytes(), self.config.limits.log_bytes / 2);
        if bytes >= half && !self.alarmed {
            self.alarmed = true;
            out.push(Output::Event(Event::LogGrows { bytes }));
        }
        self.alarmed &= bytes >= half / 2;
    }

    /// Asks the next peer for a snapshot that reaches the kept log.
    pub(super) fn need_snapshot(&mut self, out: &mut Vec<Output>) {
        let after = self.transfer.map_or(self.config.id, |transfer| transfer.from);
        let least = self.log.first().previous();
        match self.snapshot_after(after) {
            Some(from) => self.transfer_from(from, least, out),
            None => out.push(Output::Event(Event::NoSnapshot { least })),
        }
    }

    fn transfer_from(&mut self, from: ReplicaId, least: Slot, out: &mut Vec<Output>) {
        self.transfer = Some(Transfer { from, under_way: true });
        self.fetching = None;
        out.push(Output::Transfer { from, least });
    }

    /// What was to be fetched is cut at this peer.
    pub(super) fn on_cut(&mut self, from: ReplicaId, snapshot: Slot, out: &mut Vec<Output>) {
        self.confirm_change(snapshot, out);
        let next = self.log.decided().next();
        let asked = self.fetching.is_some_and(|Fetching { peer, .. }| peer == from);
        if snapshot >= next && asked && !self.transfers() {
            // A witness has cut its log, and has no snapshot for others.
            let member = self.configuration.cluster.member(from);
            let has = member.is_none_or(|member| member.application);
            let source = if has { Some(from) } else { self.snapshot_after(from) };
            if let Some(source) = source {
                self.transfer_from(source, next, out);
            }
        }
    }

    /// Whether a peer's snapshot is on its way.
    pub(super) fn transfers(&self) -> bool {
        self.transfer.is_some_and(|transfer| transfer.under_way)
    }

    pub(super) fn on_transfer_failed(&mut self, now: Instant, from: ReplicaId) {
        if let Some(transfer) = self.transfer.as_mut().filter(|transfer| transfer.from == from) {
            transfer.under_way = false;
            // The next peer's turn.
            self.fetching = Some(Fetching { peer: from, until: now });
            self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        }
    }

    /// A peer's snapshot is stored.
    pub(super) fn on_received(&mut self, now: Instant, image: Image, out: &mut Vec<Output>) {
        if let Some(transfer) = &mut self.transfer {
            transfer.under_way = false;
        }
        if image.hollow && self.application {
            // No application can begin with it, and nobody who gives one away.
            return self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        }
        if image.slot > self.log.decided() {
            self.jump(now, image, out);
        } else if self.execution.base.is_none() && image.slot.next() >= self.log.first() {
            self.go_back(now, image);
            self.restart_app(out);
        } else if self.execution.base.is_none() {
            self.timers.set_if_stopped(Timer::Repair, now + self.config.timing.repair);
        }
    }

    /// Goes on from a snapshot ahead of everything here.
    fn jump(&mut self, now: Instant, image: Image, out: &mut Vec<Output>) {
        if self.leads() {
            self.step_down(now);
        }
        let slot = image.slot;
        if image.configured > self.configuration.configured {
            self.leave_ballot(now, false, out);
        }
        self.log.jump(slot);
        // Before anything else is recorded: were the slots called decided first, what the journal has of them would count.
        self.jumped(slot, out);
        if self.install(image) {
            self.configuration_changed(now, out);
        } else {
            self.review_vote(now, out);
        }
        self.settle_change_by_snapshot(slot, out);
        self.settle_all_held(out);
        self.restart_app(out);
        self.last_decided = now;
        self.known_decided = self.known_decided.max(slot);
        self.advance(now, out);
        self.on_recovery_progress(now, out);
    }

    /// From now on the journal says that a snapshot has taken the place of every slot up to here.
    pub(super) fn jumped(&mut self, slot: Slot, out: &mut Vec<Output>) {
        self.decided_recorded = self.decided_recorded.max(slot);
        self.persist(Record::Jumped { slot }, Some(AfterDisk::Jump { slot }), out);
    }

    /// Takes everything but the application's state from a snapshot. True if its configuration is newer than what is known.
    pub(super) fn install(&mut self, image: Image) -> bool {
        let base = Base::of(&image);
        let Image { slot, time, work, generation, cluster, epoch, configured, elected, sessions, .. } = image;
        let empty = Sessions::new(cluster.sessions, cluster.request_signatures, generation);
        self.sessions = empty.restore(sessions, &self.config.limits);
        let newer = configured > self.configuration.configured;
        if newer {
            self.voters_before = self.configuration.cluster.voter_count();
            self.configuration = Configuration { cluster, generation, epoch, configured, elected };
        }
        self.admitted = (time, work);
        self.settled = self.settled.max(slot);
        self.log_settled = self.log_settled.max(slot);
        if self.execution.silence.is_some_and(|silence| silence.at.slot <= slot) {
            self.execution.silence = None;
        }
        self.execution.base = Some(base);
        newer
    }
}

/// The peer whose snapshot was asked for last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub from: ReplicaId,
    pub under_way: bool,
}
