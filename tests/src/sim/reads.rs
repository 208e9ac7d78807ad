//! Reads past the log at a server: what the sidecar's driver and its adapter do for them.

use super::World;
use super::app::Waiting;
use super::event::{Epoch, Served};
use crate::check::model::MapOp;
use crate::check::{Verdict, Violation};
use bytes::Bytes;
use mesh::auth::Signatures;
use mesh::ids::{ClientId, Digest, Opening, ReadId, Run, Slot};
use mesh::order::{AppReply, Input, Operation};
use mesh::wire::submit::{Answer, Steer};
use mesh::wire::{Outcome, Tag};
use std::collections::BTreeMap;

/// Who waits at a server for what its application says.
#[derive(Debug, Default)]
pub(super) struct Reads {
    next: u64,
    fresh: Vec<ReadId>,
    waiting: BTreeMap<ReadId, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    from: (usize, Epoch),
    tag: Tag,
    requests: Vec<Bytes>,
    replies: Option<Vec<Bytes>>,
    /// What answered held something of a wrong answer.
    tainted: bool,
}

impl Reads {
    /// Those that came since the last turn.
    pub(super) fn take_fresh(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.fresh)
    }

    /// The link of a SMaRtClient broke.
    pub(super) fn forget(&mut self, smart: usize) {
        self.waiting.retain(|_, waiter| waiter.from.0 != smart);
    }
}

impl World {
    pub(super) fn on_submit_read(&mut self, index: usize, from: (usize, Epoch), tag: Tag, requests: Vec<Bytes>) {
        let is_read = |bytes: &Bytes| MapOp::decode(bytes).is_some_and(|(op, _)| op.is_read());
        let signed = self.options.cluster.request_signatures != Signatures::Off;
        if signed || requests.is_empty() || !requests.iter().all(is_read) {
            return self.send_served(index, from.0, from.1, Served::Steer(tag, Steer::NoRead));
        }
        let reads = &mut self.servers[index].reads;
        reads.next += 1;
        let read = ReadId(reads.next);
        reads.fresh.push(read);
        reads.waiting.insert(read, Waiter { from, tag, requests, replies: None, tainted: false });
    }

    /// The application is given a read, behind everything that it has.
    pub(super) fn read(&mut self, index: usize, run: Run, read: ReadId) {
        let server = &mut self.servers[index];
        // Where nobody waits for it any more, the application is asked nothing.
        let waiter = server.reads.waiting.get(&read);
        let session = (ClientId(0), Opening::NONE);
        let calls = waiter.iter().flat_map(|waiter| &waiter.requests);
        let operations = calls.map(|bytes| Operation::Call { session, bytes: bytes.clone() }).collect();
        if server.app.take(Waiting { run, slot: Slot(0), read: Some(read), operations, patient: 0 }) {
            self.begin_execution(index);
        }
    }

    pub(super) fn on_app_read(&mut self, index: usize, run: Run, read: ReadId, replies: Vec<AppReply>) -> Verdict {
        let server = &mut self.servers[index];
        if let Some(waiter) = server.reads.waiting.get_mut(&read) {
            waiter.replies = Some(replies.into_iter().map(|reply| reply.bytes).collect());
            waiter.tainted = server.app.tainted || server.app.wrong;
        }
        if server.app.is_busy() {
            self.begin_execution(index);
        }
        self.step_server(index, Input::ReadDone { run, read })
    }

    /// # Errors
    /// The core lets an application answer that is known to differ, or has not.
    pub(super) fn answer_read(&mut self, index: usize, read: ReadId, slot: Slot) -> Verdict {
        let server = &mut self.servers[index];
        let status = server.replica.as_ref().map(mesh::order::Replica::status);
        let Some(Waiter { from, tag, replies, tainted, .. }) = server.reads.waiting.remove(&read) else {
            return Ok(());
        };
        let Some(replies) = replies else {
            return Violation::raise("reads", format!("replica {index} answers {tag:?} before its application does"));
        };
        if status.is_none_or(|status| status.quarantined || !status.app_running) {
            return Violation::raise(
                "reads",
                format!("replica {index} answers {tag:?} with an application that it must not use"),
            );
        }
        // Wrong answers that nobody has judged yet are meant to be found, not to be voted on.
        let served = if tainted {
            Served::Steer(tag, Steer::Unread)
        } else {
            let form = Digest::of(&replies.concat());
            Served::Answer(Answer { tag, slot, form, outcome: Outcome::Read(replies), signed: None })
        };
        self.send_served(index, from.0, from.1, served);
        Ok(())
    }

    pub(super) fn void_read(&mut self, index: usize, read: ReadId) {
        if let Some(waiter) = self.servers[index].reads.waiting.remove(&read) {
            self.counters.void_reads += 1;
            self.send_served(index, waiter.from.0, waiter.from.1, Served::Steer(waiter.tag, Steer::Unread));
        }
    }
}
