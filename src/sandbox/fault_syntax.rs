//! The notation a person writes a fault in: `KIND[=SHARE|=xCOUNT][,KEY[=VALUE]]…`, for example
//! `503=0.05`, `429=x3,retry-after=2` or `lost,prefix=ola,on=rename`. [`KINDS`] and [`KEYS`] list
//! the words; what they do is [`super::fault`]'s business.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::fault::{
    ApiFault, CallFilter, FaultBody, FaultKind, Frequency, MalformedBody, RetryAfter, SILENT, SLOW,
};
use crate::core::model::request::AccountId;

/// The kinds and what they do.
pub const KINDS: [(&str, &str); 15] = [
    ("NNN", "answers this status, 200 to 599"),
    ("slow", "answers late"),
    (
        "timeout",
        "never answers, and breaks the connection in the end",
    ),
    ("late", "timeout,applied"),
    ("reset", "breaks the connection"),
    ("lost", "reset,applied"),
    ("cut", "breaks the connection within the body of a 200"),
    ("garbage", "200 with HTML"),
    ("truncated", "200 with half a user"),
    ("other-name", "200 with a user of another name"),
    ("flood", "200 with 1 MiB"),
    ("expired", "401, and the token is revoked if it was issued"),
    (
        "gate",
        "waits until the faults are changed, then answers truly",
    ),
    ("outage", "503,on=all"),
    ("refuse", "takes no connection until the faults are changed"),
];

/// The keys and what they do.
pub const KEYS: [(&str, &str); 9] = [
    (
        "on",
        "call (rename and confirm, the default), rename, confirm, token, all",
    ),
    ("account", "only this account"),
    (
        "prefix",
        "only current names that begin so; percent-encoded",
    ),
    ("applied", "the rename takes effect first; without a value"),
    ("retry-after", "of a status: in so many seconds"),
    ("retry-date", "of a status: the same as an HTTP date"),
    ("body", "of a status: json, html, empty"),
    ("delay", "of slow: how late"),
    ("for", "of timeout: how long"),
];

/// What a prefix encodes, so that the notation's own signs can't be mistaken.
const IN_PREFIX: &AsciiSet = &CONTROLS.add(b',').add(b'%').add(b'=').add(b' ');

/// Why a fault's text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFault {
    #[error("unknown fault `{0}`; there are {kinds}", kinds = words(&KINDS))]
    Kind(String),
    #[error("`{0}` says how often: a share from 0 to 1 such as 0.05, or a count such as x3")]
    Often(String),
    #[error("unknown key `{0}`; there are {keys}", keys = words(&KEYS))]
    Key(String),
    #[error("`{0}` needs another value: {meaning}", meaning = meaning(.0))]
    Value(&'static str),
    #[error("{0} says nothing for this fault")]
    Misplaced(&'static str),
}

impl FromStr for ApiFault {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        let mut words = text.split(',').map(str::trim);
        let (word, often) = split_often(words.next().unwrap_or_default());
        let mut fault = kind_from(word)?;
        if let Some(often) = often {
            fault.often = often_from(often)?;
        }
        for word in words {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (word, None),
            };
            fault.set(key, value)?;
        }
        if fault.kind == FaultKind::Refuse && fault != Self::new(FaultKind::Refuse) {
            return Err(BadFault::Misplaced("a share, a count or a key"));
        }
        Ok(fault)
    }
}

