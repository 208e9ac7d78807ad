//! The little of RESP2 that is needed to look after a Redis: requests are made, whole replies understood.

use super::conversation::Conversation;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Simple(Bytes),
    Error(Bytes),
    Integer(i64),
    /// `None`: no such thing.
    Bulk(Option<Bytes>),
    Array(Vec<Value>),
}

/// Appends a request of these words.
pub(super) fn request(to: &mut BytesMut, words: &[&[u8]]) {
    to.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        to.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

/// Asks; an error of the application is one here.
pub(super) async fn ask(conversation: &mut Conversation, words: &[&str]) -> anyhow::Result<Value> {
    let mut bytes = BytesMut::new();
    request(&mut bytes, &words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
    let reply = conversation.ask(&bytes.freeze()).await?;
    match parse(&reply)? {
        Value::Error(error) => bail!("{} was answered with {}", words.join(" "), shorten(&error)),
        value => Ok(value),
    }
}

/// Understands a whole reply.
pub(super) fn parse(reply: &Bytes) -> anyhow::Result<Value> {
    let mut at = 0;
    value(reply, &mut at, 0).with_context(|| format!("a reply was not understood: {}", shorten(reply)))
}

fn value(reply: &Bytes, at: &mut usize, depth: usize) -> Option<Value> {
    let kind = *reply.get(*at)?;
    let rest = reply.get(*at + 1..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = reply.slice_ref(&rest[..end]);
    *at += 1 + end + 2;
    let number = || std::str::from_utf8(&line).ok()?.parse::<i64>().ok();
    match kind {
        b'+' => Some(Value::Simple(line)),
        b'-' => Some(Value::Error(line)),
        b':' => number().map(Value::Integer),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Some(Value::Bulk(None)),
            Ok(length) => {
                let bytes = reply.get(*at..)?.get(..length)?;
                *at += length;
                reply.get(*at..)?.starts_with(b"\r\n").then_some(())?;
                *at += 2;
                Some(Value::Bulk(Some(reply.slice_ref(bytes))))
            }
        },
        // Nothing that is asked here is answered deeper.
        b'*' if depth < 4 => {
            let count = usize::try_from(number()?).unwrap_or(0);
            (0..count).map(|_| value(reply, at, depth + 1)).collect::<Option<_>>().map(Value::Array)
        }
        _ => None,
    }
}

/// The databases that have keys, with the number of each, as `INFO keyspace` says.
pub(super) async fn databases(conversation: &mut Conversation) -> anyhow::Result<Vec<(u32, u64)>> {
    let Value::Bulk(Some(info)) = ask(conversation, &["INFO", "keyspace"]).await? else {
        bail!("INFO keyspace was answered with something else than a text");
    };
    let text = String::from_utf8_lossy(&info);
    let lines = text.lines().filter_map(|line| line.strip_prefix("db"));
    lines
        .map(|line| {
            let (number, rest) = line.split_once(":keys=")?;
            let keys = rest.split(',').next()?;
            Some((number.parse().ok()?, keys.parse().ok()?))
        })
        .collect::<Option<_>>()
        .with_context(|| format!("INFO keyspace was not understood: {}", shorten(text.as_bytes())))
}

/// What people need to see of a reply.
pub(super) fn shorten(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim_end().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_understood() {
        let bulk = |text: &'static str| Value::Bulk(Some(Bytes::from_static(text.as_bytes())));
        let scan = Bytes::from_static(b"*2\r\n$1\r\n0\r\n*3\r\n$1\r\na\r\n$0\r\n\r\n$2\r\n\r\n\r\n");
        let keys = Value::Array(vec![bulk("a"), bulk(""), bulk("\r\n")]);
        assert_eq!(parse(&scan).expect("an array"), Value::Array(vec![bulk("0"), keys]));
        assert_eq!(parse(&Bytes::from_static(b"$-1\r\n")).expect("nil"), Value::Bulk(None));
        assert_eq!(parse(&Bytes::from_static(b":-2\r\n")).expect("a number"), Value::Integer(-2));
        for bad in ["", "$5\r\nabc\r\n", "*2\r\n:1\r\n", "?\r\n", ":x\r\n", "$9999999999999999999\r\n"] {
            assert!(parse(&Bytes::from_static(bad.as_bytes())).is_err(), "{bad:?}");
        }
    }
}
