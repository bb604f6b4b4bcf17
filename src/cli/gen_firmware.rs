//! `edgetwin gen-firmware`: a sketch from a NodeProfile.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::{CliError, ErrorKind};
use super::global::LongOutput;
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::text::suggest;
use crate::firmware::render::{self, File};
use crate::kinds::Kind;
use crate::manifest::{self, disk};

/// Make firmware from a NodeProfile: one sketch, for all of its nodes.
///
/// Pins, periods, memory, message length and the serial line's capacity are checked before anything
/// is written; mistakes are shown at their place in the manifest, and the exit code is 78. The
/// sketch compiles as it stands with arduino-cli; its BUILD.md says how.
///
/// The same profile gives the same bytes. Files that were edited since the last time are noticed and
/// left alone, and nothing else is written either, unless --force is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  edgetwin gen-firmware uno-env -f manifests/ -o firmware/\n  \
                        edgetwin gen-firmware esp32-env -f manifests/quickstart -o /tmp/sketches --host")]
pub(super) struct Args {
    /// The NodeProfile; without one, every profile of the manifests
    #[arg(value_name = "PROFILE")]
    profile: Option<String>,
    /// Manifests: files, directories, or - for standard input
    #[arg(short, long = "file", value_name = "PATH", default_value = "manifests")]
    files: Vec<String>,
    /// The directory that gets a folder with each sketch
    #[arg(short = 'o', long = "out", value_name = "DIR")]
    out: PathBuf,
    /// Overwrite edited files too
    #[arg(long)]
    force: bool,
    /// Add the board that is a process: `host/`, to run the sketch on this machine
    #[arg(long)]
    host: bool,
    #[command(flatten)]
    _output: LongOutput,
}

/// Names and digests of the files that were written, to notice edits.
const WRITTEN: &str = ".edgetwin.json";

pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let (sources, unreadable) = disk::read(&args.files);
    if !unreadable.is_empty() {
        let files = sources.len() + unreadable.len();
        return Err(CliError::invalid(unreadable, files, "Nothing was written."));
    }
    let (parsed, planned) = manifest::plan_firmware(&sources, |object| {
        args.profile.as_ref().is_none_or(|name| *name == object.metadata.name)
    });
    if parsed.has_errors() {
        return Err(CliError::invalid(parsed.diagnostics, parsed.files, "Nothing was written."));
    }
    if planned.is_empty() {
        return Err(no_profile(args, &parsed));
    }
    let mut written = Vec::new();
    let mut prepared = Vec::new();
    for firmware in &planned {
        let folder = args.out.join(render::sketch_name(&firmware.profile));
        let files = match args.host {
            true => render::host_files(firmware),
            false => render::files(firmware),
        };
        if !args.force {
            untouched(&folder, &files)?;
        }
        prepared.push((firmware, folder, files));
    }
    for (firmware, folder, files) in prepared {
        write(&folder, &files).map_err(|error| {
            let message = format!("`{}` cannot be written", folder.display());
            CliError::new(ErrorKind::Failed, message).because(&error)
        })?;
        written.push(json!({
            "profile": firmware.profile,
            "board": firmware.board.name,
            "folder": folder.display().to_string(),
            "parts": firmware.parts(),
            "files": files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(),
            "flash": firmware.flash,
            "ram": firmware.ram,
            "ring": firmware.ring,
            "line": firmware.line,
        }));
    }
    match output.format() {
        Format::Json => output.json(&json!({ "kind": "List", "items": written })),
        Format::Yaml => output.yaml(&json!({ "kind": "List", "items": written })),
        Format::Name => {
            for sketch in &written {
                output.line(sketch["folder"].as_str().unwrap_or_default());
            }
        }
        Format::Table | Format::Wide => {
            for (sketch, firmware) in written.iter().zip(&planned) {
                output.line(&format!(
                    "wrote {}  {} {}: about {} of {} bytes of flash, {} of {} of RAM",
                    sketch["folder"].as_str().unwrap_or_default(),
                    firmware.board.name,
                    firmware.profile,
                    firmware.flash,
                    firmware.board.flash,
                    firmware.ram,
                    firmware.board.ram,
                ));
            }
        }
    }
    Ok(Outcome::Done)
}

fn no_profile(args: &Args, parsed: &manifest::Parsed) -> CliError {
    let known: Vec<&str> = parsed
        .objects
        .iter()
        .filter(|object| object.kind == Kind::NodeProfile)
        .map(|object| object.metadata.name.as_str())
        .collect();
    let Some(wanted) = &args.profile else {
        return CliError::new(ErrorKind::Usage, "no NodeProfile in the files read");
    };
    let error =
        CliError::new(ErrorKind::Usage, format!("no NodeProfile `{wanted}` in the files read"));
    match suggest(wanted, known.iter().copied()) {
        Some(guess) => error.hint(format!("did you mean `{guess}`?")),
        None if known.is_empty() => error,
        None => error.hint(format!("the profiles are {}", known.join(", "))),
    }
}

/// Refuses if a file that would be written was edited or is somebody else's.
fn untouched(folder: &Path, files: &[File]) -> Result<(), CliError> {
    let known: BTreeMap<String, String> = fs::read(folder.join(WRITTEN))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut edited = Vec::new();
    for file in files {
        let path = folder.join(&file.name);
        let found = match fs::read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let message = format!("`{}` cannot be read", path.display());
                return Err(CliError::new(ErrorKind::Failed, message).because(&error));
            }
        };
        let digest = render::digest(&found);
        if found != file.text.as_bytes() && known.get(&file.name) != Some(&digest) {
            edited.push(path.display().to_string());
        }
    }
    if edited.is_empty() {
        return Ok(());
    }
    let list = edited.join("`, `");
    Err(CliError::new(ErrorKind::Conflict, format!("`{list}` was edited; nothing was written"))
        .hint("put what differs into the NodeProfile, or overwrite with --force"))
}

fn write(folder: &Path, files: &[File]) -> io::Result<()> {
    let mut digests = BTreeMap::new();
    for file in files {
        let path = folder.join(&file.name);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        // What is the same keeps its time, so that builds take it from their cache.
        if fs::read(&path).ok().as_deref() != Some(file.text.as_bytes()) {
            fs::write(&path, &file.text)?;
        }
        digests.insert(&file.name, render::digest(file.text.as_bytes()));
    }
    fs::write(folder.join(WRITTEN), format!("{:#}\n", json!(digests)))
}