impl ApiFault {
    /// Sets what one `key[=value]` says.
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), BadFault> {
        match (key, value) {
            ("on", Some(value)) => self.on = on_from(value).ok_or(BadFault::Value("on"))?,
            ("account", Some(value)) => {
                let account = AccountId::parse(value).map_err(|_| BadFault::Value("account"))?;
                self.account = Some(account);
            }
            ("prefix", Some(value)) => {
                let prefix = percent_decode_str(value).decode_utf8();
                self.prefix = Some(prefix.map_err(|_| BadFault::Value("prefix"))?.into());
            }
            ("applied", None) => self.applied = true,
            ("delay", Some(value)) => match &mut self.kind {
                FaultKind::Slow(delay) => {
                    *delay = time_from(value).ok_or(BadFault::Value("delay"))?;
                }
                _ => return Err(BadFault::Misplaced("delay")),
            },
            ("for", Some(value)) => match &mut self.kind {
                FaultKind::Timeout(time) => {
                    *time = time_from(value).ok_or(BadFault::Value("for"))?;
                }
                _ => return Err(BadFault::Misplaced("for")),
            },
            ("body", Some(value)) => match &mut self.kind {
                FaultKind::Status { body, .. } => {
                    *body = body_from(value).ok_or(BadFault::Value("body"))?;
                }
                _ => return Err(BadFault::Misplaced("body")),
            },
            ("retry-after", Some(value)) => {
                self.set_retry("retry-after", value.parse().map(RetryAfter::Seconds).ok())?;
            }
            ("retry-date", Some(value)) => {
                self.set_retry("retry-date", value.parse().map(RetryAfter::Date).ok())?;
            }
            _ => return Err(BadFault::Key(key.to_owned())),
        }
        Ok(())
    }

    fn set_retry(&mut self, key: &'static str, value: Option<RetryAfter>) -> Result<(), BadFault> {
        let FaultKind::Status { retry_after, .. } = &mut self.kind else {
            return Err(BadFault::Misplaced(key));
        };
        *retry_after = Some(value.ok_or(BadFault::Value(key))?);
        Ok(())
    }
}

fn words(pairs: &[(&str, &str)]) -> String {
    let words: Vec<_> = pairs.iter().map(|(word, _)| *word).collect();
    words.join(", ")
}

/// What a key does.
fn meaning(key: &str) -> &'static str {
    let pair = KEYS.iter().find(|(word, _)| *word == key);
    pair.map_or("", |(_, meaning)| meaning)
}

/// `503=0.05` and `503x3` as the kind and how often.
fn split_often(word: &str) -> (&str, Option<&str>) {
    if let Some((kind, often)) = word.split_once('=') {
        return (kind, Some(often));
    }
    match word.rfind('x') {
        Some(at) if word[at + 1..].parse::<u32>().is_ok() => (&word[..at], Some(&word[at..])),
        _ => (word, None),
    }
}

fn kind_from(word: &str) -> Result<ApiFault, BadFault> {
    Ok(match word {
        "slow" => ApiFault::new(FaultKind::Slow(SLOW)),
        "timeout" => ApiFault::new(FaultKind::Timeout(SILENT)),
        "late" => ApiFault::new(FaultKind::Timeout(SILENT)).applied(),
        "reset" => ApiFault::new(FaultKind::Reset),
        "lost" => ApiFault::lost(),
        "cut" => ApiFault::new(FaultKind::Cut),
        "garbage" => ApiFault::new(FaultKind::Garbage(MalformedBody::Html)),
        "truncated" => ApiFault::new(FaultKind::Garbage(MalformedBody::Truncated)),
        "other-name" => ApiFault::new(FaultKind::Garbage(MalformedBody::OtherName)),
        "flood" => ApiFault::new(FaultKind::Garbage(MalformedBody::Flood)),
        "expired" => ApiFault::new(FaultKind::Expired),
        "gate" => ApiFault::new(FaultKind::Gate),
        "outage" => ApiFault::outage(),
        "refuse" => ApiFault::new(FaultKind::Refuse),
        number => match number.parse() {
            Ok(status @ 200..=599) => ApiFault::status(status),
            _ => return Err(BadFault::Kind(number.to_owned())),
        },
    })
}

