//! The record of what was discarded: JSON lines, only ever added to, on the disk before a letter
//! goes.
//!
//! Each line holds the whole letter, so that a file of them can be imported again. It holds
//! usernames as well, so only its owner may read it.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::dead_letter::DeadLetter;
use super::operator::Operator;
use super::private::{self, OpenedFile};
use crate::broker::FsyncProof;
use crate::messages::message::MessageView;
use crate::messages::timestamp;
use crate::messages::visible::EscapingWriter;

/// Where discards are recorded.
#[derive(Debug)]
pub struct AuditLog {
    file: File,
    was_open_to_others: Option<u32>,
    by: Operator,
    because: String,
}

/// One line. The last two fields are what an export has, see `export`.
#[derive(Serialize)]
struct AuditRecord<'a> {
    action: &'static str,
    at: String,
    by: String,
    because: &'a str,
    queue: &'a str,
    reason: &'a str,
    letter: String,
    message: &'a MessageView,
}

impl AuditLog {
    /// Opens the file, or makes it. A line that was cut off, as by a full disk, is ended first.
    pub fn open(path: &Path, by: Operator, because: String) -> io::Result<Self> {
        let OpenedFile {
            mut file,
            was_open_to_others,
        } = private::open_or_create(path)?;
        if !ends_a_line(&mut file)? {
            file.write_all(b"\n")?;
        }
        private::sync_folder(path)?;
        Ok(Self {
            file,
            was_open_to_others,
            by,
            because,
        })
    }

    /// The mode that the file had, if it let others read it; it does so no longer.
    #[must_use]
    pub const fn was_open_to_others(&self) -> Option<u32> {
        self.was_open_to_others
    }

    /// Whether it can be opened, or made; does neither.
    pub fn can_be_opened(path: &Path) -> io::Result<()> {
        match private::can_be_appended_to(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => private::can_be_made(path),
            checked => checked,
        }
    }

    /// Adds letters, and returns once the disk has them.
    pub fn record<'l>(
        &mut self,
        letters: impl Iterator<Item = &'l DeadLetter>,
        queue: &str,
        now: Timestamp,
    ) -> io::Result<FsyncProof> {
        // Line by line, and not gathered: letters may be large.
        let mut lines = EscapingWriter::new(BufWriter::new(&self.file));
        for letter in letters {
            let line = AuditRecord {
                action: "discarded",
                at: timestamp::format(now),
                by: self.by.to_string(),
                because: &self.because,
                queue,
                reason: &letter.reason(),
                letter: letter.id.full(),
                message: &letter.message,
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.write_all(b"\n")?;
        }
        lines.flush()?;
        drop(lines);
        FsyncProof::by_syncing(&self.file)
    }
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 || !file.metadata()?.is_file() {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::letter;

    fn who() -> Operator {
        Operator {
            person: Some("kari".into()),
            machine: "support-3".into(),
        }
    }

    #[test]
    fn a_line_says_who_when_why_and_the_whole_letter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let letter = letter("poison", "2026-11-24T09:00:00.000Z");
        let now = timestamp::parse("2026-11-24T10:00:00Z").unwrap();
        let mut audit = AuditLog::open(&path, who(), "gone for good".into()).unwrap();
        let both = [&letter, &letter];
        audit
            .record(both.into_iter(), "rename.dead-letters", now)
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        insta::assert_json_snapshot!(line);
        let message: MessageView = serde_json::from_value(line["message"].clone()).unwrap();
        assert!(message == letter.message);
    }

    #[test]
    fn it_is_only_added_to_and_a_line_cut_off_stays_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::fs::write(&path, "{\"cut off").unwrap();
        let letter = letter("poison", "2026-11-24T09:00:00.000Z");
        for _ in 0..2 {
            let mut audit = AuditLog::open(&path, who(), "because".into()).unwrap();
            let now = Timestamp::UNIX_EPOCH;
            audit.record(std::iter::once(&letter), "q", now).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "{\"cut off");
    }

    #[test]
    fn only_its_owner_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let audit = AuditLog::open(&path, who(), "because".into()).unwrap();
        assert_eq!((mode(), audit.was_open_to_others()), (0o600, None));
        let wide = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, wide).unwrap();
        let audit = AuditLog::open(&path, who(), "because".into()).unwrap();
        assert_eq!((mode(), audit.was_open_to_others()), (0o600, Some(0o644)));
    }
}
