//! Who must wait for whom: requests of one account that share a name run in the order they came.
//!
//! Every request takes a ticket and stands in the line of each of its two names; it may run when it
//! is first in both. One that goes *away*, to a wait queue or to the tail of the due queue, keeps
//! its place, so that later ones of its names do not overtake it: they go after it, each once the
//! broker has confirmed the one before. Only the nearest before it matters to a request, since that
//! one minds those before itself.
//!
//! Names are kept as hashes: that bounds the memory of ten thousand waiting requests, and two names
//! with one hash would merely wait for each other.
//!
//! Within one worker only. Another worker that shares the queue may take a request that went away;
//! its place is given up when that is certain. A queue keeps its order, so it is certain when a
//! message has come back that entered the queue well after the missing one must have ([`NameSequencer::eligibility`]).

mod copies;
mod identity;
mod returns;
mod way;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use self::copies::CopyIds;
pub use self::identity::RequestIdentity;
use self::returns::ReturnWatch;
pub use self::way::DueReturn;
use self::way::{ReturnPath, ReturnRoute};
use crate::core::policy::consume_plan::SourceQueue;
use crate::core::policy::retry::{QueueStay, saturating_add};

/// How much later than expected a message may enter the due queue again: the broker moves
/// expired messages at least once, so the failover of a queue delays them.
const RETURN_GRACE: Duration = Duration::from_secs(30);

/// After a lost connection the broker may take so long to find it lost, and to hand out again what
/// it had sent there: two heartbeats, and time to spare.
const CUT_SLACK: Duration = Duration::from_secs(150);

/// How often places are looked through for those that are certainly lost.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Places kept at most, some 40 MB; past it, the oldest are given up, and with them their order.
const MAX_ENTRIES: usize = 200_000;

/// A place in the line; a smaller one came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderPosition(u64);

/// Where a request is that holds a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryLocation {
    Here,
    /// Its copy is on its way to the broker. It may even be back before that is known.
    Leaving(ReturnPath),
    /// Only in the broker.
    Away(ReturnPath),
}

#[derive(Debug, Clone, Copy)]
struct PositionSlot {
    identity: RequestIdentity,
    whereabouts: EntryLocation,
    /// The number of the copy it left with last; 0 for one that never left.
    copy: u64,
    /// How often it has left for a wait queue.
    departures: u8,
}

/// Where a delivery came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrivalSource {
    pub queue: SourceQueue,
    pub redelivered: bool,
}

impl ArrivalSource {
    #[must_use]
    pub const fn new(queue: SourceQueue, redelivered: bool) -> Self {
        Self { queue, redelivered }
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub ticket: OrderPosition,
    /// Another message of the same request is about: here, or away.
    pub is_twin: bool,
}

/// Whether it is a request's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnDecision {
    /// First in both lines.
    Run,
    /// Somebody before it is here: wait for them.
    Wait,
    /// Those before it are away: go after them. Without a `due`, they stand at the tail of the due
    /// queue; with one, they are not back before then, and it waits in a wait queue.
    Follow { due: Option<DueReturn> },
}

/// The lines of all names.
#[derive(Debug, Clone, Default)]
pub struct NameSequencer {
    next_ticket: u64,
    copies: CopyIds,
    holders: BTreeMap<OrderPosition, PositionSlot>,
    /// (name, ticket): a line is a range of it. In each line the places are numbered as they are taken.
    lines: BTreeMap<(u64, OrderPosition), u32>,
    /// The tickets of each request: of its one message, and of twins.
    messages: BTreeSet<(RequestIdentity, OrderPosition)>,
    /// Those here whose turn it may have become.
    woken: Vec<OrderPosition>,
    /// Whatever entered the due queue before this has been delivered to somebody.
    delivered_up_to: Option<Timestamp>,
    /// When a connection was last lost, or new requests began to be taken after that.
    cut_at: Option<Timestamp>,
    /// New requests are being taken. While they are not, one that was put back in front of their queue
    /// does not come, whatever has come from elsewhere.
    takes_new: bool,
    swept_at: Option<Timestamp>,
    /// Numbers the connections that were lost.
    cuts: u64,
    /// What has come back since the connection was last lost.
    returns: ReturnWatch,
}

impl NameSequencer {
    /// `random`, from 0 to 1, tells this worker's copies from others'.
    #[must_use]
    pub fn starting(random: f64, now: Timestamp) -> Self {
        Self {
            copies: CopyIds::starting(random, now),
            ..Self::default()
        }
    }

