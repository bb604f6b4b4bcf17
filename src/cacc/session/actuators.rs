//! The actuators of one node: what each is to be, and how far it is on the way there.
//!
//! | from | to | reason |
//! |---|---|---|
//! | `AsShown`, `Answered`, `FellBack` | `Commanded` | it is not as it is to be |
//! | `Commanded` | `Answered` | the node answered, with the value that it set |
//! | `Commanded` | `GivenUp` | the node refused, or did not answer in time |
//! | `Commanded` | as before it | the command was superseded, or came too late by a wrong clock |
//! | `Answered` | `AsShown`, `GivenUp` | the twin shows it; `GivenUp` if it is not what was asked |
//! | any that was answered before | `FellBack` | the node set it to its safe value by itself |
//! | `GivenUp` | `AsShown` | something else is asked, or the node came back |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cacc::decide::{Layer, NodeSpec};
use crate::twin::{Event, Twin};

/// An actuator, by feature and property.
pub type ActuatorKey = (String, String);

/// What an actuator was to be, and is to be now.
#[derive(Debug, Clone, PartialEq)]
pub struct ActuatorChange {
    /// Which.
    pub key: ActuatorKey,
    /// What it was to be.
    pub before: Option<Value>,
    /// What it is to be now.
    pub wanted: Option<Value>,
}

/// How far an actuator is.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ActuatorState {
    /// It is as the twin shows.
    #[default]
    AsShown,
    /// A command is under way.
    Commanded {
        /// Its id.
        command: u32,
        /// The node had set it to its safe value by itself.
        fell_back: bool,
    },
    /// It is as the node answered; the twin does not show it yet.
    Answered {
        /// What the node answered.
        value: Option<Value>,
        /// What was asked, if that is something else: it is not asked again.
        instead_of: Option<Value>,
    },
    /// The node set it to its safe value by itself, whatever the twin shows.
    FellBack,
    /// Nothing more is tried for this value.
    GivenUp {
        /// What was asked.
        value: Value,
    },
}

/// What an actuator is to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ActuatorControl {
    /// What a client wrote into `desiredProperties`.
    pub user: Option<Value>,
    /// What was decided.
    pub wanted: Option<Value>,
    /// Who is behind that.
    pub by: String,
    /// How far it is.
    pub state: ActuatorState,
    /// The node's boot when it last answered.
    pub boot: Option<u32>,
}

