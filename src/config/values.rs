//! One value each: from TOML or a variable's text to its type, or what is wrong with it.

use std::net::SocketAddr;
use std::time::Duration;

use figment::value::Value;

use super::keys::ValueKind;
use super::retry_delays::RetryDelays;
use super::secret::trimmed;

/// A value as it was given.
#[derive(Debug, Clone, Copy)]
pub(super) enum RawScalar<'a> {
    Toml(&'a Value),
    /// From a variable, or a default: always text, whatever the type.
    Text(&'a str),
}

/// A value, and how it is shown.
pub(super) type ParsedValue<T> = Result<(T, toml::Value), String>;

pub(super) fn text(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<String> {
    let text = string(given, kind)?;
    if text.trim().is_empty() {
        return Err("is empty".into());
    }
    Ok((text.into(), text.into()))
}

pub(super) fn flag(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<bool> {
    let flag = match given {
        RawScalar::Toml(value) => value.to_bool().ok_or_else(|| wrong_type(given, kind))?,
        RawScalar::Text(text) => match trimmed(text) {
            "true" => true,
            "false" => false,
            _ => return Err(invalid(kind)),
        },
    };
    Ok((flag, flag.into()))
}

pub(super) fn count(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<u32> {
    let number = match given {
        RawScalar::Toml(value) => value.to_i128().ok_or_else(|| wrong_type(given, kind))?,
        RawScalar::Text(text) => trimmed(text).parse().map_err(|_| invalid(kind))?,
    };
    let ValueKind::Count { min, max } = kind else {
        unreachable!("a count's key is of the kind Count")
    };
    match u32::try_from(number) {
        Ok(fit) if (min..=max).contains(&fit) => Ok((fit, i64::from(fit).into())),
        _ => Err(invalid(kind)),
    }
}

pub(super) fn decimal(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<f64> {
    let number = match given {
        #[expect(
            clippy::cast_precision_loss,
            reason = "only small numbers are accepted below"
        )]
        RawScalar::Toml(value) => match value.to_i128() {
            Some(whole) => whole as f64,
            None => value.to_f64().ok_or_else(|| wrong_type(given, kind))?,
        },
        RawScalar::Text(text) => trimmed(text).parse().map_err(|_| invalid(kind))?,
    };
    let ValueKind::Decimal { min, max } = kind else {
        unreachable!("a decimal's key is of the kind Decimal")
    };
    if (min..=max).contains(&number) {
        Ok((number, number.into()))
    } else {
        Err(invalid(kind))
    }
}

pub(super) fn duration(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<Duration> {
    let text = string(given, kind)?;
    let ValueKind::Duration { min, max } = kind else {
        unreachable!("a duration's key is of the kind Duration")
    };
    match one_duration(text) {
        Some(fit) if (min..=max).contains(&fit) => Ok((fit, quoted(fit))),
        _ => Err(invalid(kind)),
    }
}

pub(super) fn ladder(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<RetryDelays> {
    let texts: Vec<&str> = match given {
        RawScalar::Toml(value) => value
            .as_array()
            .and_then(|items| items.iter().map(Value::as_str).collect())
            .ok_or_else(|| "is no list of durations such as [\"5s\", \"2m\"]".to_string())?,
        RawScalar::Text(text) => text.split(',').map(str::trim).collect(),
    };
    let steps: Result<Vec<Duration>, String> = texts
        .iter()
        .map(|text| {
            let text = trimmed(text);
            // `5s 30s` would be one step of 35 s.
            let spaced = text.contains(char::is_whitespace);
            let step = if spaced { None } else { one_duration(text) };
            step.ok_or_else(|| {
                invalid(kind)
                    + ": each step is one duration without spaces, such as 5s, 2m or 1h30m; in a \
                       variable a comma stands between two steps"
            })
        })
        .collect();
    let ladder = RetryDelays::new(steps?).map_err(|bad| bad.to_string())?;
    let shown: Vec<toml::Value> = ladder
        .steps()
        .iter()
        .map(|step| RetryDelays::label(*step).into())
        .collect();
    Ok((ladder, shown.into()))
}

pub(super) fn address(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<SocketAddr> {
    let text = string(given, kind)?;
    let address: SocketAddr = text.parse().map_err(|_| invalid(kind))?;
    Ok((address, address.to_string().into()))
}

/// The place of the choice in the kind's list.
pub(super) fn choice(given: RawScalar<'_>, kind: ValueKind) -> ParsedValue<usize> {
    let text = string(given, kind)?;
    let ValueKind::Choice(choices) = kind else {
        unreachable!("a choice's key is of the kind Choice")
    };
    let place = choices.iter().position(|choice| *choice == text);
    let place = place.ok_or_else(|| invalid(kind))?;
    Ok((place, text.into()))
}

/// One duration, each unit smaller than the one before: `1h 30m` is one, `5s 30s` looks like two.
fn one_duration(text: &str) -> Option<Duration> {
    let units: Option<Vec<Duration>> = text
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|unit| !unit.is_empty())
        .map(|unit| humantime::parse_duration(&format!("1{unit}")).ok())
        .collect();
    let descends = units?.is_sorted_by(|a, b| a > b);
    let duration = humantime::parse_duration(text).ok();
    duration.filter(|_| descends)
}

/// A duration as `config show` tells it, and as it can be read again.
pub(super) fn quoted(duration: Duration) -> toml::Value {
    humantime::format_duration(duration).to_string().into()
}

fn string(given: RawScalar<'_>, kind: ValueKind) -> Result<&str, String> {
    match given {
        RawScalar::Text(text) => Ok(trimmed(text)),
        RawScalar::Toml(value) => value
            .as_str()
            .map(trimmed)
            .ok_or_else(|| wrong_type(given, kind)),
    }
}

fn wrong_type(given: RawScalar<'_>, kind: ValueKind) -> String {
    let is = match given {
        RawScalar::Text(_) | RawScalar::Toml(Value::String(..) | Value::Char(..)) => "text",
        RawScalar::Toml(Value::Bool(..)) => "true or false",
        RawScalar::Toml(Value::Num(..)) => "a number",
        RawScalar::Toml(Value::Array(..)) => "a list",
        RawScalar::Toml(Value::Dict(..)) => "a table",
        RawScalar::Toml(Value::Empty(..)) => "empty",
    };
    format!("is {is}; say {}", kind.expected())
}

/// What a value that does not fit should be. The value is never quoted: it may be a secret that
/// strayed.
fn invalid(kind: ValueKind) -> String {
    format!("does not fit; say {}", kind.expected())
}
