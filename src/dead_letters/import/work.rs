//! The import's one loop: lines in, letters out, confirms in, and now and then how far it came.

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Duration, interval};

use super::super::selection::LetterSelection;
use super::progress::ImportProgress;
use super::{Import, ImportError, ImportRecord, ImportResult, as_letter, lines};
use crate::broker::{PublishResult, Republisher};
use crate::dead_letters::dead_letter::LetterId;
use crate::dead_letters::review_session::{AbortReason, ReviewProgress};

/// Letters on their way at once: enough to hide the time that a confirm takes.
const WINDOW: usize = 256;
/// Bytes on their way at once, but for a single letter that has more.
const WINDOW_BYTES: usize = 8 << 20;
/// How often it is asked whether the broker confirms nothing.
const WATCH: Duration = Duration::from_millis(500);
/// After so many confirms it is written down how far it came: seldom enough to cost nothing, often
/// enough that a restart has little to look up in the queue.
const NOTE_EVERY: u64 = 1000;

pub(super) struct ImportRun<'a, P> {
    exchange: &'a str,
    import: &'a mut Import,
    there: LetterSelection,
    progress: P,
    /// By where their lines end: sent and not confirmed, each with what lies before it.
    unconfirmed: BTreeMap<u64, Option<Checkpoint>>,
    under_way: FuturesUnordered<RecordResult>,
    /// What those weigh.
    weight: usize,
    /// All that was read in this run.
    read: Option<Checkpoint>,
    /// Done since it was written down how far it came.
    unnoted: u64,
    outcome: ImportResult,
}

/// A line that was sent, by where it ends, and what comes of it.
type RecordResult = Pin<Box<dyn Future<Output = (u64, usize, PublishResult)> + Send>>;

/// The file up to the end of a line, as [`ImportProgress`] tells it.
#[derive(Clone, Copy)]
struct Checkpoint {
    bytes: u64,
    letters: u64,
    last: LetterId,
}

impl<'a, P: Fn(ReviewProgress)> ImportRun<'a, P> {
    pub(super) fn new(
        exchange: &'a str,
        import: &'a mut Import,
        there: LetterSelection,
        progress: P,
    ) -> Self {
        Self {
            exchange,
            outcome: ImportResult {
                before: import.progress.letters,
                ..ImportResult::default()
            },
            import,
            there,
            progress,
            unconfirmed: BTreeMap::new(),
            under_way: FuturesUnordered::new(),
            weight: 0,
            read: None,
            unnoted: 0,
        }
    }

    pub(super) async fn run(
        mut self,
        sender: Republisher,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<ImportResult, ImportError> {
        let mut lines = lines(&self.import.path, self.import.progress.bytes)?;
        let mut more = true;
        let mut watch = interval(WATCH);
        loop {
            while more && self.is_running() && self.has_room() {
                match lines.next().transpose()? {
                    Some(line) => self.send(&sender, line).await,
                    None => more = false,
                }
            }
            if self.under_way.is_empty() || !self.is_running() {
                break;
            }
            tokio::select! {
                biased;
                () = interrupt.as_mut() => self.stop(AbortReason::interrupted(sender.waiting())),
                Some((end, weight, fate)) = self.under_way.next() => {
                    self.weight -= weight;
                    self.on_result(end, &fate);
                }
                _ = watch.tick() => {
                    if let Some(waiting) = sender.waiting() {
                        (self.progress)(ReviewProgress::Waiting(waiting));
                    }
                }
            }
            if self.unnoted >= NOTE_EVERY {
                self.checkpoint()?;
            }
        }
        self.checkpoint()?;
        // Those under way are looked up in the queue by the next run.
        self.outcome.unconfirmed += self.under_way.len() as u64;
        self.under_way.clear();
        let trouble = sender.close().await;
        // What ended the channel says more than that a confirm did not come.
        if let (Some(AbortReason::Lost), Some(trouble)) = (&self.outcome.stop, trouble) {
            self.outcome.stop = Some(trouble.into());
        }
        self.outcome.left = self.import.total.saturating_sub(self.done());
        Ok(self.outcome)
    }

    async fn send(&mut self, sender: &Republisher, line: ImportRecord) {
        let id = LetterId::of(&line.message);
        let before = self.read;
        let letters = before.map_or(self.import.progress.letters, |before| before.letters);
        self.read = Some(Checkpoint {
            bytes: line.end,
            letters: letters + 1,
            last: id,
        });
        if self.there.remove(id) {
            self.outcome.there += 1;
            self.unnoted += 1;
            return;
        }
        self.unconfirmed.insert(line.end, before);
        let letter = as_letter(line.message, self.exchange);
        if Republisher::fits_frame(&letter) {
            let weight = letter.weight();
            self.weight += weight;
            let fate = sender.hand_over(letter).await;
            let end = line.end;
            self.under_way
                .push(Box::pin(async move { (end, weight, fate.await) }));
        } else {
            self.stop(AbortReason::Unsendable(id));
        }
    }

    fn on_result(&mut self, end: u64, fate: &PublishResult) {
        match fate {
            PublishResult::Confirmed(proof) => {
                self.outcome.without_properties += u64::from(!proof.is_whole());
                self.unconfirmed.remove(&end);
                self.outcome.imported += 1;
                self.unnoted += 1;
            }
            PublishResult::Returned => self.stop(AbortReason::Returned(self.exchange.to_owned())),
            PublishResult::Refused => self.stop(AbortReason::Refused),
            PublishResult::Lost => {
                self.outcome.unconfirmed += 1;
                self.stop(AbortReason::Lost);
            }
        }
        (self.progress)(ReviewProgress::Done {
            done: self.done(),
            of: self.import.total,
        });
    }

    fn has_room(&self) -> bool {
        self.unconfirmed.len() < WINDOW && self.weight < WINDOW_BYTES
    }

    const fn done(&self) -> u64 {
        self.outcome.before + self.outcome.imported + self.outcome.there
    }

    /// Writes down up to where every line is done.
    fn checkpoint(&mut self) -> Result<(), ImportError> {
        self.unnoted = 0;
        let first = self.unconfirmed.first_key_value();
        let Some(reached) = first.map_or(self.read, |(_, before)| *before) else {
            return Ok(());
        };
        self.import.progress = ImportProgress {
            bytes: reached.bytes,
            letters: reached.letters,
            last: reached.last.full(),
        };
        self.import.save_progress()
    }

    const fn is_running(&self) -> bool {
        self.outcome.stop.is_none()
    }

    /// The first reason is kept.
    fn stop(&mut self, why: AbortReason) {
        self.outcome.stop.get_or_insert(why);
    }
}
