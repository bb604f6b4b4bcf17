//! `schema`: what editors use.

use crate::support::process::edgetwin;

#[test]
fn the_schema_accepts_the_examples() {
    let run = edgetwin(&["schema"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let schema: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let run = edgetwin(&["validate", "manifests", "-o", "yaml"]);
    let list: serde_json::Value = serde_yaml::from_str(&run.stdout).unwrap();
    let items = list["items"].as_array().unwrap();
    assert!(items.len() > 40);
    for item in items {
        assert!(validator.is_valid(item), "{item}");
    }
}
