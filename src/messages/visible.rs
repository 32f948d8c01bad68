//! Text of messages as a terminal may be shown it, and as it is written in JSON.
//!
//! Whoever may publish a message chooses what its names, headers and body hold. Shown unchanged, a
//! control character moves the cursor or sets the window's title, a bidirectional mark turns a line
//! round, and an invisible character makes two names look alike. So each of them is written as JSON
//! writes it, `\u009b`, wherever text may reach a terminal: results, messages, log lines, files for
//! an editor. In JSON that is the same text; in prose it is what a person can copy into JSON.
//!
//! This is the one place that knows which characters those are.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, VariationSelector};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Blank, though Unicode counts it among the symbols.
const BRAILLE_BLANK: char = '\u{2800}';
/// What begins a sequence that sets the colour: `ESC [ 1;31 m`.
const COLOUR: &str = "\u{1b}[";

/// Whether a terminal takes the character for more, or shows less, than one visible character: the
/// categories Cc, Cf, Zl, Zp, Co and Cn, and whatever is ignorable by default.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::PrivateUse
            | GeneralCategory::Surrogate
            | GeneralCategory::Unassigned
    ) || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || CodePointSetData::new::<VariationSelector>().contains(c)
        || c == BRAILLE_BLANK
}

/// The text with every hidden character escaped, except line breaks.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_but(text, |c| c == '\n')
}

/// The text on one line: with line breaks escaped as well.
#[must_use]
pub fn escaped_line(text: &str) -> Cow<'_, str> {
    escaped_but(text, |_| false)
}

/// The text as it may stand in a file for an editor: line breaks and tabs stay, too.
#[must_use]
pub fn escaped_for_editor(text: &str) -> Cow<'_, str> {
    escaped_but(text, |c| matches!(c, '\n' | '\t'))
}

fn escaped_but(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Most text is this plain, and bodies may have many MB.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let is_to_go = |c: char| is_hidden(c) && !stays(c);
    let Some(first) = text.find(is_to_go) else {
        return Cow::Borrowed(text);
    };
    let mut written = String::with_capacity(text.len() + text.len() / 2);
    written.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_to_go(c) {
            escape(c, &mut written);
        } else {
            written.push(c);
        }
    }
    Cow::Owned(written)
}

/// As JSON writes it, beyond the first 65,536 characters as a pair.
fn escape(c: char, to: &mut String) {
    match c {
        '\n' => to.push_str("\\n"),
        '\r' => to.push_str("\\r"),
        '\t' => to.push_str("\\t"),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(to, "\\u{unit:04x}");
            }
        }
    }
}

/// Hands text on with every hidden character escaped, except line breaks. Bytes that are no UTF-8
/// become replacement characters; a character may come in pieces.
#[derive(Debug)]
pub struct EscapingWriter<W> {
    to: W,
    /// The beginning of a character whose end has not come yet; three bytes at most.
    begun: Vec<u8>,
    keeps_colours: bool,
}

impl<W: io::Write> EscapingWriter<W> {
    pub const fn new(to: W) -> Self {
        Self {
            to,
            begun: Vec::new(),
            keeps_colours: false,
        }
    }

    /// Passes on the sequences that set colours: for log lines, which have some of their own.
    pub const fn with_colours(to: W) -> Self {
        Self {
            to,
            begun: Vec::new(),
            keeps_colours: true,
        }
    }

    fn write_text(&mut self, mut text: &str) -> io::Result<()> {
        while self.keeps_colours
            && let Some(at) = text.find(COLOUR)
        {
            let (before, from) = text.split_at(at);
            self.to.write_all(escaped(before).as_bytes())?;
            let colour = colour_length(from);
            // An escape that begins no colour is a hidden character like any other.
            let (whole, rest) = from.split_at(colour.unwrap_or(1));
            let whole = match colour {
                Some(_) => Cow::Borrowed(whole),
                None => escaped(whole),
            };
            self.to.write_all(whole.as_bytes())?;
            text = rest;
        }
        self.to.write_all(escaped(text).as_bytes())
    }
}

/// How long the sequence is that the text begins with, if it sets a colour and does nothing else.
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix(COLOUR)?;
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    let sets_colour = parameters[end..].starts_with('m');
    sets_colour.then_some(COLOUR.len() + end + 1)
}

