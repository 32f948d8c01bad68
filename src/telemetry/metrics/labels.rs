//! The labels and every value each can have. A label that is no enum here cannot exist.

use super::family::{Given, Labels};
use crate::core::outcome::{Failed, How, Outcome, Reason, Renamed};
use crate::core::policy::hold::Cause;
use crate::core::removal::RemovalCause;
use crate::core::verdict::Confirmation;

/// A label that is a plain enum with a text for each value.
macro_rules! label {
    ($type:ty, $name:literal, $all:expr, $text:expr) => {
        impl Labels for $type {
            const NAMES: &'static [&'static str] = &[$name];

            fn rows(_: &Given) -> Vec<Vec<String>> {
                let text: fn($type) -> &'static str = $text;
                $all.iter()
                    .map(|&value| vec![text(value).to_owned()])
                    .collect()
            }

            fn row(self) -> usize {
                self as usize
            }
        }
    };
}

pub(super) use label;

/// Whether the broker had delivered the message before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivered(pub bool);

impl Labels for Redelivered {
    const NAMES: &'static [&'static str] = &["redelivered"];

    fn rows(_: &Given) -> Vec<Vec<String>> {
        vec![vec!["false".to_owned()], vec!["true".to_owned()]]
    }

    fn row(self) -> usize {
        usize::from(self.0)
    }
}

/// How requests end, in three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Renamed,
    AlreadyApplied,
    Failed,
}

impl End {
    pub const ALL: [Self; 3] = [Self::Renamed, Self::AlreadyApplied, Self::Failed];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Renamed => "renamed",
            Self::AlreadyApplied => "already_applied",
            Self::Failed => "failed",
        }
    }
}

label!(End, "outcome", End::ALL, End::as_str);

impl From<&Outcome> for End {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Renamed(Renamed {
                how: How::Applied, ..
            }) => Self::Renamed,
            Outcome::Renamed(Renamed {
                how: How::AlreadyApplied,
                ..
            }) => Self::AlreadyApplied,
            Outcome::Failed(_) => Self::Failed,
        }
    }
}

/// Why a message is in `rename.undeliverable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndeliverableCause {
    Removed(RemovalCause),
    /// Nobody can read it over AMQP 0-9-1.
    Unreadable,
}

impl Labels for UndeliverableCause {
    const NAMES: &'static [&'static str] = &["cause"];

    fn rows(_: &Given) -> Vec<Vec<String>> {
        let removed = RemovalCause::ALL.map(RemovalCause::as_str);
        let all = removed.into_iter().chain(["unreadable"]);
        all.map(|cause| vec![cause.to_owned()]).collect()
    }

    fn row(self) -> usize {
        match self {
            Self::Removed(cause) => cause as usize,
            Self::Unreadable => RemovalCause::ALL.len(),
        }
    }
}

label!(Reason, "reason", Reason::ALL, Reason::as_str);

/// An end, and its reason if it has one. Not a product: only failures have reasons, the others
/// say `none` (an empty value would be no label at all to Prometheus, and no legend).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndWhy {
    Renamed,
    AlreadyApplied,
    Failed(Reason),
}

impl From<&Outcome> for EndWhy {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Renamed(Renamed {
                how: How::Applied, ..
            }) => Self::Renamed,
            Outcome::Renamed(Renamed {
                how: How::AlreadyApplied,
                ..
            }) => Self::AlreadyApplied,
            Outcome::Failed(Failed { reason, .. }) => Self::Failed(*reason),
        }
    }
}

impl Labels for EndWhy {
    const NAMES: &'static [&'static str] = &["outcome", "reason"];

    fn rows(_: &Given) -> Vec<Vec<String>> {
        let row = |end: End, reason: &str| vec![end.as_str().to_owned(), reason.to_owned()];
        let successes = [row(End::Renamed, "none"), row(End::AlreadyApplied, "none")];
        let failures = Reason::ALL
            .iter()
            .map(|reason| row(End::Failed, reason.as_str()));
        successes.into_iter().chain(failures).collect()
    }

    fn row(self) -> usize {
        match self {
            Self::Renamed => 0,
            Self::AlreadyApplied => 1,
            Self::Failed(reason) => 2 + reason as usize,
        }
    }
}

/// A step of the retry ladder, by its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay(pub usize);

impl Labels for Delay {
    const NAMES: &'static [&'static str] = &["delay"];

    fn rows(given: &Given) -> Vec<Vec<String>> {
        given.ladder.iter().map(|step| vec![step.clone()]).collect()
    }

    fn row(self) -> usize {
        self.0
    }
}

label!(Confirmation, "result", CONFIRMATIONS, confirmation_text);

const CONFIRMATIONS: [Confirmation; 4] = [
    Confirmation::Found,
    Confirmation::Absent,
    Confirmation::Mismatch,
    Confirmation::Unclear,
];

const fn confirmation_text(confirmation: Confirmation) -> &'static str {
    match confirmation {
        Confirmation::Found => "found",
        Confirmation::Absent => "absent",
        Confirmation::Mismatch => "mismatch",
        Confirmation::Unclear => "unclear",
    }
}

/// What an outcome is told by; the routing key too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    UserRenamed,
    UserRenameFailed,
}

impl EventType {
    pub const ALL: [Self; 2] = [Self::UserRenamed, Self::UserRenameFailed];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserRenamed => "user.renamed",
            Self::UserRenameFailed => "user.rename-failed",
        }
    }
}

label!(EventType, "type", EventType::ALL, EventType::as_str);

impl From<&Outcome> for EventType {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Renamed(_) => Self::UserRenamed,
            Outcome::Failed(_) => Self::UserRenameFailed,
        }
    }
}

label!(Cause, "cause", Cause::ALL, Cause::as_str);

/// The program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build;

impl Labels for Build {
    const NAMES: &'static [&'static str] = &["version", "revision"];

    fn rows(given: &Given) -> Vec<Vec<String>> {
        vec![vec![given.version.clone(), given.revision.clone()]]
    }

    fn row(self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<L: Labels>(labels: L) -> String {
        L::rows(&Given::default())[labels.row()].join(",")
    }

    #[test]
    fn every_value_stands_in_its_own_row() {
        for reason in Reason::ALL {
            assert_eq!(value(reason), reason.as_str());
            assert_eq!(
                value(EndWhy::Failed(reason)),
                format!("failed,{}", reason.as_str())
            );
        }
        for end in End::ALL {
            assert_eq!(value(end), end.as_str());
        }
        for result in CONFIRMATIONS {
            assert_eq!(value(result), confirmation_text(result));
        }
        for kind in EventType::ALL {
            assert_eq!(value(kind), kind.as_str());
        }
        for cause in Cause::ALL {
            assert_eq!(value(cause), cause.as_str());
        }
        assert_eq!(value(Redelivered(true)), "true");
        assert_eq!(value(Redelivered(false)), "false");
        assert_eq!(value(EndWhy::Renamed), "renamed,none");
        assert_eq!(value(EndWhy::AlreadyApplied), "already_applied,none");
    }
}
