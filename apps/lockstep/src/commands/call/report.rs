//! How a call's end is shown: the reply as it is, or one JSON object; why there is none, on stderr.

use super::failure;
use crate::exit::{Exit, Failure};
use crate::up::output::Format;
use anyhow::Context;
use bytes::Bytes;
use mesh::client::{SessionName, Settled};
use mesh::ids::Seq;
use serde_json::{Value, json};
use std::io::Write;

/// How a call ended.
pub(super) enum End {
    /// With a reply.
    Reply(Bytes),
    /// Definite: it did not run and never will.
    NotRun(String),
    /// It may have run, or may yet run.
    Unknown(String),
}

/// Which request of which session.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) session: SessionName,
    pub(super) seq: Seq,
}

/// Shows one call.
pub(super) struct Report {
    format: Format,
    settled: Value,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self { format, settled: Value::Null }
    }

    /// Tells what became of the request that was in doubt before.
    pub(super) fn settled(&mut self, asked: Asked, settled: Option<Settled>) {
        let Some(settled) = settled else { return };
        let end = match settled {
            Settled::Executed(reply) => End::Reply(reply),
            Settled::NotRun(why) => End::NotRun(why.to_string()),
        };
        if self.format == Format::Json {
            self.settled = object(Some(asked), &end);
            return;
        }
        let what = match &end {
            End::Reply(reply) => format!("ran, and was answered {:?}", String::from_utf8_lossy(reply)),
            End::NotRun(why) | End::Unknown(why) => why.clone(),
        };
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(std::io::stderr(), "note: the request in doubt before (number {}): {what}", asked.seq);
    }

    /// Tells how the call ended.
    ///
    /// # Errors
    /// Every end but a reply, with its exit code.
    pub(super) fn end(&self, asked: Option<Asked>, end: End) -> Result<(), Failure> {
        let mut stdout = std::io::stdout();
        let shown = match (self.format, &end) {
            (Format::Text, End::Reply(reply)) => reply.clone(),
            (Format::Text, _) => Bytes::new(),
            (Format::Json, end) => {
                let mut shown = object(asked, end);
                if !self.settled.is_null() {
                    shown["settled"] = self.settled.clone();
                }
                format!("{shown}\n").into()
            }
        };
        stdout.write_all(&shown).and_then(|()| stdout.flush()).context("cannot print the reply")?;
        match end {
            End::Reply(_) => Ok(()),
            End::NotRun(why) => Err(failure(Exit::RefusedByService, "refused", &why)),
            End::Unknown(why) => Err(failure(Exit::UnknownOutcome, "outcome unknown", &why)),
        }
    }
}

fn object(asked: Option<Asked>, end: &End) -> Value {
    let mut object = match end {
        End::Reply(reply) => match std::str::from_utf8(reply) {
            Ok(text) => json!({ "outcome": "executed", "reply": text }),
            Err(_) => json!({ "outcome": "executed", "reply_hex": super::session_file::hex(reply) }),
        },
        End::NotRun(why) => json!({ "outcome": "not_run", "reason": why }),
        End::Unknown(why) => json!({ "outcome": "unknown", "reason": why }),
    };
    if let Some(Asked { session, seq }) = asked {
        object["session"] = json!(session);
        object["seq"] = json!(seq);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_as_json_has_the_reply_as_text_where_it_is_text() {
        let asked = Asked { session: "2a@7@1-00000000000000ff".parse().expect("a name"), seq: Seq(3) };
        let text = object(Some(asked), &End::Reply(Bytes::from_static(b"OK\n")));
        let session = "0000000000000000000000000000002a@7@1-00000000000000ff";
        assert_eq!(text, json!({ "outcome": "executed", "reply": "OK\n", "session": session, "seq": 3 }));
        let binary = object(None, &End::Reply(Bytes::from_static(&[0xff, 1])));
        assert_eq!(binary, json!({ "outcome": "executed", "reply_hex": "ff01" }));
        let unknown = object(None, &End::Unknown("why".to_owned()));
        assert_eq!(unknown, json!({ "outcome": "unknown", "reason": "why" }));
    }
}
