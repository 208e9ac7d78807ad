//! How the paper measures: throughput at the servers, sampled every so many requests; latency as the mean of each client's
//! requests without the most deviant ones.

use crate::http;
use crate::metrics::Metrics;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Requests of one sample of the throughput.
pub(super) const EVERY: f64 = 5_000.0;
/// The part of each client's latencies that is left out, because it deviates most from their mean.
const DEVIANT: f64 = 0.05;
/// Between two looks at the server's counter.
const LOOK: Duration = Duration::from_millis(50);

/// Reads how many requests a server has executed, again and again.
#[derive(Debug)]
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, f64)>>,
}

impl Sampler {
    /// Of the server with this admin port.
    pub(super) fn start(admin: SocketAddr) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("sampler".into()).spawn(move || {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(text) = http::get(admin, "/metrics") {
                    seen.push((Instant::now(), Metrics::read(&text).sum("lockstep_batch_requests_sum", &[])));
                }
                std::thread::sleep(LOOK);
            }
            seen
        })?;
        Ok(Self { stop, thread })
    }

    /// What was seen.
    pub(super) fn finish(self) -> Vec<(Instant, f64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The throughput of each run of `every` requests between `from` and `to`, where each look is so many requests after the
/// beginning; between two looks they are taken to come evenly.
pub(super) fn throughputs(seen: &[(Instant, f64)], every: f64, from: Instant, to: Instant) -> Vec<f64> {
    let mut crossings: Vec<(Instant, f64)> = Vec::new();
    for pair in seen.windows(2) {
        let [(begun, before), (ended, after)] = pair else { continue };
        let mut mark = (before / every).floor() * every + every;
        while mark <= *after {
            let at = *begun + (*ended - *begun).mul_f64((mark - before) / (after - before));
            if (from..=to).contains(&at) {
                crossings.push((at, mark));
            }
            mark += every;
        }
    }
    let rate = |pair: &[(Instant, f64)]| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0).as_secs_f64();
    crossings.windows(2).map(rate).filter(|rate| rate.is_finite()).collect()
}

/// The mean over the clients of the mean of each one's latencies without the part that deviates most.
pub(super) fn trimmed_mean(clients: &[Vec<f32>]) -> f64 {
    let means: Vec<f64> = clients.iter().filter(|all| !all.is_empty()).map(|all| trimmed(all)).collect();
    mean(means.iter().copied())
}

fn trimmed(all: &[f32]) -> f64 {
    let middle = mean(all.iter().map(|value| f64::from(*value)));
    let mut all: Vec<f64> = all.iter().map(|value| f64::from(*value)).collect();
    all.sort_unstable_by(|one, other| (one - middle).abs().total_cmp(&(other - middle).abs()));
    let kept = all.len() - (all.len() as f64 * DEVIANT).floor() as usize;
    mean(all[..kept].iter().copied())
}

/// The arithmetic mean; not a number if there is none.
pub(super) fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let count = values.clone().count();
    values.sum::<f64>() / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_deviant_latencies_of_each_client_are_left_out() {
        // 19 of 10 and one of 1,000: the mean is 59.5, and the one is farthest from it.
        let mut slow = vec![10.0; 19];
        slow.push(1000.0);
        assert_eq!(trimmed(&slow), 10.0);
        // With fewer than twenty nothing is left out.
        assert_eq!(trimmed(&[1.0, 3.0]), 2.0);
        // Each client counts alike, however much it asked.
        assert_eq!(trimmed_mean(&[slow, vec![30.0], Vec::new()]), 20.0);
        assert!(trimmed_mean(&[]).is_nan());
    }

    #[test]
    fn throughput_is_that_of_each_run_of_requests() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        // A thousand a second, then two thousand.
        let seen = [(at(0), 0.0), (at(1000), 1000.0), (at(2000), 2000.0), (at(3000), 4000.0)];
        let all = throughputs(&seen, 500.0, start, at(3000));
        assert_eq!(all.len(), 7);
        assert!((all[0] - 1000.0).abs() < 1e-6 && (all[6] - 2000.0).abs() < 1e-6, "{all:?}");
        // Only what lies within counts.
        let late = throughputs(&seen, 500.0, at(2000), at(3000));
        assert!(late.len() == 4 && late.iter().all(|rate| (rate - 2000.0).abs() < 1e-6), "{late:?}");
        assert!(throughputs(&seen, 5000.0, start, at(3000)).is_empty());
    }
}
