//! `init`: a project that validates.

use std::fs;

use crate::{edgetwin_in, expect};

#[test]
fn a_new_project_is_valid_and_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let run = edgetwin_in(directory.path(), &["init", "lab"], "");
    expect(
        &run,
        0,
        "wrote lab/manifests/twins.yaml
wrote lab/manifests/services.yaml
wrote lab/manifests/rules.yaml
wrote lab/README.md
wrote lab/.gitignore
wrote lab/.edgetwin/schema.json
",
        "\nNext: edgetwin validate lab/manifests\n",
    );
    expect(
        &edgetwin_in(directory.path(), &["validate", "lab/manifests", "--strict"], ""),
        0,
        "7 objects in 3 files are valid.\n",
        "",
    );
    expect(
        &edgetwin_in(directory.path(), &["init", "lab"], ""),
        5,
        "",
        "error: `lab/manifests/twins.yaml` and 5 more exists already; nothing was written\n\n\
         hint: name an empty directory, or overwrite with --force\n",
    );
    assert_eq!(edgetwin_in(directory.path(), &["init", "lab", "--force"], "").code, 0);
}

#[test]
fn manifests_name_the_schema_for_the_editor() {
    let directory = tempfile::tempdir().unwrap();
    edgetwin_in(directory.path(), &["init"], "");
    for name in ["twins", "services", "rules"] {
        let text =
            fs::read_to_string(directory.path().join(format!("manifests/{name}.yaml"))).unwrap();
        assert!(text.starts_with("# yaml-language-server: $schema=../.edgetwin/schema.json\n"));
    }
    let schema = fs::read_to_string(directory.path().join(".edgetwin/schema.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
}
