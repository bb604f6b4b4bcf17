//! What reading verbs show: objects with their status, lists, counts, what keeps one from being
//! ready.
//!
//! Not here: how a status comes about (`status`), the HTTP surface (`reconcile::http`).

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::key::{ObjectKey, thing_id};
use super::reconciler::Reconciler;
use super::status::{Condition, Status, Truth};
use super::stored::{Stored, in_namespace};
use crate::base::time::rfc3339;
use crate::kinds::{Kind, Spec};
use crate::manifest::Object;
use crate::twin::selector::Selector;
use crate::twin::services;

impl Reconciler {
    /// The reason and message why an object is not ready.
    pub(super) fn why_not(&self, key: &ObjectKey) -> String {
        if !self.objects().contains_key(key) {
            return "there is no such object".to_owned();
        }
        let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
        let conditions = statuses.get(key).map_or(&[][..], |status| &status.conditions);
        match conditions.iter().find(|one| one.condition == "Ready") {
            Some(ready) => format!("{}: {}", ready.reason, ready.message),
            None => "nothing is known of it yet".to_owned(),
        }
    }

    /// Whether an object is ready; what is not acted on yet counts as ready. `None` if there is none.
    pub fn is_ready(&self, key: &ObjectKey) -> Option<bool> {
        self.objects().get(key)?;
        let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
        let conditions = statuses.get(key).map_or(&[][..], |status| &status.conditions);
        let is = |name: &str, truth| {
            conditions.iter().any(|one| one.condition == name && one.status == truth)
        };
        let not_acted_on = conditions.iter().any(|one| one.reason == "NotActedOn");
        Some((is("Ready", Truth::True) || not_acted_on) && !is("Reconciling", Truth::True))
    }

    /// The object with its status, as reading verbs show it.
    pub fn get(&self, key: &ObjectKey) -> Option<Value> {
        let stored = self.objects().get(key).cloned();
        match stored {
            Some(stored) => Some(self.view(key, &stored)),
            None => self.made_twin(key),
        }
    }

    /// All objects of a kind, or of all kinds, with their status, as the text of a JSON list; by
    /// kind, namespace and name.
    ///
    /// * `made`: whether the twins that TwinSets make are listed, too.
    pub fn list(
        &self,
        kind: Option<Kind>,
        namespace: Option<&str>,
        selector: &Selector,
        made: bool,
    ) -> String {
        let objects = self.objects();
        let in_reach = |place: &str| namespace.is_none_or(|namespace| namespace == place);
        let is_of = |other: Kind| kind.is_none_or(|kind| kind == other);
        let selected = |stored: &Stored| {
            selector.is_empty()
                || stored.typed().is_ok_and(|o| selector.matches(&o.metadata.labels))
        };
        // Each row by its key: an object, or a twin of a TwinSet.
        let mut rows: Vec<(ObjectKey, Option<usize>)> = objects
            .iter()
            .filter(|(key, stored)| is_of(key.kind) && in_reach(&key.namespace) && selected(stored))
            .map(|(key, _)| (key.clone(), None))
            .collect();
        let mut sets = Vec::new();
        if made && is_of(Kind::Twin) {
            for (set, stored) in objects.iter().filter(|(key, stored)| {
                key.kind == Kind::TwinSet && in_reach(&key.namespace) && !stored.deleting
            }) {
                let Ok(object) = stored.object() else { continue };
                let Spec::TwinSet(spec) = &object.spec else { continue };
                if !selector.is_empty() && !selector.matches(&object.twin_labels(spec)) {
                    continue;
                }
                let twin = |name: String| {
                    let key = ObjectKey::new(Kind::Twin, &set.namespace, &name);
                    (key, Some(sets.len()))
                };
                rows.extend(spec.twin_names(&set.name).into_iter().map(twin));
                sets.push((set, stored, object));
            }
            rows.sort();
        }
        let mut text = "[".to_owned();
        for (key, set) in rows {
            let view = match set.and_then(|at| sets.get(at)) {
                Some((set, stored, object)) => {
                    object.twin(&key.name).map(|twin| self.view_made(&key, &twin, set, stored))
                }
                None => objects.get(&key).map(|stored| self.view(&key, stored)),
            };
            if text.len() > 1 {
                text.push(',');
            }
            // One at a time: a hundred thousand values would take a gigabyte.
            text += &view.unwrap_or_default().to_string();
        }
        text.push(']');
        text
    }

    /// How many objects there are of each kind, and how many of them are ready.
    pub fn counts(&self) -> BTreeMap<Kind, (usize, usize)> {
        let mut counts = BTreeMap::new();
        let keys: Vec<ObjectKey> = self.objects().keys().cloned().collect();
        for key in keys {
            let ready = self.is_ready(&key) == Some(true);
            let (all, good) = counts.entry(key.kind).or_insert((0, 0));
            *all += 1;
            *good += usize::from(ready);
        }
        counts
    }

    /// The objects as declared, as the text of a JSON list.
    pub fn declared_json(&self) -> String {
        let objects = self.objects();
        let live = objects.values().filter(|stored| !stored.deleting);
        let texts: Vec<&str> = live.map(Stored::declared).collect();
        format!("[{}]", texts.join(","))
    }

