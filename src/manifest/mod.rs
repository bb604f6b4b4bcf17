//! Manifests: YAML with places in, typed objects and diagnostics out.
//!
//! [`parse`] takes texts, [`from_json`] takes values (as a runtime gets them over HTTP), and both
//! give what was understood together with everything that is wrong, each with its place: a broken
//! document does not hide the next one's errors. Objects of a result without errors are complete,
//! consistent with each other and with what a runtime already knows, and are not checked again.
//!
//! The steps, one module each: `disk` (paths to texts) → `yaml` (text to a tree with places) →
//! `schema` (shape) → `kinds` (typed values) → `check` (references, cycles, bounds, expressions
//! over all documents together) → `diagnostic` (words for people and programs).
//!
//! Not here: what objects do (`reconcile` and the modules that own them), printing (`cli`).

mod check;
pub mod diagnostic;
pub mod disk;
pub mod schema;
pub mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use diagnostic::{Code, Diagnostic, Severity};
pub use disk::load;

use crate::base::text::{list_words, suggest};
use crate::firmware::Firmware;
use crate::kinds::{
    self, API_VERSION, DEFAULT_NAMESPACE, Kind, Metadata, ServiceNames, Spec, TrafficClass,
    TwinModelSpec, TwinSetSpec, TwinSpec,
};
use yaml::{Document, Node, NodeValue, Region};

/// One text to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What the user calls it: a path as given, or `<stdin>`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// What was understood, and everything that is wrong.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The objects, in the order written. Complete and consistent only if there is no error.
    pub objects: Vec<Object>,
    /// Everything that is wrong, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// How many texts were read, or should have been.
    pub files: usize,
}

impl Parsed {
    /// Whether anything forbids to apply the objects.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// What sort of object.
    pub kind: Kind,
    /// Who it is.
    pub metadata: Metadata,
    /// What it asks for.
    pub spec: Spec,
    /// The object as JSON: `apiVersion`, `kind`, `metadata` with its namespace, `spec` as
    /// written. Equal text gives equal JSON.
    pub json: Value,
    /// Where it was written; nowhere for one that came as JSON.
    pub origin: Origin,
}

/// Where an object was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file as the user named it; empty if there is none.
    pub file: String,
    /// The line of the document's first key, from 1; 0 if there is none.
    pub line: u32,
}

impl Object {
    /// `Kind/namespace/name`, unique among all objects.
    pub fn key(&self) -> String {
        format!("{}/{}/{}", self.kind, self.metadata.namespace, self.metadata.name)
    }

    /// The id of the thing that this twin or aggregate is: `namespace:name`.
    pub fn thing_id(&self) -> String {
        format!("{}:{}", self.metadata.namespace, self.metadata.name)
    }

    /// An object as [`Object::json`] gave it, which was checked then and is not checked again.
    ///
    /// # Errors
    /// What cannot be read: another version wrote it.
    pub fn from_checked(json: Value) -> Result<Self, String> {
        let typed = Self::typed(json.clone())?;
        Ok(Self { json, ..typed })
    }

    /// The same without [`Object::json`]: enough to be referred to, and a third of the memory.
    ///
    /// # Errors
    /// As [`Object::from_checked`].
    pub fn typed(mut json: Value) -> Result<Self, String> {
        let mut part = |name: &str| json.get_mut(name).map(Value::take).unwrap_or_default();
        let words = |error: serde_json::Error| error.to_string();
        let kind: Kind = serde_json::from_value(part("kind")).map_err(words)?;
        let metadata: Metadata = serde_json::from_value(part("metadata")).map_err(words)?;
        let spec = Spec::from_value(kind, part("spec")).map_err(words)?;
        Ok(Self { kind, metadata, spec, json: Value::Null, origin: Origin::default() })
    }

    /// The directory that file names in this object are relative to; empty for one that came as
    /// JSON or from standard input.
    pub fn directory(&self) -> PathBuf {
        Path::new(&self.origin.file).parent().map(Path::to_path_buf).unwrap_or_default()
    }

    /// The Twin objects that a TwinSet makes; nothing for other kinds. Each has the labels and
    /// annotations of the set and of its template, the template winning.
    pub fn expand(&self) -> Vec<Object> {
        let Spec::TwinSet(set) = &self.spec else {
            return Vec::new();
        };
        let names = set.twin_names(&self.metadata.name);
        names.iter().filter_map(|name| self.twin(name)).collect()
    }

