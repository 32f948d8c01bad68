//! A delivery arrives: whether it is worth a try, and whose turn it is.

use std::time::Duration;

use super::super::order::{Arrival, Identity, Line, Turn};
use super::super::outcome::Reason;
use super::super::retry::later;
use super::super::verdict::Pending;
use super::job::{Job, Phase};
use super::{Arrived, Context, Destination, Effect, JobId, Machine};

/// From so many deliveries without an end on, a request may be what stops the worker; one or two
/// happen to any request.
const SUSPECT_FROM: u32 = 3;

/// How long a suspect waits, so that the broker has what is put out of its reach.
const SUSPECT_WAITS: Duration = Duration::from_secs(1);

/// Over so many steps of the ladder the others are spread.
const SPREAD: usize = 3;

/// From this many deliveries below the broker's limit, a request is no longer tried: it may be what
/// kills the worker. It is asked whether an earlier try was applied, and ends.
pub const POISON_MARGIN: u32 = 6;

/// From here on even asking is too much: a few deaths more, and the broker drops it untold.
const LAST_MARGIN: u32 = 3;

impl Machine {
    pub(super) fn delivered(&mut self, arrived: Arrived, cx: &mut Context<'_>) {
        let Arrived {
            job: id,
            request,
            carried,
            redelivered,
            delivery_count,
            probe,
        } = arrived;
        if self.draining {
            cx.emit(Effect::GiveBack { job: id });
            return;
        }
        let delivered_before = redelivered || delivery_count > 0;
        let maybe_applied = carried.maybe_applied || delivered_before;
        // Whoever sends a message again that says "maybe applied" and is no copy, such as a review,
        // knows nothing more of its effect.
        let sent_again = carried.maybe_applied && carried.copy.is_none();
        let unclear = carried.unclear || delivered_before || sent_again;
        let mut job = Job {
            request: None,
            identity: None,
            ticket: None,
            carried: super::Carried {
                maybe_applied,
                unclear,
                ..carried
            },
            received_at: cx.now,
            failed_at: carried.copy.and_then(|copy| self.line.sent_at(copy)),
            phase: Phase::Ready,
            closing: None,
            maybe_twin: redelivered || carried.copy.is_some(),
            probe,
            orphan: false,
            heir: None,
            timer: None,
        };
        let request = match request {
            Ok(request) => request,
            Err(detail) => {
                self.jobs.insert(id, job);
                self.tell_failed(id, Reason::InvalidRequest, None, detail, cx);
                if probe {
                    self.probe_missed(cx);
                }
                return;
            }
        };
        let identity = Identity::of(&request, job.carried.replay);
        let Arrival { ticket, is_twin } = self.line.arrive(identity, job.carried.copy);
        // Whatever was tried for the other message was tried for this one.
        job.carried.maybe_applied |= is_twin;
        job.carried.unclear |= is_twin;
        job.maybe_twin |= is_twin;
        let maybe_twin = job.maybe_twin;
        job.request = Some(request);
        job.identity = Some(identity);
        job.ticket = Some(ticket);
        self.jobs.insert(id, job);
        // A copy may be back before its confirm is known: the place goes over to it.
        if let Some(original) = self.by_ticket.insert(ticket, id)
            && let Some(original) = self.jobs.get_mut(&original)
        {
            original.ticket = None;
        }
        self.place_arrival(id, identity, maybe_twin, delivery_count, cx);
        // A probe that could not be tried, whatever kept it, has found nothing out.
        if probe
            && !self
                .jobs
                .get(&id)
                .is_some_and(|job| matches!(job.phase, Phase::Calling(_)))
        {
            self.probe_missed(cx);
        }
    }

    fn place_arrival(
        &mut self,
        id: JobId,
        identity: Identity,
        maybe_twin: bool,
        delivery_count: u32,
        cx: &mut Context<'_>,
    ) {
        if self.tell_what_is_known(id, cx) {
            return;
        }
        if !maybe_twin {
            self.recent.forget_failure(identity);
        }
        if let Some(&orphan) = self.orphans.get(&identity)
            && self
                .jobs
                .get(&orphan)
                .is_some_and(|orphan| orphan.heir.is_none())
        {
            self.adopt(orphan, id);
            return;
        }
        if delivery_count.saturating_add(LAST_MARGIN) >= self.rules.delivery_limit {
            let detail = "delivered again and again without an end, up to the queue's delivery \
                          limit; whether a try took effect could not be asked";
            self.tell_failed(id, Reason::Poison, None, detail.into(), cx);
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        if delivery_count.saturating_add(POISON_MARGIN) >= self.rules.delivery_limit {
            job.closing = Some(Pending {
                reason: Reason::Poison,
                http_status: None,
                detail: "delivered again and again without an end; it may be what stops the worker"
                    .into(),
            });
        }
        let turn = |line: &mut Line| job.ticket.map_or(Turn::Run, |ticket| line.turn(ticket));
        if job.probe && self.hold.cause().is_some() && turn(&mut self.line) == Turn::Run {
            self.start_try(id, cx);
        } else if delivery_count >= SUSPECT_FROM {
            self.suspect(id, delivery_count, cx);
        } else {
            self.take_turn(id, cx);
        }
    }

    /// The worker died again and again with this request in hand, and with all the others that
    /// were. One of them is tried alone ([`Machine::on_trial`]): so it either ends, or it is what
    /// the worker dies of. The others go away meanwhile: a copy counts its deliveries anew, so that
    /// they do not end as poison with it. They come back spread over several times, to find out the
    /// sooner which one it is.
    fn suspect(&mut self, id: JobId, delivery_count: u32, cx: &mut Context<'_>) {
        if let Some(other) = self.on_trial() {
            let waits = |job: &Job| matches!(job.phase, Phase::Waiting);
            if delivery_count <= self.trial_count || !self.jobs.get(&other).is_some_and(waits) {
                self.put_out_of_reach(id, cx);
                return;
            }
            self.put_out_of_reach(other, cx);
        }
        self.take_turn(id, cx);
        match self.jobs.get(&id).map(|job| &job.phase) {
            Some(Phase::Ready) => {
                self.trial = Some(id);
                self.trial_count = delivery_count;
                self.enter(id, Phase::Waiting);
                self.set_timer(id, later(cx.now, SUSPECT_WAITS));
            }
            // Alone it cannot wait for others.
            Some(Phase::Blocked) => self.put_out_of_reach(id, cx),
            _ => {}
        }
    }

    fn put_out_of_reach(&mut self, id: JobId, cx: &mut Context<'_>) {
        let steps = self.retry.settings().ladder.len().clamp(1, SPREAD);
        let share = 1.0 / f64::from(u32::try_from(steps).unwrap_or(1));
        let roll = (cx.roll)();
        let mut step = 0;
        while step + 1 < steps && roll >= share * f64::from(u32::try_from(step + 1).unwrap_or(1)) {
            step += 1;
        }
        self.send_away(id, Destination::Ladder(step), cx);
    }

    /// A twin of this message may have come to its end while this one waited.
    pub(super) fn tell_what_is_known(&mut self, id: JobId, cx: &mut Context<'_>) -> bool {
        let Some(job) = self.jobs.get(&id) else {
            return false;
        };
        let Some(identity) = job.identity else {
            return false;
        };
        let Some(outcome) = self.recent.known(identity, job.maybe_twin, cx.now) else {
            return false;
        };
        self.tell(id, outcome, cx);
        true
    }
}
