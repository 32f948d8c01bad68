//! Letters from a file into the queue: what `export` wrote, or an audit of discards.
//!
//! It can be killed and begun again. How far it came is kept in a file beside it, `<FILE>.progress`;
//! and of the rest, letters that are in the queue already are left out. So none is missing in the
//! end, and none is there twice.

mod progress;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Duration, timeout};

use self::progress::Progress;
use super::desk::{Desk, Step, Stop};
use super::export::Exported;
use super::letter::LetterId;
use super::selection::Selection;
use crate::broker::{Publication, Sender, Trouble};
use crate::wire::headers::{ORIGINAL_CC, ORIGINAL_EXPIRATION, ORIGINAL_USER_ID};
use crate::wire::message::{Field, Message};

/// Letters on their way at once: enough to hide the time that a confirm takes.
const WINDOW: usize = 256;
/// After so many confirms it is written down how far it came: seldom enough to cost nothing, often
/// enough that a restart has little to look up in the queue.
const NOTE_EVERY: u64 = 1000;
/// After a stop, how long confirms are still waited for.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// AMQP's mark of a message that survives the broker's restart.
const PERSISTENT: u8 = 2;

/// A file of letters, all of which can be read.
#[derive(Debug)]
pub struct Import {
    path: PathBuf,
    /// Letters in it.
    total: u64,
    progress: Progress,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportTrouble {
    #[error("line {0} is no exported letter; nothing was imported")]
    NoExport(u64),
    #[error("{0} does not belong to this file any more; remove it to begin anew")]
    Progress(PathBuf),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broker(#[from] Trouble),
}

/// What came of an import.
#[derive(Debug, Default)]
pub struct Imported {
    /// Published and confirmed.
    pub imported: u64,
    /// Left out, since the queue has them.
    pub there: u64,
    /// Done by an earlier run.
    pub before: u64,
    /// Not imported when it stopped.
    pub left: u64,
    pub stop: Option<Stop>,
}

impl Import {
    /// Opens a file and reads all of it once, so that a mistake in it is found before anything is
    /// sent.
    pub fn open(path: &Path) -> Result<Self, ImportTrouble> {
        let mut total = 0;
        let mut known = None;
        let progress = Progress::load(path)?;
        for line in lines(path, 0)? {
            let line = line?;
            total += 1;
            if line.end == progress.bytes {
                known = Some((total, LetterId::of(&line.message).full()));
            }
        }
        let begun = progress.bytes > 0;
        if begun && known != Some((progress.letters, progress.last.clone())) {
            return Err(ImportTrouble::Progress(Progress::path(path)));
        }
        Ok(Self {
            path: path.to_owned(),
            total,
            progress,
        })
    }

    /// How many letters are in the file, and how many of them an earlier run has imported.
    #[must_use]
    pub const fn size(&self) -> (u64, u64) {
        (self.total, self.progress.letters)
    }
}

/// A letter of the file, and where its line ends, in bytes.
struct Line {
    message: Message,
    end: u64,
}

fn lines(
    path: &Path,
    from: u64,
) -> io::Result<impl Iterator<Item = Result<Line, ImportTrouble>> + use<>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut file = BufReader::new(file);
    let (mut end, mut number) = (from, 0);
    let next = move || -> Result<Option<Line>, ImportTrouble> {
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
            let Exported { message } =
                serde_json::from_slice(&line).map_err(|_| ImportTrouble::NoExport(number))?;
            return Ok(Some(Line { message, end }));
        }
    };
    let mut next = next;
    Ok(std::iter::from_fn(move || next().transpose()))
}

/// The message as it can lie in the dead letters: what would remove it, copy it elsewhere or close
/// our channel is kept as a header, as the worker does.
fn as_letter(mut message: Message, exchange: &str) -> Message {
    exchange.clone_into(&mut message.exchange);
    let properties = &mut message.properties;
    properties.delivery_mode = Some(PERSISTENT);
    let mut kept = |name: &str, value: Option<Field>| {
        if let Some(value) = value {
            message.headers.insert(name.to_owned(), value);
        }
    };
    let expiration = properties.expiration.take().map(Field::from);
    kept(ORIGINAL_EXPIRATION, expiration);
    kept(ORIGINAL_USER_ID, properties.user_id.take().map(Field::from));
    let copies = message.headers.remove("CC");
    message.headers.remove("BCC");
    if let Some(copies) = copies {
        message.headers.insert(ORIGINAL_CC.to_owned(), copies);
    }
    message
}

impl Desk {
    /// Puts the file's letters into the queue, but for those that are there. When `interrupt` comes
    /// nothing more is begun.
    pub async fn import(
        &self,
        import: &mut Import,
        progress: impl Fn(Step),
        interrupt: impl Future<Output = ()>,
    ) -> Result<Imported, ImportTrouble> {
        let mut there = Selection::default();
        if import.progress.letters < import.total {
            self.survey(
                |_| {},
                |letter| {
                    there.add(letter);
                    ControlFlow::Continue(())
                },
            )
            .await?;
        }
        let sender = self.review.sender().await?;
        let mut work = Work {
            exchange: self.review.dead_letters(),
            outcome: Imported {
                before: import.progress.letters,
                ..Imported::default()
            },
            import,
            there,
            progress,
            unconfirmed: BTreeMap::new(),
            under_way: FuturesUnordered::new(),
            read: None,
            unnoted: 0,
        };
        work.run(sender, std::pin::pin!(interrupt)).await?;
        Ok(work.outcome)
    }
}

