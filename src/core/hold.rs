//! The hold: a circuit breaker's three states, for the whole worker.
//!
//! *Flowing* (closed): requests are consumed. *Held* (open): nothing is consumed; the next probe is
//! due at a known time. *Probing* (half-open): one request is on its way to find out. What a hold
//! does to the requests at hand is the machine's business.

use std::time::Duration;

use jiff::Timestamp;

use super::request::AccountId;
use super::retry::later;
use super::verdict::Sign;

/// The numbers of contract section 6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSettings {
    /// So many failures in a row hold the worker.
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

/// Where there was nothing to probe with, the queue is looked at again after this long at most, so
/// that a request that comes during a hold is not kept waiting for a whole probe interval.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One account's credentials are refused while another's work: that account alone waits so long.
const ACCOUNT_PAUSE: Duration = Duration::from_secs(60);

/// So long an answer to another account shows that the API answers others: several laps of a request
/// whose account is refused, so that one of them falls into it.
const LATELY: Duration = Duration::from_secs(5 * 60);

/// Why the worker is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    Api,
    Credentials,
}

impl Cause {
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
pub enum State {
    Flowing(Streak),
    Held {
        cause: Cause,
        failed_probes: u32,
        probe_at: Timestamp,
    },
    Probing {
        cause: Cause,
        failed_probes: u32,
    },
}

/// Failures in a row, and whether more than one request is behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streak {
    transient: u32,
    forbidden: u32,
    first: Option<u64>,
    several: bool,
}

/// What happens to a hold.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A call was answered. `request` tells requests apart; `probe`: it was the probe's own call.
    Answered {
        sign: Sign,
        request: u64,
        account: &'a AccountId,
        /// When its try before this one failed, as far as it is known.
        failed_before: Option<Timestamp>,
        probe: bool,
    },
    /// The probe's request has arrived and its call begins.
    ProbeStarted,
    /// There was no request to probe with, or it was lost on the way.
    ProbeMissed,
}

/// What the event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    None,
    Held(Cause),
    Resumed,
    /// Only this account is to wait.
    PauseAccount(Duration),
}

/// The event cannot happen in this state: the caller has lost count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this event cannot happen in this state of the hold")]
pub struct IllegalTransition;

#[derive(Debug, Clone)]
pub struct Hold {
    settings: HoldSettings,
    state: State,
    /// The last account whose call was answered alive, to tell bad credentials of one account from
    /// bad credentials of all.
    last_alive: Option<AccountId>,
    alive_at: Option<Timestamp>,
}

