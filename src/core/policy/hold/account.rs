//! The hold of one account, while others go on.
//!
//! Its requests wait in the ladder and spend no attempt; one of them probes at the times that the
//! hold sets. The worker's own hold, for what is not one account's trouble, is [`super::WorkerHold`].

use jiff::Timestamp;

use super::{HoldCause, HoldSettings, is_news};
use crate::core::policy::retry::saturating_add;
use crate::core::policy::verdict::HealthSignal;

/// What keeps an account held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldReason {
    pub cause: HoldCause,
    pub since: Timestamp,
    failed_probes: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountState {
    Flowing(FailureCounts),
    Held {
        trouble: HoldReason,
        probe_at: Timestamp,
    },
    Probing(HoldReason),
}

/// Failures since the account's last success, and whether more than one request is behind them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailureCounts {
    transient: u32,
    forbidden: u32,
    first_request: Option<u64>,
    several_requests: bool,
}

/// What happens to an account's hold.
#[derive(Debug, Clone, Copy)]
pub enum AccountEvent {
    /// One of its calls was answered.
    Answered {
        sign: HealthSignal,
        /// Tells requests apart.
        request: u64,
        /// When the request's try before this one failed, as far as it is known.
        failed_before: Option<Timestamp>,
        /// It was a probe of the account, or of the worker.
        probe: bool,
    },
    /// The call of a request begins that was let through to probe.
    ProbeStarted,
    /// The probe's answer will not be known.
    ProbeLost,
}

impl AccountEvent {
    /// Whether the API did not serve the account's call.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Answered { sign, .. } => matches!(
                sign,
                HealthSignal::Transient | HealthSignal::Forbidden | HealthSignal::BadCredentials
            ),
            Self::ProbeStarted | Self::ProbeLost => false,
        }
    }

    /// Whether it confirms what the account is held for; anything does where it is not held.
    #[must_use]
    pub const fn is_of(self, cause: Option<HoldCause>) -> bool {
        let Self::Answered { sign, .. } = self else {
            return false;
        };
        match cause {
            None => true,
            Some(HoldCause::Api) => matches!(sign, HealthSignal::Transient),
            Some(HoldCause::Credentials) => {
                matches!(sign, HealthSignal::BadCredentials | HealthSignal::Forbidden)
            }
        }
    }
}

/// What the event changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountChange {
    None,
    Held(HoldCause),
    Resumed(HoldCause),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountHold {
    state: AccountState,
    alive_at: Option<Timestamp>,
    /// When it last ended, and how many probes had failed by then.
    ended: Option<(Timestamp, u32)>,
}

impl Default for AccountHold {
    fn default() -> Self {
        Self {
            state: AccountState::Flowing(FailureCounts::default()),
            alive_at: None,
            ended: None,
        }
    }
}

impl AccountHold {
    #[must_use]
    pub const fn state(&self) -> &AccountState {
        &self.state
    }

    #[must_use]
    pub const fn trouble(&self) -> Option<HoldReason> {
        match self.state {
            AccountState::Flowing(_) => None,
            AccountState::Held { trouble, .. } | AccountState::Probing(trouble) => Some(trouble),
        }
    }

