//! What an operator can do about the state of this member: sentences for `status`, each naming the next step.

use crate::Config;
use crate::report::LEFT_BEHIND;
use mesh::config::{Divergence, Member};
use mesh::ids::Generation;
use mesh::node::human::format_size;
use mesh::order::{Role, Status};

/// One sentence for each thing that wants attention; none when all is well.
pub(crate) fn hints(config: &Config, status: &Status, newer: Option<Generation>) -> Vec<String> {
    let voters = status.members.iter().filter(|member| member.votes).count();
    let applications = status.members.iter().filter(|member| member.elects()).count();
    let left_behind = newer.map(|newer| format!("generation {newer}: {LEFT_BEHIND}"));
    let rest =
        [log(config, status), vote(config, voters, status), silence(applications, status), divergence(config, status)];
    std::iter::once(left_behind).chain(rest).flatten().collect()
}

fn log(config: &Config, status: &Status) -> Option<String> {
    let (bytes, most) = (status.log_bytes, config.limits.log_bytes);
    if bytes < most / 2 {
        return None;
    }
    let state = if bytes >= most { "new requests are refused" } else { "above it new requests are refused" };
    let next = if config.snapshots.is_some() {
        "`lockstep snapshot save` on each member makes room; if it does not, a member that is down or behind holds the \
         log: see the other members"
    } else {
        "nothing is ever cut with --snapshot none: restart the members with --snapshot request, command or directory, or \
         with a larger --log-max-bytes"
    };
    Some(format!("the log has {} of {} ({state}): {next}", rounded(bytes), format_size(most)))
}

fn vote(config: &Config, members: usize, status: &Status) -> Option<String> {
    if status.role == Role::Removed {
        let next = if config.id < status.target_members {
            "it joins anew by itself"
        } else {
            "stop it, or admit it again with `lockstep members add`"
        };
        return Some(format!("this member was removed from the cluster: {next}"));
    }
    if status.role != Role::Learner {
        return None;
    }
    let new = |member: &Member| member.id.0 == config.id && member.life.0 != 0 && status.incarnation.0 > 0;
    if status.members.iter().any(|member| new(member) && !member.votes) {
        return Some(format!(
            "this member is new and votes when it has caught up: {} slots are missing here; nothing is to be done",
            status.behind
        ));
    }
    let why = "this member cannot prove that it has every vote it sent (disk lost or damaged, or nothing synced), so it \
               does not vote until a majority granted it a new incarnation";
    Some(if status.leader.is_some() {
        format!("{why}: that is under way, {} slots are missing here; nothing is to be done", status.behind)
    } else {
        let needed = mesh::quorum::majority(members);
        format!(
            "{why}; no leader is known: with n = {members} it waits for {needed} of the other members. Start those that \
             are down"
        )
    })
}

fn silence(members: usize, status: &Status) -> Option<String> {
    let at = status.silent?;
    let alone = if members < 3 {
        "with fewer than three applications only you can decide that it is the request's fault"
    } else {
        "it waits until a majority executed the request, or fell silent on it too (then it is aborted by order)"
    };
    Some(format!("the application does not answer request {at}: {alone}. `lockstep abort {at}` gives that request up"))
}

fn divergence(config: &Config, status: &Status) -> Option<String> {
    if !status.quarantined {
        return None;
    }
    let next = match config.divergence {
        Divergence::Rebuild => "it is being rebuilt from the majority's state; nothing is to be done",
        Divergence::Stop | Divergence::Alarm => {
            "`lockstep diff` shows the first replies that differed; restart this member to have it rebuilt"
        }
    };
    Some(format!("the application gave other replies than the majority's and answers nobody: {next}"))
}

/// To the nearest MiB, or the bytes where there are few.
fn rounded(bytes: u64) -> String {
    let mib = 1 << 20;
    if bytes >= mib { format_size(bytes / mib * mib) } else { format_size(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use mesh::config::Snapshots;
    use mesh::ids::{Position, ReplicaId, Slot};

    fn hints_of(change: impl Fn(&mut Config, &mut Status)) -> String {
        let (mut config, mut status) = (testing::config(), testing::following());
        change(&mut config, &mut status);
        hints(&config, &status, None).join("\n")
    }

    #[test]
    fn a_member_that_was_left_behind_is_told_to_be_set_aside() {
        let generation = Generation { count: 2, mark: 9 };
        let hints = hints(&testing::config(), &testing::following(), Some(generation));
        assert!(matches!(&hints[..], [hint] if hint.contains("2-0000000000000009") && hint.contains("set-aside")));
    }

    #[test]
    fn a_healthy_member_has_none() {
        assert_eq!(hints_of(|_, _| {}), "");
    }

    #[test]
    fn a_full_log_names_what_makes_room() {
        let half = |config: &mut Config, status: &mut Status| status.log_bytes = config.limits.log_bytes / 2;
        assert!(hints_of(half).contains("--snapshot request, command or directory"));
        let saving = |config: &mut Config, status: &mut Status| {
            config.snapshots = Some(Snapshots { every_requests: 1, every_bytes: 1 });
            status.log_bytes = config.limits.log_bytes;
        };
        let text = hints_of(saving);
        assert!(text.contains("`lockstep snapshot save`") && text.contains("(new requests are refused)"), "{text}");
    }

    #[test]
    fn a_learner_says_for_whom_it_waits() {
        let alone = hints_of(|_, status| {
            status.role = Role::Learner;
            status.leader = None;
        });
        assert!(alone.contains("with n = 3 it waits for 2 of the other members"), "{alone}");
        let led = hints_of(|_, status| {
            (status.role, status.leader, status.behind) = (Role::Learner, Some(ReplicaId(0)), 12);
        });
        assert!(led.contains("12 slots are missing"), "{led}");
    }

    #[test]
    fn a_silent_application_and_a_quarantined_one_are_explained() {
        let silent = hints_of(|_, status| status.silent = Some(Position { slot: Slot(7), call: 2 }));
        assert!(silent.contains("`lockstep abort 7.2`"), "{silent}");
        assert!(hints_of(|_, status| status.quarantined = true).contains("being rebuilt"));
        let stopped = hints_of(|config, status| {
            status.quarantined = true;
            config.divergence = Divergence::Stop;
        });
        assert!(stopped.contains("restart this member"), "{stopped}");
    }
}
