//! Applications that the sidecar starts itself.

use super::*;

#[tokio::test]
async fn a_child_is_started_reset_after_its_death_and_ended() {
    let port = free_port().await;
    let mut app = Fixture::on(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), PATIENCE);
    app.reset(1).await;
    app.execute(1, 1, &["x\n", "x\n"]).await;
    assert_eq!(app.replies(1, 1).await, ["1\n", "2\n"]);
    let first = app.handle.view.borrow().pid.expect("a child has a pid");
    app.execute(1, 2, &["x\n", "die\n"]).await;
    assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(2), answered: 1 });
    app.reset(2).await;
    app.execute(2, 1, &["x\n"]).await;
    assert_eq!(app.replies(2, 1).await, ["1\n"], "in its initial state");
    let second = app.handle.view.borrow().pid.expect("a child has a pid");
    assert_ne!(first, second);
    app.end().await;
    assert_eq!(crate::app::process::start_time(second), None, "the child is ended");
}

#[tokio::test]
async fn the_child_of_a_killed_sidecar_is_found_and_killed_and_nothing_else() {
    let port = free_port().await;
    let dir = TempDir::new();
    let mut first = Fixture::on(|_| child(dir.path(), port), adapter(SHARED.0, SHARED.1), PATIENCE);
    first.reset(1).await;
    first.execute(1, 1, &["x\n"]).await;
    assert_eq!(first.replies(1, 1).await, ["1\n"]);
    let orphan = first.handle.view.borrow().pid.expect("a child has a pid");
    // As if the sidecar was killed: nothing of it runs any more, its child does.
    first.task.abort();
    let mut second = Fixture::on(|_| child(dir.path(), port), adapter(SHARED.0, SHARED.1), PATIENCE);
    assert!(crate::app::process::start_time(orphan).is_some());
    second.reset(1).await;
    assert_eq!(crate::app::process::start_time(orphan), None);
    second.execute(1, 1, &["x\n"]).await;
    assert_eq!(second.replies(1, 1).await, ["1\n"]);
    // A record of a pid that belongs to somebody else by now.
    let record = dir.path().join("app/application.pid");
    let text = std::fs::read_to_string(&record).expect("a record");
    let mut identity: serde_json::Value = serde_json::from_str(&text).expect("json");
    second.end().await;
    let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    identity["pid"] = other.id().into();
    identity["start_time"] = 1.into();
    std::fs::write(&record, identity.to_string()).expect("write");
    let mut third = Fixture::on(|_| child(dir.path(), port), adapter(SHARED.0, SHARED.1), PATIENCE);
    third.reset(1).await;
    assert!(matches!(other.try_wait(), Ok(None)), "only what is provably ours is killed");
    other.kill().expect("kill");
    other.wait().expect("wait");
    third.end().await;
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_not_taken_for_the_child() {
    let listener = listen().await;
    let port = listener.local_addr().expect("address").port();
    let mut app = Fixture::on(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), PATIENCE);
    app.send(Command::Reset { run: Run(1), snapshot: None }).await;
    let resetting = || app.handle.view.borrow().state == State::Resetting;
    eventually_async("the reset is tried", resetting).await;
    assert!(app.handle.events.try_recv().is_err());
    drop(listener);
    assert_eq!(app.next().await, Event::Restored { run: Run(1) });
    app.end().await;
}

#[tokio::test]
async fn a_child_that_dies_with_nothing_under_way_is_lost_without_blame() {
    for connections in [Connections::Shared, Connections::PerRequest] {
        let port = free_port().await;
        let mut app = Fixture::on(|dir| child(dir, port), adapter(Protocol::Line, connections), PATIENCE);
        app.reset(1).await;
        app.execute(1, 1, &["x\n"]).await;
        assert_eq!(app.replies(1, 1).await, ["1\n"]);
        let pid = app.handle.view.borrow().pid.expect("a child has a pid");
        crate::app::supervisor::signal_group(pid, rustix::process::Signal::KILL);
        assert_eq!(app.next().await, Event::Lost { run: Run(1) });
        app.end().await;
    }
}

#[tokio::test]
async fn a_child_that_hangs_is_left_alone_until_the_next_beginning() {
    let port = free_port().await;
    let mut app = Fixture::on(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), Duration::from_millis(200));
    app.reset(1).await;
    app.execute(1, 1, &["x\n", "hang\n", "x\n"]).await;
    assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(1), answered: 1 });
    let pid = app.handle.view.borrow().pid.expect("a child has a pid");
    assert!(crate::app::process::start_time(pid).is_some());
    app.reset(2).await;
    assert_eq!(crate::app::process::start_time(pid), None);
    app.end().await;
}

#[tokio::test]
async fn a_close_that_ends_a_reply_is_none_when_the_application_died() {
    let port = free_port().await;
    let close = adapter(Protocol::Close, Connections::PerRequest);
    for (after, answered) in [(&["x", "die"][..], 1), (&["x", "die", "x"], 1)] {
        let mut app = Fixture::on(|dir| child(dir, port), close, PATIENCE);
        app.reset(1).await;
        app.execute(1, 1, after).await;
        assert_eq!(app.next().await, Event::Silent { run: Run(1), slot: Slot(1), answered });
        app.end().await;
    }
}
