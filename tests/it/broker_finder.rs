//! The finder finds: a given broker, a container, and it leaves nothing behind.

use lapin::{BasicProperties, options::QueueDeclareOptions, types::FieldTable};
use rename_worker::demo::broker::{FindError, Provenance};

use crate::support::{
    self,
    amqp::{Raw, SOON},
};

/// A broker is one if a message goes in and comes out.
async fn passes_a_message(url: &str) {
    let raw = Raw::connect(url).await;
    let key = support::unique_prefix();
    let queue = raw.listen("amq.topic", &key).await;
    raw.publish("amq.topic", &key, b"hello", BasicProperties::default())
        .await;
    let taken = raw.drain(&queue, 1, SOON).await;
    assert_eq!(taken[0].body, b"hello");
    assert_eq!(raw.queue_length(&queue).await, 0);
}

#[tokio::test]
async fn the_shared_broker_passes_messages() {
    passes_a_message(support::broker().await).await;
}

#[tokio::test]
async fn a_given_broker_is_used_and_left_running() {
    let url = support::broker().await;
    let finder = support::finder().with_url(Some(url.to_owned()));
    let broker = finder.find().await.unwrap();
    assert_eq!(broker.url(), url);
    assert_eq!(*broker.how_found(), Provenance::Given);
    assert!(broker.version().is_some_and(|v| v.contains('.')));
    assert!(!broker.is_ours());
    assert!(broker.restart().await.is_err());
    broker.stop().await;
    passes_a_message(url).await;
}

#[tokio::test]
async fn a_given_broker_that_is_not_there_is_no_reason_to_start_another() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let finder = support::finder().with_url(Some(format!("amqp://{address}")));
    let error = finder.find().await.unwrap_err();
    assert!(
        matches!(error, FindError::GivenUnreachable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_broker_of_our_own_keeps_its_messages_over_a_kill_and_is_gone_in_the_end() {
    let Some(broker) = support::own_broker_or_skip("the kill of a broker").await else {
        return;
    };
    assert!(broker.is_ours());
    assert!(broker.version().is_some());
    passes_a_message(broker.url()).await;

    let raw = Raw::connect(broker.url()).await;
    let durable = QueueDeclareOptions::durable();
    raw.channel()
        .queue_declare("kept".into(), durable, FieldTable::default())
        .await
        .unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    raw.publish("", "kept", b"still here", persistent).await;
    drop(raw);

    broker.restart().await.unwrap();
    broker.kill().await.unwrap();
    broker.start_again().await.unwrap();
    assert!(broker.ctl(&["list_queues"]).await.unwrap().contains("kept"));
    let raw = Raw::connect(broker.url()).await;
    assert_eq!(raw.drain("kept", 1, SOON).await[0].body, b"still here");
    drop(raw);

    let url = broker.url().to_owned();
    broker.stop().await;
    let gone = support::finder().with_url(Some(url)).find().await;
    assert!(matches!(gone, Err(FindError::GivenUnreachable { .. })));
}
