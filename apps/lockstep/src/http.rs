//! A small HTTP client: one request over one connection, its answer bounded in bytes; and one GET of an admin port.

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Body;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Time for one whole request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of an answer at most.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Status and body of `GET path` at `address`, HOST:PORT.
pub(crate) async fn get(address: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    match tokio::time::timeout(TIMEOUT, exchange(address, path)).await {
        Ok(answer) => answer,
        Err(_) => Err(anyhow!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// The JSON document at `path`.
pub(crate) async fn get_json(address: &str, path: &str) -> anyhow::Result<serde_json::Value> {
    let (status, body) = get(address, path).await?;
    if status != StatusCode::OK {
        return Err(anyhow!("{path} answered {status}"));
    }
    serde_json::from_slice(&body)
        .with_context(|| format!("{path} is no JSON: is this the admin port of a Lockstep part?"))
}

async fn exchange(address: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await.map_err(|error| anyhow!("cannot connect: {error}"))?;
    send(stream, Request::get(path).header(HOST, address).body(Empty::<Bytes>::new())?).await
}

/// Status and body of the answer to a request, over a connection that is for it alone.
pub(crate) async fn send<S, B>(stream: S, request: Request<B>) -> anyhow::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        anyhow::Ok((status, body.map_err(|error| anyhow!("{error}"))?.to_bytes()))
    };
    let mut answer = std::pin::pin!(answer);
    // The connection moves the bytes; its own end says nothing that the answer does not.
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}
