//! The controller: what is known, the rules over it, and what is to be done. Pure.
//!
//! Inputs go in with their time: what was declared ([`Controller::set_rules`],
//! [`Controller::set_node`]), what happened to a twin ([`Controller::observe`]), what a node said
//! ([`Controller::uplink`]), what was read from history ([`Controller::fill`]), and that time passed
//! ([`Controller::tick`]). [`Controller::settle`]
//! then decides for the nodes that any of it concerns and gives the [`Effects`]. The same inputs
//! give the same effects.
//!
//! A rule is looked at when a fact that it reads changed or a timer of its own is due, and never
//! otherwise; a node is decided when a rule, its manifest, a person or the node itself said
//! something new.
//!
//! Here are the types and the inputs; `facts` reads them, `past` fills windows from history, `rules`
//! judges; `hear` takes what nodes say and `wishes` what people ask; `nodes` decides, `say` speaks,
//! `explain` says why.
//!
//! Not here: clocks, the log, MQTT (`cacc::driver`); YAML (`manifest`, `reconcile`).

mod explain;
mod facts;
mod hear;
mod nodes;
mod past;
mod rules;
mod say;
mod wishes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::{self, Command};
use super::decide::safety::Standing;
use super::decide::{Decision, NodeSpec};
use super::expr::eval::{Expression, Truth};
use super::expr::{Fact, PropertyRef, eval};
use super::facts::window::Series;
use super::rule::{self, Asked, Rule};
use crate::twin::{Event, ThingId, Twin};
use crate::wire::{Tx, Uplink};
use crate::writer::Origin;

pub use past::Past;

/// The feature that says how a node talks.
pub const TRANSMISSION: &str = "transmission";

/// A node's word that is awaited after it came back, before it is told by command, microseconds:
/// it finds what is desired of it retained on `…/desired` and may have applied that by itself.
pub const GRACE_US: i64 = 1_000_000;

/// The lease of a node that says none, s.
pub const LEASE_DEFAULT_S: u32 = 60;

/// Window of a link's figures, ms.
const LINK_WINDOW_MS: u64 = 60_000;

/// What is to be done, in this order: what must be durable, then what may be seen.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Documents to store, or to remove.
    pub documents: Vec<(String, Option<String>)>,
    /// Changes of twins: a feature's part and its value.
    pub changes: Vec<Change>,
    /// What is to be read from history, for [`Controller::fill`].
    pub past: Past,
    /// What became of things, for people.
    pub notes: Vec<Note>,
    /// Messages, once all of the above is durable.
    pub messages: Vec<Message>,
    /// Times of the chain: which, since when, and until when if not until it is said, microseconds
    /// since 1970.
    pub timings: Vec<(Stage, i64, Option<i64>)>,
}

/// A part of a feature that is to be.
#[derive(Debug, PartialEq)]
pub struct Change {
    /// Of which twin.
    pub thing: ThingId,
    /// Of which feature.
    pub feature: String,
    /// `desiredProperties`, or else `properties`.
    pub desired: bool,
    /// The whole of it, or with `merge` what is new.
    pub value: Value,
    /// Whether the rest stays.
    pub merge: bool,
}

/// A message to a node.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// To which.
    pub thing: ThingId,
    /// `…/desired`, retained, or else `…/cmd`.
    pub desired: bool,
    /// What it says.
    pub text: String,
    /// It is for an actuator, and goes before all that is not.
    pub urgent: bool,
}

/// Something that a person would want to know.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it calls for someone.
    pub warning: bool,
    /// A stable CamelCase word.
    pub reason: &'static str,
    /// `Twin/lab/north-1`, `ContextRule/default/look-closer`.
    pub object: String,
    /// One sentence.
    pub message: String,
    /// Whether `run` shows it.
    pub show: bool,
}

/// A stretch of the way from a verdict to what a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From when a rule took hold, which without `for` is the verdict, to the command on the wire.
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

/// The change of a twin that something follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Of which twin.
    pub thing: ThingId,
    /// The revision that the change gave; of a verdict, that it is about.
    pub revision: u64,
    /// When, microseconds since 1970.
    pub time_us: i64,
}

impl Source {
    /// The trace of all that follows.
    pub fn trace(&self) -> String {
        command::trace_id(&self.thing, self.revision)
    }
}