struct Work<'a, P> {
    exchange: &'a str,
    import: &'a mut Import,
    there: Selection,
    progress: P,
    /// By where their lines end: sent, and not confirmed.
    unconfirmed: BTreeMap<u64, Place>,
    under_way: FuturesUnordered<Fate>,
    /// The last line that was read.
    read: Option<(u64, Place)>,
    /// Confirmed since it was written down how far it came.
    unnoted: u64,
    outcome: Imported,
}

/// A line that was sent, by where it ends, and what comes of it.
type Fate = Pin<Box<dyn Future<Output = (u64, Publication)> + Send>>;

/// A line: how many there are up to it, and its letter.
#[derive(Clone, Copy)]
struct Place {
    letters: u64,
    id: LetterId,
    before: Option<Before>,
}

/// The line before it, to fall back on.
#[derive(Clone, Copy)]
struct Before {
    bytes: u64,
    id: LetterId,
}

impl<P: Fn(Step)> Work<'_, P> {
    async fn run(
        &mut self,
        sender: Sender,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), ImportTrouble> {
        let mut lines = lines(&self.import.path, self.import.progress.bytes)?;
        let mut more = true;
        loop {
            while more && self.goes_on() && self.unconfirmed.len() < WINDOW {
                match lines.next().transpose()? {
                    Some(line) => self.send(&sender, line).await,
                    None => more = false,
                }
            }
            if self.under_way.is_empty() || !self.goes_on() {
                break;
            }
            tokio::select! {
                biased;
                () = interrupt.as_mut() => self.stop(Stop::Interrupted),
                Some((end, fate)) = self.under_way.next() => self.told(end, &fate),
            }
            if self.unnoted >= NOTE_EVERY {
                self.note()?;
            }
        }
        self.note()?;
        self.under_way.clear();
        // Those under way are looked up in the queue by the next run.
        let trouble = timeout(LAST_WAIT, sender.close()).await.ok().flatten();
        // What ended the channel says more than that a confirm did not come.
        if let (Some(Stop::Lost), Some(trouble)) = (&self.outcome.stop, trouble) {
            self.outcome.stop = Some(trouble.into());
        }
        let done = self.outcome.before + self.outcome.imported + self.outcome.there;
        self.outcome.left = self.import.total.saturating_sub(done);
        Ok(())
    }

    async fn send(&mut self, sender: &Sender, line: Line) {
        let id = LetterId::of(&line.message);
        let (before, letters) = match self.read {
            Some((bytes, place)) => (
                Some(Before {
                    bytes,
                    id: place.id,
                }),
                place.letters + 1,
            ),
            None => (None, self.import.progress.letters + 1),
        };
        let place = Place {
            letters,
            id,
            before,
        };
        self.read = Some((line.end, place));
        if self.there.take(id) {
            self.outcome.there += 1;
            self.unnoted += 1;
            return;
        }
        self.unconfirmed.insert(line.end, place);
        let letter = as_letter(line.message, self.exchange);
        if Sender::carries(&letter) {
            let fate = sender.hand_over(letter).await;
            let end = line.end;
            self.under_way
                .push(Box::pin(async move { (end, fate.await) }));
        } else {
            self.stop(Stop::Unsendable(id));
        }
    }

    fn told(&mut self, end: u64, fate: &Publication) {
        match fate {
            Publication::Confirmed(_) => {
                self.unconfirmed.remove(&end);
                self.outcome.imported += 1;
                self.unnoted += 1;
            }
            Publication::Returned => self.stop(Stop::Returned(self.exchange.to_owned())),
            Publication::Refused => self.stop(Stop::Refused),
            Publication::Lost => self.stop(Stop::Lost),
        }
        let Imported {
            imported,
            there,
            before,
            ..
        } = self.outcome;
        (self.progress)(Step::Done {
            done: imported + there + before,
            of: self.import.total,
        });
    }

    /// Writes down up to where every line is done.
    fn note(&mut self) -> Result<(), ImportTrouble> {
        self.unnoted = 0;
        let reached = match self.unconfirmed.first_key_value() {
            Some((_, first)) => first
                .before
                .map(|before| (before.bytes, first.letters - 1, before.id)),
            None => self
                .read
                .map(|(bytes, place)| (bytes, place.letters, place.id)),
        };
        if let Some((bytes, letters, id)) = reached {
            self.import.progress = Progress {
                bytes,
                letters,
                last: id.full(),
            };
            self.import.progress.save(&self.import.path)?;
        }
        Ok(())
    }

    const fn goes_on(&self) -> bool {
        self.outcome.stop.is_none()
    }

    fn stop(&mut self, why: Stop) {
        self.outcome.stop.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests {
    use super::super::letter::tests::{headers_of, letter};
    use super::*;
    use crate::wire::headers::HeaderSource as _;

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
        let told = Import::open(&path).unwrap_err();
        assert!(matches!(told, ImportTrouble::NoExport(2)));
    }

    #[test]
    fn how_far_it_came_belongs_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters.jsonl");
        let at = |n| format!("2026-11-24T09:00:00.{n:03}Z");
        let letters = [0, 1, 2].map(|n| letter("poison", &at(n)));
        let line = |n: usize| format!("{}\n", serde_json::json!({"message": letters[n].message}));
        std::fs::write(&path, line(0) + &line(1)).unwrap();
        let progress = Progress {
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
        let told = Import::open(&path).unwrap_err();
        assert!(matches!(told, ImportTrouble::Progress(_)));
    }
}
