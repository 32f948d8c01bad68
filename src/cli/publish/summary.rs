//! What was done: counted while it is done, told on standard error what is wrong, and in the end
//! as one line or as JSON.

use std::fmt;

use serde::Serialize;

use super::super::ExitStatus;
use crate::broker::BrokerError;
use crate::publish::{PublishStop, PublishSummary, StopReason};

/// Lines whose mistakes are listed in the JSON summary; all are told on standard error.
const LISTED_MAX: usize = 1000;

/// What was done, as `--json` tells it.
#[derive(Debug, Default, Serialize)]
pub struct BatchSummary {
    pub dry_run: bool,
    pub valid: u64,
    pub invalid: u64,
    /// The first of the invalid lines.
    pub mistakes: Vec<RefusedRequest>,
    pub published: u64,
    /// Sent and not confirmed when it stopped: the broker may have them or not.
    pub unconfirmed: u64,
    /// Of the one request, when there is just one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where to go on: lines from here may or may not have been published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_line: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct RefusedRequest {
    pub line: u64,
    pub detail: Box<str>,
}

impl BatchSummary {
    pub fn refuse(&mut self, line: u64, mut detail: Box<str>) {
        if self.request_id.is_some() {
            detail = by_flags(&detail);
            say!("{detail}");
        } else {
            say!("line {line}: {detail}");
        }
        self.invalid += 1;
        if self.mistakes.len() < LISTED_MAX {
            self.mistakes.push(RefusedRequest { line, detail });
        }
    }

    /// Whether nothing is to be sent. Of the one request from flags there is no rest to send.
    pub fn is_to_be_refused(&self, skip_invalid: bool) -> bool {
        self.invalid > 0 && (!skip_invalid || self.request_id.is_some())
    }

    pub fn refuse_all(&mut self) -> ExitStatus {
        let Self { valid, invalid, .. } = *self;
        if self.request_id.is_some() {
            self.fail("nothing was sent: the request is not valid".to_owned());
            return ExitStatus::Usage;
        }
        let all = valid + invalid;
        self.fail(match valid {
            0 if invalid == 1 => "nothing was sent: the only request is not valid".to_owned(),
            0 => format!("nothing was sent: none of the {all} requests is valid"),
            _ => format!(
                "nothing was sent: {invalid} of {all} requests are not valid; \
                 --skip-invalid sends the rest"
            ),
        })
    }

    pub fn fail(&mut self, error: String) -> ExitStatus {
        say!("{error}");
        self.error = Some(error);
        ExitStatus::Failed
    }

    /// Tells why sending stopped, if it did, and where to go on.
    pub fn conclude(
        &mut self,
        sent: PublishSummary,
        trouble: Option<BrokerError>,
        exchange: &str,
    ) -> ExitStatus {
        const DECLARE: &str = "`rename-worker topology declare` makes what is missing";
        self.published = sent.confirmed;
        self.unconfirmed = sent.unconfirmed;
        let Some(PublishStop { why, at }) = sent.stop else {
            return ExitStatus::Done;
        };
        // Of one request there is nowhere to go on.
        self.next_line = self.request_id.is_none().then_some(at);
        let mut exit = ExitStatus::Failed;
        let why = match why {
            StopReason::Returned => {
                format!("no queue is bound to the exchange {exchange}; {DECLARE}")
            }
            StopReason::Refused => {
                "the broker refused a request: its queue is full, or has no leader".to_owned()
            }
            StopReason::Interrupted(None) => "interrupted".to_owned(),
            StopReason::Interrupted(Some(waiting)) => format!("interrupted; {waiting}"),
            StopReason::Changed => "the file was changed while it was read".to_owned(),
            StopReason::Unreadable(error) => format!("the requests cannot be read: {error}"),
            StopReason::Lost => match trouble {
                Some(trouble @ BrokerError::ChannelClosed(_)) => format!("{trouble}; {DECLARE}"),
                Some(trouble) => {
                    exit = ExitStatus::of(&trouble);
                    trouble.to_string()
                }
                None => "the connection to the broker ended".to_owned(),
            },
        };
        let (published, valid) = (self.published, self.valid);
        let again = match self.next_line {
            Some(line) => format!(
                "; go on with --from-line {line} (some from there on may have been published already)"
            ),
            None => String::new(),
        };
        let unconfirmed = match self.unconfirmed {
            0 => String::new(),
            sent => format!(", {sent} sent without a confirm"),
        };
        self.fail(format!(
            "{published} of {valid} requests were confirmed{unconfirmed}: {why}{again}"
        ));
        exit
    }
}

