//! File descriptors: the process takes what it may have, and the admin port leaves enough of them
//! for the broker and the API.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the largest worker needs: 10,000 calls in flight (`consumer.concurrency`), as many
/// requests traced, and room. The hard limit may be a billion, and nobody needs that.
const WANTED: u64 = 65_536;

/// Connections to the admin port at once: Prometheus, two probes, a person's browser and `status`,
/// ten times over for several of each, and room for those that hang. Each may take some 40 KiB.
const CONNECTIONS_MAX: usize = 256;

/// The part of the descriptors that the admin port may take where they are few.
const SHARE: u64 = 8;

/// So many are always taken: a probe and a scrape must find a place beside idle ones.
const CONNECTIONS_MIN: usize = 8;

/// What the process needs besides calls and admin connections: standard streams, the runtime's own,
/// listeners, connections to the broker and those being tried, certificates and secrets being read.
const BASE: u64 = 48;

/// How many descriptors the process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// None where there is no limit.
    limit: Option<u64>,
}

impl DescriptorBudget {
    /// Raises the limit as far as the process may and is of use, and says what it is then.
    #[must_use]
    pub fn raise() -> Self {
        let now = getrlimit(Resource::Nofile);
        if let Some(wanted) = raised(now) {
            // Where it is refused, the limit stays as it is, which is what is read below.
            let _ = setrlimit(Resource::Nofile, wanted);
        }
        Self {
            limit: getrlimit(Resource::Nofile).current,
        }
    }

    /// As they are.
    #[must_use]
    pub fn current() -> Self {
        Self {
            limit: getrlimit(Resource::Nofile).current,
        }
    }

    /// How many connections the admin port may have open.
    #[must_use]
    pub fn admin_connections(self) -> usize {
        let share = self.limit.map_or(u64::MAX, |limit| limit / SHARE);
        usize::try_from(share)
            .unwrap_or(usize::MAX)
            .clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
    }

    /// What is wrong where so many calls may be in flight at once, for a person to mend.
    #[must_use]
    pub fn too_few_for(self, concurrency: u16) -> Option<String> {
        let limit = self.limit?;
        let admin = u64::try_from(self.admin_connections()).unwrap_or(u64::MAX);
        let needed = BASE + admin + u64::from(concurrency);
        (limit < needed).then(|| {
            format!(
                "the process may have {limit} files open, but consumer.concurrency = {concurrency} \
                 may need {needed}: raise the limit (ulimit -n, LimitNOFILE) or lower \
                 consumer.concurrency"
            )
        })
    }
}

/// The limits to ask for, where they are of use.
fn raised(Rlimit { current, maximum }: Rlimit) -> Option<Rlimit> {
    let wanted = maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
    current
        .is_some_and(|current| current < wanted)
        .then_some(Rlimit {
            current: Some(wanted),
            maximum,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_and_is_of_use() {
        for (current, maximum, wanted) in [
            (Some(1024), Some(524_288), Some(65_536)),
            (Some(1024), Some(4096), Some(4096)),
            (Some(1024), None, Some(65_536)),
            (Some(1024), Some(1024), None),
            (Some(65_536), Some(524_288), None),
            (Some(1_048_576), Some(1_048_576), None),
            (None, None, None),
        ] {
            let asked = raised(Rlimit { current, maximum });
            let asked = asked.map(|limit| (limit.current, limit.maximum));
            let expected = wanted.map(|wanted| (Some(wanted), maximum));
            assert_eq!(asked, expected, "{current:?} of {maximum:?}");
        }
    }

    #[test]
    fn where_descriptors_are_few_the_admin_port_takes_few_of_them() {
        for (limit, connections) in [
            (Some(32), 8),
            (Some(128), 16),
            (Some(1024), 128),
            (Some(2048), 256),
            (Some(65_536), 256),
            (None, 256),
        ] {
            let descriptors = DescriptorBudget { limit };
            assert_eq!(descriptors.admin_connections(), connections, "{limit:?}");
        }
    }

    #[test]
    fn too_few_for_the_calls_that_may_be_in_flight_is_said() {
        let few = |limit| DescriptorBudget { limit: Some(limit) };
        assert_eq!(few(1024).too_few_for(64), None);
        assert_eq!(few(65_536).too_few_for(10_000), None);
        assert_eq!(DescriptorBudget { limit: None }.too_few_for(10_000), None);
        let said = few(1024).too_few_for(1000).unwrap();
        assert!(said.contains("1024") && said.contains("1176"), "{said}");
    }
}
