//! Review of dead letters, on the queue itself: look, group, send again, discard, carry elsewhere.
//!
//! A library that prints nothing and asks nobody; the commands are its first face. [`ReviewSession`] is where
//! a review happens. It never loses a letter: each stays in its queue until its replay is confirmed
//! or its discard is on the disk. What is pure (grouping, filtering, amending) knows no queue.

mod edits;
mod audit;
mod review_session;
mod discard;
mod redelivery_tracker;
mod explain;
mod export;
mod filter;
mod group;
mod import;
mod dead_letter;
mod private;
mod replay;
mod search;
mod selection;
mod operator;

pub use audit::AuditLog;
pub use dead_letter::{DeadLetter, HeaderAuthor, LetterId, RequestFields, XDeathEntry};
pub use discard::DiscardResult;
pub use edits::{BadSet, FieldEdit, LetterEdits, editable};
pub use explain::{OTHER_REASONS, explain};
pub use export::{Export, ExportError};
pub use filter::{LetterFilter, LetterRef, RefError};
pub use group::{LetterGroup, LetterGroups};
pub use import::{Import, ImportError, ImportResult};
pub use operator::Operator;
pub use private::EditFolder;
pub use replay::{REFUSALS_LISTED, RefusedLetter, ReplayOptions, ReplayResult};
pub use review_session::{AbortReason, ReviewProgress, ReviewSession};
pub use search::{LetterVisitor, SearchResult};
pub use selection::LetterSelection;
