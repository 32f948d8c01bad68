//! Which of Dintero's two calls a path asks for.
//!
//! A name is one raw segment, decoded once and never split again, so `%2F` in a name reaches no
//! other route. `.` and `..` are no names here either: nothing carries them in a path.

use std::borrow::Cow;

use axum::http::Method;
use percent_encoding::percent_decode_str;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SandboxRoute<'a> {
    ChangeUsername {
        account: &'a str,
        username: Cow<'a, str>,
    },
    Token {
        account: &'a str,
    },
    /// One of the two paths, but not `POST`.
    NotPost,
    /// The name's segment is not UTF-8.
    NotText,
    Unknown,
}

impl<'a> SandboxRoute<'a> {
    /// Reads the path as it came, still encoded.
    pub(super) fn of(method: &Method, path: &'a str) -> Self {
        let route = Self::of_path(path).unwrap_or(Self::Unknown);
        if route != Self::Unknown && method != Method::POST {
            return Self::NotPost;
        }
        route
    }

    fn of_path(path: &'a str) -> Option<Self> {
        let (account, rest) = path.strip_prefix("/v1/accounts/")?.split_once('/')?;
        if rest == "auth/token" {
            return Some(Self::Token { account });
        }
        let (segment, rest) = rest.strip_prefix("auth/users/")?.split_once('/')?;
        if rest != "change_username" {
            return None;
        }
        match percent_decode_str(segment).decode_utf8() {
            Err(_) => Some(Self::NotText),
            Ok(name) if matches!(&*name, "" | "." | "..") => None,
            Ok(username) => Some(Self::ChangeUsername { account, username }),
        }
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn change(username: &str) -> SandboxRoute<'_> {
        SandboxRoute::ChangeUsername {
            account: "T12345678",
            username: username.into(),
        }
    }

    #[test]
    fn only_the_two_paths_are_routes() {
        let token = SandboxRoute::Token {
            account: "T12345678",
        };
        for (path, route) in [
            ("/v1/accounts/T12345678/auth/token", token),
            (
                "/v1/accounts/T12345678/auth/users/ola/change_username",
                change("ola"),
            ),
            (
                "/v1/accounts/T12345678/auth/users/a%2Fb/change_username",
                change("a/b"),
            ),
            (
                "/v1/accounts/T12345678/auth/users/%25%3F%23/change_username",
                change("%?#"),
            ),
            (
                "/v1/accounts/T12345678/auth/users/a+b/change_username",
                change("a+b"),
            ),
            (
                "/v1/accounts/T12345678/auth/users/%2E/change_username",
                SandboxRoute::Unknown,
            ),
            (
                "/v1/accounts/T12345678/auth/users/../change_username",
                SandboxRoute::Unknown,
            ),
            (
                "/v1/accounts/T12345678/auth/users//change_username",
                SandboxRoute::Unknown,
            ),
            (
                "/v1/accounts/T12345678/auth/users/a/b/change_username",
                SandboxRoute::Unknown,
            ),
            (
                "/v1/accounts/T12345678/auth/users/%FF/change_username",
                SandboxRoute::NotText,
            ),
            (
                "/v1/accounts/T12345678/auth/users/ola/change_username/",
                SandboxRoute::Unknown,
            ),
            (
                "/v1/accounts/T12345678/auth/users/ola",
                SandboxRoute::Unknown,
            ),
            ("/v1/accounts/T12345678/auth/token/", SandboxRoute::Unknown),
            (
                "/v1/accounts/T12345678%2Fauth%2Ftoken",
                SandboxRoute::Unknown,
            ),
            ("/accounts/T12345678/auth/token", SandboxRoute::Unknown),
            ("/", SandboxRoute::Unknown),
        ] {
            assert_eq!(SandboxRoute::of(&Method::POST, path), route, "{path}");
        }
    }

    #[test]
    fn another_method_is_told_apart_from_another_path() {
        let path = "/v1/accounts/T12345678/auth/users/ola/change_username";
        assert_eq!(SandboxRoute::of(&Method::GET, path), SandboxRoute::NotPost);
        assert_eq!(
            SandboxRoute::of(&Method::GET, "/v1/nothing"),
            SandboxRoute::Unknown
        );
    }

    proptest! {
        #[test]
        fn any_name_encoded_as_a_segment_is_looked_up_as_it_is(
            name in any::<String>().prop_filter("no path carries it", |name| {
                !matches!(&**name, "" | "." | "..")
            })
        ) {
            let segment = utf8_percent_encode(&name, NON_ALPHANUMERIC);
            let path = format!("/v1/accounts/T12345678/auth/users/{segment}/change_username");
            prop_assert_eq!(SandboxRoute::of(&Method::POST, &path), change(&name));
        }
    }
}
