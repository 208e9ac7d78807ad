//! The servers' signing certificates, relayed to those who check replies. Nothing is checked here: nobody would believe
//! it.

use bytes::Bytes;
use mesh::auth::CERTIFICATE_BYTES_MAX;
use mesh::ids::ReplicaId;
use mesh::wire::client::FromSmartClient;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::watch;

/// Certificates of one server that are kept: the one in use, its successor, and those of replies under way.
const KEPT: usize = 4;

/// The certificates, and the message that shows them. A link that is slow is sent the newest message only.
#[derive(Debug)]
pub(super) struct Signers {
    known: BTreeMap<ReplicaId, VecDeque<Bytes>>,
    message: watch::Sender<Bytes>,
}

impl Signers {
    /// None yet. The message is empty as long as nobody signs.
    pub(super) fn new() -> (Self, watch::Receiver<Bytes>) {
        let (message, shown) = watch::channel(Bytes::new());
        (Self { known: BTreeMap::new(), message }, shown)
    }

    /// A server shows a certificate. False if it cannot be one.
    pub(super) fn show(&mut self, server: ReplicaId, certificate: Bytes) -> bool {
        if certificate.is_empty() || certificate.len() > CERTIFICATE_BYTES_MAX {
            return false;
        }
        let known = self.known.entry(server).or_default();
        if let Some(place) = known.iter().position(|known| *known == certificate) {
            // Shown again, after a reconnection: as good as new.
            known.remove(place);
            known.push_back(certificate);
            return true;
        }
        known.push_back(certificate);
        if known.len() > KEPT {
            known.pop_front();
        }
        let all = self.known.iter().flat_map(|(server, known)| known.iter().map(|one| (*server, one.clone())));
        self.message.send_replace(mesh::wire::encode(&FromSmartClient::Signers(all.collect())));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &mut watch::Receiver<Bytes>) -> Vec<(u32, u8)> {
        match mesh::wire::decode(&message.borrow_and_update()) {
            Ok(FromSmartClient::Signers(all)) => all.iter().map(|(server, one)| (server.0, one[0])).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn certificate(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[number])
    }

    #[test]
    fn the_newest_four_of_each_server_are_shown_and_only_when_there_is_news() {
        let (mut signers, mut message) = Signers::new();
        assert!(message.borrow().is_empty());
        assert!(signers.show(ReplicaId(1), certificate(1)) && signers.show(ReplicaId(0), certificate(9)));
        assert_eq!(shown(&mut message), [(0, 9), (1, 1)]);
        assert!(signers.show(ReplicaId(1), certificate(1)));
        assert!(!message.has_changed().expect("it is open"), "nothing new");
        for number in 2..=4 {
            assert!(signers.show(ReplicaId(1), certificate(number)));
        }
        // Shown again, the first is the newest, and the second goes.
        assert!(signers.show(ReplicaId(1), certificate(1)) && signers.show(ReplicaId(1), certificate(5)));
        assert_eq!(shown(&mut message), [(0, 9), (1, 3), (1, 4), (1, 1), (1, 5)]);
    }

    #[test]
    fn what_cannot_be_a_certificate_is_refused() {
        let (mut signers, message) = Signers::new();
        assert!(!signers.show(ReplicaId(1), Bytes::new()));
        assert!(!signers.show(ReplicaId(1), Bytes::from(vec![0; CERTIFICATE_BYTES_MAX + 1])));
        assert!(message.borrow().is_empty());
    }
}
