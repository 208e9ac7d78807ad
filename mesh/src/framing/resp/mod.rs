//! The adapter `resp`: Redis' RESP2 and RESP3.
//!
//! [`request`] and [`reply`] find the boundaries, [`args`] reads a whole request, [`commands`] is the table of all
//! commands, [`classify`] applies it to one request, [`form`] makes replies comparable, [`connection`] knows what requests do to
//! a connection, [`reads`] what may be answered without the log.

mod args;
mod classify;
mod commands;
mod connection;
mod form;
mod header;
mod reads;
mod reply;
mod request;

pub(super) use classify::in_transaction;
pub(super) use connection::{executed, instead, is_error, watch_answer, watch_question};
pub(super) use form::form;
pub(super) use reads::is_read;
pub(super) use reply::next_reply;
pub(super) use request::next_request;

use super::{Connections, FramingError, Handling};
use bytes::Bytes;
use classify::{Verdict, classify};

/// What to do with one whole request (rule 28).
pub(super) fn handle(connections: Connections, request: &[u8]) -> Handling {
    match classify(connections, request) {
        Verdict::Order(_) => Handling::Order,
        Verdict::Local(reply) => Handling::Local(reply),
        Verdict::LocalThenClose(reply) => Handling::LocalThenClose(reply),
        Verdict::Refuse(error) => Handling::Refuse(error),
    }
}

/// An error of ours, which no Redis would give.
pub(super) fn refusal(reason: &str) -> Bytes {
    error_line("LOCKSTEP", reason)
}

/// Redis' own words before it closes a connection; a client that ended in the middle is told nothing, as there.
pub(super) fn protocol_error(error: &FramingError) -> Option<Bytes> {
    match error {
        FramingError::Malformed(what) => Some(error_line("ERR Protocol error:", what)),
        FramingError::TooLong { limit } => {
            Some(error_line("ERR Protocol error:", &format!("request longer than {limit} bytes")))
        }
        FramingError::Truncated => None,
    }
}

/// A simple error; what would end its line early becomes a space.
fn error_line(prefix: &str, text: &str) -> Bytes {
    let text: String = text.chars().map(|c| if matches!(c, '\r' | '\n') { ' ' } else { c }).collect();
    Bytes::from(format!("-{prefix} {text}\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_error_line_whatever_its_reason() {
        assert_eq!(refusal("no\r\n+OK"), "-LOCKSTEP no  +OK\r\n");
    }

    #[test]
    fn protocol_errors_read_as_those_of_redis() {
        let told = protocol_error(&FramingError::Malformed("invalid bulk length"));
        assert_eq!(told.as_deref(), Some(&b"-ERR Protocol error: invalid bulk length\r\n"[..]));
        let told = protocol_error(&FramingError::TooLong { limit: 9 });
        assert_eq!(told.as_deref(), Some(&b"-ERR Protocol error: request longer than 9 bytes\r\n"[..]));
        assert_eq!(protocol_error(&FramingError::Truncated), None);
    }
}