/// What happened to a twin.
#[derive(Debug)]
pub struct Observed<'a> {
    /// Which.
    pub id: &'a ThingId,
    /// What; `None` when it is only met for the first time, as after a start.
    pub event: Option<&'a Event>,
    /// As it is now; `None` if it is gone.
    pub twin: Option<Arc<Twin>>,
    /// Who did it.
    pub origin: Origin,
    /// Its revision now.
    pub revision: u64,
    /// When, microseconds since 1970.
    pub time_us: i64,
}

/// Is told when something may have changed without a fact doing so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Member(usize, usize),
    Group(usize),
    Node(usize),
}

/// A rule with all that it is about.
#[derive(Debug)]
struct Watched {
    rule: Arc<Rule>,
    facts: Vec<Fact>,
    /// The property of the twin that each fact reads.
    reads: Vec<Option<PropertyRef>>,
    when: Expression,
    until: Option<Expression>,
    /// Whether it reads something of the node or its link, which every message changes.
    reads_node: bool,
    /// Subjects; the lists below have as many entries.
    members: Vec<usize>,
    /// One a fact and member.
    values: Vec<eval::Value>,
    truths: Vec<(Truth, Option<Truth>)>,
    states: Vec<rule::State>,
    due: Vec<i64>,
    sources: HashMap<usize, Source>,
    /// Members by `any` and `all`: which fact, each one's flag, and how many are known and true.
    flags: Vec<Flags>,
    /// Where the rule stands for all of them, if it does not judge each by itself.
    group: rule::State,
    group_due: i64,
    group_source: Option<Source>,
}

#[derive(Debug)]
struct Flags {
    slot: usize,
    of: PropertyRef,
    all: bool,
    each: Vec<Option<bool>>,
    known: usize,
    holding: usize,
    /// What was told to the members.
    shared: eval::Value,
}

/// A twin that some rule is about, or that has a node.
#[derive(Debug)]
struct Subject {
    id: ThingId,
    twin: Option<Arc<Twin>>,
    /// Rules and places in their lists.
    memberships: Vec<(usize, usize)>,
    /// The rules in force for it.
    active: Vec<usize>,
    series: Vec<Kept>,
    /// When the properties and verdicts whose age is asked last came.
    times: Vec<(PropertyRef, i64)>,
    /// When each feature last changed.
    changed: Vec<(Arc<str>, i64)>,
    link: Link,
    node: Option<Box<Node>>,
}

/// The window of a property that a rule asks for.
#[derive(Debug)]
struct Kept {
    of: PropertyRef,
    ms: u64,
    series: Series,
    /// Changes from this revision of the twin on back are not told but read from history.
    upto: u64,
    /// They are still to be read. Until then no rule that asks for the window is judged: it
    /// would end, or take hold, for what is only not read yet.
    awaited: bool,
}

/// What is known of the way between a node and the edge.
#[derive(Debug, Default)]
struct Link {
    last_seen_us: Option<i64>,
    /// Boot and last sequence number.
    stamp: Option<(Option<u64>, u64)>,
    /// Readings that never came.
    gaps: u64,
    started_us: Option<i64>,
    /// Lost readings, one value a reading; kept if a rule asks for it.
    window: Option<Series>,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// It was never heard of.
    Unheard,
    /// It is there.
    Up,
    /// It is away since then.
    Away(i64),
}

/// What is known and wanted of a node.
#[derive(Debug)]
struct Node {
    spec: Arc<NodeSpec>,
    /// A manifest says that the twin has it.
    declared: bool,
    user: Asked,
    standing: Standing,
    acts: BTreeMap<(String, String), Act>,
    decision: Option<Decision>,
    cause: command::Cause,
    source: Option<Source>,
    presence: Presence,
    /// It has answered or said what it is: a silence means something.
    speaks: bool,
    boot: Option<u32>,
    health: Health,
    lease_s: u32,
    reported: Option<Tx>,
    /// The version of the desired transmission that it applied by itself.
    version: u32,
    /// The version that is retained for it; 0: none.
    said: u32,
    /// It settled on something else than asked, and said `ok`: what was asked, what it reports.
    settled: Option<(Arc<Tx>, Tx)>,
    /// The generation for which nothing more is tried, and why.
    given_up: Option<(u32, String)>,
    grace_us: i64,
    heartbeat_us: i64,
    /// The last heartbeat that is not answered: its id, and when it was said.
    beat: Option<(u32, i64)>,
    /// When the edge asks next, if it does so on a schedule.
    pull_us: Option<i64>,
    /// A reading came since the transmission was applied.
    reading_seen: bool,
    applied_us: Option<i64>,
    asks: VecDeque<String>,
    commands: VecDeque<Command>,
    last_id: u32,
    due_us: i64,
    unsaved: bool,
}

