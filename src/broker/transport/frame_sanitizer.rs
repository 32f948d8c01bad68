//! Puts right, in place and in the same number of bytes, what lapin cannot read in a frame though
//! AMQP and RabbitMQ allow it.
//!
//! AMQP's short strings are bytes. RabbitMQ takes any bytes in a message's properties and in the
//! names of its headers (and in a routing key what its own, laxer check calls UTF-8); lapin wants
//! UTF-8, and ends the connection where it finds none. The broker then delivers the same message
//! again: one such message keeps the worker from all others, whose deliveries are counted until
//! they are dropped. Headers nested some thousand deep are worse: lapin reads them by recursion,
//! its thread's stack overflows, and the process is gone.
//!
//! So before lapin sees it
//!
//! - each byte that makes a short string no UTF-8 becomes `?`,
//! - a table or array nested deeper than [`MAX_NESTING`] becomes a byte array of the same bytes,
//! - and so does a header's value, where all values so far have more than [`FIELDS_MAX`] fields in
//!   them: lapin takes some hundred bytes of memory for a field that has one in the frame.
//!
//! A dead letter or a copy of such a message is published with what was read, so these bytes of its
//! properties, routing key and header names are not those that came. Its body is, byte for byte,
//! and so are the values of its headers. Two headers whose names become equal become one.
//!
//! A frame that is malformed otherwise is left to lapin; the broker sends none.

/// Levels of tables and arrays in each other. RabbitMQ's own `x-death` has three.
const MAX_NESTING: usize = 32;
/// Fields in tables and arrays that are headers' values, of all of them together. RabbitMQ's `x-death`
/// has eight for each queue that a message went through.
const FIELDS_MAX: usize = 1000;
const REPLACEMENT: u8 = b'?';

/// A class and its method.
pub(in crate::broker) type MethodFrame = (u16, u16);
const CONNECTION_CLOSE: MethodFrame = (10, 50);
pub(in crate::broker) const CONNECTION_TUNE: MethodFrame = (10, 30);
pub(in crate::broker) const CHANNEL_CLOSE: MethodFrame = (20, 40);
pub(in crate::broker) const CHANNEL_CLOSE_OK: MethodFrame = (20, 41);
pub(in crate::broker) const BASIC_RETURN: MethodFrame = (60, 50);
pub(in crate::broker) const BASIC_DELIVER: MethodFrame = (60, 60);
pub(in crate::broker) const BASIC_GET_OK: MethodFrame = (60, 71);

/// A type of a field that has a length, of four bytes, and bytes.
const ARRAY: u8 = b'A';
const TABLE: u8 = b'F';
const LONG_STRING: u8 = b'S';
const BYTES: u8 = b'x';

/// How long the value of a field is that has this type.
pub(in crate::broker) enum FieldSize {
    Fixed(usize),
    /// Four bytes of length come before it.
    Prefixed,
}

/// `None` for a type that AMQP and RabbitMQ do not know.
pub(in crate::broker) const fn size_of_field(kind: u8) -> Option<FieldSize> {
    Some(match kind {
        b'V' => FieldSize::Fixed(0),
        b't' | b'b' | b'B' => FieldSize::Fixed(1),
        b's' | b'U' | b'u' => FieldSize::Fixed(2),
        b'I' | b'i' | b'f' => FieldSize::Fixed(4),
        b'D' => FieldSize::Fixed(5),
        b'l' | b'L' | b'd' | b'T' => FieldSize::Fixed(8),
        ARRAY | TABLE | LONG_STRING | BYTES => FieldSize::Prefixed,
        _ => return None,
    })
}

/// The payload of a frame with a method: those that carry texts of others.
pub(in crate::broker) fn method(payload: &mut [u8]) {
    let mut reader = FieldReader::new(payload);
    // `None`, as everywhere here, is a frame that ended too early.
    let _ = reader.method();
}

/// The payload of a frame with a message's properties. How many headers it has.
pub(in crate::broker) fn properties(payload: &mut [u8]) -> usize {
    let mut reader = FieldReader::new(payload);
    let _ = reader.properties();
    reader.headers
}

struct FieldReader<'a> {
    bytes: &'a mut [u8],
    at: usize,
    headers: usize,
    fields_left: usize,
}

