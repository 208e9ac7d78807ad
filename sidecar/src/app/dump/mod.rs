//! Saving the application's state, and bringing it back: the application's half of a snapshot, by whatever means it has.

mod archive;
mod command;
pub(super) mod directory;
mod hashmap;
mod resp;
mod stream;

use super::conversation::Conversation;
use super::exchange::Loss;
use super::keeper::Keeper;
use super::own::{OwnConnections, States};
use super::worker::{End, Left, Live, show};
use super::{Event, Settings, State};
use crate::config::{Dialect, SnapshotMode};
use anyhow::{Context, anyhow, bail};
use mesh::framing::Connections;
use mesh::ids::Slot;
use mesh::order::Image;
use std::time::Duration;
use stream::{Sink, Source};
use tokio::time::timeout;

/// How long nothing at all may be heard of the application while it is saved or loaded: single values are large.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a snapshot was not loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    /// It is damaged, gone, or of another kind.
    Snapshot(anyhow::Error),
    /// The application did not take it.
    Application(anyhow::Error),
}

impl From<anyhow::Error> for LoadError {
    fn from(error: anyhow::Error) -> Self {
        Self::Application(error)
    }
}

impl From<Loss> for LoadError {
    fn from(loss: Loss) -> Self {
        Self::Application(loss.into())
    }
}

/// Takes a snapshot, and tells the driver. An error is the end of the run; that no snapshot was taken is none. `own`: the
/// connections that sessions have of their own.
pub(super) async fn take(
    live: &mut Live<'_>,
    image: Box<Image>,
    mut own: Option<&mut OwnConnections>,
) -> Result<(), End> {
    let slot = image.slot;
    if live.settings.snapshot.ends_application() {
        *live.left = Left::Busy;
    }
    let taken = tokio::select! {
        biased;
        end = live.orders.watch(live.run) => {
            tracing::info!(%slot, "the snapshot is given up");
            live.dump_failed(slot).await?;
            return Err(end);
        }
        taken = timeout(
            live.settings.snapshot_timeout,
            save(live.settings, live.keeper, image, own.as_deref_mut()),
        ) => taken,
    };
    let taken = taken.unwrap_or_else(|_| Err(anyhow!("it takes longer than {:?}", live.settings.snapshot_timeout)));
    let runs = live.keeper.same();
    if let Err(error) = taken {
        tracing::error!(%slot, error = format!("{error:#}"), "no snapshot was taken");
        live.dump_failed(slot).await?;
        return match own {
            _ if !runs => Err(End::Lost(Loss::Restarted)),
            // Only a replay brings it back; without one no snapshot would be taken until its client is heard of again.
            Some(own) if own.has_lost_a_watch() => Err(End::Lost(Loss::Watching)),
            _ => Ok(()),
        };
    }
    *live.left = Left::Clean;
    // From here on only what was executed after the snapshot needs to be known; the incarnation may be another.
    live.marker.begin(live.keeper.incarnation(), slot);
    show(live.settings, live.keeper, live.view, State::Running);
    live.events.send(Event::Dumped { slot }).await.map_err(|_| End::Stopped)?;
    if runs { Ok(()) } else { Err(End::Lost(Loss::Restarted)) }
}

impl Live<'_> {
    /// Tells the driver that there is no snapshot.
    pub(super) async fn dump_failed(&self, slot: Slot) -> Result<(), End> {
        self.events.send(Event::DumpFailed { slot }).await.map_err(|_| End::Stopped)
    }
}

/// Keeps a snapshot of a witness: the image is all that there is.
pub(super) async fn keep(settings: &Settings, image: Box<Image>) -> anyhow::Result<()> {
    let snapshots = settings.snapshots.get().context("there is nowhere to keep snapshots")?;
    Sink::new(snapshots.writer(image)).finish().await
}

async fn save(
    settings: &Settings,
    keeper: &mut Keeper,
    mut image: Box<Image>,
    own: Option<&mut OwnConnections>,
) -> anyhow::Result<()> {
    let slot = image.slot;
    if let Some(own) = own {
        image.connections = own.states(settings, keeper.address()).await?;
        if settings.snapshot.ends_application() {
            // They end with it; others take their place.
            *own = OwnConnections::new(image.connections.clone());
        }
    }
    let snapshots = settings.snapshots.get().context("there is nowhere to keep snapshots")?;
    let mut sink = Sink::new(snapshots.writer(image));
    match (&settings.snapshot, &mut *keeper) {
        (SnapshotMode::Directory, Keeper::Child(child)) => directory::save(child, &mut sink).await?,
        _ => {
            let (address, incarnation) = (keeper.address(), keeper.incarnation());
            tokio::select! {
                biased;
                saved = save_running(settings, address, slot, &mut sink) => saved?,
                ended = keeper.exited() => bail!("{ended}"),
            }
            // What another incarnation answered is not the state after the slot.
            if !keeper.same() || keeper.incarnation() != incarnation {
                bail!(Loss::Restarted);
            }
        }
    }
    sink.finish().await
}

