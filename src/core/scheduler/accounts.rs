//! What is known of each account: its hold, how it was last answered, how long its tries take.
//!
//! The table is bounded: anybody who may publish can make up accounts. Past the bound the least
//! recently used one is forgotten; a hold that is forgotten so begins again with the next failures.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;
use lru::LruCache;

use crate::core::model::api_response::ResponseSummary;
use crate::core::model::request::AccountId;
use crate::core::policy::hold::account::{AccountChange, AccountEvent, AccountHold, AccountState};
use crate::core::policy::hold::{AccountFacts, HoldCause, HoldSettings};
use crate::core::policy::retry::saturating_add;

/// Accounts that are remembered, some 2 MB. A worker serves a few hundred.
const MAX_ACCOUNTS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// An account counts as seen lately for this long after its last request. Longer than a quiet night's
/// pauses would keep the rule of shares in force for nobody; shorter would let a flood that begins in
/// a quiet moment take everything.
const SEEN_LATELY: Duration = Duration::from_secs(3600);

/// Held accounts that are listed; a worker serves a few hundred.
pub const MAX_LISTED: usize = 100;

/// A held account, for those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldAccount {
    pub account: AccountId,
    pub cause: HoldCause,
    pub since: Timestamp,
    /// `None` while a probe is under way.
    pub probe_at: Option<Timestamp>,
    pub last_answer: ResponseSummary,
    pub last_answer_at: Timestamp,
}

/// Whether a call of an account may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    Call,
    /// The account is held, and a probe is due.
    Probe,
    /// The account is held.
    ComeBackAt(Timestamp),
}

#[derive(Debug, Default)]
struct KnownAccount {
    hold: AccountHold,
    last_answer: Option<(ResponseSummary, Timestamp)>,
    /// The last answer was a failure.
    is_failing: bool,
    /// Other accounts were answered shortly before that.
    others_were_answered: bool,
    try_time: Option<Duration>,
}

#[derive(Debug)]
pub struct AccountTable {
    table: LruCache<AccountId, KnownAccount>,
    settings: HoldSettings,
    /// Those with credentials of their own; all others share one.
    own_credentials: BTreeSet<AccountId>,
    held: [usize; 2],
    /// How often what is known of a held account may have changed.
    held_changes: u64,
    /// The two accounts whose requests came last, the last one first.
    seen: [Option<(AccountId, Timestamp)>; 2],
}

impl AccountTable {
    #[must_use]
    pub fn new(settings: HoldSettings, own_credentials: BTreeSet<AccountId>) -> Self {
        Self {
            table: LruCache::new(MAX_ACCOUNTS),
            settings,
            own_credentials,
            held: [0; 2],
            held_changes: 0,
            seen: [None, None],
        }
    }

    /// A request of this account was delivered.
    pub fn see(&mut self, account: &AccountId, now: Timestamp) {
        match &mut self.seen {
            [Some((last, at)), _] if last == account => *at = now,
            [last, other] => {
                *other = last.take();
                *last = Some((account.clone(), now));
            }
        }
    }

    /// Whether no other account than this one has been seen lately.
    #[must_use]
    pub fn is_sole(&self, account: &AccountId, now: Timestamp) -> bool {
        let mut others = self.seen.iter().flatten();
        !others.any(|(seen, at)| seen != account && now <= saturating_add(*at, SEEN_LATELY))
    }

    #[must_use]
    pub fn admission(&self, account: &AccountId, now: Timestamp) -> Admission {
        let hold = self.table.peek(account).map(|known| &known.hold);
        match hold.map(|hold| (hold.state(), hold.come_back_at(&self.settings, now))) {
            None | Some((AccountState::Flowing(_), _) | (_, None)) => Admission::Call,
            Some((AccountState::Held { probe_at, .. }, _)) if *probe_at <= now => Admission::Probe,
            Some((_, Some(at))) => Admission::ComeBackAt(at),
        }
    }

    #[must_use]
    pub fn cause(&self, account: &AccountId) -> Option<HoldCause> {
        let known = self.table.peek(account)?;
        Some(known.hold.trouble()?.cause)
    }

    /// Whether its last answer was a failure. An account that was never called has not failed.
    #[must_use]
    pub fn is_failing(&self, account: &AccountId) -> bool {
        self.table
            .peek(account)
            .is_some_and(|known| known.is_failing)
    }

    /// See [`AccountHold::spares`].
    #[must_use]
    pub fn spares(
        &self,
        account: &AccountId,
        request: u64,
        failed_before: Option<Timestamp>,
        spared: bool,
    ) -> bool {
        self.table
            .peek(account)
            .is_some_and(|known| known.hold.spares(request, failed_before, spared))
    }

    pub fn probe_started(&mut self, account: &AccountId, now: Timestamp) {
        self.on(account, AccountEvent::ProbeStarted, now);
    }

    pub fn probe_lost(&mut self, account: &AccountId, now: Timestamp) {
        self.on(account, AccountEvent::ProbeLost, now);
    }

