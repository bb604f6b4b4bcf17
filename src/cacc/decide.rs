//! The decision: how each node should talk, of what is asked for it. Pure.
//!
//! [`decide_node`] goes in this order:
//! 1. *Safety* ([`safety`](super::safety)) says whether rules are heard at all.
//! 2. *Rules*: the layers that ask something of a node are what a person wrote into
//!    `desiredProperties` (cause `user`), the rules in force, and the node's default. Each field of
//!    each property is taken from the first layer that sets it; rules stand in order of priority,
//!    then of the more specific target, then of their names. They also give the node's [`Share`].
//! 3. *Programs*: the first that the node has, and the profile's bounds.
//! 4. *Hysteresis*: what lowers the load acts at once, what raises it waits until [`HOLD_UP_US`]
//!    after the node's last change, except that a rule which just took hold, or is heard again,
//!    raises once without waiting, and a person always.
//!
//! Not here: the link budget. It goes between programs and hysteresis, and lowers what the layers
//! ask for by their shares; [`Decision::target`] is what it will start from.
//!
//! Always true, and tested:
//! 1. the order of rules and nodes changes nothing (I4);
//! 2. a decision on its own output changes nothing (I8);
//! 3. whatever is asked, the profile's bounds hold (I9);
//! 4. without rules every node comes back to its default (I12);
//! 5. a node in quarantine has no weight (of I10).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rule::{Asked, Class, Effect, Settings, Threshold};
use super::safety::{Safety, Standing};
use crate::node::wire::{Decimal, Pairs, Program, Tx};

/// Time from a node's last change to a raise that no rule has just asked for, microseconds: long
/// enough that a load which swings with the raise is seen before the next.
pub const HOLD_UP_US: i64 = 30_000_000;

/// What a node sends as long as nobody says anything, ms: a reading every ten seconds.
pub const PERIOD_DEFAULT_MS: u32 = 10_000;

/// The program by which the edge asks at intervals: the node runs `on-request`.
pub const SCHEDULE: &str = "schedule";

/// What is known of a node by its twin and its profile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeSpec {
    /// How it talks by itself: the twin's transmission over the profile's.
    pub default: Asked,
    /// Its programs; empty: all.
    pub programs: Vec<Program>,
    /// Least time between messages that the profile allows, ms.
    pub pmin_least: u32,
    /// Longest silence that the profile allows, ms; 0: any.
    pub pmax_most: u32,
    /// How long it goes without a word before it falls back, s.
    pub lease_s: u32,
    /// Its battery is low below this, percent; `None`: it has none.
    pub battery_low: Option<u8>,
    /// What it measures, in the order of feature and name.
    pub properties: Vec<Measured>,
    /// What it can do, by feature and name.
    pub actuators: BTreeMap<(String, String), Actuator>,
}

/// A property that a node measures.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The feature's id.
    pub feature: String,
    /// The property's name.
    pub name: String,
    /// Whether it is a number, which thresholds are for.
    pub number: bool,
    /// Greatest less least value, if the model has both.
    pub range: Option<f64>,
}

/// Something that a node can do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Actuator {
    /// What the twin's manifest asks for.
    pub desired: Option<Value>,
    /// What it is when nobody asks for anything.
    pub safe: Option<Value>,
}

/// A rule in force for a node.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// The rule's name.
    pub name: &'a Arc<str>,
    /// Its priority.
    pub priority: i64,
    /// See [`Target::specificity`](super::rule::Target::specificity).
    pub specificity: u8,
    /// Since when, microseconds since 1970.
    pub since_us: i64,
    /// What it changes.
    pub effect: &'a Effect,
}

/// What was decided for a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// How the node should talk.
    pub tx: Arc<Tx>,
    /// The edge asks at this interval, ms: program `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<u32>,
    /// Rises with each change of `tx`.
    pub generation: u32,
    /// When `tx` last changed, microseconds since 1970.
    pub changed_us: i64,
    /// The rules that have raised once: name, and since when they are in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<(Arc<str>, i64)>,
    /// A person's word is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub steered: bool,
    /// Why it is fixed, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<Safety>,
    /// What it gets of a budget.
    #[serde(default, skip_serializing_if = "Share::is_usual")]
    pub share: Share,
    /// What is asked for, where it waits: a raise that comes at this time.
    #[serde(skip)]
    pub target: Option<(Arc<Tx>, i64)>,
}

/// What a node gets of a link budget, against others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Against others of the class.
    pub weight: f64,
    /// Which traffic gives way first.
    pub class: Class,
}

impl Default for Share {
    fn default() -> Self {
        Self { weight: 1.0, class: Class::Normal }
    }
}

impl Share {
    /// Whether no rule says anything of it.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// By the rules in force, the strongest first.
    fn of(safety: Option<Safety>, active: &[Layer<'_>], mut reasons: Option<&mut Reasons>) -> Self {
        let mut note = |field: &str, layer: &Layer<'_>| {
            if let Some(reasons) = &mut reasons {
                reasons.winners.insert(field.to_owned(), Winner::Rule(layer.name.to_string()));
            }
        };
        let quarantine = active.iter().find(|layer| layer.effect.quarantine.is_some());
        if let Some(layer) = quarantine {
            note("quarantine", layer);
        }
        let mut share = Self::default();
        if safety == Some(Safety::Quarantined) {
            share.weight = 0.0;
            return share;
        }
        if let Some((layer, weight)) =
            active.iter().find_map(|layer| Some((layer, layer.effect.weight?)))
        {
            // What a manifest may not say does no harm either.
            share.weight = if weight.is_finite() { weight.max(0.0) } else { 1.0 };
            note("weight", layer);
        }
        if let Some((layer, class)) =
            active.iter().find_map(|layer| Some((layer, layer.effect.class?)))
        {
            share.class = class;
            note("class", layer);
        }
        share
    }
}

