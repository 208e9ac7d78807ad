//! Spinning for a bounded time before a process sleeps: waking a sleeping process takes longer than most of what it is
//! woken for, and a lone request wakes a dozen of them one after the other. It pays where processors are idle otherwise.

use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Told of every turn that did something; unset as long as nobody spins.
static TURNS: OnceLock<Notify> = OnceLock::new();

/// From now on, after each [`stir`], the runtime of the caller looks for what comes next for so long before it sleeps. Once
/// per process; zero: never. To be called inside a runtime of one thread.
pub fn spin(patience: Duration) {
    if patience.is_zero() || TURNS.set(Notify::new()).is_err() {
        return;
    }
    tokio::spawn(async move {
        let Some(turns) = TURNS.get() else { return };
        loop {
            turns.notified().await;
            let since = Instant::now();
            // Between two polls of this task the runtime takes what came over its sockets, without waiting for it.
            while since.elapsed() < patience {
                tokio::task::yield_now().await;
            }
        }
    });
}

/// Something happened: more may come of it soon.
pub fn stir() {
    if let Some(turns) = TURNS.get() {
        turns.notify_one();
    }
}