/// The fields that flags set, as JSON pointers, and those flags.
const FLAGS: [(&str, &str); 7] = [
    ("/request_id:", "--request-id:"),
    ("/account_id:", "--account:"),
    ("/username:", "--username:"),
    ("/new_username:", "--new-username:"),
    ("/user_id:", "--user-id:"),
    ("/requested_by:", "--requested-by:"),
    ("/not_after:", "--not-after:"),
];

/// What is wrong, told of the flags. No value is ever part of it, so nothing else is changed.
fn by_flags(detail: &str) -> Box<str> {
    let told = FLAGS.iter().fold(detail.to_owned(), |told, (field, flag)| {
        told.replace(field, flag)
    });
    told.into()
}

impl fmt::Display for BatchSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(id), false) = (&self.request_id, self.dry_run) {
            return write!(f, "request {id} was published and confirmed");
        }
        if self.dry_run {
            write!(f, "{} valid", are(self.valid))?;
        } else {
            write!(f, "{} published and confirmed", were(self.published))?;
        }
        if self.invalid > 0 {
            write!(f, ", {} not valid and left out", self.invalid)?;
        }
        if self.dry_run {
            f.write_str("; nothing was sent")?;
        }
        Ok(())
    }
}

fn are(requests: u64) -> String {
    match requests {
        1 => "1 request is".to_owned(),
        n => format!("{n} requests are"),
    }
}

fn were(requests: u64) -> String {
    match requests {
        1 => "1 request was".to_owned(),
        n => format!("{n} requests were"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::broker::{BrokerAlarm, PublishWait};

    fn valid(from: u64) -> BatchSummary {
        BatchSummary {
            valid: 10,
            published: from,
            ..BatchSummary::default()
        }
    }

    #[test]
    fn nothing_is_said_of_a_rest_where_there_is_none() {
        let refused = |valid, invalid| {
            let mut summary = BatchSummary {
                valid,
                invalid,
                ..BatchSummary::default()
            };
            assert_eq!(summary.refuse_all(), ExitStatus::Failed);
            summary.error.unwrap()
        };
        assert!(refused(1, 26).contains("--skip-invalid sends the rest"));
        assert_eq!(
            refused(0, 27),
            "nothing was sent: none of the 27 requests is valid"
        );
        assert_eq!(
            refused(0, 1),
            "nothing was sent: the only request is not valid"
        );
    }

    #[test]
    fn what_came_of_it_is_told_with_where_to_go_on() {
        let whys = [
            (StopReason::Returned, None, ExitStatus::Failed),
            (StopReason::Refused, None, ExitStatus::Failed),
            (StopReason::Interrupted(None), None, ExitStatus::Failed),
            (
                StopReason::Interrupted(Some(PublishWait::Alarm(BrokerAlarm::Memory))),
                None,
                ExitStatus::Failed,
            ),
            (StopReason::Changed, None, ExitStatus::Failed),
            (StopReason::Lost, None, ExitStatus::Failed),
            (
                StopReason::Lost,
                Some(BrokerError::ChannelClosed(
                    "NOT_FOUND - no exchange 'x'".to_owned(),
                )),
                ExitStatus::Failed,
            ),
            (
                StopReason::Lost,
                Some(BrokerError::ConnectionEnded("reset by peer".to_owned())),
                ExitStatus::Unreachable,
            ),
        ];
        let mut told = vec![
            valid(10).to_string(),
            BatchSummary {
                invalid: 2,
                dry_run: true,
                ..valid(1)
            }
            .to_string(),
        ];
        for (why, trouble, exit) in whys {
            let mut summary = valid(6);
            let sent = PublishSummary {
                confirmed: 6,
                unconfirmed: 3,
                stop: Some(PublishStop { why, at: 7 }),
            };
            assert_eq!(summary.conclude(sent, trouble, "rename.requests"), exit);
            told.push(json!(summary).to_string());
        }
        insta::assert_snapshot!(told.join("\n"));
    }
}