fn often_from(text: &str) -> Result<Frequency, BadFault> {
    let often = match text.strip_prefix('x') {
        Some(count) => count.parse().map(Frequency::Next).ok(),
        None => match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Some(Frequency::Share(share)),
            _ => None,
        },
    };
    often.ok_or_else(|| BadFault::Often(text.to_owned()))
}

fn on_from(text: &str) -> Option<CallFilter> {
    Some(match text {
        "call" => CallFilter::Call,
        "rename" => CallFilter::Rename,
        "confirm" => CallFilter::Confirm,
        "token" => CallFilter::Token,
        "all" => CallFilter::All,
        _ => return None,
    })
}

fn body_from(text: &str) -> Option<FaultBody> {
    Some(match text {
        "json" => FaultBody::Json,
        "html" => FaultBody::Html,
        "empty" => FaultBody::Empty,
        _ => return None,
    })
}

fn time_from(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

impl fmt::Display for ApiFault {
    /// The notation again: parsing it gives an equal fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FaultKind::Status { status, .. } => write!(f, "{status}")?,
            FaultKind::Slow(_) => f.write_str("slow")?,
            FaultKind::Timeout(_) => f.write_str("timeout")?,
            FaultKind::Reset => f.write_str("reset")?,
            FaultKind::Cut => f.write_str("cut")?,
            FaultKind::Garbage(MalformedBody::Html) => f.write_str("garbage")?,
            FaultKind::Garbage(MalformedBody::Truncated) => f.write_str("truncated")?,
            FaultKind::Garbage(MalformedBody::OtherName) => f.write_str("other-name")?,
            FaultKind::Garbage(MalformedBody::Flood) => f.write_str("flood")?,
            FaultKind::Expired => f.write_str("expired")?,
            FaultKind::Gate => f.write_str("gate")?,
            FaultKind::Refuse => f.write_str("refuse")?,
        }
        match self.often {
            Frequency::Always => {}
            Frequency::Share(share) => write!(f, "={share}")?,
            Frequency::Next(count) => write!(f, "=x{count}")?,
        }
        f.write_str(match self.on {
            CallFilter::Call => "",
            CallFilter::Rename => ",on=rename",
            CallFilter::Confirm => ",on=confirm",
            CallFilter::Token => ",on=token",
            CallFilter::All => ",on=all",
        })?;
        if let Some(account) = &self.account {
            write!(f, ",account={account}")?;
        }
        if let Some(prefix) = &self.prefix {
            write!(f, ",prefix={}", utf8_percent_encode(prefix, IN_PREFIX))?;
        }
        if self.applied {
            f.write_str(",applied")?;
        }
        self.kind.fmt_details(f)
    }
}

impl FaultKind {
    fn fmt_details(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status {
                body, retry_after, ..
            } => {
                f.write_str(match body {
                    FaultBody::Json => "",
                    FaultBody::Html => ",body=html",
                    FaultBody::Empty => ",body=empty",
                })?;
                match retry_after {
                    None => Ok(()),
                    Some(RetryAfter::Seconds(seconds)) => write!(f, ",retry-after={seconds}"),
                    Some(RetryAfter::Date(seconds)) => write!(f, ",retry-date={seconds}"),
                }
            }
            Self::Slow(time) => fmt_time(f, "delay", time),
            Self::Timeout(time) => fmt_time(f, "for", time),
            _ => Ok(()),
        }
    }
}

