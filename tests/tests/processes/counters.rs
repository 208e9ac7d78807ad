//! Clients that count what was acknowledged to them.

use super::resp::{Client, Reply};
use super::up::Up;
use super::wait;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;

/// Clients that each count up a counter of their own and stop at the first surprise.
pub(crate) struct Counters {
    stop: Arc<AtomicBool>,
    pub(crate) acknowledged: Vec<Arc<AtomicI64>>,
    pub(crate) clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Counters {
    pub(crate) fn start(up: &Up, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut counters = Self { stop: stop.clone(), acknowledged: Vec::new(), clients: Vec::new() };
        for number in 0..clients {
            let acknowledged = Arc::new(AtomicI64::new(0));
            counters.acknowledged.push(acknowledged.clone());
            let (address, stop) = (up.listen().to_owned(), stop.clone());
            counters.clients.push(std::thread::spawn(move || {
                let mut client = Client::connect(&address).map_err(|error| error.to_string())?;
                let key = format!("counter:{number}");
                while !stop.load(Ordering::Relaxed) {
                    let expected = acknowledged.load(Ordering::Relaxed) + 1;
                    match client.command(&["INCR", &key]) {
                        Ok(Reply::Integer(count)) if count == expected => acknowledged.store(count, Ordering::Relaxed),
                        other => return Err(format!("client {number} expected {expected} and got {other:?}")),
                    }
                }
                Ok(())
            }));
        }
        counters
    }

    pub(crate) fn sum(&self) -> i64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Waits until every client got on by a few requests: none of them hangs.
    pub(crate) fn progress(&self, when: &str) {
        for (number, acknowledged) in self.acknowledged.iter().enumerate() {
            let from = acknowledged.load(Ordering::Relaxed);
            wait::until(&format!("going on {when}"), || {
                let now = acknowledged.load(Ordering::Relaxed);
                let ended = self.clients[number].is_finished();
                if now >= from + 20 || ended { Ok(()) } else { Err(format!("client {number} is at {now}")) }
            });
        }
    }

    /// Ends the clients; each must have been happy, and the cluster must agree with what it was told.
    pub(crate) fn finish(self, up: &Up) {
        self.stop.store(true, Ordering::Relaxed);
        let faults: Vec<_> = self.clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let mut client = Client::connect(up.listen()).unwrap();
        for (number, acknowledged) in self.acknowledged.iter().enumerate() {
            let count = acknowledged.load(Ordering::Relaxed).to_string();
            let reply = client.command(&["GET", &format!("counter:{number}")]).unwrap();
            assert_eq!(reply, Reply::Bulk(Some(count.into_bytes())), "counter {number}");
        }
    }
}
