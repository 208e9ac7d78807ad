//! The API server of the Kubernetes that this process runs in, as far as it is needed: Secrets, read and patched one by
//! one. A client library would bring a hundred crates for two verbs.

use crate::http;
use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Where a pod finds what its service account needs.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Time for one whole request.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Api {
    host: String,
    port: u16,
    tls: TlsConnector,
    account: PathBuf,
    namespace: String,
}

/// A Secret.
#[derive(Debug, Default)]
pub(crate) struct Secret {
    /// What it holds.
    pub(crate) data: BTreeMap<String, Vec<u8>>,
    /// Its version, which a patch may insist on.
    pub(crate) version: String,
}

/// What a patch came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patched {
    /// It is done.
    Done,
    /// Somebody else changed the Secret meanwhile.
    Conflict,
}

impl Api {
    /// As the service account of this pod, in its namespace.
    ///
    /// # Errors
    /// This is no pod, or it has no service account's token.
    pub(crate) fn of_pod() -> anyhow::Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: this command runs in a pod of Kubernetes"))
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?.parse().context("KUBERNETES_SERVICE_PORT is no port")?;
        Self::new(host, port, Path::new(ACCOUNT))
    }

    fn new(host: String, port: u16, account: &Path) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = account.join(name);
            std::fs::read_to_string(&path).with_context(|| {
                format!("cannot read {}: does the pod have a service account's token?", path.display())
            })
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(read("ca.crt")?.as_bytes()) {
            roots.add(certificate.context("ca.crt of the service account")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let namespace = read("namespace")?.trim().to_owned();
        Ok(Self { host, port, tls: TlsConnector::from(Arc::new(config)), account: account.to_owned(), namespace })
    }

    /// A Secret; `None` if there is none of that name.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub(crate) async fn secret(&self, name: &str) -> anyhow::Result<Option<Secret>> {
        let (status, answer) = self.ask(Method::GET, name, None).await?;
        match status {
            StatusCode::OK => parse(&answer).map(Some).with_context(|| format!("Secret {name}")),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("Secret {name} cannot be read: {}", reason(status, &answer)),
        }
    }

    /// Makes the data of a Secret what is given, and nothing else; with a version only if it still has that.
    ///
    /// # Errors
    /// The API server does not answer, or refuses.
    pub(crate) async fn put(
        &self,
        name: &str,
        old: &Secret,
        data: &BTreeMap<String, Vec<u8>>,
        insist: bool,
    ) -> anyhow::Result<Patched> {
        let mut fields: BTreeMap<&str, Value> =
            data.iter().map(|(key, bytes)| (key.as_str(), STANDARD.encode(bytes).into())).collect();
        for gone in old.data.keys().filter(|key| !data.contains_key(*key)) {
            fields.insert(gone, Value::Null);
        }
        let mut patch = json!({ "data": fields });
        if insist {
            patch["metadata"] = json!({ "resourceVersion": old.version });
        }
        let (status, answer) = self.ask(Method::PATCH, name, Some(serde_json::to_vec(&patch)?)).await?;
        match status {
            StatusCode::OK => Ok(Patched::Done),
            StatusCode::CONFLICT => Ok(Patched::Conflict),
            status => bail!("Secret {name} cannot be written: {}", reason(status, &answer)),
        }
    }

    async fn ask(&self, method: Method, name: &str, patch: Option<Vec<u8>>) -> anyhow::Result<(StatusCode, Value)> {
        let asked = timeout(PATIENCE, self.exchange(method, name, patch)).await;
        asked
            .context("no answer in time")
            .flatten()
            .with_context(|| format!("the API server at {}:{}", self.host, self.port))
    }

    async fn exchange(
        &self,
        method: Method,
        name: &str,
        patch: Option<Vec<u8>>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        // It is renewed while the pod runs.
        let token = std::fs::read_to_string(self.account.join("token")).context("cannot read the token")?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let server = ServerName::try_from(self.host.clone()).context("it has no name that a certificate could have")?;
        let stream = self.tls.connect(server, stream).await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/namespaces/{}/secrets/{name}", self.namespace))
            .header(HOST, &self.host)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/merge-patch+json")
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .body(Full::new(Bytes::from(patch.unwrap_or_default())))?;
        let (status, body) = http::send(stream, request).await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

fn parse(answer: &Value) -> anyhow::Result<Secret> {
    let version = answer["metadata"]["resourceVersion"].as_str().context("has no version")?.to_owned();
    ensure!(answer["kind"] == "Secret", "is something else");
    let mut data = BTreeMap::new();
    for (key, value) in answer["data"].as_object().into_iter().flatten() {
        let text = value.as_str().with_context(|| format!("{key} is no text"))?;
        data.insert(key.clone(), STANDARD.decode(text).with_context(|| format!("{key} is not base64"))?);
    }
    Ok(Secret { data, version })
}

fn reason(status: StatusCode, answer: &Value) -> String {
    match answer["message"].as_str() {
        Some(message) => format!("{status}: {message}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_rendered_empty_has_no_data() {
        let answer = json!({ "kind": "Secret", "metadata": { "resourceVersion": "7" }, "type": "Opaque" });
        let secret = parse(&answer).expect("it is one");
        assert!(secret.data.is_empty() && secret.version == "7");
        let answer = json!({ "kind": "Secret", "metadata": { "resourceVersion": "8" }, "data": { "a": "YQ==" } });
        assert_eq!(parse(&answer).expect("it is one").data["a"], b"a");
        let answer = json!({ "kind": "Secret", "metadata": { "resourceVersion": "8" }, "data": { "a": "?" } });
        assert!(parse(&answer).expect_err("no base64").to_string().contains("a is not base64"));
    }
}
