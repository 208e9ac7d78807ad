//! An application that is not what it promised to be: deterministic (rule 31).

use super::misbehave::{self, Clients};
use super::wait;

#[test]
fn a_copy_that_answers_wrongly_is_detected_taken_out_rebuilt_and_reported() {
    let up = misbehave::start(&["--snapshot-every-requests", "500"]);
    let clients = Clients::start(&up, 4);
    clients.progress("before the divergence");
    let victim = up.leader().1.remove(0);
    misbehave::tell(&up, victim.id, "wrong");
    wait::until("detected", || {
        let status = victim.status()?;
        if status["divergences"].as_u64() > Some(0) { Ok(()) } else { Err(status.to_string()) }
    });
    clients.progress("after the divergence");
    wait::until("rebuilt", || {
        let status = victim.status()?;
        if status["role"] == "quarantined" { Err(status.to_string()) } else { victim.ready() }
    });
    wait::until("reported", || {
        let log = up.log_of(&format!("sidecar-{}", victim.id));
        let told = log.contains("the application diverged") && log.contains("agrees with the majority again");
        if told { Ok(()) } else { Err(log) }
    });
    // Whoever asks is told by an operator's command, too.
    clients.finish(&up);
    for other in up.role("sidecar").iter().filter(|sidecar| sidecar.id != victim.id) {
        assert_eq!(other.status().expect("it answers")["divergences"], 0);
    }
}
