//! `dead-letters list`

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;
use serde_json::json;

use super::super::terminal::{results, written};
use super::super::{CliError, ExitStatus, print};
use super::args::{CommonArgs, FilterArgs};
use super::bulk_action::failed;
use super::render::{DETAIL_MAX, ProgressLine, counted, letters, table, time, truncate};
use crate::core::model::request::AccountId;
use crate::dead_letters::{
    DeadLetter, HeaderAuthor, LetterGroups, LetterVisitor, ReviewSession, SearchResult,
};
use crate::messages::headers;
use crate::messages::timestamp;

/// Characters of a username in a table.
const NAME_MAX: usize = 40;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Each letter on a line; with --json a JSON object a line
    #[arg(long)]
    each: bool,
    /// Show usernames as well
    #[arg(long, requires = "each")]
    show_usernames: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

pub async fn run(
    args: &ListArgs,
    common: &CommonArgs,
    desk: &ReviewSession,
) -> Result<ExitStatus, CliError> {
    let outcome = if args.each {
        each(args, common.json, desk).await
    } else {
        grouped(args, common.json, desk).await
    };
    outcome.map_err(|trouble| failed(&trouble))
}

async fn grouped(
    args: &ListArgs,
    json: bool,
    desk: &ReviewSession,
) -> Result<ExitStatus, crate::broker::BrokerError> {
    let mut groups = LetterGroups::default();
    let bar = ProgressLine::new("looking");
    let searched = desk
        .search(
            &args.filter.filter(&[]),
            args.filter.limit(),
            |step| bar.show(step),
            |letter| {
                groups.add(letter);
                LetterVisitor::Counted
            },
        )
        .await?;
    drop(bar);
    args.filter.tell_reasons(&searched);
    let groups = groups.sorted();
    let text = if json {
        let object = json!({
            "looked_at": searched.seen,
            "not_looked_at": searched.unseen,
            "missing": searched.missing,
            "matched": searched.matched,
            "groups": groups,
        });
        format!("{object:#}\n")
    } else {
        table(&groups) + &conclusion(&searched)
    };
    Ok(print(&text))
}

fn conclusion(searched: &SearchResult) -> String {
    let seen = searched.seen;
    let text = match searched.matched {
        0 if seen > 0 => format!("none of {} matches", letters(seen)),
        all if all == seen => letters(all),
        some => format!("{} of {seen}", letters(some)),
    };
    let others = [
        (searched.unseen, "more were not looked at, as --limit says"),
        (searched.missing, "more are held by something else"),
    ];
    text + &counted(others) + "\n"
}

/// Written as they come, so that a list of any length needs no memory.
async fn each(
    args: &ListArgs,
    json: bool,
    desk: &ReviewSession,
) -> Result<ExitStatus, crate::broker::BrokerError> {
    let mut out = results();
    let mut result = Ok(());
    let mut title = if json {
        String::new()
    } else {
        title(args.show_usernames)
    };
    let searched = desk
        .search(
            &args.filter.filter(&[]),
            args.filter.limit(),
            |_| {},
            |letter| {
                let line = if json {
                    json_line(letter, args.show_usernames)
                } else {
                    std::mem::take(&mut title) + &text_line(letter, args.show_usernames)
                };
                result = out.write_all(line.as_bytes());
                if result.is_ok() {
                    LetterVisitor::Counted
                } else {
                    LetterVisitor::Enough
                }
            },
        )
        .await?;
    args.filter.tell_reasons(&searched);
    if !json && result.is_ok() {
        result = out.write_all(conclusion(&searched).as_bytes());
    }
    Ok(written(result.and_then(|()| out.flush())))
}

fn title(show_usernames: bool) -> String {
    let mut title = columns("LETTER", "FAILED AT", "REASON", "ACCOUNT", "REQUEST");
    if show_usernames {
        title += &names("USERNAME", "NEW NAME");
    }
    title + "  DETAIL\n"
}

/// As wide as names are shown at most: the lines are written before the longest is known.
fn names(old: &str, new: &str) -> String {
    format!("  {old:<NAME_MAX$}  {new:<NAME_MAX$}")
}

/// The widths are those of what is usual.
fn columns(letter: &str, failed_at: &str, reason: &str, account: &str, request: &str) -> String {
    format!("{letter:<12}  {failed_at:<20}  {reason:<21}  {account:<9}  {request:<36}")
}

fn text_line(letter: &DeadLetter, show_usernames: bool) -> String {
    let asked = letter.asked();
    let or_dash = |text: Option<String>, most| {
        text.map_or_else(|| "-".to_owned(), |text| truncate(&text, most))
    };
    let mut line = columns(
        &letter.id.to_string(),
        &time(letter.failed_at()),
        &truncate(&letter.reason(), NAME_MAX),
        &or_dash(account(asked.account_id, show_usernames), NAME_MAX),
        &or_dash(request(letter, show_usernames), NAME_MAX),
    );
    if show_usernames {
        line += &names(
            &or_dash(asked.username, NAME_MAX),
            &or_dash(asked.new_username, NAME_MAX),
        );
    }
    // Writing to a string cannot fail.
    let _ = writeln!(line, "  {}", truncate(&letter.detail(), DETAIL_MAX));
    line
}

