//! From texts, or JSON, to checked objects and everything that is wrong with them.

use serde_json::Value;

use super::diagnostic::{self, Diagnostic};
use super::draft::Draft;
use super::object::Object;
use super::source::Source;
use super::yaml::{Document, NodeValue, YamlNode};
use super::{check, yaml};
use crate::firmware::Firmware;
use crate::kinds::{DEFAULT_NAMESPACE, Spec, TwinModelSpec};

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
        let document = Document { root: YamlNode::from_json(&value), broken: false };
        drop(value);
        for document in unroll(document).into_iter().filter(is_declared) {
            drafts.push(Draft::new(&file, document, &mut diagnostics));
        }
    }
    finish(drafts, &[], known, diagnostics)
}

/// The documents of a `kind: List`, as reading verbs print it; any other document as it is.
fn unroll(mut document: Document) -> Vec<Document> {
    if document.root.get("kind").and_then(YamlNode::as_str) != Some("List") {
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
                Err(problems) => {
                    for problem in problems {
                        let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
                        let region = draft.root.region_at(&path);
                        let code = check::code_of(problem.fault);
                        let message = problem.message;
                        let mut found =
                            Diagnostic::error(code, draft.file.as_str(), region, message);
                        found.help = problem.help;
                        // What was only a warning stands in the way here.
                        let place = |one: &Diagnostic| (one.file.clone(), one.line, one.column);
                        let at = place(&found);
                        diagnostics.retain(|known| {
                            known.is_error() || known.code != code || place(known) != at
                        });
                        diagnostics.push(found);
                    }
                }
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
