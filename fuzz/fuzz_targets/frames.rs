//! The stream from the broker, as lapin gets it. Whatever comes, nothing panics, nothing grows, the
//! pieces it comes in make no difference, and what was put right stays as it is; and what RabbitMQ
//! may send is read by lapin's own parser.

#![no_main]

use amq_protocol::frame::{AMQPFrame, parsing::parse_frame};
use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use rename_worker::broker::fuzzing::{FRAME_MAX, sanitized};
use rename_worker_fuzz::{BODY, FRAME_OVERHEAD, HEADER, METHOD, content_header, frame, method};

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, piece], rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let piece = usize::from(piece) + 1;
    if choice % 4 == 0 {
        stays_as_it_is(rest, piece);
    } else if let Ok(stream) = well_formed(&mut Unstructured::new(rest)) {
        let out = stays_as_it_is(&stream, piece);
        is_read(&out);
    }
});

/// What is marked as shortened loses the mark the next time, since no publisher may write it; from
/// then on nothing changes.
fn stays_as_it_is(stream: &[u8], piece: usize) -> Vec<u8> {
    let whole = sanitized(stream, stream.len());
    let in_pieces = sanitized(stream, piece);
    assert!(whole == in_pieces, "pieces of {piece} bytes change it");
    // A mark is longer than the least that it stands for.
    assert!(whole.len() <= 4 * stream.len() + 64, "it grows");
    let again = sanitized(&whole, whole.len());
    let at_last = sanitized(&again, again.len());
    assert!(again == at_last, "what was put right is changed again");
    whole
}

fn well_formed(from: &mut Unstructured<'_>) -> arbitrary::Result<Vec<u8>> {
    let mut stream = Vec::new();
    while !from.is_empty() {
        match from.int_in_range(0..=3)? {
            0 => stream.extend(frame(METHOD, &method(from)?)),
            1 | 2 => stream.extend(frame(HEADER, &content_header(from, 0)?)),
            _ => {
                let length = from.int_in_range(0..=from.len())?;
                stream.extend(frame(BODY, from.bytes(length)?));
            }
        }
    }
    Ok(stream)
}

fn is_read(mut stream: &[u8]) {
    while !stream.is_empty() {
        let (rest, read) = match parse_frame(stream) {
            Ok(read) => read,
            Err(error) => panic!("lapin cannot read a frame: {error:?}"),
        };
        let size = stream.len() - rest.len();
        if let (AMQPFrame::Header(..), Some(most)) = (read, FRAME_MAX) {
            assert!(size <= most, "{size} bytes do not fit into {most}");
        }
        assert!(size >= FRAME_OVERHEAD);
        stream = rest;
    }
}
