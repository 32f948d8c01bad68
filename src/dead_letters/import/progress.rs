//! How far an import came, in a file beside the one it reads.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::audit::sync_folder;

/// Everything before `bytes` is imported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) letters: u64,
    /// The id of the last of them, to know the file again.
    pub(super) last: String,
}

impl Progress {
    pub(super) fn path(file: &Path) -> PathBuf {
        beside(file, ".progress")
    }

    /// Nothing, where there is none.
    pub(super) fn load(file: &Path) -> io::Result<Self> {
        match fs::read(Self::path(file)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Whole or not at all: it is written beside and then renamed.
    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        let draft = beside(file, ".progress.new");
        let mut to = fs::File::create(&draft)?;
        to.write_all(&serde_json::to_vec(self)?)?;
        to.sync_all()?;
        fs::rename(&draft, Self::path(file))?;
        sync_folder(file)
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    name.into()
}
