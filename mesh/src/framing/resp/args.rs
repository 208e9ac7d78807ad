//! The arguments of a whole request.

use super::header;
use std::borrow::Cow;

/// The arguments of a whole request, the command's name first. Ends early at what is malformed: ask the scanner first.
#[derive(Clone, Debug)]
pub(super) enum Args<'a> {
    /// Of an array: read as they are asked for.
    Bulks {
        /// What follows.
        rest: &'a [u8],
        /// How many are still to come.
        left: i64,
    },
    /// Of an inline command.
    Words(std::vec::IntoIter<Vec<u8>>),
}

impl<'a> Args<'a> {
    /// Those of `request`.
    pub(super) fn of(request: &'a [u8]) -> Self {
        if request.first() == Some(&b'*') {
            return match header::number(request, 0, "") {
                Ok(Some((left, next))) => Self::Bulks { rest: &request[next..], left },
                _ => Self::Bulks { rest: &[], left: 0 },
            };
        }
        let line = request.strip_suffix(b"\n").unwrap_or(request);
        Self::Words(split(line).unwrap_or_default().into_iter())
    }

    /// How many are still to come.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bulks { left, .. } => usize::try_from(*left).unwrap_or(0),
            Self::Words(words) => words.len(),
        }
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = Cow<'a, [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Words(words) => words.next().map(Cow::Owned),
            Self::Bulks { rest, left } => {
                let bytes: &'a [u8] = rest;
                if *left <= 0 || bytes.first() != Some(&b'$') {
                    return None;
                }
                let (length, from) = header::number(bytes, 0, "").ok()??;
                let end = from.checked_add(usize::try_from(length).ok()?)?;
                let argument = bytes.get(from..end)?;
                *rest = bytes.get(end + 2..).unwrap_or_default();
                *left -= 1;
                Some(Cow::Borrowed(argument))
            }
        }
    }
}

/// The words of an inline command without its LF, with quotes and escapes as in Redis' `sdssplitargs`; `None` when a quote
/// is not closed or something follows a closing one.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = line;
    let mut words = Vec::new();
    loop {
        while let [first, tail @ ..] = rest
            && is_space(*first)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(words);
        }
        words.push(word(&mut rest)?);
    }
}

/// The word at the front; the blank after it is taken, too.
fn word(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut word = Vec::new();
    while let [first, tail @ ..] = *rest {
        *rest = tail;
        match first {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' => {
                double_quoted(rest, &mut word)?;
                return Some(word);
            }
            b'\'' => {
                single_quoted(rest, &mut word)?;
                return Some(word);
            }
            other => word.push(*other),
        }
    }
    Some(word)
}

/// The rest of a string in double quotes.
fn double_quoted(rest: &mut &[u8], word: &mut Vec<u8>) -> Option<()> {
    loop {
        match **rest {
            [b'\\', b'x', high, low, ref tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex(high) << 4 | hex(low));
                *rest = tail;
            }
            [b'\\', escaped, ref tail @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
                *rest = tail;
            }
            [b'"', ref tail @ ..] => {
                *rest = tail;
                return tail.first().is_none_or(|&next| is_space(next)).then_some(());
            }
            [other, ref tail @ ..] => {
                word.push(other);
                *rest = tail;
            }
            [] => return None,
        }
    }
}

/// The rest of a string in single quotes.
fn single_quoted(rest: &mut &[u8], word: &mut Vec<u8>) -> Option<()> {
    loop {
        match **rest {
            [b'\\', b'\'', ref tail @ ..] => {
                word.push(b'\'');
                *rest = tail;
            }
            [b'\'', ref tail @ ..] => {
                *rest = tail;
                return tail.first().is_none_or(|&next| is_space(next)).then_some(());
            }
            [other, ref tail @ ..] => {
                word.push(other);
                *rest = tail;
            }
            [] => return None,
        }
    }
}

/// C's `isspace`.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// The value of a hexadecimal digit.
const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_and_quoted_as_in_redis() {
        for (line, expected) in [
            (&b""[..], Some(vec![])),
            (b" \t ", Some(vec![])),
            (b"SET k  v\r", Some(vec![&b"SET"[..], b"k", b"v"])),
            (b"a \"b c\" d", Some(vec![b"a", b"b c", b"d"])),
            (b"\"\\x41\\n\\q\\\"\"", Some(vec![b"A\nq\""])),
            (b"\"\\xZ1\"", Some(vec![b"xZ1"])),
            (b"'a\\'b\\n'", Some(vec![b"a'b\\n"])),
            (b"\"\" ''", Some(vec![b"", b""])),
            (b"ab\"c d\"", Some(vec![b"abc d"])),
            (b"a\x0bb", Some(vec![b"a\x0bb"])),
            (b"\"a", None),
            (b"'a", None),
            (b"\"a\"b", None),
            (b"'a'b", None),
            (b"\"a\\", None),
        ] {
            let expected = expected.map(|words| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
            assert_eq!(split(line), expected, "{line:?}");
        }
    }

    #[test]
    fn both_spellings_of_a_request_have_the_same_arguments() {
        let array: Vec<_> = Args::of(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n").collect();
        let inline: Vec<_> = Args::of(b"SET k \"\"\r\n").collect();
        assert_eq!(array, inline);
        assert_eq!(Args::of(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n").len(), 3);
    }

    #[test]
    fn malformed_requests_have_no_arguments() {
        for bytes in [&b""[..], b"*", b"*2\r\n", b"*1\r\n$5\r\nab", b"*1\r\n$-1\r\n", b"*1\r\n:1\r\n", b"\"a\n"] {
            assert_eq!(Args::of(bytes).count(), 0, "{bytes:?}");
        }
    }
}
