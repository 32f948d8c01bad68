//! When two spellings are one name: an API may keep names in a form of its own, with another case or
//! with accents composed.

use icu_normalizer::ComposingNormalizerBorrowed;

/// Whether both are the same name once they are case-folded and in Unicode's composed form (NFC).
#[must_use]
pub fn same_name(one: &str, other: &str) -> bool {
    one == other || folded(one) == folded(other)
}

/// The form that all spellings of a name have in common.
#[must_use]
pub fn folded(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let composer = ComposingNormalizerBorrowed::new_nfc();
    // Upper case first: it makes one of letters that have several lower-case forms, such as the two
    // sigmas, and spells out those that stand for two, such as the sharp s.
    let upper: String = composer
        .normalize(name)
        .chars()
        .flat_map(char::to_uppercase)
        .collect();
    let lower: String = upper.chars().flat_map(char::to_lowercase).collect();
    composer.normalize(&lower).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_composition_make_no_other_name() {
        for (one, other) in [
            ("ola", "ola"),
            ("Ola@Example.com", "ola@example.COM"),
            ("\u{e5}se", "A\u{30a}SE"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{3c3}\u{3c2}", "\u{3a3}\u{3a3}"),
        ] {
            assert!(
                same_name(one, other) && same_name(other, one),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn anything_else_does() {
        for (one, other) in [
            ("ola", "ola "),
            ("ola", ""),
            ("ase", "\u{e5}se"),
            ("ola", "\u{43e}la"),
            ("1", "\u{b9}"),
        ] {
            assert!(!same_name(one, other), "{one} {other}");
        }
    }
}
