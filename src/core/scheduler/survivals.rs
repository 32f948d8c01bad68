//! How often the session ended with a request in hand while this process lived on.
//!
//! RabbitMQ counts a failed delivery for each such end, but they are no evidence against the request:
//! it had been read, and did not stop the worker. Only what is left of the broker's count after them
//! is. The memory ends with the process, as it should: of what killed that, the count alone speaks.

use std::collections::HashMap;

use crate::core::scheduler::name_order::RequestIdentity;

/// Requests that are remembered, some 600 KB. Past it all are forgotten, and the broker's counts
/// speak alone.
const MAX_REQUESTS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct SurvivedSessions {
    ends: HashMap<RequestIdentity, u32>,
}

impl SurvivedSessions {
    /// A session ended with this request in hand.
    pub fn session_ended(&mut self, identity: RequestIdentity) {
        if self.ends.len() >= MAX_REQUESTS && !self.ends.contains_key(&identity) {
            self.ends.clear();
        }
        let ends = self.ends.entry(identity).or_default();
        *ends = ends.saturating_add(1);
    }

    /// What of the broker's count of failed deliveries is not explained by them.
    pub fn unexplained(&self, identity: RequestIdentity, delivery_count: u32) -> u32 {
        let explained = self.ends.get(&identity).copied().unwrap_or(0);
        delivery_count.saturating_sub(explained)
    }

    /// It has its outcome.
    pub fn forget(&mut self, identity: RequestIdentity) {
        self.ends.remove(&identity);
    }
}
