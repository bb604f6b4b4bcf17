//! Everything that is declared, in the texts or already known: found by name, by label, and by what
//! it has.
//!
//! Not here: mistakes, except that something is declared twice.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::base::units::PropertyPath;
use crate::kinds::{DEFAULT_NAMESPACE, Kind, Spec};
use crate::kinds::{
    LabelExpression, Metadata, PropertyModel, ServiceNames, ServiceSpec, TwinAggregateSpec,
    TwinModelSpec, TwinSpec, labels_match,
};
use crate::manifest::diagnostic::{Code, Diagnostic};
use crate::manifest::draft::Draft;
use crate::manifest::object::{Object, object_words};
use crate::manifest::yaml::YamlNode;

/// The properties of a verdict, which services may use as inputs too.
const VERDICT_PROPERTIES: &[&str] =
    &["label", "score", "probabilities", "model", "version", "ofRevision", "latencyMs", "instance"];

/// One declared object, from the texts or already known.
pub(super) struct Item<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) file: &'a str,
    /// The document; none for a known object, which is not checked again.
    pub(super) root: Option<&'a YamlNode>,
    pub(super) metadata: Option<&'a Metadata>,
    pub(super) spec: Option<&'a Spec>,
    /// What is left of a spec whose shape is wrong; checked, but nobody relies on it.
    pub(super) partial: Option<&'a Spec>,
}

impl Item<'_> {
    pub(super) fn words(&self) -> String {
        object_words(self.kind, self.namespace, self.name)
    }

    /// Where it is declared, for a hint: ` (farm/services.yaml:4)`.
    pub(super) fn place(&self) -> String {
        match self.root {
            Some(root) if root.region.at.line > 0 => {
                format!(" ({}:{})", self.file, root.region_at(&["metadata", "name"]).at.line)
            }
            _ => String::new(),
        }
    }
}

/// A group of twins that are alike: one Twin, a TwinSet, or one TwinAggregate.
pub(super) struct Group<'a> {
    pub(super) item: usize,
    pub(super) namespace: &'a str,
    pub(super) labels: Cow<'a, BTreeMap<String, String>>,
    pub(super) has: Has<'a>,
    pub(super) services: &'a ServiceNames,
}

impl<'a> Group<'a> {
    /// What an object has by itself, in no index.
    pub(super) fn of_item(item: &Item<'a>, has: Has<'a>, services: &'a ServiceNames) -> Self {
        let labels = Cow::Owned(BTreeMap::new());
        Self { item: 0, namespace: item.namespace, labels, has, services }
    }
}

/// What the twins of a group have.
pub(super) enum Has<'a> {
    /// Nothing is known: no model, or one that could not be read.
    Anything,
    /// What a TwinModel says.
    Model(&'a TwinModelSpec),
    /// What an aggregate derives.
    Derived(&'a TwinAggregateSpec),
}

/// All that is declared.
pub(super) struct Index<'a> {
    pub(super) items: Vec<Item<'a>>,
    by_name: HashMap<(Kind, &'a str, &'a str), usize>,
    pub(super) groups: Vec<Group<'a>>,
    /// Namespace and name of each twin, to its group.
    pub(super) twins: HashMap<(&'a str, Cow<'a, str>), usize>,
    pub(super) files: usize,
}

