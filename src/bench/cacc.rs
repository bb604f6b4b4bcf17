//! The benchmark of the controller: what a condition costs, and what it takes to judge every rule
//! for every node and to decide every node.
//!
//! In this process, on values: no sockets, no disk. Once each rule is about each node, and once about
//! a tenth of them. *Reconsidering* is what follows when nothing but the clock changed: a condition that
//! reads no age is as it was, and a node whose rules stay as they are keeps its decision; *deciding*
//! starts from nothing, for every node. Then the same with more and more nodes, where the cost a node
//! should stay as it is. A run that does not decide what it has to fails.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::{Error, Machine, Watch, failed, hundredth, tenth};
use crate::cacc::controller::{Controller, Observed};
use crate::cacc::decide::safety::Standing;
use crate::cacc::decide::{self, Decision, Input, Layer, NodeSpec};
use crate::cacc::expr::eval::{Expression, Value};
use crate::cacc::expr::{Fact, Scope, Service, check};
use crate::cacc::rule::{Asked, Effect, Rule, Settings, Target, Times};
use crate::twin::path::Path;
use crate::twin::{self, Change, ThingId, Twin};
use crate::wire::{Program, Uplink};
use crate::writer::Origin;

/// Evaluations of one condition.
const EVALUATIONS: u32 = 2_000_000;
/// Nodes, as multiples of those that are asked for.
const SIZES: [usize; 4] = [1, 2, 5, 10];
/// A rule is about one node of so many there, so that ten of a hundred are about each.
const SIZE_SHARE: usize = 10;
/// Rounds over all nodes.
const ROUNDS: usize = 30;
/// Readings and verdicts.
const CHANGES: usize = 2000;
/// What nobody asks.
static NOBODY: LazyLock<Asked> = LazyLock::new(Asked::default);
/// Somewhere in 2023, microseconds since 1970.
const START_US: i64 = 1_700_000_000_000_000;

/// Conditions as users write them.
const CONDITIONS: [&str; 7] = [
    "verdict(\"judge\").label == \"anomalous\"",
    "temperature > 30.0",
    "temperature > 30.0 && humidity < 20.0",
    "verdict(\"judge\").score >= 5.0 || age(temperature) > 10s",
    "stddev(temperature, 10s) > 3 * stddev(temperature, 1h)",
    "label(\"room\") in [\"north\", \"south\"] && !motion",
    "nothing > 1.0 && temperature > 30.0",
];

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Nodes.
    pub nodes: usize,
    /// Rules.
    pub rules: usize,
}

impl Plan {
    /// How many times [`Watch::step`] is called.
    pub fn steps(&self) -> usize {
        3 + SIZES.len()
    }
}

/// What a condition costs.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// As it is written.
    pub condition: String,
    /// Nanoseconds an evaluation.
    pub ns: f64,
}

/// Of some rounds, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// The median.
    pub p50: f64,
    /// The worst.
    pub max: f64,
}

impl Spread {
    fn of(mut ms: Vec<f64>) -> Self {
        ms.sort_by(f64::total_cmp);
        let at = |at: usize| hundredth(ms.get(at).copied().unwrap_or_default());
        Self { p50: at(ms.len() / 2), max: at(ms.len().saturating_sub(1)) }
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// Of this program.
    pub version: &'static str,
    /// Conditions one by one.
    pub evaluations: Vec<Evaluation>,
    /// Nodes.
    pub nodes: usize,
    /// Rules.
    pub rules: usize,
    /// Rules about all nodes, and rules about a tenth of them each.
    pub shapes: Vec<Shape>,
    /// More and more nodes.
    pub sizes: Vec<Size>,
}

/// The controller with so many nodes, all of them online, and ten rules about each.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// All rules set, and every node decided, microseconds a node.
    pub set_rules_us_per_node: f64,
    /// A rule over all nodes becomes active, and each node is sent a command, microseconds a node.
    pub group_us_per_node: f64,
    /// From that moment to the command for an actuator whose rule became active right after it,
    /// milliseconds.
    pub actuator_ms: f64,
}

/// The controller with some rules a node.
#[derive(Debug, Clone, Serialize)]
pub struct Shape {
    /// Rules that are about a node.
    pub rules_per_node: usize,
    /// Active rules, over all nodes.
    pub active: usize,
    /// Every rule reconsidered for every node, and every node that waits for something settled.
    pub reconsider_ms: Spread,
    /// Every node decided from nothing.
    pub decide_ms: Spread,
    /// A reading of a node with all the rules, none of which moves, microseconds.
    pub reading_us: f64,
    /// A verdict that makes a rule active, and the command that follows, microseconds.
    pub verdict_us: f64,
    /// All rules set, and every node decided, milliseconds.
    pub set_rules_ms: f64,
}

