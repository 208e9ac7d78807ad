//! A bound on the bytes of decoded messages that wait for the driver: whoever brings more waits, and with it the streams
//! of its link.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that one permit stands for.
const UNIT: usize = 1024;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    units: u32,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share(#[allow(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Budget {
    /// For so many bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).max(1);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits until there is room for so many bytes; a message larger than all is counted as all.
    pub(crate) async fn take(&self, bytes: usize) -> Share {
        let units = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX).min(self.units);
        // Closed never.
        Share(Arc::clone(&self.permits).acquire_many_owned(units).await.ok())
    }
}