    /// The twin of this name that a TwinSet makes; `None` for other kinds.
    pub fn twin(&self, name: &str) -> Option<Object> {
        let Spec::TwinSet(set) = &self.spec else {
            return None;
        };
        let mut annotations = self.metadata.annotations.clone();
        annotations.extend(set.template.metadata.annotations.clone());
        let metadata = Metadata {
            name: name.to_owned(),
            namespace: self.metadata.namespace.clone(),
            labels: self.twin_labels(set),
            annotations,
        };
        let json =
            object_json(Kind::Twin, &metadata, self.json["spec"]["template"]["spec"].clone());
        let spec = Spec::Twin(Box::new(set.template.spec.clone()));
        Some(Object { kind: Kind::Twin, metadata, spec, json, origin: self.origin.clone() })
    }

    /// The labels of each twin that a TwinSet makes.
    pub fn twin_labels(&self, set: &TwinSetSpec) -> BTreeMap<String, String> {
        let mut labels = self.metadata.labels.clone();
        labels.extend(set.template.metadata.labels.clone());
        labels
    }
}

fn object_json(kind: Kind, metadata: &Metadata, spec: Value) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec })
}

/// Parses texts and checks all their objects together.
///
/// * `known`: objects that a runtime already has, as declared (a TwinSet, not the twins that it
///   makes). References may name them; an object of the texts replaces one of the same key. They
///   are not checked again themselves.
pub fn parse(sources: &[Source], known: &[Object]) -> Parsed {
    let mut diagnostics = Vec::new();
    let mut drafts = Vec::new();
    for source in sources {
        let documents = yaml::read(&source.name, &source.text, &mut diagnostics);
        for document in documents.into_iter().flat_map(unroll).filter(is_declared) {
            drafts.push(Draft::new(&source.name, document, &mut diagnostics));
        }
    }
    finish(drafts, sources, known, diagnostics)
}

/// Checks objects that came as JSON, with the same rules. Diagnostics name the object instead of
/// a place.
pub fn from_json(documents: Vec<Value>, known: &[Object]) -> Parsed {
    let mut diagnostics = Vec::new();
    let mut drafts = Vec::new();
    // Each value is let go of as soon as it is read: there may be a hundred thousand.
    for (index, value) in documents.into_iter().enumerate() {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let file = match (text("/kind"), text("/metadata/name")) {
            (Some(kind), Some(name)) => {
                let namespace = text("/metadata/namespace").unwrap_or(DEFAULT_NAMESPACE);
                format!("{kind}/{namespace}/{name}")
            }
            _ => format!("document {}", index + 1),
        };
        let document = Document { root: Node::from_json(&value), broken: false };
        drop(value);
        for document in unroll(document).into_iter().filter(is_declared) {
            drafts.push(Draft::new(&file, document, &mut diagnostics));
        }
    }
    finish(drafts, &[], known, diagnostics)
}

/// The documents of a `kind: List`, as reading verbs print it; any other document as it is.
fn unroll(mut document: Document) -> Vec<Document> {
    if document.root.get("kind").and_then(Node::as_str) != Some("List") {
        return vec![document];
    }
    let NodeValue::Map(entries) = &mut document.root.value else {
        return vec![document];
    };
    let items = entries.iter_mut().find(|entry| entry.key == "items");
    match items.map(|entry| &mut entry.value.value) {
        Some(NodeValue::List(items)) => std::mem::take(items)
            .into_iter()
            .map(|root| Document { root, broken: document.broken })
            .collect(),
        _ => vec![document],
    }
}

/// Whether a document is declared by itself. A twin that a TwinSet makes is listed with the status
/// that says so; when such a list is applied again, the set stands for it.
fn is_declared(document: &Document) -> bool {
    document.root.at(&["status", "madeBy"]).is_none()
}

