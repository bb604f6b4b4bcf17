//! One decision: what is asked for, and hysteresis against the one before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::layer::{Layer, order};
use super::reasons::{Reasons, Refusal, Winner};
use super::resolve::target;
use super::safety::{Safety, Standing};
use super::share::Share;
use super::spec::{NodeSpec, PERIOD_DEFAULT_MS, SCHEDULE};
use crate::cacc::rule::{Asked, Settings, Threshold};
use crate::wire::{Program, Tx};

/// Time from a node's last change to a raise that no rule has just asked for, microseconds: long
/// enough that a load which swings with the raise is seen before the next.
pub const HOLD_UP_US: i64 = 30_000_000;

/// What was decided for a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// How the node should transmit.
    pub tx: Arc<Tx>,
    /// The edge asks at this interval, ms: program `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<u32>,
    /// Rises with each change of `tx`.
    pub generation: u32,
    /// When `tx` last changed, microseconds since 1970.
    pub changed_us: i64,
    /// The rules that have raised once: name, and since when they are active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<(Arc<str>, i64)>,
    /// A client's override is in it.
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

impl Decision {
    /// Whether it is another one in nothing but what waits.
    pub fn is_same(&self, other: &Self) -> bool {
        self.tx == other.tx
            && self.schedule == other.schedule
            && self.generation == other.generation
            && self.changed_us == other.changed_us
            && self.raised == other.raised
            && self.steered == other.steered
            && self.safety == other.safety
            && self.share == other.share
    }
}

/// What a decision about a node starts from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The node.
    pub spec: &'a Arc<NodeSpec>,
    /// What a client asks, or nothing.
    pub user: &'a Asked,
    /// The active rules, in any order.
    pub active: Vec<Layer<'a>>,
    /// What safety needs to know.
    pub standing: Standing,
    /// The last decision; `None` for a node that is new.
    pub previous: Option<&'a Decision>,
}

/// A decision, and who is behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// The decision.
    pub decision: Decision,
    /// The strongest of those that set a field of the transmission.
    pub by: Winner,
}

/// What is asked for, before hysteresis.
#[derive(Debug, Clone)]
struct Target {
    by: Winner,
    tx: Arc<Tx>,
    schedule: Option<u32>,
    safety: Option<Safety>,
    share: Share,
}

/// Decides for many nodes; `None` for those whose last decision still applies. The same as
/// [`decide_node`] for each, but like nodes with the same active rules share the work.
pub fn decide(inputs: &mut [Input<'_>], now_us: i64) -> Vec<Option<Decided>> {
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
                        input.active.retain(|layer| safety.permits(layer));
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
            Some(previous) if applies(input, previous, &target, now_us) => None,
            _ => Some(Decided {
                by: target.by.clone(),
                decision: finish(input, target, now_us, None),
            }),
        });
    }
    decided
}

/// Whether a decision is what would be decided now, to the last field.
fn applies(input: &Input<'_>, previous: &Decision, target: &Target, now_us: i64) -> bool {
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
/// * `reasons`: where the reasons go.
pub fn decide_node(input: &Input<'_>, now_us: i64, mut reasons: Option<&mut Reasons>) -> Decision {
    let mut input = Input { active: input.active.clone(), ..*input };
    order(&mut input.active);
    let target = aim(&mut input, reasons.as_deref_mut());
    finish(&input, target, now_us, reasons)
}

/// Safety, rules and programs: what is asked for. The active rules are in order; those that are
/// that do not apply are left out from here on.
fn aim(input: &mut Input<'_>, mut reasons: Option<&mut Reasons>) -> Target {
    let safety = Safety::of(input.standing, &input.active);
    let share = Share::of(safety, &input.active, reasons.as_deref_mut());
    let isolates = input.active.iter().find(|layer| layer.effect.quarantine.is_some());
    let isolated_by = isolates
        .filter(|_| safety == Some(Safety::Quarantined))
        .map(|layer| layer.name.to_string());
    if let Some(safety) = safety {
        if let Some(reasons) = &mut reasons {
            let suspended =
                |layer: &&Layer<'_>| !safety.permits(layer) && !layer.effect.asked.is_empty();
            reasons.refusals.extend(input.active.iter().filter(suspended).map(|layer| Refusal {
                reason: safety.reason(),
                by: Winner::Rule(layer.name.to_string()),
                message: safety.suspended().to_owned(),
                suspended: true,
            }));
        }
        input.active.retain(|layer| safety.permits(layer));
    }
    let held = input.previous.filter(|_| safety == Some(Safety::Held));
    if let Some(previous) = held.filter(|_| input.user.is_empty()) {
        if let Some(reasons) = reasons {
            let fields = ["program", "pmin", "pmax"].map(|field| (field.to_owned(), Winner::Hold));
            reasons.winners.extend(fields);
        }
        let (tx, schedule) = (previous.tx.clone(), previous.schedule);
        return Target { by: Winner::Hold, tx, schedule, safety, share };
    }
    let as_it_was = held.map(|previous| asked_of(&previous.tx, previous.schedule));
    let (tx, schedule, by) =
        target(input.spec, input.user, &input.active, as_it_was.as_ref(), reasons);
    let by = match (isolated_by, by) {
        // A rule that isolates the node is why it is as nobody asks.
        (Some(rule), Winner::Default) => Winner::Rule(rule),
        (_, by) => by,
    };
    Target { by, tx: Arc::new(tx), schedule, safety, share }
}

/// What would have to be asked for so that a node transmits like this.
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

/// The decision, of what is asked for; the rules that apply are in order.
fn finish(
    input: &Input<'_>,
    target: Target,
    now_us: i64,
    reasons: Option<&mut Reasons>,
) -> Decision {
    let Input { spec, user, active, previous, .. } = input;
    let Target { tx, schedule, safety, share, .. } = target;
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
        // A rule that does not apply has its raise still before it.
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
            reasons.refusals.push(Refusal { reason: "HoldUp", by, message, suspended: false });
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
