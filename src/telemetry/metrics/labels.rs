//! The labels and every value each can have. A label that is no enum here cannot exist.

use super::family::{LabelSet, StaticLabels};
use crate::core::model::outcome::{AppliedBy, Failed, Outcome, Reason, Renamed};
use crate::core::policy::hold::HoldCause;
use crate::core::policy::removal::RemovalCause;
use crate::core::policy::verdict::Confirmation;

/// A label that is a plain enum with a text for each value.
macro_rules! label {
    ($type:ty, $name:literal, $all:expr, $text:expr) => {
        impl LabelSet for $type {
            const NAMES: &'static [&'static str] = &[$name];

            fn rows(_: &StaticLabels) -> Vec<Vec<String>> {
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
pub struct RedeliveredLabel(pub bool);

impl LabelSet for RedeliveredLabel {
    const NAMES: &'static [&'static str] = &["redelivered"];

    fn rows(_: &StaticLabels) -> Vec<Vec<String>> {
        vec![vec!["false".to_owned()], vec!["true".to_owned()]]
    }

    fn row(self) -> usize {
        usize::from(self.0)
    }
}

/// How requests end, in three words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeLabel {
    Renamed,
    AlreadyApplied,
    Failed,
}

impl OutcomeLabel {
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

label!(
    OutcomeLabel,
    "outcome",
    OutcomeLabel::ALL,
    OutcomeLabel::as_str
);

impl From<&Outcome> for OutcomeLabel {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Renamed(Renamed {
                how: AppliedBy::Applied,
                ..
            }) => Self::Renamed,
            Outcome::Renamed(Renamed {
                how: AppliedBy::AlreadyApplied,
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

impl LabelSet for UndeliverableCause {
    const NAMES: &'static [&'static str] = &["cause"];

    fn rows(_: &StaticLabels) -> Vec<Vec<String>> {
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
pub enum ReasonLabel {
    Renamed,
    AlreadyApplied,
    Failed(Reason),
}

impl From<&Outcome> for ReasonLabel {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Renamed(Renamed {
                how: AppliedBy::Applied,
                ..
            }) => Self::Renamed,
            Outcome::Renamed(Renamed {
                how: AppliedBy::AlreadyApplied,
                ..
            }) => Self::AlreadyApplied,
            Outcome::Failed(Failed { reason, .. }) => Self::Failed(*reason),
        }
    }
}

impl LabelSet for ReasonLabel {
    const NAMES: &'static [&'static str] = &["outcome", "reason"];

    fn rows(_: &StaticLabels) -> Vec<Vec<String>> {
        let row =
            |end: OutcomeLabel, reason: &str| vec![end.as_str().to_owned(), reason.to_owned()];
        let successes = [
            row(OutcomeLabel::Renamed, "none"),
            row(OutcomeLabel::AlreadyApplied, "none"),
        ];
        let failures = Reason::ALL
            .iter()
            .map(|reason| row(OutcomeLabel::Failed, reason.as_str()));
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
pub struct DelayLabel(pub usize);

impl LabelSet for DelayLabel {
    const NAMES: &'static [&'static str] = &["delay"];

    fn rows(given: &StaticLabels) -> Vec<Vec<String>> {
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

label!(HoldCause, "cause", HoldCause::ALL, HoldCause::as_str);

/// The program itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildLabels;

impl LabelSet for BuildLabels {
    const NAMES: &'static [&'static str] = &["version", "revision"];

    fn rows(given: &StaticLabels) -> Vec<Vec<String>> {
        vec![vec![given.version.clone(), given.revision.clone()]]
    }

    fn row(self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<L: LabelSet>(labels: L) -> String {
        L::rows(&StaticLabels::default())[labels.row()].join(",")
    }

    #[test]
    fn every_value_stands_in_its_own_row() {
        for reason in Reason::ALL {
            assert_eq!(value(reason), reason.as_str());
            assert_eq!(
                value(ReasonLabel::Failed(reason)),
                format!("failed,{}", reason.as_str())
            );
        }
        for end in OutcomeLabel::ALL {
            assert_eq!(value(end), end.as_str());
        }
        for result in CONFIRMATIONS {
            assert_eq!(value(result), confirmation_text(result));
        }
        for kind in EventType::ALL {
            assert_eq!(value(kind), kind.as_str());
        }
        for cause in HoldCause::ALL {
            assert_eq!(value(cause), cause.as_str());
        }
        assert_eq!(value(RedeliveredLabel(true)), "true");
        assert_eq!(value(RedeliveredLabel(false)), "false");
        assert_eq!(value(ReasonLabel::Renamed), "renamed,none");
        assert_eq!(value(ReasonLabel::AlreadyApplied), "already_applied,none");
    }
}
