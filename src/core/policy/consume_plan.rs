//! What one session consumes: `rename.due` before and beside `rename.requests`, many requests at a
//! time or one. Pure; the broker's `consumers` carry it out.
//!
//! What is due waited longest and stands before whatever upstream published since, so a session takes
//! the backlog of `rename.due` first. In the narrow window (see [`super::consume_window`]) it takes
//! what was returned one at a time, first of the one queue, then of the other, and opens when both
//! have shown that nothing returned is left.
//!
//! Every session begins to take from each queue with one look at its head: where a suspect stands there
//! it stays narrow. Were that taken among others first, ending the session for it would count against
//! all of them, once for each time that it ends a worker.

use std::time::Duration;

use jiff::Timestamp;

use super::consume_window::{ConsumeWindow, is_suspect};

/// The queue that a message was delivered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceQueue {
    /// `rename.requests`, which upstream writes.
    Requests,
    /// `rename.due`, which only the worker, the review and RabbitMQ write.
    Due,
    /// `rename.undeliverable`, which RabbitMQ writes. No plan is about it: it has a connection and a
    /// consumer of its own.
    Undeliverable,
}

/// Which queues are to be consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumeScope {
    /// What RabbitMQ moved away, and nothing else: the worker is held.
    UndeliverableOnly,
    /// What has waited, and nothing new: too many requests are away already.
    DueOnly,
    All,
}

/// What a delivery means for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryCheck {
    Accept,
    /// It came among others and may be what ends the worker: the session must end, and the next one
    /// take one request at a time.
    MetSuspect,
}

/// How far the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConsumeStage {
    /// Takes one message from one queue, which shows whether suspects were returned to it.
    FirstLook(SourceQueue),
    /// Takes from one queue, one at a time, what was returned to it.
    Returned(SourceQueue),
    /// Takes what was due when it began.
    DueBacklog { left: u32 },
    /// Both queues, side by side.
    Open { since: Timestamp },
}

/// The plan of one session.
#[derive(Debug, Clone)]
pub struct ConsumePlan {
    prefetch: u16,
    wanted: Option<ConsumeScope>,
    stage: ConsumeStage,
    /// The head of `rename.requests` has been looked at.
    has_looked: bool,
    /// The number of messages of this queue has to be asked for.
    must_count: Option<SourceQueue>,
    delivered: bool,
}

impl ConsumePlan {
    #[must_use]
    pub const fn new(window: ConsumeWindow, prefetch: u16) -> Self {
        Self {
            prefetch,
            wanted: None,
            stage: match window {
                ConsumeWindow::Full => ConsumeStage::FirstLook(SourceQueue::Due),
                ConsumeWindow::OneAtATime => ConsumeStage::Returned(SourceQueue::Due),
            },
            has_looked: false,
            must_count: None,
            delivered: false,
        }
    }

    /// Begins to consume, goes on with other queues, or stops.
    pub fn want(&mut self, wanted: Option<ConsumeScope>) {
        let wanted = wanted.filter(|&scope| scope != ConsumeScope::UndeliverableOnly);
        let begins = self.wanted.is_none() && wanted.is_some();
        self.wanted = wanted;
        if begins {
            if matches!(self.stage, ConsumeStage::Open { .. }) {
                self.stage = ConsumeStage::DueBacklog { left: u32::MAX };
            }
            self.must_count = self.queue_of_stage();
        }
    }

    #[must_use]
    pub const fn wanted(&self) -> Option<ConsumeScope> {
        self.wanted
    }

    /// The prefetch to consume a queue with now; `None` is not to consume it.
    #[must_use]
    pub fn prefetch_of(&self, queue: SourceQueue) -> Option<u16> {
        let consumes = match (self.wanted?, self.stage) {
            // What is away comes back by `rename.due`; were nobody to take it, nothing would end.
            (ConsumeScope::UndeliverableOnly, _) => false,
            (ConsumeScope::DueOnly, _) | (_, ConsumeStage::DueBacklog { .. }) => {
                queue == SourceQueue::Due
            }
            (ConsumeScope::All, ConsumeStage::FirstLook(from) | ConsumeStage::Returned(from)) => {
                queue == from
            }
            (ConsumeScope::All, ConsumeStage::Open { .. }) => true,
        };
        consumes.then(|| self.prefetch())
    }

