//! Says why nothing goes on, once for each time that it does not.

use std::cell::Cell;

use indicatif::ProgressBar;

use crate::broker::Waiting;

/// What was said last of why nothing goes on.
#[derive(Debug, Default)]
pub struct Stalled(Cell<Option<Waiting>>);

impl Stalled {
    /// Says it beside the bar, unless that is what was said last.
    pub fn tell(&self, bar: &ProgressBar, waiting: Waiting) {
        if self.0.replace(Some(waiting)) != Some(waiting) {
            bar.suspend(|| say!("{waiting}; waiting, Ctrl-C to stop"));
        }
    }

    /// It goes on; whatever stops it next is said again.
    pub fn goes_on(&self) {
        self.0.set(None);
    }
}
