//! The body of a message, read as a request. What is read can be written and read again, what is not
//! is told without anybody's name and within bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rename_worker::core::model::request::RenameRequest;
use rename_worker::messages::headers::NoHeaders;
use rename_worker::messages::request::{BODY_MAX, InvalidRequest, encode, read};

const TYPES: [Option<&str>; 4] = [
    None,
    Some("application/json; charset=utf-8"),
    Some("application/cloudevents+json"),
    Some("text/plain"),
];

/// A detail is a header of the dead letter, in bytes.
const DETAIL_MAX: usize = 16 * 1024;
/// What is kept of a field that is no valid one, in bytes.
const PART_MAX: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    let kind = TYPES[usize::from(choice) % TYPES.len()];
    match read(body, kind, &NoHeaders) {
        Ok(request) => is_read_again(&request, body),
        Err(unreadable) => is_bounded_and_names_nobody(&unreadable, body),
    }
});

fn is_read_again(request: &RenameRequest, body: &[u8]) {
    assert!(body.len() <= BODY_MAX);
    for name in [&request.username, &request.new_username] {
        assert!(name.fits_path() && (1..=255).contains(&name.reveal().chars().count()));
    }
    let written = encode(request);
    let again = match read(&written, None, &NoHeaders) {
        Ok(again) => again,
        Err(unreadable) => panic!("what is written is not read: {}", unreadable.detail),
    };
    // Times are written to the millisecond, so it is the second one that must be equal.
    assert!(
        written == encode(&again),
        "it is not written the same twice"
    );
    assert!(again.username == request.username && again.new_username == request.new_username);
    assert!(again.account_id == request.account_id && again.request_id == request.request_id);
    assert!(again.user_id == request.user_id && again.requested_by == request.requested_by);
}

fn is_bounded_and_names_nobody(unreadable: &InvalidRequest, body: &[u8]) {
    let (detail, partial) = (&unreadable.detail, &unreadable.partial);
    assert!(
        !detail.is_empty() && detail.len() <= DETAIL_MAX,
        "{} bytes",
        detail.len()
    );
    for part in [
        &partial.request_id,
        &partial.account_id,
        &partial.username,
        &partial.new_username,
    ] {
        let Some(part) = part else { continue };
        assert!(part.len() <= PART_MAX);
        // No detail has an `@` of its own.
        let telling = part.len() >= 4 && part.contains('@');
        assert!(
            !(telling && detail.contains(&**part)),
            "the detail quotes a field: {detail}"
        );
    }
    let again = read(body, Some("text/plain"), &NoHeaders).map_err(|again| again.partial);
    let again = again.expect_err("text is no request");
    assert!(
        again.fingerprint == partial.fingerprint,
        "the same bytes, another fingerprint"
    );
}
