//! The dump of the example application: pages of `DUMP`, each a JSON array of pairs on a line of its own, brought back by
//! `LOAD`, or by `PUT` where one pair is all that a line can hold.

use super::LoadError;
use super::stream::{Sink, Source, other_kind};
use crate::app::conversation::Conversation;
use crate::app::resp::shorten;
use anyhow::{Context, anyhow, ensure};
use bytes::{Bytes, BytesMut};

const MAGIC: &[u8] = b"lockstep-hashmap 1\n";
const END: &[u8] = b"end\n";
/// Entries of the first page.
const ENTRIES_FIRST: usize = 16;
/// A page is made shorter when it has more bytes than this, longer when it has less than a quarter.
const PAGE_BYTES: usize = 2 << 20;
/// A longer page is not loaded with one request: the application takes lines up to 8 MiB.
const LOAD_BYTES: usize = 7 << 20;
/// Bytes of a page at most; a single entry may be written six times as long as it is.
const LINE_BYTES: usize = 256 << 20;

type Pairs = Vec<(String, String)>;

pub(super) async fn save(conversation: &mut Conversation, sink: &mut Sink) -> anyhow::Result<()> {
    sink.put(MAGIC).await?;
    let (mut entries, mut after) = (ENTRIES_FIRST, None);
    loop {
        let after_key = after.as_ref().map_or_else(String::new, |key| format!("AFTER {key} "));
        let reply = conversation.ask(&Bytes::from(format!("DUMP {after_key}LIMIT {entries}\n"))).await?;
        let page = reply.strip_prefix(b"ENTRIES ").and_then(|page| page.strip_suffix(b"\n"));
        let page = page.with_context(|| format!("DUMP was answered with {}", shorten(&reply)))?;
        let pairs: Pairs = serde_json::from_slice(page).context("the reply to DUMP was not understood")?;
        let Some((last, _)) = pairs.last() else { break };
        ensure!(after.as_ref().is_none_or(|after| after < last), "DUMP gave a page twice");
        after = Some(last.clone());
        sink.put(page).await?;
        sink.put(b"\n").await?;
        if page.len() > PAGE_BYTES {
            entries = (entries / 2).max(1);
        } else if page.len() < PAGE_BYTES / 4 {
            entries *= 2;
        }
    }
    sink.put(END).await
}

pub(super) async fn load(conversation: &mut Conversation, source: &mut Source) -> Result<(), LoadError> {
    source.expect(MAGIC).await?;
    let mut lines = Lines { source, buffer: BytesMut::new(), searched: 0 };
    loop {
        let line = lines.next().await?;
        if line == END {
            return Ok(());
        }
        let page = line.strip_suffix(b"\n").unwrap_or(&line);
        if page.len() <= LOAD_BYTES {
            put(conversation, [b"LOAD ", page, b"\n"].concat()).await?;
            continue;
        }
        let pairs: Pairs = serde_json::from_slice(page).map_err(|_| other_kind("a page is no JSON"))?;
        for (key, value) in pairs {
            // One CR at the end is taken for the line's.
            let end = if value.ends_with('\r') { "\r\n" } else { "\n" };
            put(conversation, format!("PUT {key} {value}{end}").into_bytes()).await?;
        }
    }
}

async fn put(conversation: &mut Conversation, line: Vec<u8>) -> Result<(), LoadError> {
    let reply = conversation.ask(&Bytes::from(line)).await?;
    if reply.trim_ascii_end() == b"OK" {
        Ok(())
    } else {
        Err(anyhow!("an entry was answered with {}", shorten(&reply)).into())
    }
}

/// The lines of a dump.
struct Lines<'a> {
    source: &'a mut Source,
    buffer: BytesMut,
    searched: usize,
}

impl Lines<'_> {
    /// The next one, with its end.
    async fn next(&mut self) -> Result<Bytes, LoadError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > LINE_BYTES {
                return Err(other_kind("a page is too long"));
            }
            let piece = self.source.next().await?.ok_or_else(|| other_kind("it ends early"))?;
            self.buffer.extend_from_slice(&piece);
        }
    }
}
