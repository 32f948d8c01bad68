//! Which letters are meant: by name, by what they say, by what they ask for.

use std::collections::BTreeSet;
use std::str::FromStr;

use jiff::Timestamp;
use uuid::Uuid;

use super::dead_letter::{DeadLetter, LetterId};

/// Fewer digits of a letter's id would be a guess.
const PREFIX_MIN: usize = 4;
/// All digits of a letter's id.
const ID_LEN: usize = 32;

/// A letter by name: the first digits of its id, or the id of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterRef {
    Letter(String),
    Request(Uuid),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a letter is named by the first digits of its id, 4 to 32 of 0-9 and a-f, or by the id of its request"
)]
pub struct BadName;

impl FromStr for LetterRef {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if text.contains('-') {
            return Uuid::try_parse(text)
                .map(Self::Request)
                .map_err(|_| BadName);
        }
        let digits = text.to_ascii_lowercase();
        let fits = (PREFIX_MIN..=ID_LEN).contains(&digits.len())
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        fits.then_some(Self::Letter(digits)).ok_or(BadName)
    }
}

impl std::fmt::Display for LetterRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Letter(digits) => f.write_str(digits),
            Self::Request(id) => write!(f, "{id}"),
        }
    }
}

impl LetterRef {
    fn matches_id(&self, letter: &DeadLetter, request: Option<Uuid>) -> bool {
        match self {
            Self::Letter(digits) => letter.id.full().starts_with(digits),
            Self::Request(id) => request == Some(*id),
        }
    }
}

/// What letters must have, all of it. Of several of one kind, one is enough.
#[derive(Clone, Default)]
pub struct LetterFilter {
    pub names: Vec<LetterRef>,
    pub reasons: Vec<String>,
    /// A part of the detail.
    pub detail: Option<String>,
    pub accounts: Vec<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The old or the new name.
    pub username: Option<String>,
}

impl std::fmt::Debug for LetterFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl LetterFilter {
    /// Whether it takes every letter.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        let Self {
            names,
            reasons,
            detail,
            accounts,
            since,
            until,
            username,
        } = self;
        names.is_empty()
            && reasons.is_empty()
            && detail.is_none()
            && accounts.is_empty()
            && since.is_none()
            && until.is_none()
            && username.is_none()
    }

    /// Whether it takes this letter. What is cheap is asked first; the body is read last.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        self.fits_headers(letter) && self.fits_names(letter) && self.fits_body(letter)
    }

    fn fits_headers(&self, letter: &DeadLetter) -> bool {
        if !self.reasons.is_empty() && !self.reasons.iter().any(|r| *r == *letter.reason()) {
            return false;
        }
        if let Some(part) = &self.detail
            && !letter.detail().contains(part)
        {
            return false;
        }
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        // A letter without any time is in no span of time.
        letter.failed_at().is_some_and(|at| {
            self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
        })
    }

    fn fits_names(&self, letter: &DeadLetter) -> bool {
        if self.names.is_empty() {
            return true;
        }
        let by_request = |named: &LetterRef| matches!(named, LetterRef::Request(_));
        let asks_body = self.names.iter().any(by_request);
        let request = asks_body.then(|| letter.request_uuid()).flatten();
        let mut names = self.names.iter();
        names.any(|named| named.matches_id(letter, request))
    }

    fn fits_body(&self, letter: &DeadLetter) -> bool {
        if self.accounts.is_empty() && self.username.is_none() {
            return true;
        }
        let asked = letter.asked();
        let account_fits = self.accounts.is_empty()
            || asked
                .account_id
                .is_some_and(|account| self.accounts.contains(&account));
        let name_fits = self.username.is_none()
            || self.username == asked.username
            || self.username == asked.new_username;
        account_fits && name_fits
    }
}

/// Which letters each name has been found to mean.
pub(super) struct ResolvedRefs<'f> {
    filter: &'f LetterFilter,
    meant: Vec<BTreeSet<LetterId>>,
}

/// What is wrong with a name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    #[error("there is no letter {0}")]
    NotFound(LetterRef),
    #[error("{name} could be any of {}: name more digits", listed(among))]
    Several {
        name: LetterRef,
        among: Vec<LetterId>,
    },
}

/// Ids that are listed where a name is ambiguous.
const LISTED: usize = 5;

fn listed(among: &[LetterId]) -> String {
    let mut ids: Vec<String> = among.iter().take(LISTED).map(|id| id.full()).collect();
    if among.len() > LISTED {
        ids.push("…".to_owned());
    }
    ids.join(", ")
}

impl<'f> ResolvedRefs<'f> {
    pub(super) fn new(filter: &'f LetterFilter) -> Self {
        Self {
            filter,
            meant: vec![BTreeSet::new(); filter.names.len()],
        }
    }

