//! What came back after a lost connection, and what that says of the rest.
//!
//! When RabbitMQ finds a connection lost it returns to each queue all that was delivered on it and not
//! acknowledged, at once, and hands that out before anything it never handed out. So once one of them
//! has come back, those that have not when a message comes that was never delivered, or when none has
//! come for a while although there is room, were acknowledged: they do not come back.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::policy::consume_plan::SourceQueue;
use crate::core::policy::retry::saturating_add;

/// A queue that hands out nothing for this long, although there is room, has nothing ready.
const NOTHING_READY_AFTER: Duration = Duration::from_secs(5);

/// What came from one queue since the connection was lost.
#[derive(Debug, Clone, Copy, Default)]
struct PendingReturns {
    /// One that had been in hand came back.
    began: bool,
    /// Whatever was returned has come.
    ended: bool,
    /// Since when nothing has come, although something could have.
    silent_since: Option<Timestamp>,
}

/// Of both queues that requests come back to.
#[derive(Debug, Clone, Default)]
pub(super) struct ReturnWatch {
    requests: PendingReturns,
    due: PendingReturns,
}

impl ReturnWatch {
    /// A message came. `is_back`: it had been in hand when the connection was lost.
    pub(super) fn delivered(
        &mut self,
        queue: SourceQueue,
        is_back: bool,
        redelivered: bool,
        now: Timestamp,
    ) {
        let Some(returns) = self.of(queue) else {
            return;
        };
        returns.began |= is_back;
        returns.ended |= returns.began && !redelivered;
        returns.silent_since = Some(now);
    }

    /// Looks whether the queues have fallen silent although there is room for more from them.
    pub(super) fn look(&mut self, has_room: bool, takes_new: bool, now: Timestamp) {
        for (returns, is_taken) in [(&mut self.requests, takes_new), (&mut self.due, true)] {
            if !has_room || !is_taken {
                returns.silent_since = None;
                continue;
            }
            let since = *returns.silent_since.get_or_insert(now);
            returns.ended |= returns.began && saturating_add(since, NOTHING_READY_AFTER) <= now;
        }
    }

    /// Whether the broker has found the lost connection, so that what it returned will be handed out.
    pub(super) fn has_begun(&self, queue: SourceQueue) -> bool {
        self.seen(queue).is_some_and(|returns| returns.began)
    }

    /// Whether whatever was returned to the queue has come.
    pub(super) fn has_ended(&self, queue: SourceQueue) -> bool {
        self.seen(queue).is_some_and(|returns| returns.ended)
    }

    const fn of(&mut self, queue: SourceQueue) -> Option<&mut PendingReturns> {
        match queue {
            SourceQueue::Requests => Some(&mut self.requests),
            SourceQueue::Due => Some(&mut self.due),
            SourceQueue::Undeliverable => None,
        }
    }

    const fn seen(&self, queue: SourceQueue) -> Option<&PendingReturns> {
        match queue {
            SourceQueue::Requests => Some(&self.requests),
            SourceQueue::Due => Some(&self.due),
            SourceQueue::Undeliverable => None,
        }
    }
}
