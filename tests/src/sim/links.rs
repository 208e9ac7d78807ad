//! The links of clients (SMaRtClient to server, sender to SMaRtClient): they come up when both ends run and reach each
//! other, and break some time after they no longer do; both ends hear of it.

use super::clock::Time;
use super::event::{Epoch, Event};
use super::{Process, World};
use crate::check::Verdict;
use mesh::client::{sender, smart_client};
use mesh::ids::ReplicaId;

impl World {
    /// Every link there can be.
    pub(super) fn all_links(&self) -> Vec<(Process, Process)> {
        let (servers, smarts, senders) = (self.servers.len(), self.smarts.len(), self.senders.len());
        let submit = (0..smarts).flat_map(|a| (0..servers).map(move |b| (Process::Smart(a), Process::Server(b))));
        let client = (0..senders).flat_map(|a| (0..smarts).map(move |b| (Process::Sender(a), Process::Smart(b))));
        submit.chain(client).collect()
    }

    /// Something changed: every link is looked at soon.
    pub(super) fn check_links(&mut self) {
        for (client, server) in self.all_links() {
            if self.desired(client, server) != self.network.link(client, server).up || self.is_stale(client, server) {
                self.check_link(client, server);
            }
        }
    }

    pub(super) fn check_link(&mut self, client: Process, server: Process) {
        let at = self.now + self.network.detection();
        self.queue.push(at, Event::LinkCheck { client, server });
    }

    /// Whether a message that was sent over a link in this life of it arrives.
    pub(super) fn holds(&mut self, client: Process, server: Process, epoch: Epoch) -> bool {
        self.network.epoch(client, server) == Some(epoch) && !self.is_stale(client, server)
    }

    fn is_stale(&mut self, client: Process, server: Process) -> bool {
        let lives = (self.life(client), self.life(server));
        let link = self.network.link(client, server);
        link.up && link.lives != lives
    }

    fn desired(&mut self, client: Process, server: Process) -> bool {
        let cut: Time = self.network.link(client, server).cut_until;
        self.runs(client)
            && self.runs(server)
            && cut <= self.now
            && !self.network.blocked(client, server)
            && !self.network.blocked(server, client)
    }

    pub(super) fn on_link_check(&mut self, client: Process, server: Process) -> Verdict {
        let standing_still = (*self.paused_until_mut(client)).max(*self.paused_until_mut(server));
        if standing_still > self.now {
            self.queue.push(standing_still, Event::LinkCheck { client, server });
            return Ok(());
        }
        let desired = self.desired(client, server);
        let stale = self.is_stale(client, server);
        let lives = (self.life(client), self.life(server));
        let link = self.network.link(client, server);
        if link.up && (stale || !desired) {
            let old = link.lives;
            link.up = false;
            link.epoch += 1;
            self.trace.line(self.now, format_args!("the link {client} to {server} breaks"));
            if old.1 == lives.1 {
                self.broke_at_server(client, server)?;
            }
            if old.0 == lives.0 {
                self.broke_at_client(client, server)?;
            }
        }
        let link = self.network.link(client, server);
        if !link.up && desired {
            link.up = true;
            link.epoch += 1;
            link.lives = lives;
            self.trace.line(self.now, format_args!("the link {client} to {server} is up"));
            return self.came_up(client, server);
        }
        Ok(())
    }

    fn broke_at_server(&mut self, client: Process, server: Process) -> Verdict {
        match (client, server) {
            (Process::Smart(smart), Process::Server(server)) => self.servers[server].forget(smart),
            (Process::Sender(sender), Process::Smart(smart)) => {
                for ticket in self.smarts[smart].tickets_of(sender) {
                    self.step_smart(smart, smart_client::Input::Gone(ticket))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn broke_at_client(&mut self, client: Process, server: Process) -> Verdict {
        match (client, server) {
            (Process::Smart(smart), Process::Server(server)) => {
                self.step_smart(smart, smart_client::Input::Down(ReplicaId(server as u32)))
            }
            (Process::Sender(sender), Process::Smart(smart)) => {
                self.step_sender(sender, sender::Input::Down(sender::Endpoint(smart as u64)))
            }
            _ => Ok(()),
        }
    }

    fn came_up(&mut self, client: Process, server: Process) -> Verdict {
        match (client, server) {
            (Process::Smart(smart), Process::Server(server)) => {
                self.step_smart(smart, smart_client::Input::Up(ReplicaId(server as u32)))
            }
            (Process::Sender(sender), Process::Smart(smart)) => {
                self.step_sender(sender, sender::Input::Up(sender::Endpoint(smart as u64)))
            }
            _ => Ok(()),
        }
    }
}
