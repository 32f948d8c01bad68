//! The life of the link: what it does when the broker is away, refuses, is full or is another.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rename_worker::broker::topology::model::{
    DifferenceKind, TopologyDifference, TopologySettings,
};
use rename_worker::broker::{BrokerError, BrokerEvent, PublishResult, RetryClass};
use rename_worker::config::{AmqpSection, Secret};
use rename_worker::core::policy::consume_plan::ConsumeScope;
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker_bench::{Bench, PATIENCE, amqp, event, failed, start};
use crate::support::tls::{Authority, tls_broker_or_skip};
use crate::support::{broker, own_broker_or_skip, unique_prefix};

#[tokio::test]
async fn after_a_restart_of_the_broker_it_consumes_again_soon() {
    let Some(broker) = own_broker_or_skip("consuming after a restart").await else {
        return;
    };
    let mut bench = Bench::on(broker.url()).await;
    bench
        .channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let persistent = BasicProperties::default().with_delivery_mode(2);
    bench.request("kept", persistent).await;
    bench.channel.wait_for_confirms().await.unwrap();
    bench.link.consume(bench.epoch, ConsumeScope::All);
    let _void = bench.delivered().await;
    broker.kill().await.unwrap();
    let why = bench.down().await;
    assert_eq!(why.pace(), RetryClass::Quick, "{why}");
    broker.start_again().await.unwrap();
    let began = Instant::now();
    bench.up().await;
    bench.link.consume(bench.epoch, ConsumeScope::All);
    assert_eq!(bench.delivered().await.body(), b"kept");
    let took = began.elapsed();
    // Two seconds are the goal, and the fault run shows what it is; the rest is for a busy machine.
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    bench.link.close().await;
}

#[tokio::test]
async fn an_alarm_is_told_before_any_request_is_handed_over_and_its_end_too() {
    let Some(broker) = own_broker_or_skip("the broker's memory alarm").await else {
        return;
    };
    let mut before = Bench::on(broker.url()).await;
    let limit = |share: &'static str| ["set_vm_memory_high_watermark", share];
    before.request("early", BasicProperties::default()).await;
    before.holds("requests", 1).await;
    broker.ctl(&limit("0.00001")).await.unwrap();
    // By now it has been idle for longer than a confirm is trusted.
    tokio::time::sleep(Duration::from_secs(1)).await;
    before.link.consume(before.epoch, ConsumeScope::All);
    assert!(matches!(before.next().await, BrokerEvent::Blocked(true)));
    let early = before.delivered().await;
    assert_eq!(early.body(), b"early");
    let mut after = Bench::on(broker.url()).await;
    assert!(matches!(after.next().await, BrokerEvent::Blocked(true)));
    broker.ctl(&limit("0.6")).await.unwrap();
    for bench in [&mut before, &mut after] {
        assert!(matches!(bench.next().await, BrokerEvent::Blocked(false)));
        let published = bench.publish(event()).await;
        assert!(matches!(published, PublishResult::Confirmed(_)));
    }
    before.link.close().await;
    after.link.close().await;
}

#[tokio::test]
async fn a_polite_end_by_the_broker_is_followed_by_a_new_session() {
    let Some(broker) = own_broker_or_skip("connections closed by the broker").await else {
        return;
    };
    let mut bench = Bench::on(broker.url()).await;
    broker
        .ctl(&["close_all_connections", "maintenance"])
        .await
        .unwrap();
    let why = bench.down().await;
    assert!(why.to_string().contains("maintenance"), "{why}");
    bench.up().await;
    let published = bench.publish(event()).await;
    assert!(matches!(published, PublishResult::Confirmed(_)));
    bench.link.close().await;
}

/// A way to the broker that can be cut.
struct Cable {
    port: u16,
    cut: Arc<Notify>,
}

impl Cable {
    async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_, address) = url.split_once('@').unwrap();
        let (address, _) = address.split_once('/').unwrap();
        let address = address.to_owned();
        let cut = Arc::new(Notify::new());
        let cutting = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(&address).await.unwrap();
                let cutting = Arc::clone(&cutting);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = cutting.notified() => {}
                    }
                });
            }
        });
        Self { port, cut }
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }
}

#[tokio::test]
async fn a_cut_connection_is_replaced_and_what_was_held_comes_again() {
    let plain = broker().await;
    let cable = Cable::to(plain).await;
    let mut bench = Bench::with(amqp(&cable.url(), &unique_prefix()), plain).await;
    bench.up().await;
    for round in 0..5 {
        let body = round.to_string();
        bench.request(&body, BasicProperties::default()).await;
        bench.link.consume(bench.epoch, ConsumeScope::All);
        let _void = bench.delivered().await;
        bench
            .link
            .publish(rename_worker::broker::PublishId(round), event());
        cable.cut.notify_waiters();
        bench.down().await;
        bench.up().await;
        bench.link.consume(bench.epoch, ConsumeScope::All);
        let again = bench.delivered().await;
        assert_eq!(again.body(), body.as_bytes());
        assert!(again.redelivered());
        bench.settle(again).await;
    }
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_speak_is_given_up_and_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let (link, mut events) = start(amqp(&url, "p"));
    let (mut silent, _) = listener.accept().await.unwrap();
    let (why, again_in) = failed(&mut events).await;
    assert!(matches!(why, BrokerError::Silent(_)), "{why}");
    assert!(again_in <= Duration::from_secs(1));
    // What was said first, if time stood still long enough, and then nothing: the socket is closed,
    // not forgotten.
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert!(b"AMQP\x00\x00\x09\x01".starts_with(&said), "{said:?}");
    link.close().await;
}

