//! The table of every key: its type and bounds, its default, what it means.

use std::time::Duration;

/// One key of one section.
#[derive(Debug, Clone, Copy)]
pub struct SettingKey {
    /// `section.key`; the section `api.accounts.<aid>` stands for one account's.
    pub path: &'static str,
    pub kind: ValueKind,
    /// As a person would write it in a variable; none when unset means something of its own.
    pub default: Option<&'static str>,
    pub meaning: &'static str,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum ValueKind {
    Text,
    /// Text that never prints.
    Secret,
    Url,
    File,
    Flag,
    Count {
        min: u32,
        max: u32,
    },
    Decimal {
        min: f64,
        max: f64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    Durations,
    Choice(&'static [&'static str]),
    Address,
}

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

const fn key(
    path: &'static str,
    kind: ValueKind,
    default: Option<&'static str>,
    meaning: &'static str,
) -> SettingKey {
    SettingKey {
        path,
        kind,
        default,
        meaning,
    }
}

/// Every key, in the order they are told.
pub const KEYS: &[SettingKey] = &[
    key(
        "amqp.url",
        ValueKind::Secret,
        Some("amqp://guest:guest@127.0.0.1:5672/%2f"),
        "The broker: `amqp://` or `amqps://`, user, password, host, port and virtual host. In user, password and virtual host, `/ ? # @ : %` are written as `%2f %3f %23 %40 %3a %25`. Without a path it is the virtual host `/`; a `/` with nothing behind it is refused. Parameters: `heartbeat` (seconds), `frame_max`, `channel_max`, `auth_mechanism`. It holds a password, so it never prints; `amqp://` to another machine is warned of.",
    ),
    key(
        "amqp.url_file",
        ValueKind::File,
        None,
        "A file that holds the URL instead of `amqp.url`; read anew at each connect.",
    ),
    key(
        "amqp.ca_file",
        ValueKind::File,
        None,
        "PEM certificates to trust instead of the system's, for `amqps://`; read anew at each connect.",
    ),
    key(
        "amqp.client_cert_file",
        ValueKind::File,
        None,
        "The client's PEM certificate (chain), for `amqps://`; needs `amqp.client_key_file`.",
    ),
    key(
        "amqp.client_key_file",
        ValueKind::File,
        None,
        "The PEM private key of `amqp.client_cert_file`.",
    ),
    key(
        "amqp.prefix",
        ValueKind::Text,
        Some("rename"),
        "Begins the name of every queue and exchange: 1 to 64 letters, digits, `.`, `-` and `_`.",
    ),
    key(
        "amqp.declare_topology",
        ValueKind::Flag,
        Some("true"),
        "Declare queues and exchanges at start. When false, what is there is used, with whatever arguments it has, and what is missing is told: run `topology check` once.",
    ),
    key(
        "api.base_url",
        ValueKind::Url,
        Some("https://api.dintero.com/v1"),
        "Where the API is. Plain http is refused off loopback unless `api.allow_insecure`.",
    ),
    key(
        "api.allow_insecure",
        ValueKind::Flag,
        Some("false"),
        "Allow plain http to any host: tokens and usernames then travel in the clear.",
    ),
    key(
        "api.ca_file",
        ValueKind::File,
        None,
        "PEM certificates to trust instead of the system's, for the API; read anew at each handshake.",
    ),
    key(
        "api.proxy",
        ValueKind::Secret,
        None,
        "The proxy on the way to the API, `http://` or `https://`, with user and password if it asks for them, so it never prints. A `base_url` on this machine (`localhost`, 127.0.0.0/8, `::1`) is called without it. `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` are used for nothing.",
    ),
    key(
        "api.token",
        ValueKind::Secret,
        None,
        "A bearer token, for accounts without credentials of their own. Instead of a client, which gets tokens by itself.",
    ),
    key(
        "api.token_file",
        ValueKind::File,
        None,
        "A file that holds the token instead of `api.token`; read anew at each use.",
    ),
    key(
        "api.client_id",
        ValueKind::Text,
        None,
        "The client that Get Token is asked with; needs `api.client_secret` or `api.client_secret_file`.",
    ),
    key(
        "api.client_secret",
        ValueKind::Secret,
        None,
        "The secret of `api.client_id`.",
    ),
    key(
        "api.client_secret_file",
        ValueKind::File,
        None,
        "A file that holds the secret instead of `api.client_secret`; read anew at each use.",
    ),
    key(
        "api.timeout",
        ValueKind::Duration {
            min: millis(10),
            max: secs(300),
        },
        Some("10s"),
        "How long one call may take, connecting included.",
    ),
    key(
        "api.connect_timeout",
        ValueKind::Duration {
            min: millis(10),
            max: secs(60),
        },
        Some("3s"),
        "How long connecting may take; at most `api.timeout`.",
    ),
    key(
        "api.requests_per_second",
        ValueKind::Count {
            min: 1,
            max: 100_000,
        },
        None,
        "The most calls a second to one account; unlimited when unset.",
    ),
    key(
        "api.verify_user",
        ValueKind::Choice(&["before", "after"]),
        Some("before"),
        "When a request's `user_id` is checked: `before` the rename, at the cost of one more call, or `after`, in its answer, when a wrong user is already renamed.",
    ),
    key(
        "api.accounts.<aid>.token",
        ValueKind::Secret,
        None,
        "As `api.token`, for the account `<aid>` only.",
    ),
    key(
        "api.accounts.<aid>.token_file",
        ValueKind::File,
        None,
        "As `api.token_file`, for the account `<aid>` only.",
    ),
    key(
        "api.accounts.<aid>.client_id",
        ValueKind::Text,
        None,
        "As `api.client_id`, for the account `<aid>` only.",
    ),
    key(
        "api.accounts.<aid>.client_secret",
        ValueKind::Secret,
        None,
        "As `api.client_secret`, for the account `<aid>` only.",
    ),
    key(
        "api.accounts.<aid>.client_secret_file",
        ValueKind::File,
        None,
        "As `api.client_secret_file`, for the account `<aid>` only.",
    ),
    key(
        "consumer.concurrency",
        ValueKind::Count {
            min: 1,
            max: 10_000,
        },
        Some("64"),
        "Calls in flight at once.",
    ),
    key(
        "consumer.account_share",
        ValueKind::Decimal {
            min: 0.01,
            max: 1.0,
        },
        Some("0.5"),
        "The share of what a worker has in hand that one account may fill, while another account has been seen within the last hour. Its further requests wait in the wait queues for about as long as their turn is away.",
    ),
    key(
        "consumer.max_deferred",
        ValueKind::Count {
            min: 1,
            max: 200_000,
        },
        Some("50000"),
        "Requests that may be away in the wait queues at a time, as far as this worker knows. Beyond it, it takes no new requests until some have come back.",
    ),
    key(
        "consumer.drain_timeout",
        ValueKind::Duration {
            min: Duration::ZERO,
            max: secs(600),
        },
        Some("25s"),
        "How long a stopping worker lets calls in flight end. Keep the platform's grace period above it.",
    ),
    key(
        "retry.initial_delay",
        ValueKind::Duration {
            min: millis(1),
            max: HOUR,
        },
        Some("500ms"),
        "The delay before the second attempt.",
    ),
    key(
        "retry.multiplier",
        ValueKind::Decimal {
            min: 1.0,
            max: 10.0,
        },
        Some("2"),
        "By how much each further delay grows.",
    ),
    key(
        "retry.jitter",
        ValueKind::Decimal { min: 0.0, max: 1.0 },
        Some("0.5"),
        "The share by which a delay varies at random, to either side.",
    ),
    key(
        "retry.max_delay",
        ValueKind::Duration {
            min: millis(1),
            max: DAY,
        },
        Some("1h"),
        "The longest delay.",
    ),
    key(
        "retry.max_attempts",
        ValueKind::Count { min: 1, max: 1_000 },
        Some("12"),
        "After so many attempts a request fails as `retries_exhausted`.",
    ),
    key(
        "retry.max_elapsed",
        ValueKind::Duration {
            min: secs(1),
            max: Duration::from_hours(24 * 30),
        },
        Some("24h"),
        "So long after its first attempt, or after it first waited for its held account, a request fails as `retries_exhausted`, or as `forbidden` where the account's credentials are refused.",
    ),
    key(
        "retry.local_wait",
        ValueKind::Duration {
            min: Duration::ZERO,
            max: secs(60),
        },
        Some("2s"),
        "Delays up to this are waited in the worker, longer ones in the ladder's queues.",
    ),
    key(
        "retry.ladder",
        ValueKind::Durations,
        Some("5s,30s,2m,10m,1h"),
        "The delays that have a queue of their own. Each step is one duration without spaces. Another ladder means other queues: drain the old ones first.",
    ),
    key(
        "hold.failures",
        ValueKind::Count {
            min: 1,
            max: 10_000,
        },
        Some("10"),
        "After this number of transient failures in a row an account is held: its requests wait, and one of them probes. If the failures come from several accounts with no success between them, or from the only account, the whole worker is held: it stops consuming and probes.",
    ),
    key(
        "hold.first_probe",
        ValueKind::Duration {
            min: millis(10),
            max: HOUR,
        },
        Some("1s"),
        "The wait before the first probe; it doubles from probe to probe.",
    ),
    key(
        "hold.max_probe",
        ValueKind::Duration {
            min: millis(10),
            max: HOUR,
        },
        Some("60s"),
        "The longest wait between probes.",
    ),
    key(
        "dead_letters.keep_discarded",
        ValueKind::Duration {
            min: secs(1),
            max: Duration::from_hours(24 * 365),
        },
        Some("30d"),
        "How long RabbitMQ keeps a discarded dead letter in `rename.discarded`. It is an argument of that queue: to change it, make the queue again.",
    ),
    key(
        "admin.listen",
        ValueKind::Address,
        Some("127.0.0.1:9090"),
        "Where `/livez`, `/readyz`, `/metrics` and `/status` are served.",
    ),
    key(
        "log.format",
        ValueKind::Choice(&["auto", "text", "json"]),
        Some("auto"),
        "`auto` is text on a terminal, else JSON.",
    ),
    key(
        "log.level",
        ValueKind::Text,
        Some("info"),
        "`error`, `warn`, `info`, `debug`, `trace` or `off`; or several, separated by commas, each for a target: `info,rename_worker::broker=debug`. Of the libraries that see what goes over the wire, warnings come at most.",
    ),
    key(
        "log.usernames",
        ValueKind::Choice(&["hidden", "hashed", "shown"]),
        Some("hidden"),
        "How usernames appear in logs: not at all, as a keyed hash (HMAC-SHA256, the first 16 hex digits), or as they are.",
    ),
    key(
        "log.hash_key",
        ValueKind::Secret,
        None,
        "The key that usernames are hashed with. Workers that share it give a name the same hash. Without one each process makes a random key, so that its hashes match no other's. Whoever has the key can test a list of names against the log.",
    ),
    key(
        "log.hash_key_file",
        ValueKind::File,
        None,
        "A file that holds the key instead of `log.hash_key`; read once, at the start.",
    ),
    key(
        "events.source",
        ValueKind::Text,
        Some("/rename-worker"),
        "The `source` of every event, a URI or a path.",
    ),
    key(
        "otlp.endpoint",
        ValueKind::Url,
        None,
        "Where traces are sent by OTLP over HTTP; none are sent when unset.",
    ),
    key(
        "otlp.proxy",
        ValueKind::Secret,
        None,
        "As `api.proxy`, on the way to `otlp.endpoint`.",
    ),
];

