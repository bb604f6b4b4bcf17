//! Paths to texts: the one place of this module that touches files.
//!
//! A path is a file, a directory (searched through, sorted, `*.yaml` and `*.yml`), or `-` for
//! standard input. A path that cannot be read is a diagnostic like any other mistake, so one run
//! reports it beside the rest.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::diagnostic::{self, Code, Diagnostic};
use super::object::Object;
use super::parse::{Parsed, parse};
use super::region::{Position, Region};
use super::source::Source;
use super::yaml::{self, SOURCE_BYTES_MAX};
use crate::kinds::{DATA_ANNOTATION, Spec};

/// Most files of one run. A tree with more is not a manifest directory.
pub const FILES_MAX: usize = 100_000;

/// Deepest directory that is searched; symbolic links to directories are not followed.
const DIRECTORY_DEPTH_MAX: usize = 32;

/// Reads and parses all paths together; see [`parse`].
pub fn load(paths: &[String], known: &[Object]) -> Parsed {
    let (sources, mut diagnostics) = read(paths);
    let mut parsed = parse(&sources, known);
    let unreadable = diagnostics.len();
    diagnostics.extend(parsed.objects.iter().filter_map(|object| missing_file(object, &sources)));
    if !diagnostics.is_empty() {
        parsed.files += unreadable;
        diagnostics.append(&mut parsed.diagnostics);
        parsed.diagnostics = diagnostics;
        diagnostic::finish(&mut parsed.diagnostics, &sources);
    }
    parsed
}

/// What is wrong if the file that a Model names is not there. Without its data a model cannot be
/// trained; a trained one with its digest may be at the runtime already.
fn missing_file(object: &Object, sources: &[Source]) -> Option<Diagnostic> {
    let Spec::Model(model) = &object.spec else { return None };
    let data = model.train.as_ref().and_then(|recipe| recipe.data.as_deref());
    let (name, path) = match (&model.file, data) {
        // What contradicts itself is reported as that.
        (Some(_), _) if model.digest.is_none() || model.train.is_some() => return None,
        (Some(file), _) => (file.as_str(), ["spec", "file"].as_slice()),
        (None, data) => (data?, ["spec", "train", "data"].as_slice()),
    };
    let file = object.directory().join(name);
    if file.is_file() || object.metadata.annotations.contains_key(DATA_ANNOTATION) {
        return None;
    }
    let source = sources.iter().find(|source| source.name == object.origin.file);
    let region = source.map_or_else(Region::default, |source| {
        let documents = yaml::read(&source.name, &source.text, &mut Vec::new());
        let at = |document: &yaml::Document| document.root.region.at.line == object.origin.line;
        documents
            .iter()
            .find(|one| at(one))
            .map_or_else(Region::default, |one| one.root.region_at(path))
    });
    let here = match file.is_dir() {
        true => "is a directory",
        false => "does not exist",
    };
    let message =
        format!("Model `{}` names `{}`, which {here}", object.metadata.name, file.display());
    let origin = object.origin.file.as_str();
    let help = "the path is relative to the manifest";
    Some(match model.file {
        Some(_) => Diagnostic::warning(Code::Unreadable, origin, region, message)
            .help(help)
            .help("a runtime that has a file with this digest already does not need it"),
        None => Diagnostic::error(Code::Unreadable, origin, region, message).help(help),
    })
}

/// Reads all paths; the diagnostics say which could not be read.
pub fn read(paths: &[String]) -> (Vec<Source>, Vec<Diagnostic>) {
    let mut reader = Reader::default();
    for path in paths {
        if path == "-" {
            let mut bytes = Vec::new();
            match std::io::stdin().lock().take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)
            {
                Ok(_) => reader.text("<stdin>", bytes),
                Err(error) => reader.unreadable("<stdin>", &error.to_string()),
            }
            continue;
        }
        reader.found = false;
        reader.path(Path::new(path), 0, true);
        if !reader.found {
            reader.diagnostics.push(
                Diagnostic::error(
                    Code::Unreadable,
                    path,
                    Region::default(),
                    format!("`{path}` holds no manifest"),
                )
                .help("manifests are files called `*.yaml` or `*.yml`"),
            );
        }
    }
    (reader.sources, reader.diagnostics)
}

#[derive(Default)]
struct Reader {
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
    /// Files that have been read, so that a file named twice is read once.
    seen: HashSet<PathBuf>,
    /// Whether the path at hand led to anything, be it a fault.
    found: bool,
}

