//! Applying documents and deleting objects: checked, planned and stored in one batch, then the
//! controllers are woken.
//!
//! Not here: what a plan holds (`plan`), what follows from what is stored (`round`).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::ObjectKey;
use super::plan::{self, ApplyPlan, Operation, Ownership, PlanError};
use super::reconciler::Reconciler;
use super::stored::{Facts, Stored, in_namespace};
use super::wanted::{self, Made};
use crate::kinds::{Kind, Spec};
use crate::manifest::{self, Diagnostic, Object};
use crate::writer::DOCUMENT_LEN_MAX;

/// How to apply.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyOptions {
    /// Plan, and change nothing.
    pub dry_run: bool,
    /// Delete the objects of the set that are not declared.
    pub prune: bool,
    /// The set that owns the objects.
    pub set: Option<String>,
    /// The base of a saved plan: nothing is changed if it has moved.
    pub base: Option<String>,
}

/// What was, or would be, applied.
#[derive(Debug, Clone)]
pub struct ApplyReport {
    /// Whether nothing was changed because a dry run was asked for.
    pub dry_run: bool,
    /// What happened, or would.
    pub plan: ApplyPlan,
    /// What is stored and not acted on yet, one sentence each.
    pub not_acted_on: Vec<String>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

impl ApplyReport {
    /// The form for programs, as text: there may be a hundred thousand actions.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shown<'a> {
            dry_run: bool,
            base: &'a str,
            actions: &'a [plan::PlannedAction],
            summary: plan::Summary,
            not_acted_on: &'a [String],
            warnings: Value,
        }
        let report = Shown {
            dry_run: self.dry_run,
            base: &self.plan.base,
            actions: &self.plan.actions,
            summary: self.plan.summary(),
            not_acted_on: &self.not_acted_on,
            warnings: manifest::diagnostic::to_json(&self.warnings)["diagnostics"].take(),
        };
        // Text, numbers and JSON: it always has a JSON form.
        serde_json::to_string(&report).unwrap_or_default()
    }
}

/// Why nothing was applied.
#[derive(Debug, Clone)]
pub enum ApplyError {
    /// The documents have mistakes.
    Invalid(Vec<Diagnostic>),
    /// There is no plan.
    Plan(PlanError),
    /// The stored objects changed since the plan was made.
    BaseMoved,
    /// An object is too large to be stored: which, bytes.
    TooLarge(ObjectKey, usize),
    /// There is no room, or the log takes nothing any more.
    NotStored(String),
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(diagnostics) => {
                let errors = diagnostics.iter().filter(|one| one.is_error()).count();
                write!(f, "the documents have {}", manifest::diagnostic::plural(errors, "error"))
            }
            Self::Plan(error) => error.fmt(f),
            Self::BaseMoved => f.write_str("the objects changed since the plan was made"),
            Self::TooLarge(key, len) => {
                write!(f, "{key} has {len} bytes; an object takes {DOCUMENT_LEN_MAX} at most")
            }
            Self::NotStored(why) => write!(f, "nothing could be stored: {why}"),
        }
    }
}

impl std::error::Error for ApplyError {}

impl From<PlanError> for ApplyError {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}

impl Reconciler {
    /// Checks, plans, stores and wakes the controllers.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing is changed then.
    pub async fn apply(
        self: &Arc<Self>,
        documents: Vec<Value>,
        options: ApplyOptions,
    ) -> Result<ApplyReport, ApplyError> {
        let _turn = self.applying.lock().await;
        let this = self.clone();
        // Thousands of documents take a while to check.
        let prepared = tokio::task::spawn_blocking(move || this.prepare(documents, &options)).await;
        let (report, changes) =
            prepared.map_err(|error| ApplyError::NotStored(error.to_string()))??;
        if !report.dry_run {
            self.store(changes).await?;
        }
        Ok(report)
    }

    /// What an apply would do, and the objects as they would be.
    fn prepare(
        &self,
        documents: Vec<Value>,
        options: &ApplyOptions,
    ) -> Result<(ApplyReport, Vec<(ObjectKey, Stored)>), ApplyError> {
        let objects = self.objects();
        let set = options.set.as_deref();
        let ownership = Ownership { set, prune: options.prune };
        let pruned = |stored: &Stored| options.prune && stored.set.as_deref() == set;
        let stays = |stored: &&Stored| !stored.deleting && !pruned(stored);
        let known: Vec<Object> =
            objects.values().filter(stays).filter_map(|stored| stored.typed().ok()).collect();
        let parsed = manifest::from_json(documents, &known);
        if parsed.has_errors() {
            return Err(ApplyError::Invalid(parsed.diagnostics));
        }
        let plan = plan::plan(&parsed.objects, &objects, ownership)?;
        if options.base.as_ref().is_some_and(|base| *base != plan.base) {
            return Err(ApplyError::BaseMoved);
        }
        let not_acted_on = not_acted_on(&parsed.objects);
        let mut declared: HashMap<ObjectKey, Object> =
            parsed.objects.into_iter().map(|object| (ObjectKey::of(&object), object)).collect();
        let now_us = self.now_us();
        let mut changes = Vec::new();
        for action in plan.actions.iter().filter(|action| action.action != Operation::Unchanged) {
            let before = objects.get(&action.key);
            let stored = match (action.action, declared.remove(&action.key), before) {
                (Operation::Delete, _, Some(before)) => before.to_delete(),
                (_, Some(object), before) => {
                    let mut facts = facts(&object, before, action, set, now_us);
                    inherit(&mut facts.made, &object, &objects);
                    Stored::new(&object.json, &facts)
                }
                _ => continue,
            };
            let len = stored.text().len();
            if len > DOCUMENT_LEN_MAX {
                return Err(ApplyError::TooLarge(action.key.clone(), len));
            }
            changes.push((action.key.clone(), stored));
        }
        let warnings = parsed.diagnostics;
        Ok((ApplyReport { dry_run: options.dry_run, plan, not_acted_on, warnings }, changes))
    }