    /// The prefetch that holds now.
    #[must_use]
    pub const fn prefetch(&self) -> u16 {
        match self.stage {
            ConsumeStage::FirstLook(_) | ConsumeStage::Returned(_) => 1,
            ConsumeStage::DueBacklog { .. } | ConsumeStage::Open { .. } => self.prefetch,
        }
    }

    /// Takes note of the queue whose number of ready messages has to be asked for, if one has.
    pub const fn take_count(&mut self) -> Option<SourceQueue> {
        self.must_count.take()
    }

    /// Whether new requests are being taken beside those that are due.
    #[must_use]
    pub fn takes_new(&self) -> bool {
        self.wanted == Some(ConsumeScope::All) && matches!(self.stage, ConsumeStage::Open { .. })
    }

    /// Whether anything was delivered.
    #[must_use]
    pub const fn has_delivered(&self) -> bool {
        self.delivered
    }

    /// How long many requests have been taken at a time from both queues.
    #[must_use]
    pub fn full_for(&self, now: Timestamp) -> Duration {
        match self.stage {
            ConsumeStage::Open { since } => {
                Duration::try_from(now.duration_since(since)).unwrap_or_default()
            }
            ConsumeStage::FirstLook(_)
            | ConsumeStage::Returned(_)
            | ConsumeStage::DueBacklog { .. } => Duration::ZERO,
        }
    }

