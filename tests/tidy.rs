//! The house rules that a compiler does not check: which way imports point, that no files import each
//! other in a circle, who may touch the outside, and that every test is run.
//!
//! Source files are parsed, not searched: `use` trees are taken apart, re-exports are followed to the
//! file that defines a name, and code under `#[cfg(test)]` is left out.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree};

/// Every module with what it is, from the lowest layer to the highest. A module imports only modules
/// above its own line. `ARCHITECTURE.md` and `lib.rs` show this list;
/// `EDGETWIN_BLESS=1 cargo test --test tidy` writes it there.
const LAYERS: [(&str, &str); 20] = [
    ("base", "units, text, time, telemetry, HTTP plumbing"),
    ("store", "the log: records, segments, snapshots, the disk"),
    ("twin", "things, changes, events, paths, merge, RQL, aggregates"),
    ("writer", "the one writer: order, batches, durability, visibility"),
    ("ditto", "Ditto's HTTP API: things, search, streams, errors"),
    ("wire", "what nodes and the edge say to each other: topics, payloads, commands, frames"),
    ("gateway", "intake of nodes' messages, outbox, external broker, serial lines"),
    ("broker", "MQTT: frames, sessions, retained messages, the listener"),
    ("edgeai", "models, training, the Open Inference Protocol"),
    ("registry", "leases, instances, balancing, Eureka's API"),
    ("trigger", "which services a change calls, and their verdicts"),
    ("kinds", "one typed struct per manifest kind"),
    ("cacc", "context-aware communication control: facts, rules, decisions, sessions"),
    ("firmware", "what a profile makes of a board; the sketch's files"),
    ("manifest", "YAML, schema, checks, diagnostics"),
    ("reconcile", "desired against actual, kind by kind; the control API"),
    ("simulate", "nodes that send synthetic data and obey commands"),
    ("runtime", "wires all of it: listeners, threads, drain"),
    ("bench", "the chain measured from outside"),
    ("cli", "the command line"),
];

/// What only an I/O file may touch: the beginning of a path, and what it is.
const OUTSIDE: [(&str, &str); 20] = [
    ("std::fs", "files"),
    ("tokio::fs", "files"),
    ("rustix::fs", "files"),
    ("std::net::TcpListener", "sockets"),
    ("std::net::TcpStream", "sockets"),
    ("std::net::UdpSocket", "sockets"),
    ("tokio::net", "sockets"),
    ("rustix::net", "sockets"),
    ("std::env", "the environment"),
    ("std::process::Command", "processes"),
    ("std::process::id", "processes"),
    ("tokio::process", "processes"),
    ("tokio::signal", "signals"),
    ("std::time::SystemTime", "a clock"),
    ("Instant::now", "a clock"),
    ("SystemTime::now", "a clock"),
    ("tokio::time", "a clock"),
    ("std::thread::sleep", "a clock"),
    ("crate::base::clock", "a clock"),
    ("rand::thread_rng", "randomness"),
];

/// The I/O boundary: files and folders (with `/` at the end) that may touch the outside, and what for.
/// An entry that is no longer needed fails.
const IO: &[(&str, &str)] = &[
    ("base/clock.rs", "reads the wall clock for everybody"),
    ("base/http/", "sockets and time limits of HTTP servers and clients"),
    ("base/telemetry/log.rs", "writes to stderr, stamps and folds lines"),
    ("bench/", "measures"),
    ("broker/listener/", "MQTT connections"),
    ("cacc/driver.rs", "feeds the controller with time, and carries out its effects"),
    ("cli/", "the command line"),
    ("ditto/http.rs", "stamps changes with the time they came; streams"),
    ("edgeai/http.rs", "serves models"),
    ("gateway/external.rs", "a client of a broker"),
    ("gateway/intake.rs", "stamps readings with the time they came"),
    ("gateway/serial.rs", "serial lines"),
    ("main.rs", "the arguments"),
    ("manifest/disk.rs", "reads manifests"),
    ("reconcile/disk.rs", "models' files"),
    ("reconcile/http.rs", "the control API"),
    ("reconcile/queue.rs", "delays and backoff"),
    ("reconcile/reconciler.rs", "reads the clock for all of reconciling"),
    ("reconcile/round.rs", "looks at everything again from time to time"),
    ("reconcile/wait.rs", "waits up to a deadline"),
    ("registry/http.rs", "Eureka's API, and leases that end"),
    ("runtime.rs", "listeners, threads, signals"),
    ("simulate/", "nodes with sockets and processes"),
    ("store/disk.rs", "the log's files"),
    ("trigger/mod.rs", "calls services"),
    ("writer/commit.rs", "measures how long the disk takes"),
];

