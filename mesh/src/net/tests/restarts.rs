//! A process that is killed, and another one at its address.

use super::*;
use quinn::ConnectionError;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// How a link ends whose server is killed, when a server with the certificate `next` begins at its address.
async fn end_of_a_link(pki: &Pki, first: &pki::Leaf, next: &pki::Leaf) -> ConnectionError {
    let client = Part::new(pki.issue(Role::SmartClient, "0").load());
    let (credentials, (tell, told), (kill, killed)) = (first.load(), oneshot::channel(), oneshot::channel::<()>());
    let life = tokio::task::spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let alive = runtime.block_on(async {
            let server = Part::new(credentials);
            tell.send(server.endpoint.local_addr()).unwrap();
            let link = server.endpoint.accept().await;
            let _ = killed.await;
            (server, link)
        });
        // What outlives its runtime says nothing more, like a process that is killed.
        drop(runtime);
        drop(alive);
    });
    let address = told.await.unwrap();
    let link = client.endpoint.dial(LinkKind::Submit, &address.to_string(), None).await.unwrap();
    drop(kill);
    life.await.unwrap();
    let _successor = Endpoint::bind(address, next.load(), &[], limits(), &mut Registry::default()).unwrap();
    soon("the end", link.connection().closed()).await
}

#[tokio::test]
async fn the_next_process_with_our_key_ends_the_links_of_the_one_before() {
    let pki = Pki::new();
    let leaf = pki.issue(Role::Server, "1");
    assert_eq!(end_of_a_link(&pki, &leaf, &leaf).await, ConnectionError::Reset);
}

/// Catches keys that are made of nothing secret.
#[tokio::test]
async fn a_process_with_another_key_cannot_end_them() {
    let pki = Pki::new();
    let (leaf, renewed) = (pki.issue(Role::Server, "1"), pki.issue(Role::Server, "1"));
    assert_eq!(end_of_a_link(&pki, &leaf, &renewed).await, ConnectionError::TimedOut);
}