    /// Stores changed objects in one batch and, once that is durable, wakes the controllers.
    async fn store(&self, changes: Vec<(ObjectKey, Stored)>) -> Result<(), ApplyError> {
        if changes.is_empty() {
            return Ok(());
        }
        let document = |(key, stored): &(ObjectKey, Stored)| (key.document(), Some(stored.text()));
        let documents = changes.iter().map(document).collect();
        let batch = self.put(documents).map_err(ApplyError::NotStored)?;
        self.durable(batch).await.map_err(ApplyError::NotStored)?;
        let keys: Vec<ObjectKey> = changes.iter().map(|(key, _)| key.clone()).collect();
        self.write_objects(|objects| objects.extend(changes));
        for key in &keys {
            self.mark_changed(key);
        }
        self.wake_dependents(&keys);
        keys.into_iter().for_each(|key| self.queue.add(key));
        Ok(())
    }

    /// Marks objects as deleted; their controllers remove them. Returns those that there are, and
    /// those that there are not.
    ///
    /// # Errors
    /// [`ApplyError::NotStored`]; nothing is changed then.
    pub async fn delete(
        self: &Arc<Self>,
        keys: Vec<ObjectKey>,
    ) -> Result<(Vec<ObjectKey>, Vec<ObjectKey>), ApplyError> {
        let _turn = self.applying.lock().await;
        let (found, missing): (Vec<_>, Vec<_>) = {
            let objects = self.objects();
            keys.into_iter().partition(|key| objects.contains_key(key))
        };
        let changes = {
            let objects = self.objects();
            let live = found.iter().filter_map(|key| Some((key, objects.get(key)?)));
            live.filter(|(_, stored)| !stored.deleting)
                .map(|(key, stored)| (key.clone(), stored.to_delete()))
                .collect()
        };
        self.store(changes).await?;
        Ok((found, missing))
    }
}

/// What is not acted on yet: a sentence that fits many objects is listed once.
fn not_acted_on(objects: &[Object]) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for sentence in objects.iter().flat_map(Object::not_acted_on) {
        *counts.entry(sentence).or_default() += 1;
    }
    let counted = |(sentence, count)| match count {
        1 => sentence,
        count => format!("{sentence} ({count} objects)"),
    };
    counts.into_iter().map(counted).collect()
}

/// What is stored beside an object once it is declared.
fn facts(
    object: &Object,
    before: Option<&Stored>,
    action: &plan::PlannedAction,
    set: Option<&str>,
    now_us: i64,
) -> Facts {
    let made = wanted::made(object);
    let set = set.map(str::to_owned);
    let Some(before) = before else {
        let (generation, revision) = (1, 1);
        return Facts { generation, revision, set, created_us: now_us, deleting: false, made };
    };
    let old = before.facts();
    let raised = action.action == Operation::Create || action.changes_spec();
    let mut facts = Facts {
        generation: old.generation + u64::from(raised),
        revision: old.revision + 1,
        set: set.or(old.set),
        created_us: if old.deleting { now_us } else { old.created_us },
        deleting: false,
        made,
    };
    facts.made.merge(old.made);
    facts
}

/// A twin that another object made until now is taken over with what that object left in it.
fn inherit(made: &mut Made, object: &Object, objects: &BTreeMap<ObjectKey, Stored>) {
    let (namespace, name) = (&object.metadata.namespace, &object.metadata.name);
    match &object.spec {
        Spec::Twin(_) | Spec::TwinAggregate(_) => {
            let sets = in_namespace(objects, Kind::TwinSet, namespace);
            for (_, other) in sets.filter(|(set, other)| other.makes(&set.name, name)) {
                made.paths.extend(other.made().paths);
            }
        }
        Spec::TwinSet(_) => {
            let set = Stored::new(&object.json, &Facts::default());
            let twins = in_namespace(objects, Kind::Twin, namespace);
            for (_, other) in twins.filter(|(twin, _)| set.makes(name, &twin.name)) {
                made.paths.extend(other.made().paths);
            }
        }
        _ => {}
    }
}
