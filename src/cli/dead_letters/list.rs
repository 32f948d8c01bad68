//! `dead-letters list`

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::ops::ControlFlow;

use clap::Args;
use serde_json::json;

use super::super::{Exit, print};
use super::args::{Common, FilterArgs};
use super::text::{Bar, letters, short, time};
use crate::dead_letters::{Desk, Group, Groups, Letter, Surveyed, WrittenBy};
use crate::wire::headers::{self, HeaderSource as _};
use crate::wire::timestamp;

/// Characters of a detail in a table; `show` and `--json` have all of it.
const DETAIL_MAX: usize = 70;
/// Characters of a username in a table.
const NAME_MAX: usize = 40;

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Each letter on a line; with --json a JSON object a line
    #[arg(long)]
    each: bool,
    /// Show usernames as well
    #[arg(long, requires = "each")]
    show_usernames: bool,
}

pub async fn run(args: &ListArgs, common: &Common, desk: &Desk) -> Exit {
    let outcome = if args.each {
        each(args, common.json, desk).await
    } else {
        grouped(args, common.json, desk).await
    };
    outcome.unwrap_or_else(|trouble| {
        eprintln!("{trouble}");
        Exit::of(&trouble)
    })
}

async fn grouped(args: &ListArgs, json: bool, desk: &Desk) -> Result<Exit, crate::broker::Trouble> {
    let filter = args.filter.filter(&[]);
    let limit = args.filter.limit();
    let mut groups = Groups::default();
    let mut matched = 0;
    let bar = Bar::new("looking");
    let surveyed = desk
        .survey(
            |step| bar.show(step),
            |letter| {
                if matched < limit && filter.takes(letter) {
                    matched += 1;
                    groups.add(letter);
                }
                go_on(matched < limit)
            },
        )
        .await?;
    drop(bar);
    let groups = groups.sorted();
    let text = if json {
        let told = json!({
            "looked_at": surveyed.seen,
            "missing": surveyed.missing,
            "matched": matched,
            "groups": groups,
        });
        format!("{told:#}\n")
    } else {
        table(&groups, matched, surveyed)
    };
    Ok(print(&text))
}

pub fn go_on(yes: bool) -> ControlFlow<()> {
    if yes {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}

fn table(groups: &[Group], matched: u64, surveyed: Surveyed) -> String {
    let width = |of: fn(&Group) -> String, title: &str| {
        let widest = groups.iter().map(|group| of(group).chars().count()).max();
        widest.unwrap_or(0).max(title.len())
    };
    let counts = width(|group| group.count.to_string(), "COUNT");
    let reasons = width(|group| short(&group.reason, DETAIL_MAX), "REASON");
    let details = width(|group| short(&group.detail, DETAIL_MAX), "DETAIL");
    let mut text = String::new();
    let mut line = |count: &str, reason: &str, detail: &str, first: &str, last: &str, id: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{count:>counts$}  {reason:<reasons$}  {detail:<details$}  {first:<20}  {last:<20}  {id}"
        );
    };
    if !groups.is_empty() {
        line("COUNT", "REASON", "DETAIL", "FIRST", "LAST", "EXAMPLE");
    }
    for group in groups {
        line(
            &group.count.to_string(),
            &short(&group.reason, DETAIL_MAX),
            &short(&group.detail, DETAIL_MAX),
            &time(group.first),
            &time(group.last),
            &group.example.to_string(),
        );
    }
    text.push_str(&conclusion(matched, surveyed));
    text
}

fn conclusion(matched: u64, surveyed: Surveyed) -> String {
    let Surveyed { seen, missing } = surveyed;
    let mut text = if matched == seen {
        letters(matched)
    } else {
        format!("{} of {seen}", letters(matched))
    };
    if missing > 0 {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {missing} more are held by something else");
    }
    text.push('\n');
    text
}

