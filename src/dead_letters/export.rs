//! Letters copied to a file: JSON lines with nothing lost, that `import` reads. The queue keeps them.
//!
//! A line is `{"letter": "<id>", "message": {…}}`. An export that was cut off goes on where it was:
//! letters that are in the file already are left out, as often as they are in it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dead_letter::{DeadLetter, LetterId};
use super::private::{self, OpenedFile};
use super::selection::LetterSelection;
use crate::messages::message::MessageView;
use crate::messages::visible::EscapingWriter;

/// Where letters are exported to.
pub struct Export {
    to: Box<dyn Write>,
    /// To be synced in the end.
    file: Option<File>,
    /// The mode that the file had, if it let others read it; it does so no longer.
    pub was_open_to_others: Option<u32>,
    already: LetterSelection,
    pub written: u64,
    pub skipped: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the file is there already: --resume adds what is missing in it")]
    Exists,
    #[error("line {0} is no exported letter; the file is left as it is")]
    NoExport(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A line to write.
#[derive(Serialize)]
struct ExportRecord<'a> {
    letter: String,
    message: &'a MessageView,
}

/// A line to read. Fields beside it, as the audit has them, are no matter.
#[derive(Deserialize)]
pub(super) struct ExportResult {
    pub(super) message: MessageView,
}

impl Export {
    /// To a new file, or to an earlier export that is gone on with.
    pub fn to_file(path: &Path, resume: bool) -> Result<Self, ExportError> {
        let opened = if resume {
            private::open_or_create(path)
        } else {
            private::create_new(path).map(|file| OpenedFile {
                file,
                was_open_to_others: None,
            })
        };
        let OpenedFile {
            file,
            was_open_to_others,
        } = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists,
            _ => ExportError::Io(error),
        })?;
        let already = already_in(&file)?;
        private::sync_folder(path)?;
        let to = BufWriter::new(file.try_clone()?);
        let to = Box::new(EscapingWriter::new(to));
        Ok(Self {
            file: Some(file),
            was_open_to_others,
            already,
            ..Self::to(to)
        })
    }

    /// Whether it can be a new file; makes none.
    pub fn can_be_new(path: &Path) -> Result<(), ExportError> {
        if path.symlink_metadata().is_ok() {
            return Err(ExportError::Exists);
        }
        Ok(private::can_be_made(path)?)
    }

    /// To anything that takes bytes.
    #[must_use]
    pub fn to(to: Box<dyn Write>) -> Self {
        Self {
            to,
            file: None,
            was_open_to_others: None,
            already: LetterSelection::default(),
            written: 0,
            skipped: 0,
        }
    }

    /// Adds a letter, unless the file has it.
    pub fn add(&mut self, letter: &DeadLetter) -> io::Result<()> {
        if self.already.remove(letter.id) {
            self.skipped += 1;
            return Ok(());
        }
        let line = ExportRecord {
            letter: letter.id.full(),
            message: &letter.message,
        };
        serde_json::to_writer(&mut self.to, &line)?;
        self.to.write_all(b"\n")?;
        self.written += 1;
        Ok(())
    }

    /// Returns once everything is where it belongs, for a file: on the disk.
    pub fn finish(&mut self) -> io::Result<()> {
        self.to.flush()?;
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }
}

/// The letters in an earlier export. A last line that was cut off is cut away.
fn already_in(file: &File) -> Result<LetterSelection, ExportError> {
    let mut already = LetterSelection::default();
    let mut lines = BufReader::new(file);
    let mut whole: u64 = 0;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bytes = lines.read_until(b'\n', &mut line)?;
        if bytes == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            file.set_len(whole)?;
            break;
        }
        let exported: ExportResult =
            serde_json::from_slice(&line).map_err(|_| ExportError::NoExport(number))?;
        already.add_id(LetterId::of(&exported.message));
        whole += bytes as u64;
    }
    Ok(already)
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::letter;

    fn letters() -> Vec<DeadLetter> {
        let at = |n| format!("2026-11-24T09:00:00.{n:03}Z");
        // Two of them are equal.
        [0, 1, 1, 2].map(|n| letter("poison", &at(n))).into()
    }

    fn export(path: &Path, resume: bool) -> Export {
        let mut export = Export::to_file(path, resume).unwrap();
        for letter in letters() {
            export.add(&letter).unwrap();
        }
        export.finish().unwrap();
        export
    }

    #[test]
    fn an_export_that_was_cut_off_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        assert_eq!(export(&path, false).written, 4);
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1, whole.len()] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let again = export(&path, true);
            assert_eq!(again.written + again.skipped, 4);
            let lines = std::fs::read_to_string(&path).unwrap();
            let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
            lines.sort();
            let whole = std::str::from_utf8(&whole).unwrap();
            let mut wanted: Vec<_> = whole.lines().map(str::to_owned).collect();
            wanted.sort();
            assert_eq!(lines, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_that_is_there_is_not_touched_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        std::fs::write(&path, "mine\n").unwrap();
        let error = Export::to_file(&path, false).unwrap_err();
        assert!(matches!(error, ExportError::Exists));
        let error = Export::to_file(&path, true).unwrap_err();
        assert!(matches!(error, ExportError::NoExport(1)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine\n");
    }
}
