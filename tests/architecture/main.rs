//! Permitted dependencies between modules, and limits on length.
//!
//! The compiler enforces the coarse borders (features). These tests enforce the fine borders, from the source: every
//! path that starts with `crate::` must name a module that the file's own module may use.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets what cannot be has to fail"
)]

mod cycles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned as _;
use syn::visit::Visit;

/// Each module, and the modules that it may use besides itself.
const DIRECTION: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("backoff", &[]),
    ("programs", &[]),
    ("policy", &["api", "programs"]),
    ("execution", &["api", "backoff", "policy"]),
    ("machine", &["api", "backoff", "execution"]),
    ("placement", &[]),
    ("telemetry", &["api"]),
    ("traces", &["telemetry"]),
    ("cluster", &["api", "backoff", "policy", "execution", "placement", "telemetry", "fairness"]),
    ("fairness", &[]),
    ("output", &["api", "backoff", "policy"]),
    ("ssh", &["fairness"]),
    ("launcher", &["api", "policy"]),
    ("interactive", &[]),
    (
        "fleet",
        &["api", "backoff", "policy", "execution", "machine", "cluster", "fairness", "ssh", "launcher", "telemetry"],
    ),
    (
        "runner",
        &[
            "api",
            "backoff",
            "policy",
            "execution",
            "machine",
            "cluster",
            "output",
            "ssh",
            "launcher",
            "fleet",
            "telemetry",
            "traces",
            "interactive",
        ],
    ),
    (
        "controllers",
        &[
            "api",
            "backoff",
            "policy",
            "execution",
            "machine",
            "cluster",
            "fairness",
            "output",
            "fleet",
            "runner",
            "telemetry",
            "traces",
        ],
    ),
    ("gateway", &["api", "policy", "execution", "cluster", "interactive", "output", "telemetry", "traces"]),
    ("cli", &["api", "policy", "cluster", "output"]),
    ("cli::machine", &["api", "policy", "execution", "cli", "cluster", "fleet", "ssh"]),
    ("operations", &["telemetry", "traces"]),
];

/// Crates that bring I/O, a clock or randomness. The pure core must not name them.
const IMPURE: &[&str] = &[
    "tokio",
    "futures",
    "russh",
    "tracing",
    "uuid",
    "anyhow",
    "clap",
    "object_store",
    "prometheus_client",
    "fastrand",
];
const PURE: &[&str] = &["api", "programs", "policy", "execution", "machine", "placement", "backoff", "launcher"];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;
const RECONCILE_LINES: usize = 70;
/// Divisor for the maximum number of lines of a module: 5 means a fifth of the lines of `src` without tests.
const MODULE_SHARE: usize = 5;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file below a directory, with its text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of this repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), std::fs::read_to_string(path).expect("a source file")));
            }
        }
    }
    assert!(!found.is_empty(), "there is nothing below {folder}");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Returns the module of a file below src/, or `None` for lib.rs and the binaries.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let module = first.trim_end_matches(".rs");
    // `cli::machine` has its own row, because the rest of `cli` reaches no machine.
    if inside.starts_with("cli/machine") || inside == Path::new("cli/machine.rs") {
        return Some("cli::machine".to_owned());
    }
    (!matches!(module, "lib" | "bin")).then(|| module.to_owned())
}

/// Adds the paths of a `use` to a list.
fn flatten(prefix: &str, tree: &syn::UseTree, paths: &mut Vec<String>) {
    match tree {
        syn::UseTree::Path(path) => flatten(&format!("{prefix}{}::", path.ident), &path.tree, paths),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| flatten(prefix, item, paths)),
        syn::UseTree::Name(name) => paths.push(format!("{prefix}{}", name.ident)),
        syn::UseTree::Rename(rename) => paths.push(format!("{prefix}{}", rename.ident)),
        syn::UseTree::Glob(_) => paths.push(format!("{prefix}*")),
    }
}

/// Collector of the paths in a file and of the lengths of its functions.
#[derive(Default)]
struct Reader {
    paths: Vec<String>,
    functions: Vec<(String, usize)>,
}

impl Reader {
    fn of(text: &str) -> Self {
        let mut reader = Self::default();
        reader.visit_file(&syn::parse_file(text).expect("a file that compiles"));
        reader
    }

