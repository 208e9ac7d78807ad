//! A SMaRtClient's process.

use super::clock::{Clock, Time};
use super::event::{Epoch, Event, Life, Served};
use super::{Process, World};
use crate::check::Verdict;
use crate::check::spinning::Spinning;
use mesh::client::SmartClient;
use mesh::client::smart_client::{Input, Output, Ticket};
use mesh::ids::{Ballot, ReplicaId};
use mesh::time::Duration;
use mesh::wire::Tag;
use mesh::wire::client::Ask;
use std::collections::BTreeMap;

/// One SMaRtClient.
#[derive(Debug)]
pub struct Smart {
    /// The protocol, while the process runs.
    pub core: Option<SmartClient>,
    /// Counts its lives.
    pub life: Life,
    /// Its clock.
    pub clock: Clock,
    /// When it wants to be woken.
    pub wake_at: Option<Time>,
    /// It stands still until then.
    pub paused_until: Time,
    /// It was told to drain.
    pub draining: bool,
    spinning: Spinning,
    tickets: BTreeMap<Ticket, (usize, Epoch, Tag)>,
    next: u64,
}

impl Smart {
    /// A process that was never started.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            core: None,
            life: 0,
            clock,
            wake_at: None,
            paused_until: Time::ZERO,
            draining: false,
            spinning: Spinning::default(),
            tickets: BTreeMap::new(),
            next: 0,
        }
    }

    /// The tickets of a sender whose link broke.
    pub fn tickets_of(&mut self, sender: usize) -> Vec<Ticket> {
        let of = self.tickets.iter().filter(|(_, (owner, ..))| *owner == sender);
        let gone: Vec<Ticket> = of.map(|(ticket, _)| *ticket).collect();
        for ticket in &gone {
            self.tickets.remove(ticket);
        }
        gone
    }
}

impl World {
    /// Starts a SMaRtClient that is down.
    pub(super) fn start_smart(&mut self, index: usize) {
        if self.smarts[index].core.is_some() {
            return;
        }
        let clock = Clock::start(self.now, &self.options.clock, &mut self.clock_chance);
        let smart = &mut self.smarts[index];
        *smart = Smart {
            core: Some(SmartClient::new(self.options.smart_client.clone())),
            life: smart.life + 1,
            ..Smart::new(clock)
        };
        self.check_links();
        self.rearm(Process::Smart(index));
    }

    /// Ends one.
    pub(super) fn crash_smart(&mut self, index: usize) {
        let smart = &mut self.smarts[index];
        if smart.core.take().is_none() {
            return;
        }
        smart.life += 1;
        smart.paused_until = Time::ZERO;
        smart.draining = false;
        self.trace.line(self.now, format_args!("SMaRtClient {index} ends"));
        let back = self.now + self.down_time();
        self.queue.push(back, Event::Start(Process::Smart(index)));
        self.check_links();
    }

    pub(super) fn step_smart(&mut self, index: usize, input: Input) -> Verdict {
        let smart = &mut self.smarts[index];
        let Some(core) = smart.core.as_mut() else { return Ok(()) };
        self.trace.line(self.now, format_args!("SMaRtClient {index} < {input:?}"));
        let mut out = Vec::new();
        core.step(smart.clock.local(self.now), input, &mut out);
        for output in out {
            self.trace.line(self.now, format_args!("SMaRtClient {index} > {output:?}"));
            match output {
                Output::Send { to, request, whole } => {
                    let server = to.0 as usize;
                    self.smarts[index].spinning.on_ask(self.now, server, request.tag())?;
                    let (from, to) = (Process::Smart(index), Process::Server(server));
                    let Some(epoch) = self.network.epoch(from, to) else { continue };
                    if self.network.blocked(from, to) || self.network.loses_stream() {
                        continue;
                    }
                    let at = self.now + self.network.delay();
                    self.queue.push(at, Event::Submit { smart: index, server, epoch, request, whole });
                }
                Output::Tell { ticket, told } => {
                    let Some((sender, epoch, tag)) = self.smarts[index].tickets.remove(&ticket) else { continue };
                    let (from, to) = (Process::Smart(index), Process::Sender(sender));
                    if self.network.blocked(from, to) || self.network.loses_stream() {
                        continue;
                    }
                    let at = self.now + self.network.delay();
                    self.queue.push(at, Event::Told { sender, smart: index, epoch, tag, told });
                }
                Output::Disagreed { replica, tag } => self.disagreements.push((replica, tag)),
                Output::Resent | Output::Withheld => self.counters.resends += 1,
                // Servers of the simulator say nothing of who is a member.
                Output::Seated { .. } => {}
            }
        }
        self.rearm(Process::Smart(index));
        Ok(())
    }

    /// A sender's request came.
    pub(super) fn on_ask(&mut self, index: usize, sender: usize, epoch: Epoch, ask: Ask) -> Verdict {
        let smart = &mut self.smarts[index];
        smart.next += 1;
        let ticket = Ticket(smart.next);
        smart.tickets.insert(ticket, (sender, epoch, ask.request.tag()));
        if self.chance.chance(self.options.network.stream_loss) {
            let at = self.now + self.chance.duration(Duration::from_secs(1));
            self.queue.push(at, Event::StreamGone { smart: index, life: smart.life, ticket });
        }
        let deadline = smart.clock.local(self.now) + Duration::from_millis(u64::from(ask.within_ms));
        self.step_smart(index, Input::Ask { ticket, request: ask.request, deadline })
    }

    /// A stream is gone.
    pub(super) fn on_stream_gone(&mut self, index: usize, ticket: Ticket) -> Verdict {
        match self.smarts[index].tickets.remove(&ticket) {
            Some(_) => self.step_smart(index, Input::Gone(ticket)),
            None => Ok(()),
        }
    }

    /// A server's answer came.
    pub(super) fn on_served(&mut self, index: usize, server: usize, ballot: Option<Ballot>, served: Served) -> Verdict {
        let from = ReplicaId(server as u32);
        self.step_smart(index, Input::Leads { from, ballot })?;
        self.step_smart(
            index,
            match served {
                Served::Answer(answer) => Input::Answer { from, answer },
                Served::Votes(votes) => Input::Votes { from, votes },
                Served::Steer(tag, steer) => Input::Steer { from, tag, steer },
            },
        )
    }
}