impl<'a> FieldReader<'a> {
    const fn new(bytes: &'a mut [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            headers: 0,
            fields_left: FIELDS_MAX,
        }
    }

    fn method(&mut self) -> Option<()> {
        match (self.number()?, self.number()?) {
            BASIC_DELIVER => {
                self.short_string()?; // consumer tag
                self.skip(size_of::<u64>() + 1)?; // delivery tag, redelivered
                self.short_string()?; // exchange
                self.short_string() // routing key
            }
            BASIC_GET_OK => {
                self.skip(size_of::<u64>() + 1)?; // delivery tag, redelivered
                self.short_string()?; // exchange
                self.short_string() // routing key
            }
            BASIC_RETURN => {
                self.skip(size_of::<u16>())?; // code
                self.short_string()?; // text
                self.short_string()?; // exchange
                self.short_string() // routing key
            }
            // RabbitMQ cuts what it says at 255 bytes, through the middle of a letter if need be.
            CONNECTION_CLOSE | CHANNEL_CLOSE => {
                self.skip(size_of::<u16>())?; // code
                self.short_string() // text
            }
            _ => Some(()),
        }
    }

    fn properties(&mut self) -> Option<()> {
        self.skip(size_of::<u16>() * 2 + size_of::<u64>())?; // class, weight, length of the body
        let flags = self.number()?;
        for (nth, kind) in PROPERTIES.into_iter().enumerate() {
            if flags & flag_of(nth) == 0 {
                continue;
            }
            match kind {
                PropertyKind::ShortString => self.short_string()?,
                PropertyKind::Headers => self.table(1)?,
                PropertyKind::Bytes(count) => self.skip(count)?,
            }
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let end = self.end()?;
        while self.at < end {
            self.short_string()?;
            self.field(depth)?;
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        let end = self.end()?;
        while self.at < end {
            self.field(depth)?;
        }
        Some(())
    }

    /// A field of a table or array that is `depth` levels deep.
    fn field(&mut self, depth: usize) -> Option<()> {
        if depth == 1 {
            self.headers += 1;
        } else {
            self.fields_left = self.fields_left.checked_sub(1)?;
        }
        let start = self.at;
        let kind = self.bytes.get_mut(self.at)?;
        if matches!(*kind, ARRAY | TABLE) && depth == MAX_NESTING {
            *kind = BYTES;
        }
        let kind = *kind;
        self.at += 1;
        match kind {
            ARRAY | TABLE => {
                let read = if kind == ARRAY {
                    self.array(depth + 1)
                } else {
                    self.table(depth + 1)
                };
                if read.is_none() && depth == 1 && self.fields_left == 0 {
                    self.bytes[start] = BYTES;
                    self.at = start + 1;
                    self.at = self.end()?;
                    return Some(());
                }
                read
            }
            LONG_STRING | BYTES => {
                self.at = self.end()?;
                Some(())
            }
            kind => match size_of_field(kind)? {
                FieldSize::Fixed(count) => self.skip(count),
                FieldSize::Prefixed => None,
            },
        }
    }

    /// Reads a length of four bytes: where what has it ends.
    fn end(&mut self) -> Option<usize> {
        let length = u32::from_be_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
        self.skip(size_of::<u32>())?;
        let end = self.at.checked_add(length as usize)?;
        (end <= self.bytes.len()).then_some(end)
    }

    fn short_string(&mut self) -> Option<()> {
        let length = usize::from(*self.bytes.get(self.at)?);
        self.skip(1)?;
        text(self.bytes.get_mut(self.at..self.at + length)?);
        self.skip(length)
    }

    fn number(&mut self) -> Option<u16> {
        let number = u16::from_be_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
        self.skip(size_of::<u16>())?;
        Some(number)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len()).then_some(())
    }
}

#[derive(Clone, Copy)]
pub(in crate::broker) enum PropertyKind {
    ShortString,
    Headers,
    /// A number of this many bytes.
    Bytes(usize),
}

/// What a content header's flags announce, from the highest bit on.
pub(in crate::broker) const PROPERTIES: [PropertyKind; 14] = [
    PropertyKind::ShortString, // content_type
    PropertyKind::ShortString, // content_encoding
    PropertyKind::Headers,
    PropertyKind::Bytes(1),    // delivery_mode
    PropertyKind::Bytes(1),    // priority
    PropertyKind::ShortString, // correlation_id
    PropertyKind::ShortString, // reply_to
    PropertyKind::ShortString, // expiration
    PropertyKind::ShortString, // message_id
    PropertyKind::Bytes(8),    // timestamp
    PropertyKind::ShortString, // type
    PropertyKind::ShortString, // user_id
    PropertyKind::ShortString, // app_id
    PropertyKind::ShortString, // cluster_id
];

/// The flag that announces the property at this place in [`PROPERTIES`].
pub(in crate::broker) const fn flag_of(nth: usize) -> u16 {
    1 << 15 >> nth
}