#[tokio::test]
async fn an_unreachable_broker_is_tried_again_soon() {
    // Bound and closed: nothing listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
    let (link, mut events) = start(amqp(&url, "p"));
    for _ in 0..4 {
        let (why, again_in) = failed(&mut events).await;
        assert!(matches!(why, BrokerError::Unreachable(_)), "{why}");
        assert!(again_in <= Duration::from_secs(1));
    }
    link.close().await;
}

#[tokio::test]
async fn a_refusal_is_told_without_names_and_a_rotated_password_is_taken_up() {
    let good = broker().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, good.replacen(":guest@", ":hush@", 1)).unwrap();
    let with_file = AmqpSection {
        url: Secret::File(file.clone()),
        ..amqp(good, &unique_prefix())
    };
    let mut bench = Bench::with(with_file, good).await;
    let BrokerEvent::Failed { why, .. } = bench.next().await else {
        panic!("let in");
    };
    assert!(matches!(why, BrokerError::Refused(_)), "{why}");
    assert_eq!(why.pace(), RetryClass::Slow);
    let told = why.to_string();
    assert!(!told.contains("hush") && !told.contains("guest"), "{told}");
    std::fs::write(&file, good).unwrap();
    bench.up().await;
    bench.finish().await;
}

#[tokio::test]
async fn everything_that_differs_is_told_at_once_with_the_argument_s_name() {
    let url = broker().await;
    let amqp = amqp(url, &unique_prefix());
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = |what: &str| format!("{}.{what}", amqp.prefix);
    let differing = [
        ("requests", "x-delivery-limit", AMQPValue::LongInt(5)),
        ("wait.200ms", "x-message-ttl", AMQPValue::LongInt(300)),
    ];
    for (what, argument, value) in differing {
        let mut arguments = FieldTable::default();
        let quorum = AMQPValue::LongString("quorum".into());
        arguments.insert("x-queue-type".into(), quorum);
        arguments.insert(argument.into(), value);
        let options = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(queue(what).into(), options, arguments);
        declared.await.unwrap();
    }
    let mut bench = Bench::with(amqp.clone(), url).await;
    let BrokerEvent::Failed { why, .. } = bench.next().await else {
        panic!("what differs was taken");
    };
    let BrokerError::Topology(differences) = &why else {
        panic!("{why}");
    };
    let told: Vec<_> = differences
        .iter()
        .map(|TopologyDifference { object, what }| match what {
            DifferenceKind::Argument { argument, .. } => (object.clone(), argument.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    // The broker names one argument of a queue, the first that it compares.
    assert_eq!(told.len(), 2, "{why}");
    assert_eq!(told[0].0, format!("queue {}", queue("requests")));
    assert_eq!(told[1].0, format!("queue {}", queue("wait.200ms")));
    for what in ["requests", "wait.200ms"] {
        let deleted = channel.queue_delete(queue(what).into(), QueueDeleteOptions::default());
        deleted.await.unwrap();
    }
    bench.up().await;
    bench.finish().await;
}

#[tokio::test]
async fn without_leave_to_declare_everything_missing_is_told_at_once() {
    let url = broker().await;
    let undeclared = AmqpSection {
        declare_topology: false,
        ..amqp(url, &unique_prefix())
    };
    let (link, mut events) = start(undeclared.clone());
    let (why, _) = failed(&mut events).await;
    let BrokerError::Topology(differences) = &why else {
        panic!("{why}");
    };
    // 4 exchanges, 7 queues.
    assert_eq!(differences.len(), 11, "{why}");
    assert!(
        differences
            .iter()
            .all(|found| found.what == DifferenceKind::Missing)
    );
    link.close().await;
    // Once somebody has declared it, nothing is missed.
    let declared = AmqpSection {
        declare_topology: true,
        ..undeclared.clone()
    };
    let topology = TopologySettings::with_delays(&[Duration::from_millis(200)]);
    rename_worker::broker::declare_topology(&declared, &topology)
        .await
        .unwrap();
    let mut bench = Bench::with(undeclared, url).await;
    bench.up().await;
    bench.finish().await;
}

#[tokio::test]
async fn tls_asks_for_the_right_authority_and_reads_its_file_at_each_try() {
    let Some(broker) = tls_broker_or_skip("TLS to the broker").await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, Authority::new("somebody else").ca_pem).unwrap();
    let with_tls = AmqpSection {
        ca_file: Some(ca_file.clone()),
        client_cert_file: Some(broker.client.certificate_file.clone()),
        client_key_file: Some(broker.client.key_file.clone()),
        ..amqp(&broker.url, "tls")
    };
    let (link, mut events) = start(with_tls.clone());
    let (why, _) = failed(&mut events).await;
    assert!(matches!(why, BrokerError::Tls(_)), "{why}");
    std::fs::write(&ca_file, &broker.authority.ca_pem).unwrap();
    up(&mut events).await;
    link.close().await;

    // The broker asks for a certificate.
    let without = AmqpSection {
        client_cert_file: None,
        client_key_file: None,
        ..with_tls.clone()
    };
    let (link, mut events) = start(without);
    let (why, _) = failed(&mut events).await;
    assert!(!matches!(why, BrokerError::Topology(_)), "{why}");
    link.close().await;

    // A key that is not the certificate's.
    let other = broker.authority.client("another");
    let mismatched = AmqpSection {
        client_key_file: Some(other.key_file),
        ..with_tls
    };
    let (link, mut events) = start(mismatched);
    let (why, _) = failed(&mut events).await;
    assert!(matches!(why, BrokerError::Settings(_)), "{why}");
    link.close().await;
}

async fn up(events: &mut tokio::sync::mpsc::Receiver<BrokerEvent>) {
    let waiting = async {
        while let Some(event) = events.recv().await {
            if matches!(event, BrokerEvent::Up { .. }) {
                return;
            }
        }
        panic!("the link has ended");
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("up in time");
}
