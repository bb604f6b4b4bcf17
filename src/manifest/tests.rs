//! What parses, what is refused, at which place, and with which message.

use serde_json::Value;

use super::parse::parse;
use super::source::Source;
use super::*;
use crate::kinds::{Kind, Spec};

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
    let objects =
        objects("kind: Twin\nmetadata: {name: node-17, namespace: farm}\nspec: {services: []}\n");
    assert_eq!(objects[0].key(), "Twin/farm/node-17");
    assert_eq!(objects[0].thing_id(), "farm:node-17");
}

#[test]
fn a_misspelt_field_is_found_where_it_stands() {
    assert_eq!(faults("kind: Twin\nmetadata: {name: a}\nspec:\n  modle: x\n"), [("ET0104", 4, 3)]);
}

#[test]
fn every_document_reports_all_its_faults() {
    // A fault of shape does not hide what else is wrong with the same document.
    let text = "kind: Service\nmetadata: {name: s}\nspec: {inputs: [a/b], external: true, replcas: 1, timeout: 0s}\n\
                ---\nkind: Twin\nmetadata: {name: a}\nspec: {model: nothing, node: 3, services: [t]}\n";
    assert_eq!(
        faults(text),
        [
            ("ET0104", 3, 39),
            ("ET0108", 3, 60),
            ("ET0202", 7, 15),
            ("ET0106", 7, 30),
            ("ET0203", 7, 44)
        ]
    );
}

#[test]
fn one_mistake_makes_one_diagnostic() {
    // The misspelt field is the model; that the service "runs nowhere" follows from it.
    let text = "kind: Service\nmetadata: {name: s}\nspec: {inputs: [a/b], modle: m}\n";
    assert_eq!(faults(text), [("ET0104", 3, 23)]);
}

#[test]
fn references_look_at_home_first_then_in_default() {
    let text = "kind: TwinModel\nmetadata: {name: m}\nspec: {features: {}}\n---\n\
                kind: Twin\nmetadata: {name: a, namespace: farm}\nspec: {model: m}\n---\n\
                kind: TwinModel\nmetadata: {name: other, namespace: city}\nspec: {features: {}}\n---\n\
                kind: Twin\nmetadata: {name: b, namespace: farm}\nspec: {model: city/other}\n";
    assert_eq!(objects(text).len(), 4);
    let text = text.replace("city/other", "other");
    assert_eq!(faults(&text), [("ET0202", 15, 15)]);
}

#[test]
fn known_objects_can_be_named_and_replaced() {
    let service =
        objects("kind: Service\nmetadata: {name: s}\nspec: {inputs: [a/b], external: true}\n");
    let twin = source("kind: Twin\nmetadata: {name: a}\nspec: {services: [s]}\n");
    assert!(!parse(std::slice::from_ref(&twin), &service).has_errors());
    assert!(parse(&[twin], &[]).has_errors());
    let again =
        source("kind: Service\nmetadata: {name: s}\nspec: {inputs: [a/b, a/c], external: true}\n");
    assert!(!parse(&[again], &service).has_errors());
}

#[test]
fn sets_are_twins_with_the_labels_of_set_and_template() {
    let text = "kind: TwinSet\nmetadata: {name: n, namespace: lab, labels: {a: set, b: set}}\n\
                spec: {count: 3, template: {metadata: {labels: {b: template}}, spec: {services: [s]}}}\n---\n\
                kind: Service\nmetadata: {name: s}\nspec: {inputs: [a/b], external: true}\n---\n\
                kind: TwinAggregate\nmetadata: {name: t, namespace: lab}\n\
                spec: {members: {names: [n-2], matchLabels: {b: template}}, derive: {x/y: {fn: count}}}\n";
    let twins = objects(text)[0].expand();
    assert_eq!(
        twins.iter().map(Object::thing_id).collect::<Vec<_>>(),
        ["lab:n-1", "lab:n-2", "lab:n-3"]
    );
    assert_eq!(twins[0].metadata.labels["a"], "set");
    assert_eq!(twins[0].metadata.labels["b"], "template");
    assert_eq!(twins[0].json["spec"]["services"][0], "s");
    assert_eq!(twins[0].json["metadata"]["name"], "n-1");
}

#[test]
fn json_is_checked_like_text() {
    let good = serde_json::json!({"kind": "Twin", "metadata": {"name": "a"}, "spec": {"attributes": {"floor": 1}}});
    let parsed = from_json(vec![good.clone()], &[]);
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.objects[0].json["metadata"]["namespace"], "default");
    let text = serde_yaml::to_string(&good).unwrap();
    assert_eq!(objects(&text)[0].json, parsed.objects[0].json);
    let bad = serde_json::json!({"kind": "Twin", "metadata": {"name": "a"}, "spec": {"services": ["s"], "modle": 1}});
    let parsed = from_json(vec![bad], &[]);
    let shown: Vec<_> =
        parsed.diagnostics.iter().map(|d| (d.code.id(), d.file.as_str(), d.line)).collect();
    assert_eq!(shown, [("ET0104", "Twin/default/a", 0), ("ET0203", "Twin/default/a", 0)]);
}

