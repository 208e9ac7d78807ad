//! `lockstep members scale`: the wanted members, before an upgrade starts or ends their processes.

use super::{order, say, set_target};
use crate::commands::reach::Reach;
use crate::exit::{Exit, Failure};
use mesh::node::human;
use sidecar::operator::{Access, AdminRequest, Change, Member, MembersView, Surveyed};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Slots that a voter may be behind the leader.
const BEHIND_MAX: u64 = 1024;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Who is wanted.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Members with an application: their ids are 0 and on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    servers: u32,
    /// Witnesses: their ids follow those of the servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    witnesses: u32,
    /// Also while a voter is missing or behind
    #[arg(long)]
    force: bool,
    /// How long to wait for voters that are missing or behind before it is refused
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = human::parse_duration)]
    wait: Duration,
    #[command(flatten)]
    reach: Reach,
}

/// What each member said.
type Heard = BTreeMap<u32, Surveyed>;

/// Does it.
pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let access = args.reach.access_when_certified().await?;
    let Some((view, heard)) = settled(args, &access).await? else {
        say("the cluster has not begun: nothing to do");
        return Ok(());
    };
    let (total, cluster) = (args.servers + args.witnesses, &view.configuration.cluster);
    let of_its_kind = |member: &Member| member.application == (member.id.0 < args.servers);
    let runs = |member: &&Member| matches!(heard.get(&member.id.0), Some(Surveyed::Member(_)));
    if let Some(other) = cluster.members.iter().filter(runs).find(|one| one.id.0 < total && !of_its_kind(one)) {
        let (is, wanted) = if other.application { ("a server", "a witness") } else { ("a witness", "a server") };
        let text = format!(
            "member {} is {is} that runs, and {wanted} is wanted in its place: removed, it would join again as what it is. \
             Stop it first (`kubectl delete statefulset` of that kind), then do this with --force",
            other.id
        );
        return Err(Failure::new(Exit::Refused, text));
    }
    if cluster.target_members != total {
        set_target(&access, total).await?;
    }
    let wanted = |member: &Member| member.id.0 < total && of_its_kind(member);
    for member in cluster.members.iter().rev().filter(|member| !wanted(member)) {
        order(&access, &AdminRequest::Change(Change::Remove { member: member.id })).await?;
        say(&format!("member {} is none any more", member.id));
    }
    say(&format!("{} members with an application and {} witnesses are wanted now", args.servers, args.witnesses));
    Ok(())
}

/// The configuration, once everybody who votes is there; `None`: no cluster has begun.
async fn settled(args: &Args, access: &Access) -> Result<Option<(MembersView, Heard)>, Failure> {
    let end = Instant::now() + args.wait;
    let mut last = Vec::new();
    loop {
        let heard = access.survey().await?;
        let newest = newest(&heard);
        let problems = match &newest {
            Some(view) => problems(view, &heard),
            None if heard.values().any(|word| matches!(word, Surveyed::Outside(_))) => return Ok(None),
            None => vec![format!("no member answers: {}", silence(&heard))],
        };
        if problems.is_empty() || (args.force && newest.is_some()) {
            problems.iter().for_each(|problem| say(&format!("forced, although {problem}")));
            return Ok(newest.map(|view| (view, heard)));
        }
        if args.force {
            say(&format!("forced: {}; nothing is changed", problems.join("; ")));
            return Ok(None);
        }
        if problems != last {
            problems.iter().for_each(|problem| say(problem));
            last.clone_from(&problems);
        }
        if Instant::now() >= end {
            let text = format!(
                "not now: {}. Restarting or removing members now could leave too few that have everything. Mend that first \
                 (`kubectl get pods`, `lockstep status`), or force it",
                problems.join("; ")
            );
            return Err(Failure::new(Exit::Refused, text));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// The leader's word, or else the newest.
fn newest(heard: &Heard) -> Option<MembersView> {
    let views = || {
        heard.iter().filter_map(|(id, word)| match word {
            Surveyed::Member(view) => Some((*id, view.as_ref())),
            Surveyed::Outside(_) | Surveyed::Silent(_) => None,
        })
    };
    let leader = views().find(|(id, view)| view.leader.is_some_and(|leader| leader.0 == *id));
    let newest = leader.or_else(|| views().max_by_key(|(_, view)| view.configuration.edition()));
    newest.map(|(_, view)| view.clone())
}

/// What speaks against restarting or removing members now.
fn problems(view: &MembersView, heard: &Heard) -> Vec<String> {
    let mut problems = Vec::new();
    if view.leader.is_none() {
        problems.push("nobody leads".to_owned());
    }
    if view.changing {
        problems.push("a change of the members is under way".to_owned());
    }
    for member in &view.configuration.cluster.members {
        let id = member.id.0;
        if !member.votes {
            problems.push(format!("member {id} learns and has no vote yet"));
            continue;
        }
        match heard.get(&id) {
            Some(Surveyed::Member(own)) => {
                let behind = view.decided.0.saturating_sub(own.decided.0);
                if behind > BEHIND_MAX {
                    problems.push(format!("member {id} is {behind} slots behind"));
                }
            }
            Some(Surveyed::Outside(why)) => problems.push(format!("member {id}: {why}")),
            Some(Surveyed::Silent(why)) => problems.push(format!("member {id} does not answer ({why})")),
            None => problems.push(format!("where member {id} is, is not known")),
        }
    }
    problems
}

fn silence(heard: &Heard) -> String {
    let words = heard.iter().filter_map(|(id, word)| match word {
        Surveyed::Silent(why) => Some(format!("member {id}: {why}")),
        Surveyed::Member(_) | Surveyed::Outside(_) => None,
    });
    words.collect::<Vec<_>>().join("; ")
}
