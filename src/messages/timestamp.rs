//! Instants as text: RFC 3339, read strictly and written to the millisecond.

use std::borrow::Cow;

use jiff::fmt::temporal::DateTimePrinter;
use jiff::{Timestamp, civil};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// What the schemas say beside `"format": "date-time"`: RFC 3339 less leap seconds, and at most
/// nanoseconds.
pub(super) const PATTERN: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-5][0-9]\
    (\\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

/// Reads an instant, or tells that it is none. One beyond what can be counted, such as the last
/// day of the year 9999, is taken for the last that can.
#[must_use]
pub fn parse(text: &str) -> Option<Timestamp> {
    if !has_shape(text.as_bytes()) {
        return None;
    }
    if let Ok(instant) = text.parse() {
        return Some(instant);
    }
    // The shape allows years 0000 to 9999, so a valid date that is no instant lies at their end.
    let date = text[..DATE_LEN].parse::<civil::Date>().ok()?;
    let time = text[DATE_LEN + 1..SECONDS_END]
        .parse::<civil::Time>()
        .ok()?;
    let at_the_end = date.to_datetime(time) > civil::date(9999, 12, 29).at(0, 0, 0, 0);
    at_the_end.then_some(Timestamp::MAX)
}

/// The instant in UTC, to the millisecond: `2026-11-24T10:00:00.000Z`.
#[must_use]
pub fn format(instant: Timestamp) -> String {
    PRINTER.timestamp_to_string(&instant)
}

/// An instant that serialises as [`format()`] does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rfc3339Millis(pub Timestamp);

impl Serialize for Rfc3339Millis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(PRINTED_LEN);
        // Writing to a string cannot fail.
        let _ = PRINTER.print_timestamp(&self.0, &mut text);
        to.serialize_str(&text)
    }
}

impl JsonSchema for Rfc3339Millis {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// Some consumers' parsers stop at three or six digits, so all digits beyond are left out.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
/// `2026-11-24T10:00:00.000Z`, in bytes.
const PRINTED_LEN: usize = 24;
/// `2026-11-24`, in bytes.
const DATE_LEN: usize = 10;
/// `2026-11-24T10:00:00`, in bytes.
const SECONDS_END: usize = 19;

/// The shape [`PATTERN`] describes. The parser below takes more than RFC 3339, such as spaces and
/// time zone names.
fn has_shape(text: &[u8]) -> bool {
    let Some((front, rest)) = text.split_at_checked(SECONDS_END) else {
        return false;
    };
    let front_fits = front
        .iter()
        .zip(b"dddd-dd-ddTdd:dd:dd")
        .all(|(c, shape)| match shape {
            b'd' => c.is_ascii_digit(),
            b'T' => matches!(c, b'T' | b't'),
            mark => c == mark,
        });
    if !front_fits || front[17] > b'5' {
        return false;
    }
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let digits = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
        whole => whole,
    };
    match offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hours @ .., b':', m1, m2] => {
            let hours_fit = matches!(hours, [b'0' | b'1', b'0'..=b'9'] | [b'2', b'0'..=b'3']);
            hours_fit && matches!(m1, b'0'..=b'5') && m2.is_ascii_digit()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_3339_is_read_and_nothing_else() {
        for good in [
            "2026-11-23T10:00:00Z",
            "2026-11-23t10:00:00.123456789z",
            "2026-11-23T10:00:00+01:00",
            "2026-11-23T10:00:00.5-23:59",
            "0000-01-01T00:00:00Z",
            "2024-02-29T00:00:00Z",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "now",
            "2026-11-23",
            "2026-11-23T10:00Z",
            "2026-11-23T10:00:00",
            "2026-11-23 10:00:00Z",
            "2026-11-23T10:00:60Z",
            "2026-11-23T24:00:00Z",
            "2026-13-23T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2026-11-23T10:00:00.Z",
            "2026-11-23T10:00:00.1234567890Z",
            "2026-11-23T10:00:00+0100",
            "2026-11-23T10:00:00+24:00",
            "2026-11-23T10:00:00Z[Europe/Oslo]",
            "+002026-11-23T10:00:00Z",
            "2026-11-23T10:00:00Zé",
            "9999-13-31T23:59:59Z",
            "9999-12-32T23:59:59Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_end_of_time_is_the_last_instant() {
        for end in ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999-12:00"] {
            assert_eq!(parse(end), Some(Timestamp::MAX));
        }
    }

    #[test]
    fn an_instant_is_told_in_utc_to_the_millisecond() {
        let instant = parse("2026-11-23T11:00:00.123999+01:00").unwrap();
        assert_eq!(format(instant), "2026-11-23T10:00:00.123Z");
        let whole = parse("2026-11-23T10:00:00Z").unwrap();
        assert_eq!(format(whole), "2026-11-23T10:00:00.000Z");
        let told = serde_json::to_string(&Rfc3339Millis(whole)).unwrap();
        assert_eq!(told, "\"2026-11-23T10:00:00.000Z\"");
    }
}
