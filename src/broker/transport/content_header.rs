//! Rewrites the frame with a message's properties, so that it fits into the frame size that was
//! agreed on and says what is missing.
//!
//! A broker may send a longer one than was agreed: it adds `x-death` or `x-delivery-count` to a
//! message whose properties filled the frame already, and AMQP 1.0 has no such limit for what it
//! translates. lapin ends the connection there, and waits for ever for one that is longer than its
//! buffer. So the largest headers are left out until the rest fits, and the message is marked with
//! how many those were ([`TRUNCATED_HEADERS`]). A body that is going to be cut is marked with its
//! size ([`TRUNCATED_BODY`]). What RabbitMQ and we wrote, as the reason of a dead letter, is left out
//! last. Of headers without number, too, only [`HEADERS_MAX`] are passed on.
//! Publishers may write headers of these names: those are removed, so
//! that whoever reads the marks can believe them.
//!
//! The payload is read piece by piece and no more of it is kept than fits, so its length does not
//! matter.

use std::collections::BinaryHeap;

use super::frame_sanitizer;
use super::frame_sanitizer::{FieldSize, PROPERTIES, PropertyKind, flag_of, size_of_field};
use crate::messages::headers;
use crate::messages::headers::{TRUNCATED_BODY, TRUNCATED_HEADERS};

/// Class, weight, size of the body; the flags follow.
const BEFORE_FLAGS: usize = 2 + 2 + 8;
pub(in crate::broker) const FIXED: usize = BEFORE_FLAGS + 2;
const TABLE_LENGTH: usize = 4;
/// The most headers that are passed on. lapin takes some hundred bytes of memory for one that has
/// three in the frame, and the prefetch allows for hundreds of messages.
pub(in crate::broker) const HEADERS_MAX: usize = 1000;
/// The place of the headers among the properties.
const HEADERS: usize = 2;
/// AMQP's type of a whole number of 8 bytes.
const LONG: u8 = b'l';
/// What both marks begin with.
const MARKS: &[u8] = b"x-rename-truncated-";
/// The length of a mark's name, the name, the type, the number.
const fn mark_size(name: &str) -> usize {
    1 + name.len() + 1 + 8
}

/// All properties but the headers, at their longest, with both marks: this always fits, since AMQP
/// has no frames below 4096 bytes.
const LONGEST_REST: usize = FIXED
    + 10 * 256
    + 1
    + 1
    + 8
    + TABLE_LENGTH
    + mark_size(TRUNCATED_HEADERS)
    + mark_size(TRUNCATED_BODY);
const _: () = assert!(LONGEST_REST + 8 <= 4096);

/// Whether a payload may have a header with the name of a mark.
pub(in crate::broker) fn may_have_marks(payload: &[u8]) -> bool {
    payload.windows(MARKS.len()).any(|part| part == MARKS)
}