/// What a node last said of itself.
#[derive(Debug, Clone, Copy, Default)]
struct Health {
    /// Percent.
    battery: Option<u8>,
    /// dBm.
    rssi: Option<i16>,
    /// Its uptime, ms, and when it was asked for that, microseconds since 1970. Only an answer says
    /// it: a state may be the broker's old copy, and anything else may have waited on the way.
    clock: Option<(u32, i64)>,
}

/// What is wanted of an actuator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Act {
    /// A person's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Value>,
    /// What was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<Value>,
    /// Whose word that is.
    by: String,
    /// A value for which nothing more is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<Value>,
    /// What the node answered that it is, until the twin shows it.
    #[serde(skip)]
    answered: Option<Value>,
    /// The node's boot when it answered last.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<u32>,
    /// The node fell back to its safe value since, whatever the twin shows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fell_back: bool,
}

/// What is kept of a node over a restart.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    thing: String,
    decision: Option<Decision>,
    cause: command::Cause,
    user: Asked,
    #[serde(skip_serializing_if = "Standing::is_usual")]
    standing: Standing,
    /// As a list, since JSON has no pairs as keys.
    acts: Vec<(String, String, Act)>,
    last_id: u32,
    version: u32,
    said: u32,
    settled: Option<(Arc<Tx>, Tx)>,
    given_up: Option<(u32, String)>,
    commands: Vec<Command>,
    rules: BTreeMap<String, rule::State>,
}

/// What is kept of a rule that does not judge each node by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RuleRecord {
    rule: String,
    group: rule::State,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Controller {
    rules: Vec<Watched>,
    subjects: Vec<Subject>,
    index: HashMap<ThingId, usize>,
    free: Vec<usize>,
    aggregates: HashMap<ThingId, BTreeSet<ThingId>>,
    timers: BinaryHeap<Reverse<(i64, Timer)>>,
    dirty: BTreeSet<usize>,
    /// Every node is to be decided.
    review: bool,
    records: HashMap<String, Record>,
    groups: HashMap<String, rule::State>,
    /// Where rules stood for nodes before the start, until they are met again.
    states: HashMap<(String, String), rule::State>,
    effects: Effects,
    /// Rules are being set: members join one by one.
    gathering: bool,
    last_us: i64,
}

/// Documents of the controller start with this.
pub const PREFIX: &str = "cacc/";

fn node_key(thing: &str) -> String {
    key("node", thing)
}

fn rule_key(rule: &str) -> String {
    key("rule", rule)
}

/// The key of a document: readable, or a digest where that would be too long for the log.
fn key(of: &str, name: &str) -> String {
    let key = format!("{PREFIX}{of}/{name}");
    if key.len() <= crate::store::record::KEY_LEN_MAX {
        return key;
    }
    let digest = <sha2::Sha256 as sha2::Digest>::digest(name.as_bytes());
    let hex = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    format!("{PREFIX}{of}/#{hex}")
}

impl Controller {
    /// Takes what was stored before the start; to be called before anything else. Returns how
    /// many documents could not be read.
    pub fn restore<'a>(
        &mut self,
        documents: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> usize {
        let mut unreadable = 0;
        for (key, text) in documents {
            let read = if key.starts_with("cacc/node/") {
                serde_json::from_str::<Record>(text).map(|mut record| {
                    for (rule, state) in std::mem::take(&mut record.rules) {
                        self.states.insert((rule, record.thing.clone()), state);
                    }
                    self.records.insert(record.thing.clone(), record);
                })
            } else {
                serde_json::from_str::<RuleRecord>(text).map(|record| {
                    self.groups.insert(record.rule, record.group);
                })
            };
            unreadable += usize::from(read.is_err());
        }
        unreadable
    }

