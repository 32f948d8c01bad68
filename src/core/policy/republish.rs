//! What to do about messages that the broker refuses, where it does not say which of them it means.
//!
//! RabbitMQ refuses a message by closing the channel it was published on, and those under way behind
//! it are lost with the channel. Each of them is then suspect. On the next channel suspects are
//! published alone, so that the next death of a channel has its culprit. That one is published with
//! less and less of what came with it, since something of that is what the broker refuses. None is
//! published for ever.

/// How much of the properties and headers that a message came with is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishForm {
    /// All that is not known to be refused.
    Whole,
    /// What is needed to read and to answer it, beside our own headers.
    Essential,
    /// Our own headers alone.
    Bare,
}

/// What is held against a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusalSuspicion(u8);

impl RefusalSuspicion {
    const SUSPECT: Self = Self(1);
    const REFUSED_WHOLE: Self = Self(2);
    const REFUSED_ESSENTIAL: Self = Self(3);

    /// Whether nothing else may be under way beside it.
    #[must_use]
    pub const fn goes_alone(self) -> bool {
        self.0 > 0
    }

    /// How it is published next. What may not be reduced, as an event of ours, is `Whole` always.
    #[must_use]
    pub const fn form(self) -> PublishForm {
        match self.0 {
            0 | 1 => PublishForm::Whole,
            2 => PublishForm::Essential,
            _ => PublishForm::Bare,
        }
    }

    /// After the channel was closed for what was published on it, while so many messages were under
    /// way, this one among them. `None` if it is refused in every form that it may have.
    #[must_use]
    pub fn after_refusal(self, under_way: usize, may_be_reduced: bool) -> Option<Self> {
        if under_way > 1 {
            return Some(self.max(Self::SUSPECT));
        }
        match self.form() {
            PublishForm::Whole if may_be_reduced => Some(Self::REFUSED_WHOLE),
            PublishForm::Essential => Some(Self::REFUSED_ESSENTIAL),
            PublishForm::Whole | PublishForm::Bare => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_suspected_and_keeps_all_that_it_came_with() {
        let suspect = RefusalSuspicion::default().after_refusal(3, true).unwrap();
        assert!(suspect.goes_alone() && !RefusalSuspicion::default().goes_alone());
        assert_eq!(suspect.form(), PublishForm::Whole);
        // Dying in company proves nothing, however often.
        assert_eq!(suspect.after_refusal(2, true), Some(suspect));
    }

    #[test]
    fn one_alone_is_published_with_less_each_time_and_then_no_more() {
        let mut forms = Vec::new();
        let mut next = Some(RefusalSuspicion::default());
        while let Some(suspicion) = next {
            forms.push(suspicion.form());
            next = suspicion.after_refusal(1, true);
        }
        assert_eq!(
            forms,
            [
                PublishForm::Whole,
                PublishForm::Essential,
                PublishForm::Bare
            ]
        );
        assert_eq!(RefusalSuspicion::default().after_refusal(1, false), None);
    }
}
