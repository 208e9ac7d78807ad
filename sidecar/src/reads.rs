//! Reads of clients that the core answers without the log (rule 32): their bytes, who waits for them, and what the
//! application said, until the core says what becomes of them.
//!
//! Nothing that a SMaRtClient says of a read is believed: whether it changes nothing is judged here, by its bytes.

use crate::intake::LinkId;
use bytes::Bytes;
use mesh::auth::Signatures;
use mesh::framing::{Adapter, ReadOnly};
use mesh::ids::{Digest, ReadId, Slot};
use mesh::wire::submit::Answer;
use mesh::wire::{Outcome, Tag};
use std::collections::BTreeMap;

/// Bytes of the replies to reads that were asked for together, at most: what is more goes through the log, one by one.
const REPLIES_TOGETHER_BYTES: usize = 1 << 20;
/// Bytes of the requests that wait here, at most. One message is taken whatever its size.
const BYTES: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Reads {
    read_only: ReadOnly,
    /// Whether replies are signed here: then one server's word is not enough.
    signed: bool,
    next: u64,
    /// They came since the core was told of any.
    fresh: Vec<ReadId>,
    waiting: BTreeMap<ReadId, Waiting>,
    /// Bytes that they were asked with.
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    link: LinkId,
    tag: Tag,
    bytes: usize,
    requests: Vec<Bytes>,
    replies: Option<Vec<Bytes>>,
}

/// What is said of reads over a link: the answer, or that there is none.
pub(crate) type Said = (LinkId, Result<Answer, Tag>);

impl Reads {
    /// None yet.
    pub(crate) fn new(read_only: ReadOnly, reply_signatures: Signatures) -> Self {
        let signed = reply_signatures != Signatures::Off;
        Self { read_only, signed, next: 0, fresh: Vec::new(), waiting: BTreeMap::new(), bytes: 0 }
    }

    /// Whether these are reads, each of them exactly one request, in a cluster where one server's word is enough.
    pub(crate) fn are(&self, adapter: &Adapter, request_signatures: Signatures, requests: &[Bytes]) -> bool {
        let believed = !self.signed && request_signatures == Signatures::Off;
        believed && !requests.is_empty() && requests.iter().all(|request| self.read_only.is_read(adapter, request))
    }

    /// Takes reads, which [`Reads::are`] some. False: there is no room for them.
    pub(crate) fn take(&mut self, link: LinkId, tag: Tag, requests: Vec<Bytes>) -> bool {
        let bytes = requests.iter().map(Bytes::len).sum();
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > BYTES {
            return false;
        }
        self.next += 1;
        self.bytes += bytes;
        let read = ReadId(self.next);
        self.fresh.push(read);
        self.waiting.insert(read, Waiting { link, tag, bytes, requests, replies: None });
        true
    }

    fn end(&mut self, read: ReadId) -> Option<Waiting> {
        let waiting = self.waiting.remove(&read)?;
        self.bytes -= waiting.bytes;
        Some(waiting)
    }

    /// Those that the core was not told of.
    pub(crate) fn take_fresh(&mut self) -> Vec<ReadId> {
        std::mem::take(&mut self.fresh)
    }

    /// What the application is asked: nothing, where nobody waits any more.
    pub(crate) fn requests(&mut self, read: ReadId) -> Vec<Bytes> {
        self.waiting.get_mut(&read).map(|waiting| std::mem::take(&mut waiting.requests)).unwrap_or_default()
    }

    /// The application has answered.
    pub(crate) fn replied(&mut self, read: ReadId, replies: Vec<Bytes>) {
        if let Some(waiting) = self.waiting.get_mut(&read) {
            waiting.replies = Some(replies);
        }
    }

    /// The replies may be given: whether they are, and what is said.
    pub(crate) fn answer(&mut self, read: ReadId, slot: Slot) -> Option<(bool, Said)> {
        let Waiting { link, tag, replies, .. } = self.end(read)?;
        let replies = replies.unwrap_or_default();
        let fits = replies.len() == 1 || replies.iter().map(Bytes::len).sum::<usize>() <= REPLIES_TOGETHER_BYTES;
        // Nobody votes on it.
        let answer = |form| Answer { tag, slot, form, outcome: Outcome::Read(replies), signed: None };
        Some((fits, (link, if fits { Ok(answer(Digest::default())) } else { Err(tag) })))
    }

