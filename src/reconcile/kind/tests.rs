//! Every field of every kind is acted on, or `apply` says that it is not.
//!
//! The fields are those of the JSON Schema. Each is declared pending beside its kind's struct
//! (`kinds::pending`), or is for people alone, or has a probe here: a value for it that changes what
//! the reconciler makes of an object. So a new field that is accepted and ignored fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{model as model_kind, rule, twin as twin_kind, twin_model};
use crate::edgeai::Model;
use crate::firmware::{Firmware, render};
use crate::kinds::{DATA_ANNOTATION, Kind, NodeProfileSpec, Spec, TwinModelSpec, TwinSpec};
use crate::manifest::{self, Object, schema::json_schema};
use crate::reconcile::ApplyOptions;
use crate::reconcile::disk::needed_files;
use crate::reconcile::tests::{World, external, key, model, twin};
use crate::reconcile::wanted;
use crate::twin::path::Path;
use crate::twin::{Change, ThingId, apply, decide, service_inputs, services};

/// Fields that are notes: whoever lists an object reads them, and nothing else.
const FOR_PEOPLE: [(Kind, &str); 4] = [
    (Kind::TwinModel, "description"),
    (Kind::TwinModel, "features.*.description"),
    (Kind::TwinModel, "features.*.properties.*.description"),
    (Kind::TwinSet, "template.metadata.annotations"),
];

/// A spec of each kind that is acted on; probes change one field of it.
fn base(kind: Kind) -> Value {
    match kind {
        Kind::TwinModel => model()["spec"].clone(),
        Kind::Twin => {
            json!({"model": "env", "node": {"profile": "board"}, "services": {"judge": {}},
            "transmission": {"program": "interval"}})
        }
        Kind::TwinSet => json!({"count": 2, "template": {"spec": {"model": "env"}}}),
        Kind::TwinAggregate => json!({"members": {"matchLabels": {"room": "north"}},
            "derive": {"environment/temperature": {"fn": "mean", "of": "environment/temperature"},
                "room/x": {"fn": "max", "of": "environment/humidity"}},
            "services": {"judge": {}}}),
        Kind::Service => json!({"model": "forest", "inputs": ["environment/temperature"]}),
        Kind::Model => json!({"classifier": "forest", "inputs": ["temperature", "light"],
            "train": {"generator": "environment", "rows": 400, "parameters": {"trees": 3}}}),
        Kind::NodeProfile => json!({"board": "esp32", "lease": "30s",
            "transmission": {"program": "interval"}, "memory": {"ring": 64},
            "battery": {"pin": "GPIO35", "emptyVolts": 1.1, "fullVolts": 1.4, "divider": 1.5},
            "sensors": [
                {"type": "analog", "pin": "GPIO34", "property": "environment/temperature",
                 "calibration": {"scale": 2.0}},
                {"type": "sht3x", "properties": {"humidity": "environment/humidity"}},
                {"type": "ntc", "pin": "GPIO36", "property": "environment/light"}],
            "actuators": [{"type": "relay", "pin": "GPIO5", "property": "lamp/on"}]}),
        Kind::ContextRule => json!({"nodes": {"names": ["a"]}, "when": "temperature > 30",
            "then": {"properties": {"environment/temperature": {}}}}),
        _ => Value::Null,
    }
}

