//! etcd's version 3: gRPC over HTTP/2 (RFC 9113), one call at a time. Requests need three kinds of frames and no state but
//! the stream's number. Of the replies only the frames are read, never their headers: a call that failed has no message
//! (gRPC over HTTP/2, "Responses": Trailers-Only).

use super::{KEY, Op, Step};

/// Largest frame that everybody takes.
const FRAME_MAX: usize = 16_384;
/// Bytes of a frame's head.
const HEAD: usize = 9;
/// After so many bytes the other end is told that there is room again; it may send 2 GiB without.
const ROOM_AGAIN: u32 = 1 << 20;
/// The most that a window may be.
const WINDOW: u32 = (1 << 31) - 1;
/// What a window is unless told otherwise.
const WINDOW_DEFAULT: u32 = 65_535;

/// Kinds of frames.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RESET: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const WINDOW_UPDATE: u8 = 8;
}
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What a connection remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    calls: u32,
    /// The current call got a message.
    message: bool,
    /// The other end said its settings.
    pub(super) ready: bool,
    /// Bytes for which no room was made again.
    received: u32,
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    // Streams other than 0 are written in later.
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
}

/// What a client says first.
pub(super) fn hello(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    // No pushes; each stream may have as much as it likes.
    let settings = [&[0, 2, 0, 0, 0, 0][..], &[0, 4], &WINDOW.to_be_bytes()].concat();
    out.extend_from_slice(&frame(kind::SETTINGS, 0, &settings));
    out.extend_from_slice(&frame(kind::WINDOW_UPDATE, 0, &(WINDOW - WINDOW_DEFAULT).to_be_bytes()));
}

/// A call on stream 0: [`number`] gives it its own.
pub(super) fn request(op: Op, value: &str) -> Vec<u8> {
    let (method, message) = match op {
        Op::Put => ("Put", [field(1, KEY), field(2, value.as_bytes())].concat()),
        Op::Get => ("Range", field(1, KEY)),
        Op::Remove => ("DeleteRange", field(1, KEY)),
        // From the first key on, all of them, and only their number.
        Op::Size => ("Range", [field(1, b"\0"), field(2, b"\0"), vec![9 << 3, 1]].concat()),
    };
    let mut bytes = frame(kind::HEADERS, END_HEADERS, &headers(&format!("/etcdserverpb.KV/{method}")));
    let length = (message.len() as u32).to_be_bytes();
    let body = [&[0][..], &length, &message].concat();
    let mut parts = body.chunks(FRAME_MAX).peekable();
    while let Some(part) = parts.next() {
        bytes.extend_from_slice(&frame(kind::DATA, if parts.peek().is_none() { END_STREAM } else { 0 }, part));
    }
    bytes
}

/// HPACK (RFC 7541) without a table of one's own: POST and http are in everybody's, the rest is written out.
fn headers(path: &str) -> Vec<u8> {
    const POST: u8 = 0x83;
    const HTTP: u8 = 0x86;
    let mut block = vec![POST, HTTP];
    let mut text = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        // All are shorter than 127 bytes.
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    };
    text(&[4], path);
    text(&[1], "127.0.0.1");
    text(&[0x0f, 31 - 15], "application/grpc");
    text(&[0, 2, b't', b'e'], "trailers");
    block
}

/// A field of a protobuf message: bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

impl State {
    /// Gives the call that begins at `start` its stream.
    pub(super) fn number(&mut self, out: &mut [u8]) {
        let stream = (2 * self.calls + 1).to_be_bytes();
        self.calls += 1;
        let mut at = 0;
        while at + HEAD <= out.len() {
            out[at + 5..at + HEAD].copy_from_slice(&stream);
            at += HEAD + payload_bytes(&out[at..]);
        }
    }