impl<'a> Index<'a> {
    pub(super) fn new(
        drafts: &'a [Draft],
        known: &'a [Object],
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut items: Vec<Item<'a>> = Vec::with_capacity(drafts.len() + known.len());
        let mut by_name: HashMap<(Kind, &'a str, &'a str), usize> = HashMap::new();
        for draft in drafts {
            let Some((kind, namespace, name)) = &draft.identity else {
                continue;
            };
            let item = Item {
                kind: *kind,
                namespace,
                name,
                file: &draft.file,
                root: Some(&draft.root),
                metadata: draft
                    .typed
                    .as_ref()
                    .or(draft.partial.as_ref())
                    .map(|(metadata, _)| metadata),
                spec: draft.typed.as_ref().map(|(_, spec)| spec),
                partial: draft.partial.as_ref().map(|(_, spec)| spec),
            };
            if let Some(first) = by_name.get(&(*kind, namespace.as_str(), name.as_str())) {
                let first: &Item<'_> = &items[*first];
                let region = draft.root.region_at(&["metadata", "name"]);
                diagnostics.push(
                    Diagnostic::error(
                        Code::DuplicateObject,
                        &draft.file,
                        region,
                        format!("{} is declared twice", item.words()),
                    )
                    .label("the second time here")
                    .help(format!("the first{} stands; rename one or remove it", first.place())),
                );
                // Its own faults are still worth reporting; nothing refers to it.
                items.push(item);
                continue;
            }
            by_name.insert((*kind, namespace, name), items.len());
            items.push(item);
        }
        for object in known {
            let key =
                (object.kind, object.metadata.namespace.as_str(), object.metadata.name.as_str());
            by_name.entry(key).or_insert_with(|| {
                items.push(Item {
                    kind: object.kind,
                    namespace: &object.metadata.namespace,
                    name: &object.metadata.name,
                    file: "",
                    root: None,
                    metadata: Some(&object.metadata),
                    spec: Some(&object.spec),
                    partial: None,
                });
                items.len() - 1
            });
        }
        let files: HashSet<&str> = drafts.iter().map(|draft| draft.file.as_str()).collect();
        let mut index =
            Self { items, by_name, groups: Vec::new(), twins: HashMap::new(), files: files.len() };
        index.collect_twins(diagnostics);
        index
    }

    /// Builds the groups, and reports things that two objects would make.
    fn collect_twins(&mut self, diagnostics: &mut Vec<Diagnostic>) {
        for at in 0..self.items.len() {
            let item = &self.items[at];
            if self.by_name.get(&(item.kind, item.namespace, item.name)) != Some(&at) {
                continue;
            }
            let (Some(metadata), Some(spec)) = (item.metadata, item.spec.or(item.partial)) else {
                if matches!(item.kind, Kind::Twin | Kind::TwinAggregate) {
                    // Declared, but nothing about it is known.
                    let key = (item.namespace, Cow::Borrowed(item.name));
                    self.twins.entry(key).or_insert(usize::MAX);
                }
                continue;
            };
            let (labels, has, services, names): (_, _, _, Vec<Cow<'a, str>>) = match spec {
                Spec::Twin(twin) => (
                    Cow::Borrowed(&metadata.labels),
                    self.model_of(item, twin),
                    &twin.services,
                    vec![Cow::Borrowed(item.name)],
                ),
                Spec::TwinSet(set) => {
                    let mut labels = metadata.labels.clone();
                    labels.extend(set.template.metadata.labels.clone());
                    let names = set.twin_names(item.name).into_iter().map(Cow::Owned).collect();
                    (
                        Cow::Owned(labels),
                        self.model_of(item, &set.template.spec),
                        &set.template.spec.services,
                        names,
                    )
                }
                Spec::TwinAggregate(aggregate) => (
                    Cow::Borrowed(&metadata.labels),
                    Has::Derived(aggregate),
                    &aggregate.services,
                    vec![Cow::Borrowed(item.name)],
                ),
                _ => continue,
            };
            let has = if item.spec.is_some() { has } else { Has::Anything };
            let group = self.groups.len();
            let namespace = item.namespace;
            self.groups.push(Group { item: at, namespace, labels, has, services });
            let mut reported = false;
            for name in names {
                let first = self.twins.get(&(namespace, Cow::Borrowed(name.as_ref()))).copied();
                let Some(first) = first.and_then(|first| self.groups.get(first)) else {
                    self.twins.insert((namespace, name), group);
                    continue;
                };
                if reported {
                    continue;
                }
                // Of a known and a new object the new one is at fault.
                let (first, second) = (&self.items[first.item], &self.items[at]);
                let (culprit, other) =
                    if second.root.is_some() { (second, first) } else { (first, second) };
                let Some(root) = culprit.root else { continue };
                let region = root.region_at(&["metadata", "name"]);
                let message = format!(
                    "{} makes the twin `{namespace}:{name}` a second time",
                    culprit.words()
                );
                diagnostics.push(
                    Diagnostic::error(Code::DuplicateObject, culprit.file, region, message)
                        .help(format!("{}{} makes it already", other.words(), other.place())),
                );
                reported = true;
            }
        }
    }