    /// A delivery arrives: back to its place if it was away, else to the end of its lines. `copy`
    /// is the number it carries. Another message of a request that is away, its twin, may take its
    /// place as well.
    pub fn arrive(
        &mut self,
        identity: RequestIdentity,
        copy: Option<u64>,
        from: ArrivalSource,
        now: Timestamp,
    ) -> Arrival {
        let tickets = (identity, OrderPosition(0))..=(identity, OrderPosition(u64::MAX));
        let messages = self.messages.range(tickets).map(|&(_, ticket)| ticket);
        let away: Vec<(ReturnPath, u64, OrderPosition)> = messages
            .clone()
            .filter_map(|ticket| {
                let holder = self.holders.get(&ticket)?;
                Some((holder.whereabouts.way()?, holder.copy, ticket))
            })
            .collect();
        let sent = away
            .iter()
            .find(|&&(_, number, _)| number != 0 && copy == Some(number));
        // Twins come back to their own queues.
        let first = away.iter().min_by_key(|(way, number, _)| {
            let is_elsewhere = !(from.redelivered && way.is_of(from.queue, self.cuts));
            (is_elsewhere, way.earliest, *number)
        });
        let known = messages.count();
        let entered = match sent {
            Some((way, ..)) => Some(way.earliest),
            None => copy.and_then(|copy| self.copies.sent_at(copy)),
        };
        self.delivered_up_to = self.delivered_up_to.max(entered);
        let found = sent.or(first).copied();
        let is_back = found.is_some_and(|(way, ..)| way.is_of(from.queue, self.cuts));
        self.returns.delivered(
            from.queue,
            is_back && from.redelivered,
            from.redelivered,
            now,
        );
        let Some((_, _, ticket)) = found else {
            return Arrival {
                ticket: self.take_ticket(identity),
                is_twin: known > 0,
            };
        };
        if let Some(holder) = self.holders.get_mut(&ticket) {
            holder.whereabouts = EntryLocation::Here;
        }
        Arrival {
            ticket,
            is_twin: known > 1 || sent.is_none(),
        }
    }

    /// Whether it is this request's turn now. The places of those before it that certainly went to
    /// another worker are given up.
    pub fn eligibility(&mut self, ticket: OrderPosition) -> TurnDecision {
        let Some(holder) = self.holders.get(&ticket).copied() else {
            return TurnDecision::Run;
        };
        let mut turn = TurnDecision::Run;
        for name in holder.identity.names {
            match (self.turn_in(name, ticket, holder.copy), turn) {
                (TurnDecision::Run, so_far) => turn = so_far,
                (TurnDecision::Wait, _) => return TurnDecision::Wait,
                (TurnDecision::Follow { due }, TurnDecision::Follow { due: other }) => {
                    turn = TurnDecision::Follow {
                        due: DueReturn::latest(due, other),
                    };
                }
                (follow, _) => turn = follow,
            }
        }
        turn
    }

    /// A copy of the request is published, to the tail of the due queue or, with a stay, to a wait
    /// queue. Said again when it is published again. Gives the copy's number.
    pub fn begin_deferral(
        &mut self,
        ticket: OrderPosition,
        stay: Option<QueueStay>,
        now: Timestamp,
    ) -> u64 {
        self.sweep(now);
        let delay = stay.map_or(Duration::ZERO, |stay| stay.at_least);
        let way = ReturnPath {
            by: if stay.is_some() {
                ReturnRoute::Ladder
            } else {
                ReturnRoute::Tail
            },
            earliest: saturating_add(now, delay),
            delay,
            latest: Timestamp::MAX,
        };
        let copy = self.copies.next(now);
        if let Some(holder) = self.holders.get_mut(&ticket) {
            holder.whereabouts = EntryLocation::Leaving(way);
            holder.copy = copy;
        }
        copy
    }

    /// When this worker sent the copy of that number, if it did.
    #[must_use]
    pub fn sent_at(&self, copy: u64) -> Option<Timestamp> {
        self.copies.sent_at(copy)
    }

    /// A number for a copy that no place is kept for.
    pub fn number_of_next_copy(&mut self, now: Timestamp) -> u64 {
        self.copies.next(now)
    }

    /// The broker has the copy: those behind may go after it. `stay` as published.
    pub fn deferral_confirmed(
        &mut self,
        ticket: OrderPosition,
        stay: Option<QueueStay>,
        now: Timestamp,
    ) {
        let at_most = stay.map_or(Duration::ZERO, |stay| stay.at_most);
        let latest = saturating_add(saturating_add(now, at_most), RETURN_GRACE);
        if let Some(holder) = self.holders.get_mut(&ticket)
            && let EntryLocation::Leaving(way) = holder.whereabouts
        {
            holder.whereabouts = EntryLocation::Away(ReturnPath { latest, ..way });
            // What is given back to the tail, during a hold, does not go for its turn.
            holder.departures = holder.departures.saturating_add(u8::from(stay.is_some()));
            let holder = *holder;
            self.wake_behind(ticket, holder.identity);
        }
    }

