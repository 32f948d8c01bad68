//! Certificates and keys from PEM files, read alike by `config check` and by whoever connects.
//!
//! The libraries' own errors print the line that they could not read, which may be a whole private
//! key: none of their text is passed on.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::bom::without_bom;

/// The largest file that is read, in bytes: a whole system's bundle has some 250 KiB.
const FILE_MAX: u64 = 4 * 1024 * 1024;

/// Why a PEM file is of no use, to follow its key; it holds nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum BadPem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is larger than 4 MiB")]
    TooLarge,
    #[error("{0}")]
    Content(&'static str),
}

/// A client's certificate chain and its key.
#[derive(Debug)]
pub struct ClientIdentity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Which of an identity's two files is of no use, and why.
#[derive(Debug)]
pub enum BadIdentity {
    Certificate(BadPem),
    Key(BadPem),
}

/// A file's bytes, without a byte order mark.
pub fn content(path: &Path) -> Result<Vec<u8>, BadPem> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut content))
        .map_err(BadPem::Unreadable)?;
    if content.len() as u64 > FILE_MAX {
        return Err(BadPem::TooLarge);
    }
    Ok(without_bom(&content).to_vec())
}

/// The certificates to trust, of which at least one can be used. Some that cannot be among many
/// that can are common in a system's bundle.
pub fn authorities(content: &[u8]) -> Result<RootCertStore, BadPem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(content)?);
    if roots.is_empty() {
        return Err(BadPem::Content("holds no certificate that can be used"));
    }
    Ok(roots)
}

/// All certificates, at least one.
pub fn certificates(content: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(BadPem::Content(nothing(
            content,
            "holds no PEM certificate",
        ))),
        Err(error) => Err(BadPem::Content(broken(&error))),
    }
}

/// The client's certificate and key, which belong together.
pub fn identity(certificate_file: &Path, key_file: &Path) -> Result<ClientIdentity, BadIdentity> {
    let chain = content(certificate_file)
        .and_then(|content| certificates(&content))
        .map_err(BadIdentity::Certificate)?;
    let key = content(key_file)
        .and_then(|content| private_key(&content))
        .map_err(BadIdentity::Key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let wrong = |what| BadPem::Content(what);
    match CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider) {
        Ok(_) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(ClientIdentity { chain, key })
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(BadIdentity::Key(wrong(
            "is not the key of the certificate in amqp.client_cert_file",
        ))),
        Err(rustls::Error::InvalidCertificate(_)) => Err(BadIdentity::Certificate(wrong(
            "holds a certificate that cannot be used",
        ))),
        Err(_) => Err(BadIdentity::Key(wrong(
            "holds a private key of a kind that cannot be used; say an RSA, ECDSA or Ed25519 key",
        ))),
    }
}

fn private_key(content: &[u8]) -> Result<PrivateKeyDer<'static>, BadPem> {
    PrivateKeyDer::from_pem_slice(content).map_err(|error| {
        BadPem::Content(match error {
            pem::Error::NoItemsFound => nothing(
                content,
                "holds no PEM private key; an encrypted one cannot be used",
            ),
            error => broken(&error),
        })
    })
}

/// Why there is nothing in a file that a person takes for PEM.
fn nothing(content: &[u8], otherwise: &'static str) -> &'static str {
    let has_marker = content
        .windows(BEGIN.len())
        .any(|part| part.eq_ignore_ascii_case(BEGIN));
    let any_section = <(SectionKind, Vec<u8>)>::pem_slice_iter(content)
        .next()
        .is_some();
    if has_marker && !any_section && !content.starts_with(BEGIN) {
        "is not PEM: its first line must begin with -----BEGIN"
    } else {
        otherwise
    }
}

const BEGIN: &[u8] = b"-----BEGIN";

/// What is wrong, without the bytes that the error holds.
fn broken(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::IllegalSectionStart { .. } => {
            "is broken PEM: more than a -----BEGIN … ----- stands in its first line; were the \
             line breaks lost, or written as \\n?"
        }
        pem::Error::MissingSectionEnd { .. } => "is broken PEM: its -----END line is missing",
        pem::Error::Base64Decode(_) => "is broken PEM: what is between its lines is not base64",
        _ => "is not PEM that can be used",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["mq".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn what_of(result: Result<ClientIdentity, BadIdentity>) -> Result<(), String> {
        match result {
            Ok(_) => Ok(()),
            Err(BadIdentity::Certificate(bad)) => Err(format!("certificate {bad}")),
            Err(BadIdentity::Key(bad)) => Err(format!("key {bad}")),
        }
    }

    #[test]
    fn a_certificate_and_its_key_belong_together() {
        let dir = tempfile::tempdir().unwrap();
        let [cert_file, key_file] = ["c", "k"].map(|name| dir.path().join(name));
        let (cert, key) = pair();
        let (other, other_key) = pair();
        let mark = "\u{feff}";
        for (cert, key, expected) in [
            (cert.clone(), key.clone(), None),
            (format!("{mark}{cert}"), format!("{mark}{key}"), None),
            (cert.replace('\n', "\r\n"), key.replace('\n', "\r\n"), None),
            (cert.clone() + &other, key.clone(), None),
            (cert.clone(), other_key, Some("key is not the key of")),
            (cert.clone(), cert.clone(), Some("key holds no PEM private")),
            (key.clone(), key.clone(), Some("certificate holds no PEM")),
            (
                cert.clone(),
                key.replace('\n', "\\n"),
                Some("key is broken PEM: more than"),
            ),
            (
                cert.clone(),
                format!("\"{key}\""),
                Some("key is not PEM: its first line"),
            ),
            (
                cert.clone(),
                key[..key.len() / 2].to_owned(),
                Some("key is broken PEM: its -----END"),
            ),
            (
                cert.clone(),
                key.replace("PRIVATE KEY-----\nM", "PRIVATE KEY-----\n!"),
                Some("key is broken PEM: what is between"),
            ),
            (cert.clone(), String::new(), Some("key holds no PEM")),
        ] {
            std::fs::write(&cert_file, &cert).unwrap();
            std::fs::write(&key_file, &key).unwrap();
            let what = what_of(identity(&cert_file, &key_file));
            match expected {
                None => assert_eq!(what, Ok(())),
                Some(expected) => assert!(what.unwrap_err().starts_with(expected), "{key}"),
            }
        }
        let gone = what_of(identity(&cert_file, &dir.path().join("gone"))).unwrap_err();
        assert!(gone.starts_with("key cannot be read: "), "{gone}");
    }
}
