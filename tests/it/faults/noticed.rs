//! The run's own check must be able to fail: each broken promise, made by hand, is noticed.

use std::sync::Arc;

use jiff::Timestamp;
use rename_worker::core::model::request::AccountId;
use rename_worker::sandbox::LedgerEntry;
use serde_json::json;
use uuid::Uuid;

use super::board::Board;
use super::check::{Findings, Left, check};
use super::plan::{Asked, Expected, Plan};
use crate::support::stage::ACCOUNT;

/// Enough to have a few of everything.
const REQUESTS: usize = 200;

/// A run in which nothing went wrong, to be spoilt before it is checked.
struct Aftermath {
    plan: Plan,
    board: Arc<Board>,
    ledger: Vec<LedgerEntry>,
    letters: Vec<Option<String>>,
}

impl Aftermath {
    /// All is told and applied as it must be, but for `but`.
    fn of_all_but(but: Option<usize>) -> Self {
        let plan = Plan::draw(7, REQUESTS);
        let board = Board::new(&plan);
        let mut aftermath = Self {
            plan,
            board,
            ledger: Vec::new(),
            letters: Vec::new(),
        };
        for at in 0..aftermath.plan.asked.len() {
            aftermath.board.publish(aftermath.plan.asked[at].id);
            if Some(at) != but {
                aftermath.end_well(at);
            }
        }
        aftermath
    }

    fn end_well(&mut self, at: usize) {
        match self.plan.asked[at].expected {
            Expected::Failed(reason) => {
                self.tell(at, Some(reason));
                self.letter(at);
            }
            Expected::Renamed | Expected::RenamedIfUndisturbed => {
                self.apply(at);
                self.tell(at, None);
            }
        }
    }

    fn tell(&self, at: usize, reason: Option<&str>) {
        let id = self.plan.asked[at].id.to_string();
        let event = match reason {
            Some(reason) => json!({"type": "user.rename-failed", "data": {"reason": reason}}),
            None => json!({"type": "user.renamed", "data": {}}),
        };
        self.board
            .hear(Some(&id), false, event.to_string().as_bytes());
    }

    fn letter(&mut self, at: usize) {
        self.letters.push(Some(self.plan.asked[at].id.to_string()));
    }

    fn apply(&mut self, at: usize) {
        let asked = &self.plan.asked[at];
        let (from, to) = (asked.from.clone(), asked.to.clone());
        self.apply_names(&from, &to);
    }

    fn apply_names(&mut self, from: &str, to: &str) {
        self.ledger.push(LedgerEntry {
            seq: self.ledger.len() as u64 + 1,
            account_id: AccountId::parse(ACCOUNT).expect("an account"),
            user_id: Uuid::nil(),
            from: from.into(),
            to: to.into(),
            at: Timestamp::UNIX_EPOCH,
        });
    }

    fn kill(&self) {
        self.board.kill();
    }

    fn check(&self) -> Findings {
        let volleys = self.plan.units.iter().filter(|unit| unit.len() > 1);
        check(&Left {
            plan: &self.plan,
            board: &self.board,
            ledger: self.ledger.clone(),
            letters: self.letters.clone(),
            volleys: volleys.map(|unit| (unit.clone(), 0)).collect(),
        })
    }

    /// That something is found, and that it is this.
    fn is_caught(&self, told: &str) {
        let listed = self.check().listed();
        assert!(listed.contains(told), "{told:?} is not in: {listed}");
    }
}

/// The first request of a kind.
fn first(fits: impl Fn(&Asked) -> bool) -> usize {
    let plan = Plan::draw(7, REQUESTS);
    let mut asked = plan.asked.iter();
    asked.position(fits).expect("there is one of each")
}

/// One that nothing depends on.
fn lone() -> usize {
    let plan = Plan::draw(7, REQUESTS);
    let alone = |unit: &&Vec<usize>| {
        let asked = &plan.asked[unit[0]];
        unit.len() == 1 && asked.next.is_none() && asked.expected == Expected::Renamed
    };
    plan.units.iter().find(alone).expect("most are")[0]
}

/// The first link of a chain.
fn link() -> usize {
    first(|asked| asked.next.is_some())
}

/// The second of a volley.
fn second_of_volley() -> usize {
    let plan = Plan::draw(7, REQUESTS);
    let volley = plan.units.iter().find(|unit| unit.len() > 1);
    volley.expect("there are some")[1]
}

