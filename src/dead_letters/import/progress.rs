//! How far an import came, in a file beside the one it reads.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::private;

/// A progress file has about 80 bytes; whatever is longer is none.
const LENGTH_MAX: u64 = 4096;

/// Everything before `bytes` is imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImportProgress {
    pub(super) bytes: u64,
    pub(super) letters: u64,
    /// The id of the last of them, to know the file again.
    pub(super) last: String,
}

impl ImportProgress {
    pub(super) fn path(file: &Path) -> PathBuf {
        beside(file, ".progress")
    }

    /// Nothing, where there is none.
    pub(super) fn load(file: &Path) -> io::Result<Self> {
        let found = match private::open_to_read(&Self::path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            found => found?,
        };
        let mut content = Vec::new();
        found.take(LENGTH_MAX).read_to_end(&mut content)?;
        Ok(serde_json::from_slice(&content)?)
    }

    /// Whole or not at all: it is written beside and then renamed.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let content = serde_json::to_vec(self)?;
        private::replace(&Self::path(file), &beside(file, ".progress.new"), &content)
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    name.into()
}
