//! What the sidecar's worker does with the application: resets it, hands it slots, waits with patience, and says what it
//! saw.

use super::World;
use super::app::{Done, Waiting};
use super::event::Event;
use crate::check::Verdict;
use crate::check::model::{MapOp, Poison};
use mesh::ids::{Digest, Run, Slot};
use mesh::order::{AppReply, Input};
use mesh::time::Duration;

/// A reset takes at least this long, so that a call that kills again and again does not stop time.
const RESET: Duration = Duration::from_millis(5);
/// So often a call that is poison to one replica strikes there.
const STRIKES: u32 = 2;

/// How a slot's execution goes.
enum Fate {
    /// It is executed.
    Done(Duration),
    /// A call is not answered in time, or the application dies on it.
    Silent { after: Duration, answered: usize },
    /// A call is never answered, and nobody minds.
    Never,
}

impl World {
    pub(super) fn reset_app(&mut self, index: usize, run: Run, snapshot: Option<Slot>) -> Verdict {
        self.checks.on_reset(index, run, snapshot.unwrap_or_default())?;
        self.counters.resets += 1;
        self.servers[index].orphan = false;
        self.servers[index].app.reset(run);
        let at = self.now + RESET + self.app_chance.duration(self.options.app.reset_max);
        let life = self.servers[index].life;
        self.queue.push(at, Event::AppRestored { server: index, life, run, snapshot });
        Ok(())
    }

    pub(super) fn on_app_restored(&mut self, index: usize, run: Run, snapshot: Option<Slot>) -> Verdict {
        let server = &mut self.servers[index];
        if server.app.run != run {
            // Of a run that is over.
            return self.step_server(index, Input::Restored { run });
        }
        let (slot, store, tainted) = match snapshot {
            None => Default::default(),
            Some(slot) => match server.snapshots.get(&slot).filter(|snapshot| !snapshot.rotten) {
                Some(snapshot) => (slot, snapshot.store.clone(), snapshot.tainted),
                None => {
                    server.snapshots.remove(&slot);
                    self.counters.lost_snapshots += 1;
                    return self.step_server(index, Input::SnapshotLost { slot });
                }
            },
        };
        self.counters.loads += u64::from(snapshot.is_some());
        self.checks.on_restored(index, slot, &store, tainted)?;
        server.app.restored(slot, store, tainted);
        self.step_server(index, Input::Restored { run })
    }

    pub(super) fn resume_app(&mut self, index: usize, run: Run) -> Verdict {
        let server = &self.servers[index];
        self.checks.on_reset(index, run, server.app.marker.executed())?;
        let at = self.now + self.app_chance.duration(Duration::from_millis(20));
        self.queue.push(at, Event::AppResumed { server: index, life: server.life, run });
        Ok(())
    }

    pub(super) fn on_app_resumed(&mut self, index: usize, run: Run) -> Verdict {
        let server = &mut self.servers[index];
        if !std::mem::take(&mut server.orphan) {
            return self.step_server(index, Input::AppLost { run });
        }
        server.app.resumed(run);
        self.counters.resumes += 1;
        self.step_server(index, Input::Restored { run })
    }

    pub(super) fn hand_over(&mut self, index: usize, (slot, time): (Slot, u64), waiting: Waiting) -> Verdict {
        let (run, operations) = (waiting.run, waiting.operations.clone());
        let app = &mut self.servers[index].app;
        let begins = app.take(waiting);
        let outstanding = app.outstanding();
        self.checks.on_execute(index, run, (slot, time), operations, outstanding)?;
        if begins {
            self.begin_execution(index);
        }
        Ok(())
    }

    pub(super) fn begin_execution(&mut self, index: usize) {
        let Some(first) = self.servers[index].app.first().cloned() else { return };
        let life = self.servers[index].app.life;
        match self.fate(index, &first) {
            Fate::Done(after) => self.queue.push(self.now + after, Event::AppDone { server: index, life }),
            Fate::Silent { after, answered } => {
                self.queue.push(self.now + after, Event::AppSilent { server: index, life, answered });
            }
            Fate::Never => {}
        }
    }

    fn fate(&mut self, index: usize, first: &Waiting) -> Fate {
        let patience = self.options.app.patience;
        let poison = first.calls().enumerate().find_map(|(place, bytes)| Some((place, self.strikes(index, bytes)?)));
        let faults = &self.options.app;
        let chance = &mut self.app_chance;
        let duration = if chance.chance(faults.slow) {
            chance.duration(faults.slow_max)
        } else {
            chance.duration(faults.execute_max) * u32::try_from(first.operations.len()).unwrap_or(u32::MAX)
        };
        if let Some((place, poison)) = poison {
            let bytes = first.calls().nth(place).cloned().unwrap_or_default();
            self.servers[index].stuck = Some((first.slot, bytes));
            return match patience.filter(|_| place >= first.patient) {
                _ if poison.kills => Fate::Silent { after: Duration::from_millis(1), answered: place },
                Some(patience) => Fate::Silent { after: patience, answered: place },
                // Whoever is waited for without end comes round, if it is one replica's trouble.
                None if poison.victim.is_some() => Fate::Done(Duration::from_secs(3)),
                None => Fate::Never,
            };
        }
        let calls = first.calls().count();
        if calls == 0 {
            return Fate::Done(duration);
        }
        let answered = chance.below(calls as u64) as usize;
        match patience.filter(|patience| duration > *patience && answered >= first.patient) {
            Some(patience) => Fate::Silent { after: patience, answered },
            None => Fate::Done(duration),
        }
    }

