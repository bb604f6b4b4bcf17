//! Desired objects against stored ones: which are created, changed, left as they are, deleted.
//! Pure. The text that `plan`, `apply` and `diff` print comes from here, too.
//!
//! Objects that a set owns and that are no longer declared are deleted when pruning is asked for,
//! and only those: an object without a set, or of another one, is never deleted by a plan.
//!
//! Always true, and tested:
//! 1. a second plan after an apply holds no change;
//! 2. what others refer to comes first, and goes last.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::digest::hex;
use super::key::ObjectKey;
use super::stored::Stored;
use crate::kinds::Kind;
use crate::manifest::Object;

/// What happens to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// It is new.
    Create,
    /// It differs.
    Update,
    /// It is as declared.
    Unchanged,
    /// It is declared no longer.
    Delete,
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Where: `spec.inputs[2]`, `metadata.labels.room`.
    pub path: String,
    /// The stored value; none where the field is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// The declared value; none where the field goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// What happens to one object, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedAction {
    /// What happens.
    pub action: Operation,
    /// To which object.
    #[serde(flatten)]
    pub key: ObjectKey,
    /// The fields that differ, for an update.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

impl PlannedAction {
    /// Whether the spec differs, so that the generation rises.
    pub fn changes_spec(&self) -> bool {
        self.changes.iter().any(|change| change.path.starts_with("spec"))
    }
}

/// What would happen, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ApplyPlan {
    /// The stored objects that this plan was made against, see [`base`].
    pub base: String,
    /// One for each declared object, and one for each that goes.
    pub actions: Vec<PlannedAction>,
}

/// How many actions of each sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// New objects.
    pub create: usize,
    /// Changed objects.
    pub update: usize,
    /// Objects that are as declared.
    pub unchanged: usize,
    /// Objects that go.
    pub delete: usize,
}

/// Whose objects these are, and whether the rest of that owner's go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ownership<'a> {
    /// The set that owns the declared objects.
    pub set: Option<&'a str>,
    /// Whether objects of the set that are not declared are deleted.
    pub prune: bool,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanError {
    /// Pruning without the name of a set would delete what others applied.
    PruneWithoutSet,
    /// The object belongs to another set.
    OwnedByOther {
        /// Which object.
        key: ObjectKey,
        /// The set that owns it.
        set: String,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PruneWithoutSet => f.write_str(
                "pruning needs the name of a set, or it would delete what others applied",
            ),
            Self::OwnedByOther { key, set } => write!(f, "{key} belongs to the set `{set}`"),
        }
    }
}

impl std::error::Error for PlanError {}

/// Compares `desired` with `stored`.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    desired: &[Object],
    stored: &BTreeMap<ObjectKey, Stored>,
    ownership: Ownership<'_>,
) -> Result<ApplyPlan, PlanError> {
    if ownership.prune && ownership.set.is_none() {
        return Err(PlanError::PruneWithoutSet);
    }
    let mut actions = Vec::with_capacity(desired.len());
    let mut declared = BTreeSet::new();
    for object in desired {
        let key = ObjectKey::of(object);
        let action = match stored.get(&key) {
            Some(existing) if !existing.deleting => {
                if let (Some(owner), Some(set)) = (&existing.set, ownership.set)
                    && **owner != *set
                {
                    return Err(PlanError::OwnedByOther { key, set: owner.to_string() });
                }
                // Equal objects have equal texts, and most are equal.
                let declared = object.json.to_string();
                let mut changes = if existing.declared() == declared.as_str() {
                    Vec::new()
                } else {
                    diff(&existing.json(), &object.json)
                };
                if let (None, Some(set)) = (&existing.set, ownership.set) {
                    let (path, to) = ("status.set".to_owned(), Some(set.into()));
                    changes.push(FieldChange { path, from: None, to });
                }
                let action =
                    if changes.is_empty() { Operation::Unchanged } else { Operation::Update };
                PlannedAction { action, key, changes }
            }
            _ => PlannedAction { action: Operation::Create, key, changes: Vec::new() },
        };
        declared.insert(action.key.clone());
        actions.push(action);
    }
    if ownership.prune {
        let gone = stored.iter().filter(|(key, existing)| {
            existing.set.as_deref() == ownership.set
                && !existing.deleting
                && !declared.contains(*key)
        });
        actions.extend(gone.map(|(key, _)| PlannedAction {
            action: Operation::Delete,
            key: key.clone(),
            changes: Vec::new(),
        }));
    }
    actions.sort_by_key(|action| {
        let rank = rank(action.key.kind);
        match action.action {
            Operation::Delete => (1, usize::MAX - rank),
            _ => (0, rank),
        }
    });
    Ok(ApplyPlan { base: base(stored), actions })
}

