//! Messages that lapin cannot read, though AMQP and RabbitMQ allow them: texts that are no UTF-8
//! in the routing key, in properties and in the names of headers, and headers nested too deeply.
//! They end as any other, and nothing beside them is delivered twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::support::amqp::Raw;
use crate::support::stage::{ACCOUNT, Stage};

/// Stands for a byte that lapin's own publisher would not let us send. On its way to the broker it
/// becomes 0xff, which is nowhere in UTF-8. AMQP's framing of what is published here has no 0x7f.
const BAD: &str = "\u{7f}";

/// What becomes what on the way to the broker, in the same number of bytes.
type Changes = &'static [(&'static [u8], &'static [u8])];

const BAD_BYTES: Changes = &[(b"\x7f", b"\xff")];
/// Half of a surrogate pair, which some clients write as if it were a letter of its own, and which
/// RabbitMQ takes for one.
const SURROGATE: Changes = &[(b"\x7f\x7f\x7f", b"\xed\xa0\x80")];
/// A byte array, sent as an array that has the same bytes.
const ARRAY: Changes = &[(b"\x04deepx", b"\x04deepA")];

/// Opens a way to the broker for a publisher, on which it changes bytes once it is told to.
struct Mangler {
    raw: Raw,
    changed: Arc<AtomicUsize>,
}

impl Mangler {
    async fn to(url: &str, changes: Changes) -> Self {
        let (before, after) = url.split_once('@').unwrap();
        let (target, rest) = after.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = listener.local_addr().unwrap();
        let target = target.to_owned();
        let changed = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&changed);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let broker = TcpStream::connect(target).await.unwrap();
            let (mut said, mut to_client) = client.into_split();
            let (mut answered, mut to_broker) = broker.into_split();
            let back = tokio::io::copy(&mut answered, &mut to_client);
            let forth = async {
                // Larger than any message here, each of which is sent in one piece.
                let mut chunk = vec![0; 1 << 20];
                while let Ok(length @ 1..) = said.read(&mut chunk).await {
                    let part = &mut chunk[..length];
                    counting.fetch_add(change(part, changes), Ordering::Relaxed);
                    if to_broker.write_all(part).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                _ = back => {}
                () = forth => {}
            }
        });
        let raw = Raw::connect(&format!("{before}@{near}/{rest}")).await;
        Self { raw, changed }
    }

    /// Publishes what the broker gets changed in `times` places.
    async fn publish(
        &self,
        times: usize,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) {
        let before = self.changed.load(Ordering::Relaxed);
        self.raw
            .publish(exchange, routing_key, body, properties)
            .await;
        let changed = self.changed.load(Ordering::Relaxed) - before;
        assert_eq!(changed, times, "places changed on the way to the broker");
    }
}

fn change(bytes: &mut [u8], changes: Changes) -> usize {
    let mut changed = 0;
    for (from, to) in changes {
        let mut at = 0;
        while let Some(found) = bytes[at..]
            .windows(from.len())
            .position(|part| part == *from)
        {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to);
            at += to.len();
            changed += 1;
        }
    }
    changed
}

fn request(old: &str) -> Vec<u8> {
    let request = json!({
        "request_id": Uuid::new_v4(), "account_id": ACCOUNT,
        "username": old, "new_username": format!("{old}-new"),
    });
    request.to_string().into_bytes()
}

fn bad(text: &str) -> ShortString {
    text.replace('~', BAD).into()
}

fn headers(name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(name.replace('~', BAD).into(), value);
    BasicProperties::default().with_headers(headers)
}

/// The properties of one message each, none of which says anything about the request; and how many
/// bad bytes are in them.
fn harmless() -> Vec<(usize, BasicProperties)> {
    let plain = BasicProperties::default;
    let mut nested = FieldTable::default();
    nested.insert(bad("inner~"), AMQPValue::Boolean(true));
    vec![
        (1, plain().with_message_id(bad("m~"))),
        (1, plain().with_correlation_id(bad("~c"))),
        (1, plain().with_reply_to(bad("r~r"))),
        (1, plain().with_type(bad("~"))),
        (2, plain().with_app_id(bad("a~~"))),
        (1, headers("key-~", AMQPValue::LongInt(7))),
        (1, headers("value", AMQPValue::LongString(BAD.into()))),
        (1, headers("nested", AMQPValue::FieldTable(nested))),
    ]
}

fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == kind)
        .collect()
}

