//! The promises of contract section 4, checked against how a life ended.
//!
//! A worker that is killed forgets what only it knew: the order of requests that wait in the
//! ladder, and what it had told but not yet acknowledged. What no later worker can find out by
//! asking the API is excused here, each case by its own function that says why, and never within
//! one process.

use std::time::Duration;

use jiff::Timestamp;
use rename_worker::core::model::names::same_name;
use rename_worker::core::model::outcome::{
    AppliedBy, ConfirmedBy, Failed, Outcome, Reason, Renamed,
};
use rename_worker::core::model::request::RenameRequest;

use super::api::Applied;
use super::broker::Told;
use super::plan::{ACCOUNTS, later};
use super::shell::shares_a_name;
use super::world::World;

/// A request goes to the tail of its queue for one hold, and after one that did. If one message of
/// it does so more often within two seconds, it turns in circles.
const MOST_TAILS: usize = 6;

/// What the life broke; nothing, if all is well.
pub fn violations(world: &World) -> Vec<String> {
    let mut found: Vec<String> = world.broken.iter().cloned().collect();
    if !world.at_rest {
        found.push("the life did not come to rest: requests are stuck".to_owned());
        return found;
    }
    for &request in &world.broker.removed {
        let planned = &world.planned[request];
        if !planned.poison && !planned.unreadable && world.faults.short_sessions.is_none() {
            found.push(format!(
                "request {request} came to its delivery limit and did nothing"
            ));
        }
    }
    // What nobody can read has no outcome: it is kept, counted and alarmed.
    let readable = |number: &usize| !world.planned[*number].unreadable;
    for number in (0..world.planned.len()).filter(readable) {
        let story = Story::of(world, number);
        story.has_one_outcome(&mut found);
        story.never_failed_what_took_effect(&mut found);
        story.failed_for_a_reason(&mut found);
        story.was_renamed_as_told(&mut found);
        story.did_not_turn_in_circles(&mut found);
        story.ended_within_its_bounds(&mut found);
    }
    unharmed_by_outages(world, &mut found);
    unharmed_by_neighbours(world, &mut found);
    found
}

/// What became of one request.
struct Story<'a> {
    world: &'a World,
    number: usize,
    request: Option<&'a RenameRequest>,
    told: Vec<&'a Told>,
    applied: Vec<&'a Applied>,
    letters: Vec<&'a Failed>,
}

impl<'a> Story<'a> {
    fn of(world: &'a World, number: usize) -> Self {
        let broker = &world.broker;
        let letters = broker.letters.iter();
        Self {
            world,
            number,
            request: world.planned[number].request.as_ref(),
            told: broker
                .events
                .iter()
                .filter(|told| told.request == number)
                .collect(),
            applied: world
                .api
                .applied
                .iter()
                .filter(|applied| applied.request == number)
                .collect(),
            letters: letters
                .filter(|(request, _)| *request == number)
                .map(|(_, failed)| failed)
                .collect(),
        }
    }

    fn failures(&self) -> impl Iterator<Item = (&'a Told, &'a Failed)> {
        self.told.iter().filter_map(|told| match &told.outcome {
            Outcome::Failed(failed) => Some((*told, failed)),
            Outcome::Renamed(_) => None,
        })
    }

    fn renames(&self) -> impl Iterator<Item = (&'a Told, &'a Renamed)> {
        self.told.iter().filter_map(|told| match &told.outcome {
            Outcome::Renamed(renamed) => Some((*told, renamed)),
            Outcome::Failed(_) => None,
        })
    }

    /// Promise 1: one outcome, and a dead letter for each failure.
    fn has_one_outcome(&self, found: &mut Vec<String>) {
        let number = self.number;
        if self.told.is_empty() {
            found.push(format!("request {number} has no outcome"));
        }
        for (_, failed) in self.failures() {
            if !self.letters.contains(&failed) {
                found.push(format!("request {number} failed without a dead letter"));
            }
        }
        for (renamed, _) in self.renames() {
            for (told, failed) in self.failures() {
                // A message that upstream has published again is another try after a failure.
                let again = self.planned_twice() && failed.failed_at < renamed.at;
                if told.life == renamed.life && !again {
                    found.push(format!(
                        "request {number} was told as renamed and as {failed:?}"
                    ));
                }
            }
        }
        if self.world.next_life == 1 && self.failures().count() == 0 && !self.letters.is_empty() {
            found.push(format!("request {number} has a dead letter and no failure"));
        }
    }

