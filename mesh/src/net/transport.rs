//! Quinn's transport parameters. Its defaults are for the internet at large; these are for a cluster.

use super::LinkLimits;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::time::Duration;

/// Between two signs of life on an idle link: two fit into [`IDLE_TIMEOUT`], and one that is lost is sent again long
/// before, so that single losses do not end it.
const KEEP_ALIVE: Duration = Duration::from_millis(1_500);

/// Silence after which a link is given up: how long the links of a killed process look alive. Elections do not wait
/// for it (they have heartbeats); shorter would end links during pauses of a busy machine.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// The round trip assumed before one was measured. Quinn's 333 ms would make a lost first packet cost a second; too
/// small only costs a needless retransmission per handshake.
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// The largest packet that is tried, where a network has large frames, or there is none: a large request costs a third
/// less. Ten of them, which quinn hands to the kernel at once, are just below what that takes.
pub(super) const PACKET_BYTES_MAX: u16 = 6_500;

/// Whole messages of the largest size that may be under way at once, unread: bounds a link's receive window.
const WINDOW_MESSAGES: u64 = 2;

/// The least window, so that small message bounds do not make long links slow (8 MiB is 80 ms at 100 MB/s).
const WINDOW_BYTES_MIN: u64 = 8 << 20;

/// The transport of the links that are dialled. They show life: the other end sees it, and answers.
pub(super) fn dialled(limits: &LinkLimits) -> TransportConfig {
    let mut config = accepted(limits);
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config
}

/// The transport of the links that are accepted.
pub(super) fn accepted(limits: &LinkLimits) -> TransportConfig {
    let message = limits.message_bytes as u64;
    let window = (message * WINDOW_MESSAGES).max(WINDOW_BYTES_MIN);
    let mut packets = MtuDiscoveryConfig::default();
    packets.upper_bound(PACKET_BYTES_MAX);
    let mut config = TransportConfig::default();
    config
        .mtu_discovery_config(Some(packets))
        // Just above what is in flight: quinn keeps state per *permitted* stream (4096 costs a fifth of the
        // throughput of 256), and an exhausted credit is the back-pressure that we want.
        .max_concurrent_uni_streams(VarInt::from_u32(limits.uni_streams.max(1)))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.bidi_streams))
        // One message never waits for its own window; all together are bounded.
        .stream_receive_window(bytes(message.max(64 << 10)))
        .receive_window(bytes(window))
        .send_window(window)
        // In order of creation: interleaving would finish all large messages last and have many half-received.
        .send_fairness(false)
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .initial_rtt(INITIAL_RTT)
        .datagram_receive_buffer_size(None)
        // Measured: without it a quorum of three loses a tenth to a quarter of its throughput.
        .enable_segmentation_offload(true);
    config
}

fn bytes(count: u64) -> VarInt {
    VarInt::from_u64(count).unwrap_or(VarInt::MAX)
}
