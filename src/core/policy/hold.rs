//! The hold of the whole worker: a circuit breaker's three states.
//!
//! *Flowing* (closed): requests are consumed. *Held* (open): nothing is consumed; the next probe is
//! due at a known time. *Probing* (half-open): one request is on its way to find out. What a hold
//! does to the requests at hand is the machine's business.
//!
//! One account in trouble is held by itself (see [`account`]) and hurts no other. The worker is held
//! when that cannot be all: failures in a row come from several accounts with no success between
//! them, or from the only account there is, or the credentials of all are refused.

pub mod account;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::core::model::request::AccountId;
use crate::core::policy::retry::saturating_add;
use crate::core::policy::verdict::HealthSignal;

/// The numbers of contract section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSettings {
    /// This number of failures in a row begins a hold.
    pub failures: u32,
    pub first_probe: Duration,
    pub max_probe: Duration,
}

impl Default for HoldSettings {
    fn default() -> Self {
        Self {
            failures: 10,
            first_probe: Duration::from_secs(1),
            max_probe: Duration::from_secs(60),
        }
    }
}

impl HoldSettings {
    /// 1 s, 2 s, 4 s … up to the cap.
    fn probe_delay(&self, failed_probes: u32) -> Duration {
        let doublings = failed_probes.min(31);
        self.first_probe
            .saturating_mul(1 << doublings)
            .min(self.max_probe)
    }

    /// Where there was nothing to probe with, the next look comes after the same delay, but no later
    /// than this, so that a request that comes during a hold is not kept waiting for a whole probe
    /// interval.
    fn missed_probe_delay(&self, failed_probes: u32) -> Duration {
        self.probe_delay(failed_probes).min(EMPTY_PROBE_DELAY)
    }
}

const EMPTY_PROBE_DELAY: Duration = Duration::from_secs(5);

/// An answer to another account within this time shows that the API answers others: long enough for
/// several deferrals of a request whose account is held, so that one of them falls into it.
const LATELY: Duration = Duration::from_secs(5 * 60);

/// Why the worker, or an account, is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldCause {
    Api,
    Credentials,
}

impl HoldCause {
    pub const ALL: [Self; 2] = [Self::Api, Self::Credentials];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Credentials => "credentials",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldState {
    Flowing(FailureStreak),
    Held {
        cause: HoldCause,
        failed_probes: u32,
        probe_at: Timestamp,
    },
    Probing {
        cause: HoldCause,
        failed_probes: u32,
    },
}

/// Transient failures since the last success of any account, by account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FailureStreak(BTreeMap<AccountId, u32>);

impl FailureStreak {
    fn add(&mut self, account: &AccountId) {
        // Not the entry API: it would copy the account's id each time.
        match self.0.get_mut(account) {
            Some(count) => *count = count.saturating_add(1),
            None => {
                self.0.insert(account.clone(), 1);
            }
        }
    }

    /// Whether these are `failures` that cannot be one account's own trouble: at most half of them
    /// count of each, unless there is no other account.
    fn is_of_the_api(&self, failures: u32, facts: AccountFacts) -> bool {
        let most = if facts.is_sole {
            failures
        } else {
            failures.div_ceil(2)
        };
        let total: u32 = self.0.values().map(|&count| count.min(most)).sum();
        total >= failures && (facts.is_sole || self.0.len() > 1)
    }
}

/// What the accounts together say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountFacts {
    /// No other account has been seen lately.
    pub is_sole: bool,
    /// The account's credentials are refused, and so are those of all others that share them.
    pub refused_for_all: bool,
}

/// What happens to a hold.
#[derive(Debug, Clone, Copy)]
pub enum HoldEvent<'a> {
    /// A call was answered.
    Answered {
        sign: HealthSignal,
        account: &'a AccountId,
        facts: AccountFacts,
        /// When the request's try before this one failed, as far as it is known.
        failed_before: Option<Timestamp>,
        /// It was the probe's own call.
        probe: bool,
    },
    /// The call of the probe's request begins.
    ProbeStarted,
    /// There was no request to probe with, or it was lost on the way.
    ProbeMissed,
}

/// What the event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldChange {
    None,
    Held(HoldCause),
    ProbeFailed(HoldCause),
    Resumed,
}

/// The event cannot happen in this state: the caller has lost count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this event cannot happen in this state of the hold")]
pub struct IllegalTransition;

#[derive(Debug, Clone)]
pub struct WorkerHold {
    settings: HoldSettings,
    state: HoldState,
    /// The account whose call was last answered, and when.
    last_alive: Option<AccountId>,
    alive_at: Option<Timestamp>,
}

impl WorkerHold {
    #[must_use]
    pub fn new(settings: HoldSettings) -> Self {
        Self {
            settings,
            state: HoldState::Flowing(FailureStreak::default()),
            last_alive: None,
            alive_at: None,
        }
    }

    #[must_use]
    pub fn state(&self) -> &HoldState {
        &self.state
    }

    #[must_use]
    pub fn cause(&self) -> Option<HoldCause> {
        match self.state {
            HoldState::Flowing(_) => None,
            HoldState::Held { cause, .. } | HoldState::Probing { cause, .. } => Some(cause),
        }
    }

    /// When the next probe is due.
    #[must_use]
    pub fn probe_at(&self) -> Option<Timestamp> {
        match self.state {
            HoldState::Held { probe_at, .. } => Some(probe_at),
            HoldState::Flowing(_) | HoldState::Probing { .. } => None,
        }
    }

    /// Whether the API has answered another account lately.
    #[must_use]
    pub fn answers_others(&self, account: &AccountId, now: Timestamp) -> bool {
        let is_other = self
            .last_alive
            .as_ref()
            .is_some_and(|alive| alive != account);
        is_other
            && self
                .alive_at
                .is_some_and(|at| now <= saturating_add(at, LATELY))
    }

