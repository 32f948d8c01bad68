//! Where a review happens: one connection, the lock held, the letters looked at as often as needed.

use std::ops::ControlFlow;

use super::dead_letter::{DeadLetter, LetterId};
use super::operator::Operator;
use crate::broker::{BrokerError, DeadLetterQueue, DeliveryLimitCheck, PublishWait, ReviewError};
use crate::config::AmqpSection;

/// A review in progress.
#[derive(Debug)]
pub struct ReviewSession {
    pub(super) review: DeadLetterQueue,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewProgress {
    /// So many of so many letters.
    Done { done: u64, of: u64 },
    /// Nothing is confirmed for now, for this reason.
    Waiting(PublishWait),
}

/// Why an action ended before its end. What it did not get to is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AbortReason {
    #[error("interrupted")]
    Interrupted,
    #[error("interrupted; {0}")]
    InterruptedWaiting(PublishWait),
    #[error(
        "no queue {0} is bound to its exchange; `rename-worker topology declare` makes what is missing"
    )]
    Returned(String),
    #[error("the broker refused a message: its queue is full, or has no leader")]
    Refused,
    #[error("timed out waiting for a publisher confirm")]
    Lost,
    #[error("letter {0} cannot be written in AMQP: one of its names is longer than 255 bytes")]
    Unsendable(LetterId),
    #[error("the record cannot be written: {0}")]
    Record(std::io::Error),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl AbortReason {
    /// Somebody asked for the end, perhaps since nothing went on.
    pub(super) fn interrupted(waiting: Option<PublishWait>) -> Self {
        waiting.map_or(Self::Interrupted, Self::InterruptedWaiting)
    }
}

/// What a survey saw; see [`super::SearchResult`].
pub(super) struct ScanResult {
    pub(super) seen: u64,
    pub(super) unseen: u64,
    pub(super) missing: u64,
}

impl ReviewSession {
    /// Connects and takes the review's lock.
    pub async fn open(
        amqp: &AmqpSection,
        who: &Operator,
        trust: DeliveryLimitCheck,
    ) -> Result<Self, ReviewError> {
        let review = DeadLetterQueue::begin(amqp, &who.to_string(), trust).await?;
        Ok(Self { review })
    }

    /// The letters' queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        self.review.dead_letters()
    }

    /// The exchange that a request comes from, replayed or not.
    #[must_use]
    pub fn requests(&self) -> &str {
        self.review.requests()
    }

    /// Looks at every letter and leaves all of them; `visit` may end it.
    pub(super) async fn scan(
        &self,
        progress: impl Fn(ReviewProgress),
        mut visit: impl FnMut(&DeadLetter) -> ControlFlow<()>,
    ) -> Result<ScanResult, BrokerError> {
        let mut look = self.review.look().await?;
        let mut seen = 0;
        let mut ended = false;
        while let Some(held) = look.next().await? {
            seen += 1;
            progress(ReviewProgress::Done {
                done: seen,
                of: look.expected(),
            });
            // The claim goes with it: nothing is held but the broker's own note.
            let letter = DeadLetter::new(held.message, held.deliveries);
            if visit(&letter).is_break() {
                ended = true;
                break;
            }
        }
        let others = look.missing();
        self.review.give_back(look).await?;
        let (unseen, missing) = if ended { (others, 0) } else { (0, others) };
        Ok(ScanResult {
            seen,
            unseen,
            missing,
        })
    }

    /// Leaves, and frees the lock.
    pub async fn close(self) {
        self.review.end().await;
    }
}
