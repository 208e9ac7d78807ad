//! The journal's thread and the driver's handle on it.

use super::entry::Entry;
use super::file::{GROUP_BYTES, JournalFile};
use mesh::ids::{Lsn, Slot};
use mesh::order::Record;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The journal is behind when so many bytes wait: the driver then takes no requests.
const BEHIND_BYTES: usize = 16 << 20;
/// The journal is behind when so many records wait.
const BEHIND_RECORDS: usize = 8192;
/// What a record takes beside the requests in it, about.
const RECORD_OVERHEAD: usize = 64;
/// A segment of a journal that is not written.
const PRETENDED_BYTES: u64 = 8 << 20;
/// Groups up to so many bytes may be written where they come up: the thread is asked for the others.
const HERE_BYTES: usize = 64 << 10;
/// As long as syncs take less than this.
const QUICK: Duration = Duration::from_micros(500);
/// After the disk had no room to grow ahead of need, the next try waits so long.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// Told of every sync: how long it took.
pub(crate) type Observe = Box<dyn Fn(Duration) + Send>;

/// The driver's handle: records go in, the last durable one comes out. It never blocks.
#[derive(Debug)]
pub(crate) enum Journal {
    /// Nothing is written: what was appended is "durable" at once, without any thread.
    Memory {
        /// The last record, until it is asked for.
        completed: Option<Lsn>,
        /// What a file would hold.
        pretended: Pretended,
    },
    /// Written to a file by a thread.
    File(FileJournal),
}

/// How large a journal is that is not written.
#[derive(Debug, Default)]
pub(crate) struct Pretended {
    /// Segments: the highest slot with a vote, and about how many bytes.
    segments: VecDeque<(Slot, u64)>,
}

impl Pretended {
    fn append(&mut self, record: &Record, size: usize) {
        if self.segments.back().is_none_or(|(_, bytes)| *bytes > PRETENDED_BYTES) {
            self.segments.push_back((Slot(0), 0));
        }
        let Some((highest, bytes)) = self.segments.back_mut() else { return };
        *bytes += size as u64;
        if let Record::Accepted { slot, .. } = record {
            *highest = slot.max(highest).to_owned();
        }
    }

    fn cut(&mut self, through: Slot) {
        while self.segments.len() > 1 && self.segments.front().is_some_and(|(highest, _)| *highest <= through) {
            self.segments.pop_front();
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// See [`Journal::File`].
#[derive(Debug)]
pub(crate) struct FileJournal {
    shared: Arc<Shared>,
    /// Records of the driver's current turn.
    turn: Vec<Pending>,
    file: Arc<Mutex<Disk>>,
    durable: watch::Receiver<Lsn>,
    /// What was written here, until it is asked for.
    completed: Option<Lsn>,
    failed: fn(&io::Error),
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Pending {
    lsn: Lsn,
    size: usize,
    entry: Entry,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    /// Of queue and current group together.
    waiting_bytes: AtomicUsize,
    waiting_records: AtomicUsize,
    file_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Pending>,
    /// Votes for slots up to here are not needed any more.
    cut: Slot,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic ends the process (panic = abort), and in tests the queue is whole after one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// A journal that writes nothing.
    pub(crate) fn memory() -> Self {
        Self::Memory { completed: None, pretended: Pretended::default() }
    }

    /// A journal that writes to `file` on a thread of its own; a failure there ends the process.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(crate) fn start(file: JournalFile, observe: Observe) -> io::Result<Self> {
        Self::start_with(file, observe, die)
    }

    pub(super) fn start_with(file: JournalFile, observe: Observe, failed: fn(&io::Error)) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.file_bytes.store(file.bytes(), Ordering::Relaxed);
        let (done, durable) = watch::channel(Lsn(0));
        let file = Arc::new(Mutex::new(Disk { file, observe, quick: false }));
        let writer = Writer { shared: shared.clone(), file: Arc::clone(&file), done, next_try: None };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            if let Err(error) = writer.run() {
                failed(&error);
            }
        })?;
        let thread = Some(thread);
        Ok(Self::File(FileJournal { shared, turn: Vec::new(), file, durable, completed: None, failed, thread }))
    }