/// Parses texts, checks them, and plans the firmware of the profiles that `wanted` picks. What
/// firmware cannot be made of is reported at its place, like every other mistake.
pub fn plan_firmware(
    sources: &[Source],
    wanted: impl Fn(&Object) -> bool,
) -> (Parsed, Vec<Firmware>) {
    let mut diagnostics = Vec::new();
    let mut drafts = Vec::new();
    for source in sources {
        let documents = yaml::read(&source.name, &source.text, &mut diagnostics);
        for document in documents.into_iter().flat_map(unroll).filter(is_declared) {
            drafts.push(Draft::new(&source.name, document, &mut diagnostics));
        }
    }
    check::check(&drafts, sources, &[], &mut diagnostics);
    let mut planned = Vec::new();
    if !diagnostics.iter().any(Diagnostic::is_error) {
        let object = |draft: &Draft| {
            let (metadata, spec) = draft.typed.clone()?;
            Some(draft.object(metadata, spec))
        };
        let objects: Vec<(Object, &Draft)> =
            drafts.iter().filter_map(|draft| Some((object(draft)?, draft))).collect();
        let all: Vec<Object> = objects.iter().map(|(object, _)| object.clone()).collect();
        for (object, draft) in &objects {
            let Spec::NodeProfile(profile) = &object.spec else { continue };
            if !wanted(object) {
                continue;
            }
            let model = model_of_profile(&all, object);
            match Firmware::plan(&object.metadata.name, profile, model) {
                Ok(firmware) => planned.push(firmware),
                Err(problems) => diagnostics.extend(problems.into_iter().map(|problem| {
                    let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
                    let region = draft.root.region_at(&path);
                    let message = problem.message;
                    let mut found =
                        Diagnostic::error(problem.code, draft.file.as_str(), region, message);
                    found.help = problem.help;
                    found
                })),
            }
        }
    }
    diagnostic::finish(&mut diagnostics, sources);
    let objects = drafts.into_iter().filter_map(Draft::into_object).collect();
    (Parsed { objects, diagnostics, files: sources.len() }, planned)
}

/// The model of the first twin that uses a profile.
pub fn model_of_profile<'a>(objects: &'a [Object], profile: &Object) -> Option<&'a TwinModelSpec> {
    let name = |reference: &str| reference.rsplit('/').next().unwrap_or(reference).to_owned();
    let model = objects.iter().find_map(|object| {
        let twin = match &object.spec {
            Spec::Twin(twin) => twin,
            Spec::TwinSet(set) => &set.template.spec,
            _ => return None,
        };
        let used = twin.node.as_ref()?.profile.as_deref()?;
        (name(used) == profile.metadata.name).then(|| twin.model.as_deref().map(name)).flatten()
    })?;
    objects.iter().find_map(|object| match &object.spec {
        Spec::TwinModel(spec) if object.metadata.name == model => Some(&**spec),
        _ => None,
    })
}

fn finish(
    drafts: Vec<Draft>,
    sources: &[Source],
    known: &[Object],
    mut diagnostics: Vec<Diagnostic>,
) -> Parsed {
    check::check(&drafts, sources, known, &mut diagnostics);
    diagnostic::finish(&mut diagnostics, sources);
    let objects = drafts.into_iter().filter_map(Draft::into_object).collect();
    Parsed { objects, diagnostics, files: sources.len() }
}

/// A document on its way to an object: as much of it as was understood.
struct Draft {
    file: String,
    root: Node,
    /// Kind, namespace and name, as soon as they can be read at all.
    identity: Option<(Kind, String, String)>,
    /// The typed parts, if the shape is right.
    typed: Option<(Metadata, Spec)>,
    /// The typed parts without the values whose shape is wrong, so that what is left is checked
    /// in the same run.
    partial: Option<(Metadata, Spec)>,
}

impl Draft {
    fn new(file: &str, document: Document, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let Document { root, broken } = document;
        let mut draft =
            Self { file: file.to_owned(), root, identity: None, typed: None, partial: None };
        let Some(kind) = draft.kind(broken, diagnostics) else {
            return draft;
        };
        let text = |path: &[&str]| draft.root.at(path).and_then(Node::as_str).map(str::to_owned);
        if let Some(name) = text(&["metadata", "name"]) {
            let namespace =
                text(&["metadata", "namespace"]).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
            draft.identity = Some((kind, namespace, name));
        }
        if broken {
            return draft;
        }
        let name = draft.words(kind);
        let faulty = schema::check(kind, &draft.root, file, &name, diagnostics);
        let mut json = draft.root.to_json();
        faulty.iter().for_each(|path| prune(&mut json, path));
        let metadata = serde_json::from_value::<Metadata>(json["metadata"].take());
        let typed = metadata
            .and_then(|metadata| Ok((metadata, Spec::from_value(kind, json["spec"].take())?)));
        match typed {
            Ok(typed) if faulty.is_empty() => draft.typed = Some(typed),
            Ok(partial) => draft.partial = Some(partial),
            Err(_) if !faulty.is_empty() => {}
            Err(error) => diagnostics.push(Diagnostic::error(
                Code::WrongType,
                file,
                draft.root.region,
                format!("{name} cannot be read: {error}"),
            )),
        }
        draft
    }

