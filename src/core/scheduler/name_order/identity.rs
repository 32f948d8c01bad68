//! What tells requests apart, and which names they share.

use std::hash::{DefaultHasher, Hasher as _};

use uuid::Uuid;

use crate::core::model::names::folded;
use crate::core::model::request::RenameRequest;

/// What makes two deliveries the same request: its id, what it asks for, and whether a person has
/// sent it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestIdentity {
    pub request_id: Uuid,
    /// In the form that all spellings of a name have in common: an API may keep both as one.
    pub(super) names: [u64; 2],
    /// Both names as they are spelt.
    pub(super) spelling: u64,
    pub(super) replay: u64,
}

impl RequestIdentity {
    #[must_use]
    pub fn of(request: &RenameRequest, replay: Option<Uuid>) -> Self {
        let replay = replay.map_or(0, |replay| replay.as_u64_pair().1);
        Self {
            replay,
            request_id: request.request_id,
            names: [&request.username, &request.new_username]
                .map(|name| hash_of(&(&request.account_id, folded(name.reveal())))),
            spelling: hash_of(&(request.username.reveal(), request.new_username.reveal())),
        }
    }

    /// Its names, as keys of what is known of each.
    #[must_use]
    pub const fn names(&self) -> [u64; 2] {
        self.names
    }

    /// One number for it, to tell requests apart.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        hash_of(self)
    }
}

fn hash_of(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
