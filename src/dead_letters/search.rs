//! All letters looked at once, and those that are meant handed on. It is how every command begins.

use std::ops::ControlFlow;

use super::desk::{Desk, Step};
use super::filter::{Filter, Found, NameTrouble};
use super::letter::Letter;
use crate::broker::Trouble;

/// What a visitor makes of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// It counts toward the limit.
    Counted,
    /// It is not meant after all.
    PassedOver,
    /// Nothing more is wanted.
    Enough,
}

/// What a search saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// Letters that were looked at.
    pub seen: u64,
    /// Letters that were not, since there was enough.
    pub unseen: u64,
    /// Letters that were there and did not come: something else holds them.
    pub missing: u64,
    /// Letters that were counted.
    pub matched: u64,
    /// Names that mean nobody or several.
    pub troubles: Vec<NameTrouble>,
}

impl Desk {
    /// Hands on each letter that the filter takes, `limit` at most, and leaves all of them where
    /// they are. Where letters are named, all are looked at: two could have one name.
    pub async fn search(
        &self,
        filter: &Filter,
        limit: u64,
        progress: impl Fn(Step),
        mut visit: impl FnMut(&Letter) -> Visit,
    ) -> Result<Searched, Trouble> {
        let mut found = Found::new(filter);
        let mut matched = 0;
        let look = |letter: &Letter| {
            if filter.takes(letter) {
                found.note(letter);
                if matched < limit {
                    match visit(letter) {
                        Visit::Counted => matched += 1,
                        Visit::PassedOver => {}
                        Visit::Enough => return ControlFlow::Break(()),
                    }
                }
            }
            if matched < limit || !filter.names.is_empty() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        let surveyed = self.survey(progress, look).await?;
        Ok(Searched {
            seen: surveyed.seen,
            unseen: surveyed.unseen,
            missing: surveyed.missing,
            matched,
            troubles: found.troubles(),
        })
    }
}
