//! The dump of a Redis: every key of every database as `DUMP` gives it, with its expiry, and brought back by `RESTORE`.
//!
//! Nothing else is sent to the application meanwhile, so that `SCAN` gives every key, some more than once. A record is:
//! 1, database (u32), expiry (i64, Unix time in ms, or -1), length of the key and of the payload (u32), both; all numbers
//! are little-endian. The end is 0 and the number of records (u64).

use super::LoadError;
use super::stream::{Sink, Source, other_kind};
use crate::app::conversation::Conversation;
use crate::app::resp::{Value, ask, databases, parse, request, shorten};
use anyhow::{Context, anyhow, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use std::time::{SystemTime, UNIX_EPOCH};

const MAGIC: &[u8] = b"lockstep-redis\x01";
/// Keys that are asked for together at most, and at first.
const KEYS_MAX: usize = 256;
const KEYS_FIRST: usize = 8;
/// Fewer keys are asked for together when their values are longer than this, more when they are shorter than a quarter.
const BATCH_BYTES: usize = 8 << 20;
/// Keys, and bytes of requests, that are restored together.
const RESTORE_KEYS: usize = 512;
const RESTORE_BYTES: usize = 4 << 20;
/// Bytes of one key or payload at most: Redis has half a GiB.
const VALUE_BYTES: u32 = 1 << 30;

pub(super) async fn save(conversation: &mut Conversation, sink: &mut Sink) -> anyhow::Result<()> {
    sink.put(MAGIC).await?;
    let mut dump = Dump { conversation, sink, expiry: Expiry::Absolute, together: KEYS_FIRST, records: 0 };
    let databases = databases(dump.conversation).await?;
    for (database, _) in databases {
        dump.database(database).await?;
    }
    let records = dump.records;
    sink.put(&[0]).await?;
    sink.put(&records.to_le_bytes()).await
}

/// How expiries are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// `PEXPIRETIME`, since Redis 7.
    Absolute,
    /// `PTTL`, from now on.
    Relative,
}

struct Dump<'a> {
    conversation: &'a mut Conversation,
    sink: &'a mut Sink,
    expiry: Expiry,
    together: usize,
    records: u64,
}

