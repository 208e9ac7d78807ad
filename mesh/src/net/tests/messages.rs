//! Messages, requests and answers; credit, bounds and lost peers.

use super::*;
use crate::net::outgoing::ABANDONED;
use bytes::Bytes;
use tokio::net::UdpSocket;

fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn number(message: &Bytes) -> u32 {
    u32::from_be_bytes(message[..].try_into().unwrap())
}

/// Receives `count` numbered messages, each exactly once.
async fn receive_all(link: &Link, count: u32) {
    let mut seen = vec![false; count as usize];
    for _ in 0..count {
        let message = soon("a message", link.receive()).await.unwrap();
        assert!(!std::mem::replace(&mut seen[number(&message) as usize], true), "twice: {message:?}");
    }
}

async fn send_all(link: &Link, count: u32) {
    for index in 0..count {
        soon("stream credit", link.send(numbered(index))).await.unwrap();
    }
}

#[tokio::test]
async fn ten_times_the_stream_limit_of_messages_goes_through_in_both_directions() {
    let pki = Pki::new();
    let (one, two, to_two, to_one) = linked_servers(&pki).await;
    let count = STREAMS * 10;
    tokio::join!(
        send_all(&to_two, count),
        send_all(&to_one, count),
        receive_all(&to_two, count),
        receive_all(&to_one, count)
    );
    for part in [&one, &two] {
        for direction in ["opened", "accepted"] {
            let name = format!("quic_streams_total{{direction=\"{direction}\",kind=\"peer\"}}");
            assert_eq!(part.metric(&name), u64::from(count), "{name}");
        }
    }
}

#[tokio::test]
async fn messages_of_any_size_up_to_the_bound_arrive_whole() {
    let pki = Pki::new();
    let (_one, _two, to_two, to_one) = linked_servers(&pki).await;
    for size in [0, 1, 1000, 1200, 5000, MESSAGE_BYTES] {
        let message = Bytes::from((0..size).map(|index| (index % 251) as u8).collect::<Vec<_>>());
        to_two.send(message.clone()).await.unwrap();
        assert_eq!(soon("a message", to_one.receive()).await.unwrap(), message);
    }
    let sent = to_two.send(Bytes::from(vec![0; MESSAGE_BYTES + 1])).await;
    assert!(matches!(sent, Err(NetError::TooLarge { limit: MESSAGE_BYTES, .. })));
}

#[tokio::test]
async fn oversized_messages_are_refused_and_the_link_lives_on() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let small = LinkLimits { message_bytes: 1000, ..limits() };
    let two = Part::with_limits(pki.issue(Role::Server, "2").load(), small);
    let (to_two, to_one) = join(&one, LinkKind::Peer, &two).await;
    let too_many = STREAMS * 10;
    let sending = async {
        for index in 0..too_many {
            // Whether the sender learns of it is a race; that it is not stuck is not.
            let size = 1001 + (index as usize * 800);
            let sent = soon("credit comes back", to_two.send(Bytes::from(vec![0; size.min(MESSAGE_BYTES)]))).await;
            assert!(matches!(sent, Ok(()) | Err(NetError::Abandoned(_))), "{sent:?}");
        }
        send_all(&to_two, STREAMS * 10).await;
    };
    tokio::join!(sending, receive_all(&to_one, STREAMS * 10));
    assert_eq!(two.metric("quic_oversized_messages_total{kind=\"peer\"}"), u64::from(too_many));
}

#[tokio::test]
async fn oversized_requests_and_answers_are_refused_and_the_link_lives_on() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let small = LinkLimits { message_bytes: 1000, ..limits() };
    let two = Part::with_limits(pki.issue(Role::Server, "2").load(), small);
    let (to_two, to_one) = join(&one, LinkKind::Peer, &two).await;
    let answering = async {
        loop {
            let Ok((request, responder)) = to_one.accept_ask().await else { return };
            let _ = responder.answer(request).await;
        }
    };
    let asking = async {
        for _ in 0..STREAMS * 3 {
            let answer = soon("an answer", to_two.ask(Bytes::from(vec![0; 20_000]))).await;
            assert!(matches!(answer, Err(NetError::Abandoned(_))), "{answer:?}");
        }
        assert_eq!(to_two.ask(numbered(7)).await.unwrap(), numbered(7));
        to_two.close("done");
    };
    tokio::join!(answering, asking);
    // The other way round: the one with the small bound asks.
    let (to_one, to_two) = join(&two, LinkKind::Peer, &one).await;
    let answering = async {
        let (_, responder) = to_two.accept_ask().await.unwrap();
        responder.answer(Bytes::from(vec![0; 2000])).await.unwrap();
    };
    let (answer, ()) = tokio::join!(to_one.ask(Bytes::new()), answering);
    assert!(matches!(answer, Err(NetError::AnswerTooLarge { limit: 1000 })), "{answer:?}");
}