    /// When the account's next probe is due: known while no probe is under way.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Timestamp> {
        match self.state {
            AccountState::Held { probe_at, .. } => Some(probe_at),
            AccountState::Flowing(_) | AccountState::Probing(_) => None,
        }
    }

    /// The next probe is due, as soon as none is under way.
    pub fn probe_now(&mut self, now: Timestamp) {
        if let AccountState::Held { probe_at, .. } = &mut self.state {
            *probe_at = now;
        }
    }

    /// When a request that may not be called now should come back: about when the next probe is due.
    /// A probe that is under way is taken to fail.
    #[must_use]
    pub fn come_back_at(&self, settings: &HoldSettings, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            AccountState::Flowing(_) => None,
            AccountState::Held { probe_at, .. } => Some(probe_at),
            AccountState::Probing(trouble) => Some(saturating_add(
                now,
                settings.probe_delay(trouble.failed_probes + 1),
            )),
        }
    }

    /// Whether the account looks unwell beyond this one request: then its failures prove nothing
    /// against it.
    #[must_use]
    fn looks_unwell(&self, request: u64) -> bool {
        match &self.state {
            AccountState::Flowing(counts) => {
                counts.several_requests
                    || counts.first_request.is_some_and(|first| first != request)
            }
            AccountState::Held { .. } | AccountState::Probing(_) => true,
        }
    }

    /// Whether a request that has used up its attempts or its time is tried once more, since its
    /// account looks unwell beyond it. Not if that happened before (`spared`) and the account was
    /// answered since its last failure: those that fail must not keep each other alive forever.
    #[must_use]
    pub fn spares(&self, request: u64, failed_before: Option<Timestamp>, spared: bool) -> bool {
        self.looks_unwell(request) && (!spared || is_news(failed_before, self.alive_at))
    }

    /// Every event is legal in every state, since the answers of calls that were begun earlier come at
    /// any time.
    pub fn on(
        &mut self,
        event: AccountEvent,
        settings: &HoldSettings,
        now: Timestamp,
    ) -> AccountChange {
        use HoldCause::{Api, Credentials};
        let (state, change) = match (event, self.state.clone()) {
            (
                AccountEvent::Answered {
                    sign,
                    request,
                    failed_before,
                    probe,
                },
                state,
            ) => {
                let is_news = is_news(failed_before, self.alive_at);
                let failed_probes = self.failed_probes_of_late(settings, now);
                if sign == HealthSignal::Alive {
                    self.alive_at = Some(now);
                }
                let begin = |(counts, failures): (FailureCounts, u32), needed: u32, cause| {
                    if failures < needed {
                        return (AccountState::Flowing(counts), AccountChange::None);
                    }
                    let trouble = HoldReason {
                        cause,
                        since: now,
                        failed_probes,
                    };
                    (held(trouble, settings, now), AccountChange::Held(cause))
                };
                match state {
                    AccountState::Flowing(counts) => match sign {
                        HealthSignal::Alive => begin((FailureCounts::default(), 0), 1, Api),
                        HealthSignal::Throttled(_) => (state, AccountChange::None),
                        HealthSignal::Transient => {
                            let counts = counts.transient(request, is_news);
                            begin(counts, settings.failures, Api)
                        }
                        HealthSignal::Forbidden => {
                            begin(counts.forbidden(), settings.failures, Credentials)
                        }
                        HealthSignal::BadCredentials => begin((counts, 1), 1, Credentials),
                    },
                    AccountState::Held { trouble, .. } | AccountState::Probing(trouble) => {
                        let next = trouble.after(sign, probe, settings, now);
                        next.unwrap_or((state, AccountChange::None))
                    }
                }
            }
            (AccountEvent::ProbeStarted, AccountState::Held { trouble, .. }) => {
                (AccountState::Probing(trouble), AccountChange::None)
            }
            (AccountEvent::ProbeLost, AccountState::Probing(trouble)) => {
                let delay = settings.missed_probe_delay(trouble.failed_probes);
                let probe_at = saturating_add(now, delay);
                (
                    AccountState::Held { trouble, probe_at },
                    AccountChange::None,
                )
            }
            (AccountEvent::ProbeStarted | AccountEvent::ProbeLost, state) => {
                (state, AccountChange::None)
            }
        };
        if let (AccountChange::Resumed(_), Some(trouble)) = (change, self.trouble()) {
            self.ended = Some((now, trouble.failed_probes));
        }
        self.state = state;
        change
    }

    /// A hold that begins again soon after the last one ended goes on where that was with its probes, so
    /// that an account that is refused and answered by turns is not called every second.
    fn failed_probes_of_late(&self, settings: &HoldSettings, now: Timestamp) -> u32 {
        match self.ended {
            Some((at, failed_probes)) if now <= saturating_add(at, settings.max_probe) => {
                failed_probes.saturating_add(1)
            }
            _ => 0,
        }
    }
}

impl FailureCounts {
    fn transient(mut self, request: u64, is_news: bool) -> (Self, u32) {
        self.transient += u32::from(is_news);
        match self.first_request {
            None => self.first_request = Some(request),
            Some(first) => self.several_requests |= first != request,
        }
        (self, self.transient)
    }

    fn forbidden(self) -> (Self, u32) {
        let counts = Self {
            forbidden: self.forbidden + 1,
            ..Self::default()
        };
        (counts, counts.forbidden)
    }
}

impl HoldReason {
    /// What an answer does to a held account; nothing, if it says nothing new.
    #[expect(clippy::match_same_arms, reason = "a table, one row a transition")]
    fn after(
        self,
        sign: HealthSignal,
        probe: bool,
        settings: &HoldSettings,
        now: Timestamp,
    ) -> Option<(AccountState, AccountChange)> {
        let resumed = || {
            let state = AccountState::Flowing(FailureCounts::default());
            Some((state, AccountChange::Resumed(self.cause)))
        };
        let failed = |cause| {
            let state = held(self.failed(cause), settings, now);
            Some((state, AccountChange::None))
        };
        match (sign, self.cause) {
            (HealthSignal::Alive | HealthSignal::Throttled(_), _) => resumed(),
            // Calls begun before the hold: what they say of it is known already.
            (
                HealthSignal::Transient | HealthSignal::Forbidden | HealthSignal::BadCredentials,
                _,
            ) if !probe => None,
            (HealthSignal::Transient, cause) => failed(cause),
            (HealthSignal::BadCredentials, _)
            | (HealthSignal::Forbidden, HoldCause::Credentials) => failed(HoldCause::Credentials),
            // It answers, if only to refuse.
            (HealthSignal::Forbidden, HoldCause::Api) => resumed(),
        }
    }

    const fn failed(self, cause: HoldCause) -> Self {
        Self {
            cause,
            failed_probes: self.failed_probes.saturating_add(1),
            ..self
        }
    }
}

fn held(trouble: HoldReason, settings: &HoldSettings, now: Timestamp) -> AccountState {
    AccountState::Held {
        trouble,
        probe_at: saturating_add(now, settings.probe_delay(trouble.failed_probes)),
    }
}

#[cfg(test)]
mod tests;
