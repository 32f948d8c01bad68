//! Finds files that import each other in a circle.
//!
//! A file and those in its own folder (`review.rs` and `review/lock.rs`) are one module in parts, and
//! may name each other; a circle among the parts, or through another module, is found.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Seen, seen_by};

type ModulePath = Vec<String>;

/// The circles among `files`, each given as its module's path and its text. Every circle is the set of
/// the modules that reach each other.
pub fn circles(files: &[(ModulePath, &str)]) -> Vec<BTreeSet<ModulePath>> {
    let modules: BTreeSet<&ModulePath> = files.iter().map(|(module, _)| module).collect();
    let imports: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = files
        .iter()
        .map(|(module, text)| {
            let named = seen_by(module, text).into_iter().filter_map(|seen| {
                let Seen::Ours(path) = seen else { return None };
                let owner = file_of(&path, &modules)?;
                let is_part = module.starts_with(owner) || owner.starts_with(module);
                (!is_part).then_some(owner)
            });
            (module, named.collect())
        })
        .collect();
    let reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = imports
        .keys()
        .map(|module| (*module, reached_from(module, &imports)))
        .collect();
    let mut found: Vec<BTreeSet<ModulePath>> = reached
        .iter()
        .filter(|(module, from)| from.contains(**module))
        .map(|(module, from)| {
            let back = from
                .iter()
                .filter(|other| reached[**other].contains(*module));
            back.map(|other| (*other).clone()).collect()
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The file that an item lies in: the longest module that its path begins with.
fn file_of<'a>(path: &[String], modules: &BTreeSet<&'a ModulePath>) -> Option<&'a ModulePath> {
    (1..=path.len())
        .rev()
        .find_map(|length| modules.get(&path[..length].to_vec()).copied())
}

fn reached_from<'a>(
    module: &ModulePath,
    imports: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&ModulePath> = imports[module].iter().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(imports.get(next).into_iter().flatten());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(module, text)| (module.split("::").map(str::to_owned).collect(), *text))
            .collect();
        let joined = |circle: BTreeSet<ModulePath>| {
            let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
            names.join(" ")
        };
        circles(&files).into_iter().map(joined).collect()
    }

    #[test]
    fn files_that_import_each_other_are_found_however_they_name_each_other() {
        for (one, other) in [
            ("use super::b::B;", "use crate::room::a::A;"),
            ("fn f() { super::b::run() }", "use super::{a::A, c::C};"),
            (
                "fn f() { log!(\"{}\", crate::room::b::X) }",
                "type T = super::a::A;",
            ),
        ] {
            let files = [("room::a", one), ("room::b", other), ("room::c", "")];
            assert_eq!(found(&files), ["room::a room::b"], "{one} {other}");
        }
    }

    #[test]
    fn a_longer_circle_is_found_once_and_without_those_that_only_lead_to_it() {
        let files = [
            ("a", "use crate::b::B;"),
            ("b", "use crate::c::C;"),
            ("c", "use crate::a::A;"),
            ("d", "use crate::a::A;"),
        ];
        assert_eq!(found(&files), ["a b c"]);
    }

    #[test]
    fn a_module_and_its_parts_and_its_tests_are_no_circle() {
        let files = [
            ("a", "use crate::a::part::P;"),
            ("a::part", "use super::A; use crate::b::B;"),
            ("b", "#[cfg(test)] mod tests { use crate::a::part::P; }"),
        ];
        assert_eq!(found(&files), [""; 0]);
    }
}