/// The size of the body that a payload announces.
pub(in crate::broker) fn body_size(payload: &[u8]) -> u64 {
    let size = payload.get(4..BEFORE_FLAGS).and_then(<[u8]>::first_chunk);
    size.map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// A content header that is being rewritten.
pub(in crate::broker) struct HeaderRewriter {
    /// The longest payload that may come out.
    room: usize,
    /// A longer body is cut to this.
    body_max: Option<u64>,
    fixed: [u8; FIXED],
    /// The properties that were read whole.
    flags: u16,
    before_headers: Vec<u8>,
    after_headers: Vec<u8>,
    kept: KeptProperty,
    /// The next property to be read, by its place.
    nth: usize,
    /// Bytes of the headers that were not read yet.
    table_left: usize,
    expect: PropertyCursor,
    /// What is read now, until it has `needed` bytes.
    item: Vec<u8>,
    needed: usize,
    /// This many bytes are dropped before anything else is read.
    skip: usize,
}

enum PropertyCursor {
    Fixed,
    /// A short string's length, then all of it.
    TextLength,
    Text,
    Number,
    TableLength,
    /// A header's name's length, then name and type, the value's length, then all of it.
    NameLength,
    NameAndType,
    ValueLength,
    Entry,
    /// All was read, or what comes cannot be.
    Nothing,
}

/// What came out.
pub(in crate::broker) struct RewrittenHeader {
    pub(in crate::broker) payload: Vec<u8>,
    /// The body's size, where it is longer than allowed.
    pub(in crate::broker) cut_from: Option<u64>,
}

impl HeaderRewriter {
    pub(in crate::broker) fn new(room: usize, body_max: Option<u64>) -> Self {
        Self {
            room,
            body_max,
            fixed: [0; FIXED],
            flags: 0,
            before_headers: Vec::new(),
            after_headers: Vec::new(),
            kept: KeptProperty::default(),
            nth: 0,
            table_left: 0,
            expect: PropertyCursor::Fixed,
            item: Vec::new(),
            needed: FIXED,
            skip: 0,
        }
    }

    /// Reads on.
    pub(in crate::broker) fn push(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if matches!(self.expect, PropertyCursor::Nothing) {
                return;
            }
            let taken = (self.needed - self.item.len()).min(bytes.len());
            self.item.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.skip > 0 || self.item.len() < self.needed {
                return;
            }
            self.step();
        }
    }

    /// What was asked for is there.
    fn step(&mut self) {
        match self.expect {
            PropertyCursor::Fixed => {
                self.fixed.copy_from_slice(&self.item);
                self.next_property();
            }
            PropertyCursor::TextLength => {
                self.more(usize::from(self.item[0]), PropertyCursor::Text);
            }
            PropertyCursor::Text | PropertyCursor::Number => {
                let to = if self.nth < HEADERS {
                    &mut self.before_headers
                } else {
                    &mut self.after_headers
                };
                to.append(&mut self.item);
                self.property_is_whole();
            }
            PropertyCursor::TableLength => {
                self.table_left = length(&self.item);
                // Of the table at least its beginning was there.
                self.flags |= flag_of(HEADERS);
                self.next_entry();
            }
            PropertyCursor::NameLength => {
                self.more(usize::from(self.item[0]) + 1, PropertyCursor::NameAndType);
            }
            PropertyCursor::NameAndType => {
                match self.item.last().copied().and_then(size_of_field) {
                    Some(FieldSize::Fixed(count)) => self.entry_of(self.item.len() + count),
                    Some(FieldSize::Prefixed) => {
                        self.more(TABLE_LENGTH, PropertyCursor::ValueLength);
                    }
                    // Nobody knows where such a value ends.
                    None => self.abandon_table(),
                }
            }
            PropertyCursor::ValueLength => {
                let value = length(&self.item[self.item.len() - TABLE_LENGTH..]);
                self.entry_of(self.item.len().saturating_add(value));
            }
            PropertyCursor::Entry => {
                self.table_left -= self.item.len();
                let entry = std::mem::take(&mut self.item);
                if !is_mark(&entry) {
                    self.kept.add(entry);
                    self.kept.shrink_to(self.room_for_entries());
                }
                self.next_entry();
            }
            PropertyCursor::Nothing => {}
        }
    }

    fn more(&mut self, bytes: usize, expect: PropertyCursor) {
        self.needed += bytes;
        self.expect = expect;
    }

    /// Of the header that is read now the size is known.
    fn entry_of(&mut self, size: usize) {
        if size > self.table_left {
            self.abandon_table();
        } else if size > self.room_for_entries() {
            self.table_left -= size;
            self.skip = size - self.item.len();
            if !is_mark(&self.item) {
                self.kept.left_out += 1;
            }
            self.item.clear();
            self.next_entry();
        } else {
            self.needed = size;
            self.expect = PropertyCursor::Entry;
        }
    }

    /// What is left of the headers cannot be read.
    fn abandon_table(&mut self) {
        self.kept.left_out += 1;
        self.skip = self.table_left.saturating_sub(self.item.len());
        self.item.clear();
        self.table_left = 0;
        self.property_is_whole();
    }

    fn next_entry(&mut self) {
        if self.table_left == 0 {
            self.item.clear();
            self.property_is_whole();
        } else {
            self.begin(1, PropertyCursor::NameLength);
        }
    }

    fn property_is_whole(&mut self) {
        self.flags |= flag_of(self.nth);
        self.nth += 1;
        self.next_property();
    }

    fn next_property(&mut self) {
        while let Some(property) = PROPERTIES.get(self.nth) {
            if self.announced() & flag_of(self.nth) == 0 {
                self.nth += 1;
                continue;
            }
            return match property {
                PropertyKind::ShortString => self.begin(1, PropertyCursor::TextLength),
                PropertyKind::Headers => self.begin(TABLE_LENGTH, PropertyCursor::TableLength),
                PropertyKind::Bytes(count) => self.begin(*count, PropertyCursor::Number),
            };
        }
        self.expect = PropertyCursor::Nothing;
    }

    fn begin(&mut self, needed: usize, expect: PropertyCursor) {
        self.item.clear();
        self.needed = needed;
        self.expect = expect;
    }

    fn announced(&self) -> u16 {
        u16::from_be_bytes([self.fixed[BEFORE_FLAGS], self.fixed[BEFORE_FLAGS + 1]])
    }

    fn cut_from(&self) -> Option<u64> {
        let size = body_size(&self.fixed);
        self.body_max.is_some_and(|max| size > max).then_some(size)
    }

    /// For headers, beside what is known of the rest so far.
    fn room_for_entries(&self) -> usize {
        let cut_mark = self.cut_from().map_or(0, |_| mark_size(TRUNCATED_BODY));
        let rest = FIXED
            + self.before_headers.len()
            + self.after_headers.len()
            + TABLE_LENGTH
            + mark_size(TRUNCATED_HEADERS)
            + cut_mark;
        self.room.saturating_sub(rest)
    }

    /// The payload has ended.
    pub(in crate::broker) fn finish(mut self) -> RewrittenHeader {
        if self.table_left > 0 {
            // It ended within a header.
            self.kept.left_out += 1;
        }
        self.kept.shrink_to(self.room_for_entries());
        let cut_from = self.cut_from();
        let (mut table, left_out) = self.kept.into_table();
        if left_out > 0 {
            mark(&mut table, TRUNCATED_HEADERS, left_out);
        }
        if let Some(size) = cut_from {
            mark(&mut table, TRUNCATED_BODY, size);
        }
        if !table.is_empty() {
            self.flags |= flag_of(HEADERS);
        }
        let mut payload = Vec::with_capacity(self.room.min(FIXED + LONGEST_REST + table.len()));
        payload.extend_from_slice(&self.fixed[..BEFORE_FLAGS]);
        if let (Some(_), Some(max)) = (cut_from, self.body_max) {
            payload[BEFORE_FLAGS - 8..].copy_from_slice(&max.to_be_bytes());
        }
        payload.extend_from_slice(&self.flags.to_be_bytes());
        payload.append(&mut self.before_headers);
        if self.flags & flag_of(HEADERS) != 0 {
            // It was made to fit into a frame, whose length has four bytes.
            let length = u32::try_from(table.len()).unwrap_or(u32::MAX);
            payload.extend_from_slice(&length.to_be_bytes());
            payload.append(&mut table);
        }
        payload.append(&mut self.after_headers);
        frame_sanitizer::properties(&mut payload);
        RewrittenHeader { payload, cut_from }
    }
}

