//! https with a private authority, and its rotation under a running client.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::{ok, read_request};
use super::*;
use crate::config::pem::BadPem;
use crate::core::model::api_response::TransportError;
use crate::dintero::ClientError;

pub struct TestAuthority(CertifiedIssuer<'static, KeyPair>);

impl TestAuthority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server on loopback whose certificate is of this authority.
    async fn serve(&self) -> String {
        format!("https://{}/v1", self.serve_as("127.0.0.1").await)
    }

    /// The same, by that name.
    pub async fn serve_as(&self, name: &str) -> std::net::SocketAddr {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        // It would rather speak HTTP/2, which must not happen.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    while read_request(&mut stream).await.is_some() {
                        stream.write_all(ok("new").as_bytes()).await.unwrap();
                    }
                });
            }
        });
        address
    }
}

pub fn ca_file(content: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    write(&path, content);
    (dir, path)
}

#[tokio::test]
async fn a_private_authority_is_trusted_when_given_and_not_otherwise() {
    let (ours, other) = (TestAuthority::new(), TestAuthority::new());
    let base_url = ours.serve().await;
    let not_sent = ApiResponse::Silence(TransportError::Connect);
    let both = other.pem() + &ours.pem();
    for (ca, expected) in [
        (Some(ours.pem()), user("new")),
        (Some(both), user("new")),
        (Some(other.pem()), not_sent.clone()),
        (None, not_sent),
    ] {
        let mut api = api(&base_url);
        let file = ca.as_deref().map(ca_file);
        api.ca_file = file.as_ref().map(|(_, path)| path.clone());
        let (client, _) = client_of(&api);
        assert_eq!(
            client.change_username(&rename("old", "new")).await,
            expected
        );
    }
}

#[tokio::test]
async fn a_rotated_authority_needs_no_restart() {
    let (old, new) = (TestAuthority::new(), TestAuthority::new());
    let base_url = new.serve().await;
    let (_dir, path) = ca_file(&old.pem());
    let mut api = api(&base_url);
    api.ca_file = Some(path.clone());
    let (client, _) = client_of(&api);
    let call = rename("old", "new");
    let not_sent = ApiResponse::Silence(TransportError::Connect);

    assert_eq!(client.change_username(&call).await, not_sent);
    // Half written, it changes nothing.
    write(&path, "-----BEGIN CERTIFICATE-----\nMIIB");
    assert_eq!(client.change_username(&call).await, not_sent);
    write(&path, &new.pem());
    assert_eq!(client.change_username(&call).await, user("new"));
}

#[test]
fn an_authority_that_cannot_be_used_is_told_at_start() {
    let (_dir, path) = ca_file("no certificate");
    let mut api = api("https://127.0.0.1:1/v1");
    api.ca_file = Some(path.clone());
    let error = ApiClient::new(&api, 1, ObservedCall::default()).unwrap_err();
    assert!(
        matches!(error, ClientError::CaFile(BadPem::Content(_))),
        "{error}"
    );
    api.ca_file = Some(path.with_extension("gone"));
    let error = ApiClient::new(&api, 1, ObservedCall::default()).unwrap_err();
    assert!(
        matches!(error, ClientError::CaFile(BadPem::Unreadable(_))),
        "{error}"
    );
}