    pub fn on_delivery(
        &mut self,
        from: SourceQueue,
        redelivered: bool,
        delivery_count: u32,
        now: Timestamp,
    ) -> DeliveryCheck {
        self.delivered = true;
        match &mut self.stage {
            ConsumeStage::FirstLook(queue) if *queue == from => {
                if is_suspect(delivery_count) {
                    self.stage = ConsumeStage::Returned(from);
                } else {
                    self.advance(now);
                }
            }
            // A quorum queue hands out first what was returned to it.
            ConsumeStage::Returned(queue) if *queue == from && !redelivered => self.advance(now),
            ConsumeStage::DueBacklog { .. } | ConsumeStage::Open { .. }
                if is_suspect(delivery_count) =>
            {
                return DeliveryCheck::MetSuspect;
            }
            ConsumeStage::DueBacklog { left } => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.advance(now);
                }
            }
            ConsumeStage::FirstLook(_) | ConsumeStage::Returned(_) | ConsumeStage::Open { .. } => {}
        }
        DeliveryCheck::Accept
    }

    /// So many messages are ready in a queue, while `unsettled` deliveries of the session are.
    pub fn on_count(&mut self, queue: SourceQueue, ready: u32, unsettled: u32, now: Timestamp) {
        match &mut self.stage {
            ConsumeStage::FirstLook(from) if *from == queue && ready == 0 => self.advance(now),
            ConsumeStage::Returned(from) if *from == queue && ready == 0 && unsettled == 0 => {
                self.advance(now);
            }
            ConsumeStage::DueBacklog { left } if queue == SourceQueue::Due => {
                *left = ready.min(*left);
                if *left == 0 {
                    self.advance(now);
                }
            }
            ConsumeStage::FirstLook(_)
            | ConsumeStage::Returned(_)
            | ConsumeStage::DueBacklog { .. }
            | ConsumeStage::Open { .. } => {}
        }
    }

    /// Called about once a second: a queue may have run empty meanwhile, or another worker have taken
    /// what was in it.
    pub fn on_tick(&mut self, unsettled: u32) {
        let may_have_ended = match self.stage {
            ConsumeStage::Returned(_) => unsettled == 0,
            ConsumeStage::FirstLook(_) | ConsumeStage::DueBacklog { .. } => true,
            ConsumeStage::Open { .. } => false,
        };
        if may_have_ended && self.wanted.is_some() {
            self.must_count = self.queue_of_stage();
        }
    }

    fn advance(&mut self, now: Timestamp) {
        self.stage = match self.stage {
            ConsumeStage::FirstLook(SourceQueue::Due) => {
                ConsumeStage::DueBacklog { left: u32::MAX }
            }
            ConsumeStage::Returned(SourceQueue::Due) => {
                ConsumeStage::Returned(SourceQueue::Requests)
            }
            ConsumeStage::Returned(_) => {
                self.has_looked = true;
                ConsumeStage::DueBacklog { left: u32::MAX }
            }
            ConsumeStage::DueBacklog { .. } if !self.has_looked => {
                self.has_looked = true;
                ConsumeStage::FirstLook(SourceQueue::Requests)
            }
            ConsumeStage::FirstLook(_)
            | ConsumeStage::DueBacklog { .. }
            | ConsumeStage::Open { .. } => ConsumeStage::Open { since: now },
        };
        self.must_count = self.queue_of_stage();
    }

    const fn queue_of_stage(&self) -> Option<SourceQueue> {
        match self.stage {
            ConsumeStage::FirstLook(queue) | ConsumeStage::Returned(queue) => Some(queue),
            ConsumeStage::DueBacklog { .. } => Some(SourceQueue::Due),
            ConsumeStage::Open { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const PREFETCH: u16 = 448;

    fn plan(window: ConsumeWindow) -> ConsumePlan {
        let mut plan = ConsumePlan::new(window, PREFETCH);
        plan.want(Some(ConsumeScope::All));
        plan
    }

    /// It has looked at the head of `rename.due`, and found no suspect.
    fn past_the_first_look() -> ConsumePlan {
        let mut plan = plan(ConsumeWindow::Full);
        plan.on_delivery(SourceQueue::Due, true, 2, NOW);
        plan
    }

    /// It takes from both queues.
    fn open() -> ConsumePlan {
        let mut plan = past_the_first_look();
        plan.on_count(SourceQueue::Due, 0, 1, NOW);
        plan.on_delivery(SourceQueue::Requests, true, 2, NOW);
        assert!(plan.takes_new());
        plan
    }

    /// The prefetch of `rename.due` and of `rename.requests`.
    fn prefetches(plan: &ConsumePlan) -> [Option<u16>; 2] {
        [SourceQueue::Due, SourceQueue::Requests].map(|queue| plan.prefetch_of(queue))
    }

    #[test]
    fn what_was_due_at_the_start_is_taken_before_anything_new() {
        let mut plan = past_the_first_look();
        assert_eq!(plan.take_count(), Some(SourceQueue::Due));
        assert_eq!(prefetches(&plan), [Some(PREFETCH), None]);
        plan.on_count(SourceQueue::Due, 2, 0, NOW);
        for left in [1, 0] {
            let check = plan.on_delivery(SourceQueue::Due, false, 0, NOW);
            assert_eq!(check, DeliveryCheck::Accept);
            let new = plan.prefetch_of(SourceQueue::Requests);
            assert_eq!(new, (left == 0).then_some(1));
        }
        plan.on_delivery(SourceQueue::Requests, false, 0, NOW);
        assert!(plan.takes_new());
        assert_eq!(prefetches(&plan), [Some(PREFETCH), Some(PREFETCH)]);
    }

    #[test]
    fn a_backlog_of_what_is_due_is_not_overtaken_by_the_first_new_request() {
        let mut plan = plan(ConsumeWindow::Full);
        plan.on_delivery(SourceQueue::Due, false, 0, NOW);
        assert_eq!(prefetches(&plan), [Some(PREFETCH), None]);
        assert_eq!(plan.take_count(), Some(SourceQueue::Due));
        plan.on_count(SourceQueue::Due, 0, 1, NOW);
        assert_eq!(prefetches(&plan), [None, Some(1)]);
        plan.on_count(SourceQueue::Requests, 0, 1, NOW);
        assert!(plan.takes_new());
    }

    #[test]
    fn a_backlog_that_another_worker_took_keeps_nothing_new_waiting() {
        let mut plan = past_the_first_look();
        plan.on_count(SourceQueue::Due, 100, 0, NOW);
        plan.take_count();
        plan.on_tick(0);
        assert_eq!(plan.take_count(), Some(SourceQueue::Due));
        // What came to be due meanwhile does not keep it waiting longer.
        plan.on_count(SourceQueue::Due, 500, 0, NOW);
        for _ in 0..100 {
            plan.on_delivery(SourceQueue::Due, false, 0, NOW);
        }
        plan.on_count(SourceQueue::Requests, 0, 100, NOW);
        assert!(plan.takes_new());
    }

    #[test]
    fn in_the_narrow_window_each_queue_shows_that_nothing_returned_is_left() {
        let mut plan = plan(ConsumeWindow::OneAtATime);
        assert_eq!(plan.take_count(), Some(SourceQueue::Due));
        assert_eq!(prefetches(&plan), [Some(1), None]);
        // Taken, but not settled: it may be what ends the session.
        plan.on_delivery(SourceQueue::Due, true, 7, NOW);
        plan.on_count(SourceQueue::Due, 0, 1, NOW);
        assert_eq!(prefetches(&plan), [Some(1), None]);
        plan.on_count(SourceQueue::Due, 0, 0, NOW);
        assert_eq!(plan.take_count(), Some(SourceQueue::Requests));
        assert_eq!(prefetches(&plan), [None, Some(1)]);
        plan.on_delivery(SourceQueue::Requests, true, 20, NOW);
        plan.on_delivery(SourceQueue::Requests, false, 0, NOW);
        assert_eq!(prefetches(&plan), [Some(PREFETCH), None]);
        plan.on_count(SourceQueue::Due, 0, 1, NOW);
        assert!(plan.takes_new());
    }

    #[test]
    fn a_suspect_among_others_ends_the_session() {
        let mut plan = open();
        let mut deliver = |count| plan.on_delivery(SourceQueue::Requests, true, count, NOW);
        assert_eq!([1, 2].map(&mut deliver), [DeliveryCheck::Accept; 2]);
        assert_eq!(deliver(3), DeliveryCheck::MetSuspect);
    }

    #[test]
    fn a_suspect_at_the_head_of_a_queue_keeps_the_window_narrow() {
        let mut plan = plan(ConsumeWindow::Full);
        assert_eq!(plan.take_count(), Some(SourceQueue::Due));
        plan.on_count(SourceQueue::Due, 5, 0, NOW);
        let check = plan.on_delivery(SourceQueue::Due, true, 3, NOW);
        assert_eq!(check, DeliveryCheck::Accept);
        plan.on_delivery(SourceQueue::Due, true, 1, NOW);
        assert_eq!(prefetches(&plan), [Some(1), None]);
        plan.on_count(SourceQueue::Due, 0, 0, NOW);
        assert_eq!(prefetches(&plan), [None, Some(1)]);
    }

    #[test]
    fn a_suspect_at_the_head_of_the_new_ones_does_so_too() {
        let mut plan = past_the_first_look();
        plan.on_count(SourceQueue::Due, 0, 1, NOW);
        let check = plan.on_delivery(SourceQueue::Requests, true, 3, NOW);
        assert_eq!(check, DeliveryCheck::Accept);
        plan.on_count(SourceQueue::Requests, 3, 1, NOW);
        assert_eq!(prefetches(&plan), [None, Some(1)]);
    }

    #[test]
    fn when_too_many_are_away_only_what_is_due_is_taken() {
        for window in [ConsumeWindow::Full, ConsumeWindow::OneAtATime] {
            let mut plan = plan(window);
            plan.want(Some(ConsumeScope::DueOnly));
            let [due, requests] = prefetches(&plan);
            assert!(due.is_some() && requests.is_none(), "{window:?}");
        }
        let mut plan = plan(ConsumeWindow::Full);
        plan.want(None);
        assert_eq!(prefetches(&plan), [None, None]);
    }
}
