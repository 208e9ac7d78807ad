//! The map and its requests: bytes of a line in, bytes of a reply out. Deterministic: no clock, no chance, a fixed order.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The state of the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    entries: BTreeMap<String, String>,
}

/// One request, understood.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Put { key: &'a str, value: &'a str },
    Get { key: &'a str },
    Remove { key: &'a str },
    Size,
    Dump { after: Option<&'a str>, limit: usize },
    Load { pairs: Vec<(String, String)> },
}

impl Map {
    /// Executes the request of `line` (without its line end) and appends the reply, a line with its end, to `reply`.
    pub fn execute(&mut self, line: &[u8], reply: &mut Vec<u8>) {
        match parse(line) {
            Ok(request) => self.apply(request, reply),
            Err(reason) => put(reply, &["ERR ", &reason]),
        }
        reply.push(b'\n');
    }

    fn apply(&mut self, request: Request<'_>, reply: &mut Vec<u8>) {
        match request {
            Request::Put { key, value } => {
                self.entries.insert(key.to_owned(), value.to_owned());
                put(reply, &["OK"]);
            }
            Request::Get { key } => match self.entries.get(key) {
                Some(value) => put(reply, &["VALUE ", value]),
                None => put(reply, &["NIL"]),
            },
            Request::Remove { key } => put(reply, &[if self.entries.remove(key).is_some() { "OK" } else { "NIL" }]),
            Request::Size => put(reply, &[&self.entries.len().to_string()]),
            Request::Dump { after, limit } => self.dump(after, limit, reply),
            Request::Load { pairs } => {
                self.entries.extend(pairs);
                put(reply, &["OK"]);
            }
        }
    }

    fn dump(&self, after: Option<&str>, limit: usize, reply: &mut Vec<u8>) {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        put(reply, &["ENTRIES ["]);
        for (index, pair) in self.entries.range::<str, _>((start, Bound::Unbounded)).take(limit).enumerate() {
            if index > 0 {
                reply.push(b',');
            }
            serde_json::to_writer(&mut *reply, &pair).expect("strings are always JSON, and a Vec takes any bytes");
        }
        reply.push(b']');
    }
}

fn put(reply: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        reply.extend_from_slice(part.as_bytes());
    }
}

fn parse(line: &[u8]) -> Result<Request<'_>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let (word, rest) = line.split_once(' ').map_or((line, None), |(word, rest)| (word, Some(rest)));
    match (word, rest) {
        ("PUT", Some(rest)) => {
            let (key, value) = rest.split_once(' ').ok_or("usage: PUT key value")?;
            Ok(Request::Put { key: key_of(key)?, value })
        }
        ("PUT", None) => Err("usage: PUT key value".to_owned()),
        ("GET", key) => Ok(Request::Get { key: key_of(key.unwrap_or_default())? }),
        ("REMOVE", key) => Ok(Request::Remove { key: key_of(key.unwrap_or_default())? }),
        ("SIZE", None) => Ok(Request::Size),
        ("SIZE", Some(_)) => Err("usage: SIZE".to_owned()),
        ("DUMP", rest) => dump_of(rest),
        ("LOAD", Some(json)) => Ok(Request::Load { pairs: pairs_of(json)? }),
        ("LOAD", None) => Err("usage: LOAD [[\"key\",\"value\"],…]".to_owned()),
        _ => Err("unknown request: PUT, GET, REMOVE, SIZE, DUMP and LOAD are known".to_owned()),
    }
}

fn key_of(key: &str) -> Result<&str, String> {
    if key.is_empty() {
        Err("the key is missing".to_owned())
    } else if key.contains(' ') {
        Err("a key has no spaces".to_owned())
    } else {
        Ok(key)
    }
}

fn dump_of(rest: Option<&str>) -> Result<Request<'_>, String> {
    let usage = "usage: DUMP [AFTER key] [LIMIT n]";
    let mut words = rest.map(|rest| rest.split(' ')).into_iter().flatten().peekable();
    let after = match words.next_if_eq(&"AFTER") {
        Some(_) => Some(key_of(words.next().ok_or(usage)?)?),
        None => None,
    };
    let limit = match words.next_if_eq(&"LIMIT") {
        Some(_) => words.next().and_then(|limit| limit.parse().ok()).ok_or(usage)?,
        None => usize::MAX,
    };
    if words.next().is_some() { Err(usage.to_owned()) } else { Ok(Request::Dump { after, limit }) }
}