impl Hold {
    #[must_use]
    pub fn new(settings: HoldSettings) -> Self {
        Self {
            settings,
            state: State::Flowing(Streak::default()),
            last_alive: None,
            alive_at: None,
        }
    }

    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self.state {
            State::Flowing(_) => None,
            State::Held { cause, .. } | State::Probing { cause, .. } => Some(cause),
        }
    }

    /// When the next probe is due.
    #[must_use]
    pub fn probe_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Held { probe_at, .. } => Some(probe_at),
            State::Flowing(_) | State::Probing { .. } => None,
        }
    }

    /// Whether the API looks unwell beyond this one request: then its failures prove nothing
    /// against it.
    #[must_use]
    pub fn suspects_the_api(&self, request: u64) -> bool {
        match &self.state {
            State::Flowing(streak) => {
                streak.several || streak.first.is_some_and(|first| first != request)
            }
            State::Held { .. } | State::Probing { .. } => true,
        }
    }

    /// Whether a request that has used up its attempts or its time is tried once more, since the
    /// API looks unwell beyond it. Not if that happened before (`spared`) and the API has answered
    /// others since its last failure: those that fail must not keep each other alive forever.
    #[must_use]
    pub fn spares(&self, request: u64, failed_before: Option<Timestamp>, spared: bool) -> bool {
        self.suspects_the_api(request) && (!spared || self.is_news(failed_before))
    }

    /// Whether the API has answered another account since then, and lately.
    #[must_use]
    pub fn answers_others(&self, account: &AccountId, since: Timestamp, now: Timestamp) -> bool {
        self.others_are_fine(account)
            && self
                .alive_at
                .is_some_and(|at| since < at && now <= later(at, LATELY))
    }

    pub fn on(&mut self, event: Event<'_>, now: Timestamp) -> Result<Change, IllegalTransition> {
        let (state, change) = self.transition(event, now)?;
        if let Event::Answered {
            sign: Sign::Alive,
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
    #[expect(
        clippy::too_many_lines,
        clippy::match_same_arms,
        reason = "a table, one row a transition"
    )]
    fn transition(
        &mut self,
        event: Event<'_>,
        now: Timestamp,
    ) -> Result<(State, Change), IllegalTransition> {
        let flowing = || State::Flowing(Streak::default());
        Ok(
            match (std::mem::replace(&mut self.state, flowing()), event) {
                (
                    State::Flowing(streak),
                    Event::Answered {
                        sign,
                        request,
                        account,
                        failed_before,
                        ..
                    },
                ) => {
                    let is_news = self.is_news(failed_before);
                    self.while_flowing(streak, sign, request, is_news, account, now)
                }
                (
                    State::Held { .. } | State::Probing { .. },
                    Event::Answered {
                        sign: Sign::Alive | Sign::Throttled(_),
                        ..
                    },
                ) => (flowing(), Change::Resumed),
                (
                    State::Probing {
                        cause: Cause::Api, ..
                    },
                    Event::Answered {
                        sign: Sign::Forbidden,
                        probe: true,
                        ..
                    },
                ) => (flowing(), Change::Resumed),
                (
                    State::Probing {
                        cause,
                        failed_probes,
                    },
                    Event::Answered {
                        sign, probe: true, ..
                    },
                ) => self.probe_failed(cause, failed_probes, sign, now),
                // Calls begun before the hold: what they say of it is known already.
                (held @ (State::Held { .. } | State::Probing { .. }), Event::Answered { .. }) => {
                    (held, Change::None)
                }
                (
                    State::Held {
                        cause,
                        failed_probes,
                        ..
                    },
                    Event::ProbeStarted,
                ) => (
                    State::Probing {
                        cause,
                        failed_probes,
                    },
                    Change::None,
                ),
                (
                    State::Held {
                        cause,
                        failed_probes,
                        ..
                    }
                    | State::Probing {
                        cause,
                        failed_probes,
                    },
                    Event::ProbeMissed,
                ) => {
                    let probe_at = later(now, self.probe_delay(failed_probes).min(LOOK_AGAIN));
                    (
                        State::Held {
                            cause,
                            failed_probes,
                            probe_at,
                        },
                        Change::None,
                    )
                }
                (state @ State::Flowing(_), Event::ProbeStarted | Event::ProbeMissed)
                | (state @ State::Probing { .. }, Event::ProbeStarted) => {
                    self.state = state;
                    return Err(IllegalTransition);
                }
            },
        )
    }

    fn while_flowing(
        &self,
        mut streak: Streak,
        sign: Sign,
        request: u64,
        is_news: bool,
        account: &AccountId,
        now: Timestamp,
    ) -> (State, Change) {
        let held = |cause| {
            let probe_at = later(now, self.settings.first_probe);
            (
                State::Held {
                    cause,
                    failed_probes: 0,
                    probe_at,
                },
                Change::Held(cause),
            )
        };
        match sign {
            Sign::Alive => (State::Flowing(Streak::default()), Change::None),
            Sign::Throttled(_) => (State::Flowing(streak), Change::None),
            Sign::Transient => {
                streak.transient += u32::from(is_news);
                match streak.first {
                    None => streak.first = Some(request),
                    Some(first) => streak.several |= first != request,
                }
                if streak.transient >= self.settings.failures {
                    held(Cause::Api)
                } else {
                    (State::Flowing(streak), Change::None)
                }
            }
            Sign::Forbidden => {
                let forbidden = streak.forbidden + 1;
                if forbidden >= self.settings.failures {
                    held(Cause::Credentials)
                } else {
                    (
                        State::Flowing(Streak {
                            forbidden,
                            ..Streak::default()
                        }),
                        Change::None,
                    )
                }
            }
            Sign::BadCredentials if self.others_are_fine(account) => {
                (State::Flowing(streak), Change::PauseAccount(ACCOUNT_PAUSE))
            }
            Sign::BadCredentials => held(Cause::Credentials),
        }
    }

    /// Whether a failure says something of the API. Not where the API has answered others since the
    /// request failed before: then it is this request that fails, again and again, and those that
    /// come back from the ladder in one go are many in a row.
    fn is_news(&self, failed_before: Option<Timestamp>) -> bool {
        match (failed_before, self.alive_at) {
            (Some(failed), Some(alive)) => alive <= failed,
            _ => true,
        }
    }

    fn probe_failed(
        &self,
        cause: Cause,
        failed_probes: u32,
        sign: Sign,
        now: Timestamp,
    ) -> (State, Change) {
        let failed_probes = failed_probes.saturating_add(1);
        let cause = if sign == Sign::BadCredentials {
            Cause::Credentials
        } else {
            cause
        };
        let probe_at = later(now, self.probe_delay(failed_probes));
        (
            State::Held {
                cause,
                failed_probes,
                probe_at,
            },
            Change::Held(cause),
        )
    }

    /// 1 s, 2 s, 4 s … up to the cap.
    fn probe_delay(&self, failed_probes: u32) -> Duration {
        let doublings = failed_probes.min(31);
        self.settings
            .first_probe
            .saturating_mul(1 << doublings)
            .min(self.settings.max_probe)
    }

    fn others_are_fine(&self, account: &AccountId) -> bool {
        self.last_alive
            .as_ref()
            .is_some_and(|alive| alive != account)
    }
}

#[cfg(test)]
mod tests;
