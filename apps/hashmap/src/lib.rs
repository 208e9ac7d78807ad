//! The replicated hashmap of the paper: the example application that Lockstep keeps in lockstep.
//!
//! An ordinary TCP server that knows nothing of replication. One request a line:
//!
//! | request | reply |
//! | --- | --- |
//! | `PUT key value` | `OK` |
//! | `GET key` | `VALUE value` or `NIL` |
//! | `REMOVE key` | `OK` or `NIL` |
//! | `SIZE` | the number of entries |
//! | `DUMP [AFTER key] [LIMIT n]` | `ENTRIES` and a JSON array of pairs in key order |
//! | `LOAD json` | `OK`: puts every pair of such an array |
//! | anything else | `ERR reason` |
//!
//! Keys have no spaces, a value is the rest of its line. Lines are UTF-8 and end with LF or CRLF.

mod cli;
mod connection;
mod map;

pub use cli::{Args, run};
pub use map::Map;

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How the server treats its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Close the connection after every reply, as in the paper.
    pub close: bool,
    /// Bytes of one line at most; a longer one is answered with `ERR` and the connection closed.
    pub line_bytes: usize,
    /// Connections at one time; further ones wait until one ends.
    pub connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { close: false, line_bytes: 16 << 20, connections: 16_384 }
    }
}

/// Serves an empty map until the future is dropped.
pub async fn serve(listener: TcpListener, options: Options) {
    let map = Arc::new(Mutex::new(Map::default()));
    let permits = Arc::new(Semaphore::new(options.connections.max(1)));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (map, options) = (Arc::clone(&map), options.clone());
                connections.spawn(async move {
                    // An error is the client's: it went away.
                    let _ = connection::serve(stream, &map, &options).await;
                    drop(permit);
                });
            }
            // Out of file descriptors, mostly: connections that end give some back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