/// One probe a field: the path with the keys of [`base`], and the value to set.
fn probes(kind: Kind) -> Vec<(String, Value)> {
    let transmission = |at: &str| {
        let fields = json!({"program": "on-change", "interval": "3s", "pmin": "3s", "pmax": "7s",
            "st": 0.5, "gt": 3.5, "lt": 2.5});
        let fields = fields.as_object().unwrap().clone();
        fields
            .into_iter()
            .map(|(field, value)| (format!("{at}.{field}"), value))
            .collect::<Vec<_>>()
    };
    let selector = |at: &str| {
        vec![
            (format!("{at}.names"), json!(["c"])),
            (format!("{at}.matchLabels"), json!({"room": "south"})),
            (format!("{at}.matchExpressions.0.key"), json!("colour")),
            (format!("{at}.matchExpressions.0.operator"), json!("DoesNotExist")),
            (format!("{at}.matchExpressions.0.values"), json!(["south"])),
        ]
    };
    let own = match kind {
        Kind::TwinModel => json!({
            "features.environment.properties.temperature.type": "integer",
            "features.environment.properties.temperature.unit": "%RH",
            "features.environment.properties.temperature.minimum": -40,
            "features.environment.properties.temperature.maximum": 85,
            "features.environment.properties.temperature.readOnly": false,
            "features.mode.properties.mode.enum": ["on"],
        }),
        Kind::Twin => json!({
            "model": "other", "attributes": {"floor": 1}, "desired": {"lamp": {"on": true}},
            "node.profile": "other", "services.judge.enabled": false,
            "services.judge.inputs": ["environment/light"],
        }),
        Kind::TwinSet => json!({
            "count": 3, "names": ["x"], "template.metadata.labels": {"room": "south"},
        }),
        Kind::TwinAggregate => json!({
            "attributes": {"floor": 1}, "derive.room/x.fn": "count",
            "derive.room/x.of": "environment/light", "services.judge.enabled": false,
            "services.judge.inputs": ["room/x"],
        }),
        Kind::Service => json!({
            "inputs": ["environment/light"], "model": "svm", "external": true, "replicas": 3,
            "timeout": "7s", "balancing": "random", "overload.policy": "latest", "overload.limit": 7,
        }),
        Kind::Model => json!({
            "classifier": "svm", "file": "Cargo.toml", "digest": format!("sha256:{}", "0".repeat(64)),
            "inputs": ["light", "temperature"], "labels": ["a", "b"], "train.data": "rows.csv",
            "train.generator": null, "train.rows": 300, "train.target": "other", "train.seed": 2,
            "train.test": "50%", "train.parameters.trees": 5, "train.parameters.depth": 1,
            "train.parameters.minLeaf": 40, "train.parameters.features": "100%",
            "train.parameters.c": 0.01, "train.parameters.gamma": 7.0,
            "train.parameters.hidden": [3], "train.parameters.epochs": 2,
            "train.parameters.learningRate": 0.3, "train.parameters.batch": 3,
        }),
        Kind::NodeProfile => json!({
            "board": "picow", "transport": "serial", "programs": ["interval"], "lease": "50s",
            "memory.ring": 32, "memory.reserve": "300KiB", "battery.pin": "GPIO39",
            "battery.emptyVolts": 1.0, "battery.fullVolts": 1.5, "battery.divider": 2.0,
            "battery.low": "30%", "sensors.0.type": "grove-light", "sensors.0.pin": "GPIO33",
            "sensors.0.property": "environment/loudness", "sensors.0.period": "3s",
            "sensors.0.calibration.scale": 3.0, "sensors.0.calibration.offset": 1.0,
            "sensors.2.calibration.beta": 4000,
            "sensors.1.address": 69, "sensors.1.properties": {"temperature": "environment/loudness"},
            "actuators.0.type": "led", "actuators.0.pin": "GPIO18",
            "actuators.0.property": "lamp/off", "actuators.0.safe": true,
        }),
        Kind::ContextRule => json!({
            "each": true, "nodes.each": true, "nodes.aggregate": "b", "when": "temperature > 31",
            "until": "temperature < 20", "for": "1s", "hold": "1s", "cooldown": "1s", "priority": 3,
            "then.set": {"lamp/on": true}, "then.pull": ["light"], "then.quarantine": true,
        }),
        _ => json!({}),
    };
    let mut all: Vec<(String, Value)> = own.as_object().unwrap().clone().into_iter().collect();
    match kind {
        Kind::Twin | Kind::NodeProfile => all.extend(transmission("transmission")),
        Kind::ContextRule => {
            all.extend(transmission("then"));
            all.extend(transmission("then.properties.environment/temperature"));
            all.extend(selector("nodes"));
        }
        Kind::TwinAggregate => all.extend(selector("members")),
        _ => {}
    }
    all
}

/// What else an object needs so that the field of a probe can matter.
fn setting(kind: Kind, path: &str, spec: &mut Value) {
    let classifier = match path.rsplit('.').next().unwrap_or_default() {
        "c" | "gamma" => "svm",
        "hidden" | "epochs" | "learningRate" | "batch" => "mlp",
        _ => "forest",
    };
    match kind {
        Kind::Model if classifier != "forest" => {
            spec["classifier"] = classifier.into();
            spec["train"]["parameters"] = json!({});
        }
        // A selector's single parts matter where nothing else selects.
        _ if path.contains("matchExpressions") => {
            let of = if kind == Kind::ContextRule { "nodes" } else { "members" };
            spec[of] = json!({"matchLabels": {"floor": "1"},
                "matchExpressions": [{"key": "room", "operator": "In", "values": ["north"]}]});
            if !path.ends_with("values") {
                spec[of]["matchExpressions"][0] = json!({"key": "room", "operator": "Exists"});
            }
        }
        Kind::TwinModel if path.contains("mode") => {
            spec["features"]["mode"] =
                json!({"properties": {"mode": {"type": "string", "readOnly": false}}});
        }
        _ => {}
    }
}

