//! In the application's place at a witness: executes nothing, and keeps snapshots without the application's part.

use super::{Command, Event, Settings, dump};
use mesh::order::Image;
use tokio::sync::{mpsc, watch};

/// Until the driver is gone, `stop` turns true or its sender goes.
pub(super) async fn run(
    settings: Settings,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    mut stop: watch::Receiver<bool>,
) {
    settings.metrics.app_up.set(1);
    loop {
        let command = tokio::select! {
            biased;
            // An error: the sender is gone.
            _ = stop.wait_for(|stop| *stop) => return,
            command = commands.recv() => command,
        };
        let event = match command {
            None => return,
            Some(Command::Dump { image, .. }) => keep(&settings, image).await,
            Some(Command::Reset { run, .. } | Command::Resume { run }) => Event::Restored { run },
            // The core of a witness hands nothing over to be executed.
            Some(Command::Execute { run, .. }) => Event::Lost { run },
            Some(Command::Answered { .. } | Command::Read { .. }) => continue,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

async fn keep(settings: &Settings, image: Box<Image>) -> Event {
    let slot = image.slot;
    match dump::keep(settings, image).await {
        Ok(()) => Event::Dumped { slot },
        Err(error) => {
            tracing::error!(%slot, error = format!("{error:#}"), "no snapshot was taken");
            Event::DumpFailed { slot }
        }
    }
}