/// What others refer to has a lower rank.
fn rank(kind: Kind) -> usize {
    const ORDER: [Kind; 13] = [
        Kind::Policy,
        Kind::TwinModel,
        Kind::Channel,
        Kind::NodeProfile,
        Kind::Model,
        Kind::Service,
        Kind::Twin,
        Kind::TwinSet,
        Kind::TwinAggregate,
        Kind::ContextRule,
        Kind::Rollout,
        Kind::CloudSink,
        Kind::Scenario,
    ];
    ORDER.iter().position(|other| *other == kind).unwrap_or(ORDER.len())
}

/// A digest of which objects are stored, in which generation and whose: a plan that was saved is
/// carried out only while it is the same.
pub fn base(stored: &BTreeMap<ObjectKey, Stored>) -> String {
    let mut hash = Sha256::new();
    for (key, existing) in stored {
        hash.update(key.to_string());
        hash.update(existing.revision.to_le_bytes());
        hash.update(existing.created_us.to_le_bytes());
        hash.update([u8::from(existing.deleting)]);
        hash.update(existing.set.as_deref().unwrap_or_default());
        hash.update([0]);
    }
    hex(&hash.finalize())
}

impl ApplyPlan {
    /// How many actions of each sort.
    pub fn summary(&self) -> Summary {
        let count = |verb| self.actions.iter().filter(|action| action.action == verb).count();
        Summary {
            create: count(Operation::Create),
            update: count(Operation::Update),
            unchanged: count(Operation::Unchanged),
            delete: count(Operation::Delete),
        }
    }

    /// Whether carrying it out would change anything.
    pub fn has_changes(&self) -> bool {
        self.actions.iter().any(|action| action.action != Operation::Unchanged)
    }

    /// The text for people: one line an object, its differing fields below it.
    ///
    /// * `done`: the text is about what happened instead of what would happen.
    pub fn render(&self, done: bool, colour: bool) -> String {
        let mut text = String::new();
        let paint = |code: &'static str| if colour { (code, "\x1b[0m") } else { ("", "") };
        for action in &self.actions {
            let (sign, code) = match action.action {
                Operation::Create => ('+', "\x1b[32m"),
                Operation::Update => ('~', "\x1b[33m"),
                Operation::Delete => ('-', "\x1b[31m"),
                Operation::Unchanged => continue,
            };
            let (on, off) = paint(code);
            text += &format!("{on}{sign}{off} {}\n", action.key);
            for change in &action.changes {
                text += &format!("    {change}\n");
            }
        }
        let summary = self.summary();
        if !self.has_changes() {
            text += &match (summary.unchanged, done) {
                (0, _) => "Nothing is declared.\n".to_owned(),
                (1, _) => "No changes: the object is as declared.\n".to_owned(),
                (n, _) => format!("No changes: all {n} objects are as declared.\n"),
            };
            return text;
        }
        let (create, update, delete) = if done {
            ("created", "changed", "deleted")
        } else {
            ("to create", "to change", "to delete")
        };
        let parts: Vec<String> = [
            (summary.create, create),
            (summary.update, update),
            (summary.delete, delete),
            (summary.unchanged, "unchanged"),
        ]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
        text += &format!("\n{}{}.\n", if done { "" } else { "Plan: " }, parts.join(", "));
        text
    }
}

/// Longest value that is shown of a change, in characters; the rest is `…`.
const SHOWN_LEN_MAX: usize = 120;

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Value| {
            let text = value.to_string();
            if text.chars().count() <= SHOWN_LEN_MAX {
                return text;
            }
            text.chars().take(SHOWN_LEN_MAX - 1).chain(['…']).collect()
        };
        write!(f, "{}: ", self.path)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{} -> {}", show(from), show(to)),
            (None, Some(to)) => write!(f, "+ {}", show(to)),
            (Some(from), None) => write!(f, "- {}", show(from)),
            (None, None) => Ok(()),
        }
    }
}

/// The fields in which two objects differ, by path.
pub fn diff(from: &Value, to: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare("", Some(from), Some(to), &mut changes);
    changes
}

fn compare(path: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<FieldChange>) {
    match (from, to) {
        (Some(Value::Object(from)), Some(Value::Object(to))) => {
            let keys: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
            for key in keys {
                compare(&join(path, key), from.get(key), to.get(key), changes);
            }
        }
        // A list of maps is compared item by item; one of plain values is shown as a whole.
        (Some(Value::Array(from)), Some(Value::Array(to)))
            if from.iter().chain(to).any(|item| item.is_object() || item.is_array()) =>
        {
            for at in 0..from.len().max(to.len()) {
                compare(&format!("{path}[{at}]"), from.get(at), to.get(at), changes);
            }
        }
        (from, to) if from != to => changes.push(FieldChange {
            path: path.to_owned(),
            from: from.cloned(),
            to: to.cloned(),
        }),
        _ => {}
    }
}