fn put(value: &mut Value, path: &str, new: Value) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let inner = match value {
        Value::Array(items) => &mut items[step.parse::<usize>().unwrap()],
        value => &mut value[step],
    };
    match rest {
        None => *inner = new,
        Some(rest) => put(inner, rest, new),
    }
}

/// A thing as text; of its services only what the trigger reads.
fn used(thing: &Value) -> String {
    let id = ThingId::parse("lab:a").unwrap();
    let event = decide(&id, None, Change::Modify(Path::Thing, thing.clone())).unwrap();
    let twin = apply(&id, None, &event, 0).unwrap();
    let services = services(&twin).map(|name| (name, service_inputs(&twin, name)));
    let services: Vec<_> = services.collect();
    let mut rest = twin.to_json();
    rest["attributes"]["services"] = Value::Null;
    format!("{services:?} {rest} ")
}

/// A world with what the objects of the probes refer to.
async fn world(directory: &std::path::Path) -> World {
    let world = World::open(directory);
    let trained = |classifier: &str| {
        let mut spec = base(Kind::Model);
        spec["classifier"] = classifier.into();
        spec["inputs"] = json!(["temperature"]);
        spec["train"]["parameters"] = json!({});
        let name = classifier;
        json!({"kind": "Model", "metadata": {"name": name}, "spec": spec})
    };
    let documents = json!([
        model(),
        external(),
        trained("forest"),
        trained("svm"),
        twin("a", &json!({"room": "north", "floor": "1"}), &json!({"model": "env"})),
        twin("b", &json!({"room": "south", "floor": "1"}), &json!({"model": "env"})),
        twin("c", &json!({"floor": "2"}), &json!({"model": "env"})),
    ]);
    world.apply(&documents).await;
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        let path = Path::parse("/features").unwrap();
        let value = json!({"temperature": 20 + at, "humidity": 40 + at, "light": at});
        let value = json!({"environment": {"properties": value}});
        world.change(&format!("lab:{name}"), Change::Modify(path, value));
    }
    world
}

/// Applies and waits; what is refused is an outcome, too.
async fn tried(world: &World, documents: &Value) -> Result<(), String> {
    let applied = world.try_apply(documents, ApplyOptions::default()).await;
    applied.map_err(|refused| format!("{refused:?}"))?;
    world.settle().await;
    Ok(())
}

