//! Who must wait for whom: requests of one account that share a name run in the order they came.
//!
//! Every request takes a ticket and stands in the line of each of its two names; it may run when it
//! is first in both. A request that goes *away*, to a retry queue or to the tail of its own queue,
//! keeps its place, so that later ones of the same name do not overtake it: they are sent after it.
//! Names are kept as hashes: that bounds the memory of ten thousand waiting requests, and two names
//! with one hash would merely wait for each other.
//!
//! Within one worker only. Another worker that shares the queue may take a request that went away;
//! its place is given up once it should have been back ([`Line::arrive`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::request::{AccountId, RenameRequest};
use super::retry::later;

/// How much later than its queue's delay a message may come back: the broker moves expired
/// messages at least once, so a restart of the broker delays them.
const SLACK: Duration = Duration::from_secs(30);

/// A place is given up when its request has not come back for so long: another worker has it.
const FORGET_AFTER: Duration = Duration::from_secs(2 * 3600);

/// How often places are looked through for such.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// A place in the line; a smaller one came earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What makes two deliveries the same request: its id, what it asks for, and whether a person has
/// sent it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub request_id: Uuid,
    names: [u64; 2],
    replay: u64,
}

impl Identity {
    #[must_use]
    pub fn of(request: &RenameRequest, replay: Option<Uuid>) -> Self {
        let replay = replay.map_or(0, |replay| replay.as_u64_pair().1);
        Self {
            replay,
            request_id: request.request_id,
            names: [
                name_hash(&request.account_id, request.username.reveal()),
                name_hash(&request.account_id, request.new_username.reveal()),
            ],
        }
    }

    /// One number for it, to tell requests apart.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

fn name_hash(account: &AccountId, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    account.hash(&mut hasher);
    name.hash(&mut hasher);
    hasher.finish()
}

/// Where a request is that holds a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    Here,
    /// Back in the requests queue at about `due`. `left` counts departures: what left later for the
    /// `tail` of the requests queue stands behind what left for it earlier.
    Away {
        due: Timestamp,
        left: u64,
        tail: bool,
    },
}

#[derive(Debug, Clone)]
struct Holder {
    identity: Identity,
    whereabouts: Whereabouts,
}

/// What an arriving request is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// First in both lines.
    Run,
    /// Somebody before it is here: wait for them.
    Wait,
    /// Somebody before it is away: go after them. Without a `due`, they stand at the tail of the
    /// requests queue; with one, they are in a retry queue until then.
    Follow { due: Option<Timestamp> },
}

/// The lines of all names.
#[derive(Debug, Clone, Default)]
pub struct Line {
    next_ticket: u64,
    departures: u64,
    holders: BTreeMap<Ticket, Holder>,
    /// (name, ticket): a line is a range of it.
    lines: BTreeSet<(u64, Ticket)>,
    /// Those who are away, to be known when they come back.
    away: BTreeSet<(Identity, Ticket)>,
    /// Those here whose turn it may have become.
    woken: Vec<Ticket>,
    swept_at: Option<Timestamp>,
}

impl Line {
    /// A delivery arrives: back to its place if it was away, else to the end of its lines.
    pub fn arrive(&mut self, identity: Identity) -> (Ticket, Arrival) {
        // Twins share an identity: the one that was to be back first is the one that is back.
        let returning = self
            .away
            .range((identity, Ticket(0))..=(identity, Ticket(u64::MAX)))
            .map(|&(_, ticket)| ticket)
            .min_by_key(|ticket| match self.holders[ticket].whereabouts {
                Whereabouts::Away { due, left, .. } => (due, left),
                Whereabouts::Here => (Timestamp::MAX, 0),
            });
        let (ticket, was_away) = match returning {
            Some(ticket) => {
                self.away.remove(&(identity, ticket));
                let holder = self.holders.get_mut(&ticket);
                let before = holder
                    .map(|holder| std::mem::replace(&mut holder.whereabouts, Whereabouts::Here));
                (ticket, before)
            }
            None => (self.take_ticket(identity), None),
        };
        if let Some(Whereabouts::Away { due, left, .. }) = was_away {
            self.give_up_on_the_overdue(ticket, identity, due, left);
        }
        (ticket, self.turn_of(ticket))
    }

    /// Whether it is this request's turn now.
    #[must_use]
    pub fn turn_of(&self, ticket: Ticket) -> Arrival {
        let Some(holder) = self.holders.get(&ticket) else {
            return Arrival::Run;
        };
        let mut turn = Arrival::Run;
        for before in self.before(ticket, holder.identity) {
            match (self.holders[&before].whereabouts, turn) {
                (Whereabouts::Away { due, tail, .. }, so_far) => {
                    let due = (!tail).then_some(due);
                    let other = if let Arrival::Follow { due } = so_far {
                        due
                    } else {
                        None
                    };
                    turn = Arrival::Follow {
                        due: due.max(other),
                    };
                }
                (Whereabouts::Here, Arrival::Run) => turn = Arrival::Wait,
                (Whereabouts::Here, _) => {}
            }
        }
        turn
    }

