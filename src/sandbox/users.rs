//! The users of each account and the ledger of the renames that took effect.
//!
//! Both are behind one lock of the caller's, so that the ledger's order is the order of effect.

use std::collections::HashMap;

use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::core::model::request::{AccountId, Username};

/// A user to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    #[serde(serialize_with = "account_out", deserialize_with = "account_in")]
    pub account_id: AccountId,
    #[serde(deserialize_with = "username_in")]
    pub username: Box<str>,
    /// Drawn when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
}

/// A user who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxUser {
    pub username: Box<str>,
    pub id: Uuid,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A rename that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// From 1, without gaps.
    pub seq: u64,
    #[serde(serialize_with = "account_out", deserialize_with = "account_in")]
    pub account_id: AccountId,
    pub user_id: Uuid,
    pub from: Box<str>,
    pub to: Box<str>,
    pub at: Timestamp,
}

/// What came of a rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AppliedRename {
    Applied(SandboxUser),
    /// From a name to itself: nothing changed.
    Same(SandboxUser),
    UnknownUser,
    NameTaken,
}

#[derive(Debug)]
pub(super) struct UserStore {
    accounts: HashMap<AccountId, HashMap<Box<str>, SandboxUser>>,
    ledger: Vec<LedgerEntry>,
    rng: SmallRng,
}

impl UserStore {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            accounts: HashMap::new(),
            ledger: Vec::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// Lets a user be there. Who bears the name already stays, with the id that is given, if any.
    pub(super) fn put(&mut self, seed: NewUser, at: Timestamp) -> SandboxUser {
        let rng = &mut self.rng;
        let id = seed.id;
        let users = self.accounts.entry(seed.account_id).or_default();
        let user = users
            .entry(seed.username.clone())
            .or_insert_with(|| SandboxUser {
                username: seed.username,
                id: uuid::Builder::from_random_bytes(rng.random()).into_uuid(),
                created_at: at,
                updated_at: at,
            });
        if let Some(id) = id {
            user.id = id;
        }
        user.clone()
    }

    pub(super) fn remove(&mut self, account: &AccountId, username: &str) -> Option<SandboxUser> {
        self.accounts.get_mut(account)?.remove(username)
    }

    pub(super) fn get(&self, account: &AccountId, username: &str) -> Option<&SandboxUser> {
        self.accounts.get(account)?.get(username)
    }

    /// Every user as a seed, in no order.
    pub(super) fn all(&self) -> Vec<NewUser> {
        let one = |account: &AccountId, user: &SandboxUser| NewUser {
            account_id: account.clone(),
            username: user.username.clone(),
            id: Some(user.id),
        };
        self.accounts
            .iter()
            .flat_map(|(account, users)| users.values().map(move |user| one(account, user)))
            .collect()
    }

    pub(super) fn ledger(&self) -> &[LedgerEntry] {
        &self.ledger
    }

    pub(super) fn rename(
        &mut self,
        account: &AccountId,
        from: &str,
        to: &str,
        at: Timestamp,
    ) -> AppliedRename {
        let Some(users) = self.accounts.get_mut(account) else {
            return AppliedRename::UnknownUser;
        };
        if from == to {
            return match users.get(from) {
                Some(user) => AppliedRename::Same(user.clone()),
                None => AppliedRename::UnknownUser,
            };
        }
        if !users.contains_key(from) {
            return AppliedRename::UnknownUser;
        }
        if users.contains_key(to) {
            return AppliedRename::NameTaken;
        }
        let Some(mut user) = users.remove(from) else {
            return AppliedRename::UnknownUser;
        };
        let from = std::mem::replace(&mut user.username, to.into());
        user.updated_at = at;
        users.insert(to.into(), user.clone());
        self.ledger.push(LedgerEntry {
            seq: self.ledger.len() as u64 + 1,
            account_id: account.clone(),
            user_id: user.id,
            from,
            to: to.into(),
            at,
        });
        AppliedRename::Applied(user)
    }
}

