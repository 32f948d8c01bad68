//! A rename request, valid once constructed.
//!
//! What a request looks like on the wire is decided in `messages`; here it is already true.

use std::fmt;

use jiff::Timestamp;
use uuid::Uuid;

/// The longest username the API takes, in characters.
pub const USERNAME_MAX_CHARS: usize = 255;

/// An account of Dintero's: `P` (production) or `T` (test) and eight digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Box<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an account id is P or T and eight digits")]
pub struct BadAccountId;

impl AccountId {
    pub fn parse(text: &str) -> Result<Self, BadAccountId> {
        match text.as_bytes() {
            [b'P' | b'T', digits @ ..]
                if digits.len() == 8 && digits.iter().all(u8::is_ascii_digit) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(BadAccountId),
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A login name of 1 to 255 characters. It identifies a person, so `Debug` hides it and there is
/// no `Display`: whoever wants the text says [`Username::reveal`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Username(Box<str>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUsername {
    #[error("a username has at least 1 character")]
    Empty,
    #[error("a username has at most 255 characters")]
    TooLong,
    /// `.` and `..` name a folder to every client and proxy on the way, never a user.
    #[error("the usernames `.` and `..` cannot be carried in a URL path")]
    DotSegment,
}

impl Username {
    /// A name as it may stand in a request's body, the new one.
    pub fn parse(text: &str) -> Result<Self, BadUsername> {
        if text.is_empty() {
            return Err(BadUsername::Empty);
        }
        // A character is at least one byte, so short texts need no counting.
        if text.len() > USERNAME_MAX_CHARS && text.chars().count() > USERNAME_MAX_CHARS {
            return Err(BadUsername::TooLong);
        }
        Ok(Self(text.into()))
    }

    /// A name that can also be carried as a path segment, the current one.
    pub fn parse_for_path(text: &str) -> Result<Self, BadUsername> {
        let name = Self::parse(text)?;
        if name.fits_path() {
            Ok(name)
        } else {
            Err(BadUsername::DotSegment)
        }
    }

    /// Whether the name can be asked about at all: `.` and `..` cannot.
    #[must_use]
    pub fn fits_path(&self) -> bool {
        !matches!(&*self.0, "." | "..")
    }

    /// The name itself. Keep it out of logs, labels and traces.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[username]")
    }
}

/// One user of one account is to bear another name.
#[derive(Clone, PartialEq, Eq)]
pub struct RenameRequest {
    pub request_id: Uuid,
    pub account_id: AccountId,
    /// The current name; always fits a path segment.
    pub username: Username,
    /// The name to be; always fits a path segment too, else it could never be confirmed.
    pub new_username: Username,
    /// Only this user may be renamed.
    pub user_id: Option<Uuid>,
    pub requested_at: Option<Timestamp>,
    pub requested_by: Option<Box<str>>,
    /// Past it the request fails instead of being tried.
    pub not_after: Option<Timestamp>,
}

impl fmt::Debug for RenameRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenameRequest")
            .field("request_id", &self.request_id)
            .field("account_id", &self.account_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_id_is_p_or_t_and_eight_digits() {
        for good in ["P12345678", "T00000000"] {
            assert_eq!(AccountId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "P1234567",
            "P123456789",
            "X12345678",
            "p12345678",
            "P1234567٣",
            "T1234 678",
        ] {
            assert_eq!(AccountId::parse(bad), Err(BadAccountId), "{bad:?}");
        }
    }

    #[test]
    fn a_username_is_counted_in_characters_not_bytes() {
        assert_eq!(Username::parse(""), Err(BadUsername::Empty));
        assert!(Username::parse(&"é".repeat(255)).is_ok());
        assert_eq!(Username::parse(&"é".repeat(256)), Err(BadUsername::TooLong));
        assert_eq!(Username::parse(&"a".repeat(256)), Err(BadUsername::TooLong));
    }

    #[test]
    fn dot_segments_are_no_path() {
        for dots in [".", ".."] {
            assert_eq!(Username::parse_for_path(dots), Err(BadUsername::DotSegment));
        }
        for fine in ["...", ".a", "a.", " .", "%2e"] {
            assert!(Username::parse_for_path(fine).is_ok(), "{fine:?}");
        }
    }

    #[test]
    fn debug_hides_the_name() {
        let name = Username::parse("ola@example.com").unwrap();
        assert_eq!(format!("{name:?}"), "[username]");
    }
}