/// Everything that is made of a spec, as text: what others act on.
async fn outcome(world: &World, kind: Kind, spec: &Value) -> String {
    let labels = BTreeMap::from([("room".to_owned(), "north".to_owned())]);
    let read = |value: &Value| -> TwinModelSpec { serde_json::from_value(value.clone()).unwrap() };
    let env = read(&model()["spec"]);
    let mut out = String::new();
    match Spec::from_value(kind, spec.clone()).unwrap() {
        Spec::TwinModel(of) => {
            let rule = json!({"kind": "ContextRule", "metadata": {"name": "r"}, "spec": {
                "nodes": {"names": ["lab/a"]}, "when": "environment.temperature > humidity",
                "then": {"interval": "1s"}}});
            let asks = json!({"mode": {"mode": "x"}, "environment": {"temperature": 90}});
            let asks = twin("a", &json!({}), &json!({"model": "env", "node": {}, "desired": asks}));
            let mut document = model();
            document["spec"] = spec.clone();
            for one in manifest::from_json(vec![document, rule, asks], &[]).diagnostics {
                write!(out, "{} {} ", one.code.id(), one.message).unwrap();
            }
            let node = twin_kind::node(&TwinSpec::default(), None, Some(&of));
            write!(out, "{:?} {node:?}", twin_model::rules(&of)).unwrap();
        }
        Spec::Twin(of) => {
            let patch = wanted::Wanted::of_twin(&of, &labels, None).patch(None, [], &[]).unwrap();
            let name = of.node.as_ref().and_then(|node| node.profile.as_deref());
            let profile =
                serde_json::from_value::<NodeProfileSpec>(base(Kind::NodeProfile)).unwrap();
            let profile = (name == Some("board")).then_some(&profile);
            write!(out, "{} {:?}", used(&patch), twin_kind::node(&of, profile, Some(&env)))
                .unwrap();
        }
        Spec::TwinSet(_) => {
            let document = json!({"kind": "TwinSet", "metadata": {"name": "s"}, "spec": spec});
            for twin in manifest::from_json(vec![model(), document], &[]).objects[1].expand() {
                write!(out, "{} {:?} ", twin.metadata.name, twin.metadata.labels).unwrap();
            }
        }
        Spec::TwinAggregate(_) => {
            let metadata = json!({"name": "room", "namespace": "lab"});
            if let Err(refused) = tried(
                world,
                &json!([{"kind": "TwinAggregate", "metadata": metadata, "spec": spec}]),
            )
            .await
            {
                return refused;
            }
            let mut thing = world.thing("lab:room");
            thing.as_object_mut().unwrap().remove("thingId");
            out = used(&thing);
        }
        Spec::Service(_) => {
            if let Err(refused) =
                tried(world, &json!([{"kind": "Service", "metadata": {"name": "s"}, "spec": spec}]))
                    .await
            {
                return refused;
            }
            let config = format!("{:?}", world.services.services.lock().unwrap()["s"]);
            // Whether it may run nowhere here is what `external` says.
            let mut nowhere = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": spec});
            nowhere["spec"].as_object_mut().unwrap().remove("model");
            let found = manifest::from_json(vec![nowhere], &[]).diagnostics.len();
            write!(out, "{config} {found}").unwrap();
        }
        Spec::Model(of) => {
            let classifier = model_kind::loaded(of.classifier).unwrap();
            let data = of.train.as_ref().and_then(|recipe| recipe.data.as_ref());
            let annotation = data.map(|name| (DATA_ANNOTATION.to_owned(), name.clone()));
            let annotations = annotation.into_iter().collect();
            let json = json!({"metadata": {}, "spec": spec});
            let object = json!({"kind": "Model", "metadata": {"name": "m", "namespace": "default"}, "spec": spec});
            let mut objects = [Object { json, ..Object::typed(object).unwrap() }];
            let read = needed_files(&mut objects).map(|files| files.len());
            let named = model_kind::source(&of, data.map(String::as_str)).is_some();
            write!(out, "{read:?} {:?} {named} ", model_kind::needs(&of, &annotations)).unwrap();
            let csv: &[u8] = b"temperature,light,label,other\n1,2,a,b\n2,3,b,a\n3,4,a,b\n4,5,b,a\n";
            let recipe = of.train.as_ref().unwrap();
            let csv = (data.is_some() || recipe.target == "other").then_some(csv);
            match model_kind::fit(&of, recipe, classifier, csv) {
                Ok((bytes, words)) => {
                    let model = Model::from_bytes(&bytes).unwrap();
                    let fits = model_kind::fits(&of, classifier, &model);
                    write!(out, "{} {words} {fits:?}", model.digest()).unwrap();
                }
                Err(why) => out += &why,
            }
        }
        Spec::NodeProfile(of) => {
            match Firmware::plan("p", &of, Some(&env)) {
                Ok(firmware) => {
                    for file in render::files(&firmware) {
                        write!(out, "{} {}", file.name, file.text).unwrap();
                    }
                }
                Err(problems) => write!(out, "{problems:?}").unwrap(),
            }
            let node = twin_kind::node(&TwinSpec::default(), Some(&of), Some(&env));
            write!(out, "{node:?}").unwrap();
        }
        Spec::ContextRule(of) => {
            let resolve = |name: &str| ThingId::parse(&format!("lab:{name}")).ok();
            let rule = rule::rule(&key("ContextRule/lab/r"), &of, resolve, &[], &[]).unwrap();
            write!(out, "{rule:?}").unwrap();
        }
        _ => {}
    }
    out
}

/// The paths of all fields of a kind, `*` for any key or index.
fn fields(kind: Kind) -> BTreeSet<String> {
    fn walk(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
        let under = |step: &str| match path {
            "" => step.to_owned(),
            path => format!("{path}.{step}"),
        };
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.rsplit('/').next().unwrap();
            return walk(&json_schema()["definitions"][name], path, out);
        }
        for branch in ["allOf", "anyOf", "oneOf"] {
            schema[branch].as_array().into_iter().flatten().for_each(|one| walk(one, path, out));
        }
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            out.insert(under(field));
            walk(schema, &under(field), out);
        }
        for inner in ["additionalProperties", "items"] {
            if schema[inner].is_object() {
                walk(&schema[inner], &under("*"), out);
            }
        }
    }
    let mut out = BTreeSet::new();
    walk(&json_schema()["definitions"][kind.name()]["properties"]["spec"], "", &mut out);
    // A field that holds others is what they are.
    let all: Vec<String> = out.iter().cloned().collect();
    out.retain(|path| !all.iter().any(|other| other.starts_with(&format!("{path}."))));
    out
}

