//! Draws messages from a seed: requests, nearly requests and anything else, with properties and
//! headers of every type. What RabbitMQ itself refuses, or would route elsewhere or drop by itself, is
//! left out: `user_id` and `expiration`, `CC` and `BCC`, its own `x-death` and `x-delivery-count`.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::publisher::{Message, long, short};
use crate::support::stage::ACCOUNT;

/// Names that requests share, so that some of them meet.
pub const NAMES: usize = 2_000;

/// New names are drawn of so many times as many, so that most of them are nobody's yet.
const FREE: usize = 4;

/// Texts that somebody on the way may trip over.
const TEXTS: [&str; 24] = [
    "",
    ".",
    "..",
    "/",
    "%2e",
    "\\",
    "\"",
    "\0",
    "\u{1b}[2J",
    "\u{7f}",
    "\u{9b}",
    "\u{202e}",
    "\u{fffe}",
    "😀",
    "ä\u{301}",
    "\u{200b}",
    "\n",
    "\r\n",
    "{}",
    "null",
    "a@b",
    "2026-11-24T10:00:00Z",
    "9999-12-31T23:59:59.999-23:59",
    "0000-01-01T00:00:00Z",
];

/// Headers that mean something to the worker or to the broker.
const HEADERS: [&str; 18] = [
    "x-rename-attempts",
    "x-rename-first-attempt-at",
    "x-rename-maybe-applied",
    "x-rename-copy",
    "x-rename-original-exchange",
    "x-rename-original-routing-key",
    "x-rename-original-cc",
    "x-rename-reason",
    "x-rename-detail",
    "x-rename-failed-at",
    "x-rename-request-id",
    "x-rename-replay",
    "x-first-death-queue",
    "x-acquired-count",
    "traceparent",
    "cloudEvents:specversion",
    "cloudEvents_specversion",
    "a",
];

const TYPES: [&str; 4] = [
    "application/json",
    "application/cloudevents+json",
    "text/plain; charset=utf-8",
    "application/octet-stream",
];

/// Levels of tables and arrays, mostly.
const DEPTH_MAX: usize = 3;

pub fn name(nth: usize) -> String {
    format!("fuzz-{nth}@example.com")
}

pub fn message(rng: &mut SmallRng) -> Message {
    let body = body(rng);
    Message {
        routing_key: routing_key(rng),
        properties: properties(rng),
        body,
    }
}

fn routing_key(rng: &mut SmallRng) -> Vec<u8> {
    match rng.random_range(0..8) {
        0 => Vec::new(),
        1 => vec![b'x'; rng.random_range(0..=255)],
        2 => text(rng).into_bytes(),
        _ => format!("rename.{ACCOUNT}").into_bytes(),
    }
}

/// Flags, and what they announce.
fn properties(rng: &mut SmallRng) -> Vec<u8> {
    let mut flags = 0_u16;
    let mut values = Vec::new();
    // content type and encoding, headers, delivery mode, priority, correlation id, reply to,
    // expiration, message id, timestamp, type, user id, app id, cluster id
    let chances = [80, 5, 70, 90, 20, 25, 15, 0, 25, 25, 15, 0, 15, 10];
    for (nth, chance) in chances.into_iter().enumerate() {
        if rng.random_range(0..100) >= chance {
            continue;
        }
        flags |= 1 << 15 >> nth;
        values.extend(match nth {
            0 => {
                short(TYPES[usize::from(rng.random_bool(0.1)) * rng.random_range(0..4)].as_bytes())
            }
            2 => table(rng, 0),
            3 => vec![2],
            4 => bytes(rng, 1),
            9 => bytes(rng, 8),
            _ => short(&any_short(rng)),
        });
    }
    [&flags.to_be_bytes()[..], &values].concat()
}

fn table(rng: &mut SmallRng, depth: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    for _ in 0..rng.random_range(0..6) {
        let name = if rng.random_bool(0.5) {
            HEADERS
                .choose(rng)
                .expect("there are some")
                .as_bytes()
                .to_vec()
        } else {
            // Its own prefix, so that it is none of the broker's.
            [&b"h-"[..], &any_short(rng)[..]].concat()
        };
        entries.extend(short(&name[..name.len().min(255)]));
        entries.extend(field(rng, depth + 1));
    }
    long(&entries)
}

fn field(rng: &mut SmallRng, depth: usize) -> Vec<u8> {
    const KINDS: &[u8] = b"tbBsuIilfdDTSxVFA";
    let mut kind = *KINDS.choose(rng).expect("there are some");
    if depth > DEPTH_MAX && matches!(kind, b'F' | b'A') {
        kind = b'V';
    }
    let value = match kind {
        b't' => vec![u8::from(rng.random_bool(0.5))],
        b'b' | b'B' => bytes(rng, 1),
        b's' | b'u' => bytes(rng, 2),
        b'I' | b'i' => bytes(rng, 4),
        b'f' => rng.random::<f32>().to_be_bytes().to_vec(),
        b'd' => rng.random::<f64>().to_be_bytes().to_vec(),
        b'D' => bytes(rng, 5),
        b'l' | b'T' => bytes(rng, 8),
        b'S' | b'x' => long(&any_short(rng)),
        b'V' => Vec::new(),
        b'F' => table(rng, depth),
        _ if rng.random_bool(0.05) => return deep(rng),
        _ => {
            let items: Vec<_> = (0..rng.random_range(0..4))
                .map(|_| field(rng, depth + 1))
                .collect();
            long(&items.concat())
        }
    };
    [&[kind], &value[..]].concat()
}