    /// One of its calls was answered. `others_are_answered`: the API answers other accounts.
    pub fn answered(
        &mut self,
        account: &AccountId,
        event: AccountEvent,
        answer: ResponseSummary,
        others_are_answered: bool,
        now: Timestamp,
    ) -> AccountChange {
        let change = self.on(account, event, now);
        if let Some(known) = self.table.peek_mut(account) {
            known.last_answer = Some((answer, now));
            known.is_failing = event.is_failure();
            let cause = known.hold.trouble().map(|trouble| trouble.cause);
            known.others_were_answered = others_are_answered && event.is_of(cause);
        }
        change
    }

    /// Whether the API did not serve this account when it was last called, and served others.
    #[must_use]
    pub fn is_served_less(&self, account: &AccountId) -> bool {
        self.table
            .peek(account)
            .is_some_and(|known| known.others_were_answered)
    }

    /// The next request of each held account probes, and what the last probe said counts no more.
    pub fn probe_all_now(&mut self, now: Timestamp) {
        for (_, known) in &mut self.table {
            known.hold.probe_now(now);
            known.others_were_answered = false;
        }
        self.held_changes += 1;
    }

    fn on(&mut self, account: &AccountId, event: AccountEvent, now: Timestamp) -> AccountChange {
        if !self.table.contains(account)
            && let Some((_, forgotten)) = self.table.push(account.clone(), KnownAccount::default())
            && let Some(trouble) = forgotten.hold.trouble()
        {
            self.held[trouble.cause as usize] -= 1;
        }
        let Some(known) = self.table.get_mut(account) else {
            return AccountChange::None;
        };
        let before = known.hold.trouble();
        let change = known.hold.on(event, &self.settings, now);
        if before.is_some() || known.hold.trouble().is_some() {
            self.held_changes += 1;
        }
        if let Some(trouble) = before {
            self.held[trouble.cause as usize] -= 1;
        }
        if let Some(trouble) = known.hold.trouble() {
            self.held[trouble.cause as usize] += 1;
        }
        change
    }

    /// What the accounts together say, after an answer to this one.
    #[must_use]
    pub fn facts(&self, account: &AccountId, now: Timestamp) -> AccountFacts {
        let is_sole = self.is_sole(account, now);
        let is_refused = self.cause(account) == Some(HoldCause::Credentials);
        AccountFacts {
            is_sole,
            refused_for_all: is_refused && (is_sole || self.shared_are_refused(account)),
        }
    }

    /// Whether the credentials that this account shares with others are refused for all of them.
    fn shared_are_refused(&self, account: &AccountId) -> bool {
        let is_refused = |known: &KnownAccount| {
            let trouble = known.hold.trouble();
            trouble.is_some_and(|trouble| trouble.cause == HoldCause::Credentials)
        };
        !self.own_credentials.contains(account)
            && self
                .table
                .iter()
                .filter(|(other, _)| !self.own_credentials.contains(*other))
                .all(|(_, known)| is_refused(known))
    }

    /// How many are held for this cause.
    #[must_use]
    pub const fn held_count(&self, cause: HoldCause) -> usize {
        self.held[cause as usize]
    }

    /// Grows whenever what [`AccountTable::held`] says may have changed.
    #[must_use]
    pub const fn held_changes(&self) -> u64 {
        self.held_changes
    }

    /// How many are held.
    #[must_use]
    pub fn held_total(&self) -> usize {
        self.held.iter().sum()
    }

    /// Those that are held longest, [`MAX_LISTED`] at most, the longest held first.
    #[must_use]
    pub fn held(&self) -> Vec<HeldAccount> {
        if self.held_total() == 0 {
            return Vec::new();
        }
        let mut held: Vec<_> = self
            .table
            .iter()
            .filter_map(|(account, known)| Some((known.hold.trouble()?, account, known)))
            .collect();
        held.sort_unstable_by_key(|&(trouble, account, _)| (trouble.since, account));
        let held = held.into_iter().take(MAX_LISTED);
        held.filter_map(|(trouble, account, known)| {
            let (last_answer, last_answer_at) = known.last_answer?;
            Some(HeldAccount {
                account: account.clone(),
                cause: trouble.cause,
                since: trouble.since,
                probe_at: known.hold.probe_at(),
                last_answer,
                last_answer_at,
            })
        })
        .collect()
    }

    /// A try of this account has ended that took so long.
    pub fn try_took(&mut self, account: &AccountId, took: Duration) {
        if let Some(known) = self.table.peek_mut(account) {
            known.try_time = Some(blend(known.try_time, took));
        }
    }

    /// How long its tries take, as far as any has ended.
    #[must_use]
    pub fn try_time(&self, account: &AccountId) -> Option<Duration> {
        self.table.peek(account)?.try_time
    }
}

