//! All letters looked at once, and those that are meant handed on. It is how every command begins.

use std::ops::ControlFlow;

use super::dead_letter::DeadLetter;
use super::filter::{LetterFilter, RefError, ResolvedRefs};
use super::review_session::{ReviewProgress, ReviewSession};
use crate::broker::BrokerError;

/// What a visitor makes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterVisitor {
    /// It counts toward the limit.
    Counted,
    /// It is not meant after all.
    PassedOver,
    /// Nothing more is wanted.
    Enough,
}

/// What a search saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SearchResult {
    /// Letters that were looked at.
    pub seen: u64,
    /// Letters that were not, since there was enough.
    pub unseen: u64,
    /// Letters that were there and did not come: something else holds them.
    pub missing: u64,
    /// Letters that were counted.
    pub matched: u64,
    /// Names that mean nobody or several.
    pub troubles: Vec<RefError>,
}

impl ReviewSession {
    /// Hands on each letter that the filter takes, `limit` at most, and leaves all of them where
    /// they are. Where letters are named, all are looked at: two could have one name.
    pub async fn search(
        &self,
        filter: &LetterFilter,
        limit: u64,
        progress: impl Fn(ReviewProgress),
        mut visit: impl FnMut(&DeadLetter) -> LetterVisitor,
    ) -> Result<SearchResult, BrokerError> {
        let mut found = ResolvedRefs::new(filter);
        let mut matched = 0;
        let look = |letter: &DeadLetter| {
            if filter.matches(letter) {
                found.note(letter);
                if matched < limit {
                    match visit(letter) {
                        LetterVisitor::Counted => matched += 1,
                        LetterVisitor::PassedOver => {}
                        LetterVisitor::Enough => return ControlFlow::Break(()),
                    }
                }
            }
            if matched < limit || !filter.names.is_empty() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let surveyed = self.scan(progress, look).await?;
        Ok(SearchResult {
            seen: surveyed.seen,
            unseen: surveyed.unseen,
            missing: surveyed.missing,
            matched,
            troubles: found.troubles(),
        })
    }
}