#[cfg(test)]
impl HeaderRewriter {
    /// The bytes that it keeps.
    pub(in crate::broker) fn memory(&self) -> usize {
        self.item.capacity() + self.kept.bytes + self.before_headers.len()
    }
}

/// Headers, as bytes: the smallest of those that came, as many as fit and [`HEADERS_MAX`] at most.
#[derive(Default)]
struct KeptProperty {
    /// Those of others first, of those the largest, of equally large ones the last that came.
    entries: BinaryHeap<(PropertyOwner, usize, u64, Vec<u8>)>,
    came: u64,
    bytes: usize,
    left_out: u64,
}

impl KeptProperty {
    fn add(&mut self, entry: Vec<u8>) {
        self.came += 1;
        self.bytes += entry.len();
        self.entries
            .push((PropertyOwner::of(&entry), entry.len(), self.came, entry));
    }

    fn shrink_to(&mut self, room: usize) {
        while self.bytes > room || self.entries.len() > HEADERS_MAX {
            let Some((_, size, ..)) = self.entries.pop() else {
                return;
            };
            self.bytes -= size;
            self.left_out += 1;
        }
    }

    /// In the order in which they came, and how many were left out.
    fn into_table(self) -> (Vec<u8>, u64) {
        let mut entries = self.entries.into_vec();
        entries.sort_unstable_by_key(|(.., nth, _)| *nth);
        let entries: Vec<_> = entries.into_iter().map(|(.., entry)| entry).collect();
        (entries.concat(), self.left_out)
    }
}

/// Who has written a header, as far as its name tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PropertyOwner {
    /// We or RabbitMQ.
    Ours,
    Others,
}

impl PropertyOwner {
    fn of(entry: &[u8]) -> Self {
        let known = std::str::from_utf8(name_of(entry)).is_ok_and(|name| {
            headers::ALL.contains(&name)
                || name.starts_with(headers::ORIGINAL_PREFIX)
                || name == headers::REPLAY_OF
                || headers::is_x_death_header(name)
        });
        if known { Self::Ours } else { Self::Others }
    }
}

/// Whether a header, of which at least the name is there, has the name of a mark.
fn is_mark(entry: &[u8]) -> bool {
    let name = name_of(entry);
    name == TRUNCATED_HEADERS.as_bytes() || name == TRUNCATED_BODY.as_bytes()
}

fn name_of(entry: &[u8]) -> &[u8] {
    let (length, rest) = entry.split_first().unwrap_or((&0, &[]));
    rest.get(..usize::from(*length)).unwrap_or_default()
}

fn mark(table: &mut Vec<u8>, name: &str, number: u64) {
    table.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    table.extend_from_slice(name.as_bytes());
    table.push(LONG);
    table.extend_from_slice(&number.to_be_bytes());
}

fn length(bytes: &[u8]) -> usize {
    let length = bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes));
    usize::try_from(length).unwrap_or(usize::MAX)
}
