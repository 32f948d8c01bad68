//! A secret, given inline or in a file that is read again at each use. It never prints, and no
//! error holds any part of it or of what was given as its file's path.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::bom::text_without_bom;

#[derive(Debug, Clone)]
pub enum Secret {
    Inline(SecretString),
    /// Read at each use, so that a rotated secret needs no restart.
    File(PathBuf),
}

/// Why there is no secret to use, to follow its key.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    #[error("is longer than 64 KiB")]
    TooLong,
    #[error("is empty")]
    Empty,
    /// Neither a URL nor HTTP Basic (RFC 7617) nor a header can carry it as it is.
    #[error("holds a line break or another control character inside")]
    ControlCharacter,
}

/// Far above any token's length, in bytes; it keeps a mistaken path from filling the memory.
const MAX_LEN: u64 = 64 * 1024;

impl Secret {
    /// The secret as it is now, without the line break that editors and `echo` leave at its end
    /// and without a byte order mark.
    ///
    /// A short blocking read when it comes from a file.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(text) => checked(text.expose_secret()),
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
    let file = std::fs::File::open(path).map_err(SecretError::Unreadable)?;
    let mut text = String::new();
    // One byte more than allowed tells too long from just long enough.
    file.take(MAX_LEN + 1)
        .read_to_string(&mut text)
        .map_err(SecretError::Unreadable)?;
    if text.len() as u64 > MAX_LEN {
        return Err(SecretError::TooLong);
    }
    checked(&text)
}

fn checked(text: &str) -> Result<SecretString, SecretError> {
    let text = trimmed(text);
    if text.is_empty() {
        return Err(SecretError::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(SecretError::ControlCharacter);
    }
    Ok(text.into())
}

/// A value without a byte order mark before it and without the line breaks at its end: a file's,
/// a variable's and a setting's alike.
pub(super) fn trimmed(text: &str) -> &str {
    text_without_bom(text).trim_end_matches(['\r', '\n'])
}

/// What is wrong with a text as a bearer token (RFC 6750), which is sent in a header.
pub fn token_fault(token: &str) -> Option<&'static str> {
    token
        .chars()
        .any(|c| c.is_control() || c.is_whitespace())
        .then_some("holds a space or control character, which no bearer token has")
}

/// What is wrong with a text as a client's id, which HTTP Basic (RFC 7617) ends at the first colon.
pub fn client_id_fault(id: &str) -> Option<&'static str> {
    id.chars()
        .any(|c| c == ':' || c.is_control())
        .then_some("holds a colon or control character, which no client's id can have")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_file_is_read_again_without_its_last_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.read(), Err(SecretError::Unreadable(_))));
        for (content, expected) in [
            ("one\n", "one"),
            (" two\r\n", " two"),
            ("three", "three"),
            ("\u{feff}four\n\n", "four"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret.read().unwrap().expose_secret(), expected);
            // A variable's text is taken as a file's is.
            let inline = Secret::inline(content);
            assert_eq!(inline.read().unwrap().expose_secret(), expected);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read(), Err(SecretError::Empty)));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert!(matches!(secret.read(), Err(SecretError::ControlCharacter)));
        std::fs::write(&path, vec![b'a'; 70_000]).unwrap();
        assert!(matches!(secret.read(), Err(SecretError::TooLong)));
    }

    #[test]
    fn debug_never_shows_it() {
        assert!(!format!("{:?}", Secret::inline("hush")).contains("hush"));
    }
}