/// Runs the benchmark.
///
/// # Errors
/// See [`Error`].
pub fn run(plan: &Plan, watch: &dyn Watch) -> Result<Report, Error> {
    watch.step("conditions");
    let mut evaluations = Vec::new();
    for condition in CONDITIONS {
        evaluations.push(evaluate(condition)?);
        if watch.stopped() {
            return Err(Error::Interrupted);
        }
    }
    let mut shapes = Vec::new();
    for share in [1, 10] {
        watch.step(&format!("{} nodes × {} rules", plan.nodes, plan.rules));
        shapes.push(shape(plan, share, watch)?);
    }
    let mut sizes = Vec::new();
    for by in SIZES {
        watch.step(&format!("{} nodes", plan.nodes * by));
        sizes.push(size(plan, by, watch)?);
    }
    Ok(Report {
        machine: Machine::here(),
        version: env!("CARGO_PKG_VERSION"),
        evaluations,
        nodes: plan.nodes,
        rules: plan.rules,
        shapes,
        sizes,
    })
}

fn shape(plan: &Plan, share: usize, watch: &dyn Watch) -> Result<Shape, Error> {
    let mut world = World::new(plan.nodes, share)?;
    let rules = (0..plan.rules).map(|n| rule(n, share)).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    world.controller.set_rules(rules.clone(), START_US);
    world.settle();
    let set_rules_ms = milliseconds(started);
    let judged: usize = world.controller.rule_members().values().sum();
    let active = world.controller.active_rules();
    // Without any active rules nothing would be decided.
    if plan.rules >= 100 && active < plan.nodes {
        return Err(failed(format!("only {active} rules are active")));
    }
    let (mut reconsider, mut decide) = (Vec::new(), Vec::new());
    let spec = Arc::new(NodeSpec::default());
    let mut decisions = vec![None; plan.nodes];
    for round in 0..ROUNDS {
        world.now_us += 1000;
        let started = Instant::now();
        world.controller.reconsider(world.now_us);
        let messages = world.settle();
        reconsider.push(milliseconds(started));
        if messages > 0 {
            return Err(failed("something was sent although nothing changed"));
        }
        let mut inputs = inputs(plan, share, &spec, &decisions, &rules);
        let started = Instant::now();
        let decided = decide::decide(&mut inputs, world.now_us);
        decide.push(milliseconds(started));
        let new: Vec<_> = decided.into_iter().flatten().map(|one| Some(one.decision)).collect();
        if round == 0 && new.len() < plan.nodes || round > 0 && !new.is_empty() {
            return Err(failed(format!("{} nodes were decided", new.len())));
        }
        if round == 0 {
            decisions = new;
        }
        watch.tick(round as f64 / ROUNDS as f64);
        if watch.stopped() {
            return Err(Error::Interrupted);
        }
    }
    let reading_us = world.readings()?;
    let verdict_us = world.verdicts()?;
    Ok(Shape {
        rules_per_node: judged / plan.nodes,
        active,
        reconsider_ms: Spread::of(reconsider),
        decide_ms: Spread::of(decide),
        reading_us,
        verdict_us,
        set_rules_ms: tenth(set_rules_ms),
    })
}

/// What decisions start from: of the rules about a node one in five is active.
fn inputs<'a>(
    plan: &Plan,
    share: usize,
    spec: &'a Arc<NodeSpec>,
    decisions: &'a [Option<Decision>],
    rules: &'a [Rule],
) -> Vec<Input<'a>> {
    let layer = |rule: &'a Rule| Layer {
        name: &rule.name,
        priority: rule.priority,
        specificity: 0,
        since_us: START_US,
        effect: &rule.effect,
    };
    let input = |n: usize| {
        let about =
            |number: &usize| number % share == n / 10 % share && number / share % 5 == n % 5;
        let numbers = (0..plan.rules).rev().filter(about);
        Input {
            spec,
            user: &NOBODY,
            active: numbers.map(|number| layer(&rules[number])).collect(),
            standing: Standing::default(),
            previous: decisions[n].as_ref(),
        }
    };
    (0..plan.nodes).map(input).collect()
}