#[tokio::test]
async fn a_message_that_hangs_does_not_hold_up_the_next() {
    let pki = Pki::new();
    let (_one, _two, to_two, to_one) = linked_servers(&pki).await;
    let mut slow = to_two.connection().open_uni().await.unwrap();
    slow.write_all(&[0, 0]).await.unwrap();
    to_two.send(numbered(1)).await.unwrap();
    assert_eq!(number(&soon("the second", to_one.receive()).await.unwrap()), 1);
    // A receiver that was interrupted in between has lost nothing.
    let interrupted = tokio::time::timeout(Duration::from_millis(20), to_one.receive()).await;
    assert!(interrupted.is_err());
    slow.write_all(&[0, 2]).await.unwrap();
    slow.finish().unwrap();
    assert_eq!(number(&soon("the first", to_one.receive()).await.unwrap()), 2);
}

#[tokio::test]
async fn what_is_half_received_is_bounded_over_all_streams() {
    let pki = Pki::new();
    let many = LinkLimits { message_bytes: 10_000, uni_streams: 64, bidi_streams: 1, max_age: LINK_MAX_AGE };
    let one = Part::with_limits(pki.issue(Role::Server, "1").load(), many.clone());
    let two = Part::with_limits(pki.issue(Role::Server, "2").load(), many);
    let (to_two, to_one) = join(&one, LinkKind::Peer, &two).await;
    let mut hanging = Vec::new();
    for _ in 0..30 {
        let mut stream = to_two.connection().open_uni().await.unwrap();
        stream.write_all(&[0; 9000]).await.unwrap();
        hanging.push(stream);
    }
    let refused = || two.metric("quic_oversized_messages_total{kind=\"peer\"}");
    let receiving = async { panic!("a message: {:?}", to_one.receive().await) };
    tokio::select! {
        () = receiving => {}
        // 6 messages' worth may hang: 6 streams of 9,000 bytes fit, 24 do not.
        () = eventually("the rest is refused", || refused() == 24) => {}
    }
    drop(hanging);
    to_two.send(numbered(1)).await.unwrap();
    while number_of_length_four(&to_one).await != Some(1) {}
}

/// The number of the next message, if it is one of ours (a dropped test stream ends like a message).
async fn number_of_length_four(link: &Link) -> Option<u32> {
    let message = soon("a message", link.receive()).await.unwrap();
    (message.len() == 4).then(|| number(&message))
}

#[tokio::test]
async fn a_send_that_is_dropped_half_way_delivers_nothing() {
    let pki = Pki::new();
    let huge = LinkLimits { message_bytes: 32 << 20, ..limits() };
    let one = Part::with_limits(pki.issue(Role::Server, "1").load(), huge.clone());
    let two = Part::with_limits(pki.issue(Role::Server, "2").load(), huge);
    let (to_two, to_one) = join(&one, LinkKind::Peer, &two).await;
    // Nobody receives yet, so these fill the link's window and the last one cannot be written whole.
    let message = Bytes::from(vec![0; 20 << 20]);
    let mut cut = 0;
    while tokio::time::timeout(Duration::from_millis(300), to_two.send(message.clone())).await.is_ok() {
        cut += 1;
        assert!(cut < 20, "the window never fills");
    }
    for _ in 0..cut {
        assert_eq!(soon("a whole message", to_one.receive()).await.unwrap().len(), message.len());
    }
    to_two.send(numbered(5)).await.unwrap();
    assert_eq!(number(&soon("the next", to_one.receive()).await.unwrap()), 5);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_costs_a_message_not_the_sender() {
    let pki = Pki::new();
    let (_one, _two, to_two, to_one) = linked_servers(&pki).await;
    for index in 0..STREAMS {
        to_two.send(numbered(index)).await.unwrap();
    }
    let stalled = soon("the time-out", to_two.send(numbered(99))).await;
    assert!(matches!(stalled, Err(NetError::Stalled)), "{stalled:?}");
    receive_all(&to_one, STREAMS).await;
    tokio::join!(send_all(&to_two, STREAMS * 10), receive_all(&to_one, STREAMS * 10));
}

#[tokio::test]
async fn every_request_gets_its_own_answer() {
    let pki = Pki::new();
    let server = Part::new(pki.issue(Role::Server, "0").load());
    let client = Part::new(pki.issue(Role::SmartClient, "a").load());
    let (link, served) = join(&client, LinkKind::Submit, &server).await;
    let answering = async {
        // In pairs and the second one first, so that an answer must find its own request.
        for _ in 0..STREAMS * 5 {
            let (first, to_first) = served.accept_ask().await.unwrap();
            let (second, to_second) = served.accept_ask().await.unwrap();
            to_second.answer(second).await.unwrap();
            to_first.answer(first).await.unwrap();
        }
    };
    let asking = async {
        for index in 0..STREAMS * 5 {
            let (even, odd) = tokio::join!(link.ask(numbered(2 * index)), link.ask(numbered(2 * index + 1)));
            assert_eq!((number(&even.unwrap()), number(&odd.unwrap())), (2 * index, 2 * index + 1));
        }
    };
    soon("all answers", async { tokio::join!(answering, asking) }).await;
}

#[tokio::test]
async fn an_empty_answer_is_an_answer_and_a_dropped_responder_is_none() {
    let pki = Pki::new();
    let (_one, _two, to_two, to_one) = linked_servers(&pki).await;
    let answering = async {
        let (request, responder) = to_one.accept_ask().await.unwrap();
        assert_eq!(request, Bytes::new());
        responder.answer(Bytes::new()).await.unwrap();
        drop(to_one.accept_ask().await.unwrap());
    };
    let asking = async {
        assert_eq!(to_two.ask(Bytes::new()).await.unwrap(), Bytes::new());
        let dropped = to_two.ask(numbered(1)).await;
        assert!(matches!(dropped, Err(NetError::Abandoned(code)) if code == ABANDONED.into_inner()), "{dropped:?}");
    };
    soon("both", async { tokio::join!(answering, asking) }).await;
}

#[tokio::test]
async fn a_responder_learns_that_the_asker_gave_up() {
    let pki = Pki::new();
    let (_one, _two, to_two, to_one) = linked_servers(&pki).await;
    let asking = {
        let link = to_two.clone();
        tokio::spawn(async move { link.ask(numbered(1)).await })
    };
    let (_, mut responder) = soon("the request", to_one.accept_ask()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), responder.gone()).await;
    assert!(early.is_err(), "gone, but the asker still waits");
    asking.abort();
    soon("gone", responder.gone()).await;
    assert!(responder.answer(numbered(1)).await.is_err());
}