impl<W: io::Write> io::Write for EscapingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.begun);
        let joined;
        let mut rest = if all.is_empty() {
            bytes
        } else {
            all.extend_from_slice(bytes);
            joined = all;
            &joined[..]
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.write_text(text)?;
                    rest = &[];
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    self.write_text(str::from_utf8(valid).unwrap_or_default())?;
                    let Some(length) = error.error_len() else {
                        self.begun = broken.to_vec();
                        break;
                    };
                    self.to.write_all("\u{fffd}".as_bytes())?;
                    rest = &broken[length..];
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use unicode_general_category::{GeneralCategory as Category, get_general_category};

    use super::*;

    /// Default-ignorable code points of Unicode's `DerivedCoreProperties.txt` that are letters or
    /// marks, so that their category does not show it.
    const IGNORABLE: [std::ops::RangeInclusive<char>; 9] = [
        '\u{34f}'..='\u{34f}',
        '\u{115f}'..='\u{1160}',
        '\u{17b4}'..='\u{17b5}',
        '\u{180b}'..='\u{180f}',
        '\u{2065}'..='\u{2065}',
        '\u{3164}'..='\u{3164}',
        '\u{fe00}'..='\u{fe0f}',
        '\u{ffa0}'..='\u{ffa0}',
        '\u{e0000}'..='\u{e0fff}',
    ];

    fn all() -> impl Iterator<Item = char> {
        (0..=u32::from(char::MAX)).filter_map(char::from_u32)
    }

    fn is_of_a_hidden_category(c: char) -> bool {
        matches!(
            get_general_category(c),
            Category::Control
                | Category::Format
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::PrivateUse
        ) || IGNORABLE.iter().any(|range| range.contains(&c))
    }

    #[test]
    fn every_hidden_character_of_unicode_is_escaped_and_stays_itself_in_json() {
        let (mut hidden, mut unassigned) = (0, 0);
        for c in all() {
            let escaped = escaped_line(c.encode_utf8(&mut [0; 4])).into_owned();
            if is_of_a_hidden_category(c) {
                assert!(is_hidden(c), "U+{:04X}", u32::from(c));
                hidden += 1;
            }
            if is_hidden(c) {
                assert!(escaped.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                let back: String = serde_json::from_str(&format!("\"{escaped}\"")).unwrap();
                assert_eq!(back.chars().collect::<Vec<_>>(), [c]);
                unassigned += u32::from(get_general_category(c) == Category::Unassigned);
            } else {
                assert_eq!(escaped.chars().collect::<Vec<_>>(), [c]);
            }
        }
        // Private use alone has more than 137,000; a later Unicode than the one that is compared
        // with has assigned some thousands of the 820,000 that this one has not.
        assert!(hidden > 137_000, "{hidden}");
        assert!(unassigned > 800_000, "{unassigned}");
    }

    #[test]
    fn letters_marks_symbols_and_spaces_of_any_script_stay() {
        for text in [
            "Øystein O'Brien-Åse",
            "ola.nordmann+test@example.com",
            "北京 ひらがな 한국어",
            "עברית العربية हिन्दी ไทย",
            "e\u{301}\u{308} ½ € 🎉",
            "{\"a\": [1, 2]}",
        ] {
            assert_eq!(escaped_line(text), text);
        }
    }

    #[test]
    fn a_log_line_keeps_its_own_colours_and_nothing_else() {
        let mut written = Vec::new();
        EscapingWriter::with_colours(&mut written)
            .write_all("\u{1b}[1;31mERROR\u{1b}[0m a\u{1b}[2Jb\u{1b}[31 c\u{9b}31m\n".as_bytes())
            .unwrap();
        let written = String::from_utf8(written).unwrap();
        assert_eq!(
            written,
            "\u{1b}[1;31mERROR\u{1b}[0m a\\u001b[2Jb\\u001b[31 c\\u009b31m\n"
        );
    }

    #[test]
    fn bytes_that_are_no_text_reach_no_terminal() {
        let mut written = Vec::new();
        EscapingWriter::new(&mut written)
            .write_all(b"a\x9b31m\xff\xc2")
            .unwrap();
        assert_eq!(written, "a\u{fffd}31m\u{fffd}".as_bytes());
    }

    proptest! {
        #[test]
        fn a_writer_escapes_the_same_whatever_the_pieces(text in any::<String>(), piece in 1_usize..9) {
            let mut written = Vec::new();
            let mut writer = EscapingWriter::new(&mut written);
            for piece in text.as_bytes().chunks(piece) {
                writer.write_all(piece).unwrap();
            }
            let written = String::from_utf8(written).unwrap();
            prop_assert_eq!(&written, &escaped(&text));
            let raw = |c: char| is_hidden(c) && c != '\n';
            prop_assert!(!written.contains(raw));
        }

        #[test]
        fn json_means_the_same_when_it_is_escaped(text in any::<String>(), name in any::<String>()) {
            let value = serde_json::json!({name: [text]});
            for json in [value.to_string(), format!("{value:#}")] {
                let back: serde_json::Value = serde_json::from_str(&escaped(&json)).unwrap();
                prop_assert_eq!(&back, &value);
            }
        }
    }
}