    /// The object in the user's words: "Twin `farm:node-17`".
    fn words(&self, kind: Kind) -> String {
        match &self.identity {
            Some((_, namespace, name)) => object_words(kind, namespace, name),
            None => format!("this {kind}"),
        }
    }

    /// The document's kind; reports what is wrong with it.
    fn kind(&self, broken: bool, diagnostics: &mut Vec<Diagnostic>) -> Option<Kind> {
        let NodeValue::Map(_) = &self.root.value else {
            if !broken {
                let message = format!(
                    "a document is a map with `kind`, `metadata` and `spec`, not {}",
                    self.root.describe()
                );
                diagnostics.push(Diagnostic::error(
                    Code::NotAnObject,
                    &self.file,
                    self.root.region,
                    message,
                ));
            }
            return None;
        };
        let Some(node) = self.root.get("kind") else {
            if !broken {
                let region = Region { width: 1, ..self.root.region };
                diagnostics.push(
                    Diagnostic::error(
                        Code::NotAnObject,
                        &self.file,
                        region,
                        "this document has no `kind`",
                    )
                    .help(format!(
                        "the kinds are {}",
                        list_words(Kind::ALL.iter().map(|kind| kind.name()))
                    )),
                );
            }
            return None;
        };
        let Some(word) = node.as_str() else {
            let message = format!("`kind` is a word, not {}", node.describe());
            diagnostics.push(Diagnostic::error(
                Code::UnknownKind,
                &self.file,
                node.region,
                message,
            ));
            return None;
        };
        let kind = Kind::ALL.iter().copied().find(|kind| kind.name() == word);
        if kind.is_none() {
            let names = Kind::ALL.iter().map(|kind| kind.name());
            let guess = suggest(word, names.clone()).or_else(|| Kind::find(word).map(Kind::name));
            let mut diagnostic = Diagnostic::error(
                Code::UnknownKind,
                &self.file,
                node.region,
                format!("there is no kind `{word}`"),
            );
            if let Some(guess) = guess {
                diagnostic = diagnostic.help(format!("did you mean `{guess}`?"));
            }
            diagnostics.push(diagnostic.help(format!("the kinds are {}", list_words(names))));
        }
        kind
    }

    fn into_object(mut self) -> Option<Object> {
        let (metadata, spec) = self.typed.take()?;
        Some(self.object(metadata, spec))
    }

    fn object(&self, metadata: Metadata, spec: Spec) -> Object {
        let kind = spec.kind();
        let spec_json = self.root.get("spec").map(Node::to_json).unwrap_or_default();
        let json = object_json(kind, &metadata, spec_json);
        let origin = Origin { line: self.root.region.at.line, file: self.file.clone() };
        let origin = if origin.line == 0 { Origin::default() } else { origin };
        Object { kind, metadata, spec, json, origin }
    }
}

/// Takes the value at a path out; a list that holds it goes as a whole, because the places of
/// the others go by their number.
fn prune(value: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else {
        return;
    };
    let Some(inner) = value.get_mut(step) else {
        return;
    };
    if rest.is_empty() || inner.is_array() {
        if let Some(map) = value.as_object_mut() {
            map.remove(step);
        }
    } else {
        prune(inner, rest);
    }
}

/// An object in the user's words: twins by their thing's id, others by name, with the namespace
/// where it is not the default one.
fn object_words(kind: Kind, namespace: &str, name: &str) -> String {
    match kind {
        Kind::Twin | Kind::TwinAggregate => format!("{kind} `{namespace}:{name}`"),
        _ if namespace == DEFAULT_NAMESPACE => format!("{kind} `{name}`"),
        _ => format!("{kind} `{namespace}/{name}`"),
    }
}

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
mod tests;