    /// A request goes away, to the tail of the requests queue or to a retry queue, to be back at
    /// about `due`. Those [`Line::behind`] it that are here must be sent after it.
    pub fn leave(&mut self, ticket: Ticket, due: Timestamp, tail: bool, now: Timestamp) {
        self.sweep(now);
        let Some(holder) = self.holders.get_mut(&ticket) else {
            return;
        };
        self.departures += 1;
        holder.whereabouts = Whereabouts::Away {
            due,
            left: self.departures,
            tail,
        };
        self.away.insert((holder.identity, ticket));
    }

    /// The broker did not take the message that was to go away. Until it leaves again, nobody who
    /// was sent after it can have come back after it.
    pub fn not_left(&mut self, ticket: Ticket) {
        if let Some(Holder {
            whereabouts: Whereabouts::Away { left, .. },
            ..
        }) = self.holders.get_mut(&ticket)
        {
            *left = u64::MAX;
        }
    }

    /// Those here that stand directly behind this request, in order.
    #[must_use]
    pub fn behind(&self, ticket: Ticket) -> Vec<Ticket> {
        let Some(holder) = self.holders.get(&ticket) else {
            return Vec::new();
        };
        let mut behind = BTreeSet::new();
        for name in holder.identity.names {
            let after = (name, Ticket(ticket.0 + 1))..=(name, Ticket(u64::MAX));
            behind.extend(
                self.lines
                    .range(after)
                    .map(|&(_, behind)| behind)
                    .filter(|behind| self.holders[behind].whereabouts == Whereabouts::Here),
            );
        }
        behind.into_iter().collect()
    }

    /// The request is done with, or its place is given up. Whoever is next is [`Line::woken`].
    pub fn done(&mut self, ticket: Ticket) {
        let Some(holder) = self.holders.remove(&ticket) else {
            return;
        };
        self.away.remove(&(holder.identity, ticket));
        for name in holder.identity.names {
            self.lines.remove(&(name, ticket));
            let line = (name, Ticket(0))..=(name, Ticket(u64::MAX));
            if let Some(&(_, first)) = self.lines.range(line).next()
                && self.holders[&first].whereabouts == Whereabouts::Here
            {
                self.woken.push(first);
            }
        }
    }

    /// Takes those here whose turn it may have become since the last time.
    pub fn woken(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.woken)
    }

    /// Whether anybody stands behind this request.
    #[must_use]
    pub fn is_followed(&self, ticket: Ticket) -> bool {
        self.holders.get(&ticket).is_some_and(|holder| {
            holder.identity.names.iter().any(|&name| {
                let after = (name, Ticket(ticket.0 + 1))..=(name, Ticket(u64::MAX));
                self.lines.range(after).next().is_some()
            })
        })
    }

    /// How many places are kept for requests that are away.
    #[must_use]
    pub fn away(&self) -> usize {
        self.away.len()
    }

    fn take_ticket(&mut self, identity: Identity) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.holders.insert(
            ticket,
            Holder {
                identity,
                whereabouts: Whereabouts::Here,
            },
        );
        for name in identity.names {
            self.lines.insert((name, ticket));
        }
        ticket
    }

    /// Everybody before `ticket` in either of its lines.
    fn before(&self, ticket: Ticket, identity: Identity) -> impl Iterator<Item = Ticket> + '_ {
        let [old, new] = identity.names;
        // A self-rename stands in one line only.
        let second = (new != old).then_some(new);
        std::iter::once(old).chain(second).flat_map(move |name| {
            self.lines
                .range((name, Ticket(0))..(name, ticket))
                .map(|&(_, before)| before)
        })
    }

    /// A request has come back that had been sent after others. Whoever of those should have been
    /// back before it and is not has been taken by another worker: their places are given up.
    fn give_up_on_the_overdue(
        &mut self,
        ticket: Ticket,
        identity: Identity,
        its_due: Timestamp,
        its_left: u64,
    ) {
        let overdue: Vec<Ticket> = self
            .before(ticket, identity)
            .filter(|before| match self.holders[before].whereabouts {
                Whereabouts::Here => false,
                // A queue keeps its order: what went to its tail before is out of it before. A way
                // through a retry queue is over only some time after its delay.
                Whereabouts::Away {
                    left, tail: true, ..
                } => left < its_left,
                Whereabouts::Away {
                    due, tail: false, ..
                } => later(due, SLACK) <= its_due,
            })
            .collect();
        for lost in overdue {
            self.done(lost);
        }
    }

    fn sweep(&mut self, now: Timestamp) {
        if self.swept_at.is_some_and(|at| later(at, SWEEP_EVERY) > now) {
            return;
        }
        self.swept_at = Some(now);
        let lost: Vec<Ticket> = self
            .away
            .iter()
            .map(|&(_, ticket)| ticket)
            .filter(|ticket| match self.holders[ticket].whereabouts {
                Whereabouts::Away { due, .. } => later(due, FORGET_AFTER) <= now,
                Whereabouts::Here => false,
            })
            .collect();
        for ticket in lost {
            self.done(ticket);
        }
    }
}
