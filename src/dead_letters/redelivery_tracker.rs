//! Letters that were taken, to be known again where the broker forgets that they were.

use super::dead_letter::LetterId;
use super::selection::LetterSelection;
use crate::broker::{AckHandle, Acked, DepthCheck};

/// Passes that an action makes at most to take again what has come back. Each finds a few of what
/// the one before found, if any.
const PASSES_MAX: u32 = 5;

/// What one action has taken so far.
#[derive(Debug, Default)]
pub(super) struct RedeliveryTracker {
    letters: LetterSelection,
    proof: Option<Acked>,
    came_back: bool,
    passes: u32,
}

/// The pass that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrackedLetter {
    /// Goes on with the letters that are selected.
    Choose,
    /// Only takes what was taken and has come back.
    TakeAgain,
    End,
}

impl RedeliveryTracker {
    pub(super) fn add(&mut self, id: LetterId, proof: Acked) {
        self.letters.add_id(id);
        self.proof = Some(proof);
    }

    /// Takes the letter again if it is one of these. One that was never delivered before is none:
    /// it is new, and only equal to one of them.
    pub(super) fn on_seen(&mut self, id: LetterId, redelivered: bool, claim: AckHandle) {
        if let Some(proof) = &self.proof
            && redelivered
            && self.letters.has(id)
        {
            claim.unacked_copy(proof);
            self.came_back = true;
        }
    }

    /// What is left to do after a pass that `before` selected letters went into and `left` came out
    /// of; `goes_on`: nothing has stopped the action.
    pub(super) fn next_pass(
        &mut self,
        goes_on: bool,
        before: u64,
        left: u64,
        back: DepthCheck,
    ) -> TrackedLetter {
        // Time was up, and more are left. If a whole pass met none of them, they are gone.
        if goes_on && (1..before).contains(&left) {
            TrackedLetter::Choose
        } else if self.may_be_redelivered(back) {
            TrackedLetter::TakeAgain
        } else {
            TrackedLetter::End
        }
    }

    /// Whether some of them may have come back, so that another pass is needed that only takes
    /// these again. It is asked after each pass of the kind, and after the last of the others.
    fn may_be_redelivered(&mut self, back: DepthCheck) -> bool {
        let came_back = std::mem::take(&mut self.came_back);
        let first = self.passes == 0;
        self.passes += 1;
        // Others add letters at any time, so the sum alone proves nothing.
        let suspect = !back.matches() && (first || came_back);
        suspect && self.proof.is_some() && self.passes <= PASSES_MAX
    }
}