/// Makes it UTF-8.
fn text(bytes: &mut [u8]) {
    let mut good = 0;
    while let Err(error) = std::str::from_utf8(&bytes[good..]) {
        let bad = good + error.valid_up_to();
        let end = error.error_len().map_or(bytes.len(), |length| bad + length);
        bytes[bad..end].fill(REPLACEMENT);
        good = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        text(&mut bytes);
        bytes
    }

    #[test]
    fn a_text_keeps_its_length_and_all_that_is_utf8() {
        assert_eq!(mended("grüße".as_bytes()), "grüße".as_bytes());
        assert_eq!(mended(b"a\xffb\xfe\xfec"), b"a?b??c");
        // A letter cut off, a surrogate, one letter in too many bytes.
        assert_eq!(mended(b"a\xc3"), b"a?");
        assert_eq!(mended(b"\xed\xa0\x80\xc0\x80"), b"?????");
        assert_eq!(mended(b""), b"");
    }

    /// A frame's payload with these flags and properties.
    fn payload(flags: u16, properties: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        payload.extend(flags.to_be_bytes());
        payload.extend(properties.concat());
        payload
    }

    fn sized(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap();
        [&[kind][..], &length.to_be_bytes(), content].concat()
    }

    #[test]
    fn every_property_is_read_at_its_place() {
        // Each 0xff is to be mended, each 0xfe is to stay.
        let headers = [
            &b"\x02k\xff"[..],
            &sized(LONG_STRING, b"v\xfe"),
            b"\x02t\xfft\x01",
            b"\x01tV\x01tD\xfe2345\x01tI\xfe234\x01ts\xfe2\x01tT\xfe2345678",
            b"\x01n",
            &sized(
                TABLE,
                &[&b"\x01\xff"[..], &sized(ARRAY, b"Vb\xfe")].concat(),
            ),
        ]
        .concat();
        let all: [&[u8]; 14] = [
            b"\x02c\xff",
            b"\x01e",
            &sized(TABLE, &headers)[1..],
            b"\xfe",
            b"\xfe",
            b"\x01\xff",
            b"\x01\xff",
            b"\x01\xff",
            b"\x01\xff",
            b"\xfe\xfe\xfe\xfe\xfe\xfe\xfe\xfe",
            b"\x01\xff",
            b"\x01\xff",
            b"\x01\xff",
            b"\x01\xff",
        ];
        let mended = |part: &[u8]| -> Vec<u8> {
            let bytes = part.iter();
            bytes.map(|&b| if b == 0xff { b'?' } else { b }).collect()
        };
        let expected: Vec<_> = all.iter().map(|part| mended(part)).collect();
        let expected: Vec<&[u8]> = expected.iter().map(Vec::as_slice).collect();
        // With all of them, and with each alone.
        for nth in 0..=all.len() {
            let (flags, which) = match nth {
                14 => (0xfffc, 0..14),
                nth => (1 << 15 >> nth, nth..nth + 1),
            };
            let mut sent = payload(flags, &all[which.clone()]);
            properties(&mut sent);
            assert_eq!(sent, payload(flags, &expected[which]), "{nth}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_becomes_bytes() {
        let mut nested = b"V".to_vec();
        for _ in 0..MAX_NESTING {
            nested = sized(ARRAY, &nested);
        }
        let headers = sized(TABLE, &[b"\x01k", &nested[..]].concat());
        let mut sent = payload(1 << 13, &[&headers[1..]]);
        let before = sent.clone();
        properties(&mut sent);
        // The table is the first level, so the last of the arrays is one too many.
        let changed: Vec<_> = (0..sent.len())
            .filter(|&at| sent[at] != before[at])
            .collect();
        assert_eq!(changed, [sent.len() - 6]);
        assert_eq!(sent[changed[0]], BYTES);
    }

    #[test]
    fn values_with_too_many_fields_become_bytes() {
        let few = sized(ARRAY, &b"V".repeat(FIELDS_MAX - 10));
        let many = sized(TABLE, &b"\x01kV".repeat(11));
        let headers = [
            b"\x01a",
            &few[..],
            b"\x01b",
            &many,
            b"\x01c",
            &many,
            b"\x01\xffV",
        ]
        .concat();
        let mut sent = payload(1 << 13, &[&sized(TABLE, &headers)[1..]]);
        let before = sent.clone();
        assert_eq!(properties(&mut sent), 4);
        let changed: Vec<_> = (0..sent.len())
            .filter(|&at| sent[at] != before[at])
            .map(|at| (before[at], sent[at]))
            .collect();
        assert_eq!(
            changed,
            [(TABLE, BYTES), (TABLE, BYTES), (0xff, REPLACEMENT)]
        );
    }

    #[test]
    fn methods_with_texts_of_others_are_mended_and_only_there() {
        let deliver =
            b"\x00\x3c\x00\x3c\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff\x02r\xff";
        let mended_deliver =
            b"\x00\x3c\x00\x3c\x01?\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01?\x02r?";
        let got =
            b"\x00\x3c\x00\x47\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff\x01\xff\xff\xff\xff\xff";
        let mended_got =
            b"\x00\x3c\x00\x47\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01?\x01?\xff\xff\xff\xff";
        let close = b"\x00\x14\x00\x28\xff\xff\x02b\xc3\xff\xff\xff\xff";
        let mended_close = b"\x00\x14\x00\x28\xff\xff\x02b?\xff\xff\xff\xff";
        let ack = b"\x00\x3c\x00\x50\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        for (sent, expected) in [
            (&deliver[..], &mended_deliver[..]),
            (got, mended_got),
            (close, mended_close),
            (ack, ack),
        ] {
            let mut mended = sent.to_vec();
            method(&mut mended);
            assert_eq!(mended, expected);
        }
    }

    #[test]
    fn frames_that_end_too_early_are_left_alone_past_their_end() {
        let headers = sized(TABLE, &[b"\x01k", &sized(ARRAY, b"VV")[..]].concat());
        let whole = payload(0xe000, &[b"\x02c\xff", b"\x01e", &headers[1..]]);
        for end in 0..whole.len() {
            properties(&mut whole[..end].to_vec());
            method(&mut whole[..end].to_vec());
        }
    }
}