/// Circles of files that are still to be opened: the beginning of their files' paths. An entry that is
/// no longer needed fails.
const CIRCLES: &[&str] = &[];

/// Imports that point to a higher layer and are still to be turned. An entry that is no longer needed
/// fails.
const UPWARD: &[&str] = &[];

// ------------------------------------------------------------------------------------------------
// Reading the source

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// One source file, as a module.
struct Module {
    /// `wire/topic.rs`.
    file: String,
    /// `["wire", "topic"]`.
    path: Vec<String>,
    /// What it refers to, as paths from the crate's root or from another crate's name.
    uses: BTreeSet<Vec<String>>,
    /// Names that its `use` lines make known, to others or to its children, and where they come from.
    exports: BTreeMap<String, Vec<String>>,
}

/// Whether an item is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.meta.to_token_stream().to_string().replace(' ', "") == "cfg(test)"
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// The leaves of a `use` tree: whole path, and the name that it is known by (`*` for all).
fn leaves(tree: &UseTree, before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let with = |name: String| [before, &[name]].concat();
    match tree {
        UseTree::Path(path) => leaves(&path.tree, &with(path.ident.to_string()), found),
        UseTree::Group(group) => {
            group.items.iter().for_each(|item| leaves(item, before, found));
        }
        UseTree::Name(name) if name.ident == "self" => {
            found.push((before.to_owned(), before.last().cloned().unwrap_or_default()));
        }
        UseTree::Name(name) => {
            found.push((with(name.ident.to_string()), name.ident.to_string()));
        }
        UseTree::Rename(rename) if rename.ident == "self" => {
            found.push((before.to_owned(), rename.rename.to_string()));
        }
        UseTree::Rename(rename) => {
            found.push((with(rename.ident.to_string()), rename.rename.to_string()));
        }
        UseTree::Glob(_) => found.push((before.to_owned(), "*".to_owned())),
    }
}

/// The paths in code: identifiers joined by `::`.
fn paths(tokens: TokenStream, found: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    let mut end = |path: &mut Vec<String>| {
        if path.len() > 1 {
            found.push(std::mem::take(path));
        } else {
            path.clear();
        }
    };
    let mut groups = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    end(&mut path);
                }
                path.push(name.to_string());
                colons = 0;
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => colons += 1,
            TokenTree::Group(group) => {
                end(&mut path);
                colons = 0;
                groups.push(group.stream());
            }
            _ => {
                end(&mut path);
                colons = 0;
            }
        }
    }
    end(&mut path);
    groups.into_iter().for_each(|group| paths(group, found));
}

impl Module {
    fn read(base: &Path, file: &Path) -> Self {
        let below = file.strip_prefix(base).unwrap();
        let text = fs::read_to_string(file).unwrap();
        Self::parse(below.to_str().unwrap(), &text)
    }

    fn parse(file: &str, text: &str) -> Self {
        let mut path: Vec<String> =
            file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|name| ["mod", "lib"].contains(&name.as_str())) {
            path.pop();
        }
        let mut module =
            Self { file: file.to_owned(), path, uses: BTreeSet::new(), exports: BTreeMap::new() };
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
        module.items(&parsed.items, &[]);
        module
    }

    /// * `inside`: the names of the inline modules around these items.
    fn items(&mut self, items: &[Item], inside: &[String]) {
        let here = [self.path.as_slice(), inside].concat();
        let children: BTreeSet<String> = items
            .iter()
            .filter_map(|item| match item {
                Item::Mod(item) => Some(item.ident.to_string()),
                _ => None,
            })
            .collect();
        // The names of other crates and modules that `use` made short.
        let mut short: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            if let Item::Use(item) = item {
                let mut all = Vec::new();
                leaves(&item.tree, &[], &mut all);
                for (path, name) in all {
                    let path = absolute(&here, &path, &children);
                    let public = !matches!(item.vis, syn::Visibility::Inherited);
                    let own = path.len() > here.len() + 1 && path[1..].starts_with(&here);
                    if inside.is_empty() {
                        self.exports.insert(name.clone(), path.clone());
                    }
                    // Making a child's name known is not using it.
                    if !(public && own) {
                        self.uses.insert(path.clone());
                    }
                    short.insert(name, path);
                }
            }
        }
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            match item {
                Item::Use(_) => {}
                Item::Mod(item) => {
                    if let Some((_, items)) = &item.content {
                        self.items(items, &[inside, &[item.ident.to_string()]].concat());
                    }
                }
                item => {
                    let mut all = Vec::new();
                    paths(without_tests(item), &mut all);
                    for path in all {
                        let path = match short.get(&path[0]) {
                            Some(long) => [long.as_slice(), &path[1..]].concat(),
                            None => absolute(&here, &path, &children),
                        };
                        self.uses.insert(path);
                    }
                }
            }
        }
    }
}