/// A running mean that follows a change within a dozen samples.
#[must_use]
pub fn blend(mean: Option<Duration>, sample: Duration) -> Duration {
    mean.map_or(sample, |mean| (mean * 7 + sample) / 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::verdict::HealthSignal;

    fn account(number: usize) -> AccountId {
        AccountId::parse(&format!("T{number:08}")).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn accounts(own: &[usize]) -> AccountTable {
        let own = own.iter().map(|&number| account(number)).collect();
        AccountTable::new(HoldSettings::default(), own)
    }

    fn answer(
        accounts: &mut AccountTable,
        number: usize,
        sign: HealthSignal,
        now: Timestamp,
    ) -> AccountChange {
        let event = AccountEvent::Answered {
            sign,
            request: 1,
            failed_before: None,
            probe: false,
        };
        let gist = ResponseSummary::Status(if sign == HealthSignal::Alive {
            200
        } else {
            401
        });
        accounts.see(&account(number), now);
        accounts.answered(&account(number), event, gist, false, now)
    }

    #[test]
    fn a_held_account_shows_why_and_how_it_was_last_answered() {
        let mut accounts = accounts(&[]);
        answer(&mut accounts, 1, HealthSignal::Alive, at(0));
        assert_eq!(accounts.held(), []);
        answer(&mut accounts, 2, HealthSignal::BadCredentials, at(10));
        assert_eq!(
            accounts.held(),
            [HeldAccount {
                account: account(2),
                cause: HoldCause::Credentials,
                since: at(10),
                probe_at: Some(at(11)),
                last_answer: ResponseSummary::Status(401),
                last_answer_at: at(10),
            }]
        );
        assert_eq!(accounts.held_count(HoldCause::Credentials), 1);
        answer(&mut accounts, 2, HealthSignal::Alive, at(20));
        assert_eq!(accounts.held_count(HoldCause::Credentials), 0);
    }

    #[test]
    fn the_table_is_bounded_and_its_counts_follow() {
        let mut accounts = accounts(&[]);
        let bound = MAX_ACCOUNTS.get();
        for number in 0..bound + 100 {
            answer(&mut accounts, number, HealthSignal::BadCredentials, at(0));
        }
        assert_eq!(accounts.held_count(HoldCause::Credentials), bound);
        assert_eq!(accounts.held_total(), bound);
        assert_eq!(accounts.cause(&account(0)), None);
        assert_eq!(accounts.admission(&account(0), at(0)), Admission::Call);
    }

    #[test]
    fn of_many_held_accounts_those_held_longest_are_listed() {
        let mut accounts = accounts(&[]);
        for number in (0..1_000).rev() {
            let since = at(i64::try_from(number / 2).unwrap());
            answer(&mut accounts, number, HealthSignal::BadCredentials, since);
        }
        let listed = accounts.held().into_iter().map(|held| held.account);
        assert!(listed.eq((0..MAX_LISTED).map(account)));
        assert_eq!(accounts.held_total(), 1_000);
    }

    #[test]
    fn an_account_is_alone_until_another_is_seen_and_for_a_while_after() {
        let mut accounts = accounts(&[]);
        accounts.see(&account(1), at(0));
        assert!(accounts.is_sole(&account(1), at(0)));
        accounts.see(&account(2), at(10));
        accounts.see(&account(1), at(20));
        accounts.see(&account(1), at(30));
        assert!(!accounts.is_sole(&account(1), at(30)));
        assert!(!accounts.is_sole(&account(2), at(30)));
        assert!(accounts.is_sole(&account(1), at(10 + 3601)));
    }

    #[test]
    fn credentials_are_refused_for_all_once_those_who_share_them_are_refused() {
        let mut accounts = accounts(&[9]);
        for number in [1, 2, 9] {
            answer(&mut accounts, number, HealthSignal::Alive, at(0));
        }
        let refused_for_all = |accounts: &mut AccountTable, number| {
            answer(accounts, number, HealthSignal::BadCredentials, at(1));
            accounts.facts(&account(number), at(1)).refused_for_all
        };
        assert!(
            !refused_for_all(&mut accounts, 9),
            "its own are no one else's"
        );
        assert!(
            !refused_for_all(&mut accounts, 1),
            "another one's still work"
        );
        assert!(refused_for_all(&mut accounts, 2));
    }

    #[test]
    fn a_probe_is_let_through_when_it_is_due_and_no_other_beside_it() {
        let mut accounts = accounts(&[]);
        answer(&mut accounts, 1, HealthSignal::BadCredentials, at(0));
        let one = account(1);
        let until = Admission::ComeBackAt;
        assert_eq!(accounts.admission(&one, at(0)), until(at(1)));
        assert_eq!(accounts.admission(&one, at(1)), Admission::Probe);
        accounts.probe_started(&one, at(1));
        assert_eq!(accounts.admission(&one, at(1)), until(at(3)));
        accounts.probe_lost(&one, at(2));
        assert_eq!(accounts.admission(&one, at(2)), until(at(3)));
    }
}