#[test]
fn a_list_as_reading_verbs_print_it_can_be_applied() {
    let text = "kind: List\nitems:\n- {kind: Twin, metadata: {name: a}, spec: {}}\n- {kind: Twin, metadata: {name: b}, spec: {modle: 1}}\n";
    assert_eq!(faults(text), [("ET0104", 4, 44)]);
    let list: Value = serde_yaml::from_str(&text.replace("modle: 1", "")).unwrap();
    assert_eq!(from_json(vec![list], &[]).objects.len(), 2);
}

#[test]
fn a_property_is_found_by_its_name_where_the_model_has_it_once() {
    let text = "kind: TwinModel\nmetadata: {name: m}\nspec:\n  features:\n    \
                a: {properties: {t: {type: number, maximum: 3}, u: {type: boolean}}}\n    \
                b: {properties: {t: {type: string}}}\n";
    let Spec::TwinModel(model) = &objects(text)[0].spec else { panic!("not a TwinModel") };
    assert_eq!(
        (model.feature_of("u"), model.feature_of("t"), model.feature_of("x")),
        (Some("a"), None, None)
    );
    let property = model.property("a", "t").unwrap();
    assert_eq!(property.misfit(&3.into()), None);
    assert_eq!(property.misfit(&4.into()).as_deref(), Some("is at most 3, not 4"));
    assert_eq!(
        property.misfit(&"x".into()).as_deref(),
        Some("is number in its model, not `\"x\"`")
    );
}

#[test]
fn equal_text_gives_equal_json_and_what_is_not_acted_on_is_said() {
    let text = "kind: Channel\nmetadata: {name: c}\nspec: {medium: wifi, capacity: 6Mbit/s}\n";
    assert_eq!(objects(text)[0].json, objects(text)[0].json);
    assert_eq!(
        objects(text)[0].not_acted_on(),
        ["Channel `c` is checked and stored; no link budget acts on it yet"]
    );
}

/// The documentation's own rules, with just enough around them.
#[test]
fn rules_of_the_documentation_parse() {
    let text = r#"
kind: TwinModel
metadata: {name: m}
spec:
  features:
    environment: {properties: {temperature: {type: number, unit: Cel}, light: {type: number, unit: lx}}}
    pir: {properties: {motion: {type: boolean}}}
    camera: {properties: {image: {type: object}, video: {type: object}}}
    ground: {properties: {soil: {type: number}}}
    sound: {properties: {audio: {type: array}}}
    vitals: {properties: {ecg: {type: number}, spo2: {type: number}}}
    arm: {properties: {vibration: {type: number}}}
    room: {properties: {occupancy: {type: integer}}}
---
kind: Twin
metadata: {name: a, labels: {zone: square-3, site: north-field, kind: robot, building: a, ward: "3"}}
spec: {model: m}
---
kind: TwinAggregate
metadata: {name: ward-3}
spec: {members: {matchLabels: {ward: "3"}}, derive: {ward/patients: {fn: count}}}
---
{kind: Service, metadata: {name: crowd-audio}, spec: {external: true}}
---
{kind: Service, metadata: {name: early-warning}, spec: {external: true}}
---
{kind: Service, metadata: {name: network-anomaly}, spec: {external: true}}
---
kind: ContextRule                        # smart city: unrest
metadata: {name: unrest}
spec:
  nodes: {matchLabels: {zone: square-3}}
  when:  'verdict("crowd-audio").label == "unrest" && verdict("crowd-audio").score > 0.8'
  until: 'verdict("crowd-audio").score < 0.5'
  for: 3s
  hold: 10m
  then:
    weight: 16
    properties: {audio: {program: raw, interval: 250ms}, video: {program: features, interval: 1s}}
  priority: 100
---
kind: ContextRule                        # farm: animal intrusion while the link is full
metadata: {name: intrusion-saturated}
spec:
  nodes: {matchLabels: {site: north-field}}
  when: 'any(motion) && channel().state == "Saturated"'
  for: 0s
  hold: 5m
  then:
    properties:
      motion: {program: on-change, edge: both, pmin: 100ms, confirm: true}
      image:  {program: features, pmin: 2s}          # class, box, count; no picture
      soil:   {program: aggregate, interval: 15m}
  priority: 80
---
kind: ContextRule                        # IoMT
metadata: {name: deterioration}
spec:
  nodes: {aggregate: ward-3}
  each: true                             # when is judged per member
  when: 'verdict("early-warning").score >= 5 || age(ecg) > 10s'
  hold: 15m
  then: {class: safety, properties: {ecg: {program: raw}, spo2: {pmin: 1s, st: 1}}}
  priority: 200
---
kind: ContextRule                        # IIoT robot
metadata: {name: vibration-burst}
spec:
  nodes: {matchLabels: {kind: robot}}
  when: 'stddev(vibration, 10s) > 3 * stddev(vibration, 1h)'
  then: {program: burst, before: 2s, length: 5s}
  cooldown: 1m
  priority: 60
---
kind: ContextRule                        # smart building
metadata: {name: empty-rooms}
spec:
  nodes: {matchLabels: {building: a}, each: true}
  when: 'max(occupancy, 30m) == 0'
  for: 10m
  then: {program: on-change, pmax: 15m, properties: {temperature: {st: 0.5}, light: {st: 10%}}}
  priority: 10
---
kind: ContextRule
metadata: {name: liar}
spec:
  nodes: {matchLabels: {kind: robot}}
  when: 'verdict("network-anomaly").label == "compromised"'
  then: {quarantine: true}
  priority: 1000
"#;
    assert_eq!(objects(text).len(), 12);
}

