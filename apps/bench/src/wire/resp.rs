//! Redis' protocol, as far as the replies to these requests go.

use super::{KEY, Op, Step};

/// A command.
pub(super) fn request(op: Op, value: &str) -> Vec<u8> {
    let key = String::from_utf8_lossy(KEY).into_owned();
    match op {
        Op::Put => command(&["SET", &key, value]),
        Op::Get => command(&["GET", &key]),
        Op::Remove => command(&["DEL", &key]),
        Op::Size => command(&["DBSIZE"]),
    }
}

/// A command of these words.
fn command(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}

/// A command that is to be on a replica too before it counts.
pub(super) fn request_and_wait(op: Op, value: &str) -> Vec<u8> {
    [request(op, value), command(&["WAIT", "1", "5000"])].concat()
}

/// Both replies: the command's, and how many replicas have it.
pub(super) fn reply_and_wait(bytes: &[u8]) -> Step {
    let Some(first) = end(bytes) else { return Step::More };
    let Some(second) = end(&bytes[first..]) else { return Step::More };
    let kept = bytes[first] == b':' && bytes[first + 1] != b'0';
    Step::Reply { used: first + second, good: bytes[0] != b'-' && kept }
}

/// One line, or a text of a length that is said, or several of these.
pub(super) fn reply(bytes: &[u8]) -> Step {
    match end(bytes) {
        Some(used) => Step::Reply { used, good: bytes[0] != b'-' },
        None => Step::More,
    }
}

fn end(bytes: &[u8]) -> Option<usize> {
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let number = || std::str::from_utf8(&bytes[1..line]).ok().and_then(|text| text.trim_end().parse::<i64>().ok());
    match bytes[0] {
        b'$' => match number().and_then(|length| usize::try_from(length).ok()) {
            Some(length) => Some(line + length + 2).filter(|used| *used <= bytes.len()),
            // There is no such value.
            None => Some(line),
        },
        b'*' => {
            let mut used = line;
            for _ in 0..number().unwrap_or(0) {
                used += end(&bytes[used..])?;
            }
            Some(used)
        }
        _ => Some(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_no_replica_has_is_not_good() {
        assert_eq!(reply_and_wait(b"+OK\r\n"), Step::More);
        assert_eq!(reply_and_wait(b"+OK\r\n:2\r\n"), Step::Reply { used: 9, good: true });
        assert_eq!(reply_and_wait(b"+OK\r\n:0\r\n"), Step::Reply { used: 9, good: false });
    }

    #[test]
    fn replies_end_where_redis_ends_them() {
        for (text, used) in
            [("+OK\r\n", 5), (":12\r\n", 5), ("$-1\r\n", 5), ("$3\r\nabc\r\n", 9), ("*2\r\n:1\r\n+a\r\n", 12)]
        {
            assert_eq!(reply(text.as_bytes()), Step::Reply { used, good: true }, "{text:?}");
            assert_eq!(reply(format!("{text}+more\r\n").as_bytes()), Step::Reply { used, good: true }, "{text:?}");
            for cut in 0..text.len() {
                assert_eq!(reply(&text.as_bytes()[..cut]), Step::More, "{text:?} cut at {cut}");
            }
        }
        assert_eq!(reply(b"-LOCKSTEP no quorum\r\n"), Step::Reply { used: 21, good: false });
    }
}
