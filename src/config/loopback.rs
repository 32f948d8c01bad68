//! Which hosts are this machine: the one rule for whether a connection without TLS leaves it. And
//! what can be a host at all.

use std::net::IpAddr;

/// Whether a URL's host is this machine for certain: `localhost`, an address in 127.0.0.0/8, or
/// `::1`, with or without brackets. Every other name is whatever DNS says, `api.localhost` and
/// `127.evil.com` too.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether a URL's host can be one: an address, or a name of letters, digits, `.`, `-` and `_`. URL
/// parsers take more, which then neither DNS, TLS nor an HTTP request can carry.
pub(super) fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    is_ipv6 || (!host.is_empty() && host.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts() {
        for host in ["mq.example.com", "rabbit_1", "10.0.0.1", "[::1]"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["", "a{", "a b", "b\u{fc}cher", "a%20", "a;b"] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn only_localhost_and_loopback_addresses_are_this_machine() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.9.8.7",
            "::1",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "api.localhost",
            "localhost.",
            "localhost.example.com",
            "127.evil.com",
            "127.0.0.1.example.com",
            "127.1",
            "10.0.0.1",
            "0.0.0.0",
            "[::ffff:127.0.0.1]",
            "[::2]",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
