//! Text for a terminal: lines, bars, and nothing that a letter could do to the screen.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use super::super::stalled::StallWatch;
use crate::dead_letters::{LetterGroup, ReviewProgress};
use crate::messages::timestamp;
use crate::messages::visible::escaped_line;

/// Characters of a detail on a line; `show` and `--json` have all of it.
pub const DETAIL_MAX: usize = 70;
/// Bytes on a line of a dump.
const DUMP_WIDTH: usize = 16;

/// The text on one line, without anything that a terminal takes for more than text.
pub fn escape_control_chars(text: &str) -> String {
    escaped_line(text).into_owned()
}

/// The same, and no longer than so many characters.
pub fn truncate(text: &str, most: usize) -> String {
    let cleaned = escape_control_chars(text);
    if cleaned.char_indices().nth(most).is_none() {
        return cleaned;
    }
    let kept: String = cleaned.chars().take(most.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// `2026-11-24 09:00:00Z`, or a dash.
pub fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| {
            let text = timestamp::format(at);
            let (seconds, _) = text.split_once('.').unwrap_or((&text, ""));
            format!("{}Z", seconds.replace('T', " "))
        },
    )
}

/// `1 letter`, `2 letters`
pub fn letters(count: u64) -> String {
    if count == 1 {
        "1 letter".to_owned()
    } else {
        format!("{count} letters")
    }
}

/// `; 3 were there; 4 are left`, without those that are none.
pub fn counted<const N: usize>(counts: [(u64, &str); N]) -> String {
    let mut text = String::new();
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {count} {what}");
    }
    text
}

/// The groups, one a line.
pub fn table(groups: &[LetterGroup]) -> String {
    if groups.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["COUNT", "REASON", "DETAIL", "FIRST", "LAST", "EXAMPLE"]);
    for group in groups {
        table.add_row([
            group.count.to_string(),
            truncate(&group.reason, DETAIL_MAX),
            truncate(&group.detail, DETAIL_MAX),
            time(group.first),
            time(group.last),
            group.example.to_string(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(counts) = table.column_mut(0) {
        counts.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt() + "\n"
}

/// Bytes in hexadecimal digits with what they may mean beside.
pub fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (nth, line) in bytes.chunks(DUMP_WIDTH).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = line.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        });
        let (hex, shown) = (hex.join(" "), shown.collect::<String>());
        let at = nth * DUMP_WIDTH;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{at:06x}  {hex:<47}  {shown}");
    }
    text
}

/// A bar on a terminal; elsewhere nothing is drawn.
pub struct ProgressLine {
    bar: ProgressBar,
    stalled: StallWatch,
}

impl ProgressLine {
    pub fn new(what: &'static str) -> Self {
        let bar = ProgressBar::no_length();
        let style = "{msg:10} {bar:40} {human_pos} of {human_len}, {eta} to go";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self {
            bar,
            stalled: StallWatch::default(),
        }
    }

    pub fn show(&self, step: ReviewProgress) {
        match step {
            ReviewProgress::Done { done, of } => {
                self.stalled.goes_on();
                self.bar.set_length(of);
                self.bar.set_position(done);
            }
            ReviewProgress::Waiting(waiting) => self.stalled.show(&self.bar, waiting),
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_cannot_write_on_the_screen_what_it_wants() {
        assert_eq!(
            escape_control_chars("Øystein\u{1b}[2J\r\n\u{202e}x"),
            "Øystein\\u001b[2J\\r\\n\\u202ex"
        );
        assert_eq!(truncate("Øystein", 7), "Øystein");
        assert_eq!(truncate("Øystein", 6), "Øyste…");
    }

    #[test]
    fn bytes_are_dumped_with_what_they_may_mean() {
        assert_eq!(
            dump(b"\xff\x00not JSON, not UTF-8"),
            "000000  ff 00 6e 6f 74 20 4a 53 4f 4e 2c 20 6e 6f 74 20  ..not JSON, not \n\
             000010  55 54 46 2d 38                                   UTF-8\n"
        );
    }
}
