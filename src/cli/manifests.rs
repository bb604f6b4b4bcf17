//! Manifests as arguments: which files, whose objects, and everything they need.
//!
//! Files are checked here first, together with what the runtime has, so that a mistake is shown
//! with its line; the runtime checks again.

use std::collections::HashSet;

use serde_json::Value;

use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use crate::manifest::{self, Diagnostic, Object};
use crate::reconcile::disk::{self, NeededFile};

/// Which manifests.
#[derive(Debug, clap::Args)]
pub(super) struct Manifests {
    /// Files, directories (searched through for *.yaml and *.yml), or - for standard input
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// The same, as an option
    #[arg(short, long = "file", value_name = "PATH")]
    files: Vec<String>,
}

/// Whose objects they are.
#[derive(Debug, clap::Args)]
pub(super) struct Owner {
    /// The set that owns these objects
    #[arg(long, value_name = "NAME")]
    pub(super) set: Option<String>,
    /// Delete the objects of the set that are not in the files
    #[arg(long, requires = "set")]
    pub(super) prune: bool,
}

/// Manifests that are without mistakes.
pub(super) struct Loaded {
    /// The objects.
    pub(super) objects: Vec<Object>,
    /// What they need where they run.
    pub(super) files: Vec<NeededFile>,
    /// What is probably not what was meant.
    pub(super) warnings: Vec<Diagnostic>,
    /// How many files were read.
    pub(super) read: usize,
}

impl Loaded {
    /// The objects as JSON, to be sent.
    pub(super) fn documents(&self) -> Vec<Value> {
        self.objects.iter().map(|object| object.json.clone()).collect()
    }
}

impl Manifests {
    /// All paths, in order.
    pub(super) fn paths(&self) -> Vec<String> {
        self.paths.iter().chain(&self.files).cloned().collect()
    }

    /// Reads and checks.
    ///
    /// * `outcome`: what does not happen if there are mistakes: `Nothing was applied.`
    pub(super) fn load(
        &self,
        global: &Global,
        client: &Client,
        owner: Option<&Owner>,
        outcome: &str,
    ) -> Result<Loaded, CliError> {
        let paths = self.paths();
        if paths.is_empty() {
            return Err(CliError::new(ErrorKind::Usage, "no manifest is named")
                .hint("name files or directories, or - for standard input"));
        }
        if global.namespace.is_some() || global.all_namespaces {
            return Err(CliError::new(
                ErrorKind::Usage,
                "the namespace of an object is written in its manifest",
            )
            .hint("leave out -n and -A, or set `metadata.namespace`"));
        }
        let mut known = client.known()?;
        if let Some(owner) = owner.filter(|owner| owner.prune) {
            // What is pruned cannot be referred to.
            let set = owner.set.as_deref().unwrap_or_default();
            let theirs: HashSet<String> = client
                .list("")?
                .iter()
                .filter(|item| item["status"]["set"] == set)
                .map(super::objects::key_of)
                .collect();
            known.retain(|object| !theirs.contains(&object.key()));
        }
        let mut parsed = manifest::load(&paths, &known);
        if parsed.has_errors() {
            return Err(CliError::invalid(parsed.diagnostics, parsed.files, outcome));
        }
        let files = needed_files(&mut parsed.objects)?;
        Ok(Loaded {
            objects: parsed.objects,
            files,
            warnings: parsed.diagnostics,
            read: parsed.files,
        })
    }
}

/// The files that objects need where they run; see [`disk::needed_files`].
pub(super) fn needed_files(objects: &mut [Object]) -> Result<Vec<NeededFile>, CliError> {
    disk::needed_files(objects).map_err(|problems| {
        let mut problems = problems.into_iter();
        let first = problems.next().unwrap_or_default();
        problems.fold(CliError::new(ErrorKind::InvalidManifest, first), CliError::hint)
    })
}
