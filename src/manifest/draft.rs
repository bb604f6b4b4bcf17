//! Documents on their way to objects: kind, name and shape of one document.

use serde_json::Value;

use super::diagnostic::{Code, Diagnostic};
use super::object::{Object, Origin, object_json, object_words};
use super::region::Region;
use super::schema;
use super::yaml::{Document, NodeValue, YamlNode};
use crate::base::text::{list_words, suggest};
use crate::kinds::{DEFAULT_NAMESPACE, Kind, Metadata, Spec};

/// A document on its way to an object: as much of it as was understood.
pub(super) struct Draft {
    pub(super) file: String,
    pub(super) root: YamlNode,
    /// Kind, namespace and name, as soon as they can be read at all.
    pub(super) identity: Option<(Kind, String, String)>,
    /// The typed parts, if the shape is right.
    pub(super) typed: Option<(Metadata, Spec)>,
    /// The typed parts without the values whose shape is wrong, so that what is left is checked
    /// in the same run.
    pub(super) partial: Option<(Metadata, Spec)>,
}

impl Draft {
    pub(super) fn new(file: &str, document: Document, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let Document { root, broken } = document;
        let mut draft =
            Self { file: file.to_owned(), root, identity: None, typed: None, partial: None };
        let Some(kind) = draft.kind(broken, diagnostics) else {
            return draft;
        };
        let text =
            |path: &[&str]| draft.root.at(path).and_then(YamlNode::as_str).map(str::to_owned);
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

    /// The object for messages: "Twin `farm:node-17`".
    pub(super) fn words(&self, kind: Kind) -> String {
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
            let message = format!("`kind` is a string, not {}", node.describe());
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

    pub(super) fn into_object(mut self) -> Option<Object> {
        let (metadata, spec) = self.typed.take()?;
        Some(self.object(metadata, spec))
    }

    pub(super) fn object(&self, metadata: Metadata, spec: Spec) -> Object {
        let kind = spec.kind();
        let spec_json = self.root.get("spec").map(YamlNode::to_json).unwrap_or_default();
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
