//! `lockstep smoke`: a write and a read through an ingress, of a key that nobody else has, which is removed again.

mod exchange;

use crate::exit::{Exit, Failure};
use crate::parts::adapter::{self, Protocol};
use exchange::{Answer, Trouble, ask};
use mesh::node::human;
use std::io::Write;
use std::time::{Duration, Instant};

/// Settings of the smoke test.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The ingress
    #[arg(long, value_name = "ADDR")]
    to: String,
    /// What the application speaks
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// The request that writes, instead of the one that is built in; for http METHOD PATH, and a BODY if need be
    #[arg(long, value_name = "REQUEST")]
    write: Option<String>,
    /// The request that reads; {value} must be in its reply
    #[arg(long, value_name = "REQUEST")]
    read: Option<String>,
    /// The request that removes; empty: none
    #[arg(long, value_name = "REQUEST")]
    remove: Option<String>,
    /// How long each may take; longer than the ingress' --deadline
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = human::parse_positive_duration)]
    timeout: Duration,
}

/// The three requests.
struct Script {
    write: String,
    read: String,
    /// Empty: nothing is removed.
    remove: String,
}

/// Writes, reads, removes; says how long each took.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let (key, value) = (unique("lockstep-smoke")?, unique("value")?);
    let script = script(&args, &key, &value);
    step(&args, "write", &script.write, None).await?;
    let read = step(&args, "read", &script.read, Some(&value)).await;
    // What was written is removed even if it was not read.
    let removed = if script.remove.is_empty() { Ok(()) } else { step(&args, "remove", &script.remove, None).await };
    read?;
    removed.map_err(|failure| Failure::new(failure.exit(), format!("{failure}: the key {key} is left behind")))?;
    let name = adapter::name(&args.protocol);
    let _ = writeln!(std::io::stdout(), "ok: {} speaks {name} and keeps what it is given", args.to);
    Ok(())
}

/// A word that nobody else draws.
fn unique(prefix: &str) -> Result<String, Failure> {
    let seed = mesh::node::seed().map_err(|error| Failure::new(Exit::Failed, format!("no randomness: {error}")))?;
    Ok(format!("{prefix}-{:016x}", seed[0]))
}

fn script(args: &Args, key: &str, value: &str) -> Script {
    let (write, read, remove) = match args.protocol {
        Protocol::Resp => ("SET {key} {value}", "GET {key}", "DEL {key}"),
        Protocol::Http => ("PUT /{key} {value}", "GET /{key}", "DELETE /{key}"),
        Protocol::Line | Protocol::Length | Protocol::Close => ("PUT {key} {value}", "GET {key}", "REMOVE {key}"),
    };
    let filled = |own: &Option<String>, built_in: &str| {
        own.as_deref().unwrap_or(built_in).replace("{key}", key).replace("{value}", value)
    };
    Script { write: filled(&args.write, write), read: filled(&args.read, read), remove: filled(&args.remove, remove) }
}

/// One request. `expected` must be in its reply.
async fn step(args: &Args, what: &str, request: &str, expected: Option<&str>) -> Result<(), Failure> {
    let begun = Instant::now();
    let answer = match tokio::time::timeout(args.timeout, ask(&args.to, args.protocol, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Trouble::NoReply(format!("none within {}", human::format_duration(args.timeout)))),
    };
    judge(&args.to, what, answer, expected)?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let _ = writeln!(std::io::stdout(), "{what}: {took:.1} ms");
    Ok(())
}

/// What an answer means for whoever runs this.
fn judge(to: &str, what: &str, answer: Result<Answer, Trouble>, expected: Option<&str>) -> Result<(), Failure> {
    let (exit, text) = match answer {
        Ok(Answer::Reply(text)) => match expected {
            Some(expected) if !text.contains(expected) => {
                (Exit::Failed, format!("the reply is \"{text}\" and not what was written: is --protocol right?"))
            }
            _ => return Ok(()),
        },
        Ok(Answer::Error(text)) => {
            let hint = "is --protocol right? For an application with other requests give --write, --read and --remove";
            (Exit::Failed, format!("the application says \"{text}\": {hint}"))
        }
        Ok(Answer::Refused(text)) => {
            (Exit::RefusedByService, format!("refused, it did not run: {text}: see `lockstep check`"))
        }
        Err(Trouble::NotThere(text)) => {
            (Exit::Failed, format!("{to} cannot be reached: {text}: is the ingress running, and is that its --listen?"))
        }
        Err(Trouble::NoReply(text)) => {
            let hint =
                "it may have run. `lockstep check` says whether a majority of the servers and applications is there";
            (Exit::UnknownOutcome, format!("no reply ({text}): {hint}"))
        }
        Err(Trouble::Nonsense(text)) => {
            (Exit::Failed, format!("what came is not of this protocol ({text}): is --protocol right?"))
        }
    };
    Err(Failure::new(exit, format!("{what}: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(answer: Result<Answer, Trouble>) -> Option<Exit> {
        judge("a:1", "read", answer, Some("x")).err().map(|failure| failure.exit())
    }

    #[test]
    fn every_end_has_its_exit_code() {
        let text = || "text".to_owned();
        assert_eq!(code(Ok(Answer::Reply("VALUE x".to_owned()))), None);
        assert_eq!(code(Ok(Answer::Reply("NIL".to_owned()))), Some(Exit::Failed));
        assert_eq!(code(Ok(Answer::Error(text()))), Some(Exit::Failed));
        assert_eq!(code(Ok(Answer::Refused(text()))), Some(Exit::RefusedByService));
        assert_eq!(code(Err(Trouble::NotThere(text()))), Some(Exit::Failed));
        assert_eq!(code(Err(Trouble::Nonsense(text()))), Some(Exit::Failed));
        assert_eq!(code(Err(Trouble::NoReply(text()))), Some(Exit::UnknownOutcome));
    }

    #[test]
    fn requests_may_be_ones_own_and_keys_are_never_the_same() {
        let mut args = Args {
            to: "a:1".to_owned(),
            protocol: Protocol::Line,
            write: Some("STORE {key}={value}".to_owned()),
            read: None,
            remove: Some(String::new()),
            timeout: Duration::from_secs(1),
        };
        let own = script(&args, "k", "v");
        assert_eq!((own.write.as_str(), own.read.as_str(), own.remove.as_str()), ("STORE k=v", "GET k", ""));
        args.write = None;
        args.protocol = Protocol::Http;
        assert_eq!(script(&args, "k", "v").write, "PUT /k v");
        assert_ne!(unique("k").expect("chance"), unique("k").expect("chance"));
    }
}
