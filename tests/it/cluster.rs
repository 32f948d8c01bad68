//! The worker on a cluster of three nodes, under load, while the node that leads its queue is
//! killed and comes back, and the one that leads it then is cut off from the others. Needs Docker.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use rename_worker::app::App;
use rename_worker::broker::declare_topology;
use rename_worker::broker::topology::model::{QueueNames, TopologySettings};
use rename_worker::config::{CredentialsSection, RetryDelays, Secret, Settings};
use rename_worker::core::model::request::AccountId;
use rename_worker::sandbox::{CLIENT_ID, CLIENT_SECRET, NewUser, Sandbox, SandboxOptions};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, interval, sleep, timeout};
use uuid::Uuid;

use crate::support::amqp::Raw;
use crate::support::cluster::{Cluster, ClusterNode, cluster_or_skip};
use crate::support::stage::{ACCOUNT, PATIENCE};

/// Requests at least; more are published for as long as something is broken.
const LEAST: usize = 600;
/// 25 a second.
const EVERY: Duration = Duration::from_millis(40);
/// So many renames more show that it works again.
const PROGRESS: usize = 50;
/// Every such request is for somebody whom nobody knows.
const FAILS: usize = 10;
/// A node may hang while it finds out that it is alone.
const ANSWER: Duration = Duration::from_secs(5);

/// One address for all nodes, as a load balancer has it: each connection goes to the next of them
/// that takes it.
async fn balancer(nodes: &[ClusterNode]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let nodes: Vec<String> = nodes
        .iter()
        .map(|node| {
            let (_, rest) = node.url.split_once('@').unwrap();
            rest.split_once('/').unwrap().0.to_owned()
        })
        .collect();
    tokio::spawn(async move {
        let mut first = 0;
        while let Ok((mut near, _)) = listener.accept().await {
            first += 1;
            let mut order = nodes.clone();
            order.rotate_left(first % nodes.len());
            tokio::spawn(async move {
                for node in order {
                    if let Ok(Ok(mut far)) = timeout(ANSWER, TcpStream::connect(node)).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                        return;
                    }
                }
            });
        }
    });
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

struct Asked {
    id: Uuid,
    body: Vec<u8>,
    old: String,
    new: String,
    fails: bool,
}

/// Publishes, each until the broker has confirmed it, until it is told to stop and there are enough.
async fn upstream(
    url: String,
    exchange: String,
    sandbox: Arc<Sandbox>,
    enough: Arc<AtomicBool>,
) -> Vec<Asked> {
    let mut asked = Vec::new();
    let mut pace = interval(EVERY);
    let mut way = None;
    while asked.len() < LEAST || !enough.load(Ordering::Relaxed) {
        pace.tick().await;
        let number = asked.len();
        let (id, fails) = (Uuid::new_v4(), number % FAILS == 0);
        let (old, new) = (format!("old{number}"), format!("new{number}"));
        if !fails {
            sandbox.seed([NewUser {
                account_id: account(),
                username: old.as_str().into(),
                id: None,
            }]);
        }
        let body = json!({
            "request_id": id, "account_id": ACCOUNT, "username": old, "new_username": new,
        });
        let body = body.to_string().into_bytes();
        while publish(&mut way, &url, &exchange, &body).await.is_none() {
            way = None;
            sleep(EVERY).await;
        }
        asked.push(Asked {
            id,
            body,
            old,
            new,
            fails,
        });
    }
    asked
}

