//! A definite refusal is definite: the call is not in the agreed order and never comes into it. And what is larger
//! than the cluster takes never runs.

use super::history::History;
use super::model::CallId;
use super::{Verdict, Violation};
use mesh::client::sender::Answer;

/// Judges a whole history.
///
/// # Errors
/// The first call that was refused and ran.
pub fn check(history: &History, order: &[CallId]) -> Verdict {
    for id in order {
        let Some(call) = super::history::find(history, *id) else { continue };
        if let Some((_, Answer::Refused(why))) = &call.returned {
            return Violation::raise("refusals", format!("call {} was refused ({why}) and ran", id.0));
        }
        if call.oversized {
            return Violation::raise("refusals", format!("call {} is too large and ran", id.0));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::history::Call;
    use super::super::model::MapOp;
    use super::*;
    use mesh::client::sender::Refused;

    #[test]
    fn a_refused_call_that_ran_is_caught() {
        let returned = Some((2, Answer::Refused(Refused::Overloaded)));
        let refused = Call { connection: 0, op: MapOp::Size, called: 1, returned, oversized: false };
        check(std::slice::from_ref(&refused), &[]).unwrap();
        assert!(check(&[refused], &[CallId(0)]).is_err());
    }

    #[test]
    fn a_call_that_is_too_large_and_ran_is_caught() {
        let large = Call { connection: 0, op: MapOp::Size, called: 1, returned: None, oversized: true };
        assert!(check(&[large], &[CallId(0)]).is_err());
    }
}
