//! `dead-letters show`

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::super::terminal::{results, written};
use super::super::{CliError, ExitStatus};
use super::args::CommonArgs;
use super::bulk_action::{failed, refuse_unresolved};
use super::list::written_by;
use super::render::{ProgressLine, dump, escape_control_chars, letters, time};
use crate::broker::BrokerError;
use crate::dead_letters::{
    DeadLetter, LetterFilter, LetterRef, LetterSelection, LetterVisitor, ReviewSession, editable,
    explain,
};
use crate::messages::headers;
use crate::messages::message::{MessageField, MessageProperties};
use crate::messages::timestamp;

/// Letters that one call shows; a request may have failed many times.
const LETTERS_MAX: u64 = 50;
/// Bytes of a body that are dumped; an export has all of them.
const DUMP_MAX: usize = 4096;
/// Bytes of a JSON body that is laid out; requests have 64 KiB at most. More is dumped.
const JSON_MAX: usize = 256 << 10;
/// Characters in a line of prose.
const PROSE_WIDTH: usize = 76;

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The first digits of a letter's id, or the id of a request
    #[arg(value_name = "LETTER", required = true)]
    letters: Vec<LetterRef>,
}

pub async fn run(
    args: &ShowArgs,
    common: &CommonArgs,
    desk: &ReviewSession,
) -> Result<ExitStatus, CliError> {
    let filter = LetterFilter {
        names: args.letters.clone(),
        ..LetterFilter::default()
    };
    // Found first and read once more to be shown: all of them at a time would take what memory they
    // take, and a letter may have many MB.
    let mut meant = LetterSelection::default();
    let mut more = 0;
    let bar = ProgressLine::new("looking");
    let searched = desk
        .search(
            &filter,
            u64::MAX,
            |step| bar.show(step),
            |letter| {
                if meant.total() < LETTERS_MAX {
                    meant.add(letter);
                } else {
                    more += 1;
                }
                LetterVisitor::Counted
            },
        )
        .await;
    let searched = searched.map_err(|trouble| failed(&trouble))?;
    refuse_unresolved(&searched.troubles, "nothing is shown")?;
    if more > 0 {
        say!("{more} more are not shown: it shows {LETTERS_MAX} at a time");
    }
    show(meant, common.json, desk)
        .await
        .map_err(|trouble| failed(&trouble))
}

/// Writes each letter as it comes.
async fn show(
    mut meant: LetterSelection,
    json: bool,
    desk: &ReviewSession,
) -> Result<ExitStatus, BrokerError> {
    let mut to = results();
    let mut result = Ok(());
    let mut shown: u64 = 0;
    let searched = desk
        .search(
            &LetterFilter::default(),
            u64::MAX,
            |_| {},
            |letter| {
                if meant.is_empty() {
                    return LetterVisitor::Enough;
                }
                if !meant.remove(letter.id) {
                    return LetterVisitor::PassedOver;
                }
                result = write_letter(&mut to, letter, json, shown == 0);
                shown += 1;
                if result.is_ok() && !meant.is_empty() {
                    LetterVisitor::Counted
                } else {
                    LetterVisitor::Enough
                }
            },
        )
        .await;
    if json {
        let end = if shown == 0 { "[]\n" } else { "\n]\n" };
        result = result.and_then(|()| to.write_all(end.as_bytes()));
    }
    let exit = written(result.and_then(|()| to.flush()));
    searched?;
    if meant.is_empty() {
        return Ok(exit);
    }
    say!("{} went while they were looked for", letters(meant.total()));
    Ok(ExitStatus::Failed)
}

fn write_letter(
    to: &mut impl Write,
    letter: &DeadLetter,
    json: bool,
    first: bool,
) -> io::Result<()> {
    if !json {
        let between = if first { "" } else { "\n" };
        return write!(to, "{between}{}", as_text(letter));
    }
    to.write_all(if first { b"[\n" } else { b",\n" })?;
    serde_json::to_writer_pretty(to, &as_json(letter))?;
    Ok(())
}

