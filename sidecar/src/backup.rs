//! A backup of a running cluster: one member's snapshot, taken for it, copied into a file.

use crate::operator::{Access, Answer, LOOK_EVERY, ask, dial, view, words};
use crate::snapshots::{Copying, Info};
use anyhow::{Context, bail, ensure};
use mesh::ids::{Generation, Slot};
use mesh::net::{Endpoint, Link};
use mesh::quorum::{ELECTORATE_MIN, majority};
use mesh::transfer::Manifest;
use mesh::wire::admin::{AdminReply, AdminRequest, SnapshotsView};
use mesh::wire::transfer::{TransferAnswer, TransferAsk};
use std::collections::BTreeMap;
use std::path::Path;

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backed {
    /// The member takes the snapshot: bytes so far.
    Taking(u64),
    /// It is copied: bytes so far, and of all.
    Copying(u64, u64),
}

/// A member that answers.
struct Member {
    id: u32,
    link: Link,
    view: SnapshotsView,
}

impl Access {
    /// Copies a snapshot into `file` that holds everything that was acknowledged before; `only` that member is to take it.
    ///
    /// # Errors
    /// Too few members answer, none can take a snapshot, or the file cannot be written; nothing of it stays then.
    pub async fn backup(
        &self,
        only: Option<u32>,
        (file, replace): (&Path, bool),
        progress: &mut dyn FnMut(Backed),
    ) -> anyhow::Result<Answer<Info>> {
        let endpoint = self.bind()?;
        let members = self.views(&endpoint).await?;
        let least = members.iter().map(|member| member.view.executed).max().unwrap_or_default();
        ensure!(least > Slot(0), "nothing was ordered yet: there is nothing to be backed up");
        let mut refused = Vec::new();
        for member in members.iter().filter(|member| only.is_none_or(|only| only == member.id)) {
            let copied = match taken(member, least, progress).await {
                Ok(Answer::Done(slot)) => self.copy(member, slot, (file, replace), progress).await,
                Ok(Answer::Refused(why)) => Ok(Answer::Refused(why)),
                Err(error) => Err(error),
            };
            match copied {
                Ok(Answer::Refused(why)) => refused.push(format!("member {}: {why}", member.id)),
                Ok(done) => return Ok(done),
                Err(error) => refused.push(format!("member {}: {error:#}", member.id)),
            }
        }
        if let Some(only) = only.filter(|_| refused.is_empty()) {
            bail!("member {only} does not answer, or is none that has an application");
        }
        Ok(Answer::Refused(refused.join("; ")))
    }

    /// The members with an application that answer, the one that is ahead first.
    async fn views(&self, endpoint: &Endpoint) -> anyhow::Result<Vec<Member>> {
        let (mut members, mut silent) = (Vec::new(), Vec::new());
        let known = self.members().await?;
        let mut places: BTreeMap<u32, String> = self.members.iter().cloned().collect();
        for (id, address) in known.places {
            places.entry(id.0).or_insert(address);
        }
        for (id, address) in places {
            let answer = async {
                let link = dial(endpoint, id, &address).await?;
                match view(&link, &AdminRequest::Snapshots).await? {
                    Answer::Done(view) => Ok(Member { id, link, view }),
                    Answer::Refused(why) => bail!("{why}"),
                }
            };
            match answer.await {
                Ok(member) => members.push(member),
                Err(error) => silent.push(format!("member {id}: {error:#}")),
            }
        }
        let cluster = &known.configuration.cluster;
        let answers = |member: &&mesh::config::Member| members.iter().any(|known: &Member| known.id == member.id.0);
        let (voters, applications) =
            (cluster.voters().filter(answers).count(), cluster.applications().filter(answers).count());
        // One of so many executed whatever was acknowledged before. With fewer than three applications the reply of one was
        // taken, and that one may be the one that is lost (rule 29).
        let electorate = cluster.electorate();
        let needed = if electorate < ELECTORATE_MIN { 1 } else { electorate - cluster.settling() + 1 };
        ensure!(
            voters >= majority(cluster.voter_count()) && applications >= needed,
            "too few members answer to know what was acknowledged ({}). The newest file in a member's directory \
             snapshots is a backup too",
            silent.join("; ")
        );
        // A witness has nothing to give.
        members.retain(|member| cluster.applications().any(|known| known.id.0 == member.id));
        members.sort_by_key(|member| std::cmp::Reverse(member.view.executed));
        Ok(members)
    }

    async fn copy(
        &self,
        member: &Member,
        least: Slot,
        (file, replace): (&Path, bool),
        progress: &mut dyn FnMut(Backed),
    ) -> anyhow::Result<Answer<Info>> {
        let (cluster, path, generation) = (self.cluster.clone(), file.to_owned(), Generation::default());
        let TransferAnswer::Manifest(manifest) =
            fetch(&member.link, TransferAsk::Manifest { least, generation }).await?
        else {
            bail!("member {} does not give its snapshot of slot {least}", member.id);
        };
        let Manifest { slot, total_len, .. } = *manifest;
        let (digest, chunks) = (manifest.digest(), manifest.chunks.len());
        let mut copying = blocking(move || Copying::begin(&path, &cluster, *manifest)).await?;
        let mut done = 0;
        for index in 0..chunks {
            let chunk = TransferAsk::Chunk { slot, manifest: digest, index: u32::try_from(index)? };
            let TransferAnswer::Chunk(bytes) = fetch(&member.link, chunk).await? else {
                bail!("member {} does not give chunk {index} of its snapshot: try again", member.id);
            };
            done += bytes.len() as u64;
            copying = blocking(move || copying.chunk(index, &bytes).map(|()| copying)).await?;
            progress(Backed::Copying(done, total_len));
        }
        Ok(Answer::Done(blocking(move || copying.finish(replace)).await?))
    }
}

/// Has a member take a snapshot of slot `least` or later: its slot, once it is verified there.
async fn taken(member: &Member, least: Slot, progress: &mut dyn FnMut(Backed)) -> anyhow::Result<Answer<Slot>> {
    let (mut now, mut asked) = (member.view, None);
    while now.newest < least {
        // Again where one had been begun before, and is of an earlier slot.
        let again = asked.is_none_or(|before| now.newest > before);
        if again {
            asked = Some(now.newest);
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        now = match view(&member.link, if again { &AdminRequest::Save } else { &AdminRequest::Snapshots }).await? {
            Answer::Done(view) => view,
            Answer::Refused(why) => return Ok(Answer::Refused(why)),
        };
        ensure!(now.failed == member.view.failed, "it could not take a snapshot: its log says why");
        progress(Backed::Taking(now.writing.unwrap_or_default()));
    }
    Ok(Answer::Done(now.newest))
}

async fn fetch(link: &Link, what: TransferAsk) -> anyhow::Result<TransferAnswer> {
    match ask(link, &AdminRequest::Fetch(what)).await? {
        AdminReply::Fetched(answer) => Ok(answer),
        reply => bail!("it gives {}", words(reply)),
    }
}

/// The disk may be slow, and the link is to live meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the disk's task ended")?
}
