//! Attacks that need no client's request as their occasion: floods, garbage, links that a SMaRtClient may not have.

use super::accomplices::Accomplices;
use super::behaviour::Behaviour;
use super::front::{OVERSIZE, TICK};
use super::malice::Malice;
use super::stranger::{Claim, Stranger};
use bytes::Bytes;
use mesh::ids::{ClientId, Generation, Seq, Slot};
use mesh::net::LinkKind;
use mesh::wire::submit::{Submit, ToServer};
use mesh::wire::{Body, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::interval;

/// Between two attempts at what is not a flood.
const PAUSE: Duration = Duration::from_millis(100);
/// Links to each server beside those that are needed.
const LINKS: usize = 64;
/// Streams to each server that are never ended.
const STREAMS: usize = 256;

/// Starts those that were ordered.
pub(super) fn start(malice: &Arc<Malice>, accomplices: &Accomplices, tasks: &mut JoinSet<()>) -> anyhow::Result<()> {
    let stranger = Arc::new(Stranger::new(malice)?);
    for &behaviour in Behaviour::ALL {
        if !malice.may(behaviour) {
            continue;
        }
        let (malice, accomplices, stranger) = (malice.clone(), accomplices.clone(), stranger.clone());
        match behaviour {
            Behaviour::FloodServers | Behaviour::FloodSessions => {
                tasks.spawn(flood(behaviour, malice, accomplices));
            }
            Behaviour::GarbageServers | Behaviour::OversizeServers => {
                tasks.spawn(shout(behaviour, malice, accomplices));
            }
            Behaviour::PeerAlpn => drop(tasks.spawn(knock(behaviour, Claim::kind(LinkKind::Peer), malice, stranger))),
            Behaviour::AdminAlpn => drop(tasks.spawn(knock(behaviour, Claim::kind(LinkKind::Admin), malice, stranger))),
            Behaviour::ClientAlpn => {
                tasks.spawn(knock(behaviour, Claim::kind(LinkKind::Client), malice, stranger));
            }
            Behaviour::ClaimRole => drop(tasks.spawn(knock(behaviour, Claim::Server, malice, stranger))),
            Behaviour::FloodStreams => {
                tasks.spawn(async move { stranger.hold(behaviour, 1, STREAMS).await });
            }
            Behaviour::FloodLinks => {
                tasks.spawn(async move { stranger.hold(behaviour, LINKS, 1).await });
            }
            // The others wait for a client's request.
            _ => {}
        }
    }
    Ok(())
}

/// So many requests a second that no client sent; what is answered is thrown away.
async fn flood(behaviour: Behaviour, malice: Arc<Malice>, accomplices: Accomplices) {
    let handful = malice.options.flood.div_ceil(100);
    let mut ticks = interval(TICK);
    loop {
        ticks.tick().await;
        for _ in 0..handful {
            if malice.wants(behaviour) {
                accomplices.submit(behaviour, one_of_many(behaviour, &malice), |_| None);
            }
        }
    }
}

fn one_of_many(behaviour: Behaviour, malice: &Malice) -> Request {
    let client = ClientId::unowned(malice.chance().next_u64().into());
    if behaviour == Behaviour::FloodSessions {
        return Request::open(client, 64, None);
    }
    let old = malice.recall(|memory, dice| memory.old_request(dice)).filter(|_| malice.chance().chance(500));
    let line = |length: usize| Bytes::from(format!("{}{}\n", malice.options.forged, "x".repeat(length)));
    old.unwrap_or_else(|| {
        let length = malice.chance().below(2000) as usize;
        Request {
            client,
            opened: Generation::FIRST.at(Slot(1)),
            seq: Seq(1),
            body: Body::Call(line(length)),
            proof: None,
        }
    })
}

/// Bytes that are no request, in several ways.
async fn shout(behaviour: Behaviour, malice: Arc<Malice>, accomplices: Accomplices) {
    let mut ticks = interval(PAUSE);
    loop {
        ticks.tick().await;
        if !malice.wants(behaviour) {
            continue;
        }
        let request = one_of_many(Behaviour::FloodServers, &malice);
        let good = mesh::wire::encode(&ToServer::Submit(Submit { request, whole: true, within_ms: 1_000 }));
        let way = malice.chance().below(4);
        let bytes = match way {
            _ if behaviour == Behaviour::OversizeServers => vec![0; OVERSIZE].into(),
            0 => Bytes::new(),
            1 => good.slice(..good.len() / 2),
            2 => [&good[..], b"more"].concat().into(),
            _ => malice.noise(500),
        };
        accomplices.shout(behaviour, bytes).await;
    }
}

/// Asks to be let in as somebody else, again and again.
async fn knock(behaviour: Behaviour, claim: Claim, malice: Arc<Malice>, stranger: Arc<Stranger>) {
    let mut ticks = interval(PAUSE * 3);
    loop {
        ticks.tick().await;
        if malice.wants(behaviour) {
            stranger.knock(behaviour, claim).await;
        }
    }
}