fn size(plan: &Plan, by: usize, watch: &dyn Watch) -> Result<Size, Error> {
    let nodes = plan.nodes * by;
    let mut world = World::new(nodes, SIZE_SHARE)?;
    world.connect()?;
    let mut rules = (0..plan.rules).map(|n| rule(n, SIZE_SHARE)).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    world.controller.set_rules(rules.clone(), world.now_us);
    world.settle();
    let set_rules_us = milliseconds(started) * 1e3;
    rules.push(alarm()?);
    rules.push(fan(nodes - 1)?);
    world.controller.set_rules(rules, world.now_us);
    world.settle();
    if watch.stopped() {
        return Err(Error::Interrupted);
    }
    let started = Instant::now();
    world.observe(0, flag("alarm"), Origin::Node)?;
    world.observe(nodes - 1, flag("motion"), Origin::Node)?;
    let first = world.controller.settle(world.now_us);
    let actuator_ms = milliseconds(started);
    if !first.messages.first().is_some_and(|message| message.urgent) {
        return Err(failed("the actuator's command was not the first"));
    }
    let sent = first.messages.len() + world.settle();
    let group_us = milliseconds(started) * 1e3;
    if sent <= nodes {
        return Err(failed(format!("only {sent} commands were sent")));
    }
    Ok(Size {
        nodes,
        set_rules_us_per_node: hundredth(set_rules_us / nodes as f64),
        group_us_per_node: hundredth(group_us / nodes as f64),
        actuator_ms: hundredth(actuator_ms),
    })
}

/// A reading of a flag that is set.
fn flag(name: &str) -> Change {
    let mut values = serde_json::Map::new();
    values.insert("flags".to_owned(), json!({ name: true }));
    Change::Reading { values, stamp: None }
}

/// A rule over all nodes, which one of them makes active.
fn alarm() -> Result<Rule, Error> {
    let all = Settings {
        program: Some(Program::Interval),
        pmin: Some(100),
        pmax: Some(100),
        ..Settings::default()
    };
    Ok(Rule {
        name: "alarm".into(),
        target: Target {
            match_labels: BTreeMap::from([("bench".to_owned(), "yes".to_owned())]),
            ..Target::default()
        },
        each: false,
        when: checked("any(flags.alarm)")?,
        until: None,
        times: Times::default(),
        effect: Effect { asked: Asked { all, ..Asked::default() }, ..Effect::default() },
        priority: 1_000_000,
    })
}

/// A rule that sets an actuator of one node.
fn fan(n: usize) -> Result<Rule, Error> {
    let set = BTreeMap::from([(("cooling".to_owned(), "fan".to_owned()), true.into())]);
    Ok(Rule {
        name: "fan".into(),
        target: Target { names: vec![thing_id(n)?], ..Target::default() },
        each: true,
        when: checked("flags.motion")?,
        until: None,
        times: Times::default(),
        effect: Effect { set, ..Effect::default() },
        priority: 0,
    })
}

