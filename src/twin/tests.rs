//! What twins promise, under random changes.

use serde_json::{Value, json};

use super::path::Path;
use super::sequence::Stamp;
use super::*;
use proptest::prelude::*;

fn id() -> ThingId {
    ThingId::parse("farm:node-1").unwrap()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(1)),
        Just(json!(2.5)),
        Just(json!("text")),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!([1, {"a": 2}])),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        proptest::collection::btree_map("[abc]", inner, 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    })
}

fn path() -> impl Strategy<Value = Path> {
    let pointer = proptest::collection::vec("[abc]", 1..3);
    prop_oneof![
        Just(Path::Thing),
        Just(Path::PolicyId),
        Just(Path::Definition),
        Just(Path::Attributes),
        pointer.clone().prop_map(Path::Attribute),
        Just(Path::Features),
        "[fg]".prop_map(Path::Feature),
        "[fg]".prop_map(Path::FeatureDefinition),
        "[fg]".prop_map(Path::Properties),
        ("[fg]", pointer.clone()).prop_map(|(f, p)| Path::Property(f, p)),
        "[fg]".prop_map(Path::DesiredProperties),
        ("[fg]", pointer).prop_map(|(f, p)| Path::DesiredProperty(f, p)),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (path(), value()).prop_map(|(path, value)| Change::Modify(path, value)),
        (path(), value()).prop_map(|(path, value)| Change::Merge(path, value)),
        path().prop_map(Change::Delete),
        Just(Change::Modify(Path::Thing, json!({"features": {"f": {"properties": {"a": 1}}}}))),
        ("[fg]", "[abc]", 0_u64..20).prop_map(|(feature, property, seq)| Change::Reading {
            values: json!({feature: {property: seq}}).as_object().unwrap().clone(),
            stamp: Some(Stamp { seq, boot: Some(seq / 4) }),
        }),
        (0_u64..5).prop_map(Change::Boot),
    ]
}

proptest! {
    #[test]
    fn events_raise_the_revision_by_one_and_replay_to_the_same_twin(
        changes in proptest::collection::vec(change(), 1..40),
    ) {
        let (id, mut twin, mut log) = (id(), None::<Twin>, Vec::new());
        for (time, change) in changes.into_iter().enumerate() {
            let before = twin.clone();
            let Ok(event) = decide(&id, twin.as_ref(), change) else {
                prop_assert_eq!(&twin, &before);
                continue;
            };
            // What is recorded reads back.
            let bytes = serde_json::to_vec(&event).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Event>(&bytes).unwrap(), &event);
            twin = apply(&id, twin.as_ref(), &event, time as i64);
            if let Some(twin) = &twin {
                prop_assert_eq!(twin.revision, before.map_or(0, |twin| twin.revision) + 1);
                prop_assert!(twin.json_len() >= twin.to_json().to_string().len());
                // A snapshot gives the same twin.
                let state = Twin::from_state(twin.revision, &twin.to_state()).unwrap();
                prop_assert_eq!(&state, twin);
            }
            log.push((time as i64, event));
        }
        let replayed = log.iter().fold(None, |twin: Option<Twin>, (time, event)| {
            apply(&id, twin.as_ref(), event, *time)
        });
        prop_assert_eq!(replayed, twin);
    }

    #[test]
    fn a_modified_value_is_there_and_a_deleted_one_is_not(path in path(), new in value()) {
        let id = id();
        let thing = json!({"attributes": {"a": 1}, "features": {"f": {}, "g": {}}});
        let created = decide(&id, None, Change::Modify(Path::Thing, thing)).unwrap();
        let twin = apply(&id, None, &created, 0).unwrap();
        if let Ok(event) = decide(&id, Some(&twin), Change::Modify(path.clone(), new.clone()))
            && path != Path::Thing
        {
            let twin = apply(&id, Some(&twin), &event, 1).unwrap();
            if !new.is_null() && !matches!(path, Path::Features | Path::Feature(_)) {
                prop_assert_eq!(twin.get(&path), Some(new));
            }
            if let Ok(event) = decide(&id, Some(&twin), Change::Delete(path.clone())) {
                let twin = apply(&id, Some(&twin), &event, 2).unwrap();
                prop_assert_eq!(twin.get(&path), None);
            }
        }
    }
}

#[test]
fn services_are_named_by_a_list_or_a_map() {
    for (value, names) in [
        (json!(["a", "b"]), vec!["a", "b"]),
        (json!({"a": {}, "b": {"every": "1s"}}), vec!["a", "b"]),
        (json!({"a": {"enabled": false}, "b": {"enabled": true}}), vec!["b"]),
        (json!("a"), vec![]),
        (json!([1, "a"]), vec!["a"]),
    ] {
        let id = id();
        let thing = json!({"attributes": {"services": value}});
        let event = decide(&id, None, Change::Modify(Path::Thing, thing)).unwrap();
        let twin = apply(&id, None, &event, 0).unwrap();
        assert_eq!(services(&twin).collect::<Vec<_>>(), names);
    }
}
