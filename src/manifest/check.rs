//! What a schema cannot say: names, references, cycles, bounds, and expressions, over all
//! documents of a run together with what a runtime already has.
//!
//! A reference looks in the object's own namespace first, then in `default`. A selector of an
//! object in `default` reaches all namespaces, any other only its own.
//!
//! Twins are checked as the groups that they are written as: a TwinSet's template once, however
//! many twins it makes, so the work grows with the text.
//!
//! Documents that are broken still count as declared if their kind and name could be read: one
//! mistake makes one diagnostic, not one for each reference to it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::diagnostic::{Code, Diagnostic, plural};
use super::kinds::{
    Classifier, ContextRuleSpec, DeriveFunction, FeatureModel, Generator, LabelExpression,
    LabelOperator, Metadata, ModelSpec, NodeProfileSpec, PropertyModel, ScenarioSpec, ServiceNames,
    ServiceSpec, Transmission, TwinAggregateSpec, TwinModelSpec, TwinSpec, ValueType, labels_match,
};
use super::schema::list_words;
use super::yaml::{Node, Region, position_in_scalar};
use super::{DEFAULT_NAMESPACE, Draft, Kind, Object, Source, Spec, object_words};
use crate::cacc::expr;
use crate::firmware;
use crate::node::wire::RESERVED;
use crate::scalar::{PropertyPath, suggest};

/// Transmission programs that every firmware can have.
pub(super) const PROGRAMS: &[&str] = &[
    "interval",
    "on-change",
    "burst",
    "features",
    "raw",
    "aggregate",
    "predict",
    "on-request",
    "schedule",
];

/// Longest object name; see [`Code::BadName`].
const NAME_LEN_MAX: usize = 128;

/// Longest thing id, Ditto's own limit.
const THING_ID_LEN_MAX: usize = 256;

/// The columns that `generator: environment` makes, without the label.
const ENVIRONMENT_COLUMNS: &[&str] = &["temperature", "humidity", "loudness", "light"];

/// The properties of a verdict, which services may use as inputs too.
const VERDICT_PROPERTIES: &[&str] =
    &["label", "score", "probabilities", "model", "version", "ofRevision", "latencyMs", "instance"];

/// Checks all drafts together and pushes everything that is wrong.
pub(super) fn check(
    drafts: &[Draft],
    sources: &[Source],
    known: &[Object],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let index = Index::new(drafts, known, diagnostics);
    let mut dropped = Diagnostic::error(Code::Contradiction, "", Region::default(), "");
    for item in &index.items {
        if let (Some(root), Some(spec)) = (item.root, item.spec.or(item.partial)) {
            let mut checker =
                Checker { index: &index, item, root, sources, diagnostics, dropped: &mut dropped };
            checker.object(spec);
        }
    }
    check_cycles(&index, diagnostics);
}

/// One declared object, from the texts or already known.
struct Item<'a> {
    kind: Kind,
    namespace: &'a str,
    name: &'a str,
    file: &'a str,
    /// The document; none for a known object, which is not checked again.
    root: Option<&'a Node>,
    metadata: Option<&'a Metadata>,
    spec: Option<&'a Spec>,
    /// What is left of a spec whose shape is wrong; checked, but nobody relies on it.
    partial: Option<&'a Spec>,
}

impl Item<'_> {
    fn words(&self) -> String {
        object_words(self.kind, self.namespace, self.name)
    }

    /// Where it is declared, for a hint: ` (farm/services.yaml:4)`.
    fn place(&self) -> String {
        match self.root {
            Some(root) if root.region.at.line > 0 => {
                format!(" ({}:{})", self.file, root.region_at(&["metadata", "name"]).at.line)
            }
            _ => String::new(),
        }
    }
}

/// A group of twins that are alike: one Twin, a TwinSet, or one TwinAggregate.
struct Group<'a> {
    item: usize,
    namespace: &'a str,
    labels: Cow<'a, BTreeMap<String, String>>,
    has: Has<'a>,
    services: &'a ServiceNames,
}

/// What the twins of a group have.
enum Has<'a> {
    /// Nothing is known: no model, or one that could not be read.
    Anything,
    /// What a TwinModel says.
    Model(&'a TwinModelSpec),
    /// What an aggregate derives.
    Derived(&'a TwinAggregateSpec),
}

struct Index<'a> {
    items: Vec<Item<'a>>,
    by_name: HashMap<(Kind, &'a str, &'a str), usize>,
    groups: Vec<Group<'a>>,
    /// Namespace and name of each twin, to its group.
    twins: HashMap<(&'a str, Cow<'a, str>), usize>,
    files: usize,
}

