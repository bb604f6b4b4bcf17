//! `init`: a project that validates.

use std::fs;

use expect_test::expect;

use crate::support::process::edgetwin_in;
use crate::support::snapshot::snapshot;

#[test]
fn a_new_project_is_valid_and_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let run = edgetwin_in(directory.path(), &["init", "lab"], "");
    snapshot(
        &run,
        expect![[r#"
        exit 0
        --- stdout
        wrote lab/manifests/twins.yaml
        wrote lab/manifests/services.yaml
        wrote lab/manifests/rules.yaml
        wrote lab/README.md
        wrote lab/.gitignore
        wrote lab/.edgetwin/schema.json
        --- stderr

        Next: edgetwin validate lab/manifests
    "#]],
    );
    snapshot(
        &edgetwin_in(directory.path(), &["validate", "lab/manifests", "--strict"], ""),
        expect![[r#"
            exit 0
            --- stdout
            7 objects in 3 files are valid.
        "#]],
    );
    snapshot(
        &edgetwin_in(directory.path(), &["init", "lab"], ""),
        expect![[r#"
        exit 5
        --- stderr
        error: `lab/manifests/twins.yaml` and 5 more exists already; nothing was written

        hint: name an empty directory, or overwrite with --force
    "#]],
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
