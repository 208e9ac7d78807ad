//! After healing every replica is at the same place: same decided and executed marks, same rolling hash, same state.

use super::model::Store;
use super::{Verdict, Violation};
use mesh::order::{Role, Status};

/// One replica at the end.
#[derive(Clone, Debug)]
pub struct Final<'a> {
    /// What it says of itself.
    pub status: Status,
    /// Its application's state; a witness has none.
    pub state: Option<&'a Store>,
}

/// Judges the end of a run; `model` is the state after the whole agreed order.
///
/// # Errors
/// The first difference.
pub fn check(replicas: &[Final<'_>], model: &Store) -> Verdict {
    const NAME: &str = "convergence";
    // Only an application has a digest.
    let first = replicas.iter().find(|replica| replica.state.is_some());
    let Some(first) = first else { return Ok(()) };
    for (id, replica) in replicas.iter().enumerate() {
        let (status, other) = (&replica.status, &first.status);
        if status.executed != status.decided || !status.app_running {
            let what = format!("replica {id} decided {} and executed {}", status.decided, status.executed);
            return Violation::raise(NAME, what);
        }
        if status.role == Role::Learner || status.changing || status.quarantined || status.silent.is_some() {
            let what = format!(
                "replica {id} is {:?}, silent {:?}, quarantined {}, changing {}",
                status.role, status.silent, status.quarantined, status.changing
            );
            return Violation::raise(NAME, what);
        }
        if status.epoch != other.epoch {
            let what = format!("replica {id} has configuration {}, the first {}", status.epoch, other.epoch);
            return Violation::raise(NAME, what);
        }
        if status.decided != other.decided {
            let what = format!("replica {id} is at {}, the first at {}", status.decided, other.decided);
            return Violation::raise(NAME, what);
        }
        let Some(state) = replica.state else { continue };
        if status.digest_now != other.digest_now || status.digest != other.digest {
            let what = format!("replica {id} has digest {:?}, the first {:?}", status.digest_now, other.digest_now);
            return Violation::raise(NAME, what);
        }
        if state != model {
            let what = format!("replica {id}'s application holds {state:?}, the model {model:?}");
            return Violation::raise(NAME, what);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::ids::{Ballot, Digest, Epoch, Generation, Incarnation, Position, Slot};

    fn status() -> Status {
        Status {
            role: Role::Follower,
            ballot: Ballot::NONE,
            leader: None,
            ready: false,
            decided: Slot(3),
            executed: Slot(3),
            settled: Slot(3),
            log_first: Slot(1),
            log_last: Slot(3),
            sessions: 0,
            held: 0,
            app_running: true,
            app_resets: 1,
            digest_now: Digest::default(),
            digest: (Slot(0), Digest::default()),
            snapshot: Slot(0),
            log_bytes: 0,
            generation: Generation::FIRST,
            members: Vec::new(),
            epoch: Epoch(0),
            incarnation: Incarnation(1),
            target_members: 0,
            changing: false,
            silent: None,
            quarantined: false,
            divergences: 0,
            behind: 0,
            read_rounds: 0,
        }
    }

    #[test]
    fn differences_are_caught() {
        let model = Store([(1, 2)].into());
        let wrong = Store::default();
        let good = Final { status: status(), state: Some(&model) };
        check(&[good.clone(), good.clone()], &model).unwrap();
        let behind = Status { decided: Slot(2), executed: Slot(2), ..status() };
        assert!(check(&[good.clone(), Final { status: behind, state: Some(&model) }], &model).is_err());
        let idle = Status { executed: Slot(2), ..status() };
        assert!(check(&[good.clone(), Final { status: idle, state: Some(&model) }], &model).is_err());
        for wrong in [
            Status { role: Role::Learner, ..status() },
            Status { quarantined: true, ..status() },
            Status { silent: Some(Position::default()), ..status() },
            Status { epoch: Epoch(1), ..status() },
            Status { changing: true, ..status() },
        ] {
            assert!(check(&[good.clone(), Final { status: wrong, state: Some(&model) }], &model).is_err());
        }
        let digest = Status { digest_now: Digest([1; 32]), ..status() };
        assert!(check(&[good.clone(), Final { status: digest, state: Some(&model) }], &model).is_err());
        assert!(check(&[good, Final { status: status(), state: Some(&wrong) }], &model).is_err());
    }
}