fn account_out<S: Serializer>(account: &AccountId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(account.as_str())
}

fn account_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AccountId, D::Error> {
    let text = String::deserialize(deserializer)?;
    AccountId::parse(&text).map_err(serde::de::Error::custom)
}

/// A name that a call can be made about.
fn username_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<str>, D::Error> {
    let text = Box::<str>::deserialize(deserializer)?;
    match Username::parse_for_path(&text) {
        Ok(_) => Ok(text),
        Err(wrong) => Err(serde::de::Error::custom(wrong)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str) -> AccountId {
        AccountId::parse(id).unwrap()
    }

    fn seed(account_id: &str, username: &str) -> NewUser {
        NewUser {
            account_id: account(account_id),
            username: username.into(),
            id: None,
        }
    }

    /// `T00000001` with ola and kari, `T00000002` with ola.
    fn table() -> (UserStore, AccountId) {
        let mut table = UserStore::new(1);
        for (account_id, username) in [
            ("T00000001", "ola"),
            ("T00000001", "kari"),
            ("T00000002", "ola"),
        ] {
            table.put(seed(account_id, username), Timestamp::UNIX_EPOCH);
        }
        (table, account("T00000001"))
    }

    #[test]
    fn a_rename_moves_the_user_and_is_put_in_the_ledger() {
        let (mut table, account) = table();
        let id = table.get(&account, "ola").unwrap().id;
        let at = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60);
        let renamed = table.rename(&account, "ola", "nils", at);
        let AppliedRename::Applied(user) = renamed else {
            panic!("{renamed:?}")
        };
        assert_eq!(
            (&*user.username, user.id, user.updated_at),
            ("nils", id, at)
        );
        assert_eq!(table.get(&account, "nils"), Some(&user));
        assert_eq!(table.get(&account, "ola"), None);
        let [entry] = table.ledger() else {
            panic!("{:?}", table.ledger())
        };
        assert_eq!(
            (entry.seq, &*entry.from, &*entry.to, entry.user_id),
            (1, "ola", "nils", id)
        );
    }

    #[test]
    fn what_takes_no_effect_is_not_in_the_ledger() {
        let (mut table, account) = table();
        let at = Timestamp::UNIX_EPOCH;
        let ola = table.get(&account, "ola").unwrap().clone();
        for (from, to, told) in [
            ("nobody", "nils", AppliedRename::UnknownUser),
            ("nobody", "kari", AppliedRename::UnknownUser),
            ("nobody", "nobody", AppliedRename::UnknownUser),
            ("ola", "kari", AppliedRename::NameTaken),
            ("ola", "ola", AppliedRename::Same(ola)),
        ] {
            assert_eq!(table.rename(&account, from, to, at), told, "{from} to {to}");
        }
        assert_eq!(table.ledger(), []);
    }

    #[test]
    fn a_name_is_free_in_another_account_and_after_it_was_left() {
        let (mut table, account) = table();
        let at = Timestamp::UNIX_EPOCH;
        for (from, to) in [("kari", "k"), ("ola", "kari"), ("k", "ola")] {
            let result = table.rename(&account, from, to, at);
            assert!(
                matches!(result, AppliedRename::Applied(_)),
                "{from} to {to}"
            );
        }
        let seqs: Vec<u64> = table.ledger().iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }

    #[test]
    fn a_seed_keeps_who_is_there_and_takes_the_id_it_gives() {
        let (mut table, _) = table();
        let before = table.get(&account("T00000001"), "ola").unwrap().id;
        let kept = table.put(seed("T00000001", "ola"), Timestamp::UNIX_EPOCH);
        assert_eq!(kept.id, before);
        let given = NewUser {
            id: Some(Uuid::nil()),
            ..seed("T00000001", "ola")
        };
        assert_eq!(table.put(given, Timestamp::UNIX_EPOCH).id, Uuid::nil());
        assert_eq!(table.all().len(), 3);
    }
}
