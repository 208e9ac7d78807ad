//! The clients: each has a connection, calls with a deadline, waits or pipelines, hangs up at times and comes back.

use super::clock::Time;
use super::event::Event;
use super::{Process, World};
use crate::check::model::{CallId, MapOp, Poison};
use crate::check::{Verdict, Violation};
use mesh::client::sender::{Answer, Connection, Input, Lending};
use mesh::rng::Rng;
use mesh::time::Duration;
use mesh::wire::client::Unknown;
use std::collections::VecDeque;

/// What the clients do.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Clients of each sender.
    pub clients: usize,
    /// Calls of one client outstanding at most.
    pub pipeline: usize,
    /// Between two looks of a client, at most.
    pub think_max: Duration,
    /// The longest deadline.
    pub deadline_max: Duration,
    /// Of 1,000 looks, so many end the connection.
    pub hang_up: u32,
    /// Of 1,000 calls, so many have a body larger than the cluster takes.
    pub oversized: u32,
    /// Of 1,000 calls before healing, so many harm one application or all.
    pub poison: u32,
    /// The largest body that the cluster takes.
    pub request_bytes: usize,
    /// Different keys.
    pub keys: u64,
    /// Calls before healing, of all clients.
    pub calls: u64,
    /// Replies that each client demands after healing.
    pub demanded: u32,
}

impl Workload {
    /// The workload of a seed.
    #[must_use]
    pub fn swarm(rng: &mut Rng, request_bytes: usize, poison: bool) -> Self {
        Self {
            clients: rng.between(1, 4) as usize,
            pipeline: if rng.chance(500) { 1 } else { rng.between(1, 6) as usize },
            think_max: Duration::from_millis(*rng.choose(&[5, 50, 200]).unwrap_or(&50)),
            deadline_max: Duration::from_millis(rng.between(300, 6_000)),
            hang_up: if rng.chance(500) { rng.below(100) as u32 } else { 0 },
            oversized: if request_bytes < 1000 { 20 } else { 0 },
            poison: if poison && rng.chance(250) { rng.between(5, 50) as u32 } else { 0 },
            request_bytes,
            keys: rng.between(1, 8),
            calls: rng.between(20, 250),
            demanded: 2,
        }
    }
}

/// One client.
#[derive(Debug)]
pub struct Client {
    /// Its connection; no two in a run are the same.
    pub connection: u64,
    /// Calls without an answer, oldest first.
    pub outstanding: VecDeque<CallId>,
    /// It hangs up at its next look.
    hanging_up: bool,
    /// Replies that it got to what it called after healing.
    pub satisfied: u32,
    /// The first call that it made after healing was demanded to succeed.
    demanding_from: Option<CallId>,
    /// When everything that it called must be answered: answers come in the order of the calls.
    overdue: Time,
}

/// After a deadline, so long until the call must be answered.
const SLACK: Duration = Duration::from_millis(300);

impl World {
    /// A client with a connection of its own.
    pub(super) fn new_client(&mut self) -> Client {
        self.connections += 1;
        Client {
            connection: self.connections,
            outstanding: VecDeque::new(),
            hanging_up: false,
            satisfied: 0,
            demanding_from: None,
            overdue: Time::ZERO,
        }
    }

    /// A client looks what it can do.
    pub(super) fn on_client(&mut self, sender: usize, client: usize) -> Verdict {
        let think = Duration::from_micros(100) + self.workload_chance.duration(self.options.workload.think_max);
        self.plan_client(sender, client, think);
        let state = &self.senders[sender].clients[client];
        let by_chance = !self.healed && self.workload_chance.chance(self.options.workload.hang_up);
        if state.hanging_up || by_chance {
            return self.hang_up(sender, client);
        }
        let idle = state.outstanding.is_empty();
        if self.healed {
            let demanded = self.demanding && idle && state.satisfied < self.options.workload.demanded;
            return if demanded { self.call(sender, client) } else { Ok(()) };
        }
        if state.outstanding.len() >= self.options.workload.pipeline || self.calls_left == 0 {
            return Ok(());
        }
        self.calls_left -= 1;
        self.call(sender, client)
    }

    pub(super) fn plan_client(&mut self, sender: usize, client: usize, after: Duration) {
        let event = Event::Client { sender, life: self.senders[sender].life, client };
        self.queue.push(self.now + after, event);
    }

    fn hang_up(&mut self, sender: usize, client: usize) -> Verdict {
        let mut fresh = self.new_client();
        let old = &mut self.senders[sender].clients[client];
        (fresh.satisfied, fresh.demanding_from) = (old.satisfied, old.demanding_from);
        let gone = Connection(old.connection);
        *old = fresh;
        self.step_sender(sender, Input::Gone(gone))
    }