    /// Notes a letter that the filter takes.
    pub(super) fn note(&mut self, letter: &DeadLetter) {
        if self.meant.is_empty() {
            return;
        }
        let request = letter.request_uuid();
        for (named, meant) in self.filter.names.iter().zip(&mut self.meant) {
            // A few are enough to show that a name is ambiguous.
            if meant.len() <= LISTED && named.matches_id(letter, request) {
                meant.insert(letter.id);
            }
        }
    }

    /// All that is wrong with the names, now that every letter has been looked at. Several letters
    /// of one request are no ambiguity: the request was named.
    pub(super) fn troubles(self) -> Vec<RefError> {
        let names = self.filter.names.iter().zip(self.meant);
        names
            .filter_map(|(name, meant)| match (name, meant.len()) {
                (name, 0) => Some(RefError::NotFound(name.clone())),
                (LetterRef::Letter(_), 2..) => Some(RefError::Several {
                    name: name.clone(),
                    among: meant.into_iter().collect(),
                }),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::letter;
    use crate::messages::message::MessageView;
    use crate::messages::timestamp;

    fn at(text: &str) -> Option<Timestamp> {
        timestamp::parse(text)
    }

    #[test]
    fn a_letter_is_named_by_digits_or_by_its_request() {
        assert_eq!("AB12".parse(), Ok(LetterRef::Letter("ab12".into())));
        let uuid = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
        assert_eq!(uuid.parse(), Ok(LetterRef::Request(uuid.parse().unwrap())));
        for bad in ["", "abc", "xyz1", &"a".repeat(33), "3c90c3cc-0d44"] {
            assert_eq!(bad.parse::<LetterRef>(), Err(BadName), "{bad}");
        }
    }

    #[test]
    fn every_condition_has_to_be_met() {
        let letter = letter("username_taken", "2026-11-24T09:00:00.000Z");
        let all = LetterFilter::default();
        assert!(all.takes_all() && all.matches(&letter));
        let id = letter.id.full();
        let met: [fn(&mut LetterFilter); 7] = [
            |f| f.reasons = vec!["poison".into(), "username_taken".into()],
            |f| f.detail = Some("409".into()),
            |f| f.accounts = vec!["T12345678".into()],
            |f| f.since = at("2026-11-24T09:00:00Z"),
            |f| f.until = at("2026-11-24T09:00:01Z"),
            |f| f.username = Some("ola".into()),
            |f| f.username = Some("kari".into()),
        ];
        let unmet: [fn(&mut LetterFilter); 6] = [
            |f| f.reasons = vec!["poison".into()],
            |f| f.detail = Some("410".into()),
            |f| f.accounts = vec!["T12345679".into()],
            |f| f.since = at("2026-11-24T09:00:01Z"),
            |f| f.until = at("2026-11-24T09:00:00Z"),
            |f| f.username = Some("OLA".into()),
        ];
        for (nth, change) in met.iter().enumerate() {
            let mut filter = LetterFilter {
                names: vec![LetterRef::Letter(id[..6].into())],
                ..LetterFilter::default()
            };
            change(&mut filter);
            assert!(filter.matches(&letter), "{nth}");
            assert!(!filter.takes_all());
            for (mth, change) in unmet.iter().enumerate() {
                let mut filter = filter.clone();
                change(&mut filter);
                assert!(!filter.matches(&letter), "{nth} {mth}");
            }
        }
    }

    #[test]
    fn names_that_mean_nobody_or_several_are_told() {
        let letters: Vec<_> = (0..40)
            .map(|n| letter("poison", &format!("2026-11-24T09:00:00.{n:03}Z")))
            .collect();
        let mut by_first_digits = letters.iter().map(|l| l.id.full()[..4].to_owned());
        let first = by_first_digits.next().unwrap();
        let request = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
        let nobody = "00000000-0000-0000-0000-000000000000";
        let filter = LetterFilter {
            names: [&*first, request, nobody]
                .map(|name| name.parse().unwrap())
                .into(),
            ..LetterFilter::default()
        };
        let mut found = ResolvedRefs::new(&filter);
        for letter in &letters {
            assert!(filter.matches(letter), "all are of one request");
            found.note(letter);
        }
        let nobody = RefError::NotFound(nobody.parse().unwrap());
        assert_eq!(found.troubles(), [nobody]);

        // Two letters whose first digits are the same.
        let mut found = ResolvedRefs::new(&filter);
        found.meant[0] = letters.iter().take(2).map(|letter| letter.id).collect();
        let told = found.troubles().first().unwrap().to_string();
        assert!(told.contains("could be any of"), "{told}");
    }

    #[test]
    fn a_letter_without_time_is_in_no_span() {
        let letter = DeadLetter::new(MessageView::default(), 0);
        let filter = LetterFilter {
            since: Some(Timestamp::MIN),
            ..LetterFilter::default()
        };
        assert!(!filter.matches(&letter));
    }
}
