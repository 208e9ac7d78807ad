//! `lockstep members`: who takes part, and changes of that while the cluster serves.

mod force;
mod scale;
mod set_aside;

use super::reach::Reach;
use crate::exit::{Exit, Failure};
use mesh::node::human;
use serde_json::json;
use sidecar::operator::{Access, AdminRequest, Answer, Change, Configuration, Member, MembersView, ReplicaId};
use std::io::Write;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks at how far a new member is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to do.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the members: who votes, who learns, who has an application
    List(List),
    /// Admit a new member and wait until it votes. Its sidecar may be started before or after: it joins by itself
    Add(Admit),
    /// Remove a member, the leader too. When this returns, a majority of the others holds that, and it may be stopped
    Remove(One),
    /// Remove a member and wait until its successor under the same id votes: for a machine that was lost
    Replace(Admit),
    /// Have another member lead
    TransferLeader(One),
    /// Say how many members there are to be: sidecars whose ids are below it join by themselves
    SetTarget(Target),
    /// Bring the members to a wanted number before something starts or ends their processes: what the chart does before an
    /// upgrade
    ///
    /// Refused while a voter is missing or behind: an upgrade restarts one member after the other, and one of those that are
    /// left must not be the last that has everything. Members that are too many are removed, those that are missing may join.
    /// Nothing happens before the cluster has begun.
    Scale(scale::Args),
    /// Start the cluster anew from one survivor, when a majority of its members is lost for good
    ///
    /// The stopped survivor becomes the only member of the cluster's next generation, with everything that it holds. What
    /// only the lost members held is lost, every session ends, and whoever has data of the old generation is refused for
    /// ever; members without history join as always. While a majority can be brought back, bring it back: then nothing is
    /// lost.
    ForceNewCluster(force::Args),
    /// Set the data of a stopped member aside, so that it begins anew: for one that was left behind by force-new-cluster
    ///
    /// Its journal and snapshots are renamed, not removed. At its next start it has no history, and joins.
    SetAside(set_aside::Args),
}

/// Whom to ask, and how to print it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct List {
    /// How to print
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// One member.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct One {
    /// The member's number
    #[arg(value_name = "ID")]
    member: u32,
    #[command(flatten)]
    reach: Reach,
}

/// One member, and how long to wait for it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Admit {
    #[command(flatten)]
    one: One,
    /// How long it may take until it votes: its sidecar has to be started, and to be filled by the others
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = human::parse_positive_duration)]
    wait: Duration,
}

/// The wanted number.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Target {
    /// Members that there are to be
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    members: u32,
    #[command(flatten)]
    reach: Reach,
}

/// Does it.
pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(List { output, reach }) => {
            let view = reach.access()?.members().await?;
            say(&match output {
                Format::Text => table(&view),
                Format::Json => json(&view).to_string(),
            });
            Ok(())
        }
        Command::Add(Admit { one: One { member: id, reach }, wait }) => {
            let access = reach.access()?;
            let before = access.members().await?;
            if let Some(member) = find(&before.configuration, id).filter(|member| member.votes) {
                let what = if member.application { "votes" } else { "votes, as a witness" };
                return Err(Failure::new(Exit::Refused, format!("member {id} is one already, and {what}")));
            }
            admit(&access, &before.configuration, id).await?;
            join(&access, id, wait, |member| member.votes).await
        }
        Command::Remove(One { member: id, reach }) => {
            let access = reach.access()?;
            let before = access.members().await?.configuration;
            remove(&access, &before, id).await?;
            say(&format!("member {id} is none any more: it may be stopped"));
            if id + 1 < before.cluster.target_members {
                say(&format!(
                    "its id is below the target, {}: if its sidecar is started again it joins anew",
                    before.cluster.target_members
                ));
            }
            Ok(())
        }
        Command::Replace(Admit { one: One { member: id, reach }, wait }) => {
            let access = reach.access()?;
            let before = access.members().await?.configuration;
            let old = find(&before, id).copied();
            order(&access, &AdminRequest::Change(Change::Remove { member: ReplicaId(id) })).await?;
            say(&format!("member {id} is none any more: its successor is waited for"));
            admit(&access, &before, id).await?;
            join(&access, id, wait, |member| member.votes && Some(member.life) != old.map(|old| old.life)).await
        }
        Command::TransferLeader(One { member: id, reach }) => {
            order(&reach.access()?, &AdminRequest::TransferLeader { to: ReplicaId(id) }).await?;
            say(&format!("member {id} leads"));
            Ok(())
        }
        Command::SetTarget(Target { members, reach }) => set_target(&reach.access()?, members).await,
        Command::Scale(args) => scale::run(&args).await,
        Command::ForceNewCluster(args) => force::run(&args).await,
        Command::SetAside(args) => set_aside::run(&args).await,
    }
}