/// Whose word a field is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Winner {
    /// A person's, through `desiredProperties`.
    User,
    /// A rule's.
    Rule(String),
    /// Nobody's: the node is held as it was.
    Hold,
    /// The twin's or the profile's.
    Default,
}

/// Something that was asked for and is not so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `NotInProfile`, `Clamped`, `HoldUp`, or what [`Safety::reason`] gives.
    pub reason: &'static str,
    /// Who asked.
    pub by: Winner,
    /// One sentence.
    pub message: String,
    /// Nothing of what the rule asks of the transmission is heard.
    pub unheard: bool,
}

/// Why a decision is as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reasons {
    /// Whose word each field is: `pmin`, or `temperature.st`.
    pub winners: BTreeMap<String, Winner>,
    /// What is not as asked.
    pub refusals: Vec<Refusal>,
}

/// Whether what is won is no field of the transmission.
pub fn is_share(field: &str) -> bool {
    matches!(field, "weight" | "class" | "quarantine")
}

/// Puts rules in the order in which they are heard.
pub fn order(active: &mut [Layer<'_>]) {
    active.sort_by(|a, b| {
        (b.priority, b.specificity)
            .cmp(&(a.priority, a.specificity))
            .then_with(|| a.name.cmp(b.name))
    });
}

/// What a decision about a node starts from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The node.
    pub spec: &'a Arc<NodeSpec>,
    /// What a person asks, or nothing.
    pub user: &'a Asked,
    /// The rules in force, in any order.
    pub active: Vec<Layer<'a>>,
    /// What safety needs to know.
    pub standing: Standing,
    /// The last decision; `None` for a node that is new.
    pub previous: Option<&'a Decision>,
}

/// What is asked for, before hysteresis.
#[derive(Debug, Clone)]
struct Target {
    tx: Arc<Tx>,
    schedule: Option<u32>,
    safety: Option<Safety>,
    share: Share,
}

