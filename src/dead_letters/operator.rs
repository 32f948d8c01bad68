//! Who reviews, for the audit and for the broker's list of connections.

use std::fmt;
use std::path::Path;

/// Where Linux tells its name; elsewhere the variable `HOSTNAME` may.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// A person on a machine: `kari@support-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Unknown in many a container.
    pub person: Option<String>,
    pub machine: String,
}

impl Operator {
    /// As the environment tells; `person` where somebody says who it is, as on shared accounts.
    #[must_use]
    pub fn from_environment(person: Option<String>) -> Self {
        let told = |name: &str| std::env::var(name).ok().filter(|told| !told.is_empty());
        let hostname = std::fs::read_to_string(Path::new(HOSTNAME_FILE)).ok();
        let hostname = hostname.map(|name| name.trim().to_owned());
        Self {
            person: person.or_else(|| told("USER")).or_else(|| told("LOGNAME")),
            machine: hostname
                .or_else(|| told("HOSTNAME"))
                .unwrap_or_else(|| "somewhere".to_owned()),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let person = self.person.as_deref().unwrap_or("somebody");
        write!(f, "{person}@{}", self.machine)
    }
}
