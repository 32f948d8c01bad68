//! The house rules that a compiler does not know: which room may see which, what each file says
//! of itself, how long it may be.
//!
//! It reads the sources: `use` lines, paths in code, paths inside macros. Unit tests, under
//! `#[cfg(test)]` or in a file `tests.rs`, may see anything.

mod circles;
mod imports;
mod rules;
mod vocabulary;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A file that grows to this is two files.
const LINES_MAX: usize = 600;

/// What a file should be at most; told beside the ones that are over [`LINES_MAX`].
const LINES_FAIR: usize = 400;

/// Parse, dispatch, exit code: more than this and `main` decides something.
const MAIN_LINES_MAX: usize = 40;

#[test]
fn every_dependency_points_down() {
    let mut told = String::new();
    for file in sources().iter().filter(|file| !file.is_tests()) {
        for wrong in rules::broken(&file.module, &file.text) {
            let _ = writeln!(told, "src/{}: {wrong}", file.path.display());
        }
    }
    assert!(told.is_empty(), "\n{told}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let files: Vec<_> = sources
        .iter()
        .filter(|file| !file.is_tests() && !file.module.is_empty())
        .map(|file| (file.module.clone(), file.text.as_str()))
        .collect();
    let circles = circles::circles(&files);
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|file| !file.is_tests() && !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    assert!(
        silent.is_empty(),
        "these do not open with `//!`: {silent:?}"
    );
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut lengths: Vec<_> = sources()
        .into_iter()
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > LINES_FAIR)
        .collect();
    lengths.sort_unstable();
    lengths.reverse();
    let too_long = lengths.iter().filter(|(lines, _)| *lines > LINES_MAX);
    assert_eq!(
        too_long.count(),
        0,
        "no file over {LINES_MAX} lines, few over {LINES_FAIR}: {lengths:#?}"
    );
}

#[test]
fn a_type_s_name_means_one_thing_and_is_of_the_domain() {
    use vocabulary::{ONE_WORD_MAX, SHARED_MAX};
    let mut names = vocabulary::TypeNames::default();
    for file in sources() {
        names.read(&file.path.display().to_string(), &file.text);
    }
    let (shared, of_one_word) = (names.shared(), names.of_one_word());
    let shares = (names.percent(&shared), names.percent(&of_one_word));
    println!(
        "{} % of the type definitions share a name, {} % are one word",
        shares.0, shares.1
    );
    assert!(shares.0 <= SHARED_MAX, "{} %: {shared:#?}", shares.0);
    assert!(shares.1 <= ONE_WORD_MAX, "{} %: {of_one_word:#?}", shares.1);
    let denied = names.denied();
    assert!(denied.is_empty(), "no noun of the domain: {denied:#?}");
}

#[test]
fn main_only_parses_and_dispatches() {
    let lines = fs::read_to_string(source_root().join("main.rs"))
        .unwrap()
        .lines()
        .count();
    assert!(lines <= MAIN_LINES_MAX, "src/main.rs has {lines} lines");
}

/// One file of `src`.
struct Source {
    /// Below `src`.
    path: PathBuf,
    /// As the code names it: `["broker", "link"]`; `main.rs` is `["main"]`, `lib.rs` is empty.
    module: Vec<String>,
    text: String,
}

impl Source {
    /// The unit tests of the module above, in a file of their own.
    fn is_tests(&self) -> bool {
        self.module.last().is_some_and(|name| name == "tests")
    }
}

fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let root = source_root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(&root).unwrap().to_owned();
                found.push(Source {
                    module: module_of(&below),
                    text: fs::read_to_string(&path).unwrap(),
                    path: below,
                });
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn module_of(below: &Path) -> Vec<String> {
    let mut parts: Vec<String> = below
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}
