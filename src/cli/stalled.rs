//! Says why nothing goes on, once for each time that it does not.

use std::cell::Cell;

use indicatif::ProgressBar;

use crate::broker::PublishWait;

/// What was said last of why nothing goes on.
#[derive(Debug, Default)]
pub struct StallWatch(Cell<Option<PublishWait>>);

impl StallWatch {
    /// Says it beside the bar, unless that is what was said last.
    pub fn show(&self, bar: &ProgressBar, waiting: PublishWait) {
        if self.0.replace(Some(waiting)) != Some(waiting) {
            bar.suspend(|| say!("{waiting}; waiting, Ctrl-C to stop"));
        }
    }

    /// It goes on; whatever stops it next is said again.
    pub fn goes_on(&self) {
        self.0.set(None);
    }
}