#[test]
fn a_run_in_which_all_went_well_has_no_violation() {
    let found = Aftermath::of_all_but(None).check();
    assert_eq!(found.listed(), "");
    assert!(found.chains_checked > 0 && found.volleys_checked > 0);
    assert!(found.renamed > 0 && found.failed > 0);
}

#[test]
fn a_request_without_an_outcome_is_noticed() {
    Aftermath::of_all_but(Some(lone())).is_caught("no outcome was told");
}

#[test]
fn a_rename_that_is_applied_twice_is_noticed() {
    let mut run = Aftermath::of_all_but(None);
    run.apply(lone());
    run.is_caught("applied 2 times");
}

#[test]
fn a_rename_that_is_told_and_never_applied_is_noticed() {
    let run = Aftermath::of_all_but(Some(lone()));
    run.tell(lone(), None);
    run.is_caught("never applied, but told as renamed");
}

#[test]
fn a_rename_that_is_applied_and_told_as_failed_is_noticed_even_after_a_kill() {
    let mut run = Aftermath::of_all_but(Some(lone()));
    run.apply(lone());
    run.kill();
    run.tell(lone(), Some("user_not_found"));
    run.letter(lone());
    run.is_caught("applied, but told as failed");
}

#[test]
fn a_second_outcome_of_another_kind_is_noticed() {
    let mut run = Aftermath::of_all_but(None);
    run.kill();
    run.tell(lone(), Some("rejected"));
    run.letter(lone());
    run.is_caught("two outcomes");
}

#[test]
fn another_reason_than_the_right_one_is_noticed() {
    let at = first(|asked| asked.expected == Expected::Failed("username_taken"));
    let mut run = Aftermath::of_all_but(Some(at));
    run.tell(at, Some("rejected"));
    run.letter(at);
    run.is_caught("expected Failed(\"username_taken\")");
}

#[test]
fn a_failure_without_a_letter_and_a_letter_without_a_failure_are_noticed() {
    let mut run = Aftermath::of_all_but(None);
    run.letters.pop();
    run.is_caught("failed, but without a dead letter");
    run.letter(lone());
    run.is_caught("a dead letter, but no failed event");
}

#[test]
fn what_nobody_asked_for_is_noticed() {
    let mut run = Aftermath::of_all_but(None);
    run.apply_names("somebody", "somebody else");
    run.board.hear(None, false, b"{}");
    run.letters.push(None);
    run.is_caught("a rename that nobody asked for");
    run.is_caught("an event of nothing");
    run.is_caught("a dead letter of nothing");
}

#[test]
fn a_chain_that_took_effect_in_another_order_is_noticed() {
    let mut run = Aftermath::of_all_but(Some(link()));
    run.end_well(link());
    run.is_caught("out of order");
}

#[test]
fn moving_on_excuses_a_failure_only_after_a_kill() {
    let spoilt = |is_killed: bool| {
        let mut run = Aftermath::of_all_but(None);
        if is_killed {
            run.kill();
        }
        run.tell(link(), Some("user_not_found"));
        run.letter(link());
        run
    };
    spoilt(false).is_caught("applied, but told as failed");
    let found = spoilt(true).check();
    assert_eq!((found.listed().as_str(), found.moved_on), ("", 1));
    assert_eq!(found.moved_on_told, 1);
}

#[test]
fn a_failure_comes_true_only_in_a_disturbed_volley_and_by_another_worker() {
    let at = second_of_volley();
    let spoilt = |is_killed: bool| {
        let mut run = Aftermath::of_all_but(Some(at));
        run.tell(at, Some("user_not_found"));
        run.letter(at);
        if is_killed {
            run.kill();
        }
        run.apply(at);
        run.tell(at, None);
        run
    };
    spoilt(false).is_caught("two outcomes");
    // Its first outcome came before the kill, so the volley counts as undisturbed.
    spoilt(true).is_caught("two outcomes");
    let mut run = Aftermath::of_all_but(Some(at));
    run.kill();
    run.tell(at, Some("user_not_found"));
    run.letter(at);
    run.apply(at);
    run.tell(at, None);
    let found = run.check();
    assert_eq!((found.listed().as_str(), found.came_true), ("", 1));
}
