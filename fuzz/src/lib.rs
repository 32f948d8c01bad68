//! What the fuzz targets share: AMQP frames that are well-formed but for what RabbitMQ lets through.

use arbitrary::{Result, Unstructured};

/// Frame types.
pub const METHOD: u8 = 1;
pub const HEADER: u8 = 2;
pub const BODY: u8 = 3;

/// Type, channel and length before the payload, and one byte after it.
pub const FRAME_OVERHEAD: usize = 8;

/// Levels of tables and arrays, at random: more than RabbitMQ makes, few enough to build.
const DEPTH_MAX: usize = 4;
/// Levels at once, to get beyond any limit.
const DEEP: std::ops::RangeInclusive<usize> = 28..=300;

#[must_use]
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 0, 1];
    frame.extend(length(payload.len()));
    frame.extend(payload);
    frame.push(0xce);
    frame
}

/// A method that carries texts of others: `basic.deliver`, `basic.get-ok`, `basic.return`, and the
/// broker's two ways to close.
pub fn method(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    let mut add = |part: &[u8]| payload.extend_from_slice(part);
    match from.int_in_range(0..=4)? {
        0 => {
            add(&[0, 60, 0, 60]);
            add(&short(from)?);
            add(&[0, 0, 0, 0, 0, 0, 0, 1, 0]);
            add(&short(from)?);
            add(&short(from)?);
        }
        1 => {
            add(&[0, 60, 0, 71, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
            add(&short(from)?);
            add(&short(from)?);
            add(&[0, 0, 0, 9]);
        }
        2 => {
            add(&[0, 60, 0, 50, 1, 56]);
            add(&short(from)?);
            add(&short(from)?);
            add(&short(from)?);
        }
        close => {
            add(if close == 3 {
                &[0, 10, 0, 50, 1, 64]
            } else {
                &[0, 20, 0, 40, 1, 148]
            });
            add(&short(from)?);
            add(&[0, 0, 0, 0]);
        }
    }
    Ok(payload)
}

/// The payload of a frame with a message's properties.
pub fn content_header(from: &mut Unstructured<'_>, body: u64) -> Result<Vec<u8>> {
    let mut payload = vec![0, 60, 0, 0];
    payload.extend(body.to_be_bytes());
    // The last two bits announce nothing in AMQP.
    let flags = from.arbitrary::<u16>()? & !0b11;
    payload.extend(flags.to_be_bytes());
    for nth in 0..14 {
        if flags & (1 << 15 >> nth) != 0 {
            let property = match nth {
                2 => table(from, 0)?,
                3 | 4 => from.bytes(1)?.to_vec(),
                9 => from.bytes(8)?.to_vec(),
                _ => short(from)?,
            };
            payload.extend(property);
        }
    }
    Ok(payload)
}

/// A short string of any bytes, or one that means something to somebody.
fn short(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const MEANINGFUL: [&str; 12] = [
        "amq.rabbitmq.reply-to",
        "amq.rabbitmq.reply-to.x.y",
        "rename.requests",
        "CC",
        "BCC",
        "x-death",
        "x-delivery-count",
        "x-rename-attempts",
        "x-rename-first-attempt-at",
        "x-rename-failed-at",
        "x-rename-original-exchange",
        "x-rename-reason",
    ];
    let text = if from.ratio(1, 3)? {
        from.choose(&MEANINGFUL)?.as_bytes()
    } else {
        let most = from.len().min(255);
        let length = from.int_in_range(0..=most)?;
        from.bytes(length)?
    };
    let mut short = vec![u8::try_from(text.len()).expect("at most 255 bytes")];
    short.extend(text);
    Ok(short)
}

fn table(from: &mut Unstructured<'_>, depth: usize) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    while !from.is_empty() && from.ratio(3, 4)? {
        entries.extend(short(from)?);
        entries.extend(field(from, depth + 1)?);
    }
    Ok(prefixed(entries))
}

fn field(from: &mut Unstructured<'_>, depth: usize) -> Result<Vec<u8>> {
    const KINDS: &[u8] = b"tbBsuIilfdDTSxVFA";
    let kind = *from.choose(KINDS)?;
    let value = match kind {
        b'V' => Vec::new(),
        b't' | b'b' | b'B' => from.bytes(1)?.to_vec(),
        b's' | b'u' => from.bytes(2)?.to_vec(),
        b'I' | b'i' | b'f' => from.bytes(4)?.to_vec(),
        b'D' => from.bytes(5)?.to_vec(),
        b'l' | b'd' | b'T' => from.bytes(8)?.to_vec(),
        b'F' if depth < DEPTH_MAX => table(from, depth)?,
        b'A' if depth < DEPTH_MAX => {
            let mut items = Vec::new();
            while !from.is_empty() && from.ratio(3, 4)? {
                items.extend(field(from, depth + 1)?);
            }
            prefixed(items)
        }
        b'F' | b'A' => return deep(from),
        _ => {
            // Long strings are longer than the input: what repeats fills a frame.
            let piece = from.bytes(from.len().min(16))?;
            let times = if from.ratio(1, 8)? { 1_000 } else { 1 };
            prefixed(piece.repeat(times))
        }
    };
    Ok([&[kind], value.as_slice()].concat())
}

/// Arrays in arrays.
fn deep(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut value = b"V".to_vec();
    for _ in 0..from.int_in_range(DEEP)? {
        value = [b"A", prefixed(value).as_slice()].concat();
    }
    Ok(value)
}

fn prefixed(content: Vec<u8>) -> Vec<u8> {
    let mut all = length(content.len()).to_vec();
    all.extend(content);
    all
}

fn length(of: usize) -> [u8; 4] {
    u32::try_from(of).expect("an input is small").to_be_bytes()
}