    /// Takes a record; it is written after the next [`Self::flush`].
    pub(crate) fn append(&mut self, lsn: Lsn, record: Record) {
        let size = size_of_record(&record);
        match self {
            Self::Memory { completed, pretended } => {
                *completed = Some(lsn);
                pretended.append(&record, size);
            }
            Self::File(journal) => journal.turn.push(Pending { lsn, size, entry: Entry::Core(record) }),
        }
    }

    /// Hands everything that was appended to the disk. `here`: nothing of weight waits to be sent meanwhile, so that it may be
    /// written at once while the disk is quick: without a thread that has to be woken first, and has to wake us when it
    /// is done.
    pub(crate) fn flush(&mut self, here: bool) {
        let Self::File(journal) = self else { return };
        if journal.turn.is_empty() || here && journal.write_here() {
            return;
        }
        let bytes: usize = journal.turn.iter().map(|pending| pending.size).sum();
        journal.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        journal.shared.waiting_records.fetch_add(journal.turn.len(), Ordering::Relaxed);
        journal.shared.lock().records.extend(journal.turn.drain(..));
        journal.shared.ready.notify_one();
    }

    /// Votes for slots up to `through` are not needed any more: segments with no others may go.
    pub(crate) fn cut(&mut self, through: Slot) {
        match self {
            Self::Memory { pretended, .. } => pretended.cut(through),
            Self::File(journal) => {
                let mut queue = journal.shared.lock();
                queue.cut = queue.cut.max(through);
                drop(queue);
                journal.shared.ready.notify_one();
            }
        }
    }

    /// The last durable record, if there is a new one. Never waits.
    pub(crate) fn take_completed(&mut self) -> Option<Lsn> {
        match self {
            Self::Memory { completed, .. } => completed.take(),
            Self::File(journal) => journal.take_completed(),
        }
    }

    /// Resolves when [`Self::take_completed`] has something. Cancel safe.
    pub(crate) async fn completed(&mut self) {
        let Self::File(journal) = self else { return std::future::pending().await };
        if journal.completed.is_some() {
            return;
        }
        // The sender lives as long as the thread, which ends only with this handle or the process.
        match journal.durable.changed().await {
            Ok(()) => journal.durable.mark_changed(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Whether so much waits for the disk that no request should be taken.
    pub(crate) fn behind(&self) -> bool {
        match self {
            Self::Memory { .. } => false,
            Self::File(journal) => {
                journal.shared.waiting_bytes.load(Ordering::Relaxed) > BEHIND_BYTES
                    || journal.shared.waiting_records.load(Ordering::Relaxed) > BEHIND_RECORDS
            }
        }
    }

    /// Bytes of the journal.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Memory { pretended, .. } => pretended.bytes(),
            Self::File(journal) => journal.shared.file_bytes.load(Ordering::Relaxed),
        }
    }
}

impl FileJournal {
    /// Writes the turn's records, unless the thread is at work, the disk is slow or they are many: false, and they stay.
    fn write_here(&mut self) -> bool {
        let bytes: usize = self.turn.iter().map(|pending| pending.size).sum();
        if bytes > HERE_BYTES {
            return false;
        }
        // Whoever holds the queue and finds it empty is before the thread, which takes the file while it holds the queue.
        let queue = self.shared.lock();
        let Ok(mut disk) = self.file.try_lock() else { return false };
        // The thread makes room when it is asked.
        if !disk.quick || !disk.file.is_prepared() || !queue.records.is_empty() {
            return false;
        }
        drop(queue);
        match disk.write(&self.turn) {
            Ok(last) => {
                self.completed = last;
                self.shared.file_bytes.store(disk.file.bytes(), Ordering::Relaxed);
            }
            Err(error) => (self.failed)(&error),
        }
        self.turn.clear();
        true
    }

    /// The thread is behind what was written here, if anything was, and the other way round: each takes its turn only when
    /// the other has nothing left.
    fn take_completed(&mut self) -> Option<Lsn> {
        let by_thread = self.durable.has_changed().unwrap_or(false).then(|| *self.durable.borrow_and_update());
        self.completed.take().max(by_thread)
    }
}

impl Drop for FileJournal {
    /// Writes what waits, then ends the thread.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_one();
        if let Some(thread) = self.thread.take() {
            // It panics only where the process ends anyway.
            let _ = thread.join();
        }
    }
}

