//! The stages that other tests play on do what they are there for: a cluster that can be hurt, a
//! broker behind TLS.

use std::{sync::Arc, time::Duration};

use lapin::{
    BasicProperties,
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, LongString},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    amqp::SOON,
    cluster::cluster_or_skip,
    tls::{Authority, Identity, TlsBroker, tls_broker_or_skip},
};

#[tokio::test]
async fn a_cluster_survives_the_loss_of_a_leader_and_the_loss_of_touch() {
    let Some(cluster) = cluster_or_skip("the cluster's stage").await else {
        return;
    };
    let raw = cluster.nodes[0].connect().await;
    let mut quorum = FieldTable::default();
    quorum.insert(
        "x-queue-type".into(),
        AMQPValue::LongString(LongString::from("quorum")),
    );
    let durable = QueueDeclareOptions::durable();
    raw.channel()
        .queue_declare("kept".into(), durable, quorum)
        .await
        .unwrap();
    raw.publish("", "kept", b"still here", BasicProperties::default())
        .await;
    drop(raw);

    let leader = cluster.leader_of("kept").await;
    leader.kill().await;
    let other = cluster
        .nodes
        .iter()
        .find(|n| n.name != leader.name)
        .unwrap();
    let raw = other.connect().await;
    raw.publish("", "kept", b"without a leader", BasicProperties::default())
        .await;
    leader.start_again().await;

    cluster.cut_off(other).await;
    cluster.await_running_seen_by(leader, 2).await;
    let raw = leader.connect().await;
    let taken = raw.drain("kept", 2, SOON).await;
    assert_eq!(taken[0].body, b"still here");
    assert_eq!(taken[1].body, b"without a leader");
    cluster.join_again(other).await;
    cluster.await_running_seen_by(leader, 3).await;
    let raw = other.connect().await;
    assert_eq!(raw.queue_length("kept").await, 0);
}

#[tokio::test]
async fn a_tls_broker_greets_only_who_shows_a_certificate_of_its_authority() {
    let Some(broker) = tls_broker_or_skip("the TLS stage").await else {
        return;
    };
    assert!(greets(&broker, Some(&broker.client)).await);
    assert!(!greets(&broker, None).await);
    let stranger = Authority::new("another authority").client("stranger");
    assert!(!greets(&broker, Some(&stranger)).await);
}

/// Whether the broker answers AMQP's first words behind TLS.
async fn greets(broker: &TlsBroker, client: Option<&Identity>) -> bool {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(broker.authority.ca_pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(identity) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let talk = async {
        let stream = TcpStream::connect(("127.0.0.1", broker.port)).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        let mut frame_type = [0];
        stream.read_exact(&mut frame_type).await
    };
    let answer: std::io::Result<usize> = tokio::time::timeout(Duration::from_secs(20), talk)
        .await
        .expect("it answers or closes");
    answer.is_ok()
}