    pub(super) fn model_of(&self, item: &Item<'a>, twin: &TwinSpec) -> Has<'a> {
        let model =
            twin.model.as_deref().and_then(|name| self.find(Kind::TwinModel, item.namespace, name));
        match model.and_then(|model| model.spec) {
            Some(Spec::TwinModel(model)) => Has::Model(model),
            _ => Has::Anything,
        }
    }

    pub(super) fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Item<'a>> {
        let (namespaces, name) = lookup_order(namespace, name);
        namespaces
            .into_iter()
            .find_map(|namespace| self.by_name.get(&(kind, namespace, name)))
            .map(|at| &self.items[*at])
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&'a ServiceSpec> {
        match self.find(Kind::Service, namespace, name)?.spec {
            Some(Spec::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// The group of a twin or aggregate by name; `Some(None)` for one that is declared but broken.
    pub(super) fn twin(&self, namespace: &str, name: &str) -> Option<Option<usize>> {
        let (namespaces, name) = lookup_order(namespace, name);
        let found = namespaces
            .into_iter()
            .find_map(|namespace| self.twins.get(&(namespace, Cow::Borrowed(name))))?;
        Some((*found < self.groups.len()).then_some(*found))
    }

    /// The groups whose labels a selector in `namespace` matches.
    pub(super) fn selected<'s>(
        &'s self,
        namespace: &'s str,
        equal: &'s BTreeMap<String, String>,
        expressions: &'s [LabelExpression],
    ) -> impl Iterator<Item = usize> + 's {
        self.groups
            .iter()
            .enumerate()
            .filter(move |(_, group)| {
                namespace == DEFAULT_NAMESPACE || group.namespace == namespace
            })
            .filter(move |(_, group)| labels_match(&group.labels, equal, expressions))
            .map(|(at, _)| at)
    }

    /// The groups that are members of an aggregate, without repetition. Unknown names are left
    /// out.
    pub(super) fn members(&self, namespace: &str, aggregate: &TwinAggregateSpec) -> Vec<usize> {
        let selector = &aggregate.members;
        let by_name = selector.names.iter().filter_map(|name| self.twin(namespace, name).flatten());
        let by_label =
            self.selected(namespace, &selector.match_labels, &selector.match_expressions);
        let mut members: Vec<usize> = by_name.chain(by_label).collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    pub(super) fn names(&self, kind: Kind) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().filter(move |item| item.kind == kind)
    }

    /// What an input or rule finds of a property in a group.
    pub(super) fn property(&self, group: &Group<'a>, path: &PropertyPath) -> Found<'a> {
        let name = path.property.split('/').next().unwrap_or_default();
        if group.services.names().contains(&path.feature.as_str()) {
            return if VERDICT_PROPERTIES.contains(&name) {
                Found::Anything
            } else {
                Found::Missing
            };
        }
        match &group.has {
            Has::Anything => Found::Anything,
            Has::Model(model) => match model
                .features
                .get(&path.feature)
                .and_then(|feature| feature.properties.get(name))
            {
                Some(property) => Found::Property(property),
                None => Found::Missing,
            },
            Has::Derived(aggregate) => {
                if aggregate.derive.contains_key(&path.to_string()) {
                    Found::Anything
                } else {
                    Found::Missing
                }
            }
        }
    }

    /// The properties of a group, for suggestions.
    pub(super) fn property_names(&self, group: &Group<'a>) -> Vec<String> {
        match &group.has {
            Has::Anything => Vec::new(),
            Has::Model(model) => model
                .features
                .iter()
                .flat_map(|(feature, model)| {
                    model.properties.keys().map(move |name| format!("{feature}/{name}"))
                })
                .collect(),
            Has::Derived(aggregate) => aggregate.derive.keys().cloned().collect(),
        }
    }
}

/// `NAMESPACE/NAME` looks there only; a bare name in the own namespace, then in `default`.
fn lookup_order<'n>(namespace: &'n str, name: &'n str) -> (Vec<&'n str>, &'n str) {
    match name.split_once('/') {
        Some((other, name)) => (vec![other], name),
        None if namespace == DEFAULT_NAMESPACE => (vec![namespace], name),
        None => (vec![namespace, DEFAULT_NAMESPACE], name),
    }
}

/// What is found of a property.
pub(super) enum Found<'a> {
    /// It does not exist.
    Missing,
    /// It exists, or may; nothing is known about it.
    Anything,
    /// What the TwinModel says.
    Property(&'a PropertyModel),
}

/// Whether a bare name in one namespace can mean an object of another.
pub(super) fn reaches(from: &str, to: &str) -> bool {
    from == to || to == DEFAULT_NAMESPACE
}
