//! Aggregates: twins whose properties follow from member twins, kept up to date change by change.
//!
//! An [`Aggregates`] sees every change of every twin ([`Aggregates::observe`]) and answers with
//! the merge patches that follow for the aggregates that the twin is a member of. For each derived
//! property it keeps what its function needs, so a change of one member costs the same in a room
//! of four and in a city of ten thousand: a counter, an exact sum, or an ordered multiset. Members
//! are given by name, by labels, or both; with labels, twins join and leave as theirs change.
//!
//! An aggregate is a full twin: its patches are changes like any other, so services can judge it
//! and it can be a member of another. What is derived is not remembered anywhere else: after a
//! restart [`Aggregates::set`] derives it from the twins.
//!
//! Always true, and tested:
//! 1. derived step by step, whatever the steps, equals derived from scratch: sums are exact, so
//!    their order does not matter;
//! 2. an aggregate that shows what it should gives no patch, so nothing goes round in circles.
//!
//! Not here: recording the patches (`writer`), who declares aggregates (`reconcile`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::id::ThingId;
use super::merge::{self, Object};
use super::selector::{LabelExpression, twin_matches};
use super::thing::Twin;
use crate::base::telemetry::Telemetry;
use crate::base::units::PropertyPath;

/// Greatest number that counts as a value, so that no sum of members overflows. No sensor measures
/// anything near it.
const VALUE_MAX: f64 = 1e290;

/// A function over members' values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeriveFunction {
    /// The mean of a number.
    Mean,
    /// The least number.
    Min,
    /// The greatest number.
    Max,
    /// How many members have a value.
    Count,
    /// Whether any member is true.
    Any,
    /// The sum of a number.
    Sum,
    /// The standard deviation of a number.
    Stddev,
    /// The quantile `q` of a number.
    Quantile,
    /// Whether all members are true.
    All,
    /// The value that changed last.
    Latest,
}

impl DeriveFunction {
    /// As written in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Any => "any",
            Self::Sum => "sum",
            Self::Stddev => "stddev",
            Self::Quantile => "quantile",
            Self::All => "all",
            Self::Latest => "latest",
        }
    }
}

impl DeriveFunction {
    /// Whether it is computed; the others are declared and stored.
    pub const fn is_computed(self) -> bool {
        matches!(
            self,
            Self::Mean | Self::Min | Self::Max | Self::Count | Self::Any | Self::Sum | Self::All
        )
    }
}

/// What an aggregate is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AggregateSpec {
    /// Members by name.
    pub members: HashSet<ThingId>,
    /// The namespace whose twins the labels select; `None` for all.
    pub namespace: Option<String>,
    /// Labels that members have.
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions on labels.
    pub match_expressions: Vec<LabelExpression>,
    /// What is derived.
    pub derive: Vec<Derived>,
}

/// One derived property.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// The aggregate's property.
    pub to: PropertyPath,
    /// Over the members' values.
    pub function: DeriveFunction,
    /// The members' property; none for a count of members.
    pub of: Option<PropertyPath>,
}

/// A merge patch for the features of an aggregate's twin.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// The aggregate.
    pub id: ThingId,
    /// `{feature: {"properties": {…}}}`; `null` where there is no value any more.
    pub features: Object,
}

/// All aggregates. See the module.
#[derive(Debug, Default)]
pub struct Aggregates {
    state: Mutex<State>,
    /// Where chains that are too deep are reported.
    pub(crate) telemetry: Arc<Telemetry>,
}

#[derive(Debug, Default)]
struct State {
    aggregates: HashMap<ThingId, Aggregate>,
    /// The aggregates of each twin that is a member of any.
    by_member: HashMap<ThingId, Vec<ThingId>>,
    /// Aggregates whose members labels decide.
    by_labels: Vec<ThingId>,
}