    /// Whether a call harms this replica's application now.
    fn strikes(&mut self, index: usize, bytes: &bytes::Bytes) -> Option<Poison> {
        let Some((MapOp::Poison(poison), _)) = MapOp::decode(bytes) else { return None };
        match poison.victim {
            None => Some(poison),
            Some(victim) if victim == index as u64 && !self.healed => {
                let struck = self.servers[index].poisoned.entry(bytes.clone()).or_default();
                *struck += 1;
                (*struck <= STRIKES).then_some(poison)
            }
            Some(_) => None,
        }
    }

    pub(super) fn on_app_done(&mut self, index: usize) -> Verdict {
        let server = &mut self.servers[index];
        let Some(Done { run, slot, read, replies, ends }) = server.app.execute() else { return Ok(()) };
        if let Some(read) = read {
            return self.on_app_read(index, run, read, replies);
        }
        server.answered = server.answered.max(slot);
        server.differed |= server.app.tainted;
        server.stuck = None;
        self.counters.ends += ends;
        if server.app.is_busy() {
            self.begin_execution(index);
        }
        self.checks.on_executed(index, slot);
        self.step_server(index, Input::Executed { run, slot, replies })
    }

    /// The application has not answered a call in time, or died on it.
    pub(super) fn on_app_silent(&mut self, index: usize, answered: usize) -> Verdict {
        let server = &mut self.servers[index];
        let Some(first) = server.app.first() else { return Ok(()) };
        let (run, slot) = (first.run, first.slot);
        if first.read.is_some() {
            // No call is to blame.
            server.app.die();
            self.answer_late(index, run, None);
            return self.step_server(index, Input::AppLost { run });
        }
        // With no limit to its time a call that kills is still one that was not answered.
        let blamed = self.options.app.patience.is_some();
        server.app.die();
        self.trace.line(self.now, format_args!("server {index}'s application falls silent in slot {slot}"));
        self.answer_late(index, run, Some(slot));
        let input = if blamed { Input::AppSilent { run, slot, answered } } else { Input::AppLost { run } };
        self.step_server(index, input)
    }

    fn answer_late(&mut self, index: usize, run: Run, slot: Option<Slot>) {
        if self.chance.chance(self.options.late_answers) {
            let at = self.now + self.chance.duration(Duration::from_millis(800));
            self.queue.push(at, Event::AppStale { server: index, life: self.servers[index].life, run, slot });
        }
    }

    /// An application dies, and may be heard of later.
    pub(super) fn lose_app(&mut self) -> Verdict {
        let index = self.chance.below(self.servers.len() as u64) as usize;
        self.counters.app_losses += 1;
        let server = &mut self.servers[index];
        if server.paused_until > self.now || server.witness {
            return Ok(());
        }
        let run = server.app.run;
        let stuck = server.stuck.as_ref().map(|(_, bytes)| bytes);
        let under_way =
            server.app.first().filter(|first| first.calls().count() > 0 && first.read.is_none()).map(|first| {
                // It has not come beyond the call that it hangs on.
                let hangs = first.calls().position(|bytes| Some(bytes) == stuck);
                (first.slot, hangs.unwrap_or_else(|| self.chance.below(first.calls().count() as u64) as usize))
            });
        server.orphan = false;
        server.app.die();
        self.answer_late(index, run, under_way.map(|(slot, _)| slot));
        self.trace.line(self.now, format_args!("server {index} loses its application"));
        match under_way.filter(|_| self.options.app.patience.is_some()) {
            Some((slot, answered)) => self.step_server(index, Input::AppSilent { run, slot, answered }),
            None => self.step_server(index, Input::AppLost { run }),
        }
    }

    pub(super) fn on_app_stale(&mut self, index: usize, run: Run, slot: Option<Slot>) -> Verdict {
        if run == self.servers[index].app.run {
            // The run is not over: whoever said that its application fell silent says no more of it.
            return Ok(());
        }
        self.counters.late_answers += 1;
        let bytes = bytes::Bytes::from_static(b"STALE");
        let reply = AppReply { form: Digest::of(&bytes), bytes };
        let input = match slot {
            Some(slot) => Input::Executed { run, slot, replies: vec![reply] },
            None => Input::AppLost { run },
        };
        self.step_server(index, input)
    }
}
