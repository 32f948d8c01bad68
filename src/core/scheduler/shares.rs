//! What one account, and one name, may take of what is in hand; the rest waits in the ladder for about
//! as long as its turn is away.

use std::num::NonZeroU32;
use std::time::Duration;

use super::job::{Job, Phase};
use super::{DeferralReason, Destination, JobId, Scheduler, StepContext};
use crate::core::model::request::AccountId;
use crate::core::policy::consume_plan::{ConsumeScope, SourceQueue};
use crate::core::policy::retry::saturating_add;
use crate::core::scheduler::turn_estimate::wait_behind;

/// Requests of one name that wait in the worker for each other, of those that come for the first time.
/// They run one after another, so more would only keep the room from others.
const MAX_OF_A_NAME: usize = 32;

/// The first estimate is made in a hurry, and a line that runs empty stands still, so that requests come
/// back after this share of it.
const FIRST_PACE: f64 = 0.95;

/// Once a request has gone away so often for its turn, it stays.
const MAX_DEPARTURES: u8 = 2;

impl Scheduler {
    /// The request is in hand from now on.
    pub(super) fn take_share(&mut self, id: JobId, account: &AccountId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.holds_share = true;
        }
        match self.in_hand.get_mut(account) {
            Some(count) => *count += 1,
            None => {
                self.in_hand.insert(account.clone(), 1);
            }
        }
    }

    /// The request is over or about to leave, and no longer counts as in hand.
    pub(super) fn give_up_share(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.holds_share) else {
            return;
        };
        job.holds_share = false;
        if let Some(request) = job.request.as_deref()
            && let Some(count) = self.in_hand.get_mut(&request.account_id)
        {
            *count -= 1;
            if *count == 0 {
                self.in_hand.remove(&request.account_id);
            }
        }
    }

    /// How long a request that has just arrived waits elsewhere, since its account has more than its
    /// share in hand. Nowhere if there is no other account, or nothing is known of its pace; and not
    /// when too many are away already: then fairness gives way to progress.
    pub(super) fn wait_for_share(&mut self, id: JobId, cx: &StepContext<'_>) -> Option<Duration> {
        let job = self.jobs.get(&id)?;
        let account = &job.request.as_deref()?.account_id;
        let departures = job.ticket.map_or(0, |ticket| self.line.departures(ticket));
        let in_hand = self.in_hand.get(account).copied().unwrap_or(0);
        // One that was away already has come back for its turn: there is as much room again for those.
        let share = self.rules.share() * (1 + usize::from(departures));
        let may_stay = in_hand <= share
            || departures >= MAX_DEPARTURES
            || job.removed.is_some()
            || job.closing.is_some()
            || self.scope == ConsumeScope::DueOnly
            || self.draining
            || self.hold.cause().is_some()
            || self.accounts.is_sole(account, cx.now);
        if may_stay {
            return None;
        }
        let interval = self.interval_of(account)?;
        Some(self.turns.assign_turn(account, interval, in_hand, cx.now))
    }

    /// The time from one end of the account's tries to the next, while it has enough of them.
    fn interval_of(&self, account: &AccountId) -> Option<Duration> {
        let accounts = self.ready.accounts().max(1);
        let slots = u32::try_from(self.rules.concurrency.div_ceil(accounts)).unwrap_or(u32::MAX);
        let time = self.accounts.try_time(account)? / slots.max(1);
        let rate = self.rules.requests_per_second.map_or(0, NonZeroU32::get);
        let apart = Duration::from_secs(1).checked_div(rate);
        Some(time.max(apart.unwrap_or_default()))
    }

    /// How long a request waits that its account's rate keeps from being called: for its own turn among
    /// all that do.
    pub(super) fn wait_for_rate(&mut self, account: &AccountId, cx: &StepContext<'_>) -> Duration {
        let in_hand = self.in_hand.get(account).copied().unwrap_or(0);
        match self.rules.requests_per_second {
            Some(rate) => {
                let apart = Duration::from_secs(1) / rate.get();
                self.turns.assign_turn(account, apart, in_hand, cx.now)
            }
            None => Duration::ZERO,
        }
    }

    /// How long a request waits elsewhere whose name has enough of its requests waiting here, or for
    /// which there is no room. Nowhere while nothing is known of how long one takes.
    pub(super) fn wait_for_name(&self, id: JobId) -> Option<Duration> {
        let job = self.jobs.get(&id)?;
        let ticket = job.ticket?;
        if self.draining {
            return None;
        }
        if self.line.departures(ticket) > 0 {
            return self
                .turn_of_name(id)
                .filter(|&wait| !self.may_wait_here(id, wait));
        }
        let most = MAX_OF_A_NAME.min(self.rules.capacity() / 2).max(1);
        let has_room = self.has_room() || matches!(job.phase, Phase::Blocked);
        let is_crowded = self.line.all_here_before(ticket)? >= most || !has_room;
        self.turn_of_name(id).filter(|_| is_crowded)
    }

    /// Up to which wait a request that has come back for its turn rather waits here: in a wait queue it
    /// might take longer, behind those that have to wait longer. No longer than half of the prefetch can
    /// bridge.
    fn longest_wait_here(&self, id: JobId) -> Duration {
        let most = self.rules.retry.local_wait;
        let half = u32::from(self.rules.prefetch() / 2);
        let bridged = self.name_time(id).map(|time| time.saturating_mul(half));
        bridged.map_or(most, |bridged| most.min(bridged))
    }

    fn may_wait_here(&self, id: JobId, wait: Duration) -> bool {
        if self.draining || wait > self.longest_wait_here(id) {
            return false;
        }
        let due = self
            .jobs
            .values()
            .filter(|job| job.source == SourceQueue::Due);
        due.count() < usize::from(self.rules.prefetch()) * 3 / 4
    }

    /// The request waits for others of its names: here, if it has come back for its turn and that is
    /// near, else in the ladder.
    pub(super) fn wait_for_turn(&mut self, id: JobId, wait: Duration, cx: &mut StepContext<'_>) {
        let ticket = self.jobs.get(&id).and_then(|job| job.ticket);
        let has_come_back = ticket.is_some_and(|ticket| self.line.departures(ticket) > 0);
        if has_come_back && self.may_wait_here(id, wait) {
            self.wait_here(id, wait, cx);
        } else {
            self.wait_elsewhere(id, wait, cx);
        }
    }

    pub(super) fn wait_elsewhere(&mut self, id: JobId, wait: Duration, cx: &mut StepContext<'_>) {
        let wait = wait.max(self.longest_wait_here(id));
        let to = self.least_blocked(wait, cx);
        self.defer(id, to, DeferralReason::NameOrder, cx);
    }

    /// The wait queue for a wait whose end matters: the shortest that is long enough or, where those sent
    /// there before would keep it too long, the next one.
    pub(super) fn least_blocked(&self, wait: Duration, cx: &StepContext<'_>) -> Destination {
        let at = saturating_add(cx.now, wait + wait / 8);
        let shortest = self.retry.step(wait);
        let last = self.rules.retry.ladder.len().saturating_sub(1);
        let blocked_until = |step: usize| {
            let until = self.last_expiry.get(step).copied().flatten();
            until.filter(|&until| until > at)
        };
        let step = [shortest, (shortest + 1).min(last)]
            .into_iter()
            .min_by_key(|&step| blocked_until(step))
            .unwrap_or(shortest);
        Destination::Ladder {
            step,
            wait: wait.min(self.retry.step_delay(step)),
        }
    }

    /// How many requests of one name may wait here, of those that have come back for their turn.
    fn room_of_a_name(&self) -> usize {
        (self.rules.capacity() * 3 / 4).max(1)
    }

    /// How long the turn of a request is away, by how many of its names stand before it, as far as it is
    /// known how long one takes.
    pub(super) fn turn_of_name(&self, id: JobId) -> Option<Duration> {
        let job = self.jobs.get(&id)?;
        let ticket = job.ticket?;
        let time = self.name_time(id)?;
        let pace = match self.line.departures(ticket) {
            0 => FIRST_PACE,
            // Those before it take longer than others did: an estimate that fails is not repeated.
            1 | 2 => 1.0,
            departures => f64::from(1u32 << (departures - 2).min(2)),
        };
        // When it comes back some are to be left before it, so that the line does not stand still.
        let before = self.line.predecessor(ticket);
        let before = before.saturating_sub(self.room_of_a_name() / 2);
        Some(wait_behind(before, time.mul_f64(pace)))
    }

    /// How long a request of the names of this one takes, as far as that is known.
    fn name_time(&self, id: JobId) -> Option<Duration> {
        self.turns.name_time(self.jobs.get(&id)?.identity?.names())
    }

    /// The outcome of a try is known: that is how long its account's tries take.
    pub(super) fn note_try_time(&mut self, id: JobId, cx: &StepContext<'_>) {
        if let Some(job) = self.jobs.get(&id)
            && let Some(began) = job.try_began_at
            && let Some(request) = job.request.as_deref()
        {
            let took = Duration::try_from(cx.now.duration_since(began)).unwrap_or_default();
            self.accounts.try_took(&request.account_id, took);
        }
    }

    /// A request is over for whose name others wait: that is how long each of those takes.
    pub(super) fn note_name_time(&mut self, id: JobId, cx: &StepContext<'_>) {
        if let Some(job) = self.jobs.get(&id)
            && let (Some(began), Some(ticket)) = (job.try_began_at, job.ticket)
        {
            let took = Duration::try_from(cx.now.duration_since(began)).unwrap_or_default();
            for name in self.line.followed_names(ticket) {
                self.turns.name_took(name, took);
            }
        }
    }

    /// Those that stayed while nothing was known of how long one takes, and have no room.
    pub(super) fn send_crowd_away(&mut self, cx: &mut StepContext<'_>) {
        for id in self.ids() {
            let is_blocked = |job: &Job| matches!(job.phase, Phase::Blocked);
            if self.jobs.get(&id).is_some_and(is_blocked) {
                self.schedule(id, cx);
            }
        }
    }
}