/// The key of that path; paths of accounts are looked up by [`account_key`].
pub(super) fn find(path: &str) -> Option<&'static SettingKey> {
    KEYS.iter().find(|key| key.path == path)
}

/// Where an account's keys begin.
pub(super) const ACCOUNT: &str = "api.accounts.<aid>.";

/// The key of that name in `api.accounts.<aid>`.
pub(super) fn account_key(name: &str) -> Option<&'static SettingKey> {
    KEYS.iter()
        .find(|key| key.path.strip_prefix(ACCOUNT) == Some(name))
}

impl ValueKind {
    /// What is accepted, to end "say …" and to fill the table's column.
    #[must_use]
    pub fn expected(&self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Secret => "text (never shown)".into(),
            Self::Url => "a URL".into(),
            Self::File => "a file's path".into(),
            Self::Flag => "true or false".into(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Decimal { min, max } => format!("a number from {min} to {max}"),
            Self::Duration { min, max } => format!(
                "a duration such as \"10s\" or \"2m\", from {} to {}",
                humantime::format_duration(*min),
                humantime::format_duration(*max)
            ),
            Self::Durations => "a list of ascending durations".into(),
            Self::Choice(choices) => match choices {
                [most @ .., last] if !most.is_empty() => {
                    format!("{} or {last}", most.join(", "))
                }
                only => only.join(""),
            },
            Self::Address => "an IP address and port such as \"0.0.0.0:9090\"".into(),
        }
    }
}
