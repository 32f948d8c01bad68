//! What one account, and one name, may take of what is in hand; the rest waits in the ladder for about
//! as long as its turn is away.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::consume_plan::ConsumeScope;
use super::super::request::AccountId;
use super::super::turn_estimate::wait_behind;
use super::{Context, JobId, Machine};

/// Requests of one name that wait in the worker for each other. They run one after another, so more
/// would only keep the room from others.
const MAX_OF_A_NAME: usize = 32;

/// Once a request has gone away so often for its turn, it stays.
const MAX_DEPARTURES: u8 = 2;

impl Machine {
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
    pub(super) fn wait_for_share(&mut self, id: JobId, cx: &Context<'_>) -> Option<Duration> {
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
    pub(super) fn wait_for_rate(&mut self, account: &AccountId, cx: &Context<'_>) -> Duration {
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
    /// which there is no room.
    pub(super) fn wait_for_name(&self, id: JobId) -> Option<Duration> {
        let ticket = self.jobs.get(&id)?.ticket?;
        let before = self.line.here_before(ticket, MAX_OF_A_NAME);
        let may_stay = before < MAX_OF_A_NAME && self.has_room();
        (!may_stay).then(|| wait_behind(before, self.name_time(id)))
    }

    /// How long a request of the names of this one takes, as far as that is known.
    pub(super) fn name_time(&self, id: JobId) -> Duration {
        let Some(job) = self.jobs.get(&id) else {
            return Duration::ZERO;
        };
        let of_names = job
            .identity
            .and_then(|identity| self.turns.name_time(identity.names()));
        let of_account = || {
            let account = &job.request.as_deref()?.account_id;
            self.accounts.try_time(account)
        };
        of_names.or_else(of_account).unwrap_or_default()
    }

    /// The outcome of a try is known: that is how long its account's tries take.
    pub(super) fn note_try_time(&mut self, id: JobId, cx: &Context<'_>) {
        if let Some(job) = self.jobs.get(&id)
            && let Some(began) = job.try_began_at
            && let Some(request) = job.request.as_deref()
        {
            let took = Duration::try_from(cx.now.duration_since(began)).unwrap_or_default();
            self.accounts.try_took(&request.account_id, took);
        }
    }

    /// A request is over for whose name others wait: that is how long each of those takes.
    pub(super) fn note_name_time(&mut self, id: JobId, cx: &Context<'_>) {
        if let Some(job) = self.jobs.get(&id)
            && let (Some(began), Some(ticket)) = (job.try_began_at, job.ticket)
        {
            let took = Duration::try_from(cx.now.duration_since(began)).unwrap_or_default();
            for name in self.line.followed_names(ticket) {
                self.turns.name_took(name, took);
            }
        }
    }
}