/// Lets the id in.
async fn admit(access: &Access, before: &Configuration, id: u32) -> Result<(), Failure> {
    if id >= before.cluster.target_members { set_target(access, id.saturating_add(1)).await } else { Ok(()) }
}

async fn set_target(access: &Access, members: u32) -> Result<(), Failure> {
    order(access, &AdminRequest::Change(Change::SetTarget { members })).await?;
    say(&format!("ids below {members} are admitted from now on"));
    Ok(())
}

/// The last id is not to come back by itself.
async fn remove(access: &Access, before: &Configuration, id: u32) -> Result<(), Failure> {
    if id > 0 && id + 1 == before.cluster.target_members && find(before, id).is_some() {
        set_target(access, id).await?;
    }
    order(access, &AdminRequest::Change(Change::Remove { member: ReplicaId(id) })).await
}

/// Waits until a member is there.
async fn join(access: &Access, id: u32, wait: Duration, there: impl Fn(&Member) -> bool) -> Result<(), Failure> {
    let end = Instant::now() + wait;
    let mut last = String::new();
    loop {
        let state = match access.members().await {
            Ok(view) => match find(&view.configuration, id) {
                Some(member) if there(member) => {
                    say(&format!("member {id} votes"));
                    return Ok(());
                }
                Some(_) => format!("member {id} learns"),
                None => format!("member {id} is waited for: start its sidecar, with --seeds that name a member"),
            },
            Err(error) => format!("{error:#}"),
        };
        if state != last {
            say(&state);
            last = state;
        }
        if Instant::now() >= end {
            return Err(Failure::new(
                Exit::Unhealthy,
                format!("it does not vote after {wait:?}: {last}. It goes on by itself"),
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn order(access: &Access, request: &AdminRequest) -> Result<(), Failure> {
    match access.change(request).await? {
        Answer::Done(()) => Ok(()),
        Answer::Refused(why) => Err(Failure::new(Exit::Refused, why)),
    }
}

fn find(configuration: &Configuration, id: u32) -> Option<&Member> {
    configuration.cluster.members.iter().find(|member| member.id.0 == id)
}

fn role(view: &MembersView, member: &Member) -> &'static str {
    match (member.votes, member.application) {
        _ if view.leader == Some(member.id) => "leader",
        (false, _) => "learner",
        (true, true) => "follower",
        (true, false) => "witness",
    }
}

fn place(view: &MembersView, member: &Member) -> String {
    let place = view.places.iter().find(|(id, _)| *id == member.id);
    place.map_or_else(|| "?".to_owned(), |(_, address)| address.clone())
}

fn table(view: &MembersView) -> String {
    let cluster = &view.configuration.cluster;
    let mut lines = vec![format!("{:>4}  {:8}  {:11}  {:11}  ADDRESS", "ID", "ROLE", "APPLICATION", "INCARNATION")];
    lines.extend(cluster.members.iter().map(|member| {
        let application = if member.application { "yes" } else { "no" };
        let (id, incarnation) = (member.id.0, member.incarnation.0);
        format!("{id:>4}  {:8}  {application:11}  {incarnation:11}  {}", role(view, member), place(view, member))
    }));
    let under_way = if view.changing { "; a change is under way" } else { "" };
    lines.push(format!(
        "configuration {}, decided up to slot {}; ids below {} are admitted{under_way}",
        view.configuration.epoch, view.decided, cluster.target_members
    ));
    lines.join("\n")
}

fn json(view: &MembersView) -> serde_json::Value {
    let cluster = &view.configuration.cluster;
    let members = cluster.members.iter().map(|member| {
        json!({
            "id": member.id.0,
            "role": role(view, member),
            "votes": member.votes,
            "application": member.application,
            "incarnation": member.incarnation.0,
            "life": format!("{:016x}", member.life.0),
            "address": place(view, member),
        })
    });
    json!({
        "epoch": view.configuration.epoch.0,
        "leader": view.leader.map(|leader| leader.0),
        "changing": view.changing,
        "decided": view.decided.0,
        "target_members": cluster.target_members,
        "members": members.collect::<Vec<_>>(),
        "retired": cluster.retired.iter().map(|retired| json!({ "id": retired.id.0, "incarnation": retired.incarnation.0 })).collect::<Vec<_>>(),
    })
}

fn say(text: &str) {
    // A closed stdout leaves nobody to tell.
    let _ = writeln!(std::io::stdout(), "{text}");
}
