//! Ways to break a secret, and how to find a piece of it again.

use std::collections::BTreeSet;

/// No four characters of it in a row occur in anything that the program says by itself.
pub const TEXT: &str = "Zq7xKw3vLm9tRb5n";

/// What a key's base64 looks like. It is none, so that every reader has to give up on it.
pub const PEM: &str = "Qx8Zt3Wv6Kj1Yp9Lm4Hd7Rs2Nf5GcBq0XzTw3VkJ6yPl9MhD4rSn7FgCb2QxZt\n\
                       8Wv1Kj3Yp6Lm9Hd4Rs7Nf2Gc5BqXz0Tw8VkJ1yPl3MhD6rSn9FgCb4QxZt7Wv2K";

/// How many bytes of a secret in a row must not be seen.
const PIECE: usize = 4;

/// Every piece of a secret, as it is and as a debugger prints its bytes, and the whole of it as
/// HTTP Basic would send it.
pub fn pieces(secret: &str) -> BTreeSet<String> {
    let mut pieces = BTreeSet::new();
    for line in secret.lines() {
        for window in line.as_bytes().windows(PIECE) {
            pieces.insert(String::from_utf8(window.to_vec()).unwrap());
            let numbers: Vec<String> = window.iter().map(u8::to_string).collect();
            pieces.insert(numbers.join(", "));
        }
    }
    pieces
}

/// What may get into the middle of a secret.
const BETWEEN: &[&str] = &[
    "/",
    "?",
    "#",
    "@",
    ":",
    "%",
    "%zz",
    "%ff",
    "%00",
    "%0a",
    "\\",
    "\\n",
    "\"",
    "'",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u{1b}[31m",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "é",
    "[",
    "]",
    "{",
    "}",
    "$",
    "${",
    "=",
    "&",
    ";",
    ",",
    "|",
    "<",
    ">",
    "^",
    "`",
    "//",
    "://",
    "@@",
    ":@",
    "/@",
    "\" = \"",
    "\"\nx = \"",
    "\"\n[a]\nb = \"",
    "\\u12",
    "\\x",
    "#\n",
];

/// A password or token as it may come after a template, a shell or a person had it. None of them is
/// a host or a virtual host in a URL that can be read: those are shown, as what they are.
pub fn text_mutations(secret: &str) -> Vec<String> {
    let (head, tail) = secret.split_at(secret.len() / 2);
    let mut broken: Vec<String> = BETWEEN
        .iter()
        .map(|between| format!("{head}{between}{tail}"))
        .collect();
    broken.extend([
        String::new(),
        secret.to_owned(),
        format!("{secret}\n"),
        format!("{secret}\r\n\r\n"),
        format!("\u{feff}{secret}"),
        format!(" {secret} "),
        format!("\"{secret}\""),
        format!("'{secret}'\n"),
        format!("Bearer {secret}"),
        format!("12/{secret}"),
        format!("12?{secret}"),
        format!("12#{secret}"),
        format!("/{secret}"),
        format!("{secret}/"),
        format!("{secret}@"),
        format!("{secret}:5672/%2f"),
        format!("amqp://user:{secret}"),
        format!("amqp://user:12/{secret}@host/%2f"),
        format!("amqp://user:12/{secret}@host:5672?heartbeat=30s"),
        format!("amqps://host/{secret}?heartbeat={secret}&x={secret}"),
        format!("http://user:{secret}@host/?{secret}"),
        format!("user:{secret}@host"),
        format!("token={secret}"),
        format!("{{\"token\": \"{secret}\"}}"),
        format!("{secret},{secret}"),
        format!("{secret} {secret}"),
        format!("{secret}=1"),
        secret.repeat(4_200),
    ]);
    broken
}

/// A PEM file with this body as it may come after a variable, a template or an editor had it.
pub fn pem_mutations(body: &str) -> Vec<String> {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let one_line = pem.replace('\n', "\\n");
    vec![
        one_line.clone(),
        pem.replace('\n', " "),
        format!("\"{one_line}\""),
        pem.split("-----END").next().unwrap().to_owned(),
        pem.replacen('\n', "\n!", 2),
        pem.clone(),
        pem.replace('\n', ""),
        pem.replace('\n', "\r"),
        pem.replace('\n', "\r\n"),
        pem.replace("-----", "----"),
        pem.replace("-----BEGIN", "BEGIN"),
        pem.replace("BEGIN PRIVATE KEY", body.lines().next().unwrap()),
        pem.replace("END PRIVATE KEY", "END CERTIFICATE"),
        pem.replace("PRIVATE KEY", "CERTIFICATE"),
        pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        pem.replace("PRIVATE KEY", "EC PRIVATE KEY"),
        format!("\u{feff}{pem}"),
        format!("'{pem}'"),
        body.to_owned(),
        format!("{pem}{pem}"),
        pem.replace("KEY-----\n", "KEY-----"),
    ]
}