fn as_json(letter: &DeadLetter) -> serde_json::Value {
    let asked = letter.asked();
    json!({
        "letter": letter.id.full(),
        "reason": letter.reason(),
        "detail": letter.detail(),
        "meaning": explain(letter),
        "written_by": written_by(letter),
        "failed_at": letter.failed_at().map(timestamp::format),
        "deliveries": letter.deliveries,
        "request_id": letter.request_id(),
        "account_id": asked.account_id,
        "username": asked.username,
        "new_username": asked.new_username,
        "wrong_with_the_request": asked.wrong,
        "message": letter.message,
    })
}

fn as_text(letter: &DeadLetter) -> String {
    let mut text = format!("Letter {} ({})\n", letter.id, letter.id.full());
    for (name, value) in facts(letter) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<13}{}", escape_control_chars(&value));
    }
    text.push_str("\nWhat it means\n");
    for line in wrapped(explain(letter)) {
        let _ = writeln!(text, "  {line}");
    }
    let _ = write!(text, "\n{}", body(letter));
    section(
        &mut text,
        "Properties",
        properties(&letter.message.properties),
    );
    let headers = letter.message.headers.iter();
    let headers = headers
        .filter(|(name, _)| ![headers::X_DEATH, headers::ORIGINAL_DEATHS].contains(&name.as_str()));
    section(
        &mut text,
        "Headers",
        headers.map(|(name, field)| (escape_control_chars(name), field_text(field))),
    );
    let deaths = letter.deaths().into_iter().map(|death| {
        let what = format!(
            "{} from {}, {} in all",
            escape_control_chars(&death.reason),
            escape_control_chars(&death.queue),
            death.count
        );
        (time(death.at), what)
    });
    section(&mut text, "RabbitMQ's history", deaths);
    text
}

/// What is worth knowing first.
fn facts(letter: &DeadLetter) -> Vec<(&'static str, String)> {
    let asked = letter.asked();
    let mut reason = letter.reason().into_owned();
    if let Some(status) = letter.http_status() {
        // Writing to a string cannot fail.
        let _ = write!(reason, " (HTTP {status})");
    }
    let mut failed = time(letter.failed_at());
    if let Some(attempts) = letter.attempts() {
        let _ = write!(failed, ", attempts: {attempts}");
    }
    if let Some(first) = letter.first_attempt_at() {
        let _ = write!(failed, ", the first at {}", time(Some(first)));
    }
    let origin = letter.origin();
    let exchange = match origin.exchange {
        "" => "the default exchange",
        named => named,
    };
    let sent = format!("{exchange}, routing key {}", origin.routing_key);
    let request = letter.request_id().map(Into::into);
    let of = letter.text(headers::REPLAY_OF).map(str::to_owned);
    let detail = letter.detail().into_owned();
    let wrong = asked.wrong.filter(|wrong| **wrong != *detail);
    let written = match written_by(letter) {
        "unknown" => "something else than the worker".to_owned(),
        known => format!("the {known}"),
    };
    [
        ("reason", Some(reason)),
        ("detail", Some(detail).filter(|text| !text.is_empty())),
        ("failed at", Some(failed)),
        ("put here by", Some(written)),
        ("request", request),
        ("account", asked.account_id),
        ("username", asked.username),
        ("new name", asked.new_username),
        ("now wrong", wrong.map(Into::into)),
        ("sent to", Some(sent)),
        ("replay of", of),
        (
            "looked at",
            Some(format!("{} times before", letter.deliveries)),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

fn body(letter: &DeadLetter) -> String {
    let bytes = &letter.message.body;
    let title = format!("Body ({} bytes)\n", bytes.len());
    let text = std::str::from_utf8(bytes).ok();
    let is_json = |text: &&str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let json = text.filter(|text| text.len() <= JSON_MAX && is_json(text));
    let mut shown: Vec<String> = if let Some(json) = json {
        editable(json).lines().map(escape_control_chars).collect()
    } else {
        let front = dump(&bytes[..bytes.len().min(DUMP_MAX)]);
        front.lines().map(str::to_owned).collect()
    };
    if json.is_none() && bytes.len() > DUMP_MAX {
        shown.push(format!("… {} bytes more", bytes.len() - DUMP_MAX));
    }
    let shown = shown.iter().map(|line| format!("  {line}\n"));
    title + &shown.collect::<String>()
}

fn properties(properties: &MessageProperties) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(told)) = serde_json::to_value(properties) else {
        return Vec::new();
    };
    let text = |name: &str, value: serde_json::Value| match value {
        serde_json::Value::String(text) => escape_control_chars(&text),
        seconds if name == "timestamp" => {
            let at = seconds
                .as_i64()
                .and_then(|at| Timestamp::from_second(at).ok());
            format!("{seconds} ({})", time(at))
        }
        other => other.to_string(),
    };
    told.into_iter()
        .map(|(name, value)| (name.clone(), text(&name, value)))
        .collect()
}

fn field_text(field: &MessageField) -> String {
    match (field.as_text(), field.as_int(), field) {
        (Some(text), _, _) => escape_control_chars(text),
        (_, Some(number), _) => number.to_string(),
        (_, _, MessageField::Bool(flag)) => flag.to_string(),
        _ => serde_json::to_string(field).unwrap_or_default(),
    }
}

fn section(text: &mut String, title: &str, lines: impl IntoIterator<Item = (String, String)>) {
    let lines: Vec<_> = lines.into_iter().collect();
    if lines.is_empty() {
        return;
    }
    let width = lines.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{title}");
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<width$}  {value}");
    }
}

