//! A certificate authority for one test, and a RabbitMQ that speaks TLS only. Needs Docker.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use testcontainers::{ImageExt as _, core::ContainerPort};

use super::{Kept, image_or_skip, start_container};

const AMQPS: ContainerPort = ContainerPort::Tcp(5671);

/// Both ends prove who they are; a client without a certificate is turned away.
const CONFIGURATION: &str = "\
    listeners.tcp = none\n\
    listeners.ssl.default = 5671\n\
    ssl_options.cacertfile = /etc/rabbitmq/ca.pem\n\
    ssl_options.certfile = /etc/rabbitmq/server.pem\n\
    ssl_options.keyfile = /etc/rabbitmq/server.key\n\
    ssl_options.verify = verify_peer\n\
    ssl_options.fail_if_no_peer_cert = true\n";

/// A private authority. Its files are gone when it is dropped.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
    pub ca_file: PathBuf,
    pub ca_pem: String,
}

/// A certificate and its key, as PEM and as files.
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key can be made");
        let ca_pem = params.self_signed(&key).expect("it signs itself").pem();
        let folder = tempfile::tempdir().expect("there is a folder for temporary files");
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &ca_pem).expect("a file can be written");
        Self {
            issuer: Issuer::new(params, key),
            folder,
            ca_file,
            ca_pem,
        }
    }

    /// For a server on this machine: `localhost` and `127.0.0.1`.
    pub fn server(&self) -> Identity {
        self.issue("server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a client; `name` is the file's and the subject's. The same name again replaces the
    /// files, as a rotation does.
    pub fn client(&self, name: &str) -> Identity {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Identity {
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])
            .expect("these are valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the authority signs");
        let identity = Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            certificate_file: self.folder.path().join(format!("{name}.pem")),
            key_file: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&identity.certificate_file, &identity.certificate_pem)
            .expect("a file can be written");
        std::fs::write(&identity.key_file, &identity.key_pem).expect("a file can be written");
        identity
    }
}

/// A RabbitMQ with TLS and client certificates; gone when dropped.
pub struct TlsBroker {
    /// `amqps://guest:guest@localhost:<port>/%2f`.
    pub url: String,
    pub port: u16,
    pub authority: Authority,
    pub client: Identity,
    _kept: Kept,
}

/// Starts one, or tells that there is no Docker.
pub async fn tls_broker_or_skip(what: &str) -> Option<TlsBroker> {
    let image = image_or_skip(what).await?;
    let authority = Authority::new("rename-worker test authority");
    let server = authority.server();
    let client = authority.client("client");
    let ca_pem = authority.ca_pem.clone();
    let kept = start_container(&image, move |request| {
        request
            .with_copy_to(
                "/etc/rabbitmq/conf.d/20-tls.conf",
                CONFIGURATION.as_bytes().to_vec(),
            )
            .with_copy_to("/etc/rabbitmq/ca.pem", ca_pem.into_bytes())
            .with_copy_to(
                "/etc/rabbitmq/server.pem",
                server.certificate_pem.into_bytes(),
            )
            .with_copy_to("/etc/rabbitmq/server.key", server.key_pem.into_bytes())
            .with_mapped_port(0, AMQPS)
    })
    .await;
    let port = kept.port(AMQPS).await;
    Some(TlsBroker {
        url: format!("amqps://guest:guest@localhost:{port}/%2f"),
        port,
        authority,
        client,
        _kept: kept,
    })
}