    fn call(&mut self, sender: usize, client: usize) -> Verdict {
        let workload = self.options.workload;
        let chance = &mut self.workload_chance;
        let key = chance.below(workload.keys);
        let oversized = !self.healed && chance.chance(workload.oversized);
        self.values += 1;
        let poisonous = !self.healed && chance.chance(workload.poison);
        let op = match chance.below(10) {
            draw if poisonous => {
                let victim = chance.below(self.servers.len() as u64 * 2);
                MapOp::Poison(Poison {
                    kills: draw < 5,
                    victim: Some(victim).filter(|victim| *victim < self.servers.len() as u64),
                })
            }
            3..=6 if self.options.reading => MapOp::Get(key),
            0..=4 => MapOp::Put(key, self.values),
            5..=7 => MapOp::Get(key),
            8 => MapOp::Remove(key),
            _ => MapOp::Size,
        };
        let patience = if self.demanding {
            // Where bounds are tight, a lost reply may be kept nowhere: then another call must do.
            Duration::from_secs(if self.options.tight { 3 } else { 20 })
        } else if chance.chance(30) {
            chance.duration(Duration::from_millis(20))
        } else {
            Duration::from_millis(20) + chance.duration(workload.deadline_max)
        };
        let connection = self.senders[sender].clients[client].connection;
        let id = self.checks.on_call(connection, op.clone(), oversized);
        let read = op.is_read();
        let bytes = op.encode(id, if oversized { workload.request_bytes + 1 } else { 0 });
        self.counters.calls += 1;
        let state = &mut self.senders[sender].clients[client];
        state.outstanding.push_back(id);
        if self.demanding {
            state.demanding_from.get_or_insert(id);
        }
        let deadline = self.senders[sender].clock.local(self.now) + patience;
        let life = self.senders[sender].life;
        // Clocks may be 5 % slow.
        let state = &mut self.senders[sender].clients[client];
        state.overdue = state.overdue.max(self.now + patience * 11 / 10 + SLACK);
        let overdue = state.overdue;
        self.queue.push(overdue, Event::Overdue { sender, life, connection, call: id });
        self.trace.line(self.now, format_args!("client {connection} calls {} {op:?} within {patience:?}", id.0));
        self.step_sender(sender, Input::Call { connection: Connection(connection), bytes, read, deadline })
    }

    /// A sender answers a connection's oldest call.
    pub(super) fn on_answer(&mut self, sender: usize, connection: u64, answer: Answer) -> Verdict {
        let clients = &mut self.senders[sender].clients;
        let Some(index) = clients.iter().position(|client| client.connection == connection) else {
            return Violation::raise("answers", format!("connection {connection} is gone and was answered {answer:?}"));
        };
        let Some(call) = clients[index].outstanding.pop_front() else {
            return Violation::raise("answers", format!("connection {connection} asked nothing and got {answer:?}"));
        };
        self.trace.line(self.now, format_args!("client {connection} call {} ends with {answer:?}", call.0));
        let demanded = clients[index].demanding_from.is_some_and(|from| from <= call);
        match &answer {
            Answer::Reply(_) => {
                self.counters.replies += 1;
                clients[index].satisfied += u32::from(demanded);
            }
            Answer::Refused(_) => {
                self.counters.refused += 1;
                // On a connection with a session of its own what follows may count on it: it is closed.
                clients[index].hanging_up |= self.options.sender.lending == Lending::Own;
            }
            Answer::Unknown(why) => {
                self.counters.unknown += 1;
                self.counters.session_gone += u64::from(*why == Unknown::SessionGone);
                // The connection is closed without a reply.
                clients[index].hanging_up = true;
            }
        }
        if demanded && !matches!(answer, Answer::Reply(_)) && !self.options.tight {
            let stuck = self.what_is_stuck();
            let what = format!("call {} was made after healing and ended with {answer:?}; {stuck}", call.0);
            return Violation::raise("liveness", what);
        }
        self.checks.on_answer(call, answer)
    }

    /// A call's deadline has passed.
    pub(super) fn on_overdue(&mut self, sender: usize, connection: u64, call: CallId) -> Verdict {
        let paused = *self.paused_until_mut(Process::Sender(sender));
        if paused + SLACK > self.now {
            let life = self.senders[sender].life;
            self.queue.push(paused + SLACK, Event::Overdue { sender, life, connection, call });
            return Ok(());
        }
        let mut clients = self.senders[sender].clients.iter();
        if clients.any(|client| client.connection == connection && client.outstanding.contains(&call)) {
            return Violation::raise("deadline", format!("call {} has no answer after its deadline", call.0));
        }
        Ok(())
    }
}