    /// # Errors
    ///
    /// The event cannot happen in this state; nothing changes.
    pub fn on(
        &mut self,
        event: HoldEvent<'_>,
        now: Timestamp,
    ) -> Result<HoldChange, IllegalTransition> {
        let (state, change) = self.transition(event, now)?;
        if let HoldEvent::Answered {
            sign: HealthSignal::Alive,
            account,
            ..
        } = event
        {
            self.alive_at = Some(now);
            if self.last_alive.as_ref() != Some(account) {
                self.last_alive = Some(account.clone());
            }
        }
        self.state = state;
        Ok(change)
    }

    /// The one total table of states and events.
    #[expect(clippy::match_same_arms, reason = "a table, one row a transition")]
    fn transition(
        &mut self,
        event: HoldEvent<'_>,
        now: Timestamp,
    ) -> Result<(HoldState, HoldChange), IllegalTransition> {
        use HealthSignal::{Alive, BadCredentials, Forbidden, Throttled, Transient};
        use HoldCause::{Api, Credentials};
        use HoldState::{Flowing, Held, Probing};
        let flowing = || Flowing(FailureStreak::default());
        let state = std::mem::replace(&mut self.state, flowing());
        let (sign, account, facts, is_news, probe) = match event {
            HoldEvent::Answered {
                sign,
                account,
                facts,
                failed_before,
                probe,
            } => (sign, account, facts, self.is_news(failed_before), probe),
            HoldEvent::ProbeStarted | HoldEvent::ProbeMissed => {
                let (state, legal) = self.on_probe(state, event, now);
                if legal {
                    return Ok((state, HoldChange::None));
                }
                self.state = state;
                return Err(IllegalTransition);
            }
        };
        Ok(match (state, sign) {
            (Flowing(_), Alive) => (flowing(), HoldChange::None),
            (Flowing(streak), Throttled(_)) => (Flowing(streak), HoldChange::None),
            (Flowing(mut streak), Transient) => {
                if is_news {
                    streak.add(account);
                }
                if streak.is_of_the_api(self.settings.failures, facts) {
                    self.held(Api, 0, now, HoldChange::Held)
                } else {
                    (Flowing(streak), HoldChange::None)
                }
            }
            (Flowing(_), Forbidden | BadCredentials) if facts.refused_for_all => {
                self.held(Credentials, 0, now, HoldChange::Held)
            }
            // It answers, if only to refuse.
            (Flowing(_), Forbidden) => (flowing(), HoldChange::None),
            // There may have been no token to call the API with.
            (Flowing(streak), BadCredentials) => (Flowing(streak), HoldChange::None),
            (Held { .. } | Probing { .. }, Alive | Throttled(_)) => {
                (flowing(), HoldChange::Resumed)
            }
            (
                Probing {
                    cause,
                    failed_probes,
                },
                Transient,
            ) if probe => self.held(cause, failed_probes + 1, now, HoldChange::ProbeFailed),
            (Probing { failed_probes, .. }, Forbidden | BadCredentials)
                if probe && facts.refused_for_all =>
            {
                self.held(Credentials, failed_probes + 1, now, HoldChange::ProbeFailed)
            }
            (Probing { cause: Api, .. }, Forbidden) if probe => (flowing(), HoldChange::Resumed),
            (
                Probing {
                    cause,
                    failed_probes,
                },
                Forbidden | BadCredentials,
            ) if probe => self.held(cause, failed_probes + 1, now, HoldChange::ProbeFailed),
            // Calls begun before the hold: what they say of it is known already.
            (held @ (Held { .. } | Probing { .. }), Transient | Forbidden | BadCredentials) => {
                (held, HoldChange::None)
            }
        })
    }

    /// The rows of the table for what becomes of the search for a probe; `false` for an illegal one.
    fn on_probe(
        &self,
        state: HoldState,
        event: HoldEvent<'_>,
        now: Timestamp,
    ) -> (HoldState, bool) {
        match (state, event) {
            (
                HoldState::Held {
                    cause,
                    failed_probes,
                    ..
                },
                HoldEvent::ProbeStarted,
            ) => {
                let state = HoldState::Probing {
                    cause,
                    failed_probes,
                };
                (state, true)
            }
            (
                HoldState::Held {
                    cause,
                    failed_probes,
                    ..
                }
                | HoldState::Probing {
                    cause,
                    failed_probes,
                },
                HoldEvent::ProbeMissed,
            ) => {
                let state = HoldState::Held {
                    cause,
                    failed_probes,
                    probe_at: saturating_add(now, self.settings.missed_probe_delay(failed_probes)),
                };
                (state, true)
            }
            (state, _) => (state, false),
        }
    }

    fn held(
        &self,
        cause: HoldCause,
        failed_probes: u32,
        now: Timestamp,
        change: impl FnOnce(HoldCause) -> HoldChange,
    ) -> (HoldState, HoldChange) {
        let state = HoldState::Held {
            cause,
            failed_probes,
            probe_at: saturating_add(now, self.settings.probe_delay(failed_probes)),
        };
        (state, change(cause))
    }

    /// Whether a failure says something of the API. Not where the API has answered others since the
    /// request failed before: then it is this request that fails, again and again, and those that
    /// come back from the ladder in one go are many in a row.
    fn is_news(&self, failed_before: Option<Timestamp>) -> bool {
        is_news(failed_before, self.alive_at)
    }
}

fn is_news(failed_before: Option<Timestamp>, alive_at: Option<Timestamp>) -> bool {
    match (failed_before, alive_at) {
        (Some(failed), Some(alive)) => alive <= failed,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
