//! The byte order mark that some editors put before a text.

/// U+FEFF as UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// A file's bytes without the byte order mark that may begin them.
#[must_use]
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// A text without the byte order mark that may begin it.
#[must_use]
pub fn text_without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_at_the_beginning_is_left_out() {
        assert_eq!(without_bom(b"\xef\xbb\xbfa"), b"a");
        assert_eq!(without_bom(b"a\xef\xbb\xbf"), b"a\xef\xbb\xbf");
        assert_eq!(text_without_bom("\u{feff}a\u{feff}"), "a\u{feff}");
        assert_eq!(without_bom(b""), b"");
    }
}
