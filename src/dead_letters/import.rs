//! Letters from a file into the queue: what `export` wrote, or an audit of discards.
//!
//! It can be killed and begun again. How far it came is kept in a file beside it, `<FILE>.progress`;
//! and of the rest, letters that are in the queue already are left out. So none is missing in the
//! end, and none is there twice.

mod progress;
mod work;

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use self::progress::ImportProgress;
use super::dead_letter::LetterId;
use super::export::ExportResult;
use super::review_session::{AbortReason, ReviewProgress, ReviewSession};
use super::selection::LetterSelection;
use crate::broker::BrokerError;
use crate::config::without_bom;
use crate::messages::headers::{ORIGINAL_CC, ORIGINAL_EXPIRATION, ORIGINAL_USER_ID};
use crate::messages::message::{MessageField, MessageView};

/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;

/// A file of letters, all of which can be read.
#[derive(Debug)]
pub struct Import {
    path: PathBuf,
    /// Letters in it.
    total: u64,
    progress: ImportProgress,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("line {0} is no exported letter; nothing was imported")]
    NoExport(u64),
    #[error("{0} does not belong to this file any more; remove it to begin anew")]
    Progress(PathBuf),
    #[error("cannot write down how far it comes in {}: {}; copy the file to where that can be", .0.display(), .1)]
    Note(PathBuf, io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// What came of an import.
#[derive(Debug, Default)]
pub struct ImportResult {
    /// Published and confirmed.
    pub imported: u64,
    /// Of those, how many the broker refused with their properties and headers, so that they were
    /// imported without them.
    pub without_properties: u64,
    /// Left out, since the queue has them.
    pub there: u64,
    /// Done by an earlier run.
    pub before: u64,
    /// Not imported when it stopped.
    pub left: u64,
    /// Those of them that were sent and not confirmed: the broker may have them or not.
    pub unconfirmed: u64,
    pub stop: Option<AbortReason>,
}

impl Import {
    /// Opens a file and reads all of it once, so that a mistake in it is found before anything is
    /// sent.
    pub fn open(path: &Path) -> Result<Self, ImportError> {
        let mut total = 0;
        let mut known = None;
        let progress = ImportProgress::load(path)?;
        for line in lines(path, 0)? {
            let line = line?;
            total += 1;
            if line.end == progress.bytes {
                known = Some((total, LetterId::of(&line.message).full()));
            }
        }
        let begun = progress.bytes > 0;
        if begun && known != Some((progress.letters, progress.last.clone())) {
            return Err(ImportError::Progress(ImportProgress::path(path)));
        }
        Ok(Self {
            path: path.to_owned(),
            total,
            progress,
        })
    }

    /// Where it is kept how far it came.
    #[must_use]
    pub fn progress_file(&self) -> PathBuf {
        ImportProgress::path(&self.path)
    }

    /// How many letters are in the file, and how many of them an earlier run has imported.
    #[must_use]
    pub const fn size(&self) -> (u64, u64) {
        (self.total, self.progress.letters)
    }

    /// What comes of it where it has not begun yet.
    fn interrupted(&self) -> ImportResult {
        ImportResult {
            before: self.progress.letters,
            left: self.total - self.progress.letters,
            stop: Some(AbortReason::Interrupted),
            ..ImportResult::default()
        }
    }

    fn save_progress(&self) -> Result<(), ImportError> {
        let saved = self.progress.save(&self.path);
        saved.map_err(|error| ImportError::Note(self.progress_file(), error))
    }
}

/// A letter of the file, and where its line ends, in bytes.
struct ImportRecord {
    message: MessageView,
    end: u64,
}

fn lines(
    path: &Path,
    from: u64,
) -> io::Result<impl Iterator<Item = Result<ImportRecord, ImportError>> + use<>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut file = BufReader::new(file);
    let (mut end, mut number) = (from, 0);
    let next = move || -> Result<Option<ImportRecord>, ImportError> {
        loop {
            let mut line = Vec::new();
            let bytes = file.read_until(b'\n', &mut line)?;
            if bytes == 0 {
                return Ok(None);
            }
            end += bytes as u64;
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let ExportResult { message } = serde_json::from_slice(without_bom(&line))
                .map_err(|_| ImportError::NoExport(number))?;
            return Ok(Some(ImportRecord { message, end }));
        }
    };
    let mut next = next;
    Ok(std::iter::from_fn(move || next().transpose()))
}