#[tokio::test]
async fn a_valid_request_with_texts_that_are_no_utf8_is_carried_out() {
    let stage = Stage::set(|_| {}).await;
    let url = crate::support::broker().await;
    let mangler = Mangler::to(url, BAD_BYTES).await;
    let mut expected = 0;
    for (nth, (times, properties)) in harmless().into_iter().enumerate() {
        stage.user(&format!("bad{nth}"));
        stage.user(&format!("good{nth}"));
        let body = request(&format!("bad{nth}"));
        let exchange = &stage.names.requests;
        mangler
            .publish(times, exchange, "rename", &body, properties)
            .await;
        stage
            .rename(&format!("good{nth}"), &format!("good{nth}-new"), None)
            .await;
        expected += 2;
    }
    stage.user("key");
    let (exchange, body) = (&stage.names.requests, request("key"));
    let key = format!("rename.{BAD}{BAD}");
    mangler
        .publish(2, exchange, &key, &body, BasicProperties::default())
        .await;
    expected += 1;
    let worker = stage.worker().await;
    let events = stage.events(expected).await;
    assert_eq!(of_type(&events, "user.renamed").len(), expected);
    // Each was delivered once: nobody paid for the neighbour.
    for event in &events {
        assert_eq!(event["data"]["attempts"], 1, "{event}");
        assert_eq!(event["data"]["outcome"], "applied", "{event}");
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn an_invalid_one_is_dead_lettered_byte_for_byte_and_costs_its_neighbours_nothing() {
    let stage = Stage::set(|_| {}).await;
    let url = crate::support::broker().await;
    let exchange = &stage.names.requests;
    let bad_bytes = Mangler::to(url, BAD_BYTES).await;
    let surrogate = Mangler::to(url, SURROGATE).await;
    stage.user("before");
    stage.user("after");
    stage.rename("before", "before-new", None).await;
    let typed = BasicProperties::default()
        .with_content_type(bad("application/~"))
        .with_message_id("kept".into());
    let body = request("typed");
    bad_bytes
        .publish(1, exchange, "rename.typed", &body, typed)
        .await;
    let garbage = b"\xfe\xff\x00 no request".to_vec();
    let key = format!("rename.{}", BAD.repeat(3));
    let named = headers("x-~", AMQPValue::LongString("value".into()));
    surrogate
        .publish(1, exchange, &key, &garbage, BasicProperties::default())
        .await;
    bad_bytes
        .publish(1, exchange, "rename.named", &garbage, named)
        .await;
    stage.rename("after", "after-new", None).await;
    let worker = stage.worker().await;
    let events = stage.events(5).await;
    assert_eq!(of_type(&events, "user.renamed").len(), 2);
    for failed in of_type(&events, "user.rename-failed") {
        assert_eq!(failed["data"]["reason"], "invalid_request", "{failed}");
    }
    let letters = stage.letters(3).await;
    for (key, body) in [
        ("rename.typed", &body),
        ("rename.named", &garbage),
        ("rename.???", &garbage),
    ] {
        let letter = letters.iter().find(|letter| letter.routing_key == key);
        let letter = letter.unwrap_or_else(|| panic!("no letter with {key}"));
        assert_eq!(letter.body, *body);
        let reason = letter.text_header("x-rename-reason");
        assert_eq!(reason.as_deref(), Some("invalid_request"));
        let properties = &letter.properties;
        match key {
            "rename.typed" => {
                let kept = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
                let kind = kept(properties.content_type());
                assert_eq!(kind.as_deref(), Some("application/?"));
                assert_eq!(kept(properties.message_id()).as_deref(), Some("kept"));
            }
            "rename.named" => {
                assert_eq!(letter.text_header("x-?").as_deref(), Some("value"));
            }
            _ => {}
        }
    }
    stage.strike(worker).await;
}

#[tokio::test]
async fn headers_nested_without_end_do_not_end_the_worker() {
    let stage = Stage::set(|_| {}).await;
    let url = crate::support::broker().await;
    let mangler = Mangler::to(url, ARRAY).await;
    // Arrays in each other, as many as fit into one frame of 128 KiB.
    let levels = 25_000_usize;
    let mut nested = Vec::new();
    for level in (0..levels).rev() {
        nested.push(b'A');
        nested.extend(u32::try_from(level * 5).unwrap().to_be_bytes());
    }
    stage.user("deep");
    stage.user("flat");
    let deep = headers("deep", AMQPValue::ByteArray(nested.into()));
    let body = request("deep");
    mangler
        .publish(1, &stage.names.requests, "rename", &body, deep)
        .await;
    stage.rename("flat", "flatter", None).await;
    let worker = stage.worker().await;
    let events = stage.events(2).await;
    assert_eq!(of_type(&events, "user.renamed").len(), 2, "{events:?}");
    stage.strike(worker).await;
}

#[tokio::test]
async fn headers_that_just_fit_into_a_frame_do_not_keep_a_request_from_its_end() {
    let stage = Stage::set(|_| {}).await;
    let exchange = &stage.names.requests;
    // RabbitMQ's frames have 131,072 bytes at most; ours and its own headers need a part of that.
    let filler = AMQPValue::LongString("f".repeat(130_980).into());
    stage.user("full");
    stage.user("flat");
    let renamed = headers("filler", filler.clone());
    let raw = &stage.raw;
    raw.publish(exchange, "rename", &request("full"), renamed)
        .await;
    let unknown = request("unknown");
    let failing = headers("filler", filler).with_message_id("m".into());
    raw.publish(exchange, "rename", &unknown, failing).await;
    stage.rename("flat", "flatter", None).await;
    let worker = stage.worker().await;
    let events = stage.events(3).await;
    assert_eq!(of_type(&events, "user.renamed").len(), 2, "{events:?}");
    let letter = stage.letters(1).await.remove(0);
    assert_eq!(letter.body, unknown);
    let reason = letter.text_header("x-rename-reason");
    assert_eq!(reason.as_deref(), Some("user_not_found"));
    stage.strike(worker).await;
}