/// The item without its methods for tests only.
fn without_tests(item: &Item) -> TokenStream {
    let Item::Impl(block) = item else { return item.to_token_stream() };
    let mut block = block.clone();
    block.items.retain(|item| match item {
        syn::ImplItem::Fn(item) => !is_test(&item.attrs),
        _ => true,
    });
    block.to_token_stream()
}

/// A path from the crate's root (`crate::…`) or from another crate's name.
fn absolute(here: &[String], path: &[String], children: &BTreeSet<String>) -> Vec<String> {
    let crate_root = ["crate".to_owned()];
    let mut base = here.to_vec();
    match path[0].as_str() {
        "crate" => path.to_vec(),
        "self" => [&crate_root, base.as_slice(), &path[1..]].concat(),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            base.truncate(base.len().saturating_sub(ups));
            [&crate_root, base.as_slice(), &path[ups..]].concat()
        }
        first if children.contains(first) => [&crate_root, base.as_slice(), path].concat(),
        _ => path.to_vec(),
    }
}

/// All of `src`.
struct Source {
    modules: Vec<Module>,
}

impl Source {
    fn read() -> Self {
        let src = root().join("src");
        let files = rust_files(&src);
        // Unit tests in files of their own are declared under `#[cfg(test)]`.
        // Below `src` only: the checkout itself may lie in a folder of that name.
        let is_test = |file: &PathBuf| {
            let below = file.strip_prefix(&src).unwrap_or(file);
            below.iter().any(|part| part == "tests.rs" || part == "tests")
        };
        let modules =
            files.iter().filter(|file| !is_test(file)).map(|file| Module::read(&src, file));
        Self { modules: modules.collect() }
    }

    fn find(&self, path: &[String]) -> Option<usize> {
        self.modules.iter().position(|module| module.path == path)
    }

    /// The file that defines what a path names; `None` for what is not of this crate.
    fn defined_in(&self, path: &[String]) -> Option<usize> {
        if path.first().is_none_or(|first| first != "crate") {
            return None;
        }
        self.follow(&path[1..], 0)
    }

    fn follow(&self, path: &[String], depth: usize) -> Option<usize> {
        let (len, at) =
            (0..=path.len()).rev().find_map(|len| Some((len, self.find(&path[..len])?)))?;
        let module = &self.modules[at];
        let Some(name) = path.get(len) else { return Some(at) };
        if depth > 8 {
            return Some(at);
        }
        if let Some(target) = module.exports.get(name)
            && target.first().is_some_and(|first| first == "crate")
        {
            let whole = [&target[1..], &path[len + 1..]].concat();
            return self.follow(&whole, depth + 1);
        }
        Some(at)
    }

    /// Which files each file imports from.
    fn arrows(&self) -> Vec<BTreeSet<usize>> {
        let mut arrows = vec![BTreeSet::new(); self.modules.len()];
        for (from, module) in self.modules.iter().enumerate() {
            for path in &module.uses {
                if let Some(to) = self.defined_in(path).filter(|to| *to != from) {
                    arrows[from].insert(to);
                }
            }
        }
        arrows
    }
}

fn top(module: &Module) -> &str {
    module.path.first().map_or("lib", String::as_str)
}

// ------------------------------------------------------------------------------------------------
// The rules, as functions from source to what is wrong, so that planted faults can be tried

fn upward(source: &Source) -> Vec<String> {
    let place = |name: &str| LAYERS.iter().position(|(module, _)| *module == name);
    let mut wrong = BTreeSet::new();
    for module in source.modules.iter().filter(|module| !module.path.is_empty()) {
        let Some(at) = place(top(module)) else { continue };
        for path in &module.uses {
            let Some(to) = path.get(1).filter(|_| path[0] == "crate") else { continue };
            if place(to).is_some_and(|target| target > at) {
                wrong.insert(format!("{} imports {}", module.file, path.join("::")));
            }
        }
    }
    wrong.into_iter().collect()
}