impl Dump<'_> {
    async fn database(&mut self, database: u32) -> anyhow::Result<()> {
        ask(self.conversation, &["SELECT", &database.to_string()]).await?;
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = scanned(ask(self.conversation, &["SCAN", &cursor, "COUNT", "1000"]).await?)?;
            let mut keys = &keys[..];
            while !keys.is_empty() {
                let (now, later) = keys.split_at(self.together.min(keys.len()));
                if self.save_keys(database, now).await? {
                    keys = later;
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// False if it must be tried once more, in another way.
    async fn save_keys(&mut self, database: u32, keys: &[Bytes]) -> anyhow::Result<bool> {
        let mut requests = BytesMut::new();
        let expiry: &[u8] = if self.expiry == Expiry::Absolute { b"PEXPIRETIME" } else { b"PTTL" };
        for key in keys {
            request(&mut requests, &[b"DUMP", key]);
            request(&mut requests, &[expiry, key]);
        }
        let replies = self.conversation.ask_all(&requests, 2 * keys.len()).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis();
        let mut bytes = 0;
        for (key, pair) in keys.iter().zip(replies.chunks_exact(2)) {
            bytes += pair[0].len();
            let expires = match parse(&pair[1])? {
                // -2: it expired just now.
                Value::Integer(-2) => continue,
                Value::Integer(-1) => -1,
                Value::Integer(time) if self.expiry == Expiry::Absolute => time,
                Value::Integer(left) => i64::try_from(now)?.saturating_add(left),
                Value::Error(_) if self.expiry == Expiry::Absolute => {
                    self.expiry = Expiry::Relative;
                    return Ok(false);
                }
                other => bail!("the expiry of a key was answered with {other:?}"),
            };
            match parse(&pair[0])? {
                Value::Bulk(Some(payload)) => self.record(database, key, expires, &payload).await?,
                Value::Bulk(None) => {}
                other => bail!("DUMP was answered with {}", shorten(format!("{other:?}").as_bytes())),
            }
        }
        if bytes > BATCH_BYTES {
            self.together = (self.together / 2).max(1);
        } else if bytes < BATCH_BYTES / 4 {
            self.together = (self.together * 2).min(KEYS_MAX);
        }
        Ok(true)
    }

    async fn record(&mut self, database: u32, key: &[u8], expires: i64, payload: &[u8]) -> anyhow::Result<()> {
        let mut head = vec![1];
        head.extend_from_slice(&database.to_le_bytes());
        head.extend_from_slice(&expires.to_le_bytes());
        head.extend_from_slice(&u32::try_from(key.len())?.to_le_bytes());
        head.extend_from_slice(&u32::try_from(payload.len())?.to_le_bytes());
        self.records += 1;
        self.sink.put(&head).await?;
        self.sink.put(key).await?;
        self.sink.put(payload).await
    }
}

/// The next cursor and the keys of a reply to `SCAN`.
fn scanned(reply: Value) -> anyhow::Result<(String, Vec<Bytes>)> {
    let unknown = || anyhow!("the reply to SCAN was not understood");
    let Value::Array(parts) = reply else { return Err(unknown()) };
    let [Value::Bulk(Some(cursor)), Value::Array(keys)] = &parts[..] else { return Err(unknown()) };
    let cursor = std::str::from_utf8(cursor)?.to_owned();
    ensure!(cursor.bytes().all(|byte| byte.is_ascii_digit()), unknown());
    let keys = keys.iter().map(|key| match key {
        Value::Bulk(Some(key)) => Some(key.clone()),
        _ => None,
    });
    Ok((cursor, keys.collect::<Option<_>>().ok_or_else(unknown)?))
}

pub(super) async fn load(conversation: &mut Conversation, source: &mut Source) -> Result<(), LoadError> {
    source.expect(MAGIC).await?;
    let (mut requests, mut count, mut records) = (BytesMut::new(), 0, 0);
    // Of a new connection.
    let mut selected = 0;
    loop {
        match source.exactly(1).await?[0] {
            0 => break,
            1 => {}
            _ => return Err(other_kind("a record is of no known kind")),
        }
        let database = source.u32().await?;
        let expires = source.exactly(8).await?.get_i64_le();
        let (key, payload) = (source.u32().await?, source.u32().await?);
        if key.max(payload) > VALUE_BYTES {
            return Err(other_kind("a record is too long"));
        }
        let key = source.exactly(key as usize).await?;
        let payload = source.exactly(payload as usize).await?;
        records += 1;
        if database != selected {
            request(&mut requests, &[b"SELECT", database.to_string().as_bytes()]);
            count += 1;
            selected = database;
        }
        restore(&mut requests, &key, expires, &payload);
        count += 1;
        if count >= RESTORE_KEYS || requests.len() >= RESTORE_BYTES {
            send(conversation, &mut requests, &mut count).await?;
        }
    }
    send(conversation, &mut requests, &mut count).await?;
    if source.u64().await? == records { Ok(()) } else { Err(other_kind("records are missing")) }
}

/// A key may come twice, hence REPLACE.
fn restore(requests: &mut BytesMut, key: &[u8], expires: i64, payload: &[u8]) {
    if expires < 0 {
        request(requests, &[b"RESTORE", key, b"0", payload, b"REPLACE"]);
    } else {
        request(requests, &[b"RESTORE", key, expires.to_string().as_bytes(), payload, b"REPLACE", b"ABSTTL"]);
    }
}

async fn send(conversation: &mut Conversation, requests: &mut BytesMut, count: &mut usize) -> Result<(), LoadError> {
    for reply in conversation.ask_all(requests, *count).await? {
        if !reply.starts_with(b"+") {
            return Err(anyhow!("RESTORE was answered with {}", shorten(&reply)).into());
        }
    }
    // What one long value needed is not kept.
    *requests = BytesMut::new();
    *count = 0;
    Ok(())
}
