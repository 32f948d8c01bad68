//! Letters by reason and detail: how many, since when, until when, and one to look at.
//!
//! Only that is kept, so a hundred thousand letters cost what their groups cost.

use std::borrow::Cow;
use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use super::dead_letter::{DeadLetter, LetterId};
use crate::messages::timestamp;

/// Details that are told apart. Whoever forges headers can make up any number of them.
const DETAILS_MAX: usize = 10_000;
/// Bytes of a detail that details are told apart by. The worker's own are shorter; with forged ones
/// of 100 KB each, the groups would take a gigabyte.
const DETAIL_BYTES: usize = 500;
/// What stands for those beyond.
const MORE: &str = "(more details than are told apart)";

/// The groups, as they grow.
#[derive(Debug, Default)]
pub struct LetterGroups {
    by_reason: HashMap<Box<str>, HashMap<Box<str>, GroupStats>>,
    details: usize,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    pub reason: Box<str>,
    pub detail: Box<str>,
    pub count: u64,
    /// When the first and the last of them failed, as far as they say.
    #[serde(serialize_with = "time")]
    pub first: Option<Timestamp>,
    #[serde(serialize_with = "time")]
    pub last: Option<Timestamp>,
    /// A letter of the group.
    #[serde(serialize_with = "id")]
    pub example: LetterId,
}

#[derive(Debug)]
struct GroupStats {
    count: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    example: LetterId,
}

impl LetterGroups {
    pub fn add(&mut self, letter: &DeadLetter) {
        let (reason, detail, at) = (letter.reason(), letter.detail(), letter.failed_at());
        let (reason, detail) = (beginning(&reason), beginning(&detail));
        let known = self.by_reason.get_mut(&*reason);
        if let Some(facts) = known.and_then(|details| details.get_mut(&*detail)) {
            facts.add(at);
            return;
        }
        // What is new beyond the bound has one group in all.
        let (reason, detail) = if self.details < DETAILS_MAX {
            self.details += 1;
            (&*reason, &*detail)
        } else {
            ("", MORE)
        };
        let details = self.by_reason.entry(reason.into()).or_default();
        let facts = details.entry(detail.into()).or_insert(GroupStats {
            count: 0,
            first: None,
            last: None,
            example: letter.id,
        });
        facts.add(at);
    }

    /// All groups, the largest first.
    #[must_use]
    pub fn sorted(self) -> Vec<LetterGroup> {
        let groups = self.by_reason.into_iter().flat_map(|(reason, details)| {
            details.into_iter().map(move |(detail, facts)| LetterGroup {
                reason: reason.clone(),
                detail,
                count: facts.count,
                first: facts.first,
                last: facts.last,
                example: facts.example,
            })
        });
        let mut groups: Vec<_> = groups.collect();
        groups.sort_by(|a, b| {
            let by_count = b.count.cmp(&a.count);
            by_count.then_with(|| (&a.reason, &a.detail).cmp(&(&b.reason, &b.detail)))
        });
        groups
    }
}

/// The text, cut where it is too long.
fn beginning(text: &str) -> Cow<'_, str> {
    if text.len() <= DETAIL_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(DETAIL_BYTES);
    format!("{}…", &text[..end]).into()
}

impl GroupStats {
    fn add(&mut self, at: Option<Timestamp>) {
        self.count += 1;
        if let Some(at) = at {
            self.first = Some(self.first.map_or(at, |first| first.min(at)));
            self.last = Some(self.last.map_or(at, |last| last.max(at)));
        }
    }
}

#[expect(clippy::ref_option, reason = "the shape that serde asks for")]
fn time<S: serde::Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => to.serialize_str(&timestamp::format(*at)),
        None => to.serialize_none(),
    }
}

fn id<S: serde::Serializer>(id: &LetterId, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&id.full())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::letter;
    use crate::messages::headers;

    #[test]
    fn letters_are_grouped_by_reason_and_detail_with_their_span() {
        let mut groups = LetterGroups::default();
        for (reason, at) in [
            ("poison", "2026-11-24T09:00:00.000Z"),
            ("username_taken", "2026-11-24T09:00:03.000Z"),
            ("username_taken", "2026-11-24T09:00:01.000Z"),
            ("username_taken", "never"),
        ] {
            groups.add(&letter(reason, at));
        }
        let groups = groups.sorted();
        let told: Vec<_> = groups.iter().map(|g| (&*g.reason, g.count)).collect();
        assert_eq!(told, [("username_taken", 3), ("poison", 1)]);
        assert_eq!(groups[0].first, timestamp::parse("2026-11-24T09:00:01Z"));
        assert_eq!(groups[0].last, timestamp::parse("2026-11-24T09:00:03Z"));
    }

    #[test]
    fn made_up_details_cannot_fill_the_memory() {
        let mut groups = LetterGroups::default();
        let letters = DETAILS_MAX + 5;
        for n in 0..letters {
            let mut message = letter("poison", "").message;
            let detail = format!("{n}").as_str().into();
            message.headers.insert(headers::DETAIL.to_owned(), detail);
            groups.add(&DeadLetter::new(message, 0));
        }
        let groups = groups.sorted();
        assert_eq!(groups.len(), DETAILS_MAX + 1);
        assert_eq!(&*groups[0].detail, MORE);
        assert_eq!(groups[0].count, 5);
    }

    #[test]
    fn long_details_are_told_by_how_they_begin() {
        let mut groups = LetterGroups::default();
        for end in ["a", "b"] {
            let mut message = letter("poison", "").message;
            let detail = "ø".repeat(50_000) + end;
            message
                .headers
                .insert(headers::DETAIL.to_owned(), detail.into());
            groups.add(&DeadLetter::new(message, 0));
        }
        let groups = groups.sorted();
        assert_eq!((groups.len(), groups[0].count), (1, 2));
        assert_eq!(groups[0].detail.chars().count(), DETAIL_BYTES / 2 + 1);
    }
}