/// Groups of files that import each other in a circle.
fn circles(source: &Source) -> Vec<String> {
    let arrows = source.arrows();
    let reach = |from: usize| {
        let mut seen = BTreeSet::new();
        let mut open: Vec<usize> = arrows[from].iter().copied().collect();
        while let Some(at) = open.pop() {
            if seen.insert(at) {
                open.extend(&arrows[at]);
            }
        }
        seen
    };
    let reached: Vec<BTreeSet<usize>> = (0..arrows.len()).map(reach).collect();
    let mut found = BTreeSet::new();
    for (at, from_here) in reached.iter().enumerate() {
        if from_here.contains(&at) {
            let members = from_here.iter().filter(|other| reached[**other].contains(&at));
            let files: Vec<&str> =
                members.map(|other| source.modules[*other].file.as_str()).collect();
            found.insert(files.join(" "));
        }
    }
    found.into_iter().collect()
}

/// What a file touches of the outside.
fn touches(module: &Module) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for path in &module.uses {
        let text = path.join("::");
        for (what, kind) in OUTSIDE {
            let at_start =
                text == what || text.strip_prefix(what).is_some_and(|rest| rest.starts_with("::"));
            let call = what.starts_with(char::is_uppercase)
                && (text == what || text.ends_with(&format!("::{what}")));
            if at_start || call {
                found.insert(kind);
            }
        }
    }
    found
}

fn is_io(file: &str) -> bool {
    IO.iter().any(|(io, _)| covers(io, file))
}

fn covers(entry: &str, file: &str) -> bool {
    if entry.ends_with('/') { file.starts_with(entry) } else { file == entry }
}

/// Entries of an allowance that nothing needs.
fn unneeded<'a>(entries: impl IntoIterator<Item = &'a str>, found: &[String]) -> Vec<&'a str> {
    entries.into_iter().filter(|entry| !found.iter().any(|text| text.starts_with(entry))).collect()
}

// ------------------------------------------------------------------------------------------------

