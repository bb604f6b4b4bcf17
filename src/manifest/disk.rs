//! Paths to texts: the one place of this module that touches files.
//!
//! A path is a file, a directory (searched through, sorted, `*.yaml` and `*.yml`), or `-` for
//! standard input. A path that cannot be read is a diagnostic like any other mistake, so one run
//! reports it beside the rest.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::diagnostic::{self, Code, Diagnostic};
use super::yaml::{Position, Region, SOURCE_BYTES_MAX};
use super::{Object, Parsed, Source, parse};

/// Most files of one run. A tree with more is not a manifest directory.
pub const FILES_MAX: usize = 100_000;

/// Deepest directory that is searched; symbolic links to directories are not followed.
const DIRECTORY_DEPTH_MAX: usize = 32;

/// Reads and parses all paths together; see [`parse`].
pub fn load(paths: &[String], known: &[Object]) -> Parsed {
    let (sources, mut diagnostics) = read(paths);
    let mut parsed = parse(&sources, known);
    if !diagnostics.is_empty() {
        parsed.files += diagnostics.len();
        diagnostics.append(&mut parsed.diagnostics);
        parsed.diagnostics = diagnostics;
        diagnostic::finish(&mut parsed.diagnostics, &sources);
    }
    parsed
}

/// Reads all paths; the diagnostics say which could not be read.
pub fn read(paths: &[String]) -> (Vec<Source>, Vec<Diagnostic>) {
    let mut reader = Reader { sources: Vec::new(), diagnostics: Vec::new() };
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
        let before = reader.sources.len() + reader.diagnostics.len();
        reader.path(Path::new(path), 0, true);
        if reader.sources.len() + reader.diagnostics.len() == before {
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

struct Reader {
    sources: Vec<Source>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader {
    fn unreadable(&mut self, name: &str, why: &str) {
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
        if self.sources.len() == FILES_MAX {
            let message = format!("more than {FILES_MAX} files");
            self.diagnostics.push(Diagnostic::error(
                Code::TooLarge,
                &name,
                Region::default(),
                message,
            ));
        }
        if self.sources.len() >= FILES_MAX
            || self.sources.iter().any(|source| source.name == name) && named
        {
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