async fn publish(
    way: &mut Option<(Connection, Channel)>,
    url: &str,
    exchange: &str,
    body: &[u8],
) -> Option<()> {
    if way.is_none() {
        let opening = async {
            let connection = Connection::connect(url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            let options = ConfirmSelectOptions::default();
            channel.confirm_select(options).await?;
            lapin::Result::Ok((connection, channel))
        };
        *way = Some(timeout(ANSWER, opening).await.ok()?.ok()?);
    }
    let (_, channel) = way.as_ref()?;
    let publishing = async {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let persistent = BasicProperties::default().with_delivery_mode(2);
        let confirm = channel
            .basic_publish(exchange.into(), "rename".into(), options, body, persistent)
            .await?;
        confirm.await
    };
    let confirmed = timeout(ANSWER, publishing).await.ok()?.ok()?;
    matches!(confirmed, Confirmation::Ack(None)).then_some(())
}

fn account() -> AccountId {
    AccountId::parse(ACCOUNT).unwrap()
}

fn settings(url: &str, base_url: &str) -> Settings {
    let mut settings = Settings::default();
    settings.amqp.url = Secret::inline(url);
    base_url.clone_into(&mut settings.api.base_url);
    settings.api.credentials = Some(CredentialsSection::Client {
        id: CLIENT_ID.to_owned(),
        secret: Secret::inline(CLIENT_SECRET),
    });
    settings.admin.listen = ([127, 0, 0, 1], 0).into();
    settings.retry.initial_delay = Duration::from_millis(20);
    settings.retry.ladder =
        RetryDelays::new([300, 1_000, 5_000].map(Duration::from_millis).to_vec()).unwrap();
    settings
}

/// A queue that hears every event and outlives any one node.
async fn listen(raw: &Raw, exchange: &str) -> String {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let options = QueueDeclareOptions::durable();
    let channel = raw.channel();
    let declared = channel.queue_declare("heard".into(), options, arguments);
    let name = declared.await.unwrap().name().to_string();
    let options = QueueBindOptions::default();
    let (queue, exchange) = (name.as_str().into(), exchange.into());
    let bound = channel.queue_bind(queue, exchange, "#".into(), options, FieldTable::default());
    bound.await.unwrap();
    name
}

/// Waits for renames, and says how long it took.
async fn renames(sandbox: &Sandbox, more: usize, what: &str) -> Duration {
    let (began, before) = (Instant::now(), sandbox.ledger().len());
    let coming = async {
        while sandbox.ledger().len() < before + more {
            sleep(EVERY).await;
        }
    };
    let came = timeout(PATIENCE, coming).await;
    assert!(came.is_ok(), "no {more} renames {what} within {PATIENCE:?}");
    let took = began.elapsed();
    println!("{more} renames {what} took {took:?}");
    took
}

/// What was told of each request, until all of them were told of.
async fn told(raw: &Raw, queue: &str, of: &[Asked]) -> HashMap<Uuid, Vec<String>> {
    let (options, channel) = (BasicConsumeOptions::default(), raw.another_channel().await);
    let consuming = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut events = consuming.await.unwrap();
    let mut told: HashMap<Uuid, Vec<String>> = HashMap::new();
    let hearing = async {
        while told.len() < of.len() {
            let event = events.next().await.unwrap().unwrap();
            event.ack(BasicAckOptions::default()).await.unwrap();
            let event: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
            let data = &event["data"];
            let id = data["request_id"].as_str().unwrap().parse().unwrap();
            let said = match event["type"].as_str().unwrap() {
                "user.renamed" => data["username"].to_string(),
                _ => data["reason"].to_string(),
            };
            told.entry(id).or_default().push(said);
        }
    };
    let heard = timeout(PATIENCE, hearing).await;
    assert!(
        heard.is_ok(),
        "{} of {} requests told",
        told.len(),
        of.len()
    );
    let _ = channel.close(200, "enough".into()).await;
    told
}

/// Breaks one node after the other, each time waiting until requests flow again.
async fn break_nodes(cluster: &Cluster, sandbox: &Sandbox, queue: &str) {
    renames(sandbox, PROGRESS, "at first").await;
    let killed = cluster.leader_of(queue).await;
    killed.kill().await;
    renames(sandbox, PROGRESS, "after the kill").await;
    killed.start_again().await;
    cluster.await_running_seen_by(killed, 3).await;
    renames(sandbox, PROGRESS, "with the node back").await;
    let parted = cluster.leader_of(queue).await;
    cluster.cut_off(parted).await;
    renames(sandbox, PROGRESS, "after the cut").await;
    cluster.join_again(parted).await;
    cluster.await_running_seen_by(parted, 3).await;
    renames(sandbox, PROGRESS, "with all joined again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_node_is_lost_every_request_ends_in_its_one_outcome() {
    let Some(cluster) = cluster_or_skip("the loss of a cluster's nodes").await else {
        return;
    };
    let began = Instant::now();
    let url = balancer(&cluster.nodes).await;
    let sandbox = Sandbox::start(SandboxOptions::default()).await.unwrap();
    let sandbox = Arc::new(sandbox);
    let settings = settings(&url, sandbox.base_url());
    let steps = settings.retry.ladder.steps().to_vec();
    declare_topology(&settings.amqp, &TopologySettings::from(&settings))
        .await
        .unwrap();
    let names = QueueNames::new(&settings.amqp.prefix);
    let raw = Raw::connect(&url).await;
    let heard = listen(&raw, &names.events).await;
    let worker = App::start(settings).await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn(upstream(
        url.clone(),
        names.requests.clone(),
        Arc::clone(&sandbox),
        Arc::clone(&enough),
    ));
    break_nodes(&cluster, &sandbox, &names.requests).await;
    enough.store(true, Ordering::Relaxed);
    let asked = publishing.await.unwrap();
    println!("{} requests", asked.len());

    // The old one may have been on a node that was lost.
    let raw = Raw::connect(&url).await;
    let told = told(&raw, &heard, &asked).await;
    worker.stop().await;
    let mut expected_letters = BTreeSet::new();
    for Asked {
        id,
        body,
        old,
        new,
        fails,
    } in &asked
    {
        let expected = if *fails {
            expected_letters.insert(body.clone());
            json!("user_not_found").to_string()
        } else {
            assert!(sandbox.user(&account(), old).is_none(), "{old} is left");
            assert!(sandbox.user(&account(), new).is_some(), "no {new}");
            json!(new).to_string()
        };
        let told = &told[id];
        assert!(told.iter().all(|said| *said == expected), "{id}: {told:?}");
    }
    let renamed = asked.iter().filter(|asked| !asked.fails).count();
    assert_eq!(sandbox.ledger().len(), renamed, "each took effect once");
    let count = raw.queue_length(&names.dead_letters).await as usize;
    let letters = raw.drain(&names.dead_letters, count, PATIENCE).await;
    let letters: BTreeSet<_> = letters.into_iter().map(|letter| letter.body).collect();
    assert!(letters == expected_letters, "dead letters = failures");
    for queue in names.request_queues(&steps) {
        assert_eq!(raw.queue_length(&queue).await, 0, "{queue}");
    }
    println!(
        "took {:?}, the cluster's start not counted",
        began.elapsed()
    );
}
