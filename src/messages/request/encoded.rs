//! Bodies that are no JSON because something else was done to them: compressed, or sent as a value of
//! AMQP 1.0, which RabbitMQ hands to a reader of AMQP 0-9-1 in its encoded form. Their sender is told
//! what it is rather than which byte is no JSON.

/// Ways to compress that senders name in `content_encoding`.
const COMPRESSIONS: [&str; 9] = [
    "gzip", "x-gzip", "deflate", "zlib", "br", "brotli", "zstd", "compress", "snappy",
];

/// Encodings that change nothing.
const PLAIN: [&str; 8] = [
    "", "identity", "utf-8", "utf8", "us-ascii", "binary", "8bit", "7bit",
];

/// How compressed data begins.
const MAGIC: [(&str, &[u8]); 5] = [
    ("gzip", b"\x1f\x8b"),
    ("zstd", b"\x28\xb5\x2f\xfd"),
    ("zlib", b"\x78\x01"),
    ("zlib", b"\x78\x9c"),
    ("zlib", b"\x78\xda"),
];

/// A section's descriptor: AMQP 1.0, part 3.2, in the two ways to write its number.
const SECTION: [&[u8]; 2] = [b"\x00\x53", b"\x00\x80\x00\x00\x00\x00\x00\x00\x00"];

/// Data, sequence, value.
const BODY_SECTIONS: std::ops::RangeInclusive<u8> = 0x75..=0x77;

/// What the body is, where it is something else than plain JSON.
pub(super) fn named(body: &[u8], content_encoding: Option<&str>) -> Option<String> {
    // Some senders name an encoding and publish a plain body all the same.
    let first = super::without_mark(body).trim_ascii_start().first()?;
    if *first == b'{' {
        return None;
    }
    let said = content_encoding.map(|said| said.trim().to_ascii_lowercase());
    let begins = |magic: &&(&str, &[u8])| body.starts_with(magic.1);
    if let Some((name, _)) = MAGIC.iter().find(begins) {
        return Some(compressed(name));
    }
    if is_amqp_value(body) {
        return Some(
            "the body is an AMQP 1.0 value; send the request's JSON as bytes, in a data section"
                .into(),
        );
    }
    let said = said.filter(|said| !PLAIN.contains(&said.as_str()))?;
    Some(match COMPRESSIONS.iter().find(|name| **name == said) {
        Some(name) => compressed(name),
        None => "the content_encoding is not taken; publish the body as plain JSON".into(),
    })
}

fn compressed(name: &str) -> String {
    format!("the body is {name}-compressed; publish it uncompressed")
}

fn is_amqp_value(body: &[u8]) -> bool {
    SECTION.iter().any(|section| {
        let rest = body.strip_prefix(*section);
        rest.and_then(<[u8]>::first)
            .is_some_and(|number| BODY_SECTIONS.contains(number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_to_a_body_is_named_by_its_first_bytes_or_by_its_sender() {
        let gzip = "the body is gzip-compressed; publish it uncompressed";
        for (body, said, told) in [
            (&b"\x1f\x8b\x08\x00"[..], None, Some(gzip)),
            (b"\x1f\x8b\x08\x00", Some("utf-8"), Some(gzip)),
            (b"?", Some(" GZIP "), Some(gzip)),
            (
                b"\x78\x9c\xab",
                Some("deflate"),
                Some("the body is zlib-compressed; publish it uncompressed"),
            ),
            (
                b"\x0b\x02",
                Some("br"),
                Some("the body is br-compressed; publish it uncompressed"),
            ),
            (
                b"?",
                Some("ola@example.com"),
                Some("the content_encoding is not taken; publish the body as plain JSON"),
            ),
            (b"{", Some("gzip"), None),
            (b"?", Some("UTF-8"), None),
            (b"?", Some("identity"), None),
            (b"?", None, None),
            (b"", Some("gzip"), None),
            (b"\x00", None, None),
            (b"\x00\x53\x70", None, None),
        ] {
            assert_eq!(named(body, said).as_deref(), told, "{body:?} {said:?}");
        }
        for value in [
            &b"\x00\x53\x77\xa1\x02{}"[..],
            b"\x00\x53\x76\x45",
            b"\x00\x80\x00\x00\x00\x00\x00\x00\x00\x77\xa1\x02{}",
        ] {
            let told = named(value, None).unwrap();
            assert!(told.starts_with("the body is an AMQP 1.0 value"), "{told}");
        }
    }
}