    /// Something happened to a twin.
    pub fn observe(&mut self, observed: &Observed<'_>) {
        let now_us = self.now(observed.time_us);
        let Some(twin) = &observed.twin else {
            if let Some(at) = self.index.get(observed.id).copied() {
                self.forget(at);
            }
            return;
        };
        let at = match self.index.get(observed.id) {
            Some(at) => *at,
            None => self.add(observed.id.clone()),
        };
        let subject = &mut self.subjects[at];
        let labels = |twin: &Twin| {
            twin.attributes.as_deref().and_then(|attributes| attributes.get("labels")).cloned()
        };
        let regroup = subject.twin.as_deref().map(labels) != Some(labels(twin));
        let met = subject.twin.replace(twin.clone()).is_none();
        let source = self.source(observed);
        if regroup {
            self.regroup(at, now_us);
        }
        if met {
            self.meet_aggregate(at, now_us);
        }
        self.adopt(at);
        if met && self.subjects[at].node.as_ref().is_some_and(|n| n.presence != Presence::Unheard) {
            // It spoke before its twin was seen.
            self.show_reported(at);
        }
        let Some(event) = observed.event else {
            self.meet(at, now_us);
            return;
        };
        self.note_values(at, event, now_us);
        self.note_acts(at, event);
        let of_node = observed.origin == Origin::Node;
        if of_node {
            self.note_reading(at, event, now_us);
        }
        if observed.origin == Origin::Client {
            self.note_wishes(at, event);
        }
        self.look(at, Some(event), of_node, &source, now_us);
        self.look_at_aggregate(observed.id, event, &source, now_us);
    }

    /// A node said something beside its readings.
    pub fn uplink(&mut self, id: &ThingId, uplink: &Uplink, now_us: i64) {
        let now_us = self.now(now_us);
        let Some(at) = self.index.get(id).copied() else { return };
        self.seen(at, now_us);
        self.hear(at, uplink, now_us);
        let source = Source { thing: id.clone(), revision: 0, time_us: now_us };
        self.look(at, None, true, &source, now_us);
        self.dirty.insert(at);
    }

    /// Time passed.
    pub fn tick(&mut self, now_us: i64) {
        let now_us = self.now(now_us);
        while let Some(Reverse((due_us, timer))) = self.timers.peek().copied()
            && due_us <= now_us
        {
            self.timers.pop();
            match timer {
                Timer::Member(rule, subject) => self.member_due(rule, subject, now_us),
                Timer::Group(rule) => self.group_due(rule, now_us),
                Timer::Node(at) => {
                    if let Some(node) = self.subjects.get_mut(at).and_then(|s| s.node.as_mut()) {
                        node.due_us = i64::MAX;
                        self.dirty.insert(at);
                    }
                }
            }
        }
    }

    /// When the next timer is due, microseconds since 1970.
    pub fn due(&self) -> Option<i64> {
        self.timers.peek().map(|Reverse((due_us, _))| *due_us)
    }

    /// Decides what is open and gives what is to be done.
    pub fn settle(&mut self, now_us: i64) -> Effects {
        let now_us = self.now(now_us);
        let dirty = std::mem::take(&mut self.dirty);
        // A node about which nothing was said is left alone unless it is to talk otherwise.
        let reviewed = match std::mem::take(&mut self.review) {
            true => (0..self.subjects.len()).collect(),
            false => dirty.iter().copied().collect::<Vec<usize>>(),
        };
        for (at, decided) in self.decisions(&reviewed, now_us) {
            if decided.is_some() || dirty.contains(&at) {
                self.conclude(at, decided, now_us);
            }
        }
        let mut effects = std::mem::take(&mut self.effects);
        // A thousand nodes may be told how to talk; none of that holds an actuator up.
        effects.messages.sort_by_key(|message| !message.urgent);
        effects
    }

    /// What was to be stored was not: all of it is to be stored at the next settling. Commands that
    /// were not said are said again as any that is not answered.
    pub fn not_stored(&mut self) {
        self.dirty.extend(0..self.subjects.len());
        for node in self.subjects.iter_mut().filter_map(|subject| subject.node.as_mut()) {
            node.unsaved = true;
            // The twin will not show it.
            node.acts.values_mut().for_each(|act| act.answered = None);
        }
        for at in 0..self.subjects.len() {
            self.say_desired_again(at);
        }
    }

    /// Members of an aggregate that a rule names.
    pub fn set_aggregate(&mut self, id: &ThingId, members: BTreeSet<ThingId>, now_us: i64) {
        let now_us = self.now(now_us);
        if self.aggregates.get(id) == Some(&members) {
            return;
        }
        let before = self.aggregates.insert(id.clone(), members.clone()).unwrap_or_default();
        let touched: Vec<ThingId> = before.symmetric_difference(&members).cloned().collect();
        for id in touched {
            if let Some(at) = self.index.get(&id).copied() {
                self.regroup(at, now_us);
            }
        }
    }