fn join(path: &str, key: &str) -> String {
    let plain =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", Value::from(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::from_json;
    use crate::reconcile::stored::Facts;
    use serde_json::json;

    fn objects(documents: &Value) -> Vec<Object> {
        let parsed = from_json(documents.as_array().unwrap().clone(), &[]);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        parsed.objects
    }

    fn store(objects: &[Object], set: Option<&str>) -> BTreeMap<ObjectKey, Stored> {
        let set = set.map(str::to_owned);
        let facts = Facts { generation: 1, revision: 1, set, ..Facts::default() };
        let stored = |object: &Object| Stored::new(&object.json, &facts);
        objects.iter().map(|object| (ObjectKey::of(object), stored(object))).collect()
    }

    fn farm() -> Value {
        json!([
            {"kind": "Twin", "metadata": {"name": "a", "labels": {"room": "north"}},
             "spec": {"model": "m", "services": []}},
            {"kind": "TwinModel", "metadata": {"name": "m"},
             "spec": {"features": {"f": {"properties": {"t": {"type": "number"}}}}}},
        ])
    }

    #[test]
    fn a_list_of_maps_differs_by_item_and_one_of_values_as_a_whole() {
        let paths = |from: &Value, to: &Value| -> Vec<String> {
            diff(from, to).into_iter().map(|change| change.path).collect()
        };
        let from = json!({"maps": [{"a": 1}, {"b": 2}], "values": [1, 2], "same": [{"c": 3}]});
        let to = json!({"maps": [{"a": 2}], "values": [1, 3], "same": [{"c": 3}]});
        assert_eq!(paths(&from, &to), ["maps[0].a", "maps[1]", "values"]);
        assert_eq!(paths(&json!({"x": []}), &json!({"x": [{"a": 1}]})), ["x[0]"]);
    }

    #[test]
    fn second_plan_after_apply_is_empty_and_models_come_before_twins() {
        let desired = objects(&farm());
        let first = plan(&desired, &BTreeMap::new(), Ownership::default()).unwrap();
        let order: Vec<_> = first.actions.iter().map(|action| action.key.to_string()).collect();
        assert_eq!(order, ["TwinModel/default/m", "Twin/default/a"]);
        assert_eq!(first.summary(), Summary { create: 2, ..Summary::default() });
        let second = plan(&desired, &store(&desired, None), Ownership::default()).unwrap();
        assert!(!second.has_changes());
        assert_eq!(second.render(false, false), "No changes: all 2 objects are as declared.\n");
    }

    #[test]
    fn an_update_shows_each_field() {
        let stored = store(&objects(&farm()), None);
        let mut changed = farm();
        changed[0]["metadata"]["labels"] = json!({"room": "south", "app.io": "x"});
        changed[0]["spec"]["attributes"] = json!({"floor": 1});
        changed[1]["spec"]["features"]["f"]["properties"]["t"] =
            json!({"type": "number", "unit": "Cel"});
        let plan = plan(&objects(&changed), &stored, Ownership::default()).unwrap();
        assert_eq!(
            plan.render(false, false),
            "~ TwinModel/default/m\n    spec.features.f.properties.t.unit: + \"Cel\"\n\
             ~ Twin/default/a\n    metadata.labels[\"app.io\"]: + \"x\"\n    \
             metadata.labels.room: \"north\" -> \"south\"\n    spec.attributes: + {\"floor\":1}\n\
             \nPlan: 2 to change.\n"
        );
    }

    #[test]
    fn pruning_deletes_what_its_set_no_longer_declares_and_nothing_else() {
        let all = objects(&farm());
        let own = Ownership { set: Some("farm"), prune: true };
        let left = plan(&all[1..], &store(&all, Some("farm")), own).unwrap();
        let deleted: Vec<_> =
            left.actions.iter().filter(|a| a.action == Operation::Delete).collect();
        assert_eq!(deleted.len(), 1);
        assert_eq!(deleted[0].key.to_string(), "Twin/default/a");
        let strangers = plan(&[], &store(&all, None), own).unwrap();
        assert!(!strangers.has_changes());
        assert_eq!(
            plan(&[], &store(&all, None), Ownership { set: None, prune: true }),
            Err(PlanError::PruneWithoutSet)
        );
        let other = Ownership { set: Some("city"), prune: false };
        assert!(matches!(
            plan(&all, &store(&all, Some("farm")), other),
            Err(PlanError::OwnedByOther { .. })
        ));
    }

    #[test]
    fn the_base_moves_with_generations_and_objects() {
        let all = objects(&farm());
        let mut stored = store(&all, None);
        let first = base(&stored);
        assert_eq!(first, base(&stored));
        if let Some(one) = stored.values_mut().next() {
            one.revision = 2;
        }
        assert_ne!(first, base(&stored));
    }

    #[test]
    fn a_plan_reads_back_from_json() {
        let stored = store(&objects(&farm()), None);
        let mut changed = farm();
        changed[0]["spec"]["attributes"] = json!({"floor": 1});
        let plan = plan(&objects(&changed), &stored, Ownership::default()).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert!(
            text.contains(r#""action":"update","kind":"Twin","namespace":"default","name":"a""#)
        );
        assert_eq!(serde_json::from_str::<ApplyPlan>(&text).unwrap(), plan);
    }
}