/// Decides for many nodes; `None` for those whose last decision stands as it is. The same as
/// [`decide_node`] for each, but like nodes with the same rules in force share the work.
pub fn decide(inputs: &mut [Input<'_>], now_us: i64) -> Vec<Option<Decision>> {
    // Addresses stand for what they point to, which outlives this call.
    type Same = (usize, bool, Vec<usize>);
    let mut targets: HashMap<Same, Target> = HashMap::new();
    let mut same: Same = (0, false, Vec::new());
    let mut decided = Vec::with_capacity(inputs.len());
    for input in inputs {
        order(&mut input.active);
        let target = if input.user.is_empty() && !input.standing.held {
            same.0 = Arc::as_ptr(input.spec) as usize;
            same.1 = input.standing.low;
            same.2.clear();
            same.2
                .extend(input.active.iter().map(|layer| std::ptr::from_ref(layer.effect) as usize));
            match targets.get(&same) {
                Some(target) => {
                    let target: Target = target.clone();
                    if let Some(safety) = target.safety {
                        input.active.retain(|layer| safety.hears(layer));
                    }
                    target
                }
                None => {
                    let target = aim(input, None);
                    targets.insert(same.clone(), target.clone());
                    target
                }
            }
        } else {
            aim(input, None)
        };
        decided.push(match input.previous {
            Some(previous) if stands(input, previous, &target, now_us) => None,
            _ => Some(conclude(input, target, now_us, None)),
        });
    }
    decided
}

/// Whether a decision is what would be decided now, to the last field.
fn stands(input: &Input<'_>, previous: &Decision, target: &Target, now_us: i64) -> bool {
    let raised = previous.raised.len() == input.active.len()
        && previous
            .raised
            .iter()
            .zip(&input.active)
            .all(|((name, since_us), layer)| *since_us == layer.since_us && name == layer.name);
    (Arc::ptr_eq(&target.tx, &previous.tx) || target.tx == previous.tx)
        && target.schedule == previous.schedule
        && target.safety == previous.safety
        && target.share == previous.share
        && raised
        && previous.target.is_none()
        && input.user.is_empty()
        && !previous.steered
        && previous.changed_us <= now_us
}

/// Decides for one node.
///
/// * `now_us`: microseconds since 1970.
/// * `reasons`: where to say why.
pub fn decide_node(input: &Input<'_>, now_us: i64, mut reasons: Option<&mut Reasons>) -> Decision {
    let mut input = Input { active: input.active.clone(), ..*input };
    order(&mut input.active);
    let target = aim(&mut input, reasons.as_deref_mut());
    conclude(&input, target, now_us, reasons)
}

/// Safety, rules and programs: what is asked for. The rules in force are in order; those that are
/// not heard are left out from here on.
fn aim(input: &mut Input<'_>, mut reasons: Option<&mut Reasons>) -> Target {
    let safety = Safety::of(input.standing, &input.active);
    let share = Share::of(safety, &input.active, reasons.as_deref_mut());
    if let Some(safety) = safety {
        if let Some(reasons) = &mut reasons {
            let unheard =
                |layer: &&Layer<'_>| !safety.hears(layer) && !layer.effect.asked.is_empty();
            reasons.refusals.extend(input.active.iter().filter(unheard).map(|layer| Refusal {
                reason: safety.reason(),
                by: Winner::Rule(layer.name.to_string()),
                message: safety.unheard().to_owned(),
                unheard: true,
            }));
        }
        input.active.retain(|layer| safety.hears(layer));
    }
    let held = input.previous.filter(|_| safety == Some(Safety::Held));
    if let Some(previous) = held.filter(|_| input.user.is_empty()) {
        if let Some(reasons) = reasons {
            let fields = ["program", "pmin", "pmax"].map(|field| (field.to_owned(), Winner::Hold));
            reasons.winners.extend(fields);
        }
        let (tx, schedule) = (previous.tx.clone(), previous.schedule);
        return Target { tx, schedule, safety, share };
    }
    let as_it_was = held.map(|previous| asked_of(&previous.tx, previous.schedule));
    let (tx, schedule) = target(input.spec, input.user, &input.active, as_it_was.as_ref(), reasons);
    Target { tx: Arc::new(tx), schedule, safety, share }
}

/// What would have to be asked for so that a node talks like this.
pub fn asked_of(tx: &Tx, schedule: Option<u32>) -> Asked {
    let settings = |tx: &Tx| Settings {
        program: Some(tx.program.clone()),
        pmin: tx.pmin,
        pmax: tx.pmax,
        ..Settings::default()
    };
    let mut all = settings(tx);
    if let Some(ms) = schedule {
        all.program = Some(Program::Other(SCHEDULE.to_owned()));
        (all.pmin, all.pmax) = (Some(ms), Some(ms));
    }
    let mut properties: BTreeMap<String, Settings> = BTreeMap::new();
    for (names, group) in &tx.groups.0 {
        for name in names.split(',') {
            properties.insert(name.to_owned(), settings(group));
        }
    }
    for tx in tx.groups.0.iter().map(|(_, group)| group).chain([tx]) {
        for (name, st) in &tx.st.0 {
            properties.entry(name.clone()).or_default().st = Some(Threshold::Absolute(st.as_f64()));
        }
        for (name, gt) in &tx.gt.0 {
            properties.entry(name.clone()).or_default().gt = Some(gt.as_f64());
        }
        for (name, lt) in &tx.lt.0 {
            properties.entry(name.clone()).or_default().lt = Some(lt.as_f64());
        }
    }
    Asked { all, properties }
}

/// The decision, of what is asked for; the rules that are heard are in order.
fn conclude(
    input: &Input<'_>,
    target: Target,
    now_us: i64,
    reasons: Option<&mut Reasons>,
) -> Decision {
    let Input { spec, user, active, previous, .. } = input;
    let Target { tx, schedule, safety, share } = target;
    let steered = !user.is_empty();
    let mut new = Decision {
        tx,
        schedule,
        generation: 1,
        changed_us: now_us,
        raised: active.iter().map(|layer| (layer.name.clone(), layer.since_us)).collect(),
        steered,
        safety,
        share,
        target: None,
    };
    let Some(previous) = *previous else { return new };
    // One that a clock which was set back moved to an earlier time is no other.
    let had = |name: &Arc<str>, since_us: i64| {
        previous.raised.iter().any(|(other, at_us)| other == name && since_us <= *at_us)
    };
    if steered {
        // A rule that is not heard has its raise still before it.
        new.raised.retain(|(name, since_us)| had(name, *since_us));
    }
    // A clock that was set back must not make a raise wait for ever.
    let changed_us = previous.changed_us.min(now_us);
    let keep = Decision { changed_us, target: None, safety, share, ..previous.clone() };
    if new.tx == previous.tx && schedule == previous.schedule {
        return Decision { raised: new.raised, steered, ..keep };
    }
    let due_us = changed_us.saturating_add(HOLD_UP_US);
    let asks = |layer: &&Layer<'_>| !layer.effect.asked.is_empty();
    let fresh = active.iter().filter(asks).any(|layer| !had(layer.name, layer.since_us));
    let raises = load(spec, &new.tx, schedule) > load(spec, &previous.tx, previous.schedule);
    if raises && now_us < due_us && !fresh && !steered && !previous.steered {
        if let Some(reasons) = reasons {
            let by = reasons.winners.get("pmin").cloned().unwrap_or(Winner::Default);
            let message =
                format!("a raise waits until {} s after the last change", HOLD_UP_US / 1_000_000);
            reasons.refusals.push(Refusal { reason: "HoldUp", by, message, unheard: false });
        }
        // Rules that ended are forgotten; those that go on have had their raise.
        new.raised.retain(|(name, since_us)| had(name, *since_us));
        return Decision { raised: new.raised, target: Some((new.tx, due_us)), ..keep };
    }
    Decision { generation: previous.generation.wrapping_add(1).max(1), ..new }
}

/// Messages a second that a transmission allows, all properties together.
fn load(spec: &NodeSpec, tx: &Tx, schedule: Option<u32>) -> f64 {
    let one = |tx: &Tx| match (&tx.program, schedule) {
        (Program::OnRequest, Some(ms)) => 1000.0 / f64::from(ms.max(1)),
        (Program::OnRequest, None) => 0.0,
        _ => {
            let default = spec.default.all.pmin.unwrap_or(PERIOD_DEFAULT_MS);
            1000.0 / f64::from(tx.pmin.unwrap_or(default).max(1))
        }
    };
    let groups: f64 = tx.groups.0.iter().map(|(_, group)| one(group)).sum();
    one(tx) + groups
}

/// What the layers ask for, within the profile's bounds.
fn target(
    spec: &NodeSpec,
    user: &Asked,
    active: &[Layer<'_>],
    held: Option<&Asked>,
    reasons: Option<&mut Reasons>,
) -> (Tx, Option<u32>) {
    let rules = active.iter().map(|layer| &layer.effect.asked);
    let layers: Vec<&Asked> =
        std::iter::once(user).chain(rules).chain(held).chain([&spec.default]).collect();
    let mut resolver = Resolver { spec, layers, active, held: held.is_some(), reasons };
    let (base, schedule) = resolver.resolve(None);
    let Resolved { program, pmin, pmax, .. } = base;
    let mut tx = Tx::new(program, pmin, pmax);
    let per_property = resolver.layers.iter().any(|asked| !asked.properties.is_empty());
    let thresholds = tx.program == Program::OnChange;
    if !per_property && !thresholds {
        return (tx, schedule);
    }
    let mut groups: Vec<(Vec<String>, Tx)> = Vec::new();
    for property in resolver.properties() {
        let (one, _) = resolver.resolve(Some(&property));
        let same =
            |tx: &Tx| tx.program == one.program && tx.pmin == one.pmin && tx.pmax == one.pmax;
        let place = if same(&tx) {
            &mut tx
        } else {
            let at = groups.iter().position(|(_, group)| same(group)).unwrap_or_else(|| {
                groups.push((Vec::new(), Tx::new(one.program.clone(), one.pmin, one.pmax)));
                groups.len() - 1
            });
            groups[at].0.push(property.name.clone());
            &mut groups[at].1
        };
        for (list, threshold) in
            [(&mut place.st, one.st), (&mut place.gt, one.gt), (&mut place.lt, one.lt)]
        {
            if let Some(threshold) = threshold.and_then(Decimal::from_f64) {
                list.0.push((property.name.clone(), threshold));
            }
        }
    }
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    tx.groups = Pairs(groups.into_iter().map(|(names, tx)| (names.join(","), tx)).collect());
    (tx, schedule)
}

/// What holds for one property, or for all that have nothing of their own.
struct Resolved {
    program: Program,
    pmin: Option<u32>,
    pmax: Option<u32>,
    st: Option<f64>,
    gt: Option<f64>,
    lt: Option<f64>,
}

struct Resolver<'a> {
    spec: &'a NodeSpec,
    /// From the strongest to the weakest.
    layers: Vec<&'a Asked>,
    active: &'a [Layer<'a>],
    /// The last layer but one is what the node was.
    held: bool,
    reasons: Option<&'a mut Reasons>,
}