fn json_line(letter: &DeadLetter, show_usernames: bool) -> String {
    let asked = letter.asked();
    let mut line = json!({
        "letter": letter.id.full(),
        "failed_at": letter.failed_at().map(timestamp::format),
        "reason": letter.reason(),
        "detail": letter.detail(),
        "http_status": letter.http_status(),
        "attempts": letter.attempts(),
        "written_by": written_by(letter),
        "request_id": request(letter, show_usernames),
        "account_id": account(asked.account_id, show_usernames),
        "replay_of": letter.text(headers::REPLAY_OF),
    });
    if show_usernames {
        line["username"] = json!(asked.username);
        line["new_username"] = json!(asked.new_username);
    }
    format!("{line}\n")
}

/// The request's id. Where upstream mixed up its fields, a name may stand there, and it is no id.
fn request(letter: &DeadLetter, show_usernames: bool) -> Option<String> {
    if show_usernames {
        letter.request_id().map(Into::into)
    } else {
        letter.request_uuid().map(|id| id.to_string())
    }
}

/// The account; the same goes for it.
fn account(asked: Option<String>, show_usernames: bool) -> Option<String> {
    asked.filter(|id| show_usernames || AccountId::parse(id).is_ok())
}

pub fn written_by(letter: &DeadLetter) -> &'static str {
    match letter.written_by() {
        HeaderAuthor::Worker => "worker",
        HeaderAuthor::Broker => "broker",
        HeaderAuthor::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::message::{MessageField, MessageView};

    fn letter(reason: &str, detail: &str) -> DeadLetter {
        let headers = [
            (headers::REASON, reason),
            (headers::DETAIL, detail),
            (headers::FAILED_AT, "2026-11-24T09:00:00.123Z"),
        ];
        let headers = headers.map(|(name, text)| (name.to_owned(), MessageField::from(text)));
        let message = MessageView {
            body: br#"{"request_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","account_id":"T12345678","username":"ola","new_username":"kari"}"#.to_vec(),
            headers: headers.into(),
            ..MessageView::default()
        };
        DeadLetter::new(message, 0)
    }

    #[test]
    fn groups_are_told_in_a_table() {
        let mut groups = LetterGroups::default();
        for _ in 0..1200 {
            groups.add(&letter("username_taken", "the API answered 409"));
        }
        groups.add(&letter("invalid_request", "/username: is missing"));
        groups.add(&letter("odd\u{1b}[2J", &"long ".repeat(40)));
        insta::assert_snapshot!(table(&groups.sorted()));
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn what_was_not_seen_is_told() {
        let told = |matched, seen, unseen, missing| {
            conclusion(&SearchResult {
                seen,
                unseen,
                missing,
                matched,
                troubles: Vec::new(),
            })
        };
        assert_eq!(told(0, 0, 0, 0), "0 letters\n");
        assert_eq!(told(0, 7, 0, 0), "none of 7 letters matches\n");
        assert_eq!(told(7, 7, 0, 0), "7 letters\n");
        assert_eq!(
            told(1, 7, 0, 3),
            "1 letter of 7; 3 more are held by something else\n"
        );
        assert_eq!(
            told(5, 7, 93, 0),
            "5 letters of 7; 93 more were not looked at, as --limit says\n"
        );
    }

    #[test]
    fn a_name_in_place_of_an_id_is_no_id() {
        let mut message = letter("invalid_request", "is no UUID").message;
        let body = r#"{"request_id":"ola@example.com","account_id":"kari@example.com"}"#;
        message.body = body.into();
        let letter = DeadLetter::new(message, 0);
        for line in [text_line(&letter, false), json_line(&letter, false)] {
            assert!(!line.contains("example.com"), "{line}");
        }
        assert!(text_line(&letter, true).contains("ola@example.com"));
    }

    #[test]
    fn usernames_are_shown_only_when_asked_for() {
        let letter = letter("username_taken", "the API answered 409");
        for line in [text_line(&letter, false), json_line(&letter, false)] {
            assert!(!line.contains("ola") && !line.contains("kari"), "{line}");
        }
        let lines = [text_line(&letter, true), json_line(&letter, true)];
        assert!(lines.iter().all(|line| line.contains("kari")));
        insta::assert_snapshot!(title(true) + &lines.concat());
        let [told, _] = lines;
        let column = |line: &str, text: &str| line.find(text).unwrap();
        for (heading, text) in [
            ("USERNAME", "ola"),
            ("NEW NAME", "kari"),
            ("DETAIL", "the API"),
        ] {
            assert_eq!(column(&title(true), heading), column(&told, text), "{told}");
        }
        assert!(!title(false).contains("NAME"));
    }
}