#[derive(Debug)]
struct Aggregate {
    spec: AggregateSpec,
    sources: Vec<Source>,
    members: HashMap<ThingId, Box<[Reading]>>,
    /// What the functions know, one for each of `sources`.
    running: Vec<Running>,
    /// What the aggregate's twin shows now; nothing while there is no twin.
    shown: Option<Vec<Option<Value>>>,
}

/// Where a derived property comes from and goes to, taken apart.
#[derive(Debug)]
struct Source {
    to: (String, Vec<String>),
    of: Option<(String, Vec<String>)>,
    function: DeriveFunction,
}

/// A member's contribution to one derived property.
type Reading = Option<f64>;

impl Aggregates {
    /// None yet.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { state: Mutex::default(), telemetry }
    }

    /// Declares an aggregate, or declares it anew, and derives it from `twins`, which are all
    /// twins as they are now.
    pub fn set<'a>(
        &self,
        id: &ThingId,
        spec: AggregateSpec,
        twins: impl Iterator<Item = &'a Arc<Twin>>,
    ) -> Option<Patch> {
        let mut state = self.lock();
        state.forget(id);
        if !spec.match_labels.is_empty() || !spec.match_expressions.is_empty() {
            state.by_labels.push(id.clone());
        }
        let mut aggregate = Aggregate::new(spec);
        for twin in twins {
            if twin.id == *id {
                aggregate.shown = Some(aggregate.showing(twin));
            } else if aggregate.selects(twin) {
                aggregate.join(twin);
                state.by_member.entry(twin.id.clone()).or_default().push(id.clone());
            }
        }
        let patch = aggregate.patch(id);
        state.aggregates.insert(id.clone(), aggregate);
        patch
    }

    /// Whether an aggregate is declared just so.
    pub fn is(&self, id: &ThingId, spec: &AggregateSpec) -> bool {
        self.lock().aggregates.get(id).is_some_and(|aggregate| aggregate.spec == *spec)
    }

    /// Forgets an aggregate; its twin keeps what it shows.
    pub fn remove(&self, id: &ThingId) {
        self.lock().forget(id);
    }

    /// The members of an aggregate, sorted; `None` if there is no such aggregate.
    pub fn members(&self, id: &ThingId) -> Option<Vec<ThingId>> {
        let state = self.lock();
        let mut members: Vec<_> = state.aggregates.get(id)?.members.keys().cloned().collect();
        members.sort();
        Some(members)
    }

    /// Takes a change of a twin and adds what follows for aggregates to `patches`.
    pub fn observe(
        &self,
        id: &ThingId,
        before: Option<&Twin>,
        after: Option<&Twin>,
        patches: &mut Vec<Patch>,
    ) {
        let mut state = self.lock();
        if state.aggregates.is_empty() {
            return;
        }
        let State { aggregates, by_member, by_labels } = &mut *state;
        let mut changed: Vec<ThingId> = Vec::new();
        for name in by_member.get(id).into_iter().flatten() {
            if let (Some(aggregate), Some(after)) = (aggregates.get_mut(name), after)
                && aggregate.update(before, after)
            {
                changed.push(name.clone());
            }
        }
        if before.is_none() || after.is_none() || attributes_differ(before, after) {
            let membership = |aggregate: &Aggregate| {
                (aggregate.members.contains_key(id), after.is_some_and(|t| aggregate.selects(t)))
            };
            let by_name = aggregates.iter().filter(|(_, a)| a.spec.members.contains(id));
            let candidates: HashSet<ThingId> =
                by_name.map(|(name, _)| name).chain(by_labels.iter()).cloned().collect();
            for name in candidates.into_iter().filter(|name| name != id) {
                let Some(aggregate) = aggregates.get_mut(&name) else { continue };
                match (membership(aggregate), after) {
                    ((false, true), Some(twin)) => {
                        aggregate.join(twin);
                        by_member.entry(id.clone()).or_default().push(name.clone());
                    }
                    ((true, false), _) => {
                        aggregate.leave(id);
                        leave(by_member, id, &name);
                    }
                    _ => continue,
                }
                changed.push(name);
            }
        }
        // An aggregate that another origin wrote to, or that was made or deleted, shows again what
        // it should.
        if let Some(aggregate) = aggregates.get_mut(id) {
            aggregate.shown = after.map(|twin| aggregate.showing(twin));
            changed.push(id.clone());
        }
        for (at, name) in changed.iter().enumerate() {
            if changed[..at].contains(name) {
                continue;
            }
            patches.extend(aggregates.get(name).and_then(|aggregate| aggregate.patch(name)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, id: &ThingId) {
        self.by_labels.retain(|other| other != id);
        if let Some(aggregate) = self.aggregates.remove(id) {
            for member in aggregate.members.keys() {
                leave(&mut self.by_member, member, id);
            }
        }
    }
}

fn leave(by_member: &mut HashMap<ThingId, Vec<ThingId>>, member: &ThingId, of: &ThingId) {
    if let Some(all) = by_member.get_mut(member) {
        all.retain(|other| other != of);
        if all.is_empty() {
            by_member.remove(member);
        }
    }
}

fn attributes_differ(before: Option<&Twin>, after: Option<&Twin>) -> bool {
    match (before.and_then(|t| t.attributes.as_ref()), after.and_then(|t| t.attributes.as_ref())) {
        (Some(before), Some(after)) => !Arc::ptr_eq(before, after),
        (None, None) => false,
        _ => true,
    }
}

impl Aggregate {
    fn new(spec: AggregateSpec) -> Self {
        let apart = |path: &PropertyPath| {
            (path.feature.clone(), path.property.split('/').map(str::to_owned).collect())
        };
        let sources: Vec<Source> = spec
            .derive
            .iter()
            .filter(|derived| derived.function.is_computed())
            .map(|derived| Source {
                to: apart(&derived.to),
                of: derived.of.as_ref().map(apart),
                function: derived.function,
            })
            .collect();
        let running = sources.iter().map(|source| Running::new(source.function)).collect();
        Self { spec, sources, members: HashMap::new(), running, shown: None }
    }

    fn selects(&self, twin: &Twin) -> bool {
        self.spec.members.contains(&twin.id)
            || self.spec.namespace.as_deref().is_none_or(|own| own == twin.id.namespace())
                && twin_matches(twin, &self.spec.match_labels, &self.spec.match_expressions)
    }

    fn join(&mut self, twin: &Twin) {
        let readings: Box<[Reading]> =
            self.sources.iter().map(|source| source.reading(twin)).collect();
        for (running, reading) in self.running.iter_mut().zip(&readings) {
            running.replace(None, *reading);
        }
        self.members.insert(twin.id.clone(), readings);
    }

    fn leave(&mut self, id: &ThingId) {
        let readings = self.members.remove(id);
        for (running, reading) in self.running.iter_mut().zip(readings.iter().flatten()) {
            running.replace(*reading, None);
        }
    }

    /// Takes what a member says now; whether anything of it counts here.
    fn update(&mut self, before: Option<&Twin>, after: &Twin) -> bool {
        let Some(readings) = self.members.get_mut(&after.id) else { return false };
        let mut changed = false;
        let each = self.sources.iter().zip(&mut self.running).zip(readings.iter_mut());
        for ((source, running), reading) in each {
            let Some((feature, _)) = &source.of else { continue };
            let same = match (
                before.and_then(|twin| twin.features.get(feature.as_str())),
                after.features.get(feature.as_str()),
            ) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                _ => false,
            };
            if same {
                continue;
            }
            let next = source.reading(after);
            if next != *reading {
                running.replace(*reading, next);
                *reading = next;
                changed = true;
            }
        }
        changed
    }

    /// What the aggregate's twin shows of the derived properties.
    fn showing(&self, twin: &Twin) -> Vec<Option<Value>> {
        let shown = |source: &Source| twin.property(&source.to.0, &source.to.1).cloned();
        self.sources.iter().map(shown).collect()
    }

    /// What has to change for the twin to show what it should.
    fn patch(&self, id: &ThingId) -> Option<Patch> {
        let shown = self.shown.as_ref()?;
        let mut features = Object::new();
        for ((source, running), shown) in self.sources.iter().zip(&self.running).zip(shown) {
            let value = running.value(source.function);
            if value == *shown {
                continue;
            }
            let (feature, pointer) = &source.to;
            let patch = merge::wrap(pointer, value.unwrap_or(Value::Null));
            let place = features
                .entry(feature.clone())
                .or_insert_with(|| Value::Object(Object::new()))
                .as_object_mut()
                .map(|of| of.entry("properties").or_insert_with(|| Value::Object(Object::new())));
            if let (Some(Value::Object(properties)), Value::Object(patch)) = (place, patch) {
                combine(properties, patch);
            }
        }
        (!features.is_empty()).then(|| Patch { id: id.clone(), features })
    }
}

/// Puts two patches together, `null` being a value of its own.
fn combine(into: &mut Object, patch: Object) {
    for (key, value) in patch {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => combine(inner, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

impl Source {
    fn reading(&self, twin: &Twin) -> Reading {
        let Some((feature, pointer)) = &self.of else { return Some(1.0) };
        let value = twin.property(feature, pointer)?;
        match self.function {
            DeriveFunction::Count => (!value.is_null()).then_some(1.0),
            DeriveFunction::Any | DeriveFunction::All => value.as_bool().map(f64::from),
            // Adding zero turns -0 into 0, so that equal numbers are the same number.
            _ => value.as_f64().filter(|number| number.abs() <= VALUE_MAX).map(|x| x + 0.0),
        }
    }
}

/// What a function has to know to give its value at any time.
#[derive(Debug, Default)]
struct Running {
    /// Members with a value.
    count: usize,
    sum: Option<Sum>,
    ordered: Option<BTreeMap<Ordered, usize>>,
}

impl Running {
    fn new(function: DeriveFunction) -> Self {
        use DeriveFunction as F;
        Self {
            count: 0,
            sum: matches!(function, F::Mean | F::Sum | F::Any | F::All).then(Sum::default),
            ordered: matches!(function, F::Min | F::Max).then(BTreeMap::new),
        }
    }

    fn replace(&mut self, from: Reading, to: Reading) {
        if let Some(from) = from {
            self.count -= 1;
            if let Some(sum) = &mut self.sum {
                sum.add(-from);
            }
            if let Some(ordered) = &mut self.ordered {
                let key = Ordered::from(from);
                match ordered.get_mut(&key) {
                    Some(times) if *times > 1 => *times -= 1,
                    _ => {
                        ordered.remove(&key);
                    }
                }
            }
        }
        if let Some(to) = to {
            self.count += 1;
            if let Some(sum) = &mut self.sum {
                sum.add(to);
            }
            if let Some(ordered) = &mut self.ordered {
                *ordered.entry(Ordered::from(to)).or_insert(0) += 1;
            }
        }
    }

    /// The value now; none where no member has one.
    fn value(&self, function: DeriveFunction) -> Option<Value> {
        use DeriveFunction as F;
        if function == F::Count {
            return Some(self.count.into());
        }
        if self.count == 0 {
            return None;
        }
        let sum = || self.sum.as_ref().map_or(0.0, Sum::value);
        let number = |number: f64| Number::from_f64(number).map(Value::Number);
        match function {
            F::Mean => number(sum() / self.count as f64),
            F::Sum => number(sum()),
            F::Any => Some((sum() > 0.0).into()),
            F::All => Some((sum() >= self.count as f64).into()),
            F::Min => self.ordered.as_ref()?.first_key_value().and_then(|(key, _)| number(key.0)),
            F::Max => self.ordered.as_ref()?.last_key_value().and_then(|(key, _)| number(key.0)),
            F::Count | F::Stddev | F::Quantile | F::Latest => None,
        }
    }
}

/// A finite number, ordered.
#[derive(Debug, Clone, Copy)]
struct Ordered(f64);

impl From<f64> for Ordered {
    fn from(number: f64) -> Self {
        Self(number)
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

/// An exact sum of floating-point numbers: parts that do not overlap, smallest first. What was
/// added can be taken away again without a trace, and the order of additions does not matter.
///
/// Source: Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric
/// Predicates", Discrete & Computational Geometry 18, 1997.
#[derive(Debug, Default, Clone)]
struct Sum {
    parts: Vec<f64>,
}

impl Sum {
    fn add(&mut self, mut x: f64) {
        let mut kept = 0;
        for at in 0..self.parts.len() {
            let mut y = self.parts[at];
            if x.abs() < y.abs() {
                std::mem::swap(&mut x, &mut y);
            }
            let high = x + y;
            let low = y - (high - x);
            if low != 0.0 {
                self.parts[kept] = low;
                kept += 1;
            }
            x = high;
        }
        self.parts.truncate(kept);
        if x != 0.0 {
            self.parts.push(x);
        }
    }

    /// The sum, rounded once, half to even.
    fn value(&self) -> f64 {
        let mut parts = self.parts.iter().rev().copied().peekable();
        let (mut high, mut low) = (0.0, 0.0);
        for y in parts.by_ref() {
            let x = high;
            high = x + y;
            low = y - (high - x);
            if low != 0.0 {
                break;
            }
        }
        // Exactly half way so far: what comes below decides.
        if let Some(next) = parts.peek()
            && (low < 0.0 && *next < 0.0 || low > 0.0 && *next > 0.0)
        {
            let y = low * 2.0;
            let x = high + y;
            if y == x - high {
                high = x;
            }
        }
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::path::Path;
    use crate::twin::{Change, apply, decide};
    use proptest::prelude::*;
    use serde_json::json;

    fn id(name: &str) -> ThingId {
        ThingId::parse(name).unwrap()
    }

    /// Twins and the aggregates over them, changed as the writer does it.
    #[derive(Default)]
    struct World {
        twins: BTreeMap<ThingId, Arc<Twin>>,
        aggregates: Aggregates,
        declared: BTreeMap<ThingId, AggregateSpec>,
        events: usize,
    }

    impl World {
        fn change(&mut self, name: &ThingId, change: Change) {
            let mut waiting = vec![(name.clone(), change)];
            while let Some((name, change)) = waiting.pop() {
                let before = self.twins.get(&name).cloned();
                let Ok(event) = decide(&name, before.as_deref(), change) else { continue };
                let after = apply(&name, before.as_deref(), &event, 0).map(Arc::new);
                match &after {
                    Some(twin) => self.twins.insert(name.clone(), twin.clone()),
                    None => self.twins.remove(&name),
                };
                self.events += 1;
                let mut patches = Vec::new();
                self.aggregates.observe(&name, before.as_deref(), after.as_deref(), &mut patches);
                waiting.extend(patches.into_iter().map(merge));
            }
        }

        fn declare(&mut self, name: &ThingId, spec: AggregateSpec) {
            self.declared.insert(name.clone(), spec.clone());
            let patch = self.aggregates.set(name, spec, self.twins.values());
            if let Some((name, change)) = patch.map(merge) {
                self.change(&name, change);
            }
        }

        /// Derived from scratch, nothing differs from what the aggregates' twins show.
        fn assert_consistent(&self) {
            for (name, spec) in &self.declared {
                let fresh = Aggregates::default();
                let patch = fresh.set(name, spec.clone(), self.twins.values());
                assert_eq!(patch, None, "{name} shows {:?}", self.twins.get(name));
                assert_eq!(fresh.members(name), self.aggregates.members(name));
            }
        }

        fn shows(&self, name: &str, path: &str) -> Option<Value> {
            self.twins.get(name)?.get(&Path::parse(path).unwrap())
        }
    }

    fn merge(patch: Patch) -> (ThingId, Change) {
        (patch.id, Change::Merge(Path::Features, Value::Object(patch.features)))
    }

    fn derive(function: DeriveFunction, of: Option<&str>) -> Derived {
        Derived {
            to: format!("d/{}", function.name()).parse().unwrap(),
            function,
            of: of.map(|of| of.parse().unwrap()),
        }
    }

    fn all_functions(number: &str, truth: &str) -> Vec<Derived> {
        use DeriveFunction as F;
        vec![
            derive(F::Mean, Some(number)),
            derive(F::Min, Some(number)),
            derive(F::Max, Some(number)),
            derive(F::Sum, Some(number)),
            derive(F::Count, None),
            derive(F::Any, Some(truth)),
            derive(F::All, Some(truth)),
        ]
    }

    fn by_room(room: &str) -> AggregateSpec {
        AggregateSpec {
            namespace: Some("lab".to_owned()),
            match_labels: BTreeMap::from([("room".to_owned(), room.to_owned())]),
            derive: all_functions("e/t", "e/on"),
            ..AggregateSpec::default()
        }
    }

    fn thing(room: Option<&str>) -> Value {
        json!({"attributes": {"labels": {"room": room}}})
    }

    #[test]
    fn an_aggregate_shows_what_its_members_measure() {
        let mut world = World::default();
        let room = id("lab:room");
        world.declare(&room, by_room("n"));
        assert!(world.twins.is_empty(), "no twin is made by deriving");
        world.change(&room, Change::Modify(Path::Thing, json!({})));
        assert_eq!(world.shows("lab:room", "/features/d/properties"), Some(json!({"count": 0})));
        for (name, t, on) in [("lab:a", 20.0, false), ("lab:b", 23.0, true)] {
            world.change(&id(name), Change::Modify(Path::Thing, thing(Some("n"))));
            let values = json!({"e": {"t": t, "on": on}}).as_object().unwrap().clone();
            world.change(&id(name), Change::Reading { values, stamp: None });
        }
        let shown = json!({"mean": 21.5, "min": 20.0, "max": 23.0, "sum": 43.0, "count": 2,
            "any": true, "all": false});
        assert_eq!(world.shows("lab:room", "/features/d/properties"), Some(shown));
        let events = world.events;
        let same = json!({"e": {"t": 23.0}}).as_object().unwrap().clone();
        world.change(&id("lab:b"), Change::Reading { values: same, stamp: None });
        assert_eq!(world.events, events + 1, "an equal value changes no aggregate");
        world.change(&id("lab:b"), Change::Delete(Path::Thing));
        assert_eq!(world.shows("lab:room", "/features/d/properties/mean"), Some(20.0.into()));
    }

    #[test]
    fn a_twin_of_another_namespace_or_without_the_label_is_no_member() {
        let mut world = World::default();
        let room = id("lab:room");
        world.declare(&room, by_room("n"));
        world.change(&room, Change::Modify(Path::Thing, thing(Some("n"))));
        world.change(&id("farm:a"), Change::Modify(Path::Thing, thing(Some("n"))));
        world.change(&id("lab:b"), Change::Modify(Path::Thing, thing(None)));
        assert_eq!(world.aggregates.members(&room), Some(Vec::new()));
    }

    #[test]
    fn an_aggregate_that_a_client_writes_to_shows_again_what_it_should() {
        let mut world = World::default();
        let room = id("lab:room");
        world.declare(&room, by_room("n"));
        world.change(&room, Change::Modify(Path::Thing, json!({})));
        let path = Path::parse("/features/d/properties/count").unwrap();
        world.change(&room, Change::Modify(path, 9.into()));
        assert_eq!(world.shows("lab:room", "/features/d/properties/count"), Some(0.into()));
        world.assert_consistent();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Make(usize, usize),
        Read(usize, f64, bool),
        Label(usize, usize),
        Forget(usize),
        Delete(usize),
        Declare(usize),
    }

    const NAMES: [&str; 6] = ["lab:a", "lab:b", "lab:c", "farm:d", "lab:north", "lab:site"];
    const ROOMS: [Option<&str>; 3] = [Some("n"), Some("s"), None];

    fn step() -> impl Strategy<Value = Step> {
        let values = prop_oneof![
            -1e3..1e3,
            Just(0.1),
            Just(-0.0),
            Just(1e16),
            Just(-1e16),
            Just(1e300),
            any::<f64>().prop_filter("numbers", |x| x.is_finite()),
        ];
        prop_oneof![
            1 => (0..6_usize, 0..3_usize).prop_map(|(a, b)| Step::Make(a, b)),
            6 => (0..4_usize, values, any::<bool>()).prop_map(|(a, b, c)| Step::Read(a, b, c)),
            2 => (0..5_usize, 0..3_usize).prop_map(|(a, b)| Step::Label(a, b)),
            1 => (0..4_usize).prop_map(Step::Forget),
            1 => (0..6_usize).prop_map(Step::Delete),
            1 => (0..4_usize).prop_map(Step::Declare),
        ]
    }

    proptest! {
        /// `north` selects by label, `site` has members by name, `north` among them.
        #[test]
        fn derived_step_by_step_equals_derived_from_scratch(
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let mut world = World::default();
            for step in steps {
                match step {
                    Step::Make(at, room) => {
                        // `site` in a room would be a member of its own member.
                        let room = if NAMES[at] == "lab:site" { 2 } else { room };
                        world.change(&id(NAMES[at]), Change::Modify(Path::Thing, thing(ROOMS[room])));
                    }
                    Step::Read(at, t, on) => {
                        let values = json!({"e": {"t": t, "on": on}});
                        let values = values.as_object().unwrap().clone();
                        world.change(&id(NAMES[at]), Change::Reading { values, stamp: None });
                    }
                    Step::Label(at, room) => {
                        let path = Path::parse("/attributes/labels/room").unwrap();
                        world.change(&id(NAMES[at]), Change::Modify(path, json!(ROOMS[room])));
                    }
                    Step::Forget(at) => {
                        let path = Path::parse("/features/e/properties/t").unwrap();
                        world.change(&id(NAMES[at]), Change::Delete(path));
                    }
                    Step::Delete(at) => world.change(&id(NAMES[at]), Change::Delete(Path::Thing)),
                    Step::Declare(0 | 1) => world.declare(&id("lab:north"), by_room("n")),
                    Step::Declare(2) => world.declare(&id("lab:north"), by_room("s")),
                    Step::Declare(_) => {
                        let members = ["lab:a", "lab:north", "farm:d"].map(id).into();
                        let derive = all_functions("d/mean", "d/any");
                        let spec = AggregateSpec { members, derive, ..Default::default() };
                        world.declare(&id("lab:site"), spec);
                    }
                }
                world.assert_consistent();
            }
        }

        #[test]
        fn a_sum_does_not_depend_on_order_and_forgets_what_is_taken_away(
            kept in proptest::collection::vec(-1e200..1e200_f64, 0..20),
            gone in proptest::collection::vec(-1e290..1e290_f64, 0..20),
        ) {
            let mut forwards = Sum::default();
            kept.iter().for_each(|x| forwards.add(*x));
            let mut backwards = Sum::default();
            gone.iter().for_each(|x| backwards.add(*x));
            kept.iter().rev().for_each(|x| backwards.add(*x));
            gone.iter().rev().for_each(|x| backwards.add(-x));
            prop_assert_eq!(forwards.value().to_bits(), backwards.value().to_bits());
        }
    }

    #[test]
    fn a_sum_is_rounded_once() {
        let of = |all: &[f64]| {
            let mut sum = Sum::default();
            all.iter().for_each(|x| sum.add(*x));
            sum.value()
        };
        assert_eq!(of(&[0.1; 10]), 1.0);
        assert_eq!(of(&[1e16, 1.0, -1e16]), 1.0);
        assert_eq!(of(&[1.0, f64::EPSILON / 2.0, f64::EPSILON / 4.0]), 1.0 + f64::EPSILON);
        assert_eq!(of(&[]), 0.0);
    }
}