fn wrapped(prose: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in prose.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        if !line.is_empty() && line.len() + word.len() >= PROSE_WIDTH {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::message::MessageView;

    fn text(text: &str) -> MessageField {
        MessageField::from(text)
    }

    #[test]
    fn a_letter_of_the_worker_s_is_told_for_a_person() {
        let headers = [
            (headers::REASON, text("username_taken")),
            (headers::DETAIL, text("the API answered 409 conflict")),
            (headers::HTTP_STATUS, MessageField::Int64(409)),
            (headers::ATTEMPTS, MessageField::Int64(1)),
            (headers::FAILED_AT, text("2026-11-24T09:00:00.123Z")),
            (headers::FIRST_ATTEMPT_AT, text("2026-11-24T08:59:59.000Z")),
            (headers::ORIGINAL_EXCHANGE, text("rename.requests")),
            (headers::ORIGINAL_ROUTING_KEY, text("rename.T12345678")),
        ];
        let message = MessageView {
            exchange: "rename.dead-letters".into(),
            routing_key: "rename.T12345678".into(),
            properties: MessageProperties {
                content_type: Some("application/json".into()),
                delivery_mode: Some(2),
                timestamp: Some(1_763_978_400),
                message_id: Some("3c90c3cc-0d44-4b50-8888-8dd25736052a".into()),
                ..MessageProperties::default()
            },
            headers: headers.map(|(name, field)| (name.to_owned(), field)).into(),
            body: br#"{"request_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","account_id":"T12345678","username":"ola","new_username":"kari"}"#.to_vec(),
        };
        insta::assert_snapshot!(as_text(&DeadLetter::new(message, 3)));
    }

    #[test]
    fn a_letter_from_anywhere_is_told_with_its_bytes_and_history() {
        let death = [
            ("queue", text("rename.requests")),
            ("reason", text("delivery_limit")),
            ("count", MessageField::Int64(1)),
            ("time", MessageField::Timestamp(1_763_978_400)),
        ];
        let death = death.map(|(name, field)| (name.to_owned(), field));
        let deaths = MessageField::List(vec![MessageField::Table(death.into())]);
        let message = MessageView {
            routing_key: "any\u{1b}[2J".into(),
            headers: [
                (headers::X_DEATH.to_owned(), deaths),
                ("odd".to_owned(), MessageField::RawText(vec![0xff])),
            ]
            .into(),
            body: b"\x00\x01 no JSON".to_vec(),
            ..MessageView::default()
        };
        insta::assert_snapshot!(as_text(&DeadLetter::new(message, 0)));
    }

    #[test]
    fn prose_is_wrapped_between_words() {
        let long = "word ".repeat(40);
        let lines = wrapped(long.trim());
        assert!(lines.iter().all(|line| line.len() <= PROSE_WIDTH));
        assert_eq!(lines.join(" "), long.trim());
    }
}
