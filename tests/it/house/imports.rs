//! Reads one file's code and lists the paths that it names, ours made absolute.

use syn::{
    Attribute, ImplItemFn, Item, ItemFn, ItemMod, ItemUse, Macro, Path, UseTree,
    visit::{self, Visit},
};

/// A path that a file names.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Of this crate, from its root.
    Ours(Vec<String>),
    /// As written: another crate, or a name in scope.
    Foreign(Vec<String>),
}

/// Everything that the code of `module` names, its tests left out.
pub fn seen_by(module: &[String], text: &str) -> Vec<Seen> {
    let file = syn::parse_file(text).expect("the sources compile, so they parse");
    let mut sight = Sight {
        module: module.to_vec(),
        seen: Vec::new(),
    };
    sight.visit_file(&file);
    sight.seen
}

struct Sight {
    module: Vec<String>,
    seen: Vec<Seen>,
}

impl Sight {
    fn note(&mut self, path: Vec<String>) {
        let Some(first) = path.first() else { return };
        let (mut from, rest) = match first.as_str() {
            "crate" | "rename_worker" => (Vec::new(), &path[1..]),
            "self" => (self.module.clone(), &path[1..]),
            "super" => (self.module.clone(), &path[..]),
            _ => {
                self.seen.push(Seen::Foreign(path));
                return;
            }
        };
        let ups = rest.iter().take_while(|part| *part == "super").count();
        from.truncate(from.len().saturating_sub(ups));
        from.extend_from_slice(&rest[ups..]);
        self.seen.push(Seen::Ours(from));
    }

    fn note_use(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.note_use(&with(&path.ident), &path.tree),
            UseTree::Name(name) => self.note(with(&name.ident)),
            UseTree::Rename(rename) => self.note(with(&rename.ident)),
            UseTree::Glob(_) => self.note(before.to_vec()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_use(before, tree);
                }
            }
        }
    }
}

impl<'ast> Visit<'ast> for Sight {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Mod(ItemMod { attrs, .. })
            | Item::Use(ItemUse { attrs, .. })
            | Item::Fn(ItemFn { attrs, .. }) => attrs.as_slice(),
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        if !only_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if !only_for_tests(&function.attrs) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.note_use(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast Path) {
        // A single word is a name in scope, and its `use` line was seen.
        if path.segments.len() > 1 {
            self.note(path.segments.iter().map(|s| s.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        visit::visit_macro(self, call);
        for path in paths_among(&call.tokens.to_string()) {
            self.note(path);
        }
    }
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<Path>()
                .is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// The paths in a macro's tokens, which `syn` leaves alone: words joined by `::`.
fn paths_among(tokens: &str) -> Vec<Vec<String>> {
    // Printed tokens have blanks around `::`, or none, as they were written.
    let spaced = without_strings(tokens).replace("::", " :: ");
    let mut paths: Vec<Vec<String>> = Vec::new();
    let mut open = false;
    for word in spaced.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        match word {
            "" => {}
            "::" => open = true,
            word if open => {
                if let Some(path) = paths.last_mut() {
                    path.push(word.to_owned());
                }
                open = false;
            }
            word => paths.push(vec![word.to_owned()]),
        }
    }
    paths.retain(|path| path.len() > 1);
    paths
}

fn without_strings(tokens: &str) -> String {
    let mut kept = String::with_capacity(tokens.len());
    let mut inside = false;
    let mut escaped = false;
    for c in tokens.chars() {
        if inside {
            inside = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c == '"' {
            inside = true;
        } else {
            kept.push(c);
        }
    }
    kept
}
