//! `edgetwin init`: a project that validates and runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::error::{CliError, ErrorKind};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::manifest::schema::json_schema;

/// Start a project: manifests that validate and run, and the schema for the editor.
///
/// The manifests hold four simulated nodes, a service and a rule. Existing files are never
/// overwritten without --force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  edgetwin init lab && cd lab && edgetwin validate manifests")]
pub(super) struct Args {
    /// Where; it is made if it does not exist
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
}

const FILES: &[(&str, &str)] = &[
    ("manifests/twins.yaml", include_str!("../../templates/init/twins.yaml")),
    ("manifests/services.yaml", include_str!("../../templates/init/services.yaml")),
    ("manifests/rules.yaml", include_str!("../../templates/init/rules.yaml")),
    ("README.md", include_str!("../../templates/init/README.md")),
    (".gitignore", include_str!("../../templates/init/gitignore")),
];

pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    let schema = format!("{:#}\n", json_schema());
    let files: Vec<(PathBuf, &str)> = FILES
        .iter()
        .map(|(path, text)| (args.directory.join(path), *text))
        .chain([(args.directory.join(".edgetwin/schema.json"), schema.as_str())])
        .collect();
    let in_the_way: Vec<&PathBuf> =
        files.iter().map(|(path, _)| path).filter(|path| path.exists()).collect();
    if let (Some(first), false) = (in_the_way.first(), args.force) {
        let others = in_the_way.len() - 1;
        let others = if others == 0 { String::new() } else { format!(" and {others} more") };
        return Err(CliError::new(
            ErrorKind::Conflict,
            format!("`{}`{others} exists already; nothing was written", first.display()),
        )
        .hint("name an empty directory, or overwrite with --force"));
    }
    for (path, text) in &files {
        write(path, text).map_err(|error| {
            CliError::new(ErrorKind::Failed, format!("`{}` cannot be written", path.display()))
                .because(&error)
        })?;
    }
    let written: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    match output.format() {
        Format::Json => output.json(&json!({ "written": written })),
        Format::Yaml => output.yaml(&json!({ "written": written })),
        Format::Name => written.iter().for_each(|path| output.line(path)),
        Format::Table | Format::Wide => {
            written.iter().for_each(|path| output.line(&format!("wrote {path}")));
            let manifests = args.directory.join("manifests");
            let program = super::outcome::program();
            output.note(&format!("\nNext: {program} validate {}", manifests.display()));
        }
    }
    Ok(Outcome::Done)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)
}
