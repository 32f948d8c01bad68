//! What the commands have in common: which letters, and how it is told.

use std::num::{NonZeroU32, NonZeroU64};

use clap::Args;
use jiff::{Timestamp, civil};
use uuid::Uuid;

use super::render::{DETAIL_MAX, truncate};
use crate::clock;
use crate::core::model::outcome::Reason;
use crate::core::model::request::AccountId;
use crate::dead_letters::{LetterFilter, LetterRef, OTHER_REASONS, SearchResult};
use crate::messages::timestamp;

#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Tell it as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Who reviews, where the account's name does not say
    #[arg(long = "as", value_name = "NAME", global = true)]
    pub by: Option<String>,
    /// The queue has no delivery limit though its arguments do not say so: a policy lifts it
    #[arg(long, global = true)]
    pub trust_queue: bool,
}

/// Letters that have all of it.
#[derive(Args)]
#[command(next_help_heading = "Which letters")]
pub struct FilterArgs {
    /// Of this reason, such as `username_taken`, as `list` tells it; may be given several times
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',')]
    reasons: Vec<String>,
    /// With this text in their detail
    #[arg(long, value_name = "TEXT")]
    detail: Option<String>,
    /// Of this account; may be given several times
    #[arg(
        long = "account",
        value_name = "ACCOUNT",
        value_delimiter = ',',
        value_parser = AccountId::parse
    )]
    accounts: Vec<AccountId>,
    /// That failed then or later: `2026-11-24` (its beginning in UTC), `2026-11-24T10:00:00Z`, or
    /// `2h` for two hours ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// That failed before then; told as for --since
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// With exactly this username, old or new
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// Of this request; may be given several times
    #[arg(long = "request-id", value_name = "UUID", value_parser = uuid)]
    request_ids: Vec<Uuid>,
    /// Process at most this number of dead letters
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<NonZeroU64>,
}

/// May name persons.
impl std::fmt::Debug for FilterArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterArgs").finish_non_exhaustive()
    }
}

impl FilterArgs {
    /// The filter, with the letters that are named besides.
    pub fn filter(&self, names: &[LetterRef]) -> LetterFilter {
        let requests = self.request_ids.iter().copied().map(LetterRef::Request);
        LetterFilter {
            names: names.iter().cloned().chain(requests).collect(),
            reasons: self.reasons.clone(),
            detail: self.detail.clone(),
            accounts: self.accounts.iter().map(ToString::to_string).collect(),
            since: self.since,
            until: self.until,
            username: self.username.clone(),
        }
    }

    pub fn limit(&self) -> u64 {
        self.limit.map_or(u64::MAX, NonZeroU64::get)
    }

    /// Says which reasons there are, where nothing was found and a reason may be misspelt. It may
    /// be right all the same: letters that no worker of this version wrote can have others.
    pub fn tell_reasons(&self, searched: &SearchResult) {
        if searched.matched == 0
            && let Some(hint) = self.hint()
        {
            say!("{hint}");
        }
    }

    fn hint(&self) -> Option<String> {
        let known = Reason::ALL.map(Reason::as_str);
        let mut known = known.into_iter().chain(OTHER_REASONS);
        let strange = self
            .reasons
            .iter()
            .find(|reason| known.clone().all(|known| known != *reason))?;
        let first = known.next().unwrap_or_default().to_owned();
        let known = known.fold(first, |told, reason| told + ", " + reason);
        let strange = truncate(strange, DETAIL_MAX);
        Some(format!(
            "\"{strange}\" is none of the usual reasons: {known}"
        ))
    }
}

/// The number of letters that are enough.
fn limit(text: &str) -> Result<NonZeroU64, &'static str> {
    text.parse().map_err(|_| "it is a whole number, at least 1")
}

/// So many a second.
pub fn rate(text: &str) -> Result<NonZeroU32, &'static str> {
    text.parse()
        .map_err(|_| "it is a whole number from 1 to 4294967295")
}

fn uuid(text: &str) -> Result<Uuid, &'static str> {
    Uuid::try_parse(text).map_err(|_| "it is a UUID such as 3c90c3cc-0d44-4b50-8888-8dd25736052a")
}

/// An instant, a day's beginning in UTC, or so long ago.
fn time(text: &str) -> Result<Timestamp, String> {
    time_at(text, clock::now())
}

fn time_at(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let told = || "it is a time such as 2026-11-24T10:00:00Z, 2026-11-24 or 2h".to_owned();
    if let Some(instant) = timestamp::parse(text) {
        return Ok(instant);
    }
    if let Ok(day) = text.parse::<civil::Date>()
        && let Some(instant) = timestamp::parse(&format!("{day}T00:00:00Z"))
    {
        return Ok(instant);
    }
    let ago = humantime::parse_duration(text).map_err(|_| told())?;
    now.checked_sub(ago).map_err(|_| told())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct FilterCommandLine {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn parsed(flags: [&str; 2]) -> Result<FilterArgs, clap::Error> {
        FilterCommandLine::try_parse_from(["list"].into_iter().chain(flags))
            .map(|command| command.filter)
    }

    #[test]
    fn typing_errors_are_told_in_plain_words() {
        for (flags, wanted) in [
            (
                ["--account", "foo"],
                "an account id is P or T and eight digits",
            ),
            (["--account", "T12345678,foo"], "an account id is P or T"),
            (["--request-id", "foo"], "it is a UUID such as 3c90c3cc-"),
            (["--limit", "0"], "it is a whole number, at least 1"),
            (["--limit", "many"], "it is a whole number, at least 1"),
        ] {
            let told = parsed(flags).unwrap_err().to_string();
            assert!(told.contains(wanted), "{flags:?}: {told}");
        }
        assert!(rate("0").unwrap_err().contains("from 1 to"));
    }

    #[test]
    fn reasons_are_told_where_one_is_none_of_them() {
        let hint = |reasons| parsed(["--reason", reasons]).unwrap().hint();
        assert_eq!(hint("poison,broker_expired,unknown"), None);
        let told = hint("poison,nope").unwrap();
        for part in [
            "\"nope\"",
            "username_taken, ",
            ", broker_expired",
            ", unknown",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn a_time_is_an_instant_a_day_or_a_while_ago() {
        let now = timestamp::parse("2026-11-24T10:00:00Z").unwrap();
        for (text, wanted) in [
            ("2026-11-23T09:00:00+01:00", "2026-11-23T08:00:00.000Z"),
            ("2026-11-23", "2026-11-23T00:00:00.000Z"),
            ("2h", "2026-11-24T08:00:00.000Z"),
            ("1day 1s", "2026-11-23T09:59:59.000Z"),
        ] {
            assert_eq!(timestamp::format(time_at(text, now).unwrap()), wanted);
        }
        for bad in ["", "yesterday", "2026-13-01", "10", "99999years"] {
            time_at(bad, now).unwrap_err();
        }
    }
}
