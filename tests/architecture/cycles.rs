//! No files import each other in a cycle. A developer can first read the files that a file uses, and then the file.
//!
//! An import of a name that a parent re-exports (`pub use child::Name`) counts as an import of the child. The re-export
//! itself does not count. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::visit::Visit;

use crate::{flatten, shown, sources};

/// Module, by its names below the crate.
type Module = Vec<String>;

/// Paths that the code of a file uses, without its tests.
#[derive(Default)]
struct Imports {
    paths: Vec<String>,
    exports: Vec<String>,
}

impl Imports {
    fn of(text: &str) -> Self {
        let mut imports = Self::default();
        imports.visit_file(&syn::parse_file(text).expect("a file that compiles"));
        imports
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|condition| condition == "test")
    })
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if is_test(&item.attrs) {
            return;
        }
        let is_export = !matches!(item.vis, syn::Visibility::Inherited);
        flatten("", &item.tree, if is_export { &mut self.exports } else { &mut self.paths });
    }

    // A visibility such as `pub(super)` is not an import.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.paths.push(words.join("::"));
        syn::visit::visit_path(self, path);
    }
}

/// Files of a source tree, and the imports of each file.
#[derive(Default)]
struct Graph {
    files: BTreeMap<Module, String>,
    /// Path of each name that a `pub use` re-exports, by module and name.
    exports: BTreeMap<(Module, String), Vec<String>>,
    paths: BTreeMap<Module, Vec<Vec<String>>>,
}

impl Graph {
    fn add(&mut self, module: Module, file: String, text: &str) {
        self.files.insert(module.clone(), file);
        let imports = Imports::of(text);
        let absolute = |path: &str| absolute(&module, path);
        for path in imports.exports.iter().filter_map(|path| absolute(path)) {
            if let Some(name) = path.last().cloned() {
                self.exports.insert((module.clone(), name), path);
            }
        }
        let paths = imports.paths.iter().filter_map(|path| absolute(path)).collect();
        self.paths.insert(module, paths);
    }

    /// Returns the module of a path: the longest prefix that is a file, followed through re-exports.
    fn resolve(&self, path: &[String], depth: usize) -> Option<&Module> {
        let (module, rest) = (0..=path.len()).rev().find_map(|length| {
            let (module, rest) = path.split_at(length);
            self.files.get_key_value(module).map(|(module, _)| (module, rest))
        })?;
        let exported = rest.first().and_then(|name| self.exports.get(&(module.clone(), name.clone())));
        match exported.filter(|exported| depth < 8 && exported.as_slice() != path) {
            Some(exported) => self.resolve(exported, depth + 1),
            None => Some(module),
        }
    }

    fn edges(&self) -> BTreeMap<&Module, BTreeSet<&Module>> {
        let targets = |(module, paths): (&'_ Module, &Vec<Vec<String>>)| {
            let used = paths.iter().filter_map(|path| self.resolve(path, 0));
            used.filter(|target| *target != module && !target.is_empty()).collect::<BTreeSet<_>>()
        };
        self.paths.iter().map(|(module, paths)| (module, targets((module, paths)))).collect()
    }

    /// Returns the groups of files that reach each other.
    fn cycles(&self) -> Vec<Vec<&str>> {
        let edges = self.edges();
        let reach: BTreeMap<&Module, BTreeSet<&Module>> =
            edges.keys().map(|module| (*module, reached_from(module, &edges))).collect();
        let mut cycles = Vec::new();
        let mut seen = BTreeSet::new();
        for (module, reached) in &reach {
            let mutual: Vec<&Module> = reached
                .iter()
                .copied()
                .filter(|other| reach.get(other).is_some_and(|back| back.contains(module)))
                .collect();
            if mutual.len() > 1 && seen.insert(mutual.clone()) {
                cycles.push(mutual.iter().filter_map(|module| self.files.get(*module)).map(String::as_str).collect());
            }
        }
        cycles
    }
}

/// Returns all modules that a module reaches. If the module is in a cycle, the result contains the module itself.
fn reached_from<'a>(module: &Module, edges: &BTreeMap<&'a Module, BTreeSet<&'a Module>>) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&Module> = edges.get(module).into_iter().flatten().copied().collect();
    while let Some(one) = next.pop() {
        if reached.insert(one) {
            next.extend(edges.get(one).into_iter().flatten().copied());
        }
    }
    reached
}

/// Returns the path below the crate that `path` means in this module. A path of another crate resolves to the module
/// itself.
fn absolute(module: &Module, path: &str) -> Option<Vec<String>> {
    let mut words: Vec<String> = path.split("::").map(str::to_owned).collect();
    let mut base = match words.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        // A child of this module, if the child exists. Otherwise the path resolves to this module.
        _ => {
            let mut base = module.clone();
            base.append(&mut words);
            return Some(base);
        }
    };
    while words.first().is_some_and(|word| word == "super") {
        words.remove(0);
        base.pop();
    }
    if words.first().is_some_and(|word| word == "crate" || word == "self") {
        words.remove(0);
    }
    base.append(&mut words);
    Some(base)
}

/// Returns the module of a file below src/, or `None` for binaries and tests.
fn module(path: &Path) -> Option<Module> {
    let shown = shown(path);
    let inside = shown.strip_prefix("src/")?.strip_suffix(".rs")?;
    let words: Module = inside.split('/').map(str::to_owned).collect();
    let is_test = words.iter().any(|word| word == "tests" || word.ends_with("_tests"));
    match words.first()?.as_str() {
        "bin" => None,
        _ if is_test => None,
        "lib" => Some(Vec::new()),
        _ => Some(words),
    }
}

#[test]
fn no_files_import_each_other() {
    let mut graph = Graph::default();
    for (path, text) in sources("src") {
        if let Some(module) = module(&path) {
            graph.add(module, shown(&path), &text);
        }
    }
    let cycles: Vec<String> = graph.cycles().iter().map(|files| files.join(" ")).collect();
    assert!(
        cycles.is_empty(),
        "these files import each other; move what both need into a file of its own:\n{}",
        cycles.join("\n")
    );
}

#[test]
fn a_cycle_is_found_through_parents_and_reexports() {
    let graph_of = |files: &[(&str, &str)]| {
        let mut graph = Graph::default();
        for (module, text) in files {
            let words = module.split("::").filter(|word| !word.is_empty()).map(str::to_owned).collect();
            graph.add(words, (*module).to_owned(), text);
        }
        graph.cycles().into_iter().map(|files| files.join(" ")).collect::<Vec<_>>()
    };
    let parent_and_child = [("a", "mod b; use b::B; pub struct A;"), ("a::b", "use super::A; pub struct B;")];
    assert_eq!(graph_of(&parent_and_child), ["a a::b"]);
    let reexported = [
        ("a", "mod b; mod c; pub use b::B; pub use c::C;"),
        ("a::b", "use super::C; pub struct B;"),
        ("a::c", "fn f() { super::b::g() } pub struct C;"),
    ];
    assert_eq!(graph_of(&reexported), ["a::b a::c"]);
    let one_way = [("a", "mod b; mod c; pub use b::B;"), ("a::b", "pub struct B;"), ("a::c", "use super::B;")];
    assert_eq!(graph_of(&one_way), Vec::<String>::new());
    let in_tests = [
        ("a", "mod b; use b::B; pub struct A;"),
        ("a::b", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
    ];
    assert_eq!(graph_of(&in_tests), Vec::<String>::new());
}