    /// There will be none.
    pub(crate) fn void(&mut self, read: ReadId) -> Option<Said> {
        let Waiting { link, tag, .. } = self.end(read)?;
        Some((link, Err(tag)))
    }

    /// A link is gone, and everybody who waited on it.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        let of_link = |(read, waiting): (&ReadId, &Waiting)| (waiting.link == link).then_some(*read);
        let gone: Vec<ReadId> = self.waiting.iter().filter_map(of_link).collect();
        for read in gone {
            drop(self.end(read));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh::framing::{Connections, Protocol};
    use mesh::ids::{ClientId, Opening, Seq};
    use mesh::wire::Kind;

    const LINK: LinkId = LinkId(1);

    fn reads(replies: Signatures) -> Reads {
        Reads::new(ReadOnly::new(Protocol::Line, ["GET".to_owned()]).expect("a word"), replies)
    }

    fn adapter() -> Adapter {
        let (protocol, connections) = (Protocol::Line, Connections::Shared);
        Adapter { protocol, connections, request_bytes: 1 << 10, reply_bytes: 1 << 10 }
    }

    fn tag(seq: u64) -> Tag {
        Tag { client: ClientId(1), opened: Opening::NONE, seq: Seq(seq), kind: Kind::Read }
    }

    fn get() -> Bytes {
        Bytes::from_static(b"GET a\n")
    }

    #[test]
    fn whoever_asks_it_is_judged_by_the_bytes_alone() {
        let (off, required) = (Signatures::Off, Signatures::Required);
        let put = Bytes::from_static(b"PUT a 1\n");
        assert!(reads(off).are(&adapter(), off, &[get(), get()]));
        assert!(!reads(off).are(&adapter(), off, &[get(), put]), "one of them is none");
        assert!(!reads(off).are(&adapter(), off, &[]));
        assert!(!reads(off).are(&adapter(), required, &[get()]) && !reads(required).are(&adapter(), off, &[get()]));
    }

    #[test]
    fn the_replies_are_given_when_the_core_says_so_and_once() {
        let mut reads = reads(Signatures::Off);
        assert!(reads.take(LINK, tag(1), vec![get()]));
        assert_eq!(reads.take_fresh(), [ReadId(1)]);
        assert_eq!(reads.requests(ReadId(1)), [get()]);
        let replies = vec![Bytes::from_static(b"VALUE 1\n")];
        reads.replied(ReadId(1), replies.clone());
        let outcome = Outcome::Read(replies);
        let answer = Answer { tag: tag(1), slot: Slot(7), form: Digest::default(), outcome, signed: None };
        assert_eq!(reads.answer(ReadId(1), Slot(7)), Some((true, (LINK, Ok(answer)))));
        assert!(reads.answer(ReadId(1), Slot(7)).is_none() && reads.void(ReadId(1)).is_none());
    }

    #[test]
    fn what_is_void_too_much_or_nobodys_is_not_given() {
        let mut reads = reads(Signatures::Off);
        for seq in 1..=3 {
            assert!(reads.take(LINK, tag(seq), vec![get(), get()]));
        }
        assert_eq!(reads.void(ReadId(1)), Some((LINK, Err(tag(1)))));
        reads.replied(ReadId(2), vec![Bytes::from(vec![0; REPLIES_TOGETHER_BYTES]), get()]);
        assert_eq!(reads.answer(ReadId(2), Slot(1)), Some((false, (LINK, Err(tag(2))))));
        reads.link_down(LINK);
        assert!(reads.requests(ReadId(3)).is_empty() && reads.answer(ReadId(3), Slot(1)).is_none());
        assert_eq!(reads.bytes, 0);
        let large = || vec![Bytes::from(vec![0; BYTES])];
        assert!(reads.take(LINK, tag(4), large()), "whatever its size");
        assert!(!reads.take(LINK, tag(5), vec![get()]));
    }
}
