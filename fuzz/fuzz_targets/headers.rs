//! A message's properties and headers, from the broker and back to it. What is believed of them is
//! bounded, what is published again fits into a frame and holds nothing that hurts, and a review's
//! export and import keep all of it.

#![no_main]

use amq_protocol::frame::{
    AMQPContentHeader, AMQPFrame, generation::gen_frame, parsing::parse_frame,
};
use amq_protocol::types::AMQPValue;
use arbitrary::Unstructured;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use rename_worker::broker::fuzzing::{
    FuzzedDelivery, WAIT_MILLISECONDS, published_again, reviewed, sanitized, sent,
};
use rename_worker::core::model::outcome::{Failed, Reason};
use rename_worker::messages::headers;
use rename_worker::messages::headers::MessageOrigin;
use rename_worker::messages::message::MessageView;
use rename_worker_fuzz::{HEADER, content_header, frame};

/// RabbitMQ's usual size, and a small one.
const FRAME_MAX: [u32; 2] = [128 * 1024, 16 * 1024];

/// More attempts than any policy allows.
const ATTEMPTS_MAX: u32 = 10_000;

fuzz_target!(|data: &[u8]| {
    let mut from = Unstructured::new(data);
    let _ = one(&mut from);
});

fn one(from: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let frame_max = *from.choose(&FRAME_MAX)?;
    let (as_dead_letter, redelivered) = from.arbitrary()?;
    let exchange = (*from.choose(&["", "rename.requests"])?).to_owned();
    let stream = frame(HEADER, &content_header(from, 1)?);
    let Ok((_, AMQPFrame::Header(_, header))) = parse_frame(&*sanitized(&stream, stream.len()))
    else {
        panic!("lapin cannot read a frame that RabbitMQ may send");
    };
    let delivered = FuzzedDelivery {
        exchange,
        routing_key: "rename.T12345678".to_owned(),
        redelivered,
        properties: header.properties,
        body: b"{}".to_vec(),
    };
    is_bounded(&reviewed(delivered.clone()));
    is_published_again(delivered.clone(), as_dead_letter, frame_max);
    is_kept(delivered, frame_max);
    Ok(())
}

fn is_bounded(message: &MessageView) {
    let now = Timestamp::UNIX_EPOCH;
    let carried = headers::attempt_history(&message.headers, now);
    assert!(carried.attempts <= ATTEMPTS_MAX);
    assert!(carried.first_attempt_at.is_none_or(|first| first <= now));
}

fn is_published_again(delivered: FuzzedDelivery, as_dead_letter: bool, frame_max: u32) {
    let origin = MessageOrigin {
        exchange: "rename.requests",
        routing_key: "rename.T12345678",
    };
    let failed = Failed {
        reason: Reason::InvalidRequest,
        detail: "/username: is missing".into(),
        http_status: None,
        attempts: 0,
        first_attempt_at: None,
        failed_at: Timestamp::UNIX_EPOCH,
    };
    let ours = headers::dead_letter_headers(&failed, None, origin);
    let body = delivered.body.clone();
    let again = published_again(delivered, as_dead_letter, ours.clone(), frame_max);
    let again = again.expect("both addresses are short");
    fits(&again, frame_max);
    assert_eq!(again.body, body);
    let properties = &again.properties;
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert!(properties.user_id().is_none());
    let expiration = properties.expiration().as_ref().map(|text| text.as_str());
    assert_eq!(expiration, (!as_dead_letter).then_some(WAIT_MILLISECONDS));
    let direct = |to: &str| to == "amq.rabbitmq.reply-to";
    assert!(
        !properties
            .reply_to()
            .as_ref()
            .is_some_and(|to| direct(to.as_str()))
    );
    let table = properties
        .headers()
        .as_ref()
        .expect("ours are there")
        .inner();
    assert!(!table.contains_key("CC") && !table.contains_key("BCC"));
    assert!(as_dead_letter || !table.contains_key("x-death"));
    for (name, _) in &ours {
        assert!(table.contains_key(*name), "{name} is missing");
    }
    let AMQPValue::LongString(reason) = &table[headers::REASON] else {
        panic!("the reason is no text");
    };
    assert_eq!(reason.as_bytes(), b"invalid_request");
}

/// What a review publishes has one frame to fit into and reads again as it was sent; and in a file
/// nothing of it is lost.
fn is_kept(delivered: FuzzedDelivery, frame_max: u32) {
    let message = reviewed(delivered);
    let written = serde_json::to_string(&message).expect("a message is JSON");
    let read: MessageView = serde_json::from_str(&written).expect("what was exported is read");
    let rewritten = serde_json::to_string(&read).expect("a message is JSON");
    assert_eq!(written, rewritten, "a file loses something");
    let first = sent(read, frame_max).expect("what was delivered can be sent");
    fits(&first, frame_max);
    let again = sent(reviewed(first.clone()), frame_max).expect("what was sent can be sent");
    let texts = [first, again].map(|sent| format!("{:?}", sent.properties));
    assert_eq!(texts[0], texts[1], "a second passage changes it");
}

fn fits(message: &FuzzedDelivery, frame_max: u32) {
    let header = AMQPContentHeader {
        class_id: 60,
        body_size: 1,
        properties: message.properties.clone(),
    };
    let frame = AMQPFrame::Header(1, header);
    let written = gen_frame(&frame)(Vec::new().into()).expect("memory takes it");
    let size = written.write.len();
    assert!(
        size <= frame_max as usize,
        "{size} bytes do not fit into {frame_max}"
    );
}
