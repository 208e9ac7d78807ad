//! The sequential model: what one copy of the application, run alone in the agreed order, would answer.
//!
//! The simulated application runs the same few lines, so that every difference is the ordering's fault.

use bytes::Bytes;
use std::collections::BTreeMap;

/// Names one call of the workload; it is part of the request's bytes, so that no two calls are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One operation of the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Sets a key.
    Put(u64, u64),
    /// Reads a key.
    Get(u64),
    /// Removes a key.
    Remove(u64),
    /// Counts the entries.
    Size,
    /// Does nothing, where it is executed at all: applications hang or die on it.
    Poison(Poison),
}

/// Whose application a poisonous call harms, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poison {
    /// The application dies on it; else it hangs.
    pub kills: bool,
    /// This replica's, and only the first times; without one every replica's, for ever.
    pub victim: Option<u64>,
}

impl MapOp {
    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Get(_) | Self::Size)
    }

    /// The request's bytes: one line, filled up to at least `bytes` bytes.
    #[must_use]
    pub fn encode(&self, call: CallId, bytes: usize) -> Bytes {
        let mut line = match self {
            Self::Put(key, value) => format!("PUT {key} {value} #{}", call.0),
            Self::Get(key) => format!("GET {key} #{}", call.0),
            Self::Remove(key) => format!("REMOVE {key} #{}", call.0),
            Self::Size => format!("SIZE #{}", call.0),
            Self::Poison(Poison { kills, victim: None }) => format!("POISON {} #{}", u8::from(*kills), call.0),
            Self::Poison(Poison { kills, victim: Some(who) }) => {
                format!("POISON {} {who} #{}", u8::from(*kills), call.0)
            }
        };
        while line.len() < bytes {
            line.push(' ');
        }
        line.into()
    }

    /// What [`MapOp::encode`] made, and whose it is; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<(Self, CallId)> {
        let line = std::str::from_utf8(bytes).ok()?.trim_end();
        let (op, call) = line.split_once(" #")?;
        let mut words = op.split(' ');
        let verb = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let op = match verb {
            "PUT" => Self::Put(number()?, number()?),
            "GET" => Self::Get(number()?),
            "REMOVE" => Self::Remove(number()?),
            "SIZE" => Self::Size,
            "POISON" => Self::Poison(Poison { kills: number()? == 1, victim: number() }),
            _ => return None,
        };
        Some((op, CallId(call.parse().ok()?)))
    }
}

/// The map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store(pub BTreeMap<u64, u64>);

impl Store {
    /// Runs one request's bytes and returns the reply's.
    pub fn execute(&mut self, bytes: &[u8]) -> Bytes {
        let Some((op, _)) = MapOp::decode(bytes) else { return Bytes::from_static(b"ERR") };
        match op {
            MapOp::Put(key, value) => {
                self.0.insert(key, value);
                Bytes::from_static(b"OK")
            }
            MapOp::Get(key) => self.0.get(&key).map_or(Bytes::from_static(b"NIL"), |v| format!("VALUE {v}").into()),
            MapOp::Remove(key) => Bytes::from_static(if self.0.remove(&key).is_some() { b"OK" } else { b"NIL" }),
            MapOp::Size => self.0.len().to_string().into(),
            MapOp::Poison(_) => Bytes::from_static(b"OK"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_survive_their_encoding_and_keep_their_name() {
        let poison = |kills, victim| MapOp::Poison(Poison { kills, victim });
        let plain = [MapOp::Put(1, 2), MapOp::Get(3), MapOp::Remove(4), MapOp::Size];
        for op in plain.into_iter().chain([poison(true, None), poison(false, Some(2))]) {
            assert_eq!(MapOp::decode(&op.encode(CallId(7), 40)), Some((op, CallId(7))));
        }
        assert_eq!(MapOp::decode(b"PUT 1 #2"), None);
    }

    #[test]
    fn the_map_answers_like_a_map() {
        let mut store = Store::default();
        let mut run = |op: MapOp| store.execute(&op.encode(CallId(0), 0));
        assert_eq!(run(MapOp::Get(1)), "NIL");
        assert_eq!(run(MapOp::Put(1, 9)), "OK");
        assert_eq!(run(MapOp::Get(1)), "VALUE 9");
        assert_eq!(run(MapOp::Size), "1");
        assert_eq!(run(MapOp::Remove(1)), "OK");
        assert_eq!(run(MapOp::Remove(1)), "NIL");
    }
}
