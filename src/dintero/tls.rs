//! Whom to trust: the machine's certificates, or those of `api.ca_file` instead.
//!
//! The file is read anew at each handshake, so that a rotated authority needs no restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ClientError;
use crate::config::pem::{self, BadPem};

/// Said in the handshake, so that no server chooses HTTP/2.
const HTTP_1_1: &[u8] = b"http/1.1";

pub(super) fn config(is_https: bool, ca_file: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut config = match ca_file {
        // Whoever runs without TLS need not wait for the certificates, nor have them.
        _ if !is_https => builder.with_root_certificates(RootCertStore::empty()),
        None => builder.with_root_certificates(system_roots()?),
        Some(path) => {
            let file = CaFile::open(path.into(), provider)?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(file))
        }
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    if ca_file.is_some() {
        // A resumed session is not verified again: an authority taken away would live on.
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

fn system_roots() -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore::empty();
    // Some unreadable ones among many good ones are common; none at all is an error.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(ClientError::NoRoots);
    }
    Ok(roots)
}

/// Verifies by what the file holds now; while it cannot be used, by what it last held.
#[derive(Debug)]
struct CaFile {
    path: PathBuf,
    provider: Arc<CryptoProvider>,
    held: Mutex<LoadedCa>,
}

#[derive(Debug)]
struct LoadedCa {
    content: Vec<u8>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl CaFile {
    fn open(path: PathBuf, provider: Arc<CryptoProvider>) -> Result<Self, ClientError> {
        let content = pem::content(&path)?;
        let verifier = verifier(&content, &provider)?;
        Ok(Self {
            path,
            provider,
            held: Mutex::new(LoadedCa { content, verifier }),
        })
    }

    fn current(&self) -> Arc<WebPkiServerVerifier> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(content) = pem::content(&self.path)
            && content != held.content
            && let Ok(verifier) = verifier(&content, &self.provider)
        {
            *held = LoadedCa { content, verifier };
        }
        held.verifier.clone()
    }
}

fn verifier(
    content: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, BadPem> {
    let roots = Arc::new(pem::authorities(content)?);
    WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|_| BadPem::Content("holds no certificate that can be used"))
}

impl ServerCertVerifier for CaFile {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.current().verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