    /// The next frame; what has to be said to it is appended to `out`.
    pub(super) fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        if bytes.len() < HEAD {
            return Step::More;
        }
        let used = HEAD + payload_bytes(bytes);
        let Some(payload) = bytes.get(HEAD..used) else { return Step::More };
        let (kind, flags) = (bytes[3], bytes[4]);
        match kind {
            kind::DATA => {
                self.message |= !payload.is_empty();
                self.received += payload.len() as u32;
                if self.received > ROOM_AGAIN {
                    out.extend_from_slice(&frame(kind::WINDOW_UPDATE, 0, &self.received.to_be_bytes()));
                    self.received = 0;
                }
            }
            kind::HEADERS if flags & END_STREAM != 0 => {
                return Step::Reply { used, good: std::mem::take(&mut self.message) };
            }
            kind::RESET => {
                self.message = false;
                return Step::Reply { used, good: false };
            }
            kind::SETTINGS if flags & ACK == 0 => {
                self.ready = true;
                out.extend_from_slice(&frame(kind::SETTINGS, ACK, &[]));
            }
            kind::PING if flags & ACK == 0 => out.extend_from_slice(&frame(kind::PING, ACK, payload)),
            _ => {}
        }
        Step::Other { used }
    }
}

fn payload_bytes(head: &[u8]) -> usize {
    u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_two_frames_on_a_stream_of_its_own() {
        let mut call = request(Op::Put, "xyz");
        let mut state = State { calls: 2, ..State::default() };
        state.number(&mut call);
        let headers = payload_bytes(&call);
        assert_eq!(&call[3..HEAD], [kind::HEADERS, END_HEADERS, 0, 0, 0, 5]);
        let data = &call[HEAD + headers..];
        assert_eq!(&data[3..HEAD], [kind::DATA, END_STREAM, 0, 0, 0, 5]);
        // A message of 15 bytes that is not compressed: field 1 of 8 bytes, field 2 of 3.
        assert_eq!(&data[HEAD..], b"\0\0\0\0\x0f\x0a\x08k#######\x12\x03xyz");
        state.number(&mut call);
        assert_eq!(call[8], 7, "streams of a client have odd numbers");
    }

    #[test]
    fn headers_are_written_as_hpack_has_them() {
        let block = headers("/p");
        assert!(block.starts_with(b"\x83\x86\x04\x02/p\x01\x09127.0.0.1\x0f\x10\x10application/grpc"), "{block:?}");
        assert!(block.ends_with(b"\0\x02te\x08trailers"));
    }

    #[test]
    fn a_long_length_is_written_in_groups_of_seven_bits() {
        assert_eq!(field(2, &[0; 300])[..3], [0x12, 0xac, 0x02]);
        let long = request(Op::Put, &"x".repeat(20_000));
        let data = &long[HEAD + payload_bytes(&long)..];
        assert_eq!((payload_bytes(data), data[4]), (FRAME_MAX, 0), "the first of two frames");
    }

    #[test]
    fn a_call_is_answered_by_its_message_and_its_trailers() {
        let (mut state, mut out) = (State::default(), Vec::new());
        let stream = [
            frame(kind::SETTINGS, 0, &[]),
            frame(kind::HEADERS, END_HEADERS, b"head"),
            frame(kind::DATA, 0, b"\0\0\0\0\x01m"),
            frame(kind::HEADERS, END_HEADERS | END_STREAM, b"trailers"),
        ]
        .concat();
        let mut at = 0;
        let mut steps = Vec::new();
        while at < stream.len() {
            match state.hear(&stream[at..], &mut out) {
                Step::More => panic!("all of it is there"),
                Step::Other { used } => at += used,
                Step::Reply { used, good } => {
                    at += used;
                    steps.push(good);
                }
            }
        }
        assert_eq!((steps, at), (vec![true], stream.len()));
        assert!(state.ready);
        assert_eq!(out, frame(kind::SETTINGS, ACK, &[]), "settings are confirmed");
        let failed = frame(kind::HEADERS, END_HEADERS | END_STREAM, b"grpc-status 14");
        assert!(matches!(state.hear(&failed, &mut out), Step::Reply { good: false, .. }), "no message: it failed");
        assert_eq!(state.hear(&failed[..12], &mut out), Step::More);
    }

    #[test]
    fn pings_are_answered_and_room_is_made_again() {
        let (mut state, mut out) = (State::default(), Vec::new());
        state.hear(&frame(kind::PING, 0, b"12345678"), &mut out);
        assert_eq!(out, frame(kind::PING, ACK, b"12345678"));
        out.clear();
        for _ in 0..70 {
            state.hear(&frame(kind::DATA, 0, &[0; FRAME_MAX]), &mut out);
        }
        assert_eq!(out.len(), HEAD + 4, "once after each MiB");
    }
}