/// The settings of a layer for a property, the closest first.
fn settings<'a>(
    asked: &'a Asked,
    property: Option<&Measured>,
) -> impl Iterator<Item = &'a Settings> {
    let own = property.filter(|_| !asked.properties.is_empty()).map(|property| {
        let path = format!("{}/{}", property.feature, property.name);
        [path.as_str(), &property.name, &property.feature].map(|key| asked.properties.get(key))
    });
    own.into_iter().flatten().flatten().chain([&asked.all])
}

impl<'a> Resolver<'a> {
    fn winner(&self, layer: usize) -> Winner {
        match layer {
            0 => Winner::User,
            layer => match self.active.get(layer - 1) {
                Some(rule) => Winner::Rule(rule.name.to_string()),
                None if self.held && layer + 2 == self.layers.len() => Winner::Hold,
                None => Winner::Default,
            },
        }
    }

    /// The strongest layer from `from` on that sets a field, and to what.
    fn first<T>(
        &self,
        from: usize,
        property: Option<&Measured>,
        field: impl Fn(&Settings) -> Option<T>,
    ) -> Option<(usize, T)> {
        self.layers
            .iter()
            .enumerate()
            .skip(from)
            .find_map(|(at, asked)| Some((at, settings(asked, property).find_map(&field)?)))
    }

    fn note(&mut self, property: Option<&Measured>, field: &str, layer: Option<usize>) {
        let by = layer.map_or(Winner::Default, |layer| self.winner(layer));
        if let Some(reasons) = &mut self.reasons {
            let key = match property {
                Some(property) => format!("{}.{field}", property.name),
                None => field.to_owned(),
            };
            // What a property shares with all is said once.
            let shared = property.is_some() && reasons.winners.get(field) == Some(&by);
            if !shared {
                reasons.winners.insert(key, by);
            }
        }
    }

    fn refuse(&mut self, reason: &'static str, layer: usize, message: String) {
        let by = self.winner(layer);
        if let Some(reasons) = &mut self.reasons {
            let refusal = Refusal { reason, by, message, unheard: false };
            if !reasons.refusals.contains(&refusal) {
                reasons.refusals.push(refusal);
            }
        }
    }

    /// The program of the strongest layer from `from` on whose program the node has.
    fn program(&mut self, mut from: usize, property: Option<&Measured>) -> (usize, Program) {
        loop {
            let found = self.first(from, property, |settings| settings.program.clone());
            let Some((layer, program)) = found else {
                return (self.layers.len(), Program::Interval);
            };
            let on_node = match &program {
                Program::Other(word) if word == SCHEDULE => &Program::OnRequest,
                program => program,
            };
            let known = match self.spec.programs.as_slice() {
                [] => !matches!(on_node, Program::Other(_)),
                programs => programs.contains(on_node),
            };
            if known {
                return (layer, program);
            }
            self.refuse("NotInProfile", layer, format!("the node has no program `{program}`"));
            from = layer + 1;
        }
    }