    /// Promise 3.
    fn never_failed_what_took_effect(&self, found: &mut Vec<String>) {
        let number = self.number;
        for (told, failed) in self.failures() {
            for applied in &self.applied {
                let before = applied.at <= failed.failed_at;
                if before
                    && failed.reason != Reason::OutcomeUnknown
                    && !self.was_raced(applied, failed)
                    && !self.is_excused(applied, told, failed)
                {
                    found.push(format!(
                        "request {number} took effect and was told as {failed:?}"
                    ));
                }
                // Killed between telling and the ack, a worker forgets; the next one tries again,
                // in a changed world. So does a message that upstream has published again.
                if !before && applied.life == told.life && !self.planned_twice() {
                    found.push(format!(
                        "request {number} was told as {failed:?} and then took effect"
                    ));
                }
            }
        }
        for pair in self.applied.windows(2) {
            let undone = self.not_in_order_after(pair[0], pair[1].at).next();
            if pair[0].life == pair[1].life && undone.is_none() {
                found.push(format!("request {number} took effect more than once"));
            }
        }
    }

    /// A rename that took effect on another user than it was to is told as such.
    fn was_raced(&self, applied: &Applied, failed: &Failed) -> bool {
        failed.reason == Reason::UserMismatch
            && failed.may_have_taken_effect()
            && self
                .request
                .is_some_and(|request| request.user_id.is_some_and(|id| id != applied.user))
    }

    /// Only another process than the one whose call took effect can be excused; where two workers
    /// share the queue, the same one may have had to do with it again.
    fn is_excused(&self, applied: &'a Applied, told: &Told, failed: &Failed) -> bool {
        let forgotten = told.life != applied.life || self.world.workers.len() > 1;
        forgotten
            && (self.user_moved_on(applied, failed)
                || self.name_was_taken_anew(applied, failed)
                || self.planned_twice())
    }

    /// The rename took effect, its worker was killed, and another request gave the user yet another
    /// name. Both names look as if there was no such user.
    fn user_moved_on(&self, applied: &'a Applied, failed: &Failed) -> bool {
        self.not_in_order_after(applied, failed.failed_at)
            .any(|other| other.user == applied.user)
    }

    /// The rename took effect, its worker was killed, and another request gave the old name to
    /// another user. It looks as if the rename had not been made; only the id of the user can tell,
    /// if it was asked for, is told, and is whom the rename took effect on.
    fn name_was_taken_anew(&self, applied: &'a Applied, failed: &Failed) -> bool {
        let mood = &self.world.api.mood;
        let ids_tell = mood.tells_ids
            && !mood.self_rename_conflicts
            && self
                .request
                .is_some_and(|request| request.user_id == Some(applied.user));
        !ids_tell
            && self
                .not_in_order_after(applied, failed.failed_at)
                .any(|other| other.to == applied.from)
    }

