//! The loop around a pure protocol: events in, time in, outputs out.
//!
//! It awaits in one place only and takes what has piled up in bulk; a [`Shell`] acts on outputs without ever waiting.

use super::Clock;
use crate::client::Machine;
use crate::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Events taken in one turn at most.
const TURN: usize = 512;
/// Events that may wait for the driver; whoever has one more waits with it.
pub const EVENTS: usize = 4096;
/// A deadline that is still due after its time-out was handled is tried again after this, not at once.
const AGAIN: Duration = Duration::from_millis(1);

/// What stands between a [`Machine`] and the tasks around it. None of its methods may wait.
pub trait Shell<M: Machine> {
    /// What the tasks around it send.
    type Event;
    /// Notes what the event means for the shell; adds what it means for the machine.
    fn on_event(&mut self, now: Instant, event: Self::Event, inputs: &mut Vec<M::Input>);
    /// Does what the machine wants.
    fn on_output(&mut self, now: Instant, output: M::Output);
    /// Called after every turn, to show how things stand.
    fn after_turn(&mut self, machine: &M);
}

/// Runs until every sender of events is gone.
pub async fn drive<M: Machine, S: Shell<M>>(
    mut machine: M,
    mut shell: S,
    clock: Clock,
    mut events: mpsc::Receiver<S::Event>,
) {
    let mut turn = Vec::with_capacity(TURN);
    let (mut inputs, mut out) = (Vec::new(), Vec::new());
    let timer = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(timer);
    let mut armed: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            taken = events.recv_many(&mut turn, TURN) => if taken == 0 { return },
            () = timer.as_mut(), if armed.is_some() => armed = None,
        }
        super::spin::stir();
        let now = clock.now();
        for event in turn.drain(..) {
            shell.on_event(now, event, &mut inputs);
            inputs.drain(..).for_each(|input| machine.step(now, input, &mut out));
        }
        if machine.deadline().is_some_and(|at| at <= now) {
            machine.step(now, M::timeout(), &mut out);
        }
        for output in out.drain(..) {
            shell.on_output(now, output);
        }
        shell.after_turn(&machine);
        // One that fires early costs a turn of nothing, setting it anew in each turn costs more.
        if let Some(at) = machine.deadline().map(|at| at.max(now + AGAIN))
            && armed.is_none_or(|armed| at < armed)
        {
            armed = Some(at);
            timer.as_mut().reset(clock.timer(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what it is told, wants to be woken once, and repeats each input.
    #[derive(Default)]
    struct Echo {
        wake: Option<Instant>,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Said {
        Number(u32),
        Woken,
    }

    impl Machine for Echo {
        type Input = Said;
        type Output = Said;
        fn step(&mut self, now: Instant, input: Said, out: &mut Vec<Said>) {
            match input {
                Said::Number(0) => self.wake = Some(now + Duration::from_millis(5)),
                Said::Woken => self.wake = None,
                Said::Number(_) => {}
            }
            out.push(input);
        }
        fn deadline(&self) -> Option<Instant> {
            self.wake
        }
        fn timeout() -> Said {
            Said::Woken
        }
    }

    struct Record(mpsc::Sender<Said>);

    impl Shell<Echo> for Record {
        type Event = u32;
        fn on_event(&mut self, _now: Instant, event: u32, inputs: &mut Vec<Said>) {
            if event != 13 {
                inputs.push(Said::Number(event));
            }
        }
        fn on_output(&mut self, _now: Instant, output: Said) {
            self.0.try_send(output).expect("the test's queue is long enough");
        }
        fn after_turn(&mut self, _machine: &Echo) {}
    }

    #[tokio::test]
    async fn events_become_inputs_in_order_and_deadlines_become_time_outs() {
        let (events, inbox) = mpsc::channel(16);
        let (record, mut said) = mpsc::channel(16);
        let running = tokio::spawn(drive(Echo::default(), Record(record), Clock::start(), inbox));
        for number in [7, 13, 0, 8] {
            events.send(number).await.unwrap();
        }
        for expected in [Said::Number(7), Said::Number(0), Said::Number(8), Said::Woken] {
            assert_eq!(said.recv().await, Some(expected));
        }
        drop(events);
        running.await.unwrap();
        assert_eq!(said.recv().await, None);
    }
}
