//! Whether the promises were kept.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use rename_worker::sandbox::LedgerEntry;
use uuid::Uuid;

use super::board::{Board, Told};
use super::plan::{Asked, Expected, Plan};

/// So many violations are told in full; the rest is counted.
const SHOWN: usize = 20;

/// What a run left behind.
pub struct Left<'a> {
    pub plan: &'a Plan,
    pub board: &'a Board,
    pub ledger: Vec<LedgerEntry>,
    /// The correlation ids of the dead letters.
    pub letters: Vec<Option<String>>,
    /// Units that were published together, each with the disturbances there had been before.
    pub volleys: Vec<(Vec<usize>, u64)>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    pub violations: Vec<String>,
    pub renamed: usize,
    pub failed: usize,
    pub repeated_events: usize,
    pub repeated_letters: usize,
    /// Applied, then told as failed too when a copy came back after the user had been renamed
    /// again: the one case the API gives no way to decide, see docs/reliability.md.
    pub moved_on: usize,
    /// Those of them that had been told as renamed before.
    pub moved_on_told: usize,
    /// Told as failed by a worker that was killed before it acknowledged; then its turn came, and
    /// the next worker renamed: see docs/reliability.md.
    pub came_true: usize,
    pub volleys_checked: usize,
    pub chains_checked: usize,
}

impl Findings {
    /// The violations, one a line.
    pub fn listed(&self) -> String {
        let mut listed = String::new();
        for violation in self.violations.iter().take(SHOWN) {
            let _ = writeln!(listed, "  {violation}");
        }
        if self.violations.len() > SHOWN {
            let _ = writeln!(listed, "  and {} more", self.violations.len() - SHOWN);
        }
        listed
    }

    fn add(&mut self, id: Uuid, violation: impl std::fmt::Display) {
        self.violations.push(format!("{id}: {violation}"));
    }
}

pub fn check(left: &Left<'_>) -> Findings {
    let mut found = Findings::default();
    let (told, strays) = left.board.read();
    let strays = strays.into_iter();
    found
        .violations
        .extend(strays.map(|event| format!("an event of nothing: {event}")));
    let undisturbed = undisturbed(left, &mut found);
    let mut applied: HashMap<(&str, &str), Vec<u64>> = HashMap::new();
    let mut left_again: HashMap<&str, u64> = HashMap::new();
    for entry in &left.ledger {
        let pair = (&*entry.from, &*entry.to);
        applied.entry(pair).or_default().push(entry.seq);
        left_again.insert(&entry.from, entry.seq);
    }
    let mut failed_ids = HashSet::new();
    for (at, asked) in left.plan.asked.iter().enumerate() {
        let pair = (&*asked.from, &*asked.to);
        let seqs = applied.remove(&pair).unwrap_or_default();
        let Some(events) = told.get(&asked.id) else {
            found.add(asked.id, "no outcome was told");
            continue;
        };
        let fate = Fate {
            failed: events.iter().find(|event| event.failed.is_some()),
            renamed: events.iter().find(|event| event.failed.is_none()),
            moved_on: left_again.get(pair.1).copied() > seqs.first().copied(),
            published_after: left.board.published_after(asked.id).unwrap_or(u64::MAX),
            times_applied: seqs.len(),
            failed_first: events
                .iter()
                .is_sorted_by_key(|event| event.failed.is_none()),
            is_certain: match asked.expected {
                Expected::RenamedIfUndisturbed => undisturbed.contains(&at),
                Expected::Renamed | Expected::Failed(_) => true,
            },
        };
        found.repeated_events += events.len() - 1;
        if fate.failed.is_some() {
            failed_ids.insert(asked.id);
        }
        check_one(asked, &fate, &mut found);
    }
    for (from, to) in applied.into_keys() {
        let asked_for = format!("a rename that nobody asked for: {from} to {to}");
        found.violations.push(asked_for);
    }
    check_order(left, &undisturbed, &mut found);
    check_letters(left, &failed_ids, &mut found);
    found
}

/// What became of one request.
struct Fate<'a> {
    failed: Option<&'a Told>,
    renamed: Option<&'a Told>,
    times_applied: usize,
    /// Its user was renamed once more after it was applied.
    moved_on: bool,
    /// The kills there had been when it was published.
    published_after: u64,
    /// Nothing fell between that could make another outcome right.
    is_certain: bool,
    /// No failure was told after it had been told as renamed.
    failed_first: bool,
}

