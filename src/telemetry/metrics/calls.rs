//! The labels of API calls: which call, and what it came to.

use super::family::{LabelSet, StaticLabels};
use super::labels::label;
use crate::core::model::api_response::{ApiResponse, CallKind, TransportError};

/// Any call to the API: the core's two, and Get Token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallLabel {
    Rename,
    Confirm,
    Token,
}

impl CallLabel {
    pub const ALL: [Self; 3] = [Self::Rename, Self::Confirm, Self::Token];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rename => "rename",
            Self::Confirm => "confirm",
            Self::Token => "token",
        }
    }
}

label!(CallLabel, "kind", CallLabel::ALL, CallLabel::as_str);

impl From<CallKind> for CallLabel {
    fn from(kind: CallKind) -> Self {
        match kind {
            CallKind::Rename => Self::Rename,
            CallKind::Confirm => Self::Confirm,
        }
    }
}

/// What a call came to: a status code, or why there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallStatus {
    Code(u16),
    Timeout,
    Connect,
    Reset,
    /// A 2xx whose body is not what it should be.
    Garbled,
}

impl CallStatus {
    /// The codes told one by one: those the API documents or is assumed to use, and those that
    /// proxies and gateways in front of it are known to answer with. Any other is told as its
    /// class (`4xx`), so that no answer can add a series. Ascending.
    const CODES: [u16; 28] = [
        200, 201, 202, 204, 301, 302, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 415,
        422, 425, 429, 500, 501, 502, 503, 504, 520, 529,
    ];
    const CLASSES: [&'static str; 6] = ["2xx", "3xx", "4xx", "5xx", "other", "garbled"];
    const SILENCES: [&'static str; 3] = ["timeout", "connect", "reset"];
    const COUNT: usize = Self::CODES.len() + Self::CLASSES.len() + Self::SILENCES.len();

    /// `None` where no call was made.
    #[must_use]
    pub fn of(answer: &ApiResponse) -> Option<Self> {
        match answer {
            ApiResponse::User(_) => Some(Self::Code(200)),
            ApiResponse::Malformed { .. } => Some(Self::Garbled),
            ApiResponse::Refused(refusal) => Some(Self::Code(refusal.status)),
            ApiResponse::Silence(TransportError::Connect) => Some(Self::Connect),
            ApiResponse::Silence(TransportError::Timeout) => Some(Self::Timeout),
            ApiResponse::Silence(TransportError::Reset) => Some(Self::Reset),
            ApiResponse::NoToken(_) => None,
        }
    }
}

impl LabelSet for CallStatus {
    const NAMES: &'static [&'static str] = &["status"];

    fn rows(_: &StaticLabels) -> Vec<Vec<String>> {
        let codes = Self::CODES.iter().map(u16::to_string);
        let words = Self::CLASSES
            .iter()
            .chain(&Self::SILENCES)
            .map(|&word| word.to_owned());
        codes.chain(words).map(|value| vec![value]).collect()
    }

    fn row(self) -> usize {
        let classes = Self::CODES.len();
        let silences = classes + Self::CLASSES.len();
        match self {
            Self::Code(code) => Self::CODES.binary_search(&code).unwrap_or(match code {
                200..=299 => classes,
                300..=399 => classes + 1,
                400..=499 => classes + 2,
                500..=599 => classes + 3,
                _ => classes + 4,
            }),
            Self::Garbled => classes + 5,
            Self::Timeout => silences,
            Self::Connect => silences + 1,
            Self::Reset => silences + 2,
        }
    }
}

/// Each call with each status.
impl LabelSet for (CallLabel, CallStatus) {
    const NAMES: &'static [&'static str] = &["kind", "status"];

    fn rows(given: &StaticLabels) -> Vec<Vec<String>> {
        let statuses = CallStatus::rows(given);
        CallLabel::rows(given)
            .iter()
            .flat_map(|call| statuses.iter().map(|status| [&**call, status].concat()))
            .collect()
    }

    fn row(self) -> usize {
        self.0.row() * CallStatus::COUNT + self.1.row()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<L: LabelSet>(labels: L) -> String {
        L::rows(&StaticLabels::default())[labels.row()].join(",")
    }

    #[test]
    fn a_status_is_its_code_or_else_its_class() {
        for code in CallStatus::CODES {
            assert_eq!(value(CallStatus::Code(code)), code.to_string());
        }
        for (code, class) in [
            (226, "2xx"),
            (399, "3xx"),
            (418, "4xx"),
            (599, "5xx"),
            (0, "other"),
            (999, "other"),
        ] {
            assert_eq!(value(CallStatus::Code(code)), class, "{code}");
        }
        for (silence, word) in [
            (CallStatus::Timeout, "timeout"),
            (CallStatus::Connect, "connect"),
            (CallStatus::Reset, "reset"),
            (CallStatus::Garbled, "garbled"),
        ] {
            assert_eq!(value(silence), word);
            assert_eq!(value((CallLabel::Token, silence)), format!("token,{word}"));
        }
    }

    #[test]
    fn a_pair_has_each_with_each() {
        let rows = <(CallLabel, CallStatus)>::rows(&StaticLabels::default());
        assert_eq!(rows.len(), CallLabel::ALL.len() * CallStatus::COUNT);
        assert_eq!(
            value((CallLabel::Confirm, CallStatus::Code(404))),
            "confirm,404"
        );
    }
}