    /// Renames between this one and then, by requests that share a name and either should have
    /// waited for this one's end, had they been in one process with it, or had seen it in that
    /// process: then what failed is a twin, left in the broker by a worker that was killed.
    fn not_in_order_after(
        &self,
        applied: &'a Applied,
        until: Timestamp,
    ) -> impl Iterator<Item = &'a Applied> {
        let life = applied.life;
        let told = self.told.iter().filter(|told| told.life == life);
        let told_at = told.map(|told| told.at).find(|&at| applied.at <= at);
        let two_workers = self.world.workers.len() > 1;
        let (number, request) = (self.number, self.request);
        let planned = &self.world.planned;
        let all = self.world.api.applied.iter();
        let after = all.skip_while(move |other| !std::ptr::eq(*other, applied));
        let between = after.skip(1).take_while(move |other| other.at <= until);
        between.filter(move |other| {
            let theirs = planned[other.request].request.as_ref();
            let shares = theirs
                .zip(request)
                .is_some_and(|(theirs, ours)| shares_a_name(theirs, ours));
            let elsewhere = other.life != life || told_at.is_some_and(|told| told < other.at);
            other.request != number && shares && (elsewhere || two_workers)
        })
    }

    fn failed_for_a_reason(&self, found: &mut Vec<String>) {
        let planned = &self.world.planned[self.number];
        for (_, failed) in self.failures() {
            let request = self.request;
            let justified = match failed.reason {
                Reason::InvalidRequest => request.is_none(),
                Reason::Poison => self.may_be_poison(),
                Reason::OutcomeUnknown if failed.detail.contains("delivery limit") => {
                    self.may_be_poison()
                }
                Reason::DeadlineExceeded => request
                    .and_then(|request| request.not_after)
                    .is_some_and(|not_after| later(failed.failed_at, HOUR) > not_after),
                Reason::UserMismatch => request.is_some_and(|request| request.user_id.is_some()),
                Reason::RetriesExhausted => {
                    let first = failed.first_attempt_at.unwrap_or(failed.failed_at);
                    let retry = &self.world.rules.retry;
                    failed.attempts >= retry.max_attempts
                        || later(failed.failed_at, HOUR) > later(first, retry.max_elapsed)
                }
                Reason::OutcomeUnknown => {
                    let (api, broker) = (&self.world.api, &self.world.broker);
                    let doubted = api.unclear.contains(&self.number)
                        || broker.doubtful.contains(&self.number);
                    doubted && failed.may_have_taken_effect()
                }
                Reason::UserNotFound | Reason::UsernameTaken => failed.http_status.is_some(),
                Reason::Forbidden => self.account_was_refused(failed),
                // The question whose name it is, or the rename of a name to itself.
                Reason::Rejected => {
                    let refused = self.world.api.mood.refuses_question.as_deref();
                    let name = request.map(|request| request.username.reveal());
                    refused
                        .zip(name)
                        .is_some_and(|(refused, name)| same_name(refused, name))
                }
            };
            if !justified {
                found.push(format!("request {} failed as {failed:?}", self.number));
            }
        }
        if planned.poison && request_is_some(self.request) && self.failures().count() == 0 {
            found.push(format!(
                "request {} is poison and did not fail",
                self.number
            ));
        }
    }

    /// It is, or another process cannot know that it was sessions that ended, and nobody died of it.
    fn may_be_poison(&self) -> bool {
        let short = self.world.faults.short_sessions.is_some();
        self.world.planned[self.number].poison || short && self.world.next_life > 1
    }

    /// The credentials of its account, and not those of the others, or at most a pause ago.
    fn account_was_refused(&self, failed: &Failed) -> bool {
        let refused = self.world.api.mood.refuses_account.as_ref();
        refused
            .zip(self.request)
            .is_some_and(|((account, (from, to)), request)| {
                account == request.account_id.as_str()
                    && *from <= failed.failed_at
                    && failed.failed_at < later(*to, HOUR)
            })
    }

    /// While the API answers others, a request ends within its attempts and its time.
    fn ended_within_its_bounds(&self, found: &mut Vec<String>) {
        let (number, rules) = (self.number, &self.world.rules);
        // Before a hold begins, failures in a row say that it is the API, in each process anew; so many
        // more are allowed.
        let lives = u32::try_from(self.world.next_life).unwrap_or(u32::MAX);
        // So it is before each further hold of its account, once one has ended.
        let holds = self.world.notes.get("AccountHeld").copied().unwrap_or(0);
        let most = rules.retry.max_attempts + rules.hold.failures * lives.max(holds);
        let mood = &self.world.api.mood;
        let refused = mood.refuses_account.as_ref().map(|(_, window)| *window);
        let failed = mood.fails_account.as_ref().map(|(_, window)| *window);
        let windows = [mood.outage, mood.refuses_credentials, refused, failed];
        let unwell: Duration = windows
            .into_iter()
            .flatten()
            .map(|(from, to)| Duration::try_from(to.duration_since(from)).unwrap_or_default())
            .sum();
        // The longest step of the ladder there and back, for the last try and for the question, and
        // for each of those beyond.
        let longest = rules.retry.max_elapsed + unwell + (3 + rules.hold.failures * lives) * HOUR;
        for told in &self.told {
            let attempts = match &told.outcome {
                Outcome::Renamed(renamed) => renamed.attempts,
                Outcome::Failed(failed) => failed.attempts,
            };
            if attempts > most {
                found.push(format!("request {number} took {attempts} attempts"));
            }
        }
        for (told, failed) in self.failures() {
            let first = failed.first_attempt_at.unwrap_or(told.at);
            if told.at > later(first, longest) {
                found.push(format!("request {number} outlived its time: {failed:?}"));
            }
        }
    }

    fn was_renamed_as_told(&self, found: &mut Vec<String>) {
        let (number, world) = (self.number, self.world);
        let Some(request) = self.request else {
            return;
        };
        let bears = |id: Option<uuid::Uuid>| {
            world.api.borne.iter().any(|(account, name, user)| {
                account == request.account_id.as_str()
                    && same_name(name, request.new_username.reveal())
                    && id.is_none_or(|id| id == *user)
            })
        };
        for (_, renamed) in self.renames() {
            let to_itself = same_name(request.username.reveal(), request.new_username.reveal());
            let applied = to_itself || !self.applied.is_empty();
            let doubted =
                world.api.unclear.contains(&number) || world.broker.doubtful.contains(&number);
            let true_word = match (renamed.how, renamed.confirmed_by) {
                (AppliedBy::Applied, ConfirmedBy::Answer) => applied,
                (AppliedBy::AlreadyApplied, ConfirmedBy::UserId) => bears(request.user_id),
                // The one case that cannot be decided: contract section 5.
                (AppliedBy::AlreadyApplied, ConfirmedBy::Name) => applied || doubted && bears(None),
                _ => false,
            };
            if !true_word {
                found.push(format!(
                    "request {number} was not renamed as told: {renamed:?}"
                ));
            }
        }
    }

    fn did_not_turn_in_circles(&self, found: &mut Vec<String>) {
        let within = Duration::from_secs(2);
        let circles = |times: &[Timestamp]| times[times.len() - 1] < later(times[0], within);
        // Each kill or cut may have left a twin; so may upstream, and each of the two goes there.
        let twins = usize::try_from(self.world.kills + self.world.cuts).unwrap_or(0);
        let twins = twins + usize::from(self.planned_twice()) * MOST_TAILS;
        let of_each_life = (self.number, 0)..=(self.number, u64::MAX);
        for (_, tails) in self.world.broker.tails.range(of_each_life) {
            if tails.windows(MOST_TAILS + twins).any(circles) {
                found.push(format!("request {} turned in circles", self.number));
            }
        }
    }

    /// Nothing shows that a message is the second one of its request, once the worker that knew of
    /// the first is gone.
    fn planned_twice(&self) -> bool {
        self.world.planned[self.number].published_twice
    }
}