fn deep(rng: &mut SmallRng) -> Vec<u8> {
    let mut value = b"V".to_vec();
    for _ in 0..rng.random_range(20..300) {
        value = [b"A", &long(&value)[..]].concat();
    }
    value
}

/// At most 255 bytes, of which some are no UTF-8.
fn any_short(rng: &mut SmallRng) -> Vec<u8> {
    match rng.random_range(0..10) {
        0..4 => {
            let length = rng.random_range(0..30);
            bytes(rng, length)
        }
        4 => vec![b'x'; 250],
        _ => text(rng).into_bytes(),
    }
}

fn text(rng: &mut SmallRng) -> String {
    let parts = rng.random_range(0..4);
    (0..parts)
        .filter_map(|_| TEXTS.choose(rng).copied())
        .collect()
}

fn bytes(rng: &mut SmallRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn body(rng: &mut SmallRng) -> Vec<u8> {
    let request = request(rng);
    match rng.random_range(0..100) {
        0..55 => request.to_string().into_bytes(),
        55..70 => changed(rng, request).to_string().into_bytes(),
        70..80 => enveloped(rng, &request).to_string().into_bytes(),
        80..92 => damaged(rng, request.to_string().into_bytes()),
        92..95 => {
            let length = rng.random_range(0..200);
            bytes(rng, length)
        }
        95 => b"[".repeat(rng.random_range(1..60_000)),
        96 => b"{\"a\":".repeat(rng.random_range(1..10_000)),
        97 => vec![b' '; rng.random_range(64_000..70_000)],
        98 => request
            .to_string()
            .replace('{', &format!("{{\"f\":\"{}\",", "y".repeat(66_000)))
            .into_bytes(),
        _ => Vec::new(),
    }
}

fn request(rng: &mut SmallRng) -> Value {
    let id = Uuid::from_u128(rng.random());
    let mut request = json!({
        "request_id": id, "account_id": ACCOUNT,
        "username": name(rng.random_range(0..NAMES)),
        "new_username": name(rng.random_range(0..NAMES * FREE)),
    });
    if rng.random_bool(0.1) {
        request["user_id"] = json!(Uuid::from_u128(rng.random()));
    }
    if rng.random_bool(0.1) {
        request["not_after"] = json!(TEXTS.choose(rng));
    }
    if rng.random_bool(0.2) {
        request["requested_at"] = json!(TEXTS[TEXTS.len() - 3 + rng.random_range(0..3)]);
    }
    request
}

fn changed(rng: &mut SmallRng, mut request: Value) -> Value {
    let fields = request.as_object_mut().expect("it is one");
    for _ in 0..rng.random_range(1..4) {
        let names: Vec<String> = fields.keys().cloned().collect();
        let name = names.choose(rng).cloned().unwrap_or_default();
        if rng.random_bool(0.3) {
            fields.remove(&name);
        } else {
            let name = if rng.random_bool(0.2) {
                text(rng)
            } else {
                name
            };
            fields.insert(name, value(rng, 0));
        }
    }
    request
}

fn value(rng: &mut SmallRng, depth: usize) -> Value {
    match rng.random_range(0..if depth > DEPTH_MAX { 6 } else { 8 }) {
        0 | 1 => text(rng).into(),
        2 => rng.random::<i64>().into(),
        3 => json!(rng.random::<f64>()),
        4 => Value::Null,
        5 => "é".repeat(rng.random_range(250..260)).into(),
        6 => (0..rng.random_range(0..3))
            .map(|_| value(rng, depth + 1))
            .collect(),
        _ => {
            let fields = (0..rng.random_range(0..3)).map(|_| (text(rng), value(rng, depth + 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

fn enveloped(rng: &mut SmallRng, request: &Value) -> Value {
    let mut event = json!({"specversion": "1.0", "id": "x", "type": "t", "source": "/s"});
    let data = if rng.random_bool(0.8) {
        request.clone()
    } else {
        value(rng, 0)
    };
    event["data"] = data;
    if rng.random_bool(0.1) {
        event["data_base64"] = value(rng, 0);
    }
    event
}

fn damaged(rng: &mut SmallRng, mut body: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.random_range(1..7) {
        let at = rng.random_range(0..body.len().max(1)).min(body.len());
        match rng.random_range(0..3) {
            0 if at < body.len() => body[at] = rng.random(),
            1 => body.insert(at, rng.random()),
            _ => {
                let end = (at + rng.random_range(1..20)).min(body.len());
                body.drain(at..end);
            }
        }
    }
    body
}
