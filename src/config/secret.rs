//! A secret, given inline or in a file that is read anew at each use. It never prints.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

#[derive(Debug, Clone)]
pub enum Secret {
    Inline(SecretString),
    /// Read at each use, so that a rotated secret needs no restart.
    File(PathBuf),
}

/// Why a secret's file gave none.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in {}: {cause}", path.display())]
    Unreadable {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("the secret in {} is longer than 64 KiB", path.display())]
    TooLong { path: PathBuf },
    #[error("the secret in {} is empty", path.display())]
    Empty { path: PathBuf },
}

/// Far above any token's length, in bytes; it keeps a mistaken path from filling the memory.
const MAX_LEN: u64 = 64 * 1024;

impl Secret {
    /// The secret as it is now, without the line break that editors leave at a file's end.
    ///
    /// A short blocking read when it comes from a file.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(text) => Ok(text.clone()),
            Self::File(path) => read_file(path),
        }
    }

    #[must_use]
    pub fn inline(text: &str) -> Self {
        Self::Inline(text.into())
    }

    /// The file it is in, if it is in one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Inline(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

fn read_file(path: &Path) -> Result<SecretString, SecretError> {
    let unreadable = |cause| SecretError::Unreadable {
        path: path.into(),
        cause,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    // One byte more than allowed tells too long from just long enough.
    file.take(MAX_LEN + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_LEN {
        return Err(SecretError::TooLong { path: path.into() });
    }
    let kept = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(kept);
    let secret = SecretString::from(text);
    if secret.expose_secret().is_empty() {
        return Err(SecretError::Empty { path: path.into() });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_read_anew_without_its_last_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.read(), Err(SecretError::Unreadable { .. })));
        for (content, expected) in [("one\n", "one"), (" two\r\n", " two"), ("three", "three")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret.read().unwrap().expose_secret(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Empty { .. })));
        std::fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::TooLong { .. })));
    }

    #[test]
    fn debug_never_shows_it() {
        assert!(!format!("{:?}", Secret::inline("hush")).contains("hush"));
    }
}