    fn resolve(&mut self, property: Option<&Measured>) -> (Resolved, Option<u32>) {
        let (by, program) = self.program(0, property);
        self.note(property, "program", Some(by));
        let mut pmin = self.first(0, property, |settings| settings.pmin);
        let mut pmax = self.first(0, property, |settings| settings.pmax);
        let every = program == Program::Interval
            || matches!(&program, Program::Other(word) if word == SCHEDULE);
        if every {
            // One period: the word of the stronger layer.
            let period = match (pmin, pmax) {
                (Some(least), Some(most)) if most.0 < least.0 => Some(most),
                (least, most) => least.or(most),
            };
            let period = period.unwrap_or((self.layers.len(), PERIOD_DEFAULT_MS));
            (pmin, pmax) = (Some(period), Some(period));
        } else if let Some((layer, _)) = pmax
            && layer > by
        {
            // The silence of another program says nothing about this one.
            let (_, weaker) = self.program(by + 1, property);
            pmax = pmax.filter(|_| weaker == program);
        }
        let pmin = pmin.map(|(layer, ms)| (layer, self.at_least(layer, ms)));
        let pmax = pmax.map(|(layer, ms)| (layer, self.at_most(layer, ms)));
        self.note(property, "pmin", pmin.map(|(layer, _)| layer));
        self.note(property, "pmax", pmax.map(|(layer, _)| layer));
        let pmin_ms = pmin.map(|(_, ms)| ms);
        let pmax_ms = pmax.map(|(layer, ms)| match pmin_ms {
            Some(least) if ms < least => {
                let message = format!("`pmax` {ms} ms is less than `pmin` {least} ms");
                if !every {
                    self.refuse("Clamped", layer, message);
                }
                least
            }
            _ => ms,
        });
        let mut resolved =
            Resolved { program, pmin: pmin_ms, pmax: pmax_ms, st: None, gt: None, lt: None };
        let mut schedule = None;
        match &resolved.program {
            Program::Other(word) if word == SCHEDULE => {
                schedule = resolved.pmin;
                (resolved.program, resolved.pmin, resolved.pmax) = (Program::OnRequest, None, None);
            }
            Program::OnRequest => (resolved.pmin, resolved.pmax) = (None, None),
            Program::OnChange => {
                if let Some(property) = property {
                    self.thresholds(property, &mut resolved);
                }
            }
            _ => {}
        }
        (resolved, schedule)
    }

    fn thresholds(&mut self, property: &Measured, resolved: &mut Resolved) {
        if !property.number {
            return;
        }
        let st = self.first(0, Some(property), |settings| settings.st);
        if let Some((layer, st)) = st {
            resolved.st = match (st, property.range) {
                (Threshold::Absolute(st), _) => Some(st),
                (Threshold::OfRange(share), Some(range)) => Some(share * range),
                (Threshold::OfRange(_), None) => {
                    let message = format!(
                        "a share of `{}` has no meaning: its model gives no range",
                        property.name
                    );
                    self.refuse("NotInProfile", layer, message);
                    None
                }
            };
            if resolved.st.is_some() {
                self.note(Some(property), "st", Some(layer));
            }
        }
        for (field, place) in [("gt", &mut resolved.gt), ("lt", &mut resolved.lt)] {
            let found = self.first(0, Some(property), |settings| {
                if field == "gt" { settings.gt } else { settings.lt }
            });
            if let Some((layer, value)) = found {
                *place = Some(value);
                self.note(Some(property), field, Some(layer));
            }
        }
    }

    fn at_least(&mut self, layer: usize, ms: u32) -> u32 {
        let least = self.spec.pmin_least.max(1);
        if ms < least {
            let message = format!("{ms} ms is less than the profile's {least} ms");
            self.refuse("Clamped", layer, message);
        }
        ms.max(least)
    }

    fn at_most(&mut self, layer: usize, ms: u32) -> u32 {
        let most = self.spec.pmax_most;
        if most > 0 && ms > most {
            let message = format!("{ms} ms is more than the profile's {most} ms");
            self.refuse("Clamped", layer, message);
        }
        let ms = if most > 0 { ms.min(most) } else { ms };
        ms.max(self.spec.pmin_least.max(1))
    }

    /// What the node measures; without a model, what is asked of.
    fn properties(&self) -> Vec<Measured> {
        if !self.spec.properties.is_empty() {
            return self.spec.properties.clone();
        }
        let keys = self.layers.iter().flat_map(|asked| asked.properties.keys());
        let mut named: Vec<Measured> = keys
            .map(|key| {
                let (feature, name) = key.rsplit_once('/').unwrap_or(("", key));
                let (feature, name) = (feature.to_owned(), name.to_owned());
                Measured { feature, name, number: true, range: None }
            })
            .collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        named.dedup_by(|a, b| a.name == b.name);
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000;

    fn spec() -> NodeSpec {
        let measured = |name: &str, number, range| Measured {
            feature: "environment".to_owned(),
            name: name.to_owned(),
            number,
            range,
        };
        NodeSpec {
            default: Asked {
                all: Settings {
                    program: Some(Program::Interval),
                    pmin: Some(1000),
                    pmax: Some(1000),
                    ..Settings::default()
                },
                ..Asked::default()
            },
            programs: vec![Program::Interval, Program::OnChange, Program::OnRequest],
            pmin_least: 100,
            pmax_most: 600_000,
            lease_s: 60,
            battery_low: None,
            properties: vec![
                measured("light", true, Some(1000.0)),
                measured("motion", false, None),
                measured("temperature", true, None),
            ],
            actuators: BTreeMap::new(),
        }
    }

    fn every(ms: u32) -> Settings {
        Settings {
            program: Some(Program::Interval),
            pmin: Some(ms),
            pmax: Some(ms),
            ..Settings::default()
        }
    }

    fn asks(all: Settings) -> Effect {
        Effect { asked: Asked { all, ..Asked::default() }, ..Effect::default() }
    }

    fn layer(name: &str, priority: i64, since_us: i64, effect: &Effect) -> Layer<'static> {
        // A few tests' worth of rules may stay for ever.
        let name = Box::leak(Box::new(Arc::from(name)));
        let effect = Box::leak(Box::new(effect.clone()));
        Layer { name, priority, specificity: 0, since_us, effect }
    }

