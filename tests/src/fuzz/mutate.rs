//! Changes to an input: small, blind ones, and such as decoders are afraid of (lengths, boundary values, repetitions).

use mesh::rng::Rng;

/// Numbers at which something may go wrong.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x3fff,
    0x4000,
    0xffff,
    0x1_0000,
    0x1f_ffff,
    1 << 24,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

/// Changes `input` in one to six ways. `other` is another input, to take pieces of.
pub fn mutate(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], longest: usize) {
    for _ in 0..=rng.below(6) {
        one(rng, input, other, words);
        if rng.chance(300) {
            break;
        }
    }
    input.truncate(longest);
}

fn one(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    match rng.below(14) {
        0 => flip(rng, input),
        1 => set_byte(rng, input),
        2 => {
            let at = place(rng, input.len());
            input.truncate(at);
        }
        3 => delete(rng, input),
        4 => duplicate(rng, input),
        5 => splice(rng, input, other),
        6 => put_varint(rng, input),
        7 => put_fixed(rng, input),
        8 => put_decimal(rng, input),
        9 if !words.is_empty() => put_word(rng, input, words),
        10 => {
            let more: Vec<u8> = (0..=rng.below(8)).map(|_| rng.next_u64() as u8).collect();
            let at = place(rng, input.len());
            input.splice(at..at, more);
        }
        11 => swap(rng, input),
        12 => nudge(rng, input),
        _ => flip(rng, input),
    }
}

/// A place in so many bytes, their end included.
fn place(rng: &mut Rng, length: usize) -> usize {
    // Often at the front, where headers are.
    let most = if rng.chance(300) { length.min(24) } else { length };
    rng.below(most as u64 + 1) as usize
}

/// A piece of so many bytes.
fn piece(rng: &mut Rng, length: usize) -> std::ops::Range<usize> {
    let from = place(rng, length);
    let longest = if rng.chance(700) { 16 } else { length };
    let to = from + rng.below((length - from).min(longest) as u64 + 1) as usize;
    from..to
}

fn flip(rng: &mut Rng, input: &mut [u8]) {
    let at = place(rng, input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}

fn set_byte(rng: &mut Rng, input: &mut [u8]) {
    let at = place(rng, input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte = *rng.choose(&[0, 1, 2, 0x7f, 0x80, 0xff, b'0', b'9', b'\r', b'\n', b' ', b'-']).unwrap_or(&0);
    }
}

/// One more or less: lengths that nearly fit.
fn nudge(rng: &mut Rng, input: &mut [u8]) {
    let at = place(rng, input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte = byte.wrapping_add(if rng.chance(500) { 1 } else { 0xff });
    }
}

fn delete(rng: &mut Rng, input: &mut Vec<u8>) {
    let piece = piece(rng, input.len());
    input.drain(piece);
}

fn duplicate(rng: &mut Rng, input: &mut Vec<u8>) {
    let piece = piece(rng, input.len());
    let copy = input[piece.clone()].to_vec();
    for _ in 0..=rng.below(3) {
        input.splice(piece.end..piece.end, copy.iter().copied());
    }
    if rng.chance(20) {
        // Many: what is linear must stay so.
        let many = copy.repeat(rng.below(200) as usize);
        input.splice(piece.end..piece.end, many);
    }
}

fn swap(rng: &mut Rng, input: &mut Vec<u8>) {
    let piece = piece(rng, input.len());
    let taken: Vec<u8> = input.drain(piece).collect();
    let at = place(rng, input.len());
    input.splice(at..at, taken);
}

fn splice(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let from = piece(rng, other.len());
    let at = if rng.chance(500) {
        piece(rng, input.len())
    } else {
        let at = place(rng, input.len());
        at..at
    };
    input.splice(at, other[from].iter().copied());
}

fn number(rng: &mut Rng) -> u64 {
    let number = *rng.choose(&NUMBERS).unwrap_or(&0);
    match rng.below(4) {
        0 => number.wrapping_sub(1),
        1 => number.wrapping_add(1),
        _ => number,
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Puts a number in the place of one of variable length.
fn put_varint(rng: &mut Rng, input: &mut Vec<u8>) {
    let from = place(rng, input.len());
    let rest = &input[from..];
    let length = rest.iter().take(9).take_while(|byte| **byte >= 0x80).count() + 1;
    let to = from + length.min(rest.len());
    let number = if rng.chance(300) { input.len() as u64 } else { number(rng) };
    input.splice(from..to, varint(number));
}

/// Puts a number in the place of one of fixed length, in either order of bytes.
fn put_fixed(rng: &mut Rng, input: &mut Vec<u8>) {
    let from = place(rng, input.len());
    let width = *rng.choose(&[1_usize, 2, 4, 8]).unwrap_or(&4);
    let number = if rng.chance(300) { input.len() as u64 } else { number(rng) };
    let bytes = if rng.chance(500) {
        number.to_be_bytes()[8 - width..].to_vec()
    } else {
        number.to_le_bytes()[..width].to_vec()
    };
    let to = (from + width).min(input.len());
    input.splice(from..to, bytes);
}

/// Puts a number in the place of one in digits, or anywhere if there is none.
fn put_decimal(rng: &mut Rng, input: &mut Vec<u8>) {
    let start = place(rng, input.len());
    let found = input[start..].iter().position(u8::is_ascii_digit).map_or(start, |offset| start + offset);
    let digits = input[found..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = number(rng);
    let text = match rng.below(8) {
        0 => format!("-{number}"),
        1 => format!("00{number}"),
        2 => format!("{number:x}"),
        3 => format!("{number}{number}"),
        4 => "99999999999999999999999999999999".to_owned(),
        _ => number.to_string(),
    };
    input.splice(found..found + digits, text.into_bytes());
}

fn put_word(rng: &mut Rng, input: &mut Vec<u8>, words: &[&[u8]]) {
    let word = rng.choose(words).copied().unwrap_or_default();
    let from = place(rng, input.len());
    let to = if rng.chance(500) { from } else { (from + word.len()).min(input.len()) };
    input.splice(from..to, word.iter().copied());
}