    /// Its delivery from this queue, on the connection of this number, is void: it will be delivered
    /// again.
    pub fn delivery_lost(
        &mut self,
        ticket: OrderPosition,
        queue: SourceQueue,
        cut: u64,
        now: Timestamp,
    ) {
        if let Some(holder) = self.holders.get_mut(&ticket) {
            holder.whereabouts = EntryLocation::Away(ReturnPath {
                by: ReturnRoute::Front {
                    queue,
                    // What came back since then was not looked for.
                    is_followed_up: cut == self.cuts,
                    cut,
                },
                earliest: now,
                delay: Duration::ZERO,
                latest: saturating_add(now, CUT_SLACK),
            });
            // A copy of it that may be about is no proof of this way.
            holder.copy = 0;
            let holder = *holder;
            self.wake_behind(ticket, holder.identity);
        }
    }

    /// The connection is lost, and perhaps deliveries with it that were never seen.
    pub fn on_disconnect(&mut self, now: Timestamp) {
        for holder in self.holders.values_mut() {
            // Lost again before any of those that it was lost with had come back: no telling when the
            // broker finds that connection lost.
            if let EntryLocation::Away(ReturnPath {
                by:
                    ReturnRoute::Front {
                        queue,
                        is_followed_up,
                        ..
                    },
                ..
            }) = &mut holder.whereabouts
            {
                *is_followed_up &= self.returns.has_begun(*queue);
            }
        }
        self.returns = ReturnWatch::default();
        self.cuts += 1;
        self.cut_at = Some(now);
        self.takes_new = false;
    }

    /// The number of the connection that was lost last.
    #[must_use]
    pub const fn last_cut(&self) -> u64 {
        self.cuts
    }

    /// New requests are taken from now on.
    pub fn takes_new(&mut self, now: Timestamp) {
        if !self.takes_new && self.cut_at.is_some() {
            self.cut_at = Some(now);
        }
        self.takes_new = true;
    }

    /// Whether the queues are consumed and there is room for more than has come.
    pub fn has_room(&mut self, has_room: bool, now: Timestamp) {
        self.returns.look(has_room, self.takes_new, now);
    }

    pub const fn takes_nothing_new(&mut self) {
        self.takes_new = false;
    }

    /// Requests that have a place: here, leaving, or away.
    #[must_use]
    pub fn places(&self) -> usize {
        self.holders.len()
    }

    /// The request is done with, or its place is given up. Whoever is next is [`NameSequencer::take_unblocked`].
    pub fn release(&mut self, ticket: OrderPosition) {
        let Some(holder) = self.holders.remove(&ticket) else {
            return;
        };
        self.messages.remove(&(holder.identity, ticket));
        for name in holder.identity.names {
            self.lines.remove(&(name, ticket));
        }
        self.wake_behind(ticket, holder.identity);
    }

    /// How often the request has left for a wait queue, as far as its place is known.
    #[must_use]
    pub fn departures(&self, ticket: OrderPosition) -> u8 {
        self.holders
            .get(&ticket)
            .map_or(0, |holder| holder.departures)
    }

    /// How many stand before this request in the longer one of its lines, if all of them are here. Else
    /// one of them is away or about to leave, and those behind it follow one after another.
    #[must_use]
    pub fn all_here_before(&self, ticket: OrderPosition) -> Option<usize> {
        let is_here = |before: &OrderPosition| {
            let holder = self.holders.get(before);
            holder.is_some_and(|holder| holder.whereabouts == EntryLocation::Here)
        };
        let mut longest = 0;
        for name in self.holders.get(&ticket)?.identity.names {
            let before = self
                .lines
                .range((name, OrderPosition(0))..(name, ticket))
                .rev();
            let mut count = 0;
            for (&(_, before), _) in before {
                if !is_here(&before) {
                    return None;
                }
                count += 1;
            }
            longest = longest.max(count);
        }
        Some(longest)
    }

    /// How many stand before this request in the longer one of its lines, wherever they are.
    #[must_use]
    pub fn predecessor(&self, ticket: OrderPosition) -> usize {
        let in_line_of = |name: u64| {
            let mut line = self.lines.range((name, OrderPosition(0))..=(name, ticket));
            let (_, &first) = line.next()?;
            let own = line.next_back().map_or(first, |(_, &own)| own);
            usize::try_from(own.wrapping_sub(first)).ok()
        };
        let names = self
            .holders
            .get(&ticket)
            .map(|holder| holder.identity.names);
        let counts = names.unwrap_or_default().into_iter().filter_map(in_line_of);
        counts.max().unwrap_or(0)
    }

    /// The names of this request that others wait for behind it.
    pub fn followed_names(&self, ticket: OrderPosition) -> impl Iterator<Item = u64> {
        let holder = self.holders.get(&ticket);
        let names = holder.map_or([None; 2], |holder| holder.identity.names.map(Some));
        names
            .into_iter()
            .flatten()
            .filter(move |&name| self.successors(name, ticket).is_some())
    }