    fn one(
        user: &Asked,
        standing: Standing,
        active: &[Layer<'_>],
        previous: Option<&Decision>,
        now_us: i64,
        reasons: Option<&mut Reasons>,
    ) -> Decision {
        let spec = Arc::new(spec());
        let input = Input { spec: &spec, user, active: active.to_vec(), standing, previous };
        decide_node(&input, now_us, reasons)
    }

    fn decide(active: &[Layer<'_>], previous: Option<&Decision>, now_us: i64) -> Decision {
        one(&Asked::default(), Standing::default(), active, previous, now_us, None)
    }

    #[test]
    fn the_default_holds_until_a_rule_does_and_comes_back() {
        let effect = asks(every(200));
        let first = decide(&[], None, 0);
        assert_eq!((first.tx.pmin, first.generation), (Some(1000), 1));
        let fast = decide(&[layer("a", 0, 5 * S, &effect)], Some(&first), 5 * S);
        assert_eq!((fast.tx.pmin, fast.generation, fast.changed_us), (Some(200), 2, 5 * S));
        // What lowers the load does not wait.
        let back = decide(&[], Some(&fast), 6 * S);
        assert_eq!((back.tx.pmin, back.generation), (Some(1000), 3));
    }

    #[test]
    fn a_rule_raises_once_and_then_waits() {
        let (slow, fast) = (asks(every(5000)), asks(every(200)));
        let low = layer("low", 0, 0, &fast);
        let first = decide(&[low], None, 0);
        assert_eq!(first.tx.pmin, Some(200));
        let high = layer("high", 9, S, &slow);
        let slowed = decide(&[low, high], Some(&first), S);
        assert_eq!(slowed.tx.pmin, Some(5000));
        // `low` had its raise, so its word waits.
        let waits = decide(&[low], Some(&slowed), 2 * S);
        assert_eq!(waits.tx.pmin, Some(5000));
        let (target, due) = waits.target.clone().unwrap();
        assert_eq!((target.pmin, due), (Some(200), S + HOLD_UP_US));
        assert_eq!(decide(&[low], Some(&waits), due - 1).tx.pmin, Some(5000));
        assert_eq!(decide(&[low], Some(&waits), due).tx.pmin, Some(200));
        // A rule that takes hold anew has its own raise.
        let anew = layer("low", 0, 3 * S, &fast);
        assert_eq!(decide(&[anew], Some(&waits), 3 * S).tx.pmin, Some(200));
    }

    #[test]
    fn each_field_is_the_word_of_the_strongest_that_says_it() {
        let mut wide = asks(Settings {
            program: Some(Program::OnChange),
            pmax: Some(900_000),
            ..Settings::default()
        });
        let st = |st| Settings { st: Some(st), ..Settings::default() };
        wide.asked.properties.insert("temperature".to_owned(), st(Threshold::Absolute(0.5)));
        wide.asked.properties.insert("environment/light".to_owned(), st(Threshold::OfRange(0.1)));
        let narrow = Effect {
            asked: Asked {
                properties: BTreeMap::from([("motion".to_owned(), every(50))]),
                ..Asked::default()
            },
            ..Effect::default()
        };
        let layers = [layer("wide", 1, 0, &wide), layer("narrow", 2, 0, &narrow)];
        let mut reasons = Reasons::default();
        let user = Asked::default();
        let decision = one(&user, Standing::default(), &layers, None, 0, Some(&mut reasons));
        let tx = &decision.tx;
        assert_eq!(
            (&tx.program, tx.pmin, tx.pmax),
            (&Program::OnChange, Some(1000), Some(600_000))
        );
        let half = Decimal::from_f64(0.5).unwrap();
        let hundred = Decimal::from_f64(100.0).unwrap();
        let st = vec![("light".to_owned(), hundred), ("temperature".to_owned(), half)];
        assert_eq!(tx.st.0, st);
        let motion = Tx::new(Program::Interval, Some(100), Some(100));
        assert_eq!(tx.groups.0, [("motion".to_owned(), motion)]);
        let rule = |name: &str| Winner::Rule(name.to_owned());
        assert_eq!(reasons.winners["program"], rule("wide"));
        assert_eq!(reasons.winners["pmin"], Winner::Default);
        assert_eq!(reasons.winners["motion.pmin"], rule("narrow"));
        assert_eq!(reasons.winners["light.st"], rule("wide"));
        let reasons: Vec<_> = reasons.refusals.iter().map(|one| (one.reason, &one.by)).collect();
        assert_eq!(reasons, [("Clamped", &rule("wide")), ("Clamped", &rule("narrow"))]);
    }

    #[test]
    fn a_program_that_the_node_lacks_is_refused_and_the_next_word_counts() {
        let effect = asks(Settings { program: Some(Program::Features), ..Settings::default() });
        let mut reasons = Reasons::default();
        let user = Asked::default();
        let layers = [layer("f", 1, 0, &effect)];
        let decision = one(&user, Standing::default(), &layers, None, 0, Some(&mut reasons));
        assert_eq!(decision.tx.program, Program::Interval);
        assert_eq!(reasons.refusals[0].reason, "NotInProfile");
    }

    #[test]
    fn a_schedule_is_asked_for_by_the_edge() {
        let program = Some(Program::Other(SCHEDULE.to_owned()));
        let effect = asks(Settings { program, pmin: Some(60_000), ..Settings::default() });
        let decision = decide(&[layer("s", 1, 0, &effect)], None, 0);
        assert_eq!((&decision.tx.program, decision.tx.pmin), (&Program::OnRequest, None));
        assert_eq!(decision.schedule, Some(60_000));
    }

    #[test]
    fn a_person_is_heard_before_all_rules_and_at_once() {
        let effect = asks(every(5000));
        let layers = [layer("r", 1000, 0, &effect)];
        let first = decide(&layers, None, 0);
        let user = Asked { all: every(300), ..Asked::default() };
        let steered = one(&user, Standing::default(), &layers, Some(&first), S, None);
        assert_eq!(steered.tx.pmin, Some(300));
    }

    fn arbitrary_settings() -> impl Strategy<Value = Settings> {
        let program = prop::sample::select(vec![
            Program::Interval,
            Program::OnChange,
            Program::OnRequest,
            Program::Features,
            Program::Other(SCHEDULE.to_owned()),
            Program::Other("x".to_owned()),
        ]);
        let number = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1e12..1e12_f64];
        let st = prop_oneof![
            number.clone().prop_map(Threshold::Absolute),
            number.clone().prop_map(Threshold::OfRange)
        ];
        (
            prop::option::of(program),
            prop::option::of(any::<u32>()),
            prop::option::of(any::<u32>()),
            prop::option::of(st),
            prop::option::of(number),
        )
            .prop_map(|(program, pmin, pmax, st, gt)| Settings {
                program,
                pmin,
                pmax,
                st,
                gt,
                lt: gt,
            })
    }

    fn arbitrary_rules() -> impl Strategy<Value = Vec<(Arc<str>, i64, u8, i64, Effect)>> {
        let names = ["light", "environment", "environment/temperature", "motion"];
        let key = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
        let one = (
            0_i64..3,
            0_u8..3,
            0_i64..100,
            arbitrary_settings(),
            prop::collection::btree_map(key, arbitrary_settings(), 0..3),
        );
        prop::collection::vec(one, 0..6).prop_map(|rules| {
            let named = rules.into_iter().enumerate();
            let rule = |(at, (priority, specificity, since, all, properties))| {
                let asked = Asked { all, properties };
                let effect = Effect { asked, ..Effect::default() };
                (Arc::from(format!("rule-{at}")), priority, specificity, since * S, effect)
            };
            named.map(rule).collect()
        })
    }

    fn layers(rules: &[(Arc<str>, i64, u8, i64, Effect)]) -> Vec<Layer<'_>> {
        rules
            .iter()
            .map(|(name, priority, specificity, since_us, effect)| Layer {
                name,
                priority: *priority,
                specificity: *specificity,
                since_us: *since_us,
                effect,
            })
            .collect()
    }