impl ActuatorControl {
    /// Whether a command is to be sent, given what the twin shows.
    fn is_due(&self, shown: Option<&Value>) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let is = match &self.state {
            ActuatorState::Commanded { .. } => return false,
            ActuatorState::GivenUp { value }
            | ActuatorState::Answered { instead_of: Some(value), .. }
                if value == wanted =>
            {
                return false;
            }
            ActuatorState::FellBack => None,
            ActuatorState::Answered { value: Some(value), .. } => Some(value),
            _ => shown,
        };
        let number = |is: &Value| is.as_f64().is_some_and(|is| wanted.as_f64() == Some(is));
        !is.is_some_and(|is| is == wanted || number(is))
    }

    /// Something else is asked, or the node came back: what was given up is tried again.
    fn retry(&mut self) {
        match &mut self.state {
            ActuatorState::GivenUp { .. } => self.state = ActuatorState::AsShown,
            ActuatorState::Answered { instead_of, .. } => *instead_of = None,
            _ => {}
        }
    }

    fn give_up(&mut self) {
        self.state = match self.wanted.clone() {
            Some(value) => ActuatorState::GivenUp { value },
            None => ActuatorState::AsShown,
        };
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Actuators {
    controls: BTreeMap<ActuatorKey, ActuatorControl>,
}

impl Actuators {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ActuatorKey, &ActuatorControl)> {
        self.controls.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.controls.is_empty()
    }

    /// The features that have one.
    pub fn features(&self) -> impl Iterator<Item = &str> {
        self.controls.keys().map(|(feature, _)| feature.as_str())
    }

    /// One of them.
    pub fn get(&self, key: &ActuatorKey) -> Option<&ActuatorControl> {
        self.controls.get(key)
    }

    /// What a client wrote into a feature's `desiredProperties`; null takes it back.
    ///
    /// * `whole`: what is not named is taken back.
    pub fn set_overrides(
        &mut self,
        feature: &str,
        mut map: serde_json::Map<String, Value>,
        whole: bool,
    ) {
        for ((of, name), control) in &mut self.controls {
            if of == feature && (whole || map.contains_key(name)) {
                control.user = map.remove(name).filter(|value| !value.is_null());
                control.retry();
            }
        }
        for (name, value) in map {
            if !value.is_null() {
                let control = ActuatorControl { user: Some(value), ..ActuatorControl::default() };
                self.controls.insert((feature.to_owned(), name), control);
            }
        }
    }

    /// Decides what each is to be: what a client wrote, what a rule sets, what the manifest declares, or
    /// after any of these its safe value.
    ///
    /// * `layers`: the active rules, the strongest first.
    ///
    /// Returns what each was to be and is to be now.
    pub fn decide(&mut self, spec: &NodeSpec, layers: &[Layer<'_>]) -> Vec<ActuatorChange> {
        let set = layers.iter().flat_map(|layer| layer.effect.set.keys());
        let mut keys: Vec<&ActuatorKey> = spec.actuators.keys().chain(set).collect();
        if keys.is_empty() && self.controls.is_empty() {
            return Vec::new();
        }
        keys.extend(self.controls.keys());
        keys.sort();
        keys.dedup();
        let keys: Vec<ActuatorKey> = keys.into_iter().cloned().collect();
        let mut decided = Vec::with_capacity(keys.len());
        for key in keys {
            let mut control = self.controls.remove(&key).unwrap_or_default();
            let known = spec.actuators.get(&key);
            let rule = layers.iter().find_map(|layer| Some((layer, layer.effect.set.get(&key)?)));
            let desired = known.and_then(|actuator| actuator.desired.clone());
            let safe = known.and_then(|actuator| actuator.safe.clone());
            let before = control.wanted.take();
            let (by, wanted) = match (&control.user, rule, desired) {
                (Some(value), _, _) => ("user", Some(value.clone())),
                (None, Some((layer, value)), _) => (&**layer.name, Some(value.clone())),
                (None, None, Some(value)) => ("manifest", Some(value)),
                // It was set, and nobody asks for anything any more.
                (None, None, None) if before.is_some() => ("safe", safe),
                (None, None, None) => ("", None),
            };
            control.by = by.to_owned();
            control.wanted = wanted;
            if before != control.wanted {
                control.retry();
            }
            let wanted = control.wanted.clone();
            decided.push(ActuatorChange { key: key.clone(), before, wanted });
            if control.user.is_some() || control.wanted.is_some() {
                self.controls.insert(key, control);
            }
        }
        decided
    }

    /// The commands that are to be sent: which actuator, to what, and who is behind it.
    pub fn due(&self, twin: &Twin) -> Vec<(ActuatorKey, Value, String)> {
        let due = |(key, control): (&ActuatorKey, &ActuatorControl)| {
            let shown = twin.property_named(&key.0, &key.1);
            let wanted = control.wanted.clone().filter(|_| control.is_due(shown))?;
            Some((key.clone(), wanted, control.by.clone()))
        };
        self.controls.iter().filter_map(due).collect()
    }

    /// A command is under way.
    pub fn commanded(&mut self, key: &ActuatorKey, command: u32) {
        if let Some(control) = self.controls.get_mut(key) {
            let fell_back = control.state == ActuatorState::FellBack;
            control.state = ActuatorState::Commanded { command, fell_back };
        }
    }

    /// The node answered. Returns the value that it set.
    ///
    /// * `value`: what it reports that it set; `None` if it reports nothing of that.
    pub fn answered(
        &mut self,
        key: &ActuatorKey,
        value: Option<Value>,
        boot: u32,
    ) -> Option<Value> {
        let Some(control) = self.controls.get_mut(key) else { return value };
        let value = value.or_else(|| control.wanted.clone());
        let instead_of = control.wanted.clone().filter(|wanted| Some(wanted) != value.as_ref());
        control.state = ActuatorState::Answered { value: value.clone(), instead_of };
        control.boot = Some(boot);
        value
    }

    /// The command was refused, not answered in time, or cannot be sent.
    pub fn failed(&mut self, key: &ActuatorKey) {
        if let Some(control) = self.controls.get_mut(key) {
            control.give_up();
        }
    }

    /// The command is over without a result.
    pub fn superseded(&mut self, key: &ActuatorKey, command: u32) {
        let Some(control) = self.controls.get_mut(key) else { return };
        if let ActuatorState::Commanded { command: open, fell_back } = control.state
            && open == command
        {
            control.state =
                if fell_back { ActuatorState::FellBack } else { ActuatorState::AsShown };
        }
    }

    /// The twin shows what an event wrote: from here on that is how an actuator is.
    pub fn shown(&mut self, event: &Event) {
        for ((feature, name), control) in &mut self.controls {
            if let ActuatorState::Answered { instead_of, .. } = &mut control.state
                && event.touches(feature, name)
            {
                control.state = match instead_of.take() {
                    Some(value) => ActuatorState::GivenUp { value },
                    None => ActuatorState::AsShown,
                };
            }
        }
    }

    /// What the node answered could not be stored, so no twin will show it.
    pub fn not_stored(&mut self) {
        for control in self.controls.values_mut() {
            if matches!(control.state, ActuatorState::Answered { .. }) {
                control.state = ActuatorState::AsShown;
            }
        }
    }

    /// The node set its actuators to their safe values by itself.
    ///
    /// * `boot`: it is in this boot now; those that it answered in it are as they were.
    pub fn fell_back(&mut self, boot: Option<u32>) {
        for control in self.controls.values_mut() {
            if control.boot.is_none() || control.boot == boot {
                continue;
            }
            match &mut control.state {
                ActuatorState::Commanded { fell_back, .. } => *fell_back = true,
                state => *state = ActuatorState::FellBack,
            }
        }
    }

    /// The node came back: what was given up is tried again.
    pub fn returned(&mut self) {
        self.controls.values_mut().for_each(ActuatorControl::retry);
    }

    /// For the record.
    pub fn to_records(&self) -> Vec<(String, String, ActuatorRecord)> {
        let record = |((feature, name), control): (&ActuatorKey, &ActuatorControl)| {
            let given_up = match &control.state {
                ActuatorState::GivenUp { value } => Some(value.clone()),
                ActuatorState::Answered { instead_of, .. } => instead_of.clone(),
                _ => None,
            };
            let fell_back = matches!(
                control.state,
                ActuatorState::FellBack | ActuatorState::Commanded { fell_back: true, .. }
            );
            let record = ActuatorRecord {
                user: control.user.clone(),
                wanted: control.wanted.clone(),
                by: control.by.clone(),
                given_up,
                boot: control.boot,
                fell_back,
            };
            (feature.clone(), name.clone(), record)
        };
        self.controls.iter().map(record).collect()
    }

    /// As it was stored.
    ///
    /// * `open`: the command of an actuator that is under way.
    pub fn restore(
        records: Vec<(String, String, ActuatorRecord)>,
        open: impl Fn(&ActuatorKey) -> Option<u32>,
    ) -> Self {
        let control = |(feature, name, record): (String, String, ActuatorRecord)| {
            let key = (feature, name);
            let state = match (open(&key), record.given_up) {
                (Some(command), _) => {
                    ActuatorState::Commanded { command, fell_back: record.fell_back }
                }
                (None, Some(value)) if Some(&value) == record.wanted.as_ref() => {
                    ActuatorState::GivenUp { value }
                }
                _ if record.fell_back => ActuatorState::FellBack,
                _ => ActuatorState::AsShown,
            };
            let ActuatorRecord { user, wanted, by, boot, .. } = record;
            (key, ActuatorControl { user, wanted, by, state, boot })
        };
        Self { controls: records.into_iter().map(control).collect() }
    }
}

/// What is stored of an actuator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ActuatorRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<Value>,
    by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fell_back: bool,
}