impl Fate<'_> {
    /// Whether what was applied may be told as failed: no worker could know, since the one that
    /// knew was killed. A worker that lives remembers.
    fn is_undecidable(&self) -> bool {
        let gone = |failed: &Told| {
            failed.failed.as_deref() == Some("user_not_found")
                && failed.kills > self.published_after
        };
        self.times_applied == 1 && self.moved_on && self.failed.is_some_and(gone)
    }

    /// Whether it may be told as renamed after it was told as failed: where the one before it was
    /// not applied yet its user was not there, and a worker that is killed before its ack leaves
    /// the request to the next, who does not know what was told.
    fn may_come_true(&self) -> bool {
        let not_there = |failed: &Told| failed.failed.as_deref() == Some("user_not_found");
        let by_another = |renamed: &Told| renamed.kills > self.published_after;
        self.times_applied == 1
            && !self.is_certain
            && self.failed_first
            && self.failed.is_some_and(not_there)
            && self.renamed.is_some_and(by_another)
    }
}

fn check_one(asked: &Asked, fate: &Fate<'_>, found: &mut Findings) {
    let reason = fate.failed.and_then(|event| event.failed.as_deref());
    match reason {
        Some(_) => found.failed += 1,
        None => found.renamed += 1,
    }
    if fate.times_applied > 1 {
        let times = fate.times_applied;
        found.add(asked.id, format_args!("applied {times} times"));
    }
    if let (Some(renamed), 0) = (fate.renamed, fate.times_applied) {
        let said = &renamed.event;
        found.add(
            asked.id,
            format_args!("never applied, but told as renamed: {said}"),
        );
    }
    if fate.is_undecidable() {
        found.moved_on += 1;
        found.moved_on_told += usize::from(fate.renamed.is_some());
        return;
    }
    if fate.may_come_true() {
        found.came_true += 1;
        return;
    }
    if let (Some(failed), true) = (fate.failed, fate.times_applied > 0) {
        let said = &failed.event;
        found.add(
            asked.id,
            format_args!("applied, but told as failed: {said}"),
        );
    }
    if let (Some(failed), Some(renamed)) = (fate.failed, fate.renamed) {
        let (one, other) = (&failed.event, &renamed.event);
        found.add(asked.id, format_args!("two outcomes: {one} and {other}"));
    }
    let as_expected = match asked.expected {
        Expected::Failed(expected) => reason == Some(expected),
        Expected::Renamed | Expected::RenamedIfUndisturbed => reason.is_none() || !fate.is_certain,
    };
    if !as_expected {
        let (expected, said) = (asked.expected, fate.failed.map(|event| &event.event));
        found.add(
            asked.id,
            format_args!("expected {expected:?}, told {said:?}"),
        );
    }
}

/// The members of volleys that no kill, cut or restart fell into.
fn undisturbed(left: &Left<'_>, found: &mut Findings) -> HashSet<usize> {
    let mut members = HashSet::new();
    for (unit, before) in &left.volleys {
        let calm = unit.iter().all(|&at| {
            let id = left.plan.asked[at].id;
            left.board.told_after(id) == Some(*before)
        });
        if calm {
            found.volleys_checked += 1;
            members.extend(unit);
        }
    }
    members
}

fn check_order(left: &Left<'_>, undisturbed: &HashSet<usize>, found: &mut Findings) {
    let mut first_seq: HashMap<(&str, &str), u64> = HashMap::new();
    for entry in &left.ledger {
        first_seq
            .entry((&entry.from, &entry.to))
            .or_insert(entry.seq);
    }
    let volleys = left.volleys.iter().map(|(unit, _)| unit);
    let calm = volleys.filter(|unit| unit.iter().all(|at| undisturbed.contains(at)));
    for row in left.plan.chains.iter().chain(calm) {
        let asked: Vec<_> = row.iter().map(|&at| &left.plan.asked[at]).collect();
        let seqs: Vec<_> = asked
            .iter()
            .filter_map(|asked| first_seq.get(&(&*asked.from, &*asked.to)))
            .collect();
        if !seqs.is_sorted() {
            found.add(
                asked[0].id,
                "it and its successors took effect out of order",
            );
        }
    }
    found.chains_checked = left.plan.chains.len();
}

fn check_letters(left: &Left<'_>, failed: &HashSet<Uuid>, found: &mut Findings) {
    let mut lettered = HashSet::new();
    for letter in &left.letters {
        let id = letter.as_deref().and_then(|id| Uuid::try_parse(id).ok());
        match id {
            Some(id) if lettered.insert(id) => {}
            Some(_) => found.repeated_letters += 1,
            None => found.violations.push("a dead letter of nothing".to_owned()),
        }
    }
    for &id in failed.difference(&lettered) {
        found.add(id, "failed, but without a dead letter");
    }
    for &id in lettered.difference(failed) {
        found.add(id, "a dead letter, but no failed event");
    }
}
