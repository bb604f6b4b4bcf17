//! Manifests: YAML with places in, typed objects and diagnostics out.
//!
//! [`parse`] takes texts, [`from_json`] takes values (as a runtime gets them over HTTP), and both
//! give what was understood together with everything that is wrong, each with its place: a broken
//! document does not hide the next one's errors. Objects of a result without errors are complete,
//! consistent with each other and with what a runtime already knows, and are not checked again.
//!
//! The steps, one module each: `disk` (paths to texts) → `yaml` (text to a tree with places, `region`) →
//! `schema` (shape) → `kinds` (typed values) → `check` (references, cycles, bounds, expressions
//! over all documents together) → `diagnostic` (for people and programs).
//!
//! Not here: what objects do (`reconcile` and the modules that own them), printing (`cli`).

mod check;
pub mod diagnostic;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: reads manifests")]
pub mod disk;
mod draft;
mod object;
mod parse;
mod region;
pub mod schema;
mod source;
pub mod yaml;

pub use diagnostic::{Code, Diagnostic};
pub use disk::load;
pub use object::Object;
pub use parse::{Parsed, from_json, plan_firmware};
pub use region::Region;

use object::object_words;

use crate::kinds::{self, ServiceNames, Spec, TrafficClass, TwinSpec};

/// What of an object is checked and stored but not acted on yet, one plain sentence each; empty
/// if all of it is acted on.
pub fn not_acted_on(object: &Object) -> Vec<String> {
    let whole = |later: &str| {
        vec![format!(
            "{} is checked and stored; {later}",
            object_words(object.kind, &object.metadata.namespace, &object.metadata.name)
        )]
    };
    match &object.spec {
        Spec::NodeProfile(_) => Vec::new(),
        Spec::Channel(_) => whole("no link budget acts on it yet"),
        Spec::ContextRule(rule) => rule_not_acted_on(rule),
        Spec::Rollout(_) => whole("no rollout acts on it yet"),
        Spec::CloudSink(_) => whole("nothing leaves the site, so nothing acts on it yet"),
        Spec::Policy(_) => whole("rights are not enforced yet"),
        Spec::Scenario(_) => whole(
            "`simulate --live` acts on its nodes, seed and duration; channels, faults and traces come later",
        ),
        Spec::Twin(twin) => twin_not_acted_on(twin),
        Spec::TwinSet(set) => twin_not_acted_on(&set.template.spec),
        Spec::TwinAggregate(aggregate) => {
            let mut notes = service_options_not_acted_on(&aggregate.services);
            for (path, derivation) in &aggregate.derive {
                if derivation.window.is_some() {
                    notes.push(format!(
                        "`derive.{path}.window` is not acted on yet: the newest values are used"
                    ));
                }
                if !derivation.function.is_computed() {
                    notes.push(format!(
                        "`derive.{path}`: `{}` is not computed yet",
                        derivation.function.name()
                    ));
                }
            }
            notes
        }
        Spec::Service(service) => match &service.process {
            Some(_) => {
                vec!["`process` is not started yet: the service must register itself".to_owned()]
            }
            None => Vec::new(),
        },
        Spec::Model(model) => match model.classifier {
            kinds::Classifier::Onnx => vec!["ONNX models are not loaded yet".to_owned()],
            _ => Vec::new(),
        },
        Spec::TwinModel(_) => Vec::new(),
    }
}

/// What of a rule is checked and stored but not acted on yet, one plain sentence each.
pub fn rule_not_acted_on(rule: &kinds::ContextRuleSpec) -> Vec<String> {
    let then = &rule.then;
    let mut notes = transmission_not_acted_on(&then.transmission, "then");
    for (name, transmission) in &then.properties {
        notes.extend(transmission_not_acted_on(transmission, &format!("then.properties.{name}")));
    }
    for (given, field, later) in [
        (then.weight.is_some(), "weight", BUDGET),
        (then.class.is_some() && then.class != Some(TrafficClass::Safety), "class", BUDGET),
    ] {
        if given {
            notes.push(format!("`then.{field}` is not acted on yet: {later}"));
        }
    }
    let conditions = [("when", Some(&rule.when)), ("until", rule.until.as_ref())];
    for (field, text) in conditions {
        for fact in ["channel(", "link.load", "link.delay"] {
            if text.is_some_and(|text| text.contains(fact)) {
                let fact = fact.trim_end_matches('(');
                notes.push(format!(
                    "`{field}` reads `{fact}`, which nothing measures yet: it is unknown, and so is not true"
                ));
            }
        }
    }
    notes
}

/// Why shares are decided and shown, and change nothing.
const BUDGET: &str = "`explain node` shows it, and there is no link budget yet to share out by it";

/// Programs that some firmware may have and the controller knows how to ask for.
const PROGRAMS_ACTED_ON: [&str; 5] =
    ["interval", "on-change", "on-request", "features", "schedule"];

fn transmission_not_acted_on(of: &kinds::Transmission, path: &str) -> Vec<String> {
    let given = [
        (of.epmin.is_some(), "epmin"),
        (of.epmax.is_some(), "epmax"),
        (of.edge.is_some(), "edge"),
        (of.confirm.is_some(), "confirm"),
        (of.buffer.is_some(), "buffer"),
        (of.before.is_some(), "before"),
        (of.length.is_some(), "length"),
        (of.channel.is_some(), "channel"),
    ];
    let fields = given.into_iter().filter(|(given, _)| *given);
    let mut notes: Vec<String> = fields
        .map(|(_, field)| format!("`{path}.{field}` is not acted on yet: no command says it"))
        .collect();
    let program = of.program.as_deref().unwrap_or("interval");
    if !PROGRAMS_ACTED_ON.contains(&program) {
        notes.push(format!(
            "`{path}.program: {program}` is not acted on yet: no firmware has it, so the next rule or the default counts"
        ));
    }
    notes
}

fn twin_not_acted_on(twin: &TwinSpec) -> Vec<String> {
    let mut notes = service_options_not_acted_on(&twin.services);
    if let Some(transmission) = &twin.transmission {
        match twin.node {
            Some(_) => notes.extend(transmission_not_acted_on(transmission, "transmission")),
            None => notes.push(
                "`transmission` is stored in the twin; without a `node` nothing is sent".to_owned(),
            ),
        }
    }
    if !twin.desired.is_empty() && twin.node.is_none() {
        notes.push("`desired` is stored in the twin; without a `node` nothing is sent".to_owned());
    }
    if twin.node.as_ref().is_some_and(|node| node.credentials.is_some()) {
        notes.push("`node.credentials` is not checked yet".to_owned());
    }
    notes
}

fn service_options_not_acted_on(services: &ServiceNames) -> Vec<String> {
    match services {
        ServiceNames::List(_) => Vec::new(),
        ServiceNames::Map(map) => map
            .iter()
            .filter(|(_, options)| options.every.is_some())
            .map(|(name, _)| {
                format!(
                    "`services.{name}.every` is not acted on yet: every change calls the service"
                )
            })
            .collect(),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests measure")]
mod tests;