fn thing_id(n: usize) -> Result<ThingId, Error> {
    ThingId::parse(&format!("bench:n-{n}")).map_err(|why| failed(why.to_string()))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn scope() -> Scope {
    let services = vec![Service { name: "judge".to_owned(), labels: None }];
    Scope { open: true, services, ..Scope::default() }
}

fn checked(condition: &str) -> Result<crate::cacc::expr::Checked, Error> {
    check(condition, &scope()).map_err(|errors| failed(format!("{condition}: {errors:?}")))
}

fn evaluate(condition: &str) -> Result<Evaluation, Error> {
    let mut slots = Vec::new();
    let expression = Expression::compile(&checked(condition)?, &mut slots);
    let values: Vec<Value> = slots
        .iter()
        .map(|fact| match fact {
            Fact::Verdict(_, crate::cacc::expr::VerdictField::Label) => {
                Value::Text("normal".into())
            }
            Fact::Label(_) => Value::Text("south".into()),
            Fact::Age(_) => Value::Number(START_US as f64),
            Fact::Property(property) if property.name == "motion" => Value::Bool(false),
            Fact::Property(property) if property.name == "nothing" => Value::Unknown,
            _ => Value::Number(31.0),
        })
        .collect();
    let started = Instant::now();
    for at in 0..EVALUATIONS {
        black_box(expression.evaluate(black_box(&values), START_US + i64::from(at)));
    }
    let ns = started.elapsed().as_secs_f64() * 1e9 / f64::from(EVALUATIONS);
    Ok(Evaluation { condition: condition.to_owned(), ns: tenth(ns) })
}

/// Two in five are about a label, of which each node has one; the rest about values.
fn rule(number: usize, share: usize) -> Result<Rule, Error> {
    let condition = match number % 5 {
        0 | 1 => format!("verdict(\"judge\").label == \"l{}\"", number / 5 % 10),
        2 => format!("temperature > {}.0 && humidity < 50.0", 15 + number % 20),
        3 => format!("avg(temperature, 1m) > {}.0", 20 + number % 20),
        _ => format!("temperature > {}.0 || age(temperature) > 1h", 33 - number % 7),
    };
    let all = Settings {
        program: Some(Program::Interval),
        pmin: Some(200 + number as u32),
        pmax: Some(200 + number as u32),
        ..Settings::default()
    };
    Ok(Rule {
        name: format!("rule-{number:03}").into(),
        target: Target {
            match_labels: BTreeMap::from([("part".to_owned(), (number % share).to_string())]),
            ..Target::default()
        },
        each: true,
        when: checked(&condition)?,
        until: None,
        times: Times::default(),
        effect: Effect { asked: Asked { all, ..Asked::default() }, ..Effect::default() },
        priority: number as i64,
    })
}

struct World {
    controller: Controller,
    twins: Vec<Arc<Twin>>,
    now_us: i64,
}

impl World {
    fn new(nodes: usize, share: usize) -> Result<Self, Error> {
        let mut world =
            Self { controller: Controller::default(), twins: Vec::new(), now_us: START_US };
        let spec = Arc::new(NodeSpec { has_profile: true, ..NodeSpec::default() });
        for n in 0..nodes {
            let thing = json!({
                "attributes": {"labels": {"part": (n / 10 % share).to_string(), "bench": "yes"}},
                "features": {
                    "environment": {"properties": {
                        "temperature": 10.0 + (n % 25) as f64, "humidity": 40.0}},
                    "judge": {"properties": {"label": format!("l{}", n % 10), "ofRevision": 1}},
                },
            });
            let id = thing_id(n)?;
            let event = twin::decide(&id, None, Change::Modify(Path::Thing, thing));
            let event = event.map_err(|why| failed(why.message()))?;
            let Some(twin) = twin::apply(&id, None, &event, START_US) else {
                return Err(failed("a twin was not made"));
            };
            let twin = Arc::new(twin);
            world.controller.set_node(&id, Some(spec.clone()), START_US);
            world.controller.observe(&Observed {
                id: &id,
                event: None,
                revision: twin.revision,
                twin: Some(twin.clone()),
                origin: Origin::Runtime,
                time_us: START_US,
            });
            world.twins.push(twin);
        }
        world.settle();
        Ok(world)
    }

    /// Settles until there is nothing left; how many messages that gave.
    fn settle(&mut self) -> usize {
        let mut messages = self.controller.settle(self.now_us).messages.len();
        while self.controller.has_work() {
            messages += self.controller.settle(self.now_us).messages.len();
        }
        messages
    }

    /// Every node reports its state.
    fn connect(&mut self) -> Result<(), Error> {
        let tx = json!({"program": "interval", "pmin": 10_000, "pmax": 10_000});
        let state = json!({"k": "b", "up": 1, "boot": 1, "ms": 5, "lease": 600, "tx": tx});
        let state = Uplink::decode(&state.to_string());
        let state = state.map_err(|why| failed(format!("{why:?}")))?;
        for twin in &self.twins {
            self.controller.uplink(&twin.id, &state, self.now_us);
        }
        self.settle();
        Ok(())
    }

    fn change(&mut self, n: usize, change: Change, origin: Origin) -> Result<usize, Error> {
        self.observe(n, change, origin)?;
        Ok(self.settle())
    }

    fn observe(&mut self, n: usize, change: Change, origin: Origin) -> Result<(), Error> {
        let before = self.twins[n].clone();
        let event = twin::decide(&before.id, Some(&before), change);
        let event = event.map_err(|why| failed(why.message()))?;
        self.now_us += 1;
        let after = twin::apply(&before.id, Some(&before), &event, self.now_us).map(Arc::new);
        self.controller.observe(&Observed {
            id: &before.id,
            event: Some(&event),
            revision: before.revision + 1,
            twin: after.clone(),
            origin,
            time_us: self.now_us,
        });
        if let Some(after) = after {
            self.twins[n] = after;
        }
        Ok(())
    }

    fn readings(&mut self) -> Result<f64, Error> {
        let started = Instant::now();
        for at in 0..CHANGES {
            let n = at % self.twins.len();
            let values = json!({"environment": {"temperature": 10.0 + (n % 25) as f64}});
            let values = values.as_object().cloned().unwrap_or_default();
            self.change(n, Change::Reading { values, stamp: None }, Origin::Node)?;
        }
        Ok(hundredth(started.elapsed().as_secs_f64() * 1e6 / CHANGES as f64))
    }

    fn verdicts(&mut self) -> Result<f64, Error> {
        let mut sent = 0;
        let started = Instant::now();
        for at in 0..CHANGES {
            let n = at % self.twins.len();
            let label = format!("l{}", (n + 1 + at / self.twins.len()) % 10);
            let verdict = json!({"label": label, "ofRevision": self.twins[n].revision});
            let change = Change::Merge(Path::Properties("judge".to_owned()), verdict);
            sent += self.change(n, change, Origin::Service("judge".into()))?;
        }
        let us = started.elapsed().as_secs_f64() * 1e6 / CHANGES as f64;
        if sent == 0 && self.controller.active_rules() > 0 {
            return Err(failed("no verdict moved a node"));
        }
        Ok(hundredth(us))
    }
}