/// So long an answer takes at most.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_sub(by).expect("within time")
}

const HOUR: Duration = Duration::from_secs(3600);

fn request_is_some(request: Option<&RenameRequest>) -> bool {
    request.is_some()
}

/// Promise 8: whatever is wrong with the one account, a request of the other waits for no more than
/// some calls of it, of which each takes ten seconds at most, beside its own account's.
fn unharmed_by_neighbours(world: &World, found: &mut Vec<String>) {
    let undisturbed = world.is_calm
        && world.workers.len() == 1
        && world.rules.requests_per_second.is_none()
        && world.api.mood.is_well_but_for_one_account();
    if !undisturbed {
        return;
    }
    let is_well = |number: usize| {
        let planned = &world.planned[number];
        let request = planned
            .request
            .as_ref()
            .filter(|_| !planned.published_twice);
        request.is_some_and(|request| request.account_id.as_str() == ACCOUNTS[1])
    };
    let well = (0..world.planned.len()).filter(|&number| is_well(number));
    for (before, number) in well.enumerate() {
        let turns = u32::try_from(before % 24 + 2).expect("a few");
        let until = later(world.published_at[&number], 2 * turns * LONGEST_ANSWER);
        let told = world.broker.events.iter();
        let mut told = told.filter(|told| told.request == number);
        if told.any(|told| told.at > until) {
            found.push(format!(
                "request {number} waited for its neighbour's trouble"
            ));
        }
    }
}

/// Promise 6.
fn unharmed_by_outages(world: &World, found: &mut Vec<String>) {
    // A request that is alone cannot know: with fewer attempts than failures that hold the worker,
    // with less time than an outage takes, or in a process that was started during it.
    let retry = &world.rules.retry;
    let patient = retry.max_attempts >= world.rules.hold.failures && retry.max_elapsed >= 24 * HOUR;
    let patient = patient && world.next_life <= 1;
    for told in &world.broker.events {
        if let Outcome::Failed(failed) = &told.outcome
            && matches!(
                failed.reason,
                Reason::RetriesExhausted | Reason::OutcomeUnknown
            )
            && patient
            // More attempts than it may have: it was exhausted before, and spared once already.
            && failed.attempts <= world.rules.retry.max_attempts
            && world.api.mood.is_out(failed.failed_at)
            // What was answered before it reaches the worker a moment later.
            && world.api.mood.is_out(earlier(failed.failed_at, LONGEST_ANSWER))
        {
            found.push(format!(
                "request {} failed during an outage: {failed:?}",
                told.request
            ));
        }
    }
    let Some((from, to)) = world.api.mood.outage else {
        return;
    };
    for &(held_at, calls_before) in &world.holds {
        let end = to.min(later(held_at, HOUR / 2));
        if held_at < from || held_at >= end {
            continue;
        }
        let calls = calls_until(world, calls_before, end);
        // Another process has to find out anew; calls begun before the hold still end.
        let others = usize::try_from(world.next_life).unwrap_or(usize::MAX) - 1;
        if calls > 60 * world.workers.len() + 18 * others + 8 {
            found.push(format!("{calls} calls were made in half an hour of outage"));
        }
    }
}

/// How many calls were made after so many, until then.
pub fn calls_until(world: &World, after: usize, until: Timestamp) -> usize {
    let calls = world.api.calls[after..].iter();
    calls.take_while(|&&at| at < until).count()
}