impl<'a> Index<'a> {
    fn new(drafts: &'a [Draft], known: &'a [Object], diagnostics: &mut Vec<Diagnostic>) -> Self {
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

    fn model_of(&self, item: &Item<'a>, twin: &TwinSpec) -> Has<'a> {
        let model =
            twin.model.as_deref().and_then(|name| self.find(Kind::TwinModel, item.namespace, name));
        match model.and_then(|model| model.spec) {
            Some(Spec::TwinModel(model)) => Has::Model(model),
            _ => Has::Anything,
        }
    }

    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Item<'a>> {
        let (namespaces, name) = lookup_order(namespace, name);
        namespaces
            .into_iter()
            .find_map(|namespace| self.by_name.get(&(kind, namespace, name)))
            .map(|at| &self.items[*at])
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&'a ServiceSpec> {
        match self.find(Kind::Service, namespace, name)?.spec {
            Some(Spec::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// The group of a twin or aggregate by name; `Some(None)` for one that is declared but broken.
    fn twin(&self, namespace: &str, name: &str) -> Option<Option<usize>> {
        let (namespaces, name) = lookup_order(namespace, name);
        let found = namespaces
            .into_iter()
            .find_map(|namespace| self.twins.get(&(namespace, Cow::Borrowed(name))))?;
        Some((*found < self.groups.len()).then_some(*found))
    }

    /// The groups whose labels a selector in `namespace` matches.
    fn selected<'s>(
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
    fn members(&self, namespace: &str, aggregate: &TwinAggregateSpec) -> Vec<usize> {
        let selector = &aggregate.members;
        let by_name = selector.names.iter().filter_map(|name| self.twin(namespace, name).flatten());
        let by_label =
            self.selected(namespace, &selector.match_labels, &selector.match_expressions);
        let mut members: Vec<usize> = by_name.chain(by_label).collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whether two rules are about a common node.
    fn meet(&self, one: (&str, &ContextRuleSpec), other: (&str, &ContextRuleSpec)) -> bool {
        let by_name = |(_, rule): (&str, &ContextRuleSpec)| {
            let nodes = &rule.nodes;
            nodes.match_labels.is_empty()
                && nodes.match_expressions.is_empty()
                && nodes.aggregate.is_none()
        };
        if by_name(one) && by_name(other) {
            let named = |(namespace, rule): (&str, &ContextRuleSpec)| -> Vec<String> {
                let full = |name: &String| match name.contains('/') {
                    true => name.clone(),
                    false => format!("{namespace}/{name}"),
                };
                rule.nodes.names.iter().map(full).collect()
            };
            let theirs = named(other);
            return named(one).iter().any(|name| theirs.contains(name));
        }
        let groups = |(namespace, rule): (&str, &ContextRuleSpec)| -> Vec<usize> {
            let nodes = &rule.nodes;
            let mut found: Vec<usize> = nodes
                .names
                .iter()
                .filter_map(|name| self.twin(namespace, name).flatten())
                .collect();
            found.extend(self.selected(namespace, &nodes.match_labels, &nodes.match_expressions));
            if let Some(name) = &nodes.aggregate
                && let Some(item) = self.find(Kind::TwinAggregate, namespace, name)
                && let Some(Spec::TwinAggregate(spec)) = item.spec
            {
                found.extend(self.members(item.namespace, spec));
            }
            found
        };
        let theirs = groups(other);
        groups(one).iter().any(|group| theirs.contains(group))
    }

    fn names(&self, kind: Kind) -> impl Iterator<Item = &Item<'a>> {
        self.items.iter().filter(move |item| item.kind == kind)
    }

    fn programs(&self) -> Vec<&str> {
        let listed = self.items.iter().filter_map(|item| match item.spec {
            Some(Spec::NodeProfile(profile)) => Some(profile.programs.iter().map(String::as_str)),
            _ => None,
        });
        PROGRAMS.iter().copied().chain(listed.flatten()).collect()
    }

    /// What an input or rule finds of a property in a group.
    fn property(&self, group: &Group<'a>, path: &PropertyPath) -> Found<'a> {
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
    fn property_names(&self, group: &Group<'a>) -> Vec<String> {
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

enum Found<'a> {
    Missing,
    Anything,
    Property(&'a PropertyModel),
}

/// How closely a rule names its nodes; see `cacc::rule::Target`.
fn specificity(rule: &ContextRuleSpec) -> u8 {
    match (rule.nodes.names.is_empty(), &rule.nodes.aggregate) {
        (false, _) => 2,
        (true, Some(_)) => 1,
        (true, None) => 0,
    }
}

/// A field that both rules set, and to different values.
fn common_field(one: &ContextRuleSpec, other: &ContextRuleSpec) -> Option<String> {
    let json = |value: Result<Value, _>| value.unwrap_or_default();
    let transmission = |of: &Transmission| {
        let mut of = of.clone();
        if let Some(interval) = of.interval.take() {
            (of.pmin, of.pmax) = (Some(interval), Some(interval));
        }
        json(serde_json::to_value(&of))
    };
    let differ = |mine: &Value, theirs: &Value, prefix: &str| {
        let mine = mine.as_object()?;
        let field = mine
            .iter()
            .find(|(field, value)| theirs.get(field.as_str()).is_some_and(|other| other != *value));
        field.map(|(field, _)| format!("{prefix}{field}"))
    };
    let (mine, theirs) = (&one.then, &other.then);
    differ(&transmission(&mine.transmission), &transmission(&theirs.transmission), "")
        .or_else(|| {
            mine.properties.iter().find_map(|(name, settings)| {
                let other = theirs.properties.get(name)?;
                differ(&transmission(settings), &transmission(other), &format!("{name}."))
            })
        })
        .or_else(|| {
            let mine = json(serde_json::to_value(&mine.set));
            differ(&mine, &json(serde_json::to_value(&theirs.set)), "set.")
        })
}

/// Checks one object.
struct Checker<'a, 'i> {
    index: &'i Index<'a>,
    item: &'i Item<'a>,
    root: &'a Node,
    sources: &'a [Source],
    diagnostics: &'i mut Vec<Diagnostic>,
    /// The last diagnostic that was not worth reporting.
    dropped: &'i mut Diagnostic,
}

impl<'a> Checker<'a, '_> {
    fn error(&mut self, code: Code, path: &[&str], message: String) -> &mut Diagnostic {
        let region = self.root.region_at(path);
        self.push(Diagnostic::error(code, self.item.file, region, message), path)
    }

    fn warning(&mut self, code: Code, path: &[&str], message: String) -> &mut Diagnostic {
        let region = self.root.region_at(path);
        self.push(Diagnostic::warning(code, self.item.file, region, message), path)
    }

    fn key_error(&mut self, code: Code, path: &[&str], message: String) -> &mut Diagnostic {
        let region = self.root.key_region_at(path);
        self.push(Diagnostic::error(code, self.item.file, region, message), path)
    }

    fn push(&mut self, mut diagnostic: Diagnostic, path: &[&str]) -> &mut Diagnostic {
        if self.item.spec.is_none() && follows_from_a_gap(diagnostic.code) {
            // What is missing here may be just what was taken out for its shape.
            *self.dropped = diagnostic;
            return self.dropped;
        }
        if diagnostic.line == 0 {
            diagnostic = diagnostic.help(format!("at `{}`", path.join(".")));
        }
        self.diagnostics.push(diagnostic);
        let last = self.diagnostics.len() - 1;
        &mut self.diagnostics[last]
    }

    fn object(&mut self, spec: &'a Spec) {
        self.metadata();
        match spec {
            Spec::TwinModel(model) => self.twin_model(model),
            Spec::Twin(twin) => self.twin(twin, &["spec"]),
            Spec::TwinSet(set) => {
                if set.count.is_some() == set.names.is_some() {
                    let message = format!("{} needs either `count` or `names`", self.item.words());
                    self.key_error(Code::Contradiction, &["spec"], message);
                }
                for (at, name) in set.names.iter().flatten().enumerate() {
                    self.object_name(name, &["spec", "names", &at.to_string()]);
                }
                self.labels(
                    &set.template.metadata.labels,
                    &["spec", "template", "metadata", "labels"],
                );
                self.twin(&set.template.spec, &["spec", "template", "spec"]);
            }
            Spec::TwinAggregate(aggregate) => self.aggregate(aggregate),
            Spec::Service(service) => self.service(service),
            Spec::Model(model) => self.model(model),
            Spec::NodeProfile(profile) => self.profile(profile),
            Spec::Channel(channel) => {
                for (at, name) in channel.alternatives.iter().enumerate() {
                    let path = ["spec", "alternatives", &at.to_string()];
                    if self.reference(Kind::Channel, name, &path) && name == self.item.name {
                        self.error(
                            Code::Contradiction,
                            &path,
                            format!("`{name}` is no alternative to itself"),
                        );
                    }
                }
            }
            Spec::ContextRule(rule) => self.rule(rule),
            Spec::Rollout(rollout) => {
                let firmware = rollout.profile.is_some();
                if firmware == (rollout.service.is_some() || rollout.model.is_some())
                    || rollout.service.is_some() != rollout.model.is_some()
                {
                    let message = format!(
                        "{} needs either a `service` and the `model` that it gets, or a `profile`",
                        self.item.words()
                    );
                    self.key_error(Code::Contradiction, &["spec"], message);
                }
                for (kind, name, field) in [
                    (Kind::Service, &rollout.service, "service"),
                    (Kind::Model, &rollout.model, "model"),
                    (Kind::NodeProfile, &rollout.profile, "profile"),
                ] {
                    if let Some(name) = name {
                        self.reference(kind, name, &["spec", field]);
                    }
                }
            }
            Spec::CloudSink(sink) => {
                for (at, allowance) in sink.allow.iter().enumerate() {
                    let at = at.to_string();
                    self.selector(
                        &allowance.twins.names,
                        &allowance.twins.match_labels,
                        &allowance.twins.match_expressions,
                        &["spec", "allow", &at, "twins"],
                    );
                }
            }
            Spec::Policy(policy) => {
                for (entry, content) in &policy.entries {
                    for resource in content.resources.keys() {
                        let known = ["thing:/", "policy:/", "message:/"];
                        if !known.iter().any(|prefix| resource.starts_with(prefix)) {
                            let path = ["spec", "entries", entry, "resources", resource];
                            self.key_error(
                                Code::BadText,
                                &path,
                                format!("`{resource}` is not a resource"),
                            )
                            .help
                            .push("write `thing:/…`, `policy:/…` or `message:/…`".to_owned());
                        }
                    }
                }
            }
            Spec::Scenario(scenario) => self.scenario(scenario),
        }
    }

    // -----------------------------------------------------------------------------------------
    // Names

    fn metadata(&mut self) {
        let (namespace, name) = (self.item.namespace, self.item.name);
        self.object_name(name, &["metadata", "name"]);
        if !is_namespace(namespace) {
            let message = format!("`{namespace}` cannot be a namespace");
            self.error(Code::BadName, &["metadata", "namespace"], message).help.push(
                "start with a letter; then letters, digits and `_`; `.` and `-` join parts that start with a letter".to_owned(),
            );
        }
        if let Some(metadata) = self.item.metadata {
            self.labels(&metadata.labels, &["metadata", "labels"]);
        }
    }

    fn object_name(&mut self, name: &str, path: &[&str]) {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let length = name.chars().count();
        let good =
            edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner);
        if !good || length > NAME_LEN_MAX {
            self.error(Code::BadName, path, format!("`{name}` cannot be a name"))
                .help
                .push(format!("use letters, digits, `.`, `_` and `-`, a letter or digit at both ends, at most {NAME_LEN_MAX}"));
        } else if self.item.namespace.len() + 1 + length > THING_ID_LEN_MAX {
            let message = format!(
                "namespace and name together are longer than {THING_ID_LEN_MAX} characters"
            );
            self.error(Code::BadName, path, message);
        }
    }

    fn member_name(&mut self, name: &str, what: &str, path: &[&str]) {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        let inner = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !first || !inner || name.len() > NAME_LEN_MAX {
            self.key_error(Code::BadName, path, format!("`{name}` cannot be the name of a {what}"))
                .help
                .push(
                    "start with a letter or `_`; then letters, digits, `_`, `-` and `.`".to_owned(),
                );
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>, path: &[&str]) {
        for (key, value) in labels {
            if key.is_empty()
                || key.len() > 128
                || value.len() > 256
                || (key.clone() + value).contains(char::is_control)
                || key.contains('/')
            {
                let mut path = path.to_vec();
                path.push(key);
                self.key_error(Code::BadName, &path, format!("`{key}` cannot be a label"))
                    .help
                    .push(
                    "keys have 1 to 128 bytes and no `/`, values up to 256, neither with control characters"
                        .to_owned(),
                );
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // References

    /// Whether a named object exists; reports it if not.
    fn reference(&mut self, kind: Kind, name: &str, path: &[&str]) -> bool {
        if self.index.find(kind, self.item.namespace, name).is_some() {
            return true;
        }
        let guess = suggest(name, self.index.names(kind).map(|item| item.name));
        let guess = guess.and_then(|guess| self.index.names(kind).find(|item| item.name == guess));
        let (mut help, mut elsewhere) = (Vec::new(), None);
        if let Some(guess) = guess {
            let shown = if reaches(self.item.namespace, guess.namespace) {
                guess.name.to_owned()
            } else {
                format!("{}/{}", guess.namespace, guess.name)
            };
            if guess.name == name {
                elsewhere = Some(guess.namespace);
            }
            help.push(format!("did you mean `{shown}`{}?", guess.place()));
        }
        let files = match self.index.files {
            1 => "file".to_owned(),
            files => plural(files, "file"),
        };
        let words = self.item.words();
        let (code, message) = match kind {
            Kind::Service => {
                help.push(
                    "a service that registers itself needs `external: true` in a Service document"
                        .to_owned(),
                );
                (Code::UnknownService, format!("{words} names a service that nobody declares"))
            }
            _ => (Code::UnknownReference, format!("{words} names a {kind} that nobody declares")),
        };
        let label = match elsewhere {
            Some(other) => {
                format!("no {kind} `{name}` in this namespace or `default`, only in `{other}`")
            }
            None => format!("no {kind} `{name}` in the {files} read"),
        };
        let label =
            if self.root.region.at.line == 0 { format!("no {kind} `{name}`") } else { label };
        // A name written as a map's key is marked there.
        let region = match self.root.at(path) {
            Some(node) if node.as_str().is_some() => node.region,
            _ => self.root.key_region_at(path),
        };
        let message = if region.at.line == 0 { format!("{message}: {label}") } else { message };
        let diagnostic = Diagnostic::error(code, self.item.file, region, message).label(label);
        self.push(diagnostic, path).help.extend(help);
        false
    }

    fn twin_reference(&mut self, name: &str, path: &[&str]) -> Option<usize> {
        match self.index.twin(self.item.namespace, name) {
            Some(found) => found,
            None => {
                let names = self.index.twins.keys().map(|(_, name)| name.as_ref());
                let guess =
                    if self.index.twins.len() <= 20_000 { suggest(name, names) } else { None };
                let message = format!("{} names a twin that nobody declares", self.item.words());
                let diagnostic = self.error(Code::UnknownReference, path, message);
                diagnostic.label = format!("no twin `{name}`");
                if let Some(guess) = guess {
                    diagnostic.help.push(format!("did you mean `{guess}`?"));
                }
                None
            }
        }
    }

    /// Groups that a selector reaches; reports names that do not exist, and a selector that asks
    /// for nothing or finds nothing.
    fn selector(
        &mut self,
        names: &[String],
        equal: &BTreeMap<String, String>,
        expressions: &[LabelExpression],
        path: &[&str],
    ) -> Vec<usize> {
        let mut groups = Vec::new();
        let step = |more: &[&'static str]| {
            path.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>()
        };
        let names_path = step(&["names"]);
        for (at, name) in names.iter().enumerate() {
            let at = at.to_string();
            let path: Vec<&str> = names_path.iter().copied().chain([at.as_str()]).collect();
            groups.extend(self.twin_reference(name, &path));
        }
        let expressions_path = step(&["matchExpressions"]);
        for (at, expression) in expressions.iter().enumerate() {
            let wants_values =
                matches!(expression.operator, LabelOperator::In | LabelOperator::NotIn);
            if wants_values == expression.values.is_empty() {
                let at = at.to_string();
                let path: Vec<&str> =
                    expressions_path.iter().copied().chain([at.as_str(), "operator"]).collect();
                let needs = if wants_values { "needs `values`" } else { "takes no `values`" };
                self.error(Code::Contradiction, &path, format!("this operator {needs}"));
            }
        }
        if equal.is_empty() && expressions.is_empty() {
            if names.is_empty() {
                let message = format!("{} selects no twins", self.item.words());
                self.key_error(Code::Contradiction, path, message)
                    .help
                    .push("give `names`, `matchLabels` or `matchExpressions`".to_owned());
            }
            return groups;
        }
        let before = groups.len();
        groups.extend(self.index.selected(self.item.namespace, equal, expressions));
        if groups.len() == before {
            let which = if equal.is_empty() { "matchExpressions" } else { "matchLabels" };
            let asked = equal
                .iter()
                .map(|(key, value)| format!("{key}: {value}"))
                .collect::<Vec<_>>()
                .join(", ");
            let message = match asked.as_str() {
                "" => format!("{} selects labels that no twin has", self.item.words()),
                asked => format!("{} selects `{asked}`, which no twin has", self.item.words()),
            };
            let path = step(&[which]);
            let region = self.root.key_region_at(&path);
            let diagnostic =
                Diagnostic::warning(Code::SelectsNothing, self.item.file, region, message);
            let key_guess = equal.iter().find_map(|(key, value)| {
                let values = self
                    .index
                    .groups
                    .iter()
                    .filter_map(|group| group.labels.get(key))
                    .map(String::as_str);
                match suggest(value, values).filter(|guess| guess != value) {
                    Some(guess) => Some(format!("did you mean `{key}: {guess}`?")),
                    None => {
                        let keys = self
                            .index
                            .groups
                            .iter()
                            .flat_map(|group| group.labels.keys())
                            .map(String::as_str);
                        suggest(key, keys)
                            .filter(|guess| guess != key)
                            .map(|guess| format!("did you mean `{guess}: {value}`?"))
                    }
                }
            });
            let help = &mut self.push(diagnostic, &path).help;
            help.extend(key_guess);
            help.push("selectors are live: twins may come later".to_owned());
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    // -----------------------------------------------------------------------------------------
    // Twins

    fn twin_model(&mut self, model: &TwinModelSpec) {
        for (feature, FeatureModel { properties, .. }) in &model.features {
            self.member_name(feature, "feature", &["spec", "features", feature]);
            self.not_reserved(feature, &["spec", "features", feature]);
            for (name, property) in properties {
                let path = ["spec", "features", feature, "properties", name];
                self.member_name(name, "property", &path);
                self.not_reserved(name, &path);
                let at = |field: &'static str| [&path[..], &[field]].concat();
                if let (Some(minimum), Some(maximum)) = (property.minimum, property.maximum)
                    && minimum > maximum
                {
                    let message = format!(
                        "`{name}` of {} has its minimum {minimum} above its maximum {maximum}",
                        self.item.words()
                    );
                    self.error(Code::BadBounds, &at("maximum"), message);
                }
                let numeric = matches!(property.value_type, ValueType::Number | ValueType::Integer);
                for (given, field) in [
                    (property.minimum.is_some(), "minimum"),
                    (property.maximum.is_some(), "maximum"),
                    (property.unit.is_some(), "unit"),
                ] {
                    if given && !numeric {
                        let message = format!(
                            "`{name}` is {}, so its {field} has no effect",
                            property.value_type.name()
                        );
                        self.warning(Code::Unused, &at(field), message);
                    }
                }
                if property.values.is_some() && property.value_type != ValueType::String {
                    let message = format!(
                        "`{name}` is {}, so its words have no effect",
                        property.value_type.name()
                    );
                    self.warning(Code::Unused, &at("enum"), message);
                }
            }
        }
    }

    /// Features and properties share a message with its own members.
    fn not_reserved(&mut self, name: &str, path: &[&str]) {
        if RESERVED.contains(&name) {
            let message = format!("`{name}` has a meaning of its own in a node's messages");
            self.key_error(Code::BadName, path, message)
                .help
                .push(format!("the names taken are {}", list_words(RESERVED.iter().copied())));
        }
    }

    fn twin(&mut self, twin: &'a TwinSpec, base: &[&str]) {
        let at = |more: &[&str]| -> Vec<String> {
            base.iter().chain(more).map(|step| (*step).to_owned()).collect()
        };
        let namespace = self.item.namespace;
        if let Some(name) = &twin.model {
            self.reference(Kind::TwinModel, name, &refs(&at(&["model"])));
        }
        let group = Group {
            item: 0,
            namespace,
            labels: Cow::Owned(BTreeMap::new()),
            has: self.index.model_of(self.item, twin),
            services: &twin.services,
        };
        self.services(&group, base);
        if let Some(profile) = twin.node.as_ref().and_then(|node| node.profile.as_deref()) {
            let path = at(&["node", "profile"]);
            self.reference(Kind::NodeProfile, profile, &refs(&path));
            if let Some(Spec::NodeProfile(spec)) =
                self.index.find(Kind::NodeProfile, namespace, profile).and_then(|item| item.spec)
            {
                let measured = spec
                    .sensors
                    .iter()
                    .flat_map(|sensor| sensor.property.iter().chain(sensor.properties.values()));
                let driven = spec.actuators.iter().map(|actuator| &actuator.property);
                for property in measured.chain(driven) {
                    if matches!(self.index.property(&group, property), Found::Missing) {
                        let model = twin.model.as_deref().unwrap_or_default();
                        let message = format!(
                            "NodeProfile `{profile}` has `{property}`, which TwinModel `{model}` does not"
                        );
                        self.error(Code::UnknownProperty, &refs(&path), message);
                    }
                }
            }
        }
        for (feature, properties) in &twin.desired {
            for (name, value) in properties {
                let path = PropertyPath { feature: feature.clone(), property: name.clone() };
                let steps = at(&["desired", feature, name]);
                self.settable(&group, &path, value, &refs(&steps));
            }
        }
        if let Some(transmission) = &twin.transmission {
            self.transmission(transmission, &refs(&at(&["transmission"])));
        }
    }

    /// The services that a twin names: they exist, and the twin has what they read.
    fn services(&mut self, group: &Group<'a>, base: &[&str]) {
        let mut seen: HashSet<&str> = HashSet::new();
        for (at, name) in group.services.names().into_iter().enumerate() {
            let at = at.to_string();
            let step = match group.services {
                ServiceNames::List(_) => at.as_str(),
                ServiceNames::Map(_) => name,
            };
            let path: Vec<&str> = base.iter().copied().chain(["services", step]).collect();
            if !seen.insert(name) {
                self.warning(Code::Unused, &path, format!("`{name}` is named twice"));
                continue;
            }
            if !self.reference(Kind::Service, name, &path) {
                continue;
            }
            let Some(service) = self.index.service(self.item.namespace, name) else {
                continue;
            };
            let own = match group.services {
                ServiceNames::Map(map) => map.get(name).and_then(|options| options.inputs.as_ref()),
                ServiceNames::List(_) => None,
            };
            let (inputs, region) = match own {
                Some(inputs) => {
                    if inputs.len() != service.inputs.len() {
                        let path: Vec<&str> = path.iter().copied().chain(["inputs"]).collect();
                        let message = format!(
                            "{} gives {} to `{name}`, which takes {}",
                            self.item.words(),
                            plural(inputs.len(), "input"),
                            service.inputs.len()
                        );
                        self.key_error(Code::InputsDiffer, &path, message);
                    }
                    (inputs, None)
                }
                None => {
                    let region = match group.services {
                        ServiceNames::List(_) => self.root.region_at(&path),
                        ServiceNames::Map(_) => self.root.key_region_at(&path),
                    };
                    (&service.inputs, Some(region))
                }
            };
            for (input_at, input) in inputs.iter().enumerate() {
                if !matches!(self.index.property(group, input), Found::Missing) {
                    continue;
                }
                let input_at = input_at.to_string();
                let region = region.unwrap_or_else(|| {
                    let path: Vec<&str> =
                        path.iter().copied().chain(["inputs", input_at.as_str()]).collect();
                    self.root.region_at(&path)
                });
                let message =
                    format!("`{name}` reads `{input}`, which {} does not have", self.item.words());
                let names = self.index.property_names(group);
                let guess = suggest(&input.to_string(), names.iter().map(String::as_str));
                let mut diagnostic =
                    Diagnostic::error(Code::UnknownProperty, self.item.file, region, message);
                if let Some(guess) = guess {
                    diagnostic =
                        diagnostic.help(format!("did you mean `{guess}` in the service's inputs?"));
                }
                diagnostic = diagnostic
                    .help(format!("it has {}", list_words(names.iter().map(String::as_str))));
                self.push(diagnostic, &path);
            }
        }
    }

    /// A value that is asked of a property: the property exists, may be set, and takes the value.
    fn settable(&mut self, group: &Group<'a>, path: &PropertyPath, value: &Value, steps: &[&str]) {
        match self.index.property(group, path) {
            Found::Anything => {}
            Found::Missing => {
                let names = self.index.property_names(group);
                let message = format!(
                    "{} asks for `{path}`, which the twin's model does not have",
                    self.item.words()
                );
                let guess =
                    suggest(&path.to_string(), names.iter().map(String::as_str)).map(str::to_owned);
                let diagnostic = self.key_error(Code::UnknownProperty, steps, message);
                if let Some(guess) = guess {
                    diagnostic.help.push(format!("did you mean `{guess}`?"));
                }
            }
            Found::Property(property) => {
                if property.read_only {
                    let message =
                        format!("`{path}` cannot be set: its model says that it is read only");
                    self.key_error(Code::ReadOnly, steps, message).help.push(
                        "an actuator's property has `readOnly: false` in the TwinModel".to_owned(),
                    );
                }
                if let Some(why) = property.misfit(value) {
                    self.error(Code::WrongValue, steps, format!("`{path}` {why}"));
                }
            }
        }
    }

    fn aggregate(&mut self, aggregate: &'a TwinAggregateSpec) {
        let selector = &aggregate.members;
        let members = self.selector(
            &selector.names,
            &selector.match_labels,
            &selector.match_expressions,
            &["spec", "members"],
        );
        for (target, derivation) in &aggregate.derive {
            let path = ["spec", "derive", target.as_str()];
            match target.parse::<PropertyPath>() {
                Ok(_) => {}
                Err(error) => {
                    self.key_error(
                        Code::BadText,
                        &path,
                        format!("{}, in `derive` of {}", error.message, self.item.words()),
                    )
                    .help
                    .push(error.help);
                }
            }
            let function = derivation.function;
            let at = |field: &'static str| ["spec", "derive", target.as_str(), field];
            if (function == DeriveFunction::Quantile) != derivation.q.is_some() {
                let message = match derivation.q {
                    None => "`quantile` needs `q`, which quantile it is".to_owned(),
                    Some(_) => format!("`{}` takes no `q`", function.name()),
                };
                self.error(Code::Contradiction, &at("fn"), message);
            }
            let Some(of) = &derivation.of else {
                if function != DeriveFunction::Count {
                    let message =
                        format!("`{}` needs `of`, the members' property", function.name());
                    self.key_error(Code::MissingField, &path, message);
                }
                continue;
            };
            for member in &members {
                let group = &self.index.groups[*member];
                let wanted: &[ValueType] = match function {
                    DeriveFunction::Any | DeriveFunction::All => &[ValueType::Boolean],
                    DeriveFunction::Count | DeriveFunction::Latest => &[],
                    _ => &[ValueType::Number, ValueType::Integer],
                };
                let member_words = self.index.items[group.item].words();
                match self.index.property(group, of) {
                    Found::Missing => {
                        let names = self.index.property_names(group);
                        let guess = suggest(&of.to_string(), names.iter().map(String::as_str))
                            .map(str::to_owned);
                        let message = format!("the member {member_words} has no `{of}`");
                        let diagnostic = self.error(Code::UnknownProperty, &at("of"), message);
                        if let Some(guess) = guess {
                            diagnostic.help.push(format!("did you mean `{guess}`?"));
                        }
                        break;
                    }
                    Found::Property(property)
                        if !wanted.is_empty() && !wanted.contains(&property.value_type) =>
                    {
                        let message = format!(
                            "`{}` takes {}, and `{of}` of {member_words} is {}",
                            function.name(),
                            if wanted.len() == 1 { "true or false" } else { "numbers" },
                            property.value_type.name()
                        );
                        self.error(Code::WrongValue, &at("of"), message);
                        break;
                    }
                    Found::Property(_) | Found::Anything => {}
                }
            }
        }
        let group = Group {
            item: 0,
            namespace: self.item.namespace,
            labels: Cow::Owned(BTreeMap::new()),
            has: Has::Derived(aggregate),
            services: &aggregate.services,
        };
        self.services(&group, &["spec"]);
    }

    // -----------------------------------------------------------------------------------------
    // Services, models, profiles, scenarios

    fn service(&mut self, service: &ServiceSpec) {
        let words = self.item.words();
        if service.model.is_none() && service.process.is_none() && !service.external {
            self.key_error(Code::Contradiction, &["spec"], format!("{words} runs nowhere"))
                .help
                .push("give it a `model`, a `process`, or `external: true`".to_owned());
        }
        if service.inputs.is_empty() && !service.external {
            self.key_error(Code::MissingField, &["spec"], format!("{words} has no `inputs`"))
                .help
                .push(
                    "name the twin properties that it judges: `inputs: [environment/temperature]`"
                        .to_owned(),
                );
        }
        if service.timeout.as_ms() == 0 {
            self.error(
                Code::OutOfRange,
                &["spec", "timeout"],
                format!("`timeout` of {words} is more than nothing"),
            );
        }
        if service.lease.as_ms() < 1000 {
            self.error(
                Code::OutOfRange,
                &["spec", "lease"],
                format!("`lease` of {words} is at least 1s"),
            );
        }
        if let Some(name) = &service.model
            && self.reference(Kind::Model, name, &["spec", "model"])
            && let Some(Spec::Model(model)) =
                self.index.find(Kind::Model, self.item.namespace, name).and_then(|item| item.spec)
        {
            let takes =
                match (&model.inputs[..], model.train.as_ref().and_then(|train| train.generator)) {
                    ([], Some(Generator::Environment)) => ENVIRONMENT_COLUMNS.len(),
                    (inputs, _) => inputs.len(),
                };
            if takes > 0 && takes != service.inputs.len() && !service.inputs.is_empty() {
                let message = format!(
                    "{words} has {}, and Model `{name}` takes {takes}",
                    plural(service.inputs.len(), "input")
                );
                let names = list_words(model.inputs.iter().map(String::as_str));
                let diagnostic = self.key_error(Code::InputsDiffer, &["spec", "inputs"], message);
                if !model.inputs.is_empty() {
                    diagnostic.help.push(format!("the model takes {names}, in this order"));
                }
            }
        }
    }

    fn model(&mut self, model: &ModelSpec) {
        let words = self.item.words();
        match (&model.file, &model.train) {
            (None, None) => {
                self.key_error(
                    Code::Contradiction,
                    &["spec"],
                    format!("{words} has neither a `file` nor a recipe to `train`"),
                );
            }
            (Some(_), Some(_)) => {
                self.key_error(
                    Code::Contradiction,
                    &["spec", "train"],
                    format!("{words} has both a `file` and a recipe to `train`"),
                );
            }
            (Some(_), None) if model.digest.is_none() => {
                self.key_error(
                    Code::Contradiction,
                    &["spec", "file"],
                    format!("{words} has a `file` without its `digest`"),
                )
                .help
                .push("`sha256sum FILE` prints it; write `digest: sha256:…`".to_owned());
            }
            (None, Some(_)) if model.digest.is_some() => {
                self.key_error(
                    Code::Contradiction,
                    &["spec", "digest"],
                    "a `digest` belongs to a `file`".to_owned(),
                );
            }
            _ => {}
        }
        let mut seen = HashSet::new();
        for (at, input) in model.inputs.iter().enumerate() {
            if !seen.insert(input) {
                let at = at.to_string();
                self.error(
                    Code::Contradiction,
                    &["spec", "inputs", &at],
                    format!("`{input}` is an input twice"),
                );
            }
        }
        let Some(train) = &model.train else { return };
        if model.classifier == Classifier::Onnx {
            self.error(
                Code::Contradiction,
                &["spec", "classifier"],
                "an ONNX model is trained elsewhere: give its `file`".to_owned(),
            );
        }
        if train.data.is_some() == train.generator.is_some() {
            let message = format!("`train` of {words} needs either `data` or a `generator`");
            self.key_error(Code::Contradiction, &["spec", "train"], message);
        }
        if let Some(Generator::Environment) = train.generator {
            for (at, input) in model.inputs.iter().enumerate() {
                if !ENVIRONMENT_COLUMNS.contains(&input.as_str()) {
                    let at = at.to_string();
                    let guess = suggest(input, ENVIRONMENT_COLUMNS.iter().copied());
                    let message = format!("the generator `environment` has no column `{input}`");
                    let diagnostic =
                        self.error(Code::UnknownReference, &["spec", "inputs", &at], message);
                    if let Some(guess) = guess {
                        diagnostic.help.push(format!("did you mean `{guess}`?"));
                    }
                    diagnostic.help.push(format!(
                        "it has {}",
                        list_words(ENVIRONMENT_COLUMNS.iter().copied())
                    ));
                }
            }
            if train.target != "label" {
                let message =
                    format!("the generator `environment` has no column `{}`", train.target);
                self.error(Code::UnknownReference, &["spec", "train", "target"], message)
                    .help
                    .push("its answers are in `label`".to_owned());
            }
        }
        let share = train.test.as_percent();
        if share <= 0.0 || share >= 100.0 {
            let message =
                "`test` leaves rows on both sides: more than 0% and less than 100%".to_owned();
            self.error(Code::OutOfRange, &["spec", "train", "test"], message);
        }
        let of = &train.parameters;
        for (given, owner, field) in [
            (of.trees.is_some(), Classifier::Forest, "trees"),
            (of.depth.is_some(), Classifier::Forest, "depth"),
            (of.min_leaf.is_some(), Classifier::Forest, "minLeaf"),
            (of.features.is_some(), Classifier::Forest, "features"),
            (of.c.is_some(), Classifier::Svm, "c"),
            (of.gamma.is_some(), Classifier::Svm, "gamma"),
            (of.hidden.is_some(), Classifier::Mlp, "hidden"),
            (of.epochs.is_some(), Classifier::Mlp, "epochs"),
            (of.learning_rate.is_some(), Classifier::Mlp, "learningRate"),
            (of.batch.is_some(), Classifier::Mlp, "batch"),
        ] {
            if given && owner != model.classifier {
                let message = format!(
                    "`{field}` is a setting of `{}`, and this model is `{}`",
                    owner.name(),
                    model.classifier.name()
                );
                let path = ["spec", "train", "parameters", field];
                let region = self.root.key_region_at(&path);
                let diagnostic = Diagnostic::warning(Code::Unused, self.item.file, region, message);
                self.push(diagnostic, &path);
            }
        }
    }

    fn profile(&mut self, profile: &NodeProfileSpec) {
        for (at, sensor) in profile.sensors.iter().enumerate() {
            let at = at.to_string();
            if sensor.property.is_none() == sensor.properties.is_empty() {
                let message = format!(
                    "a sensor of {} needs either `property` or `properties`",
                    self.item.words()
                );
                self.error(Code::Contradiction, &["spec", "sensors", &at, "type"], message);
            }
        }
        for (at, program) in profile.programs.iter().enumerate() {
            let at = at.to_string();
            self.member_name(program, "program", &["spec", "programs", &at]);
        }
        for (at, channel) in profile.channels.iter().enumerate() {
            let at = at.to_string();
            self.reference(Kind::Channel, channel, &["spec", "channels", &at]);
        }
        if let Some(transmission) = &profile.transmission {
            self.transmission(transmission, &["spec", "transmission"]);
        }
        if let Some(battery) = &profile.battery
            && battery.full_volts <= battery.empty_volts
        {
            let (full, empty) = (battery.full_volts, battery.empty_volts);
            let message = format!("`fullVolts` ({full}) is not more than `emptyVolts` ({empty})");
            self.error(Code::BadBounds, &["spec", "battery", "fullVolts"], message);
        }
        for problem in firmware::check(profile) {
            let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
            self.error(problem.code, &path, problem.message).help.extend(problem.help);
        }
    }

    fn scenario(&mut self, scenario: &ScenarioSpec) {
        for (at, channel) in scenario.channels.iter().enumerate() {
            let at = at.to_string();
            self.reference(Kind::Channel, channel, &["spec", "channels", &at]);
        }
        for (at, nodes) in scenario.nodes.iter().enumerate() {
            let at = at.to_string();
            let twins = &nodes.twins;
            self.selector(
                &twins.names,
                &twins.match_labels,
                &twins.match_expressions,
                &["spec", "nodes", &at, "twins"],
            );
            if nodes.trace.is_some() == nodes.generator.is_some() {
                let message = "these nodes need either a `trace` or a `generator`".to_owned();
                self.error(Code::Contradiction, &["spec", "nodes", &at], message);
            }
            if let Some(channel) = &nodes.channel {
                self.reference(Kind::Channel, channel, &["spec", "nodes", &at, "channel"]);
            }
        }
        for (at, fault) in scenario.faults.iter().enumerate() {
            let at = at.to_string();
            if let Some(channel) = &fault.channel {
                self.reference(Kind::Channel, channel, &["spec", "faults", &at, "channel"]);
            }
            if let Some(twins) = &fault.twins {
                let path = ["spec", "faults", &at, "twins"];
                self.selector(&twins.names, &twins.match_labels, &twins.match_expressions, &path);
            }
            if fault.at > scenario.duration {
                let message = format!(
                    "this starts at {}, after the scenario ends at {}",
                    fault.at, scenario.duration
                );
                self.error(Code::OutOfRange, &["spec", "faults", &at, "at"], message);
            }
        }
    }

    // -----------------------------------------------------------------------------------------
    // Transmission and rules

    fn transmission(&mut self, transmission: &Transmission, base: &[&str]) {
        let at = |field: &'static str| [base, &[field]].concat();
        let t = transmission;
        for (least, most, fields) in
            [(t.pmin, t.pmax, ("pmin", "pmax")), (t.epmin, t.epmax, ("epmin", "epmax"))]
        {
            if let (Some(least), Some(most)) = (least, most)
                && most < least
            {
                let message =
                    format!("`{}` ({most}) is less than `{}` ({least})", fields.1, fields.0);
                self.error(Code::BadBounds, &at(fields.1), message)
                    .help
                    .push(format!("`{}` is the least time, `{}` the longest", fields.0, fields.1));
            }
        }
        if t.interval.is_some() {
            for (given, field) in [(t.pmin.is_some(), "pmin"), (t.pmax.is_some(), "pmax")] {
                if given {
                    let message = format!(
                        "`interval` means `pmin` and `pmax` together, so `{field}` contradicts it"
                    );
                    self.key_error(Code::BadBounds, &at(field), message)
                        .help
                        .push("keep one of them".to_owned());
                }
            }
        }
        if t.interval.is_some_and(|interval| interval.as_ms() == 0) {
            self.error(
                Code::OutOfRange,
                &at("interval"),
                "`interval` is more than nothing".to_owned(),
            );
        }
        if let Some(program) = &t.program {
            let known = self.index.programs();
            if !known.contains(&program.as_str()) {
                let guess = suggest(program, known.iter().copied());
                let help = guess.map(|guess| format!("did you mean `{guess}`?"));
                let list = list_words(known.iter().copied());
                let message = format!("{} names a program that no firmware has", self.item.words());
                let diagnostic = self.error(Code::UnknownProgram, &at("program"), message);
                diagnostic.label = format!("no program `{program}`");
                diagnostic.help.extend(help);
                diagnostic
                    .help
                    .push(format!("the programs are {list}; a NodeProfile can list more"));
            }
        }
        if let Some(channel) = &t.channel {
            self.reference(Kind::Channel, channel, &at("channel"));
        }
    }

    fn rule(&mut self, rule: &'a ContextRuleSpec) {
        let words = self.item.words();
        let groups = self.rule_groups(rule);
        let scope = self.scope(&groups);
        self.expression(&rule.when, &["spec", "when"], &scope);
        if let Some(until) = &rule.until {
            self.expression(until, &["spec", "until"], &scope);
        }
        let then = &rule.then;
        if *then == super::kinds::RuleEffect::default() {
            self.key_error(
                Code::MissingField,
                &["spec", "then"],
                format!("{words} changes nothing"),
            )
            .help
            .push("say what changes: `then: {program: interval, interval: 200ms}`".to_owned());
        }
        self.rule_conflicts(rule);
        self.transmission(&then.transmission, &["spec", "then"]);
        for (name, transmission) in &then.properties {
            let path = ["spec", "then", "properties", name];
            self.rule_property(&groups, name, &path, true);
            self.transmission(transmission, &path);
        }
        for (at, name) in then.pull.iter().enumerate() {
            let at = at.to_string();
            self.rule_property(&groups, name, &["spec", "then", "pull", &at], false);
        }
        for (name, value) in &then.set {
            let path = ["spec", "then", "set", name];
            match name.parse::<PropertyPath>() {
                Err(error) => {
                    self.key_error(Code::BadText, &path, error.message).help.push(error.help);
                }
                Ok(property) => {
                    // It is enough that some of the nodes have the actuator.
                    let groups: Vec<&Group<'a>> =
                        groups.iter().map(|at| &self.index.groups[*at]).collect();
                    let has = |group: &&&Group<'a>| {
                        !matches!(self.index.property(group, &property), Found::Missing)
                    };
                    if let Some(group) = groups.iter().find(has).or(groups.first()) {
                        self.settable(group, &property, value, &path);
                    }
                }
            }
        }
    }

    /// Rules that set the same field for the same nodes, where only their names decide.
    fn rule_conflicts(&mut self, rule: &'a ContextRuleSpec) {
        let me = (self.item.namespace, self.item.name);
        let index = self.index;
        for other in index.names(Kind::ContextRule) {
            let Some(Spec::ContextRule(theirs)) = other.spec else { continue };
            // Of two that are both declared here, the second in the alphabet says so.
            let mine = other.root.is_none() || (other.namespace, other.name) < me;
            if (other.namespace, other.name) == me
                || !mine
                || theirs.priority != rule.priority
                || specificity(theirs) != specificity(rule)
                || !index.meet((self.item.namespace, rule), (other.namespace, theirs))
            {
                continue;
            }
            let Some(field) = common_field(rule, theirs) else { continue };
            let message = format!(
                "{} and {}{} both set `{field}` with priority {}, differently",
                self.item.words(),
                other.words(),
                other.place(),
                rule.priority
            );
            let path: &[&str] = match self.root.at(&["spec", "priority"]) {
                Some(_) => &["spec", "priority"],
                None => &["spec", "then"],
            };
            let region = match self.root.at(&["spec", "priority"]) {
                Some(_) => self.root.region_at(path),
                None => self.root.key_region_at(path),
            };
            let first = me.min((other.namespace, other.name)).1;
            let diagnostic =
                Diagnostic::warning(Code::RulesConflict, self.item.file, region, message)
                    .help(format!("`{first}` wins, by its name; give one a greater `priority`"));
            self.push(diagnostic, path);
        }
    }

    fn rule_groups(&mut self, rule: &ContextRuleSpec) -> Vec<usize> {
        let nodes = &rule.nodes;
        let namespace = self.item.namespace;
        let mut groups = Vec::new();
        if let Some(aggregate) = &nodes.aggregate {
            if self.reference(Kind::TwinAggregate, aggregate, &["spec", "nodes", "aggregate"])
                && let Some(item) = self.index.find(Kind::TwinAggregate, namespace, aggregate)
                && let Some(Spec::TwinAggregate(spec)) = item.spec
            {
                groups.extend(self.index.twin(namespace, aggregate).flatten());
                groups.extend(self.index.members(item.namespace, spec));
            }
            if nodes.names.is_empty()
                && nodes.match_labels.is_empty()
                && nodes.match_expressions.is_empty()
            {
                return groups;
            }
        }
        if nodes.aggregate.is_none()
            && *nodes == (super::kinds::NodeSelector { each: nodes.each, ..Default::default() })
        {
            let message = format!("{} selects no nodes", self.item.words());
            self.key_error(Code::Contradiction, &["spec", "nodes"], message).help.push(
                "give `names`, `matchLabels`, `matchExpressions` or an `aggregate`".to_owned(),
            );
            return groups;
        }
        groups.extend(self.selector(
            &nodes.names,
            &nodes.match_labels,
            &nodes.match_expressions,
            &["spec", "nodes"],
        ));
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// A property that a rule names by property, feature, or `feature/property`.
    fn rule_property(&mut self, groups: &[usize], name: &str, path: &[&str], is_key: bool) {
        let groups: Vec<&Group<'a>> = groups.iter().map(|at| &self.index.groups[*at]).collect();
        if groups.is_empty() || groups.iter().any(|group| matches!(group.has, Has::Anything)) {
            return;
        }
        let mut known: Vec<String> =
            groups.iter().flat_map(|group| self.index.property_names(group)).collect();
        known.sort_unstable();
        known.dedup();
        let fits = |known: &String| {
            known == name
                || known
                    .split_once('/')
                    .is_some_and(|(feature, property)| feature == name || property == name)
        };
        if known.iter().any(fits) {
            return;
        }
        let words = known.iter().flat_map(|path| path.split('/').chain([path.as_str()]));
        let guess = suggest(name, words).map(str::to_owned);
        let message = format!("{} names `{name}`, which none of its nodes has", self.item.words());
        let region = if is_key { self.root.key_region_at(path) } else { self.root.region_at(path) };
        let mut diagnostic =
            Diagnostic::error(Code::UnknownProperty, self.item.file, region, message);
        if let Some(guess) = guess {
            diagnostic = diagnostic.help(format!("did you mean `{guess}`?"));
        }
        diagnostic =
            diagnostic.help(format!("they have {}", list_words(known.iter().map(String::as_str))));
        self.push(diagnostic, path);
    }

    /// What the names in an expression of this rule can mean.
    fn scope(&self, groups: &[usize]) -> expr::Scope {
        let mut scope = expr::Scope::default();
        let mut models: Vec<&TwinModelSpec> = Vec::new();
        for at in groups {
            let group = &self.index.groups[*at];
            match &group.has {
                Has::Anything => scope.open = true,
                Has::Model(model) => {
                    if !models.iter().any(|seen| std::ptr::eq(*seen, *model)) {
                        models.push(model);
                    }
                }
                Has::Derived(aggregate) => {
                    let members = self.index.members(group.namespace, aggregate);
                    scope.properties.extend(self.derived(aggregate, &members));
                }
            }
        }
        if groups.is_empty() {
            // Nothing selected yet: any model's property may be meant.
            models.extend(self.index.items.iter().filter_map(|item| match item.spec {
                Some(Spec::TwinModel(model)) => Some(&**model),
                _ => None,
            }));
            scope.open = models.is_empty();
        }
        for model in models {
            for (feature, content) in &model.features {
                scope.properties.extend(content.properties.iter().map(|(name, property)| {
                    expr::Property {
                        feature: feature.clone(),
                        name: name.clone(),
                        value: expression_type(property),
                    }
                }));
            }
        }
        let mut seen = HashSet::new();
        scope
            .properties
            .retain(|property| seen.insert((property.feature.clone(), property.name.clone())));
        let reachable = |item: &&Item<'a>| reaches(self.item.namespace, item.namespace);
        scope.services = self
            .index
            .names(Kind::Service)
            .filter(reachable)
            .map(|item| {
                let model = match item.spec {
                    Some(Spec::Service(service)) => service.model.as_deref(),
                    _ => None,
                };
                let model =
                    model.and_then(|name| self.index.find(Kind::Model, item.namespace, name));
                let labels = match model.and_then(|model| model.spec) {
                    Some(Spec::Model(model)) if !model.labels.is_empty() => {
                        Some(model.labels.clone())
                    }
                    _ => None,
                };
                expr::Service { name: item.name.to_owned(), labels }
            })
            .collect();
        scope.channels = self
            .index
            .names(Kind::Channel)
            .filter(reachable)
            .map(|item| item.name.to_owned())
            .collect();
        scope
    }

    fn derived(&self, aggregate: &TwinAggregateSpec, members: &[usize]) -> Vec<expr::Property> {
        aggregate
            .derive
            .iter()
            .filter_map(|(target, derivation)| {
                let path = target.parse::<PropertyPath>().ok()?;
                let of = derivation.of.as_ref().and_then(|of| {
                    members.iter().find_map(|member| {
                        match self.index.property(&self.index.groups[*member], of) {
                            Found::Property(property) => Some(expression_type(property)),
                            Found::Missing | Found::Anything => None,
                        }
                    })
                });
                let value = match derivation.function {
                    DeriveFunction::Any | DeriveFunction::All => expr::Type::Bool,
                    DeriveFunction::Count => expr::Type::Number(None),
                    DeriveFunction::Latest => of.unwrap_or(expr::Type::Any),
                    _ => of.unwrap_or(expr::Type::Number(None)),
                };
                Some(expr::Property { feature: path.feature, name: path.property, value })
            })
            .collect()
    }

    fn expression(&mut self, text: &str, path: &[&str], scope: &expr::Scope) {
        let Err(errors) = expr::check(text, scope) else {
            return;
        };
        for error in errors {
            let code = match error.fault {
                expr::Fault::Syntax => Code::ExpressionSyntax,
                expr::Fault::UnknownName => Code::UnknownName,
                expr::Fault::WrongOperand => Code::WrongOperand,
                expr::Fault::UnknownFunction => Code::UnknownFunction,
                expr::Fault::WrongArguments => Code::WrongArguments,
                expr::Fault::NotACondition => Code::NotACondition,
                expr::Fault::UnitsDiffer => Code::UnitsDiffer,
                expr::Fault::UnknownService => Code::UnknownService,
                expr::Fault::UnknownChannel => Code::UnknownReference,
            };
            let field = path.last().copied().unwrap_or_default();
            let message = format!("{}, in `{field}` of {}", error.message, self.item.words());
            let source = self.sources.iter().find(|source| source.name == self.item.file);
            let region = match (self.root.at(path), source) {
                (Some(node), Some(source)) => {
                    let at = position_in_scalar(&source.text, node, error.offset);
                    Region { at, width: u32::try_from(error.width).unwrap_or(1) }
                }
                _ => Region::default(),
            };
            let mut diagnostic = Diagnostic::error(code, self.item.file, region, message);
            if !error.help.is_empty() {
                diagnostic = diagnostic.help(error.help);
            }
            self.push(diagnostic, path);
        }
    }
}

/// Whether a mistake of this sort can follow from a value that is left out.
fn follows_from_a_gap(code: Code) -> bool {
    matches!(code, Code::Contradiction | Code::MissingField | Code::InputsDiffer)
}

/// Whether a bare name in one namespace can mean an object of another.
fn reaches(from: &str, to: &str) -> bool {
    from == to || to == DEFAULT_NAMESPACE
}

fn refs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Ditto's rule for namespaces: `[a-zA-Z]\w*([.-][a-zA-Z]\w*)*`.
fn is_namespace(text: &str) -> bool {
    !text.is_empty()
        && text.split(['.', '-']).all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
}

fn expression_type(property: &PropertyModel) -> expr::Type {
    match property.value_type {
        ValueType::Number | ValueType::Integer => {
            expr::Type::Number(property.unit.as_ref().map(ToString::to_string))
        }
        ValueType::Boolean => expr::Type::Bool,
        ValueType::String => expr::Type::Text(property.values.clone()),
        ValueType::Object | ValueType::Array => expr::Type::Any,
    }
}

/// Finds aggregates that are, over others, members of themselves. Each cycle is reported once,
/// at the member selector of its first aggregate.
fn check_cycles(index: &Index<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let aggregates: Vec<(usize, &TwinAggregateSpec)> = index
        .groups
        .iter()
        .enumerate()
        .filter_map(|(at, group)| match group.has {
            Has::Derived(aggregate) => Some((at, aggregate)),
            _ => None,
        })
        .collect();
    let is_aggregate: HashSet<usize> = aggregates.iter().map(|(at, _)| *at).collect();
    let edges: HashMap<usize, Vec<usize>> = aggregates
        .iter()
        .map(|(at, aggregate)| {
            let members = index.members(index.groups[*at].namespace, aggregate);
            (*at, members.into_iter().filter(|member| is_aggregate.contains(member)).collect())
        })
        .collect();
    let mut done: HashSet<usize> = HashSet::new();
    for (start, _) in &aggregates {
        // Depth first with an explicit stack: chains can be long.
        let mut path: Vec<(usize, usize)> = vec![(*start, 0)];
        let mut on_path: HashSet<usize> = HashSet::from([*start]);
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            let member = edges.get(&at).and_then(|members| members.get(*next)).copied();
            *next += 1;
            match member {
                None => {
                    path.pop();
                    on_path.remove(&at);
                    done.insert(at);
                }
                Some(member) if on_path.contains(&member) => {
                    let cycle: Vec<usize> = path
                        .iter()
                        .map(|(at, _)| *at)
                        .skip_while(|at| *at != member)
                        .chain([member])
                        .collect();
                    report_cycle(index, &cycle, diagnostics);
                }
                Some(member) if !done.contains(&member) => {
                    path.push((member, 0));
                    on_path.insert(member);
                }
                Some(_) => {}
            }
        }
    }
}

fn report_cycle(index: &Index<'_>, cycle: &[usize], diagnostics: &mut Vec<Diagnostic>) {
    // A cycle that the runtime already has is not this run's mistake; report at the first
    // aggregate that was read.
    let Some(item) = cycle
        .iter()
        .map(|at| &index.items[index.groups[*at].item])
        .find(|item| item.root.is_some())
    else {
        return;
    };
    let names: Vec<String> = cycle
        .iter()
        .map(|at| &index.items[index.groups[*at].item])
        .map(|item| format!("`{}:{}`", item.namespace, item.name))
        .collect();
    let region = item.root.map(|root| root.key_region_at(&["spec", "members"])).unwrap_or_default();
    let message = if names.len() == 2 {
        format!("{} is a member of itself", item.words())
    } else {
        format!("{} is, over others, a member of itself: {}", item.words(), names.join(" has "))
    };
    diagnostics.push(
        Diagnostic::error(Code::Cycle, item.file, region, message)
            .help("take one of them out of the other's members, or let the selector exclude it"),
    );
}
