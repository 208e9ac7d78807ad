//! `bench load`: the load generator against any address.

use crate::args::{Format, Shape};
use crate::generator::{self, Latency, Outcome, Spec};
use crate::procfs::Host;
use crate::wire::Protocol;
use std::fmt::Write;

/// Settings of `bench load`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to: HOST:PORT, or several with commas
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// What is spoken there
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[command(flatten)]
    shape: Shape,
    /// What to print on stdout
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    check(args.protocol, &args.shape)?;
    let spec = args.shape.spec(Spec::addresses(&args.to)?, args.protocol);
    let heading = heading(&spec);
    let (outcome, before, after) = generator::start(spec)?.finish(Host::now)?;
    let busy = after.busy_since(before);
    match args.output {
        Format::Json => {
            let mut value = serde_json::to_value(&outcome)?;
            value["host_busy"] = busy.into();
            println!("{value}");
        }
        Format::Text => print!("{heading}\n{}host busy    {:.0} %\n", seen(&outcome), busy * 100.0),
    }
    Ok(())
}

/// What the client of etcd cannot do: it neither waits for room in a window nor tells calls of one connection apart.
fn check(protocol: Protocol, shape: &Shape) -> anyhow::Result<()> {
    const ETCD_VALUE_MAX: u32 = 48_000;
    let etcd = protocol == Protocol::Etcd;
    anyhow::ensure!(!etcd || shape.pipeline == 1, "--pipeline: one at a time with etcd; give more --clients");
    anyhow::ensure!(!etcd || shape.value_bytes <= ETCD_VALUE_MAX, "--value-bytes: at most {ETCD_VALUE_MAX} with etcd");
    Ok(())
}

/// The load in a line.
pub(crate) fn heading(spec: &Spec) -> String {
    let pace = spec.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
    let connections = if spec.per_request {
        "a connection per request".to_owned()
    } else if spec.pipeline > 1 {
        format!("persistent connections, {} requests in flight on each", spec.pipeline)
    } else {
        "persistent connections".to_owned()
    };
    format!(
        "{}, {} clients, {pace}, {connections}; {}-byte values, {} keys; {:.1} s after {:.1} s of warm-up",
        spec.protocol.name(),
        spec.clients,
        spec.value_bytes,
        spec.keys,
        spec.time.as_secs_f64(),
        spec.warmup.as_secs_f64(),
    )
}

/// What clients saw, in lines.
pub(crate) fn seen(outcome: &Outcome) -> String {
    let mut text = format!("rate         {:.0}/s, {} failed", outcome.rate, outcome.failed);
    if let Some(error) = &outcome.error {
        let _ = write!(text, "; the first failure: {error}");
    }
    text.push('\n');
    let line = |name: &str, latency: &Latency| {
        let Latency { mean_us, p50_us, p90_us, p99_us, p999_us, max_us } = latency.map(|micros| micros / 1e3);
        format!(
            "{name:<12} mean {mean_us:.3}  p50 {p50_us:.3}  p90 {p90_us:.3}  p99 {p99_us:.3}  p99.9 {p999_us:.3}  max {max_us:.3} ms\n"
        )
    };
    text.push_str(&line("latency", &outcome.latency));
    if outcome.by_op.len() > 1 {
        for (op, latency) in &outcome.by_op {
            text.push_str(&line(&format!("  {}", op.name()), latency));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_of_etcd_cannot_do_is_refused() {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let checked = |words: &[&str]| {
            let line = Line::parse_from([&["bench", "--to", "x:1", "--protocol"], words].concat());
            check(line.args.protocol, &line.args.shape).map_err(|error| error.to_string())
        };
        assert_eq!(checked(&["etcd"]), Ok(()));
        assert_eq!(checked(&["resp", "--pipeline", "8", "--value-bytes", "50000"]), Ok(()));
        assert!(checked(&["etcd", "--pipeline", "8"]).is_err_and(|error| error.contains("--clients")));
        assert!(checked(&["etcd", "--value-bytes", "50000"]).is_err_and(|error| error.contains("48000")));
    }

    #[test]
    fn what_was_seen_is_said_in_milliseconds() {
        let latency =
            Latency { mean_us: 1500.0, p50_us: 1000.0, p90_us: 2000.0, p99_us: 3000.0, p999_us: 4000.0, max_us: 5e6 };
        let outcome = Outcome { rate: 1234.4, failed: 2, error: Some("closed".into()), latency, ..Outcome::default() };
        let text = seen(&outcome);
        assert!(text.starts_with("rate         1234/s, 2 failed; the first failure: closed\n"), "{text}");
        assert!(text.contains("mean 1.500  p50 1.000") && text.contains("max 5000.000 ms"), "{text}");
    }
}