    /// Takes those here whose turn it may have become since the last time.
    pub fn take_unblocked(&mut self) -> Vec<OrderPosition> {
        std::mem::take(&mut self.woken)
    }

    /// Whether anybody stands behind this request.
    #[must_use]
    pub fn is_followed(&self, ticket: OrderPosition) -> bool {
        self.followed_names(ticket).next().is_some()
    }

    fn take_ticket(&mut self, identity: RequestIdentity) -> OrderPosition {
        let ticket = OrderPosition(self.next_ticket);
        self.next_ticket += 1;
        self.holders.insert(
            ticket,
            PositionSlot {
                identity,
                whereabouts: EntryLocation::Here,
                copy: 0,
                departures: 0,
            },
        );
        self.messages.insert((identity, ticket));
        for name in identity.names {
            let line = (name, OrderPosition(0))..=(name, OrderPosition(u64::MAX));
            let last = self.lines.range(line).next_back();
            let number = last.map_or(0, |(_, &number)| number.wrapping_add(1));
            self.lines.insert((name, ticket), number);
        }
        ticket
    }

    fn turn_in(&mut self, name: u64, ticket: OrderPosition, copy: u64) -> TurnDecision {
        while let Some(before) = self.nearest_before(name, ticket) {
            let Some(holder) = self.holders.get(&before) else {
                break;
            };
            let way = match holder.whereabouts {
                EntryLocation::Away(way) => way,
                // It is published first, so that one that follows at once does not come before it.
                EntryLocation::Leaving(way) if way.by == ReturnRoute::Ladder => {
                    return TurnDecision::Follow {
                        due: Some(way.due()),
                    };
                }
                EntryLocation::Here | EntryLocation::Leaving(_) => return TurnDecision::Wait,
            };
            if self.is_lost(way) {
                self.release(before);
                continue;
            }
            // Had it left before this one, it should have been back before: no telling why it is
            // not, so this one does not turn in circles behind it, but waits in a wait queue.
            let at_the_tail = way.by == ReturnRoute::Tail && holder.copy > copy;
            return TurnDecision::Follow {
                due: (!at_the_tail).then(|| way.due()),
            };
        }
        TurnDecision::Run
    }

    fn is_lost(&self, way: ReturnPath) -> bool {
        if let ReturnRoute::Front {
            queue,
            is_followed_up,
            ..
        } = way.by
        {
            if !self.takes_new {
                return false;
            }
            if is_followed_up && self.returns.has_ended(queue) {
                return true;
            }
        }
        let after_cut = self.cut_at.map(|at| saturating_add(at, CUT_SLACK));
        Some(way.latest).max(after_cut) < self.delivered_up_to
    }

    /// The nearest before `ticket` in the line of `name`.
    fn nearest_before(&self, name: u64, ticket: OrderPosition) -> Option<OrderPosition> {
        let mut earlier = self.lines.range((name, OrderPosition(0))..(name, ticket));
        earlier.next_back().map(|(&(_, before), _)| before)
    }

    /// The nearest behind `ticket` in the line of `name`.
    fn successors(&self, name: u64, ticket: OrderPosition) -> Option<OrderPosition> {
        let after = (name, OrderPosition(ticket.0 + 1))..=(name, OrderPosition(u64::MAX));
        self.lines
            .range(after)
            .next()
            .map(|(&(_, behind), _)| behind)
    }

    fn wake_behind(&mut self, ticket: OrderPosition, identity: RequestIdentity) {
        for name in identity.names {
            if let Some(behind) = self.successors(name, ticket) {
                self.woken.push(behind);
            }
        }
    }

    fn sweep(&mut self, now: Timestamp) {
        let is_away = |holder: &PositionSlot| matches!(holder.whereabouts, EntryLocation::Away(_));
        while self.holders.len() > MAX_ENTRIES
            && let Some((&oldest, _)) = self.holders.iter().find(|(_, holder)| is_away(holder))
        {
            self.release(oldest);
        }
        if self
            .swept_at
            .is_some_and(|at| saturating_add(at, SWEEP_EVERY) > now)
        {
            return;
        }
        self.swept_at = Some(now);
        let lost: Vec<OrderPosition> = self
            .holders
            .iter()
            .filter(|(_, holder)| match holder.whereabouts {
                EntryLocation::Away(way) => self.is_lost(way),
                EntryLocation::Here | EntryLocation::Leaving(_) => false,
            })
            .map(|(&ticket, _)| ticket)
            .collect();
        for ticket in lost {
            self.release(ticket);
        }
    }
}

impl EntryLocation {
    const fn way(self) -> Option<ReturnPath> {
        match self {
            Self::Here => None,
            Self::Leaving(way) | Self::Away(way) => Some(way),
        }
    }
}

#[cfg(test)]
mod tests;
