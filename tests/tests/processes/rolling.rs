//! Every part restarted in turn, under clients for whom nothing may go wrong.

use super::up::Up;
use lockstep_tests::rolling::{self, Clients, How};
use std::time::Duration;

#[test]
fn no_client_sees_an_error_while_every_part_is_restarted_in_turn() {
    let up = Up::start(&[]);
    let clients = Clients::start(up.listen(), 32, Duration::from_millis(5)).unwrap();
    for (role, how) in [("sidecar", How::Term), ("smart-client", How::Drain), ("ingress", How::Term)] {
        for part in up.role(role) {
            let restart = rolling::restart(&up, &clients, &part, how).unwrap();
            println!("{restart}");
            assert_eq!(restart.errors, [""; 0], "{restart}");
            let expected = if role == "ingress" { 32 } else { 0 };
            assert_eq!(restart.reconnected, expected, "connections ended: {restart}");
        }
    }
    for how in [How::Drain, How::Kill] {
        let leader = rolling::leader(&up).unwrap();
        let restart = rolling::restart(&up, &clients, &leader, how).unwrap();
        println!("{restart}");
        assert_eq!(restart.errors, [""; 0], "{restart}");
    }
}
