//! A sidecar that was killed beside a living application: the next one goes on with it, or does not (rules 24, 25).

use super::*;
use crate::app::resumable;
use mesh::order::Resumed;

struct Killed {
    dir: Arc<TempDir>,
    port: u16,
    pid: u32,
}

impl Killed {
    /// A sidecar whose application executed some slots, the last of which may hang; then as if it was killed.
    async fn after(slots: &[&[&str]], hangs: bool) -> Self {
        let port = free_port().await;
        let mut app = Fixture::on(|dir| child(dir, port), adapter(SHARED.0, SHARED.1), PATIENCE);
        app.send(Command::Answered { through: Slot(0) }).await;
        app.reset(1).await;
        for (slot, requests) in (1..).zip(slots) {
            app.execute(1, slot, requests).await;
            app.replies(1, slot).await;
        }
        if hangs {
            app.execute(1, 100, &["hang\n"]).await;
            let marker = app.dir.path().join("application.marker");
            let length = || std::fs::metadata(&marker).expect("a marker").len();
            let before = length();
            eventually_async("the intent is written", || length() > before).await;
        }
        let pid = app.handle.view.borrow().pid.expect("a child has a pid");
        app.task.abort();
        let _ = app.task.await;
        Self { dir: app.dir, port, pid }
    }

    fn settings(&self) -> Settings {
        settings(self.dir.path(), child(self.dir.path(), self.port), adapter(SHARED.0, SHARED.1), PATIENCE)
    }

    fn resumable(&self) -> (Option<Resumed>, Option<Slot>) {
        resumable(&self.settings(), None)
    }

    fn next(&self) -> Fixture {
        Fixture::with(Arc::clone(&self.dir), self.settings())
    }
}

#[tokio::test]
async fn a_sidecar_goes_on_with_what_its_predecessor_left() {
    let killed = Killed::after(&[&["x\n"], &["x\n", "x\n"]], false).await;
    let (resumed, answered) = killed.resumable();
    let resumed = resumed.expect("nothing was under way");
    assert_eq!((resumed.executed, answered), (Slot(2), Some(Slot(2))));
    let texts = |(slot, replies): &(Slot, Vec<mesh::order::AppReply>)| {
        (slot.0, replies.iter().map(|reply| reply.bytes.clone()).collect::<Vec<_>>())
    };
    let replies: Vec<_> = resumed.replies.iter().map(texts).collect();
    assert_eq!(replies, [(1, vec!["1\n".into()]), (2, vec!["2\n".into(), Bytes::from("3\n")])]);
    let mut next = killed.next();
    next.send(Command::Resume { run: Run(1) }).await;
    assert_eq!(next.next().await, Event::Restored { run: Run(1) });
    next.execute(1, 3, &["x\n"]).await;
    assert_eq!(next.replies(1, 3).await, ["4\n"], "its state is that after slot 2");
    assert_eq!(next.handle.view.borrow().pid, Some(killed.pid));
    // Not our child, and watched all the same.
    next.execute(1, 4, &["die\n"]).await;
    assert_eq!(next.next().await, Event::Silent { run: Run(1), slot: Slot(4), answered: 0 });
    next.reset(2).await;
    next.execute(2, 1, &["x\n"]).await;
    assert_eq!(next.replies(2, 1).await, ["1\n"]);
    next.end().await;
}

#[tokio::test]
async fn an_adopted_application_is_ended_like_a_child() {
    let killed = Killed::after(&[&["x\n"]], false).await;
    let mut next = killed.next();
    next.send(Command::Resume { run: Run(1) }).await;
    assert_eq!(next.next().await, Event::Restored { run: Run(1) });
    next.end().await;
    assert_eq!(crate::app::process::start_time(killed.pid), None);
}

#[tokio::test]
async fn a_call_under_way_proves_nothing_but_what_was_answered() {
    let killed = Killed::after(&[&["x\n"]], true).await;
    assert_eq!(killed.resumable(), (None, Some(Slot(1))));
    let mut next = killed.next();
    next.send(Command::Resume { run: Run(1) }).await;
    assert_eq!(next.next().await, Event::Lost { run: Run(1) });
    next.reset(2).await;
    assert_ne!(next.handle.view.borrow().pid, Some(killed.pid), "the orphan is not used");
    next.end().await;
}

#[tokio::test]
async fn another_incarnation_base_or_command_is_not_gone_on_with() {
    let killed = Killed::after(&[&["x\n"]], false).await;
    assert_eq!(resumable(&killed.settings(), Some(Slot(1))), (None, Some(Slot(1))), "there is a newer snapshot");
    let mut other = killed.settings();
    if let Some(App::Command { argv, .. }) = &mut other.app {
        argv.push("--other".to_owned());
    }
    assert_eq!(resumable(&other, None), (None, Some(Slot(1))), "it is to be started otherwise now");
    assert!(killed.resumable().0.is_some());
    crate::app::supervisor::signal_group(killed.pid, rustix::process::Signal::KILL);
    let gone = || crate::app::process::start_time(killed.pid).is_none();
    eventually_async("the application ended", gone).await;
    assert_eq!(killed.resumable(), (None, Some(Slot(1))));
    let mut next = killed.next();
    next.send(Command::Resume { run: Run(1) }).await;
    assert_eq!(next.next().await, Event::Lost { run: Run(1) });
    next.end().await;
}

#[tokio::test]
async fn somebody_elses_application_is_gone_on_with_too() {
    let listener = listen().await;
    let mut app = Fixture::found(&listener, SHARED, PATIENCE);
    app.reset(1).await;
    let mut stream = accept(&listener).await;
    app.execute(1, 1, &["a\n"]).await;
    read_until(&mut stream, "a\n").await;
    stream.write_all(b"A\n").await.expect("write");
    assert_eq!(app.replies(1, 1).await, ["A\n"]);
    let dir = Arc::clone(&app.dir);
    app.end().await;
    let address = App::Address(listener.local_addr().expect("address"));
    let settings = || settings(dir.path(), address.clone(), adapter(SHARED.0, SHARED.1), PATIENCE);
    let (resumed, answered) = resumable(&settings(), None);
    assert_eq!(
        (resumed.map(|resumed| resumed.executed), answered),
        (Some(Slot(1)), None),
        "nobody said what came before"
    );
    let mut next = Fixture::with(Arc::clone(&dir), settings());
    next.send(Command::Resume { run: Run(1) }).await;
    assert_eq!(next.next().await, Event::Restored { run: Run(1) });
    let mut stream = accept(&listener).await;
    next.execute(1, 2, &["b\n"]).await;
    read_until(&mut stream, "b\n").await;
}
