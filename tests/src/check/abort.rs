//! Aborts (rule 23): what was acknowledged is never aborted, and what is aborted was never acknowledged and never will
//! be. A replica says that its application fell silent only when that is in its journal.

use super::history::History;
use super::ledger::Ledger;
use super::model::CallId;
use super::{Verdict, Violation};
use mesh::client::sender::Answer;
use mesh::ids::Position;
use mesh::wire::peer::Marks;
use std::collections::BTreeMap;

const NAME: &str = "abort";

/// The calls that were aborted, and where.
#[derive(Debug, Default)]
pub struct Abort {
    calls: BTreeMap<CallId, Position>,
}

impl Abort {
    /// `call` is aborted by order.
    ///
    /// # Errors
    /// If its client has a reply already.
    pub fn on_abort(&mut self, call: CallId, at: Position, history: &History) -> Verdict {
        self.calls.insert(call, at);
        match super::history::find(history, call).and_then(|call| call.reply()) {
            Some((_, reply)) => {
                Violation::raise(NAME, format!("call {} at {at} is aborted, its client was told {reply:?}", call.0))
            }
            None => Ok(()),
        }
    }

    /// The client of `call` is told how it ended.
    ///
    /// # Errors
    /// If it is a reply and the call was aborted.
    pub fn on_answer(&self, call: CallId, answer: &Answer) -> Verdict {
        match (answer, self.calls.get(&call)) {
            (Answer::Reply(reply), Some(at)) => {
                Violation::raise(NAME, format!("call {} was aborted at {at}, its client is told {reply:?}", call.0))
            }
            _ => Ok(()),
        }
    }

    /// Replica `who` states how far it is.
    ///
    /// # Errors
    /// If it calls its application silent on a request and has no durable record of that.
    pub fn on_marks(&self, who: usize, marks: &Marks, ledger: &Ledger) -> Verdict {
        match marks.silent {
            Some(at) if !ledger.silent_durably(at) => {
                Violation::raise(NAME, format!("replica {who} says that it is silent on {at}: not in its journal"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Call;
    use super::super::ledger::Values;
    use super::super::model::MapOp;
    use super::*;
    use mesh::ids::{Lsn, Slot};
    use mesh::order::Record;

    const AT: Position = Position { slot: Slot(1), call: 0 };

    fn call(returned: Option<(u64, Answer)>) -> Call {
        Call { connection: 0, op: MapOp::Size, called: 1, returned, oversized: false }
    }

    #[test]
    fn an_acknowledged_call_that_is_aborted_is_caught_in_either_order() {
        let reply = Answer::Reply("0".into());
        let mut check = Abort::default();
        check.on_abort(CallId(0), AT, &[call(None)]).unwrap();
        assert!(check.on_answer(CallId(0), &reply).is_err());
        check.on_answer(CallId(1), &reply).unwrap();
        assert!(Abort::default().on_abort(CallId(0), AT, &[call(Some((2, reply)))]).is_err());
    }

    #[test]
    fn a_silence_that_is_not_durable_and_is_said_is_caught() {
        let (mut ledger, mut values) = (Ledger::default(), Values::default());
        let marks = Marks { silent: Some(AT), ..Marks::default() };
        ledger.append(Lsn(1), &Record::Silent { at: AT }, &mut values).unwrap();
        assert!(Abort::default().on_marks(0, &marks, &ledger).is_err());
        ledger.persisted(Lsn(1));
        Abort::default().on_marks(0, &marks, &ledger).unwrap();
    }
}
