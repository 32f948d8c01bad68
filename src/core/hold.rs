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
}

impl Hold {
    #[must_use]
    pub fn new(settings: HoldSettings) -> Self {
        Self {
            settings,
            state: State::Flowing(Streak::default()),
            last_alive: None,
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

    pub fn on(&mut self, event: Event<'_>, now: Timestamp) -> Result<Change, IllegalTransition> {
        let (state, change) = self.transition(event, now)?;
        if let Event::Answered {
            sign: Sign::Alive,
            account,
            ..
        } = event
            && self.last_alive.as_ref() != Some(account)
        {
            self.last_alive = Some(account.clone());
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
                        ..
                    },
                ) => self.while_flowing(streak, sign, request, account, now),
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
                streak.transient += 1;
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn account(id: &str) -> AccountId {
        AccountId::parse(id).unwrap()
    }

    fn answer(hold: &mut Hold, sign: Sign, request: u64, probe: bool, now: Timestamp) -> Change {
        let account = account("T12345678");
        hold.on(
            Event::Answered {
                sign,
                request,
                account: &account,
                probe,
            },
            now,
        )
        .unwrap()
    }

    #[test]
    fn ten_transient_failures_in_a_row_hold_and_one_answer_between_them_does_not() {
        let mut hold = Hold::new(HoldSettings::default());
        for request in 0..9 {
            assert_eq!(
                answer(&mut hold, Sign::Transient, request, false, at(0)),
                Change::None
            );
        }
        answer(&mut hold, Sign::Alive, 9, false, at(0));
        for request in 0..9 {
            assert_eq!(
                answer(&mut hold, Sign::Transient, request, false, at(0)),
                Change::None
            );
        }
        assert_eq!(
            answer(&mut hold, Sign::Transient, 1, false, at(0)),
            Change::Held(Cause::Api)
        );
        assert_eq!(hold.probe_at(), Some(at(1000)));
    }

    #[test]
    fn probes_come_after_1_2_4_up_to_60_seconds_and_at_most_60_in_half_an_hour() {
        let mut hold = Hold::new(HoldSettings::default());
        for request in 0..10 {
            answer(&mut hold, Sign::Transient, request, false, at(0));
        }
        let mut probes = Vec::new();
        while let Some(due) = hold.probe_at().filter(|&due| due <= at(1_800_000)) {
            probes.push(due.as_second());
            hold.on(Event::ProbeStarted, due).unwrap();
            answer(&mut hold, Sign::Transient, 1, true, due);
        }
        assert_eq!(probes[..7], [1, 3, 7, 15, 31, 63, 123]);
        assert!(probes.len() <= 60, "{}", probes.len());
    }

    #[test]
    fn the_first_answer_that_is_not_transient_resumes() {
        for sign in [Sign::Alive, Sign::Throttled(None), Sign::Forbidden] {
            let mut hold = Hold::new(HoldSettings {
                failures: 1,
                ..HoldSettings::default()
            });
            answer(&mut hold, Sign::Transient, 1, false, at(0));
            hold.on(Event::ProbeStarted, at(1000)).unwrap();
            assert_eq!(
                answer(&mut hold, sign, 2, true, at(1100)),
                Change::Resumed,
                "{sign:?}"
            );
            assert_eq!(hold.cause(), None);
        }
    }

    #[test]
    fn refused_credentials_hold_at_once_and_many_forbidden_in_a_row_do() {
        let mut hold = Hold::new(HoldSettings::default());
        assert_eq!(
            answer(&mut hold, Sign::BadCredentials, 1, false, at(0)),
            Change::Held(Cause::Credentials)
        );
        let mut hold = Hold::new(HoldSettings::default());
        for request in 0..9 {
            assert_eq!(
                answer(&mut hold, Sign::Forbidden, request, false, at(0)),
                Change::None
            );
        }
        assert_eq!(
            answer(&mut hold, Sign::Forbidden, 9, false, at(0)),
            Change::Held(Cause::Credentials)
        );
    }

    #[test]
    fn one_accounts_bad_credentials_do_not_hold_the_others() {
        let mut hold = Hold::new(HoldSettings::default());
        answer(&mut hold, Sign::Alive, 1, false, at(0));
        let other = account("P12345678");
        let event = Event::Answered {
            sign: Sign::BadCredentials,
            request: 2,
            account: &other,
            probe: false,
        };
        assert_eq!(
            hold.on(event, at(0)),
            Ok(Change::PauseAccount(ACCOUNT_PAUSE))
        );
        assert_eq!(hold.cause(), None);
    }

    #[test]
    fn a_single_bad_request_does_not_make_the_api_suspect() {
        let mut hold = Hold::new(HoldSettings::default());
        answer(&mut hold, Sign::Transient, 7, false, at(0));
        answer(&mut hold, Sign::Transient, 7, false, at(0));
        assert!(!hold.suspects_the_api(7));
        assert!(hold.suspects_the_api(8));
        answer(&mut hold, Sign::Transient, 8, false, at(0));
        assert!(hold.suspects_the_api(7));
    }

    #[test]
    fn an_event_that_cannot_happen_is_an_error_and_changes_nothing() {
        let mut hold = Hold::new(HoldSettings::default());
        answer(&mut hold, Sign::Transient, 7, false, at(0));
        let before = hold.state().clone();
        assert_eq!(hold.on(Event::ProbeStarted, at(0)), Err(IllegalTransition));
        assert_eq!(hold.on(Event::ProbeMissed, at(0)), Err(IllegalTransition));
        assert_eq!(*hold.state(), before);
    }

    fn any_sign() -> impl Strategy<Value = Sign> {
        prop_oneof![
            Just(Sign::Alive),
            Just(Sign::Transient),
            Just(Sign::Throttled(None)),
            Just(Sign::Forbidden),
            Just(Sign::BadCredentials),
        ]
    }

    proptest! {
        #[test]
        fn a_held_worker_always_knows_when_it_looks_again(
            signs in proptest::collection::vec((any_sign(), 0u64..5, any::<bool>()), 0..200),
        ) {
            let mut hold = Hold::new(HoldSettings::default());
            let mut now = at(0);
            for (sign, request, miss) in signs {
                let probing = if let Some(due) = hold.probe_at() {
                    prop_assert!(due <= later(now, Duration::from_secs(60)));
                    now = due;
                    if miss {
                        hold.on(Event::ProbeMissed, now).unwrap();
                    } else {
                        hold.on(Event::ProbeStarted, now).unwrap();
                    }
                    !miss
                } else {
                    false
                };
                answer(&mut hold, sign, request, probing, now);
                prop_assert_eq!(hold.cause().is_some(), hold.probe_at().is_some());
            }
        }
    }
}