#[test]
fn the_schema_is_draft_07() {
    let schema = schema::json_schema();
    assert!(jsonschema::draft7::meta::is_valid(schema));
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    // Keywords that drafts after 07 brought, which an editor would ignore in silence.
    for keyword in ["$defs", "unevaluatedProperties", "prefixItems", "dependentRequired"] {
        assert!(!schema.to_string().contains(&format!("\"{keyword}\"")), "{keyword}");
    }
}

#[test]
fn every_field_is_described() {
    fn walk(name: &str, schema: &Value, missing: &mut Vec<String>) {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if property.get("description").is_none() {
                missing.push(format!("{name}.{field}"));
            }
        }
    }
    let mut missing = Vec::new();
    for (name, definition) in schema::json_schema()["definitions"].as_object().unwrap() {
        // `metadata` and `spec` of a document are described where they are defined.
        if Kind::find(name).is_none() {
            walk(name, definition, &mut missing);
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The walker accepts just what an independent validator accepts.
#[test]
fn walker_and_an_independent_validator_agree() {
    let validator = jsonschema::draft7::new(schema::json_schema()).unwrap();
    let mut samples = vec![
        ("kind: Twin\nmetadata: {name: a}\nspec: {}\n".to_owned(), true),
        ("kind: Twin\nmetadata: {name: a}\nspec: {modle: x}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: 3}\nspec: {}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {}\nspec: {}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: a}\nspec: {services: {s: {every: 10 s}}}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: a}\nspec: {services: {s: {every: 10s}}}\n".to_owned(), true),
        ("kind: Twin\nmetadata: {name: a}\nspec: {transmission: {st: 2%}}\n".to_owned(), true),
        ("kind: Twin\nmetadata: {name: a}\nspec: {transmission: {st: -1}}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: a}\nspec: {transmission: {st: true}}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: a}\nspec: {node: }\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: a}\nspec: {node: {transport: carrier}}\n".to_owned(), false),
        ("kind: TwinSet\nmetadata: {name: a}\nspec: {count: 0, template: {spec: {}}}\n".to_owned(), false),
        ("kind: Rollout\nmetadata: {name: a}\nspec: {gates: [{metric: error-rate, maximum: 1, x: 1}]}\n".to_owned(), false),
        ("kind: ContextRule\nmetadata: {name: a}\nspec: {nodes: {names: [a]}, when: a, then: {weight: 1, pmin: 1s, x: 1}}\n".to_owned(), false),
        ("kind: ContextRule\nmetadata: {name: a}\nspec: {nodes: {names: [a]}, when: a, then: {weight: 1, pmin: 1s}}\n".to_owned(), true),
        ("apiVersion: v1\nkind: Twin\nmetadata: {name: a}\nspec: {}\n".to_owned(), false),
        ("kind: Twin\nmetadata: {name: a}\nspec: {}\nstatus: {conditions: []}\n".to_owned(), true),
    ];
    let (manifests, faults) = disk::read(&["manifests".to_owned()]);
    assert_eq!(faults, []);
    for manifest in manifests {
        let mut none = Vec::new();
        for document in yaml::read(&manifest.name, &manifest.text, &mut none) {
            samples.push((document.root.to_json().to_string(), true));
        }
    }
    for (text, good) in samples {
        let document = yaml::read("t.yaml", &text, &mut Vec::new()).remove(0);
        let value = document.root.to_json();
        let kind = Kind::find(value["kind"].as_str().unwrap()).unwrap();
        let mut diagnostics = Vec::new();
        schema::check(kind, &document.root, "t.yaml", "it", &mut diagnostics);
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(diagnostics.is_empty(), good, "{text}: {diagnostics:?}");
        assert_eq!(errors.is_empty(), good, "{text}: {errors:?}");
    }
}

#[test]
fn every_field_of_every_kind_can_be_explained() {
    for kind in Kind::ALL {
        let explanation = schema::explain(kind.name()).unwrap();
        assert!(!explanation.description.is_empty(), "{kind}");
        for field in schema::explain(&format!("{kind}.spec")).unwrap().fields {
            let path = format!("{kind}.{}", field.name);
            let explanation = schema::explain(&path).unwrap();
            assert_eq!(explanation.path, format!("{kind}.spec.{}", field.name));
            assert!(!explanation.description.is_empty(), "{path}");
        }
    }
    assert!(schema::explain("Twin.modle").unwrap_err().contains("`model`"));
    assert!(schema::explain("Twn").unwrap_err().contains("`Twin`"));
    assert_eq!(schema::explain("TwinModel.features.properties.unit").unwrap().type_words, "unit");
}

/// 10,000 twins in one directory validate in under 1 s in a release build; a debug build has ten
/// times as long, so that a quadratic step is noticed anywhere.
#[test]
fn ten_thousand_twins_parse_in_time() {
    let mut sources = vec![source(
        "kind: TwinModel\nmetadata: {name: m}\nspec: {features: {e: {properties: {t: {type: number, unit: Cel}}}}}\n---\n\
         kind: Service\nmetadata: {name: s}\nspec: {inputs: [e/t], external: true}\n---\n\
         kind: TwinAggregate\nmetadata: {name: all}\nspec: {members: {matchLabels: {room: r1}}, derive: {x/y: {fn: mean, of: e/t}}}\n",
    )];
    sources.extend((0..10_000).map(|i| Source {
        name: format!("twins/{i}.yaml"),
        text: format!(
            "kind: Twin\nmetadata:\n  name: node-{i}\n  labels: {{room: r{}}}\nspec:\n  model: m\n  services: [s]\n  attributes: {{floor: {}}}\n",
            i % 100,
            i % 7
        ),
    }));
    let start = std::time::Instant::now();
    let parsed = parse(&sources, &[]);
    let took_ms = start.elapsed().as_millis();
    assert_eq!(parsed.diagnostics, []);
    assert_eq!(parsed.objects.len(), 10_003);
    let bound_ms = if cfg!(debug_assertions) { 10_000 } else { 1_000 };
    assert!(took_ms < bound_ms, "{took_ms} ms");
}

proptest::proptest! {
    /// Whatever the text, there is an answer, and every place in it exists.
    #[test]
    fn no_text_makes_it_panic(text in "[a-z:{}\\[\\]&*!|>'\"\\\\#%@, \n\t-]{0,200}") {
        let parsed = parse(&[source(&text)], &[]);
        for diagnostic in &parsed.diagnostics {
            proptest::prop_assert!(diagnostic.line as usize <= text.lines().count().max(1));
        }
    }

    /// The same for what looks like a manifest.
    #[test]
    fn no_mutation_of_a_manifest_makes_it_panic(at in 0_usize..2000, with in "[a-z:{}\\[\\]'\"\n -]{0,4}") {
        let mut text = include_str!("../../manifests/quickstart/twins.yaml").to_owned()
            + "---\n" + include_str!("../../manifests/quickstart/rules.yaml");
        let at = text.floor_char_boundary(at.min(text.len()));
        text.insert_str(at, &with);
        diagnostic::render(&parse(&[source(&text)], &[]).diagnostics, 1, "", false);
    }

    /// The same for expressions.
    #[test]
    fn no_expression_makes_it_panic(text in "[a-z0-9().,\"'&|!<>=+*/%?:é \n\\[\\]-]{0,60}") {
        let scope = crate::cacc::expr::Scope { open: true, ..Default::default() };
        if let Err(errors) = crate::cacc::expr::check(&text, &scope) {
            for error in errors {
                proptest::prop_assert!(error.offset <= text.len());
            }
        }
    }
}

#[test]
fn a_bad_unit_is_one_mistake_also_for_rules_that_read_the_property() {
    let text = r#"
kind: TwinModel
metadata: {name: pump}
spec: {features: {pump: {properties: {flow: {type: number, unit: "litres"}}}}}
---
kind: TwinModel
metadata: {name: other}
spec: {features: {room: {properties: {temperature: {type: number, unit: Cel}}}}}
---
kind: ContextRule
metadata: {name: r}
spec:
  nodes: {matchLabels: {kind: pump}}
  when: 'flow < 3.0 && pump.flow > 1.0'
  then: {interval: 1s}
"#;
    let source = Source { name: "f".to_owned(), text: text.to_owned() };
    let found = parse(&[source], &[]).diagnostics;
    let errors: Vec<_> = found.iter().filter(|one| one.is_error()).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(errors[0].code, Code::BadUnit);
}
