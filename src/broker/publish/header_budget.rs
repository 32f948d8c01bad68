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
const BROKER_OVERHEAD: usize = 4096;

/// No more than this part of a frame is reserved for that, where frames are small.
const BROKERS_PART: usize = 8;

/// How many bytes headers may have beside `properties` and `ours`, and what the broker adds later.
pub(in crate::broker) fn header_budget(
    frame_max: u32,
    properties: &BasicProperties,
    ours: &FieldTable,
) -> usize {
    let all = frame(frame_max);
    let reserved = BROKER_OVERHEAD.min(all / BROKERS_PART);
    all.saturating_sub(rest(properties) + table(ours.inner()) + reserved)
}

/// How many bytes a message's headers may have beside `properties`.
pub(in crate::broker) fn whole_room(frame_max: u32, properties: &BasicProperties) -> usize {
    frame(frame_max).saturating_sub(rest(properties))
}

/// Shortens the longest text among our own headers, if not even those fit.
pub(in crate::broker) fn shorten(
    ours: &mut FieldTable,
    frame_max: u32,
    properties: &BasicProperties,
) {
    let excess = (rest(properties) + table(ours.inner())).saturating_sub(frame(frame_max));
    if excess == 0 {
        return;
    }
    let texts = ours.inner().iter().filter_map(|(name, value)| match value {
        AMQPValue::LongString(text) => Some((text.as_bytes().len(), name, text)),
        _ => None,
    });
    let Some((length, name, text)) = texts.max_by_key(|(length, ..)| *length) else {
        return;
    };
    let text = String::from_utf8_lossy(text.as_bytes()).into_owned();
    let end = text.floor_char_boundary(length.saturating_sub(excess));
    let name = name.clone();
    ours.insert(name, AMQPValue::LongString(text[..end].into()));
}

/// What was left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct LeftOut {
    pub(in crate::broker) count: usize,
    pub(in crate::broker) bytes: usize,
}

/// Leaves out the largest headers until the rest fits.
pub(in crate::broker) fn drop_oversized_headers(
    headers: &mut BTreeMap<ShortString, AMQPValue>,
    room: usize,
) -> LeftOut {
    fit_others(headers, room, |_| false)
}

/// The same, but those that are `protected` stay.
pub(in crate::broker) fn fit_others(
    headers: &mut BTreeMap<ShortString, AMQPValue>,
    room: usize,
    protected: impl Fn(&str) -> bool,
) -> LeftOut {
    let mut left_out = LeftOut::default();
    let mut all = table(headers);
    if all <= room {
        return left_out;
    }
    let others = headers.iter().filter(|(name, _)| !protected(name.as_str()));
    let mut sizes: Vec<_> = others
        .map(|(name, value)| (entry(name, value), name.clone()))
        .collect();
    sizes.sort_unstable();
    while all > room
        && let Some((size, name)) = sizes.pop()
    {
        headers.remove(&name);
        all -= size;
        left_out.count += 1;
        left_out.bytes += size;
    }
    left_out
}

/// What a frame holds.
fn frame(frame_max: u32) -> usize {
    usize::try_from(frame_max).map_or(usize::MAX, |all| all.saturating_sub(FRAME))
}

/// All properties but the headers.
fn rest(properties: &BasicProperties) -> usize {
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
    FIXED + texts.iter().copied().flatten().map(short).sum::<usize>()
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
            let out = drop_oversized_headers(&mut left, room);
            let names: String = left.keys().map(ShortString::as_str).collect();
            assert_eq!(names, kept, "{room}");
            assert_eq!(out.count + left.len(), all.len());
            assert_eq!(out.bytes, table(&all) - table(&left));
        }
    }

    #[test]
    fn what_is_protected_stays_however_large_it_is() {
        let mut all = headers(&[("a", 100), ("b", 1_000), ("c", 500)]);
        let out = fit_others(&mut all, 0, |name| name == "b");
        assert_eq!(out.count, 2);
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn a_frame_full_of_tiny_headers_is_fitted_in_one_go() {
        let mut all: BTreeMap<ShortString, AMQPValue> = (0..26_000_u32)
            .map(|nth| (format!("{nth:x}").into(), AMQPValue::Void))
            .collect();
        let before = tokio::time::Instant::now();
        let out = drop_oversized_headers(&mut all, 1_000);
        // To look through all of them for each takes minutes.
        assert!(before.elapsed() < std::time::Duration::from_secs(2));
        assert!(table(&all) <= 1_000 && table(&all) > 990);
        assert_eq!(out.count + all.len(), 26_000);
    }

    #[test]
    fn our_own_headers_are_shortened_where_not_even_they_fit() {
        let plain = BasicProperties::default();
        let mut ours = FieldTable::from(headers(&[("long", 5_000), ("short", 10)]));
        ours.insert(
            "long".into(),
            AMQPValue::LongString("ü".repeat(2_500).into()),
        );
        shorten(&mut ours, 4096, &plain);
        let size = table(ours.inner()) + rest(&plain) + FRAME;
        assert!(size <= 4096 && size > 4090, "{size}");
        let before = ours.clone();
        shorten(&mut ours, 4096, &plain);
        assert_eq!(ours, before);
    }

    #[test]
    fn what_we_add_and_what_the_broker_adds_is_reckoned_with() {
        let plain = BasicProperties::default();
        let none = FieldTable::default();
        let all = header_budget(131_072, &plain, &none);
        assert!(all > 126_000 && all < 127_000, "{all}");
        let ours = FieldTable::from(headers(&[("h", 93)]));
        assert_eq!(header_budget(131_072, &plain, &ours), all - 100);
        let with_text = BasicProperties::default().with_app_id("123456789".into());
        assert_eq!(header_budget(131_072, &with_text, &none), all - 10);
        let small = header_budget(4_096, &plain, &none);
        assert!(small > 3_500 && small < 3_600, "{small}");
        assert_eq!(header_budget(20, &plain, &none), 0);
        assert!(whole_room(131_072, &plain) > all + 4_000);
    }
}