/// Whether a path is one that a pattern with `*` means; or below it.
fn within(path: &str, pattern: &str) -> bool {
    let mut steps = path.split('.');
    pattern.is_empty()
        || pattern.split('.').all(|wanted| {
            steps.next().is_some_and(|step| wanted == "*" || step == "*" || wanted == step)
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_every_kind_is_acted_on_or_declared_pending() {
    let directory = tempfile::tempdir().unwrap();
    let world = world(directory.path()).await;
    let mut faults = Vec::new();
    for kind in Kind::ALL.iter().copied() {
        let mut pending = Vec::new();
        kind.pending().iter().for_each(|one| one.paths("", &mut pending));
        let probes = probes(kind);
        let mut unprobed = fields(kind);
        for path in &pending {
            let known = |field: &String| within(field, path) || within(path, field);
            if !path.is_empty() && !fields(kind).iter().any(known) {
                faults.push(format!("{kind} declares `{path}` pending, which it does not have"));
            }
        }
        unprobed.retain(|field| {
            // The twins of a set go the way of a Twin: the same struct, probed there.
            let of_twin = kind == Kind::TwinSet && field.starts_with("template.spec.");
            let known = of_twin
                || pending.iter().any(|path| within(field, path))
                || FOR_PEOPLE.iter().any(|(of, path)| *of == kind && path == field)
                || probes.iter().any(|(path, _)| within(path, field));
            !known
        });
        faults
            .extend(unprobed.into_iter().map(|field| format!("{kind}.{field}: nobody probes it")));
        for (path, value) in probes {
            let mut spec = base(kind);
            setting(kind, &path, &mut spec);
            let before = outcome(&world, kind, &spec).await;
            assert!(!before.starts_with("Invalid"), "{kind}: {before}");
            put(&mut spec, &path, value);
            if outcome(&world, kind, &spec).await == before {
                faults.push(format!("{kind}.{path} is accepted and ignored"));
            }
        }
    }
    world.close().await;
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_is_pending_is_said_for_the_values_that_are_and_no_others() {
    let said = |kind: Kind, spec: Value| {
        Spec::from_value(kind, spec.clone()).unwrap().not_acted_on("this", &spec)
    };
    assert_eq!(
        said(Kind::Service, json!({"external": true, "lease": "1m"})),
        ["`lease` is not acted on yet: an instance brings its own lease when it registers"]
    );
    assert_eq!(said(Kind::Service, json!({"external": true})), [""; 0]);
    let property = |observable: bool| json!({"features": {"f": {"properties": {"p": {"type": "number", "observable": observable}}}}});
    assert_eq!(
        said(Kind::TwinModel, property(false)),
        [
            "`features.f.properties.p.observable: false` is not acted on yet: the node sends it with the others"
        ]
    );
    assert_eq!(said(Kind::TwinModel, property(true)), [""; 0]);
    let node = json!({"node": {"transport": "serial"}, "services": {"s": {"every": "1s", "enabled": false}},
        "transmission": {"epmin": "1s"}});
    assert_eq!(
        said(Kind::TwinSet, json!({"count": 1, "template": {"spec": node}})),
        [
            "`template.spec.services.s.every` is not acted on yet: every change calls the service",
            "`template.spec.node.transport` is not acted on yet: the board of its profile decides how it is connected",
            "`template.spec.transmission.epmin` is not acted on yet: no command carries it",
        ]
    );
    assert_eq!(
        said(Kind::Twin, json!({"transmission": {"interval": "1s"}})),
        ["`transmission` is stored in the twin; without a `node` nothing is sent"]
    );
    let rule = json!({"nodes": {}, "when": "channel().load > 0.5", "then": {"program": "warp", "class": "safety"}});
    assert_eq!(
        said(Kind::ContextRule, rule),
        [
            "`then.program: warp` is not acted on yet: no firmware has it, so the next rule or the default counts",
            "`when` reads `channel`, which nothing measures yet: it is unknown, and so is not true",
        ]
    );
    assert_eq!(
        said(Kind::Policy, json!({"entries": {}})),
        ["this is checked and stored; rights are not enforced yet"]
    );
    // What is not computed is what is listed.
    for function in
        ["mean", "min", "max", "sum", "count", "stddev", "quantile", "any", "all", "latest"]
    {
        let spec = json!({"members": {}, "derive": {"a/b": {"fn": function, "of": "a/b"}}});
        let computed: crate::kinds::DeriveFunction =
            serde_json::from_value(function.into()).unwrap();
        assert_eq!(
            said(Kind::TwinAggregate, spec).is_empty(),
            computed.is_computed(),
            "{function}"
        );
    }
}
