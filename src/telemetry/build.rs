//! Which build this is, for `/metrics`, `/status` and the log.

/// The commit this was built from, where the build says so.
pub const REVISION: &str = match option_env!("RENAME_WORKER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// The program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