/// Written as they come, so that a list of any length needs no memory.
async fn each(args: &ListArgs, json: bool, desk: &Desk) -> Result<Exit, crate::broker::Trouble> {
    let filter = args.filter.filter(&[]);
    let limit = args.filter.limit();
    let mut out = BufWriter::new(io::stdout());
    let mut matched = 0;
    let mut written = Ok(());
    let surveyed = desk
        .survey(
            |_| {},
            |letter| {
                if matched < limit && filter.takes(letter) {
                    matched += 1;
                    let line = if json {
                        json_line(letter, args.show_usernames)
                    } else {
                        text_line(letter, args.show_usernames)
                    };
                    written = out.write_all(line.as_bytes());
                }
                go_on(matched < limit && written.is_ok())
            },
        )
        .await?;
    let mut written = written.and_then(|()| out.flush());
    if !json && written.is_ok() {
        written = out
            .write_all(conclusion(matched, surveyed).as_bytes())
            .and_then(|()| out.flush());
    }
    Ok(match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("cannot write the result: {error}");
            Exit::Failed
        }
        _ => Exit::Done,
    })
}

fn text_line(letter: &Letter, show_usernames: bool) -> String {
    let asked = letter.asked();
    let or_dash =
        |text: Option<String>, most| text.map_or_else(|| "-".to_owned(), |text| short(&text, most));
    let request = letter.request_id().map(Into::into);
    let mut line = format!(
        "{}  {:<20}  {:<18}  {:<9}  {:<36}",
        letter.id,
        time(letter.failed_at()),
        short(&letter.reason(), NAME_MAX),
        or_dash(asked.account_id, NAME_MAX),
        or_dash(request, NAME_MAX),
    );
    if show_usernames {
        let (old, new) = (
            or_dash(asked.username, NAME_MAX),
            or_dash(asked.new_username, NAME_MAX),
        );
        // Writing to a string cannot fail.
        let _ = write!(line, "  {old} -> {new}");
    }
    // Writing to a string cannot fail.
    let _ = writeln!(line, "  {}", short(&letter.detail(), DETAIL_MAX));
    line
}

fn json_line(letter: &Letter, show_usernames: bool) -> String {
    let asked = letter.asked();
    let mut line = json!({
        "letter": letter.id.full(),
        "failed_at": letter.failed_at().map(timestamp::print),
        "reason": letter.reason(),
        "detail": letter.detail(),
        "http_status": letter.message.headers.int(headers::HTTP_STATUS),
        "attempts": letter.message.headers.int(headers::ATTEMPTS),
        "written_by": written_by(letter),
        "request_id": letter.request_id(),
        "account_id": asked.account_id,
        "replay_of": letter.text(headers::REPLAY_OF),
    });
    if show_usernames {
        line["username"] = json!(asked.username);
        line["new_username"] = json!(asked.new_username);
    }
    format!("{line}\n")
}

pub fn written_by(letter: &Letter) -> &'static str {
    match letter.written_by() {
        WrittenBy::Worker => "worker",
        WrittenBy::Broker => "broker",
        WrittenBy::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Field, Message};

    fn letter(reason: &str, detail: &str) -> Letter {
        let headers = [
            (headers::REASON, reason),
            (headers::DETAIL, detail),
            (headers::FAILED_AT, "2026-11-24T09:00:00.123Z"),
        ];
        let headers = headers.map(|(name, text)| (name.to_owned(), Field::from(text)));
        let message = Message {
            body: br#"{"request_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","account_id":"T12345678","username":"ola","new_username":"kari"}"#.to_vec(),
            headers: headers.into(),
            ..Message::default()
        };
        Letter::new(message, 0)
    }

    #[test]
    fn groups_are_told_in_a_table() {
        let mut groups = Groups::default();
        for _ in 0..1200 {
            groups.add(&letter("username_taken", "the API answered 409"));
        }
        groups.add(&letter("invalid_request", "/username: is missing"));
        groups.add(&letter("odd\u{1b}[2J", &"long ".repeat(40)));
        let surveyed = Surveyed {
            seen: 1300,
            missing: 3,
        };
        insta::assert_snapshot!(table(&groups.sorted(), 1202, surveyed));
        let nothing = Surveyed::default();
        assert_eq!(table(&[], 0, nothing), "0 letters\n");
    }

    #[test]
    fn usernames_are_shown_only_when_asked_for() {
        let letter = letter("username_taken", "the API answered 409");
        for line in [text_line(&letter, false), json_line(&letter, false)] {
            assert!(!line.contains("ola") && !line.contains("kari"), "{line}");
        }
        let lines = [text_line(&letter, true), json_line(&letter, true)];
        assert!(lines.iter().all(|line| line.contains("kari")));
        insta::assert_snapshot!(lines.concat());
    }
}
