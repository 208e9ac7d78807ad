//! A sender's process: an ingress, or a native client, with its clients.

use super::clock::{Clock, Time};
use super::event::{Event, Life};
use super::native::Native;
use super::workload::Client;
use super::{Process, World};
use crate::check::Verdict;
use crate::check::spinning::Spinning;
use mesh::client::Sender;
use mesh::client::sender::{Input, Output};
use mesh::wire::client::Ask;

/// One sender.
#[derive(Debug)]
pub struct SenderProcess {
    /// The protocol, while the process runs.
    pub core: Option<Sender>,
    /// Counts its lives.
    pub life: Life,
    /// Its clock.
    pub clock: Clock,
    /// When it wants to be woken.
    pub wake_at: Option<Time>,
    /// It stands still until then.
    pub paused_until: Time,
    /// Its clients.
    pub clients: Vec<Client>,
    /// Programs that use its links, with sessions of their own; their disks outlive the process.
    pub natives: Vec<Native>,
    spinning: Spinning,
}

impl SenderProcess {
    /// A process that was never started.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let (clients, natives, spinning) = (Vec::new(), Vec::new(), Spinning::default());
        Self { core: None, life: 0, clock, wake_at: None, paused_until: Time::ZERO, clients, natives, spinning }
    }
}

impl World {
    /// Starts a sender that is down, with new clients.
    pub(super) fn start_sender(&mut self, index: usize) {
        if self.senders[index].core.is_some() {
            return;
        }
        let clock = Clock::start(self.now, &self.options.clock, &mut self.clock_chance);
        let seed = std::array::from_fn(|_| self.chance.next_u64());
        let clients: Vec<Client> = (0..self.options.workload.clients).map(|_| self.new_client()).collect();
        let mut natives = std::mem::take(&mut self.senders[index].natives);
        natives.iter_mut().for_each(Native::crash);
        while natives.len() < self.options.natives {
            natives.push(self.new_native());
        }
        let mut core = Sender::new(self.options.sender.clone(), seed);
        if let Some(card) = self.card(index) {
            core.step(clock.local(self.now), Input::Signer(card), &mut Vec::new());
        }
        let sender = &mut self.senders[index];
        *sender =
            SenderProcess { core: Some(core), life: sender.life + 1, clients, natives, ..SenderProcess::new(clock) };
        for client in 0..self.options.workload.clients {
            let after = self.workload_chance.duration(self.options.workload.think_max);
            self.plan_client(index, client, after);
        }
        for native in 0..self.options.natives {
            self.plan_native(index, native);
        }
        self.check_links();
        self.rearm(Process::Sender(index));
    }

    /// Ends one, and its clients' connections.
    pub(super) fn crash_sender(&mut self, index: usize) {
        let sender = &mut self.senders[index];
        if sender.core.take().is_none() {
            return;
        }
        sender.life += 1;
        sender.paused_until = Time::ZERO;
        self.trace.line(self.now, format_args!("sender {index} ends"));
        let back = self.now + self.down_time();
        self.queue.push(back, Event::Start(Process::Sender(index)));
        self.check_links();
    }

    pub(super) fn step_sender(&mut self, index: usize, input: Input) -> Verdict {
        let sender = &mut self.senders[index];
        let Some(core) = sender.core.as_mut() else { return Ok(()) };
        self.trace.line(self.now, format_args!("sender {index} < {input:?}"));
        let mut out = Vec::new();
        core.step(sender.clock.local(self.now), input, &mut out);
        if self.signs() {
            super::forger::sign(
                index,
                out.iter_mut().filter_map(|output| match output {
                    Output::Send { request, .. } => Some(request),
                    _ => None,
                }),
            );
        }
        for output in out {
            self.trace.line(self.now, format_args!("sender {index} > {output:?}"));
            match output {
                Output::Send { endpoint, request, key: _, within } => {
                    let smart = endpoint.0 as usize;
                    self.senders[index].spinning.on_ask(self.now, smart, request.tag())?;
                    let (from, to) = (Process::Sender(index), Process::Smart(smart));
                    let Some(epoch) = self.network.epoch(from, to) else { continue };
                    if self.network.blocked(from, to) || self.network.loses_stream() {
                        continue;
                    }
                    let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
                    let at = self.now + self.network.delay();
                    let ask = Ask { request, within_ms };
                    self.queue.push(at, Event::Ask { sender: index, smart, epoch, ask });
                }
                Output::Carried { tag, end } => self.on_carried(index, tag, end)?,
                Output::Answer { connection, answer } => self.on_answer(index, connection.0, answer)?,
                Output::Resent => self.counters.resends += 1,
                Output::Withheld => {}
                Output::Read { answered: true } => self.counters.reads += 1,
                Output::Read { answered: false } => self.counters.unread += 1,
            }
        }
        self.rearm(Process::Sender(index));
        Ok(())
    }
}
