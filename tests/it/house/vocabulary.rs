//! The names of types: each means one thing in the whole crate, and says so in a noun or two of the
//! domain.

use std::collections::BTreeMap;

use syn::Item;
use syn::visit::{self, Visit};

/// The largest share of type definitions that may have a name in common with another one, in percent.
pub const SHARED_MAX: usize = 5;
/// The largest share of type definitions whose name is one word, in percent.
pub const ONE_WORD_MAX: usize = 35;

/// Participles, pronouns and pictures that say nothing of RabbitMQ, HTTP or renames.
const DENIED: [&str; 36] = [
    "Asked", "Back", "By", "Cast", "Claim", "Desk", "Done", "Door", "Ear", "Fate", "Found",
    "Given", "Good", "Hand", "Heard", "Held", "How", "Janitor", "Kept", "Known", "Lane", "Line",
    "Often", "On", "Parcel", "Patience", "Pipe", "Pulse", "Told", "Trouble", "Way", "What",
    "Which", "Who", "Whose", "Why",
];

/// The type definitions of a crate: each name with the places that define it.
#[derive(Debug, Default)]
pub struct TypeNames(BTreeMap<String, Vec<String>>);

impl TypeNames {
    /// Adds the definitions of a file, those of its tests included.
    pub fn read(&mut self, place: &str, text: &str) {
        let file = syn::parse_file(text).expect("the sources compile, so they parse");
        let mut names = Definitions::default();
        names.visit_file(&file);
        for name in names.0 {
            self.0.entry(name).or_default().push(place.to_owned());
        }
    }

    fn total(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// The names that are defined more than once, and where.
    pub fn shared(&self) -> Vec<(&str, &[String])> {
        let shared = self.0.iter().filter(|(_, places)| places.len() > 1);
        shared.map(|(name, places)| (&**name, &**places)).collect()
    }

    /// The names of one word.
    pub fn of_one_word(&self) -> Vec<(&str, &[String])> {
        let one = self.0.iter().filter(|(name, _)| words(name) == 1);
        one.map(|(name, places)| (&**name, &**places)).collect()
    }

    /// The names that are words of the deny-list.
    pub fn denied(&self) -> Vec<(&str, &[String])> {
        let denied = self.0.iter().filter(|(name, _)| DENIED.contains(&&***name));
        denied.map(|(name, places)| (&**name, &**places)).collect()
    }

    /// The share of all definitions that these are, in percent, rounded up.
    pub fn percent(&self, of: &[(&str, &[String])]) -> usize {
        let count: usize = of.iter().map(|(_, places)| places.len()).sum();
        (count * 100).div_ceil(self.total().max(1))
    }
}

fn words(name: &str) -> usize {
    name.chars().filter(char::is_ascii_uppercase).count()
}

#[derive(Default)]
struct Definitions(Vec<String>);

impl<'ast> Visit<'ast> for Definitions {
    fn visit_item(&mut self, item: &'ast Item) {
        let name = match item {
            Item::Struct(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.0.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[&str]) -> TypeNames {
        let mut names = TypeNames::default();
        for (number, text) in files.iter().enumerate() {
            names.read(&format!("{number}.rs"), text);
        }
        names
    }

    #[test]
    fn a_name_that_two_files_define_is_found_and_counted_twice() {
        let names = read(&[
            "struct QueueNames; enum HoldCause {}",
            "type QueueNames = u8; trait ValueReader {}",
        ]);
        let shared = names.shared();
        assert_eq!(shared.len(), 1, "{shared:?}");
        assert_eq!(shared[0].0, "QueueNames");
        assert_eq!(names.percent(&shared), 50);
    }

    #[test]
    fn a_name_of_one_word_is_found_inside_functions_and_tests_too() {
        let names = read(&[
            "struct RetryPolicy; fn f() { struct Inner; } #[cfg(test)] mod tests { enum Step {} }",
        ]);
        let of_one_word: Vec<_> = names
            .of_one_word()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(of_one_word, ["Inner", "Step"]);
    }

    #[test]
    fn a_word_of_the_deny_list_is_found_whatever_kind_of_type_it_names() {
        let names = read(&[
            "struct Told; enum Kept {}",
            "trait What {} type Desk = u8; struct Parcels;",
        ]);
        let denied: Vec<_> = names.denied().into_iter().map(|(name, _)| name).collect();
        assert_eq!(denied, ["Desk", "Kept", "Told", "What"]);
    }
}