/// The message as it can lie in the dead letters: what would remove it, copy it elsewhere or close
/// our channel is kept as a header, as the worker does.
fn as_letter(mut message: MessageView, exchange: &str) -> MessageView {
    exchange.clone_into(&mut message.exchange);
    let properties = &mut message.properties;
    properties.delivery_mode = Some(PERSISTENT);
    let mut kept = |name: &str, value: Option<MessageField>| {
        if let Some(value) = value {
            message.headers.insert(name.to_owned(), value);
        }
    };
    let expiration = properties.expiration.take().map(MessageField::from);
    kept(ORIGINAL_EXPIRATION, expiration);
    kept(
        ORIGINAL_USER_ID,
        properties.user_id.take().map(MessageField::from),
    );
    let copies = message.headers.remove("CC");
    message.headers.remove("BCC");
    if let Some(copies) = copies {
        message.headers.insert(ORIGINAL_CC.to_owned(), copies);
    }
    message
}

impl ReviewSession {
    /// Puts the file's letters into the queue, but for those that are there. When `interrupt` comes
    /// nothing more is begun.
    pub async fn import(
        &self,
        import: &mut Import,
        progress: impl Fn(ReviewProgress),
        interrupt: impl Future<Output = ()>,
    ) -> Result<ImportResult, ImportError> {
        let mut interrupt = std::pin::pin!(interrupt);
        let mut there = LetterSelection::default();
        if import.progress.letters < import.total {
            let survey = self.scan(
                |_| {},
                |letter| {
                    there.add(letter);
                    ControlFlow::Continue(())
                },
            );
            tokio::select! {
                surveyed = survey => surveyed?,
                () = interrupt.as_mut() => return Ok(import.interrupted()),
            };
        }
        // Before anything is sent, it is found out whether that can be.
        import.save_progress()?;
        let sender = self.review.sender().await?;
        let exchange = self.review.dead_letters();
        let work = work::ImportRun::new(exchange, import, there, progress);
        work.run(sender, interrupt).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::dead_letter::tests::{headers_of, letter};
    use crate::messages::headers::HeaderSource as _;

    #[test]
    fn a_letter_comes_back_as_it_was_but_for_what_would_hurt_it() {
        let was = letter("poison", "2026-11-24T09:00:00.000Z").message;
        let mut message = was.clone();
        assert!(as_letter(message.clone(), &was.exchange).headers == was.headers);
        message.properties.expiration = Some("1".into());
        message.properties.user_id = Some("upstream".into());
        message
            .headers
            .extend(headers_of(&[("CC", "q"), ("BCC", "q")]));
        let id = LetterId::of(&message);
        let letter = as_letter(message, "e");
        assert_eq!(LetterId::of(&letter), id);
        assert_eq!(letter.properties.expiration, None);
        assert_eq!(letter.properties.user_id, None);
        assert_eq!(letter.headers.text(ORIGINAL_EXPIRATION), Some("1"));
        assert_eq!(letter.headers.text(ORIGINAL_USER_ID), Some("upstream"));
        assert_eq!(letter.headers.text(ORIGINAL_CC), Some("q"));
        assert_eq!(letter.headers.len(), was.headers.len() + 3);
    }

    #[test]
    fn a_mistake_is_found_before_anything_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        let message = letter("poison", "2026-11-24T09:00:00.000Z").message;
        let line = serde_json::json!({"letter": "x", "message": message});
        std::fs::write(&path, format!("{line}\n\n{line}\n")).unwrap();
        assert_eq!(Import::open(&path).unwrap().size(), (2, 0));
        std::fs::write(&path, format!("{line}\n{{\"letter\":\"x\"")).unwrap();
        let error = Import::open(&path).unwrap_err();
        assert!(matches!(error, ImportError::NoExport(2)));
    }

    #[test]
    fn how_far_it_came_belongs_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        let at = |n| format!("2026-11-24T09:00:00.{n:03}Z");
        let letters = [0, 1, 2].map(|n| letter("poison", &at(n)));
        let line = |n: usize| format!("{}\n", serde_json::json!({"message": letters[n].message}));
        std::fs::write(&path, line(0) + &line(1)).unwrap();
        let progress = ImportProgress {
            bytes: line(0).len() as u64,
            letters: 1,
            last: letters[0].id.full(),
        };
        progress.save(&path).unwrap();
        assert_eq!(Import::open(&path).unwrap().size(), (2, 1));
        // The same letters and one more, as an export that went on.
        std::fs::write(&path, line(0) + &line(1) + &line(2)).unwrap();
        assert_eq!(Import::open(&path).unwrap().size(), (3, 1));
        std::fs::write(&path, line(2)).unwrap();
        let error = Import::open(&path).unwrap_err();
        assert!(matches!(error, ImportError::Progress(_)));
    }
}