    /// The objects as declared.
    pub fn declared(&self) -> Vec<Object> {
        let objects = self.objects();
        let live = objects.values().filter(|stored| !stored.deleting);
        live.filter_map(|stored| stored.object().ok()).collect()
    }

    /// An object with its status.
    fn view(&self, key: &ObjectKey, stored: &Stored) -> Value {
        let mut value = stored.json();
        let mut status = {
            let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
            let found = statuses.get(key);
            json!({
                "generation": stored.generation,
                "observedGeneration": found.map_or(0, |status| status.observed_generation),
                "created": rfc3339(stored.created_us),
                "conditions": found.map_or_else(Vec::new, conditions),
            })
        };
        if let Some(set) = &stored.set {
            status["set"] = (**set).into();
        }
        if stored.deleting {
            status["deleting"] = true.into();
        }
        match key.kind {
            Kind::Twin | Kind::TwinAggregate => self.view_thing(key, &mut status),
            Kind::TwinSet => status["twins"] = stored.made_now().into(),
            Kind::ContextRule => {
                status["twins"] = self.context.control.rule_members(&key.global_name()).into();
            }
            Kind::Service => {
                let now = self.context.services.status(&key.name);
                status["instances"] = now.instances.into();
                status["healthy"] = now.healthy.into();
            }
            Kind::Model => {
                let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(model) = models.get(&key.global_name()) {
                    status["version"] = model.version().into();
                    status["digest"] = format!("sha256:{}", model.digest()).into();
                    status["inputs"] = json!(model.meta().inputs);
                    status["labels"] = json!(model.meta().labels);
                }
            }
            _ => {}
        }
        value["status"] = status;
        value
    }

    /// A twin that a TwinSet makes, as if it were declared by itself.
    fn view_made(&self, key: &ObjectKey, twin: &Object, set: &ObjectKey, stored: &Stored) -> Value {
        let mut value = twin.json.clone();
        let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
        let found = statuses.get(set);
        let mut status = json!({
            "generation": stored.generation,
            "observedGeneration": found.map_or(0, |status| status.observed_generation),
            "created": rfc3339(stored.created_us),
            "madeBy": set.to_string(),
            "conditions": found.map_or_else(Vec::new, conditions),
        });
        drop(statuses);
        self.view_thing(key, &mut status);
        value["status"] = status;
        value
    }

    /// The twin of this key that a TwinSet makes.
    fn made_twin(&self, key: &ObjectKey) -> Option<Value> {
        if key.kind != Kind::Twin {
            return None;
        }
        let (set, stored) = {
            let objects = self.objects();
            let mut sets = in_namespace(&objects, Kind::TwinSet, &key.namespace);
            let found = sets.find(|(set, stored)| stored.makes(&set.name, &key.name));
            found.map(|(set, stored)| (set.clone(), stored.clone()))?
        };
        let twin = stored
            .object()
            .ok()?
            .expand()
            .into_iter()
            .find(|twin| twin.metadata.name == key.name)?;
        Some(self.view_made(key, &twin, &set, &stored))
    }

    /// What the thing of a twin shows, and what its services lack.
    fn view_thing(&self, key: &ObjectKey, status: &mut Value) {
        let Some(twin) = self.context.writer.twin(&format!("{}:{}", key.namespace, key.name))
        else {
            return;
        };
        let services: Vec<&str> = services(&twin).collect();
        let verdicts: serde_json::Map<String, Value> = services
            .iter()
            .filter_map(|service| {
                let label = twin.property_named(service, "label")?;
                let score = twin.property_named(service, "score");
                Some(((*service).to_owned(), json!({ "label": label, "score": score })))
            })
            .collect();
        status["thing"] = json!({
            "thingId": twin.id.as_str(),
            "revision": twin.revision,
            "created": rfc3339(twin.created_us),
            "modified": rfc3339(twin.modified_us),
            "verdicts": verdicts,
        });
        if let Ok(id) = thing_id(&key.namespace, &key.name)
            && let Some(members) = self.context.aggregates.members(&id)
        {
            status["members"] = members.len().into();
        }
        let lacking = services.iter().find_map(|service| {
            let (found, _) = self.find_service(service)?;
            let statuses = self.statuses.read().unwrap_or_else(PoisonError::into_inner);
            let ready = statuses.get(&found)?.conditions.iter().find(|c| c.condition == "Ready")?;
            let lacks = ready.status == Truth::False && ready.reason == "NoHealthyInstance";
            let message = format!("service `{service}`: {}", ready.message).into();
            lacks.then(|| Condition { condition: "ServicesReady", message, ..ready.clone() })
        });
        if let (Some(condition), Some(Value::Array(conditions))) =
            (lacking, status.get_mut("conditions"))
        {
            conditions.push(condition.to_json());
        }
    }
}

fn conditions(status: &Status) -> Vec<Value> {
    status.conditions.iter().map(Condition::to_json).collect()
}
