//! Letters thrown away: each recorded, the record on the disk, and only then taken.
//!
//! Killed at any point, a letter is still in its queue, or in the audit file, or in both: then
//! discarding it again records it twice.

use std::pin::Pin;

use tokio::time::{Duration, Instant};

use super::audit::AuditLog;
use super::dead_letter::DeadLetter;
use super::redelivery_tracker::{RedeliveryTracker, TrackedLetter};
use super::review_session::{AbortReason, ReviewProgress, ReviewSession};
use super::selection::LetterSelection;
use crate::broker::{AckHandle, BrokerError, BrowseCursor, DepthCheck};
use crate::clock;

/// Letters recorded at a time: each time costs the disk some milliseconds.
const BATCH: usize = 256;
/// What those weigh at most, but for a single one that weighs more.
const BATCH_BYTES: usize = 8 << 20;
/// How long letters are held in one go, see the replay's.
const PASS_MAX: Duration = Duration::from_secs(5 * 60);

/// What came of a discard.
#[derive(Debug, Default)]
pub struct DiscardResult {
    /// Recorded, and taken.
    pub discarded: u64,
    /// Not found any more: something else took or holds them.
    pub gone: u64,
    /// Not recorded when it stopped; they stay.
    pub left: u64,
    pub stop: Option<AbortReason>,
}

impl ReviewSession {
    /// Records the selected letters and takes them. When `interrupt` comes nothing more is begun.
    pub async fn discard(
        &self,
        selection: LetterSelection,
        audit: &mut AuditLog,
        progress: impl Fn(ReviewProgress),
        interrupt: impl Future<Output = ()>,
    ) -> DiscardResult {
        let mut work = DiscardRun {
            desk: self,
            audit,
            of: selection.total(),
            selection,
            progress,
            batch: Vec::with_capacity(BATCH),
            weight: 0,
            unrecorded: 0,
            done: RedeliveryTracker::default(),
            taking_again: false,
            outcome: DiscardResult::default(),
        };
        let mut interrupt = std::pin::pin!(interrupt);
        loop {
            let before = work.selection.total();
            let back = match work.pass(interrupt.as_mut()).await {
                Ok(back) => back,
                Err(trouble) => {
                    work.stop(trouble.into());
                    break;
                }
            };
            let (goes_on, left) = (work.goes_on(), work.selection.total());
            match work.done.next_pass(goes_on, before, left, back) {
                TrackedLetter::End => break,
                next => work.taking_again = next == TrackedLetter::TakeAgain,
            }
        }
        work.end()
    }
}

struct DiscardRun<'a, P> {
    desk: &'a ReviewSession,
    audit: &'a mut AuditLog,
    selection: LetterSelection,
    of: u64,
    progress: P,
    batch: Vec<(DeadLetter, AckHandle)>,
    /// What it weighs.
    weight: usize,
    /// Read, and not recorded for good.
    unrecorded: u64,
    done: RedeliveryTracker,
    /// Nothing is recorded any more; what was taken and has come back is taken again.
    taking_again: bool,
    outcome: DiscardResult,
}

impl<P: Fn(ReviewProgress)> DiscardRun<'_, P> {
    /// Goes through the queue once, as far as time allows.
    async fn pass(
        &mut self,
        interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<DepthCheck, BrokerError> {
        let mut look = self.desk.review.look().await?;
        let read = self.read(&mut look, interrupt).await;
        // What was read is recorded in any case; where the connection has ended, it goes back.
        if let Err(stop) = read.and(self.record()) {
            self.stop(stop);
            self.unrecorded += self.batch.len() as u64;
            self.batch.clear();
        }
        self.desk.review.give_back(look).await
    }

    async fn read(
        &mut self,
        look: &mut BrowseCursor,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), AbortReason> {
        let deadline = Instant::now() + PASS_MAX;
        while self.taking_again || (!self.selection.is_empty() && Instant::now() < deadline) {
            let held: Result<_, BrokerError> = tokio::select! {
                biased;
                () = interrupt.as_mut(), if self.goes_on() => return Err(AbortReason::Interrupted),
                held = look.next() => held,
            };
            let Some(held) = held? else {
                break;
            };
            let letter = DeadLetter::new(held.message, held.deliveries);
            if self.taking_again || !self.selection.remove(letter.id) {
                self.done.on_seen(letter.id, held.redelivered, held.claim);
            } else {
                self.weight += letter.message.weight();
                self.batch.push((letter, held.claim));
            }
            if self.batch.len() == BATCH || self.weight >= BATCH_BYTES {
                self.record()?;
            }
        }
        Ok(())
    }

    fn record(&mut self) -> Result<(), AbortReason> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let letters = self.batch.iter().map(|(letter, _)| letter);
        let queue = self.desk.review.dead_letters();
        let recorded = self
            .audit
            .record(letters, queue, clock::now())
            .map_err(AbortReason::Record)?;
        self.weight = 0;
        for (letter, claim) in self.batch.drain(..) {
            self.done.add(letter.id, claim.discarded(&recorded));
            self.outcome.discarded += 1;
        }
        (self.progress)(ReviewProgress::Done {
            done: self.outcome.discarded,
            of: self.of,
        });
        Ok(())
    }

    const fn goes_on(&self) -> bool {
        self.outcome.stop.is_none()
    }

    /// The first reason is kept.
    fn stop(&mut self, why: AbortReason) {
        self.outcome.stop.get_or_insert(why);
    }

    fn end(mut self) -> DiscardResult {
        let unread = self.selection.total();
        if self.outcome.stop.is_none() {
            self.outcome.gone = unread;
        } else {
            let batch = self.batch.len() as u64;
            self.outcome.left = unread + self.unrecorded + batch;
        }
        self.outcome
    }
}
