//! The benchmark of the controller: what a condition costs, and what it takes to judge every rule
//! for every node and to decide every node.
//!
//! In this process, on values: no sockets, no disk. Once each rule is about each node, so the whole
//! product is judged, and once about a tenth of them. A run that does not decide what it has to
//! fails.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::{Error, Machine, Watch, failed, hundredth, tenth};
use crate::cacc::controller::{Controller, Observed};
use crate::cacc::decide::NodeSpec;
use crate::cacc::expr::eval::{Expression, Value};
use crate::cacc::expr::{Fact, Scope, Service, check};
use crate::cacc::rule::{Asked, Effect, Rule, Settings, Target, Times};
use crate::twin::path::Path;
use crate::twin::{self, Change, ThingId, Twin};
use crate::wire::Program;
use crate::writer::Origin;

/// Evaluations of one condition.
const EVALUATIONS: u32 = 2_000_000;
/// Rounds over all nodes.
const ROUNDS: usize = 30;
/// Readings and verdicts.
const CHANGES: usize = 2000;
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
    /// How many steps [`Watch::step`] is told of.
    pub fn steps(&self) -> usize {
        3
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
}

/// The controller with some rules a node.
#[derive(Debug, Clone, Serialize)]
pub struct Shape {
    /// Rules that are about a node.
    pub rules_per_node: usize,
    /// Rules in force, over all nodes.
    pub in_force: usize,
    /// Every rule judged for every node.
    pub judge_ms: Spread,
    /// Every node decided.
    pub decide_ms: Spread,
    /// Both, one after the other.
    pub both_ms: Spread,
    /// A reading of a node with all the rules, none of which moves, microseconds.
    pub reading_us: f64,
    /// A verdict that makes a rule take hold, and the command that follows, microseconds.
    pub verdict_us: f64,
    /// All rules taken in, milliseconds.
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
    Ok(Report {
        machine: Machine::here(),
        version: env!("CARGO_PKG_VERSION"),
        evaluations,
        nodes: plan.nodes,
        rules: plan.rules,
        shapes,
    })
}

fn shape(plan: &Plan, share: usize, watch: &dyn Watch) -> Result<Shape, Error> {
    let mut world = World::new(plan.nodes, share)?;
    let rules = (0..plan.rules).map(|n| rule(n, share)).collect::<Result<Vec<_>, _>>()?;
    let started = Instant::now();
    world.controller.set_rules(rules, START_US);
    world.settle();
    let set_rules_ms = milliseconds(started);
    let judged: usize = world.controller.rule_members().values().sum();
    let in_force = world.controller.active_rules();
    // Without any that hold nothing would be decided.
    if plan.rules >= 100 && in_force < plan.nodes {
        return Err(failed(format!("only {in_force} rules are in force")));
    }
    let (mut judge, mut decide, mut both) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        world.now_us += 1000;
        let started = Instant::now();
        world.controller.reconsider(world.now_us);
        let judged = milliseconds(started);
        let effects = world.controller.settle(world.now_us);
        let all = milliseconds(started);
        if !effects.messages.is_empty() {
            return Err(failed("something was said although nothing changed"));
        }
        judge.push(judged);
        decide.push(all - judged);
        both.push(all);
        watch.tick(round as f64 / ROUNDS as f64);
        if watch.stopped() {
            return Err(Error::Interrupted);
        }
    }
    let reading_us = world.readings()?;
    let verdict_us = world.verdicts()?;
    Ok(Shape {
        rules_per_node: judged / plan.nodes,
        in_force,
        judge_ms: Spread::of(judge),
        decide_ms: Spread::of(decide),
        both_ms: Spread::of(both),
        reading_us,
        verdict_us,
        set_rules_ms: tenth(set_rules_ms),
    })
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
        let spec = Arc::new(NodeSpec::default());
        for n in 0..nodes {
            let thing = json!({
                "attributes": {"labels": {"part": (n / 10 % share).to_string()}},
                "features": {
                    "environment": {"properties": {
                        "temperature": 10.0 + (n % 25) as f64, "humidity": 40.0}},
                    "judge": {"properties": {"label": format!("l{}", n % 10), "ofRevision": 1}},
                },
            });
            let id =
                ThingId::parse(&format!("bench:n-{n}")).map_err(|why| failed(why.to_string()))?;
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

    fn settle(&mut self) {
        drop(self.controller.settle(self.now_us));
    }

    fn change(&mut self, n: usize, change: Change, origin: Origin) -> Result<usize, Error> {
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
        Ok(self.controller.settle(self.now_us).messages.len())
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
        let mut said = 0;
        let started = Instant::now();
        for at in 0..CHANGES {
            let n = at % self.twins.len();
            let label = format!("l{}", (n + 1 + at / self.twins.len()) % 10);
            let verdict = json!({"label": label, "ofRevision": self.twins[n].revision});
            let change = Change::Merge(Path::Properties("judge".to_owned()), verdict);
            said += self.change(n, change, Origin::Service("judge".into()))?;
        }
        let us = started.elapsed().as_secs_f64() * 1e6 / CHANGES as f64;
        if said == 0 && self.controller.active_rules() > 0 {
            return Err(failed("no verdict moved a node"));
        }
        Ok(hundredth(us))
    }
}