/// The file, for whoever writes to it just now.
struct Disk {
    file: JournalFile,
    observe: Observe,
    /// The last sync was.
    quick: bool,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Disk {
    /// Makes a group durable; the last of its records.
    fn write(&mut self, group: &[Pending]) -> io::Result<Option<Lsn>> {
        let Some(last) = group.last().map(|pending| pending.lsn) else { return Ok(None) };
        self.file.append(group.iter().map(|pending| &pending.entry))?;
        tracing::trace!(through = last.0, "the journal is written");
        let begun = Instant::now();
        self.file.sync()?;
        let took = begun.elapsed();
        self.quick = took < QUICK;
        (self.observe)(took);
        Ok(Some(last))
    }
}

struct Writer {
    shared: Arc<Shared>,
    file: Arc<Mutex<Disk>>,
    done: watch::Sender<Lsn>,
    /// When to try to grow ahead of need again, after there was no room.
    next_try: Option<Instant>,
}

impl Writer {
    fn run(mut self) -> io::Result<()> {
        let file = Arc::clone(&self.file);
        let mut group = Vec::new();
        self.prepare(&mut disk(&file))?;
        while let Some((mut disk, cut)) = self.next_group(&file, &mut group) {
            disk.write(&group)?;
            self.complete(&mut group);
            // One segment at a time, so that no group waits for many.
            disk.file.cut(cut)?;
            self.shared.file_bytes.store(disk.file.bytes(), Ordering::Relaxed);
            if self.shared.lock().records.is_empty() {
                self.prepare(&mut disk)?;
            }
        }
        Ok(())
    }

    /// Waits for records and takes as many as make one group, or for something to cut; `None` when the journal is closed
    /// and all is done, else the file and up to where it is to be cut.
    fn next_group<'a>(&self, file: &'a Mutex<Disk>, group: &mut Vec<Pending>) -> Option<(MutexGuard<'a, Disk>, Slot)> {
        let mut queue = self.shared.lock();
        let disk = loop {
            if !queue.records.is_empty() {
                break disk(file);
            }
            // Whoever writes elsewhere just now is done soon.
            let disk = disk(file);
            if disk.file.can_cut(queue.cut) {
                break disk;
            }
            drop(disk);
            if queue.closed {
                return None;
            }
            queue = self.shared.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        let mut bytes = 0;
        while let Some(pending) = queue.records.pop_front() {
            bytes += pending.size;
            group.push(pending);
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        Some((disk, queue.cut))
    }

    fn prepare(&mut self, disk: &mut Disk) -> io::Result<()> {
        if self.next_try.is_some_and(|next| Instant::now() < next) {
            return Ok(());
        }
        let ready = disk.file.prepare()?;
        if !ready && self.next_try.is_none() {
            tracing::error!(
                folder = %disk.file.folder().display(),
                "the disk is full: when the room that the journal has already is used up, this replica stops. Make room"
            );
        }
        self.next_try = (!ready).then(|| Instant::now() + NEXT_TRY);
        Ok(())
    }

    fn complete(&self, group: &mut Vec<Pending>) {
        let Some(last) = group.last().map(|pending| pending.lsn) else { return };
        let bytes = group.iter().map(|pending| pending.size).sum();
        self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shared.waiting_records.fetch_sub(group.len(), Ordering::Relaxed);
        group.clear();
        self.done.send_replace(last);
    }
}

fn disk(file: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    // As for the queue.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that a record takes in the file: never less than that by more than the overhead of few requests.
fn size_of_record(record: &Record) -> usize {
    match record {
        Record::Accepted { batch, .. } => {
            RECORD_OVERHEAD + batch.body_bytes() + batch.requests.len() * mesh::limits::REQUEST_ENVELOPE_BYTES
        }
        _ => RECORD_OVERHEAD,
    }
}

/// After a failed write or sync nobody knows what the disk holds: what it never confirmed is never acknowledged.
fn die(error: &io::Error) {
    tracing::error!(
        %error,
        "the journal could not be written: this replica stops, and has acknowledged nothing that is not stored. \
         Make room or mend the disk; it checks its journal when it is started again"
    );
    std::process::exit(1);
}
