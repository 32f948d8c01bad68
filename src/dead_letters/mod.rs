//! Review of dead letters, on the queue itself: look, group, send again, discard, carry elsewhere.
//!
//! A library that prints nothing and asks nobody; the commands are its first face. [`Desk`] is where
//! a review happens. It never loses a letter: each stays in its queue until its replay is confirmed
//! or its discard is on the disk. What is pure (grouping, filtering, amending) knows no queue.

mod amend;
mod audit;
mod desk;
mod discard;
mod done;
mod explain;
mod export;
mod filter;
mod group;
mod import;
mod letter;
mod private;
mod replay;
mod search;
mod selection;
mod who;

pub use amend::{Amendments, BadSet, Set, editable};
pub use audit::Audit;
pub use desk::{Desk, Step, Stop};
pub use discard::Discarded;
pub use explain::{OTHER_REASONS, explain};
pub use export::{Export, ExportTrouble};
pub use filter::{Filter, NameTrouble, Named};
pub use group::{Group, Groups};
pub use import::{Import, ImportTrouble, Imported};
pub use letter::{Asked, Death, Letter, LetterId, WrittenBy};
pub use private::EditFolder;
pub use replay::{REFUSALS_LISTED, Refused, Replay, Replayed};
pub use search::{Searched, Visit};
pub use selection::Selection;
pub use who::Who;
