//! Whose turn it is among accounts: one of each in turn, whatever number of entries each has.

use std::collections::{HashMap, VecDeque};

use crate::core::model::request::AccountId;

/// Empty queues that are kept for their accounts' next entries; past it they are dropped.
const MAX_EMPTY: usize = 1024;

#[derive(Debug)]
pub struct FairQueue<T> {
    /// Accounts with entries, the next one first.
    turns: VecDeque<AccountId>,
    queues: HashMap<AccountId, VecDeque<T>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            queues: HashMap::new(),
        }
    }
}

impl<T> FairQueue<T> {
    pub fn push(&mut self, account: &AccountId, entry: T) {
        if let Some(queue) = self.queues.get_mut(account) {
            if queue.is_empty() {
                self.turns.push_back(account.clone());
            }
            queue.push_back(entry);
            return;
        }
        if self.queues.len() >= self.turns.len() + MAX_EMPTY {
            self.queues.retain(|_, queue| !queue.is_empty());
        }
        self.queues.insert(account.clone(), VecDeque::from([entry]));
        self.turns.push_back(account.clone());
    }

    /// The oldest entry of the account whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let account = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&account)?;
        let entry = queue.pop_front();
        if !queue.is_empty() {
            self.turns.push_back(account);
        }
        entry
    }

    /// How many accounts have entries.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.turns.len()
    }

    pub fn clear(&mut self) {
        self.turns.clear();
        self.queues.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(number: usize) -> AccountId {
        AccountId::parse(&format!("T{number:08}")).unwrap()
    }

    #[test]
    fn accounts_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::default();
        for entry in 0..4 {
            queue.push(&account(1), (1, entry));
        }
        queue.push(&account(2), (2, 0));
        queue.push(&account(3), (3, 0));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn accounts_that_come_and_go_do_not_fill_the_memory() {
        let mut queue = FairQueue::default();
        for number in 0..10 * MAX_EMPTY {
            queue.push(&account(number), number);
            assert_eq!(queue.pop(), Some(number));
        }
        assert!(
            queue.queues.len() <= MAX_EMPTY + 1,
            "{}",
            queue.queues.len()
        );
    }

    proptest! {
        #[test]
        fn an_entry_waits_for_at_most_one_of_each_other_account_per_entry_before_it(
            accounts in proptest::collection::vec(0usize..5, 1..100),
        ) {
            let mut queue = FairQueue::default();
            for (entry, &number) in accounts.iter().enumerate() {
                queue.push(&account(number), (number, entry));
            }
            let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(order.len(), accounts.len());
            for (place, &(number, entry)) in order.iter().enumerate() {
                let own = accounts[..entry].iter().filter(|&&other| other == number).count();
                prop_assert!(place <= (own + 1) * 5, "{} of {}", place, own);
            }
        }
    }
}