#[test]
fn imports_point_to_lower_layers() {
    let found = upward(&Source::read());
    let wrong: Vec<_> =
        found.iter().filter(|text| !UPWARD.iter().any(|file| text.starts_with(file))).collect();
    assert!(wrong.is_empty(), "these imports point to a higher layer:\n{wrong:#?}");
    let unneeded = unneeded(UPWARD.iter().copied(), &found);
    assert!(unneeded.is_empty(), "no longer needed in UPWARD: {unneeded:?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circles(&Source::read());
    let wrong: Vec<_> = found
        .iter()
        .filter(|text| !CIRCLES.iter().any(|folder| text.starts_with(folder)))
        .collect();
    assert!(wrong.is_empty(), "import cycles:\n{wrong:#?}");
    let unneeded = unneeded(CIRCLES.iter().copied(), &found);
    assert!(unneeded.is_empty(), "no longer needed in CIRCLES: {unneeded:?}");
}

#[test]
fn only_io_files_touch_the_outside() {
    let source = Source::read();
    let touched: Vec<(&str, BTreeSet<&str>)> = source
        .modules
        .iter()
        .map(|module| (module.file.as_str(), touches(module)))
        .filter(|(_, touched)| !touched.is_empty())
        .collect();
    let wrong: Vec<_> = touched.iter().filter(|(file, _)| !is_io(file)).collect();
    assert!(wrong.is_empty(), "only the I/O boundary may touch these:\n{wrong:#?}");
    let unneeded: Vec<_> =
        IO.iter().filter(|(io, _)| !touched.iter().any(|(file, _)| covers(io, file))).collect();
    assert!(unneeded.is_empty(), "no longer needed in IO: {unneeded:?}");
}

#[test]
fn every_module_has_its_layer() {
    let source = Source::read();
    let found: BTreeSet<&str> =
        source.modules.iter().map(top).filter(|name| !["lib", "main"].contains(name)).collect();
    let listed: BTreeSet<&str> = LAYERS.iter().map(|(module, _)| *module).collect();
    assert_eq!(found, listed, "the folders of src and LAYERS differ");
}

/// The rules find what they are for: each fault is planted in the source as it stands.
#[test]
fn planted_faults_are_found() {
    let upward_in = |file: &str, text: &str| {
        !upward(&Source { modules: vec![Module::parse(file, text)] }).is_empty()
    };
    for import in [
        "use crate::{base::time, manifest::{Object, Code}};",
        "use crate::{manifest as m};",
        "use super::super::manifest::Object;",
        "fn f() { crate::cli::run(); }",
        "fn f() { println!(\"{}\", crate::cli::run()); }",
        "use crate::manifest::*;",
    ] {
        assert!(upward_in("store/record.rs", import), "{import}");
    }
    assert!(!upward_in("store/record.rs", "use crate::{base::time, base::units::{Size}};"));
    let upward_in_test = "#[cfg(test)] mod tests { use crate::manifest::Object; }";
    assert!(!upward_in("store/record.rs", upward_in_test));

    let touched = |text: &str| touches(&Module::parse("cacc/decide/mod.rs", text));
    for (text, what) in [
        ("use std::{collections::BTreeMap, fs};", "files"),
        ("fn f() { std::fs::read(\"x\"); }", "files"),
        ("use std::time::Instant; fn f() { let now = Instant::now(); }", "a clock"),
        ("use std::time; fn f() { let now = time::SystemTime::now(); }", "a clock"),
        ("use std::time::{Duration, SystemTime as Clock};", "a clock"),
        ("fn f() { assert!(std::time::Instant::now() > x); }", "a clock"),
        ("use crate::base::clock::now_us;", "a clock"),
        ("use crate::base::{clock, text};", "a clock"),
        ("fn f() { std::env::var(\"HOME\"); }", "the environment"),
        ("use std::env::var as setting;", "the environment"),
        ("use tokio::net::TcpStream;", "sockets"),
        ("fn f() { std::process::Command::new(\"x\"); }", "processes"),
    ] {
        assert!(touched(text).contains(what), "{text}: {:?}", touched(text));
        assert!(!is_io("cacc/decide/mod.rs"));
    }
    assert!(touched("use std::time::{Duration, Instant}; fn f(now: Instant) {}").is_empty());

    let mut source = Source::read();
    source.modules.retain(|module| module.file != "store/record.rs");
    source.modules.push(Module::parse("store/record.rs", "use super::Log; pub struct Record;"));
    let circle = circles(&source);
    assert!(circle.iter().any(|files| files.contains("store/record.rs")), "{circle:?}");
}

/// The list of layers as Markdown and rustdoc show it.
fn layers() -> String {
    let width = LAYERS.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let line = |(name, what): &(&str, &str)| format!("{name:width$}  {what}\n");
    LAYERS.iter().map(line).collect()
}

#[test]
fn documents_show_the_layers() {
    let markdown = format!("```text\n{}```\n", layers());
    let rustdoc: String = markdown.lines().map(|line| format!("//! {line}\n")).collect();
    for (file, begin, end, block) in [
        ("ARCHITECTURE.md", "<!-- layers:begin -->\n", "<!-- layers:end -->", markdown),
        ("src/lib.rs", "//! <!-- layers:begin -->\n", "//! <!-- layers:end -->", rustdoc),
    ] {
        let path = root().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(begin).unwrap_or_else(|| panic!("{file}: no {begin}"));
        let (shown, after) = rest.split_once(end).unwrap_or_else(|| panic!("{file}: no {end}"));
        if std::env::var_os("EDGETWIN_BLESS").is_some() {
            fs::write(&path, format!("{before}{begin}{block}{end}{after}")).unwrap();
        } else {
            assert_eq!(shown, block, "{file}: EDGETWIN_BLESS=1 cargo test --test tidy writes it");
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no header", path.display());
    }
}

#[test]
fn no_test_is_orphaned() {
    let tests = root().join("tests");
    for path in rust_files(&tests) {
        let below = path.strip_prefix(&tests).unwrap();
        let mut parts = below.iter();
        let (first, second) = (parts.next().unwrap(), parts.next());
        let Some(second) = second else { continue };
        let main = tests.join(first).join("main.rs");
        if second == "main.rs" || !main.exists() {
            continue;
        }
        let main = fs::read_to_string(main).unwrap();
        let name = second.to_str().unwrap().trim_end_matches(".rs");
        assert!(main.contains(&format!("mod {name};")), "{} is not run", path.display());
    }
}

#[test]
fn nothing_is_ignored_or_left_undone() {
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[allow(", "#[ignore"] {
            assert!(!text.contains(word), "{} holds {word}", path.display());
        }
    }
}

#[test]
fn every_logged_failure_has_a_remedy() {
    let mut lacking = Vec::new();
    for path in rust_files(&root().join("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for start in ["tracing::warn!(", "tracing::error!("] {
            for call in code.split(start).skip(1) {
                let call = call.split(");").next().unwrap();
                // Summaries of the log show what was logged with its remedy before.
                if !call.contains("remedy") && !call.contains("FOLDED") {
                    lacking.push(format!("{}: {start}{call}", path.display()));
                }
            }
        }
    }
    assert!(lacking.is_empty(), "what should a person do?\n{}", lacking.join("\n"));
}
