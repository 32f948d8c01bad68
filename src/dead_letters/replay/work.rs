//! The replay's one loop: letters in, messages out, confirms in, letters taken.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::super::selection::LetterSelection;
use super::{REFUSALS_LISTED, RefusedLetter, ReplayOptions, ReplayResult, via_due};
use crate::broker::{
    AckHandle, BrokerError, BrowseCursor, BrowsedMessage, DeadLetterQueue, DepthCheck,
    PublishResult, Republisher,
};
use crate::dead_letters::dead_letter::{DeadLetter, LetterId};
use crate::dead_letters::redelivery_tracker::{RedeliveryTracker, TrackedLetter};
use crate::dead_letters::review_session::{AbortReason, ReviewProgress};
use crate::messages::message::MessageView;

/// Replays on their way at once: enough to hide the time that a confirm takes.
const WINDOW: usize = 256;
/// Bytes on their way at once, but for a single letter that has more.
const WINDOW_BYTES: usize = 8 << 20;
/// How long letters are held in one go. A broker ends a channel that holds a message for longer
/// than its `consumer_timeout`, 30 min unless somebody set it lower; a slow replay takes several.
const PASS_MAX: Duration = Duration::from_secs(5 * 60);
/// After a stop, how long confirms are still waited for.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often it is asked whether the broker confirms nothing.
const WATCH: Duration = Duration::from_millis(500);

pub(super) struct ReplayRun<'a, P> {
    review: &'a DeadLetterQueue,
    replay: &'a ReplayOptions,
    /// What was not sent yet.
    selection: LetterSelection,
    of: u64,
    pace: Option<Interval>,
    progress: P,
    ready: Option<ReadyLetter>,
    under_way: FuturesUnordered<LetterResult>,
    /// What those weigh.
    weight: usize,
    done: RedeliveryTracker,
    /// Nothing is sent any more; what was taken and has come back is taken again.
    taking_again: bool,
    outcome: ReplayResult,
    /// Sent, and not confirmed for good.
    unconfirmed: u64,
}

/// A letter that was sent, and what comes of it.
type LetterResult =
    Pin<Box<dyn Future<Output = (LetterId, usize, AckHandle, PublishResult)> + Send>>;

/// A letter that is sent as soon as the rate allows.
struct ReadyLetter {
    id: LetterId,
    message: MessageView,
    claim: AckHandle,
}