#[tokio::test]
async fn a_responder_learns_that_the_link_is_gone() {
    let pki = Pki::new();
    let (_one, _two, to_two, to_one) = linked_servers(&pki).await;
    let asking = {
        let link = to_two.clone();
        tokio::spawn(async move { link.ask(numbered(1)).await })
    };
    let (_, mut responder) = soon("the request", to_one.accept_ask()).await.unwrap();
    to_two.close("the end");
    soon("gone", responder.gone()).await;
    assert!(matches!(asking.await.unwrap(), Err(NetError::Gone(_))));
    assert!(to_one.closed().await.contains("the end"));
}

#[tokio::test]
async fn the_peers_of_a_closed_endpoint_are_told() {
    let pki = Pki::new();
    let (one, _two, to_two, to_one) = linked_servers(&pki).await;
    one.endpoint.close().await;
    assert!(soon("closed", to_one.closed()).await.contains("process ends"));
    assert!(matches!(to_one.receive().await, Err(NetError::Gone(_))));
    assert!(matches!(to_two.send(numbered(0)).await, Err(NetError::Gone(_))));
    assert!(soon("no further link", one.endpoint.accept()).await.is_none());
}

#[tokio::test]
async fn dropping_an_endpoint_ends_its_links() {
    let pki = Pki::new();
    let (one, _two, _to_two, to_one) = linked_servers(&pki).await;
    drop(one);
    assert!(soon("closed", to_one.closed()).await.contains("process ends"));
}

/// A link through a relay that can be cut without a word.
async fn relay(to: SocketAddr) -> (SocketAddr, tokio::task::AbortHandle) {
    let (front, back) = (UdpSocket::bind(loopback()).await.unwrap(), UdpSocket::bind(loopback()).await.unwrap());
    let address = front.local_addr().unwrap();
    back.connect(to).await.unwrap();
    let task = tokio::spawn(async move {
        let (mut there, mut here) = (vec![0; 65536], vec![0; 65536]);
        let mut from = None;
        loop {
            tokio::select! {
                Ok((length, sender)) = front.recv_from(&mut there) => {
                    from = Some(sender);
                    let _ = back.send(&there[..length]).await;
                }
                Ok(length) = back.recv(&mut here) => {
                    if let Some(sender) = from {
                        let _ = front.send_to(&here[..length], sender).await;
                    }
                }
            }
        }
    });
    (address, task.abort_handle())
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let pki = Pki::new();
    let one = Part::new(pki.issue(Role::Server, "1").load());
    let two = Part::new(pki.issue(Role::Server, "2").load());
    let (address, wire) = relay(two.endpoint.local_addr()).await;
    let address = address.to_string();
    let (dialled, accepted) =
        tokio::join!(one.endpoint.dial(LinkKind::Peer, &address, Some("2")), two.endpoint.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    dialled.send(numbered(1)).await.unwrap();
    assert_eq!(number(&accepted.receive().await.unwrap()), 1);
    wire.abort();
    assert!(soon("closed", dialled.closed()).await.contains("silent"));
    assert!(soon("closed", accepted.closed()).await.contains("silent"));
    assert!(matches!(accepted.receive().await, Err(NetError::Gone(_))));
}

#[tokio::test]
async fn an_idle_link_stays_and_its_round_trip_is_sampled() {
    let pki = Pki::new();
    let (one, _two, to_two, to_one) = linked_servers(&pki).await;
    eventually("five samples, longer than silence may last", || one.metric("quic_rtt_seconds_count") >= 5).await;
    to_two.send(numbered(1)).await.unwrap();
    assert_eq!(number(&to_one.receive().await.unwrap()), 1);
    assert!(to_two.rtt() > Duration::ZERO);
}
