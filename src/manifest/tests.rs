//! The module's promises: what parses, what is refused, where, and in which words.

use super::*;

fn source(text: &str) -> Source {
    Source { name: "t.yaml".to_owned(), text: text.to_owned() }
}

/// Code, line and column of everything that is wrong with a text.
fn faults(text: &str) -> Vec<(&'static str, u32, u32)> {
    let parsed = parse(&[source(text)], &[]);
    parsed.diagnostics.iter().map(|d| (d.code.id(), d.line, d.column)).collect()
}

/// The objects of a text without faults.
fn objects(text: &str) -> Vec<Object> {
    let parsed = parse(&[source(text)], &[]);
    assert_eq!(parsed.diagnostics, [], "{}", diagnostic::render(&parsed.diagnostics, 1, "", false));
    parsed.objects
}

#[test]
fn a_twin_is_typed() {
    let objects = objects("kind: Twin\nmetadata: {name: node-17, namespace: farm}\nspec: {services: []}\n");
    assert_eq!(objects[0].key(), "Twin/farm/node-17");
    assert_eq!(objects[0].thing_id(), "farm:node-17");
}

#[test]
fn a_misspelt_field_is_found_where_it_stands() {
    assert_eq!(faults("kind: Twin\nmetadata: {name: a}\nspec:\n  modle: x\n"), [("ET0104", 4, 3)]);
}