async fn save_running(
    settings: &Settings,
    address: std::net::SocketAddr,
    slot: Slot,
    sink: &mut Sink,
) -> anyhow::Result<()> {
    let mut conversation = Conversation::new(address, settings, settings.timeout.max(PATIENCE));
    match &settings.snapshot {
        SnapshotMode::Request(Dialect::Resp) => resp::save(&mut conversation, sink).await,
        SnapshotMode::Request(Dialect::Hashmap) => hashmap::save(&mut conversation, sink).await,
        SnapshotMode::Request(Dialect::Configured { dump, .. }) => {
            sink.put(&conversation.ask_for(dump, None).await?).await
        }
        SnapshotMode::Command { dump, .. } => command::save(settings, dump, slot, sink).await,
        SnapshotMode::None => bail!("no way of taking snapshots is configured"),
        SnapshotMode::Directory => bail!("the directory of somebody else's application is not ours to archive"),
    }
}

/// What the connections of sessions remembered when the snapshot was taken, where they have their own.
pub(super) async fn states(settings: &Settings, snapshot: Option<Slot>) -> Result<States, LoadError> {
    let Some(slot) = snapshot.filter(|_| settings.adapter.connections == Connections::PerSession) else {
        return Ok(States::new());
    };
    let snapshots = settings.snapshots.get().context("there is nowhere to keep snapshots");
    let snapshots = snapshots.map_err(LoadError::Snapshot)?.clone();
    let read = tokio::task::spawn_blocking(move || snapshots.image(slot)).await;
    let image = read.context("the snapshot could not be read").flatten().map_err(LoadError::Snapshot)?;
    Ok(image.connections)
}

/// Brings a snapshot back into an application in its initial state; with the mode `directory` that is part of it.
pub(super) async fn load(settings: &Settings, keeper: &mut Keeper, slot: Slot) -> Result<(), LoadError> {
    let begun = tokio::time::Instant::now();
    let snapshots =
        settings.snapshots.get().context("there is nowhere to keep snapshots").map_err(LoadError::Snapshot)?;
    let mut source = Source::new(snapshots.reader(slot)?);
    match timeout(settings.snapshot_timeout, load_from(settings, keeper, slot, &mut source)).await {
        Ok(loaded) => loaded?,
        Err(_) => return Err(anyhow!("loading the snapshot takes longer than {:?}", settings.snapshot_timeout).into()),
    }
    tracing::info!(%slot, bytes = source.taken(), took = ?begun.elapsed(), "the snapshot is loaded");
    if keeper.same() { Ok(()) } else { Err(Loss::Restarted.into()) }
}

async fn load_from(settings: &Settings, keeper: &mut Keeper, slot: Slot, source: &mut Source) -> Result<(), LoadError> {
    if let (SnapshotMode::Directory, Keeper::Child(child)) = (&settings.snapshot, &mut *keeper) {
        return directory::load(child, source).await;
    }
    let address = keeper.address();
    tokio::select! {
        biased;
        loaded = load_running(settings, address, slot, source) => loaded,
        ended = keeper.exited() => Err(anyhow!(ended).into()),
    }
}

async fn load_running(
    settings: &Settings,
    address: std::net::SocketAddr,
    slot: Slot,
    source: &mut Source,
) -> Result<(), LoadError> {
    let mut conversation = Conversation::new(address, settings, settings.timeout.max(PATIENCE));
    match &settings.snapshot {
        SnapshotMode::Request(Dialect::Resp) => resp::load(&mut conversation, source).await,
        SnapshotMode::Request(Dialect::Hashmap) => hashmap::load(&mut conversation, source).await,
        SnapshotMode::Request(Dialect::Configured { load, .. }) => {
            let dump = source.all().await?;
            let reply = conversation.ask_for(load, Some(&dump)).await?;
            // What else a bad reply would be only people know.
            tracing::info!(reply = %super::resp::shorten(&reply), "the application answered the load");
            Ok(())
        }
        SnapshotMode::Command { load, .. } => command::load(settings, load, slot, source).await,
        SnapshotMode::None | SnapshotMode::Directory => {
            Err(anyhow!("a snapshot is to be loaded, but no way of that is configured: set --snapshot as before")
                .into())
        }
    }
}