    proptest! {
        /// I4: the order in which rules come changes nothing, in the decision or its reasons.
        #[test]
        fn the_order_of_rules_changes_nothing(rules in arbitrary_rules(), turn in 0_usize..6) {
            let mut turned = rules.clone();
            turned.rotate_left(turn % rules.len().max(1));
            turned.reverse();
            let user = Asked::default();
            let (mut first, mut other) = (Reasons::default(), Reasons::default());
            let (a, b) = (layers(&rules), layers(&turned));
            let a = one(&user, Standing::default(), &a, None, 0, Some(&mut first));
            let b = one(&user, Standing::default(), &b, None, 0, Some(&mut other));
            prop_assert_eq!((a, first), (b, other));
        }

        /// I8: a decision on its own output changes nothing; explaining it changes nothing.
        #[test]
        fn a_decision_on_its_own_output_changes_nothing(
            before in arbitrary_rules(), rules in arbitrary_rules(), now in -50_i64..50,
        ) {
            let first = decide(&layers(&before), None, 0);
            let second = decide(&layers(&rules), Some(&first), now * S);
            let third = decide(&layers(&rules), Some(&second), now * S);
            prop_assert_eq!(&third, &second);
            let mut reasons = Reasons::default();
            let active = layers(&rules);
            let user = Asked::default();
            let standing = Standing::default();
            let told = one(&user, standing, &active, Some(&first), now * S, Some(&mut reasons));
            prop_assert_eq!(told, second);
        }

        /// Many nodes are decided as each is alone, and what stands is left as it is.
        #[test]
        fn many_are_decided_as_each_is_alone(
            sets in prop::collection::vec(
                (arbitrary_rules(), any::<bool>(), any::<bool>(), any::<bool>()), 1..4),
            rules in arbitrary_rules(),
        ) {
            let (spec, nobody) = (Arc::new(spec()), Asked::default());
            let user = Asked { all: every(300), ..Asked::default() };
            let before: Vec<Decision> =
                sets.iter().map(|(rules, ..)| decide(&layers(rules), None, 0)).collect();
            let now = 40 * S;
            let mut inputs: Vec<Input<'_>> = sets
                .iter()
                .zip(&before)
                .map(|((own, steered, held, low), previous)| Input {
                    spec: &spec,
                    standing: Standing { held: *held, low: *low },
                    user: if *steered { &user } else { &nobody },
                    active: layers(if own.len() % 2 == 0 { own } else { &rules }),
                    previous: Some(previous),
                })
                .collect();
            let alone: Vec<Decision> = inputs
                .iter()
                .map(|one| decide_node(one, now, None))
                .collect();
            let together = super::decide(&mut inputs, now);
            for ((together, alone), before) in together.into_iter().zip(alone).zip(&before) {
                prop_assert_eq!(together.unwrap_or_else(|| before.clone()), alone);
            }
        }

        /// I9: the profile's bounds hold, whatever is asked, and nothing panics.
        #[test]
        fn bounds_hold_whatever_is_asked(rules in arbitrary_rules()) {
            let spec = spec();
            let decision = decide(&layers(&rules), None, 0);
            let groups = decision.tx.groups.0.iter().map(|(_, tx)| tx);
            for tx in groups.chain([&*decision.tx]) {
                prop_assert!(spec.programs.contains(&tx.program));
                prop_assert!(tx.pmin.is_none_or(|ms| ms >= spec.pmin_least));
                prop_assert!(tx.pmax.is_none_or(|ms| ms <= spec.pmax_most.max(tx.pmin.unwrap_or(0))));
                if let (Some(least), Some(most)) = (tx.pmin, tx.pmax) {
                    prop_assert!(least <= most);
                }
            }
        }

        /// I5: constant rules lead to one change at most, and then to none for an hour.
        #[test]
        fn constant_rules_settle(before in arbitrary_rules(), rules in arbitrary_rules()) {
            let mut decision = decide(&layers(&before), None, 0);
            let first = decision.generation;
            for second in (1..3600).step_by(20) {
                decision = decide(&layers(&rules), Some(&decision), second * S);
            }
            prop_assert!(decision.generation <= first + 1);
        }

        /// I10: a node in quarantine has no weight, and no rule is heard about it.
        #[test]
        fn quarantine_isolates(rules in arbitrary_rules(), held in any::<bool>()) {
            let mut all = layers(&rules);
            let liar = Effect { quarantine: Some(true), ..Effect::default() };
            all.push(layer("liar", 1000, 0, &liar));
            let user = Asked::default();
            let standing = Standing { held, low: true };
            let isolated = one(&user, standing, &all, None, 0, None);
            prop_assert_eq!(isolated.share.weight, 0.0);
            prop_assert_eq!(isolated.safety, Some(Safety::Quarantined));
            prop_assert_eq!(&isolated.tx, &decide(&[], None, 0).tx);
            // A stronger rule may take it back.
            let freed = Effect { quarantine: Some(false), ..Effect::default() };
            all.push(layer("freed", 1001, 0, &freed));
            let free = one(&user, Standing::default(), &all, Some(&isolated), S, None);
            prop_assert_eq!(free.safety, None);
        }

        /// A node that is held stays as it was, whatever it was and whatever is asked.
        #[test]
        fn what_is_held_stays(before in arbitrary_rules(), rules in arbitrary_rules()) {
            let was = decide(&layers(&before), None, 0);
            let user = Asked::default();
            let standing = Standing { held: true, low: false };
            let held = one(&user, standing, &layers(&rules), Some(&was), 60 * S, None);
            prop_assert_eq!((&held.tx, held.schedule), (&was.tx, was.schedule));
            prop_assert_eq!(held.generation, was.generation);
            // And when it is not held any more, rules are heard at once.
            let free = one(&user, Standing::default(), &layers(&rules), Some(&held), 61 * S, None);
            let as_new = decide(&layers(&rules), None, 0);
            if rules.iter().any(|(.., effect)| !effect.asked.is_empty()) {
                prop_assert_eq!(&free.tx, &as_new.tx);
            }
        }

        /// Of a node whose battery is low only rules of class `safety` are heard.
        #[test]
        fn a_low_battery_hears_only_safety(rules in arbitrary_rules()) {
            let mut rules = rules;
            for (at, rule) in rules.iter_mut().enumerate() {
                rule.4.class = (at % 2 == 0).then_some(Class::Safety);
            }
            let user = Asked::default();
            let standing = Standing { held: false, low: true };
            let low = one(&user, standing, &layers(&rules), None, 0, None);
            rules.retain(|(.., effect)| effect.class == Some(Class::Safety));
            prop_assert_eq!(&low.tx, &decide(&layers(&rules), None, 0).tx);
        }

        /// I12: without rules every node comes back to its default.
        #[test]
        fn without_rules_a_node_comes_back(rules in arbitrary_rules()) {
            let home = decide(&[], None, 0).tx;
            let away = decide(&layers(&rules), None, 0);
            let waits = decide(&[], Some(&away), S);
            let due = waits.target.as_ref().map_or(2 * S, |(_, due)| *due);
            prop_assert!(due <= HOLD_UP_US);
            prop_assert_eq!(decide(&[], Some(&waits), due).tx, home);
        }
    }
}