impl<'a, P: Fn(ReviewProgress)> ReplayRun<'a, P> {
    pub(super) fn new(
        review: &'a DeadLetterQueue,
        replay: &'a ReplayOptions,
        selection: LetterSelection,
        rate: Option<NonZeroU32>,
        progress: P,
    ) -> Self {
        let pace = rate.map(|rate| {
            let mut pace = interval(Duration::from_secs(1) / rate.get());
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        Self {
            review,
            replay,
            of: selection.total(),
            selection,
            pace,
            progress,
            ready: None,
            under_way: FuturesUnordered::new(),
            weight: 0,
            done: RedeliveryTracker::default(),
            taking_again: false,
            outcome: ReplayResult::default(),
            unconfirmed: 0,
        }
    }

    pub(super) async fn run(
        mut self,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> ReplayResult {
        let sender = match self.review.sender().await {
            Ok(sender) => sender,
            Err(trouble) => {
                self.stop(trouble.into());
                return self.end();
            }
        };
        loop {
            let before = self.selection.total();
            let back = match self.pass(&sender, interrupt.as_mut()).await {
                Ok(back) => back,
                Err(trouble) => {
                    self.stop(trouble.into());
                    break;
                }
            };
            let (goes_on, left) = (self.goes_on(), self.selection.total());
            match self.done.next_pass(goes_on, before, left, back) {
                TrackedLetter::End => break,
                next => self.taking_again = next == TrackedLetter::TakeAgain,
            }
        }
        self.under_way.clear();
        let trouble = sender.close().await;
        // What ended the channel says more than that a confirm did not come.
        if let (Some(AbortReason::Lost), Some(trouble)) = (&self.outcome.stop, trouble) {
            self.outcome.stop = Some(trouble.into());
        }
        self.end()
    }

    /// Goes through the queue once, as far as time allows.
    async fn pass(
        &mut self,
        sender: &Republisher,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<DepthCheck, BrokerError> {
        let mut look = self.review.look().await?;
        let deadline = Instant::now() + PASS_MAX;
        let mut last_wait = None;
        let mut reading = true;
        let mut watch = interval(WATCH);
        while reading || self.ready.is_some() || !self.under_way.is_empty() {
            if !self.taking_again && (!self.goes_on() || self.selection.is_empty()) {
                reading = false;
            }
            if !self.goes_on() {
                self.drop_ready();
                let patience = match sender.waiting() {
                    Some(_) => Duration::ZERO,
                    None => LAST_WAIT,
                };
                last_wait.get_or_insert_with(|| Instant::now() + patience);
            }
            let room = self.under_way.len() < WINDOW && self.weight < WINDOW_BYTES;
            tokio::select! {
                biased;
                () = interrupt.as_mut(), if self.goes_on() => {
                    self.stop(AbortReason::interrupted(sender.waiting()));
                }
                Some((id, weight, claim, fate)) = self.under_way.next() => {
                    self.weight -= weight;
                    self.on_result(id, claim, fate);
                }
                () = until(last_wait) => break,
                () = sleep_until(deadline), if reading => reading = false,
                () = tick(&mut self.pace), if self.ready.is_some() && room => {
                    self.send(sender).await;
                }
                held = look.next(), if reading && self.ready.is_none() => match held? {
                    Some(held) => self.prepare_next(held),
                    None => reading = false,
                },
                _ = watch.tick() => {
                    if let Some(waiting) = sender.waiting() {
                        (self.progress)(ReviewProgress::Waiting(waiting));
                    }
                }
            }
        }
        self.give_back(look).await
    }

    async fn give_back(&mut self, look: BrowseCursor) -> Result<DepthCheck, BrokerError> {
        // Their confirms came too late, if at all; the letters go back.
        self.unconfirmed += self.under_way.len() as u64;
        self.outcome.unconfirmed += self.under_way.len() as u64;
        self.under_way.clear();
        self.weight = 0;
        let back = self.review.give_back(look);
        if self.goes_on() {
            return back.await;
        }
        // Who asked for the end is not to wait for a broker that does not answer.
        let silent = BrokerError::Silent(LAST_WAIT.as_secs());
        timeout(LAST_WAIT, back).await.unwrap_or(Err(silent))
    }

    /// Makes the letter ready, if it is one of the selected and can be sent.
    fn prepare_next(&mut self, held: BrowsedMessage) {
        let letter = DeadLetter::new(held.message, held.deliveries);
        if self.taking_again || !self.selection.remove(letter.id) {
            self.done.on_seen(letter.id, held.redelivered, held.claim);
            return;
        }
        match self.replay.prepare(&letter, self.review.requests()) {
            Ok(message) => {
                self.ready = Some(ReadyLetter {
                    id: letter.id,
                    message: via_due(message, self.review),
                    claim: held.claim,
                });
            }
            Err(why) => self.refuse(RefusedLetter {
                letter: letter.id,
                why,
            }),
        }
    }

    fn refuse(&mut self, refused: RefusedLetter) {
        self.outcome.refused_count += 1;
        if self.outcome.refused.len() < REFUSALS_LISTED {
            self.outcome.refused.push(refused);
        }
        self.tell_progress();
    }

    fn drop_ready(&mut self) {
        self.unconfirmed += u64::from(self.ready.take().is_some());
    }

    async fn send(&mut self, sender: &Republisher) {
        if let Some(ReadyLetter { id, message, claim }) = self.ready.take() {
            let weight = message.weight();
            self.weight += weight;
            let fate = sender.hand_over(message).await;
            self.under_way
                .push(Box::pin(async move { (id, weight, claim, fate.await) }));
        }
    }

    fn on_result(&mut self, id: LetterId, claim: AckHandle, fate: PublishResult) {
        let why = match fate {
            PublishResult::Confirmed(proof) => {
                self.outcome.without_properties += u64::from(!proof.is_whole());
                self.done.add(id, claim.replayed(proof));
                self.outcome.replayed += 1;
                self.tell_progress();
                return;
            }
            PublishResult::Returned => AbortReason::Returned(self.review.due().to_owned()),
            PublishResult::Refused => AbortReason::Refused,
            PublishResult::Lost => {
                self.outcome.unconfirmed += 1;
                AbortReason::Lost
            }
        };
        self.unconfirmed += 1;
        self.stop(why);
    }

    fn tell_progress(&self) {
        (self.progress)(ReviewProgress::Done {
            done: self.outcome.replayed + self.outcome.refused_count,
            of: self.of,
        });
    }

    const fn goes_on(&self) -> bool {
        self.outcome.stop.is_none()
    }

    /// The first reason is kept.
    fn stop(&mut self, why: AbortReason) {
        self.outcome.stop.get_or_insert(why);
    }

    fn end(mut self) -> ReplayResult {
        self.drop_ready();
        let unsent = self.selection.total();
        let unconfirmed = self.unconfirmed + self.under_way.len() as u64;
        if self.goes_on() {
            self.outcome.gone = unsent;
            self.outcome.left = unconfirmed;
        } else {
            self.outcome.left = unsent + unconfirmed;
        }
        self.outcome
    }
}

/// The next moment at which one may be sent.
async fn tick(pace: &mut Option<Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