/// A time without the spaces that `humantime` puts between its units.
fn fmt_time(f: &mut fmt::Formatter<'_>, key: &str, time: Duration) -> fmt::Result {
    write!(f, ",{key}=")?;
    humantime::format_duration(time)
        .to_string()
        .chars()
        .filter(|sign| *sign != ' ')
        .try_for_each(|sign| f.write_char(sign))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault(text: &str) -> ApiFault {
        text.parse().unwrap()
    }

    #[test]
    fn the_notation_says_what_how_often_and_for_whom() {
        assert_eq!(fault("503"), ApiFault::status(503));
        assert_eq!(fault("503=0.05"), ApiFault::status(503).share(0.05));
        assert_eq!(fault("503=x3"), ApiFault::status(503).next(3));
        assert_eq!(fault("503x3"), fault("503=x3"));
        assert_eq!(fault("lost"), ApiFault::new(FaultKind::Reset).applied());
        assert_eq!(fault("outage"), ApiFault::status(503).on(CallFilter::All));
        assert_eq!(
            fault("429=1,retry-after=7,body=html,on=rename,account=T12345678,prefix=a%2Cb"),
            ApiFault {
                kind: FaultKind::Status {
                    status: 429,
                    body: FaultBody::Html,
                    retry_after: Some(RetryAfter::Seconds(7)),
                },
                often: Frequency::Share(1.0),
                on: CallFilter::Rename,
                account: Some(AccountId::parse("T12345678").unwrap()),
                prefix: Some("a,b".into()),
                applied: false,
            }
        );
        assert_eq!(
            fault("slow,delay=250ms").kind,
            FaultKind::Slow(Duration::from_millis(250))
        );
    }

    #[test]
    fn a_wrong_notation_says_what_is_wrong() {
        let told: Vec<String> = [
            "",
            "boom",
            "99",
            "503=1.5",
            "503=xx",
            "503,often",
            "503,on=never",
            "503,delay=1s",
            "slow,delay=soon",
            "reset,retry-after=1",
            "refuse=0.5",
            "503,account=X1",
            "lost,applied=1",
        ]
        .into_iter()
        .map(|text| format!("{text:?}: {}", text.parse::<ApiFault>().unwrap_err()))
        .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    fn any_kind() -> impl Strategy<Value = FaultKind> {
        let retry_after = prop_oneof![
            Just(None),
            any::<u32>().prop_map(|n| Some(RetryAfter::Seconds(n))),
            any::<u32>().prop_map(|n| Some(RetryAfter::Date(n))),
        ];
        let body = prop_oneof![
            Just(FaultBody::Json),
            Just(FaultBody::Html),
            Just(FaultBody::Empty)
        ];
        prop_oneof![
            (200_u16..600, body, retry_after).prop_map(|(status, body, retry_after)| {
                FaultKind::Status {
                    status,
                    body,
                    retry_after,
                }
            }),
            (0_u64..10_000_000).prop_map(|ms| FaultKind::Slow(Duration::from_millis(ms))),
            (0_u64..10_000_000).prop_map(|ms| FaultKind::Timeout(Duration::from_millis(ms))),
            Just(FaultKind::Reset),
            Just(FaultKind::Cut),
            Just(FaultKind::Garbage(MalformedBody::Html)),
            Just(FaultKind::Garbage(MalformedBody::Truncated)),
            Just(FaultKind::Garbage(MalformedBody::OtherName)),
            Just(FaultKind::Garbage(MalformedBody::Flood)),
            Just(FaultKind::Expired),
            Just(FaultKind::Gate),
        ]
    }

    proptest! {
        #[test]
        fn a_fault_written_down_reads_the_same(
            kind in any_kind(),
            often in prop_oneof![
                Just(Frequency::Always),
                (0.0..=1.0).prop_map(Frequency::Share),
                any::<u32>().prop_map(Frequency::Next),
            ],
            on in prop::sample::select(vec![CallFilter::Call, CallFilter::Rename, CallFilter::Confirm, CallFilter::Token, CallFilter::All]),
            account in prop::option::of("[PT][0-9]{8}"),
            prefix in prop::option::of(any::<String>()),
            applied in any::<bool>(),
        ) {
            let fault = ApiFault {
                kind,
                often,
                on,
                account: account.map(|id| AccountId::parse(&id).unwrap()),
                prefix: prefix.map(Into::into),
                applied,
            };
            prop_assert_eq!(fault.to_string().parse::<ApiFault>(), Ok(fault));
        }
    }
}
