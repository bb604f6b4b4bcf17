//! What is to be done: documents to store, edits of twins, messages to nodes, notes for people.
//!
//! While inputs are worked off, effects gather in [`Pending`]. Each is keyed by what it replaces,
//! so that a newer one takes the place of an older one without a search, and settling costs the same
//! for a node however many others there are.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::facts::HistoryRequest;
use crate::twin::ThingId;
use crate::wire::{Leaf, Topic};

/// What is to be done, in this order: what must be durable, then what may be seen.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Documents to store, or to remove.
    pub documents: Vec<(String, Option<String>)>,
    /// Edits of twins.
    pub edits: Vec<FeatureEdit>,
    /// What is to be read from history.
    pub history: HistoryRequest,
    /// Events, for people.
    pub notes: Vec<Note>,
    /// Messages, once all of the above is durable.
    pub messages: Vec<NodeMessage>,
    /// Times of the chain: which, since when, and until when if not until it is sent, microseconds
    /// since 1970.
    pub timings: Vec<(Stage, i64, Option<i64>)>,
}

/// A part of a feature that is to be.
#[derive(Debug, PartialEq)]
pub struct FeatureEdit {
    /// Of which twin.
    pub thing: ThingId,
    /// Of which feature.
    pub feature: String,
    /// `desiredProperties`, or else `properties`.
    pub desired: bool,
    /// All of it, or with `merge` what is new.
    pub value: Map<String, Value>,
    /// Whether the rest stays.
    pub merge: bool,
}

/// A message to a node.
#[derive(Debug, PartialEq, Eq)]
pub struct NodeMessage {
    /// To which.
    pub thing: ThingId,
    /// `…/desired`, retained, or else `…/cmd`.
    pub desired: bool,
    /// The payload.
    pub text: String,
    /// It is for an actuator, and goes before all that is not.
    pub urgent: bool,
}

impl NodeMessage {
    /// Topic, payload, and whether the broker keeps it for a node that is offline.
    pub fn into_publish(self) -> (String, Vec<u8>, bool) {
        let leaf = if self.desired { Leaf::Desired } else { Leaf::Command };
        let topic = Topic { thing: self.thing, leaf };
        (topic.to_string(), self.text.into_bytes(), self.desired)
    }
}

/// Something that a person would want to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it calls for someone.
    pub warning: bool,
    /// A stable name in CamelCase.
    pub reason: &'static str,
    /// `Twin/lab/north-1`, `ContextRule/default/look-closer`.
    pub object: String,
    /// One sentence.
    pub message: String,
    /// Whether `run` shows it.
    pub show: bool,
}

/// A part of the chain from a verdict to what a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From when a rule became active, which without `for` is the verdict, to the command on the
    /// wire.
    Command,
    /// From the command to the node's answer.
    Answer,
    /// From the command to the first reading under the new transmission.
    Reading,
    /// [`Stage::Command`] of an actuator.
    ActCommand,
    /// [`Stage::Answer`] of an actuator.
    ActAnswer,
}

/// Edits of one twin, by feature.
#[derive(Debug, Default)]
struct TwinEdits {
    desired: BTreeMap<String, FeatureEdit>,
    reported: BTreeMap<String, FeatureEdit>,
}

/// Effects that gather until the next settling.
#[derive(Debug, Default)]
pub struct Pending {
    documents: BTreeMap<String, Option<String>>,
    edits: BTreeMap<ThingId, TwinEdits>,
    retained: BTreeMap<ThingId, String>,
    commands: Vec<NodeMessage>,
    notes: Vec<Note>,
    timings: Vec<(Stage, i64, Option<i64>)>,
}

impl Pending {
    /// Stores a document, or with `None` removes it.
    pub fn store(&mut self, key: String, text: Option<String>) {
        self.documents.insert(key, text);
    }

    /// Only what a twin shows now counts; what was to be desired before does not.
    pub fn clear_desired(&mut self, thing: &ThingId) {
        if let Some(edits) = self.edits.get_mut(thing) {
            edits.desired.clear();
        }
    }

    /// Only what a feature shows now counts; what was to be reported before does not.
    pub fn clear_reported(&mut self, thing: &ThingId, feature: &str) {
        if let Some(edits) = self.edits.get_mut(thing) {
            edits.reported.remove(feature);
        }
    }

    /// Edits a feature. Of what is there already a merge replaces only what it names.
    pub fn edit(&mut self, edit: FeatureEdit) {
        let edits = self.edits.entry(edit.thing.clone()).or_default();
        let edits = if edit.desired { &mut edits.desired } else { &mut edits.reported };
        match edits.get_mut(&edit.feature) {
            Some(before) if edit.merge => before.value.extend(edit.value),
            _ => drop(edits.insert(edit.feature.clone(), edit)),
        }
    }

    /// Retains a message for a node; an empty one removes what was retained.
    pub fn retain(&mut self, thing: &ThingId, text: String) {
        self.retained.insert(thing.clone(), text);
    }

    /// Sends a command.
    pub fn send(&mut self, thing: &ThingId, text: String, urgent: bool) {
        self.commands.push(NodeMessage { thing: thing.clone(), desired: false, text, urgent });
    }

