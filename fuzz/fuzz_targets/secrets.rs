//! Broken settings with a secret in them. Whichever setting has it and whatever is wrong, no error,
//! no note and nothing that is shown quotes four characters of it in a row.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rename_worker::broker::address;
use rename_worker::config::keys::{KEYS, ValueKind};
use rename_worker::config::{Secret, Settings};

/// Four of these in a row are in no text of ours, in either case; and they are plain, as a value is
/// that may be quoted.
const LETTERS: &[u8; 8] = b"QZXJKVWY";
/// What parsers trip over.
const OTHERS: &[u8; 24] = b"/#?@:%[]\\ \n\r\t\"'=&;,.-2\0\x7f";
/// Where secrets are, and around them what makes a setting valid, or nearly so.
const FRAMES: [(&str, &str); 10] = [
    ("", ""),
    ("amqp://user:", "@mq.example.com:5672/%2f"),
    ("amqps://user:", "@mq.example.com"),
    ("amqp://", "@mq.example.com/vhost"),
    ("amqp://user:12", "@mq.example.com/a/b?heartbeat=x"),
    ("https://user:", "@api.example.com/v1"),
    ("https://api.example.com/v1?token=", ""),
    (
        "-----BEGIN PRIVATE KEY-----\\n",
        "\\n-----END PRIVATE KEY-----",
    ),
    ("Bearer ", "\n"),
    ("\u{feff}eyJ", "."),
];
/// Shorter pieces are no piece of a secret.
const PIECE: usize = 4;

fuzz_target!(|data: &[u8]| {
    let Some((&[key, frame, second], rest)) = data.split_first_chunk::<3>() else {
        return;
    };
    let secret: String = rest.iter().take(200).map(|byte| letter(*byte)).collect();
    let (before, after) = FRAMES[usize::from(frame) % FRAMES.len()];
    let value = format!("{before}{secret}{after}");
    let keys: Vec<&str> = KEYS
        .iter()
        .filter(|key| {
            matches!(
                key.kind,
                ValueKind::Secret | ValueKind::File | ValueKind::Url
            )
        })
        .map(|key| key.path)
        .collect();
    let variable = |key: u8| {
        let path = keys[usize::from(key) % keys.len()].replace("<aid>", "T12345678");
        let name = path.replace('.', "__").to_ascii_uppercase();
        (format!("RENAME_WORKER_{name}"), value.clone())
    };
    let mut variables = vec![variable(key)];
    if second != 0 {
        variables.push(variable(second));
    }
    for shown in what_is_shown(variables) {
        is_silent(&shown, &secret);
    }
});

/// Each byte a letter or, less often, something that parsers trip over.
fn letter(byte: u8) -> char {
    let byte = usize::from(byte);
    let nth = byte / 32;
    char::from(match byte % 32 {
        trip @ 0..24 if nth == 0 => OTHERS[trip],
        other => LETTERS[(nth + other) % LETTERS.len()],
    })
}

fn what_is_shown(variables: Vec<(String, String)>) -> Vec<String> {
    let (settings, effective) = match Settings::explain(None, variables.into_iter()) {
        Ok(read) => read,
        Err(mistakes) => return vec![mistakes.to_string(), format!("{mistakes:?}")],
    };
    let mut shown = settings.warnings();
    shown.extend(address(&settings.amqp));
    let mut read = |secret: &Secret| {
        if let Err(error) = secret.read() {
            shown.push(error.to_string());
        }
    };
    read(&settings.amqp.url);
    for effective in &effective {
        let is_secret = KEYS
            .iter()
            .any(|key| key.path == effective.key && matches!(key.kind, ValueKind::Secret));
        if is_secret {
            shown.push(format!("{:?}", effective.value));
        }
    }
    shown
}

fn is_silent(shown: &str, secret: &str) {
    let numbers = |piece: &str| {
        let numbers: Vec<String> = piece.bytes().map(|byte| byte.to_string()).collect();
        numbers.join(", ")
    };
    let upper = shown.to_ascii_uppercase();
    let all: Vec<char> = secret.chars().collect();
    for piece in all.windows(PIECE) {
        // What is a letter here and there may be a part of our own words.
        if !piece.iter().all(|c| c.is_ascii_alphabetic()) {
            continue;
        }
        let piece: String = piece.iter().collect();
        assert!(
            !upper.contains(&piece),
            "{piece} of the secret is shown: {shown}"
        );
        assert!(
            !upper.contains(&numbers(&piece)),
            "{piece} is shown as bytes: {shown}"
        );
    }
}
