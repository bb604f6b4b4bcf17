//! A plan in a file, to be applied as it was made or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{CliError, ErrorKind};
use crate::reconcile::disk::{NeededFile, digest_of};

/// Largest saved plan, bytes: what a runtime takes.
const SAVED_BYTES_MAX: u64 = 32 << 20;

/// A plan in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SavedPlan {
    pub(super) kind: String,
    pub(super) base: String,
    pub(super) set: Option<String>,
    pub(super) prune: bool,
    pub(super) documents: Vec<Value>,
    pub(super) files: Vec<PinnedFile>,
}

/// A file that an object needs, as it was when the plan was made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PinnedFile {
    pub(super) path: PathBuf,
    pub(super) digest: String,
}

impl SavedPlan {
    /// Writes it to a file.
    pub(super) fn write(&self, path: &Path) -> Result<(), CliError> {
        let cannot = |error: &dyn std::error::Error| {
            let message = format!("the plan cannot be written to `{}`", path.display());
            CliError::new(ErrorKind::Failed, message).because(error)
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| cannot(&error))?;
        fs::write(path, text + "\n").map_err(|error| cannot(&error))
    }

    /// The saved plan that the paths name, if it is one.
    pub(super) fn find(paths: &[String]) -> Result<Option<Self>, CliError> {
        let [path] = paths else { return Ok(None) };
        // Whatever else it is is reported where manifests are read.
        let small = fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= SAVED_BYTES_MAX);
        let Some(text) = small.then(|| fs::read_to_string(path).ok()).flatten() else {
            return Ok(None);
        };
        if !text.trim_start().starts_with('{') {
            return Ok(None);
        }
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
        if value["kind"] != "Plan" {
            return Ok(None);
        }
        serde_json::from_value(value).map(Some).map_err(|error| {
            let message = format!("the plan in `{path}` cannot be read");
            CliError::new(ErrorKind::Failed, message).because(&error)
        })
    }

    /// The files that the plan needs, if they are what they were.
    pub(super) fn files(&self) -> Result<Vec<NeededFile>, CliError> {
        let read = |pinned: &PinnedFile| {
            let path = &pinned.path;
            let bytes = fs::read(path).map_err(|error| {
                let message = format!("`{}` cannot be read", path.display());
                CliError::new(ErrorKind::Failed, message).because(&error)
            })?;
            if digest_of(&bytes) != pinned.digest {
                let message = format!("`{}` changed since the plan was made", path.display());
                return Err(CliError::new(ErrorKind::Conflict, message).hint("make the plan again"));
            }
            Ok(NeededFile { path: path.clone(), digest: pinned.digest.clone(), bytes })
        };
        self.files.iter().map(read).collect()
    }

    /// What is sent to apply it.
    pub(super) fn body(&self) -> Value {
        json!({
            "documents": self.documents,
            "set": self.set,
            "prune": self.prune,
            "base": self.base,
        })
    }
}