    /// Adds an event.
    pub fn note(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// Adds a time of the chain.
    pub fn time(&mut self, stage: Stage, since_us: i64, until_us: Option<i64>) {
        self.timings.push((stage, since_us, until_us));
    }

    /// What has gathered, in the order in which it is to be done. A thousand nodes may get a new
    /// transmission; an actuator waits for none of them.
    pub fn into_effects(self, history: HistoryRequest) -> Effects {
        let edits = self.edits.into_values();
        let retained = self.retained.into_iter().map(|(thing, text)| NodeMessage {
            thing,
            desired: true,
            text,
            urgent: false,
        });
        let (mut messages, others): (Vec<_>, Vec<_>) =
            self.commands.into_iter().partition(|message| message.urgent);
        messages.extend(retained);
        messages.extend(others);
        Effects {
            documents: self.documents.into_iter().collect(),
            edits: edits
                .flat_map(|edits| edits.desired.into_values().chain(edits.reported.into_values()))
                .collect(),
            history,
            notes: self.notes,
            messages,
            timings: self.timings,
        }
    }
}

/// Documents of the controller start with this.
pub const DOCUMENTS: &str = "cacc/";

/// The key of a node's document.
pub fn node_key(thing: &str) -> String {
    key("node", thing)
}

/// The key of a rule's document.
pub fn rule_key(rule: &str) -> String {
    key("rule", rule)
}

/// Whether a key is of a node's document.
pub fn is_node_key(key: &str) -> bool {
    key.strip_prefix(DOCUMENTS).is_some_and(|rest| rest.starts_with("node/"))
}

/// The key of a document: readable, or a digest where that would be too long for the log.
fn key(of: &str, name: &str) -> String {
    let key = format!("{DOCUMENTS}{of}/{name}");
    if key.len() <= crate::store::record::KEY_LEN_MAX {
        return key;
    }
    let digest = <sha2::Sha256 as sha2::Digest>::digest(name.as_bytes());
    let hex = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("{DOCUMENTS}{of}/#{hex}")
}

/// `Twin/lab/north-1`.
pub fn twin_object(id: &ThingId) -> String {
    format!("Twin/{}/{}", id.namespace(), id.name())
}

/// `look-closer` is `ContextRule/default/look-closer`.
pub fn rule_object(name: &str) -> String {
    match name.split_once('/') {
        Some((namespace, name)) => format!("ContextRule/{namespace}/{name}"),
        None => format!("ContextRule/default/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edit(desired: bool, merge: bool, value: Value) -> FeatureEdit {
        let Value::Object(value) = value else { panic!("{value}") };
        let thing = ThingId::parse("lab:n").unwrap();
        FeatureEdit { thing, feature: "f".to_owned(), desired, value, merge }
    }

    #[test]
    fn only_the_desired_transmission_is_retained() {
        let publish = |desired| {
            let thing = ThingId::parse("lab:n").unwrap();
            NodeMessage { thing, desired, text: "x".to_owned(), urgent: false }.into_publish()
        };
        assert_eq!(publish(true), ("et/v1/lab/n/desired".to_owned(), b"x".to_vec(), true));
        assert_eq!(publish(false), ("et/v1/lab/n/cmd".to_owned(), b"x".to_vec(), false));
    }

    #[test]
    fn an_effect_takes_the_place_of_what_it_replaces() {
        let thing = ThingId::parse("lab:n").unwrap();
        let mut pending = Pending::default();
        for at in 0..3 {
            pending.store(node_key("lab:n"), Some(at.to_string()));
            pending.retain(&thing, at.to_string());
            pending.edit(edit(false, false, json!({ "a": at })));
            pending.edit(edit(true, true, json!({ "a": at })));
            pending.edit(edit(true, true, json!({ "b": at })));
        }
        let effects = pending.into_effects(HistoryRequest::default());
        assert_eq!(effects.documents, [("cacc/node/lab:n".to_owned(), Some("2".to_owned()))]);
        assert_eq!(effects.messages.len(), 1);
        assert_eq!(effects.messages[0].text, "2");
        let expected =
            [edit(true, true, json!({ "a": 2, "b": 2 })), edit(false, false, json!({ "a": 2 }))];
        assert_eq!(effects.edits, expected);
    }

    #[test]
    fn an_actuator_goes_before_all_else() {
        let thing = ThingId::parse("lab:n").unwrap();
        let mut pending = Pending::default();
        pending.send(&thing, "first".to_owned(), false);
        pending.retain(&thing, "retained".to_owned());
        pending.send(&thing, "act".to_owned(), true);
        let effects = pending.into_effects(HistoryRequest::default());
        let order: Vec<&str> = effects.messages.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(order, ["act", "retained", "first"]);
    }

    #[test]
    fn a_long_name_has_a_key_that_the_log_takes() {
        let long = "x".repeat(300);
        assert!(node_key(&long).len() <= crate::store::record::KEY_LEN_MAX);
        assert!(is_node_key(&node_key(&long)) && !is_node_key(&rule_key("r")));
        assert_ne!(node_key(&long), node_key(&"y".repeat(300)));
    }
}