/// All pairs or none: what a line could not hold does not come in this way either.
fn pairs_of(json: &str) -> Result<Vec<(String, String)>, String> {
    let pairs: Vec<(String, String)> =
        serde_json::from_str(json).map_err(|error| format!("not a JSON array of pairs of strings: {error}"))?;
    for (key, value) in &pairs {
        key_of(key)?;
        if key.contains('\n') || value.contains('\n') {
            return Err("keys and values have no line ends".to_owned());
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(map: &mut Map, line: &str) -> String {
        let mut reply = Vec::new();
        map.execute(line.as_bytes(), &mut reply);
        String::from_utf8(reply).expect("replies are UTF-8")
    }

    #[test]
    fn entries_are_put_got_counted_and_removed() {
        let mut map = Map::default();
        for (line, reply) in [
            ("GET a", "NIL\n"),
            ("PUT a one two ", "OK\n"),
            ("GET a", "VALUE one two \n"),
            ("PUT a ", "OK\n"),
            ("GET a", "VALUE \n"),
            ("SIZE", "1\n"),
            ("REMOVE a", "OK\n"),
            ("REMOVE a", "NIL\n"),
            ("SIZE", "0\n"),
        ] {
            assert_eq!(ask(&mut map, line), reply, "{line}");
        }
    }

    #[test]
    fn anything_else_is_an_error_and_changes_nothing() {
        let mut map = Map::default();
        let bad = [
            "",
            "PUT",
            "PUT a",
            "PUT  v",
            "GET",
            "GET a b",
            "get a",
            "SIZE 1",
            "DUMP LIMIT",
            "DUMP LIMIT x",
            "DUMP AFTER",
        ];
        let loads =
            ["LOAD", "LOAD [", "LOAD [[\"a\"]]", "LOAD [[\"a b\",\"c\"]]", "LOAD [[\"a\",\"1\"],[\"b\",\"x\\ny\"]]"];
        for line in bad.into_iter().chain(loads).chain(["DUMP LIMIT 1 AFTER a"]) {
            assert!(ask(&mut map, line).starts_with("ERR "), "{line}");
        }
        let mut reply = Vec::new();
        map.execute(b"PUT a \xff", &mut reply);
        assert_eq!(reply, b"ERR not UTF-8\n");
        assert_eq!(map, Map::default());
    }

    #[test]
    fn a_dump_comes_in_key_order_and_in_pages() {
        let mut map = Map::default();
        for line in ["PUT b 2", "PUT a 1 \"quoted\"", "PUT c 3", "PUT ä 4"] {
            ask(&mut map, line);
        }
        assert_eq!(ask(&mut map, "DUMP LIMIT 2"), "ENTRIES [[\"a\",\"1 \\\"quoted\\\"\"],[\"b\",\"2\"]]\n");
        assert_eq!(ask(&mut map, "DUMP AFTER b LIMIT 1"), "ENTRIES [[\"c\",\"3\"]]\n");
        assert_eq!(ask(&mut map, "DUMP AFTER c"), "ENTRIES [[\"ä\",\"4\"]]\n");
        assert_eq!(ask(&mut map, "DUMP AFTER ä"), "ENTRIES []\n");
    }

    #[test]
    fn a_load_of_a_dump_makes_the_same_map() {
        let (mut map, mut copy) = (Map::default(), Map::default());
        for line in ["PUT b \u{1}\r", "PUT a \\ \"", "PUT c "] {
            ask(&mut map, line);
        }
        let dump = ask(&mut map, "DUMP");
        let json = dump.trim_end().strip_prefix("ENTRIES ").expect("a dump");
        assert_eq!(ask(&mut copy, &format!("LOAD {json}")), "OK\n");
        assert_eq!(map, copy);
    }
}