impl Reader {
    fn unreadable(&mut self, name: &str, why: &str) {
        self.found = true;
        let message = format!("`{name}` cannot be read: {why}");
        self.diagnostics.push(Diagnostic::error(
            Code::Unreadable,
            name,
            Region::default(),
            message,
        ));
    }

    /// `named`: the user gave this path, so it is read whatever it is called.
    fn path(&mut self, path: &Path, depth: usize, named: bool) {
        let name = path.display().to_string();
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return self.unreadable(&name, &plain_words(&error)),
        };
        if metadata.is_dir() {
            if depth > DIRECTORY_DEPTH_MAX || (!named && path.is_symlink()) {
                return;
            }
            match fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
                Ok(mut entries) => {
                    entries.sort_by_key(fs::DirEntry::file_name);
                    for entry in entries {
                        let hidden = entry.file_name().to_string_lossy().starts_with('.');
                        let child = entry.path();
                        let is_dir = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
                        let manifest = child
                            .extension()
                            .is_some_and(|extension| extension == "yaml" || extension == "yml");
                        if !hidden && (is_dir || manifest) {
                            self.path(&child, depth + 1, false);
                        }
                    }
                }
                Err(error) => self.unreadable(&name, &plain_words(&error)),
            }
            return;
        }
        self.found = true;
        if !self.seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())) {
            return;
        }
        if self.sources.len() == FILES_MAX {
            if self.seen.len() == FILES_MAX + 1 {
                let message = format!("there are more than {FILES_MAX} files");
                self.diagnostics.push(Diagnostic::error(
                    Code::TooLarge,
                    &name,
                    Region::default(),
                    message,
                ));
            }
            return;
        }
        let mut bytes = Vec::new();
        match fs::File::open(path)
            .and_then(|file| file.take(SOURCE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        {
            Ok(_) => self.text(&name, bytes),
            Err(error) => self.unreadable(&name, &plain_words(&error)),
        }
    }

    fn text(&mut self, name: &str, bytes: Vec<u8>) {
        match String::from_utf8(bytes) {
            Ok(text) => self.sources.push(Source { name: name.to_owned(), text }),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
                let before = good.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
                let column = String::from_utf8_lossy(before).chars().count() + 1;
                let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                let at = Position { line: number(line), column: number(column) };
                let message = format!("`{name}` is not UTF-8 text");
                self.diagnostics.push(
                    Diagnostic::error(Code::NotUtf8, name, Region { at, width: 1 }, message)
                        .help("save the file as UTF-8"),
                );
            }
        }
    }
}

fn plain_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "you may not read it".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[String]) -> (Vec<String>, Vec<&'static str>) {
        let (sources, diagnostics) = read(paths);
        let codes = diagnostics.iter().map(|diagnostic| diagnostic.code.id()).collect();
        (sources.into_iter().map(|source| source.name).collect(), codes)
    }

    #[test]
    fn directories_are_read_in_order_and_in_depth() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::create_dir_all(root.join(".hidden")).unwrap();
        for name in ["z.yaml", "a.yml", "b/c/x.yaml", "notes.txt", ".hidden/y.yaml", ".d.yaml"] {
            fs::write(root.join(name), "").unwrap();
        }
        // A link to a directory above must not be followed for ever.
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        let (names, codes) = names(&[root.display().to_string()]);
        let expected =
            ["a.yml", "b/c/x.yaml", "z.yaml"].map(|n| root.join(n).display().to_string());
        assert_eq!((names, codes), (expected.to_vec(), Vec::new()));
    }

    #[test]
    fn a_file_named_twice_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.conf");
        fs::write(&path, "").unwrap();
        let path = path.display().to_string();
        let parent = directory.path().display().to_string();
        fs::write(directory.path().join("y.yaml"), "").unwrap();
        let (names, codes) = names(&[path.clone(), path.clone(), parent.clone(), parent]);
        assert_eq!((names.len(), names[0].clone(), codes), (2, path, Vec::new()));
    }

    #[test]
    fn what_holds_no_manifest_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().display().to_string();
        assert_eq!(names(&[empty, "/nowhere".to_owned()]).1, ["ET0001", "ET0001"]);
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large.yaml");
        fs::write(&path, vec![b'#'; SOURCE_BYTES_MAX + 1]).unwrap();
        let parsed = load(&[path.display().to_string()], &[]);
        assert_eq!(parsed.diagnostics[0].code, Code::TooLarge);
    }
}
