//! One value each: from TOML or a variable's text to its type, or what is wrong with it.

use std::net::SocketAddr;
use std::time::Duration;

use figment::value::Value;

use super::keys::Kind;
use super::ladder::Ladder;

/// A value as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    Toml(&'a Value),
    /// From a variable, or a default: always text, whatever the type.
    Text(&'a str),
}

/// A value, and how it is shown.
pub(super) type Parsed<T> = Result<(T, toml::Value), String>;

pub(super) fn text(given: Given<'_>, kind: Kind) -> Parsed<String> {
    let text = string(given, kind)?;
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    Ok((text.into(), text.into()))
}

pub(super) fn flag(given: Given<'_>, kind: Kind) -> Parsed<bool> {
    let flag = match given {
        Given::Toml(value) => value.to_bool().ok_or_else(|| wrong_type(given, kind))?,
        Given::Text("true") => true,
        Given::Text("false") => false,
        Given::Text(text) => return Err(unfit(text, kind)),
    };
    Ok((flag, flag.into()))
}

pub(super) fn count(given: Given<'_>, kind: Kind) -> Parsed<u32> {
    let number = match given {
        Given::Toml(value) => value.to_i128().ok_or_else(|| wrong_type(given, kind))?,
        Given::Text(text) => text.parse().map_err(|_| unfit(text, kind))?,
    };
    let Kind::Count { min, max } = kind else {
        unreachable!("a count's key is of the kind Count")
    };
    match u32::try_from(number) {
        Ok(fit) if (min..=max).contains(&fit) => Ok((fit, i64::from(fit).into())),
        _ => Err(unfit(&number.to_string(), kind)),
    }
}

pub(super) fn decimal(given: Given<'_>, kind: Kind) -> Parsed<f64> {
    let number = match given {
        #[expect(
            clippy::cast_precision_loss,
            reason = "only small numbers are accepted below"
        )]
        Given::Toml(value) => match value.to_i128() {
            Some(whole) => whole as f64,
            None => value.to_f64().ok_or_else(|| wrong_type(given, kind))?,
        },
        Given::Text(text) => text.parse().map_err(|_| unfit(text, kind))?,
    };
    let Kind::Decimal { min, max } = kind else {
        unreachable!("a decimal's key is of the kind Decimal")
    };
    if (min..=max).contains(&number) {
        Ok((number, number.into()))
    } else {
        Err(unfit(&number.to_string(), kind))
    }
}

pub(super) fn duration(given: Given<'_>, kind: Kind) -> Parsed<Duration> {
    let text = string(given, kind)?;
    let Kind::Duration { min, max } = kind else {
        unreachable!("a duration's key is of the kind Duration")
    };
    match humantime::parse_duration(text) {
        Ok(fit) if (min..=max).contains(&fit) => Ok((fit, shown(fit))),
        _ => Err(unfit(text, kind)),
    }
}

pub(super) fn ladder(given: Given<'_>, kind: Kind) -> Parsed<Ladder> {
    let texts: Vec<&str> = match given {
        Given::Toml(value) => value
            .as_array()
            .and_then(|items| items.iter().map(Value::as_str).collect())
            .ok_or_else(|| "is no list of durations such as [\"5s\", \"2m\"]".to_string())?,
        Given::Text(text) => text.split(',').map(str::trim).collect(),
    };
    let steps: Result<Vec<Duration>, String> = texts
        .iter()
        .map(|text| {
            humantime::parse_duration(text).map_err(|_| {
                unfit(text, kind) + ": each step is a duration such as \"5s\" or \"2m\""
            })
        })
        .collect();
    let ladder = Ladder::new(steps?).map_err(|bad| bad.to_string())?;
    let shown: Vec<toml::Value> = ladder
        .steps()
        .iter()
        .map(|step| Ladder::label(*step).into())
        .collect();
    Ok((ladder, shown.into()))
}

pub(super) fn address(given: Given<'_>, kind: Kind) -> Parsed<SocketAddr> {
    let text = string(given, kind)?;
    let address: SocketAddr = text.parse().map_err(|_| unfit(text, kind))?;
    Ok((address, address.to_string().into()))
}

/// The place of the choice in the kind's list.
pub(super) fn choice(given: Given<'_>, kind: Kind) -> Parsed<usize> {
    let text = string(given, kind)?;
    let Kind::Choice(choices) = kind else {
        unreachable!("a choice's key is of the kind Choice")
    };
    let place = choices.iter().position(|choice| *choice == text);
    let place = place.ok_or_else(|| unfit(text, kind))?;
    Ok((place, text.into()))
}

/// A duration as `config show` tells it, and as it can be read again.
pub(super) fn shown(duration: Duration) -> toml::Value {
    humantime::format_duration(duration).to_string().into()
}

fn string(given: Given<'_>, kind: Kind) -> Result<&str, String> {
    match given {
        Given::Text(text) => Ok(text),
        Given::Toml(value) => value.as_str().ok_or_else(|| wrong_type(given, kind)),
    }
}

fn wrong_type(given: Given<'_>, kind: Kind) -> String {
    let is = match given {
        Given::Text(_) | Given::Toml(Value::String(..) | Value::Char(..)) => "text",
        Given::Toml(Value::Bool(..)) => "true or false",
        Given::Toml(Value::Num(..)) => "a number",
        Given::Toml(Value::Array(..)) => "a list",
        Given::Toml(Value::Dict(..)) => "a table",
        Given::Toml(Value::Empty(..)) => "empty",
    };
    format!("is {is}; say {}", kind.accepted())
}

/// Quotes the value when it is short and plain: a secret that strayed here is neither.
fn unfit(value: &str, kind: Kind) -> String {
    /// Longer than any value that is nearly right, shorter than any token, in bytes.
    const QUOTED_MAX: usize = 16;
    let plain = |c: char| c.is_ascii_alphanumeric() || " .,:_+-".contains(c);
    let accepted = kind.accepted();
    if value.len() <= QUOTED_MAX && value.chars().all(plain) {
        format!("\"{value}\" does not fit; say {accepted}")
    } else {
        format!("does not fit (not shown here); say {accepted}")
    }
}