    /// The aggregates whose members the rules name.
    pub fn aggregates(&self) -> BTreeSet<ThingId> {
        self.rules.iter().filter_map(|watched| watched.rule.target.aggregate.clone()).collect()
    }

    /// What a node is by its manifest; `None` if it is none any more.
    pub fn set_node(&mut self, id: &ThingId, spec: Option<Arc<NodeSpec>>, now_us: i64) {
        let now_us = self.now(now_us);
        match (spec, self.index.get(id).copied()) {
            (Some(spec), found) => {
                let at = found.unwrap_or_else(|| self.add(id.clone()));
                self.make_node(at, spec);
                if let Some(node) = &mut self.subjects[at].node {
                    node.declared = true;
                }
                self.dirty.insert(at);
            }
            (None, Some(at)) => {
                // What a person or the node itself said of it is not the manifest's to take back.
                if self.subjects[at].node.as_ref().is_some_and(|node| node.declared) {
                    self.drop_node(at, now_us);
                }
            }
            (None, None) => {}
        }
    }

    /// Whether a twin is known here.
    pub fn knows(&self, id: &ThingId) -> bool {
        self.index.contains_key(id)
    }

    /// How many rules there are, and how many twins each is about.
    pub fn rule_members(&self) -> BTreeMap<String, usize> {
        let count = |watched: &Watched| (watched.rule.name.to_string(), watched.members.len());
        self.rules.iter().map(count).collect()
    }

    /// How many rules are in force, over all twins.
    pub fn in_force(&self) -> usize {
        self.subjects.iter().map(|subject| subject.active.len()).sum()
    }

    /// All commands that are remembered, by node and id.
    pub fn commands(&self) -> Vec<Value> {
        let mut nodes: Vec<&Subject> = self.subjects.iter().filter(|s| s.node.is_some()).collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        let of = |subject: &&Subject| {
            let commands = subject.node.as_ref().map(|node| &node.commands);
            let all = commands.into_iter().flatten().map(|one| one.to_json(&subject.id));
            all.collect::<Vec<_>>()
        };
        nodes.iter().flat_map(of).collect()
    }

    /// The time of an input is the time of all that follows from it.
    fn now(&mut self, now_us: i64) -> i64 {
        self.last_us = now_us;
        now_us
    }

    fn add(&mut self, id: ThingId) -> usize {
        let subject = Subject {
            id: id.clone(),
            twin: None,
            memberships: Vec::new(),
            active: Vec::new(),
            series: Vec::new(),
            times: Vec::new(),
            changed: Vec::new(),
            link: Link::default(),
            node: None,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.subjects[at] = subject;
                at
            }
            None => {
                self.subjects.push(subject);
                self.subjects.len() - 1
            }
        };
        self.index.insert(id, at);
        at
    }

    /// The twin is gone, and with it all that was to be said to its node.
    fn forget(&mut self, at: usize) {
        let now_us = self.last_us;
        self.drop_node(at, now_us);
        while let Some((rule, _)) = self.subjects[at].memberships.first().copied() {
            self.leave(rule, at, now_us);
        }
        let id = self.subjects[at].id.clone();
        self.subjects[at].twin = None;
        self.index.remove(&id);
        self.dirty.remove(&at);
        self.free.push(at);
    }

    fn source(&self, observed: &Observed<'_>) -> Source {
        // A verdict belongs to the reading that it is about.
        let of = observed.event.and_then(|event| match &observed.origin {
            Origin::Service(_) => event.value.as_ref()?.get("ofRevision")?.as_u64(),
            _ => None,
        });
        let revision = of.unwrap_or(observed.revision);
        Source { thing: observed.id.clone(), revision, time_us: observed.time_us }
    }

    fn arm(timers: &mut BinaryHeap<Reverse<(i64, Timer)>>, due: &mut i64, at: i64, timer: Timer) {
        if at < *due {
            *due = at;
            timers.push(Reverse((at, timer)));
        }
    }

    fn object(id: &ThingId) -> String {
        format!("Twin/{}/{}", id.namespace(), id.name())
    }
}

/// `look-closer` is `ContextRule/default/look-closer`.
fn rule_object(name: &str) -> String {
    match name.split_once('/') {
        Some((namespace, name)) => format!("ContextRule/{namespace}/{name}"),
        None => format!("ContextRule/default/{name}"),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests measure")]
mod tests;