    fn function(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
        self.functions.push((name.to_string(), span.end().line - span.start().line + 1));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        flatten("", &item.tree, &mut self.paths);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.paths.push(words.join("::"));
        syn::visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, item.span());
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, item.span());
        syn::visit::visit_impl_item_fn(self, item);
    }
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let allowed = DIRECTION.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
        let allowed =
            allowed.unwrap_or_else(|| panic!("{module} is not in the table of directions; give it its place"));
        for used in Reader::of(&text).paths {
            let Some(target) = used.strip_prefix("crate::").and_then(|rest| rest.split("::").next()) else { continue };
            if target != module && !allowed.contains(&target) {
                wrong.push(format!("{}: {module} may not use {target} ({used})", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_names_nothing_that_does_io_or_reads_a_clock() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        if !module_of(&path).is_some_and(|module| PURE.contains(&module.as_str())) || path.ends_with("tests.rs") {
            continue;
        }
        for used in Reader::of(&text).paths {
            let first = used.split("::").next().unwrap_or_default();
            let reads_clock =
                ["Timestamp::now", "Instant::now", "SystemTime::now"].iter().any(|now| used.ends_with(now));
            let does_io = ["std::fs", "std::net", "std::process", "std::env"].iter().any(|io| used.starts_with(io));
            if IMPURE.contains(&first) || reads_clock || does_io {
                wrong.push(format!("{}: {used}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "the pure core may not name these:\n{}", wrong.join("\n"));
}

/// Creation times come from the API server. So all times that are compared with them or stored next to them must come
/// from there, too.
#[test]
fn the_clock_of_this_host_is_read_in_two_places_only() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        if ["src/cluster/clock.rs", "src/ssh/clock.rs"].contains(&shown(&path).as_str()) {
            continue;
        }
        let reads =
            |used: &&String| ["Timestamp::now", "SystemTime::now", "Zoned::now"].iter().any(|now| used.ends_with(now));
        wrong.extend(Reader::of(&text).paths.iter().filter(reads).map(|used| format!("{}: {used}", shown(&path))));
    }
    assert!(wrong.is_empty(), "use Cluster::now (docs/design/20261129-one-clock.md):\n{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_stay_within_their_bounds() {
    let mut wrong = Vec::new();
    for (path, text) in ["src", "tests", "hack"].into_iter().flat_map(sources) {
        if text.lines().count() > FILE_LINES {
            wrong.push(format!("{}: {} lines, at most {FILE_LINES}", shown(&path), text.lines().count()));
        }
        for (name, lines) in Reader::of(&text).functions {
            let bound = if name.starts_with("reconcile") { RECONCILE_LINES } else { FUNCTION_LINES };
            if lines > bound {
                wrong.push(format!("{}: fn {name} has {lines} lines, at most {bound}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_holds_more_than_a_fifth_of_the_lines_without_tests() {
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in sources("src") {
        if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let module = module_of(&path).unwrap_or_else(|| "lib and bin".to_owned());
        *lines.entry(module).or_default() += code.lines().count();
    }
    let all: usize = lines.values().sum();
    for (module, of_module) in lines {
        assert!(of_module * MODULE_SHARE <= all, "{module}: {of_module} of {all} lines, so split it");
    }
}

#[test]
fn features_are_asked_for_in_lib_rs_and_cli_rs_only_and_no_module_is_a_mod_rs() {
    for (path, text) in sources("src") {
        assert!(!path.ends_with("mod.rs"), "{}: name it after its module", shown(&path));
        let asks = text.contains("cfg(feature") || text.contains("cfg(any(feature");
        // `writ machine` needs SSH, and the other commands for users do not.
        let may_ask = ["src/lib.rs", "src/cli.rs"].contains(&shown(&path).as_str());
        assert!(!asks || may_ask, "{}: cfg(feature) belongs into lib.rs", shown(&path));
    }
}

#[test]
fn the_map_names_every_module() {
    let map = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    for (module, _) in DIRECTION {
        assert!(map.contains(&format!("[`{module}`]")), "src/lib.rs does not say what {module} is for");
    }
}

#[test]
fn a_path_that_is_named_is_seen_by_these_tests() {
    let reader =
        Reader::of("use crate::{api::A, runner::{self, B as C}}; fn f() { crate::ssh::connect(); Timestamp::now(); }");
    for path in ["crate::api::A", "crate::runner::self", "crate::runner::B", "crate::ssh::connect", "Timestamp::now"] {
        assert!(reader.paths.iter().any(|seen| seen == path), "{path} in {:?}", reader.paths);
    }
    assert_eq!(reader.functions, [("f".to_owned(), 1)]);
}
