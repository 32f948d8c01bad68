//! Makes the headers of a request that is published again fit into one frame.
//!
//! All properties of a message go into one frame, and a broker ends the connection where that is
//! longer than was agreed on. A request whose own headers fill it nearly has no room for ours: every
//! try to dead-letter it or to let it wait would cost the connection, and the next one again. So its
//! largest headers are left out until all fit.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// What a frame has beside its payload.
const FRAME: usize = 8;
/// Class, weight, length of the body, flags, and the numbers among the properties.
const FIXED: usize = 14 + 1 + 1 + 8;
/// For what the broker adds: the counts of deliveries and the history of dead-lettering, which has
/// an entry for each step of the ladder.
const BROKERS: usize = 4096;

/// How many bytes a request's own headers may have beside `properties` and `ours`. No limit was
/// agreed on where it is 0.
pub(super) fn room(frame_max: u32, properties: &BasicProperties, ours: &FieldTable) -> usize {
    if frame_max == 0 {
        return usize::MAX;
    }
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.expiration(),
        properties.message_id(),
        properties.kind(),
        properties.user_id(),
        properties.app_id(),
        properties.cluster_id(),
    ];
    let texts: usize = texts.iter().copied().flatten().map(short).sum();
    let taken = FRAME + FIXED + BROKERS + texts + table(ours.inner());
    usize::try_from(frame_max).map_or(usize::MAX, |all| all.saturating_sub(taken))
}

/// Leaves out the largest headers until the rest fits. The sizes of those that were.
pub(super) fn fit(headers: &mut BTreeMap<ShortString, AMQPValue>, room: usize) -> Vec<usize> {
    let mut all = table(headers);
    let mut left_out = Vec::new();
    while all > room {
        let sizes = headers
            .iter()
            .map(|(name, value)| (entry(name, value), name));
        let Some((size, name)) = sizes.max().map(|(size, name)| (size, name.clone())) else {
            break;
        };
        headers.remove(&name);
        all -= size;
        left_out.push(size);
    }
    left_out
}

fn table(fields: &BTreeMap<ShortString, AMQPValue>) -> usize {
    let entries: usize = fields.iter().map(|(name, value)| entry(name, value)).sum();
    size_of::<u32>() + entries
}

fn entry(name: &ShortString, value: &AMQPValue) -> usize {
    short(name) + field(value)
}

fn short(text: &ShortString) -> usize {
    1 + text.as_str().len()
}

/// With its type, one byte.
fn field(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => short(text),
        AMQPValue::LongString(text) => size_of::<u32>() + text.as_bytes().len(),
        AMQPValue::ByteArray(bytes) => size_of::<u32>() + bytes.as_slice().len(),
        AMQPValue::FieldArray(items) => {
            size_of::<u32>() + items.as_slice().iter().map(field).sum::<usize>()
        }
        AMQPValue::FieldTable(fields) => table(fields.inner()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&str, usize)]) -> BTreeMap<ShortString, AMQPValue> {
        let text = |length| AMQPValue::LongString("x".repeat(length).into());
        all.iter()
            .map(|&(name, length)| (name.into(), text(length)))
            .collect()
    }

    #[test]
    fn the_largest_headers_are_left_out_and_no_more_than_need_be() {
        // Each takes its length and 7 bytes more, all of them 4.
        let all = headers(&[("a", 100), ("b", 1_000), ("c", 500), ("d", 0)]);
        for (room, kept) in [
            (1_632, "abcd"),
            (1_631, "acd"),
            (625, "acd"),
            (624, "ad"),
            (117, "d"),
            (10, ""),
            (0, ""),
        ] {
            let mut left = all.clone();
            let out = fit(&mut left, room);
            let names: String = left.keys().map(ShortString::as_str).collect();
            assert_eq!(names, kept, "{room}");
            assert_eq!(out.len() + left.len(), all.len());
        }
    }

    #[test]
    fn what_we_add_and_what_the_broker_adds_is_reckoned_with() {
        let plain = BasicProperties::default();
        let none = FieldTable::default();
        let all = room(131_072, &plain, &none);
        assert!(all > 126_000 && all < 127_000, "{all}");
        let ours = FieldTable::from(headers(&[("h", 93)]));
        assert_eq!(room(131_072, &plain, &ours), all - 100);
        let with_text = BasicProperties::default().with_app_id("123456789".into());
        assert_eq!(room(131_072, &with_text, &none), all - 10);
        assert_eq!(room(0, &plain, &none), usize::MAX);
        assert_eq!(room(1_000, &plain, &none), 0);
    }
}
