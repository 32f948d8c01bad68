//! Exactly the letters that somebody chose, so that those that come later are not meant.

use std::collections::HashMap;

use super::dead_letter::{DeadLetter, LetterId};

/// Letters by id; equal letters share one, so it is counted.
#[derive(Debug, Clone, Default)]
pub struct LetterSelection {
    counts: HashMap<LetterId, u32>,
    total: u64,
}

impl LetterSelection {
    pub fn add(&mut self, letter: &DeadLetter) {
        self.add_id(letter.id);
    }

    pub fn add_id(&mut self, id: LetterId) {
        *self.counts.entry(id).or_default() += 1;
        self.total += 1;
    }

    /// Takes a letter out; `false` if it is not, or no longer, in it.
    pub fn remove(&mut self, id: LetterId) -> bool {
        let Some(count) = self.counts.get_mut(&id) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&id);
        }
        self.total -= 1;
        true
    }

    #[must_use]
    pub fn has(&self, id: LetterId) -> bool {
        self.counts.contains_key(&id)
    }

    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::letter;

    #[test]
    fn equal_letters_are_taken_as_often_as_they_were_chosen() {
        let letter = letter("poison", "2026-11-24T09:00:00.000Z");
        let mut selection = LetterSelection::default();
        assert!(!selection.remove(letter.id));
        selection.add(&letter);
        selection.add(&letter);
        assert_eq!(selection.total(), 2);
        assert!(selection.remove(letter.id) && selection.remove(letter.id));
        assert!(selection.is_empty() && !selection.remove(letter.id));
    }
}
