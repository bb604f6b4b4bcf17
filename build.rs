//! Lists the boards and parts of `firmware-templates/`, so that the program embeds them.
//!
//! A macro like `include_dir!` does not notice a folder that is added until something else is built
//! anew; a build script does, since Cargo watches the whole directory for it.

#![expect(clippy::disallowed_methods, reason = "a build script reads and writes files")]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const TEMPLATES: &str = "firmware-templates";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={TEMPLATES}");
    println!("cargo::rerun-if-changed=build.rs");
    let templates = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(TEMPLATES);
    let mut listed = String::from("pub(crate) const BOARDS: &[(&str, &str)] = &[\n");
    for file in sorted(&templates.join("boards"))? {
        if let Some(name) = name(&file).strip_suffix(".yaml") {
            writeln!(listed, "    ({name:?}, {}),", embed(&file))?;
        }
    }
    listed += "];\npub(crate) const PARTS: &[Folder] = &[\n";
    for folder in sorted(&templates.join("parts"))? {
        let text = |file: &str| embed(&folder.join(file));
        writeln!(
            listed,
            "    Folder {{ name: {:?}, description: {}, driver: {}, emulated: {} }},",
            name(&folder),
            text("part.yaml"),
            text("driver.h"),
            text("emulated.h"),
        )?;
    }
    listed += "];\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("hardware.rs"), listed)?;
    Ok(())
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn embed(file: &Path) -> String {
    format!("include_str!({:?})", file.display().to_string())
}
