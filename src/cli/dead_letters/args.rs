//! What the commands have in common: which letters, and how it is told.

use std::num::NonZeroU64;

use clap::Args;
use jiff::{Timestamp, civil};
use uuid::Uuid;

use crate::clock;
use crate::dead_letters::{Filter, Named};
use crate::wire::timestamp;

#[derive(Debug, Args)]
pub struct Common {
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
    #[arg(long = "account", value_name = "ACCOUNT", value_delimiter = ',')]
    accounts: Vec<String>,
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
    #[arg(long = "request-id", value_name = "UUID")]
    request_ids: Vec<Uuid>,
    /// The first so many only
    #[arg(long, value_name = "N")]
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
    pub fn filter(&self, names: &[Named]) -> Filter {
        let requests = self.request_ids.iter().copied().map(Named::Request);
        Filter {
            names: names.iter().cloned().chain(requests).collect(),
            reasons: self.reasons.clone(),
            detail: self.detail.clone(),
            accounts: self.accounts.clone(),
            since: self.since,
            until: self.until,
            username: self.username.clone(),
        }
    }

    pub fn limit(&self) -> u64 {
        self.limit.map_or(u64::MAX, NonZeroU64::get)
    }
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
    use super::*;

    #[test]
    fn a_time_is_an_instant_a_day_or_a_while_ago() {
        let now = timestamp::parse("2026-11-24T10:00:00Z").unwrap();
        for (text, wanted) in [
            ("2026-11-23T09:00:00+01:00", "2026-11-23T08:00:00.000Z"),
            ("2026-11-23", "2026-11-23T00:00:00.000Z"),
            ("2h", "2026-11-24T08:00:00.000Z"),
            ("1day 1s", "2026-11-23T09:59:59.000Z"),
        ] {
            assert_eq!(timestamp::print(time_at(text, now).unwrap()), wanted);
        }
        for bad in ["", "yesterday", "2026-13-01", "10", "99999years"] {
            time_at(bad, now).unwrap_err();
        }
    }
}
