//! The faults in force: which of them strikes a call, drawn from a seeded generator so that the
//! same calls in the same order meet the same faults.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use tokio::sync::watch;

use super::calls::SandboxCallKind;
use super::fault::{ApiFault, FaultKind, Frequency};
use super::locked;

/// What happens to a call instead of its true answer.
#[derive(Debug)]
pub(super) struct FaultHit {
    pub kind: FaultKind,
    /// What was asked for takes effect first.
    pub applied: bool,
    /// Tells the next change of the faults; it opens a gate.
    pub changes: watch::Receiver<u64>,
}

/// One fault in force, as `GET /_sandbox/faults` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultInForce {
    /// In the notation; a count is what is left of it.
    pub fault: String,
    /// How many calls it has struck.
    pub struck: u64,
}

#[derive(Debug)]
pub(super) struct FaultTable {
    drawn: Mutex<DrawnFault>,
    /// Most runs of a benchmark have none: then no lock is taken.
    none: AtomicBool,
    /// Grows with each change, under the lock of `drawn`.
    changes: watch::Sender<u64>,
    refusing: watch::Sender<bool>,
}

#[derive(Debug)]
struct DrawnFault {
    rules: Vec<(ApiFault, u64)>,
    rng: SmallRng,
}

impl FaultTable {
    pub(super) fn new(seed: u64, faults: Vec<ApiFault>) -> Self {
        let new = Self {
            drawn: Mutex::new(DrawnFault {
                rules: Vec::new(),
                rng: SmallRng::seed_from_u64(seed),
            }),
            none: AtomicBool::new(true),
            changes: watch::Sender::new(0),
            refusing: watch::Sender::new(false),
        };
        new.set(faults);
        new
    }

    /// Puts these in the place of all before, and opens the gate to calls that wait at one.
    pub(super) fn set(&self, faults: Vec<ApiFault>) {
        let refusing = faults.iter().any(|fault| fault.kind == FaultKind::Refuse);
        let none = faults.is_empty();
        {
            let mut drawn = locked(&self.drawn);
            drawn.rules = faults.into_iter().map(|fault| (fault, 0)).collect();
            self.none.store(none, Ordering::Release);
            self.changes.send_modify(|count| *count += 1);
        }
        self.refusing.send_replace(refusing);
    }

    pub(super) fn in_force(&self) -> Vec<FaultInForce> {
        locked(&self.drawn)
            .rules
            .iter()
            .map(|(fault, struck)| FaultInForce {
                fault: fault.to_string(),
                struck: *struck,
            })
            .collect()
    }

    /// The first fault that concerns the call and strikes it, if any does.
    pub(super) fn apply(
        &self,
        kind: SandboxCallKind,
        account: &str,
        username: Option<&str>,
    ) -> Option<FaultHit> {
        if self.none.load(Ordering::Acquire) {
            return None;
        }
        let drawn = &mut *locked(&self.drawn);
        let (fault, struck) = drawn.rules.iter_mut().find(|(fault, _)| {
            fault.kind != FaultKind::Refuse
                && fault.matches(kind, account, username)
                && match fault.often {
                    Frequency::Always => true,
                    Frequency::Share(share) => drawn.rng.random::<f64>() < share,
                    Frequency::Next(left) => left > 0,
                }
        })?;
        *struck += 1;
        if let Frequency::Next(left) = &mut fault.often {
            *left -= 1;
        }
        Some(FaultHit {
            kind: fault.kind,
            applied: fault.applied,
            // Under the lock, so that the change that put this fault in force is not told again.
            changes: self.changes.subscribe(),
        })
    }

    pub(super) fn refusing(&self) -> watch::Receiver<bool> {
        self.refusing.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "T12345678";

    fn faults(seed: u64, texts: &[&str]) -> FaultTable {
        FaultTable::new(
            seed,
            texts.iter().map(|text| text.parse().unwrap()).collect(),
        )
    }

    fn strikes(faults: &FaultTable, calls: usize) -> Vec<bool> {
        (0..calls)
            .map(|_| {
                faults
                    .apply(SandboxCallKind::Rename, ACCOUNT, Some("ola"))
                    .is_some()
            })
            .collect()
    }

    #[test]
    fn a_share_is_drawn_alike_for_the_same_seed() {
        let first = strikes(&faults(7, &["503=0.2"]), 1000);
        assert_eq!(first, strikes(&faults(7, &["503=0.2"]), 1000));
        assert_ne!(first, strikes(&faults(8, &["503=0.2"]), 1000));
        let struck = first.iter().filter(|struck| **struck).count();
        assert!((150..250).contains(&struck), "{struck} of 1000");
    }

    #[test]
    fn a_count_strikes_the_next_calls_and_no_more() {
        let faults = faults(1, &["reset=x2"]);
        assert_eq!(strikes(&faults, 4), [true, true, false, false]);
        assert_eq!(
            faults.in_force(),
            [FaultInForce {
                fault: "reset=x0".to_owned(),
                struck: 2
            }]
        );
    }

    #[test]
    fn a_fault_strikes_only_whom_it_concerns() {
        use SandboxCallKind::{Confirm, Rename, Token};
        let other = "P00000001";
        for (text, kind, account, username, struck) in [
            ("503", Token, ACCOUNT, None, false),
            ("503", Confirm, ACCOUNT, Some("ola"), true),
            ("503,on=all", Token, ACCOUNT, None, true),
            ("503,on=token", Rename, ACCOUNT, Some("ola"), false),
            ("503,on=rename", Confirm, ACCOUNT, Some("ola"), false),
            ("503,on=confirm", Confirm, ACCOUNT, Some("ola"), true),
            ("503,account=T12345678", Rename, other, Some("ola"), false),
            ("503,account=T12345678", Rename, ACCOUNT, Some("ola"), true),
            ("503,prefix=ol", Rename, ACCOUNT, Some("ola"), true),
            ("503,prefix=kari", Rename, ACCOUNT, Some("ola"), false),
            ("503,on=all,prefix=ol", Token, ACCOUNT, None, false),
            ("refuse", Rename, ACCOUNT, Some("ola"), false),
        ] {
            let hit = faults(1, &[text]).apply(kind, account, username);
            assert_eq!(hit.is_some(), struck, "{text} {kind:?}");
        }
    }

    #[test]
    fn the_first_fault_that_strikes_wins() {
        let faults = faults(1, &["503=x1", "reset=x1"]);
        let mut kinds = Vec::new();
        while let Some(strike) = faults.apply(SandboxCallKind::Rename, ACCOUNT, None) {
            kinds.push(strike.kind);
        }
        assert_eq!(kinds, [ApiFault::status(503).kind, FaultKind::Reset]);
    }
}
