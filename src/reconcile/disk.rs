//! Model files and training data, each under the digest of its bytes.
//!
//! An artefact is written once, under another name first, so a file that is there is whole. What
//! is read is checked against its name again: a file that differs is never used.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use super::digest::digest_of;
use crate::kinds::{DATA_ANNOTATION, Spec};
use crate::manifest::Object;

/// Largest artefact, bytes: what a model may have (`edgeai`), and training data for as many rows
/// as a recipe takes. A larger one is refused.
pub const ARTEFACT_BYTES_MAX: usize = 64 << 20;

/// A directory of files by digest.
#[derive(Debug)]
pub struct Artefacts {
    directory: PathBuf,
    next: AtomicU64,
}

impl Artefacts {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, next: AtomicU64::new(0) }
    }

    /// Whether there is an artefact with this digest, 64 hexadecimal digits.
    pub fn has(&self, digest: &str) -> bool {
        is_digest(digest) && self.directory.join(digest).is_file()
    }

    /// Keeps an artefact.
    ///
    /// # Errors
    /// `InvalidData` if the bytes have another digest; errors of the disk.
    pub fn put(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        if !is_digest(digest) || digest_of(bytes) != digest {
            let words = format!("the bytes have the digest {}, not {digest}", digest_of(bytes));
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        if self.has(digest) {
            return Ok(());
        }
        self.write(digest, bytes)
    }

    /// The artefact with this digest.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` if the file is not what its name says; errors of the disk.
    pub fn get(&self, digest: &str) -> io::Result<Vec<u8>> {
        if !is_digest(digest) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let bytes = fs::read(self.directory.join(digest))?;
        if digest_of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the file is damaged"))
        }
    }

    /// The model that a recipe gave earlier, and its report.
    pub(super) fn trained(&self, recipe: &str) -> io::Result<(Vec<u8>, String)> {
        let model = fs::read(self.directory.join(format!("{recipe}.model")))?;
        let report = fs::read_to_string(self.directory.join(format!("{recipe}.txt")))?;
        Ok((model, report))
    }

    /// Keeps the model that a recipe gave. The report comes first: a model that is there has one.
    pub(super) fn keep_trained(&self, recipe: &str, model: &[u8], report: &str) -> io::Result<()> {
        self.write(&format!("{recipe}.txt"), report.as_bytes())?;
        self.write(&format!("{recipe}.model"), model)
    }

    /// Removes every file whose name does not start with one of `digests`: nothing refers to it any
    /// more. Called before requests are served.
    pub(super) fn keep_only(&self, digests: &HashSet<String>) -> io::Result<usize> {
        let mut removed = 0;
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let kept = name.to_str().and_then(|name| name.get(..64));
            if !kept.is_some_and(|digest| digests.contains(digest)) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let draft = self.directory.join(format!(".{number}.part"));
        let written = (|| {
            let mut file = fs::File::create(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, self.directory.join(name))?;
            fs::File::open(&self.directory)?.sync_all()
        })();
        if written.is_err() {
            // What is left of it is overwritten by the next one of this number.
            drop(fs::remove_file(&draft));
        }
        written
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A file that an object needs where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededFile {
    /// Where it was found.
    pub path: PathBuf,
    /// Its digest, 64 hexadecimal digits.
    pub digest: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Reads the files that Models name, relative to their manifests. An object with training data
/// gets an annotation with its digest, so that other data is a change.
///
/// # Errors
/// One sentence for each file that cannot be read.
pub fn needed_files(objects: &mut [Object]) -> Result<Vec<NeededFile>, Vec<String>> {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for object in objects {
        let Spec::Model(model) = &object.spec else { continue };
        let data = model.train.as_ref().and_then(|recipe| recipe.data.as_ref());
        let Some(name) = model.file.as_ref().or(data) else { continue };
        let is_data = model.file.is_none();
        let path = object.directory().join(name);
        match read(&path) {
            Ok(bytes) => {
                let digest = digest_of(&bytes);
                if is_data {
                    let value = format!("sha256:{digest}");
                    object.json["metadata"]["annotations"][DATA_ANNOTATION] = value.clone().into();
                    object.metadata.annotations.insert(DATA_ANNOTATION.to_owned(), value);
                }
                files.push(NeededFile { path, digest, bytes });
            }
            // It may have been brought there by an earlier apply, as when a runtime's own output
            // is applied again.
            Err(error) if error.kind() == io::ErrorKind::NotFound && known(object, is_data) => {}
            Err(error) => problems.push(format!(
                "Model `{}`: `{}` cannot be read: {error}",
                object.metadata.name,
                path.display()
            )),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

/// Whether the object says which bytes it means without the file.
fn known(object: &Object, is_data: bool) -> bool {
    !is_data || object.metadata.annotations.contains_key(DATA_ANNOTATION)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let len = fs::metadata(path)?.len();
    if len > ARTEFACT_BYTES_MAX as u64 {
        let words = format!("it has {len} bytes; {ARTEFACT_BYTES_MAX} are the most");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_its_name_says() {
        let directory = tempfile::tempdir().unwrap();
        let artefacts = Artefacts::new(directory.path().join("models"));
        let digest = digest_of(b"model");
        assert!(!artefacts.has(&digest));
        artefacts.put(&digest, b"model").unwrap();
        artefacts.put(&digest, b"model").unwrap();
        assert_eq!(artefacts.get(&digest).unwrap(), b"model");
        let other = artefacts.put(&digest_of(b"x"), b"model").unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::InvalidData);
        fs::write(directory.path().join("models").join(&digest), b"changed").unwrap();
        assert_eq!(artefacts.get(&digest).unwrap_err().kind(), io::ErrorKind::InvalidData);
        artefacts.put(&digest_of(b"kept"), b"kept").unwrap();
        artefacts.keep_trained(&digest_of(b"recipe"), b"model", "report").unwrap();
        let wanted = [digest_of(b"kept"), digest_of(b"recipe")].into();
        assert_eq!(artefacts.keep_only(&wanted).unwrap(), 1);
        assert!(artefacts.trained(&digest_of(b"recipe")).is_ok() && !artefacts.has(&digest));
        assert!(!artefacts.has("../../etc/passwd"));
        assert_eq!(artefacts.get("..").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
