//! Context rules: what one asks for, and its state.
//!
//! | from | to | when |
//! |---|---|---|
//! | `Idle` | `Waiting` | `when` holds |
//! | `Waiting` | `Idle` | `when` does not hold any more, or `until` does |
//! | `Waiting` | `Active` | it has held for `for` |
//! | `Active` | `Cooling` | `hold` is over and the rule has ended |
//! | `Cooling` | `Idle` | `cooldown` is over |
//!
//! A rule has ended when `until` holds, or, without one, when `when` does not. Unknown does not
//! hold: it starts no rule, and it ends one that has no `until`. `hold` counts from when the rule
//! became active, so a node changes at most once in `for` + `hold` by one rule.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expr::Checked;
use super::expr::eval::Truth;
use crate::twin::selector::LabelExpression;
use crate::twin::{ThingId, Twin, selector};
use crate::wire::Program;

/// A rule, checked and resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// `name`, or `namespace/name` outside the default namespace.
    pub name: Arc<str>,
    /// Which nodes.
    pub target: Target,
    /// Whether the condition is judged for each node by itself.
    pub each: bool,
    /// The condition.
    pub when: Checked,
    /// The condition that ends it.
    pub until: Option<Checked>,
    /// `for`, `hold` and `cooldown`.
    pub times: Times,
    /// What changes.
    pub effect: Effect,
    /// Greater wins.
    pub priority: i64,
}

/// Which nodes a rule is about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Target {
    /// These.
    pub names: Vec<ThingId>,
    /// Those of this namespace that the labels select; of all namespaces if there is none.
    pub namespace: Option<String>,
    /// Labels, all of them.
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels, all of them.
    pub match_expressions: Vec<LabelExpression>,
    /// The members of this aggregate.
    pub aggregate: Option<ThingId>,
}

impl Target {
    /// Whether a twin is named or has the labels. Members of the aggregate are known elsewhere.
    pub fn selects(&self, twin: &Twin) -> bool {
        let reached =
            self.namespace.as_ref().is_none_or(|namespace| namespace == twin.id.namespace());
        self.names.contains(&twin.id)
            || reached && selector::twin_matches(twin, &self.match_labels, &self.match_expressions)
    }

    /// How closely the target is named: by name 2, as members of an aggregate 1, by labels 0. Of
    /// rules with the same priority the greater one wins.
    pub fn specificity(&self) -> u8 {
        match (self.names.is_empty(), &self.aggregate) {
            (false, _) => 2,
            (true, Some(_)) => 1,
            (true, None) => 0,
        }
    }
}

/// `for`, `hold` and `cooldown`, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How long the condition must hold.
    pub for_us: i64,
    /// How long the rule stays active at least.
    pub hold_us: i64,
    /// How long the rule rests.
    pub cooldown_us: i64,
}

/// How some properties are sent; what is `None` is left to weaker rules and the default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// Least time between messages, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pmin: Option<u32>,
    /// Longest silence, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pmax: Option<u32>,
    /// Send on a change by this much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub st: Option<Threshold>,
    /// Send on crossing this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gt: Option<f64>,
    /// Send on crossing this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lt: Option<f64>,
}

impl Settings {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A change that is worth a message.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Threshold {
    /// In the property's unit.
    Absolute(f64),
    /// A share of the property's range, 0 to 1.
    OfRange(f64),
}

/// What somebody asks of a node's transmission.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Of all properties.
    #[serde(skip_serializing_if = "Settings::is_empty")]
    pub all: Settings,
    /// Of single ones: a property, a feature, or `feature/property`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Settings>,
}

impl Asked {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.properties.is_empty()
    }
}

/// What a rule changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Effect {
    /// How the nodes transmit.
    pub asked: Asked,
    /// Actuators by feature and property.
    pub set: BTreeMap<(String, String), Value>,
    /// Properties to ask for once, when the rule becomes active.
    pub pull: Vec<String>,
    /// Share of the budget against others of the class.
    pub weight: Option<f64>,
    /// Which traffic gives way when the budget is short.
    pub class: Option<Class>,
    /// Whether the nodes are isolated.
    pub quarantine: Option<bool>,
}

/// Which traffic gives way when the budget is short: the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Gives way first.
    Low,
    /// The usual one.
    #[default]
    Normal,
    /// Gives way after all usual traffic.
    High,
    /// Never gives way.
    Safety,
}

/// The state of a rule, for one node or for all of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub enum RuleState {
    /// The condition does not hold.
    #[default]
    Idle,
    /// It holds, not yet long enough.
    Waiting {
        /// Since when, microseconds since 1970.
        since_us: i64,
    },
    /// The rule is active.
    Active {
        /// Since when, microseconds since 1970.
        since_us: i64,
    },
    /// The rule rests.
    Cooling {
        /// Until when, microseconds since 1970.
        until_us: i64,
    },
}

impl RuleState {
    /// Whether it outlives a restart; a rule that only waits begins to wait anew.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Active { .. } | Self::Cooling { .. })
    }

    /// Since when the rule is active.
    pub fn active_since(self) -> Option<i64> {
        match self {
            Self::Active { since_us } => Some(since_us),
            _ => None,
        }
    }
}

/// The next state. A pure function; calling it again at the same time changes nothing.
pub fn step(
    times: Times,
    state: RuleState,
    when: Truth,
    until: Option<Truth>,
    now_us: i64,
) -> RuleState {
    let mut state = match state {
        // A clock that was set back: what began in the future begins now.
        RuleState::Waiting { since_us } => RuleState::Waiting { since_us: since_us.min(now_us) },
        RuleState::Active { since_us } => RuleState::Active { since_us: since_us.min(now_us) },
        RuleState::Cooling { until_us } => {
            RuleState::Cooling { until_us: until_us.min(now_us.saturating_add(times.cooldown_us)) }
        }
        RuleState::Idle => RuleState::Idle,
    };
    let ended = match until {
        Some(until) => until.holds(),
        None => !when.holds(),
    };
    if let RuleState::Active { since_us } = state
        && ended
        && now_us >= since_us.saturating_add(times.hold_us)
    {
        state = RuleState::Cooling { until_us: now_us.saturating_add(times.cooldown_us) };
    }
    if let RuleState::Cooling { until_us } = state
        && now_us >= until_us
    {
        state = RuleState::Idle;
    }
    match state {
        // What ends it at once does not start it.
        RuleState::Idle if when.holds() && !ended => {
            state = RuleState::Waiting { since_us: now_us }
        }
        RuleState::Waiting { .. } if !when.holds() || ended => return RuleState::Idle,
        _ => {}
    }
    match state {
        RuleState::Waiting { since_us } if now_us >= since_us.saturating_add(times.for_us) => {
            RuleState::Active { since_us: now_us }
        }
        state => state,
    }
}

/// When the state may change although no truth does, microseconds since 1970.
pub fn due(times: Times, state: RuleState, now_us: i64) -> Option<i64> {
    let at = match state {
        RuleState::Idle => return None,
        RuleState::Waiting { since_us } => since_us.saturating_add(times.for_us),
        RuleState::Active { since_us } => since_us.saturating_add(times.hold_us),
        RuleState::Cooling { until_us } => until_us,
    };
    (at > now_us).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000;

    fn run(times: Times, steps: &[(i64, Truth, Option<Truth>)]) -> Vec<RuleState> {
        let mut state = RuleState::Idle;
        let each = steps.iter().map(|(at, when, until)| {
            state = step(times, state, *when, *until, at * S);
            state
        });
        each.collect()
    }

    #[test]
    fn a_rule_waits_acts_holds_and_rests() {
        let times = Times { for_us: 2 * S, hold_us: 10 * S, cooldown_us: 5 * S };
        let (yes, no) = (Truth::True, Truth::False);
        let states = run(
            times,
            &[
                (0, yes, None),
                (1, yes, None),
                (2, yes, None),
                (3, no, None),
                (11, Truth::Unknown(0), None),
                (12, no, None),
                (13, yes, None),
                (17, yes, None),
            ],
        );
        let active = RuleState::Active { since_us: 2 * S };
        assert_eq!(
            states,
            [
                RuleState::Waiting { since_us: 0 },
                RuleState::Waiting { since_us: 0 },
                active,
                active,
                active,
                RuleState::Cooling { until_us: 17 * S },
                RuleState::Cooling { until_us: 17 * S },
                RuleState::Waiting { since_us: 17 * S },
            ]
        );
        assert_eq!(due(times, active, 3 * S), Some(12 * S));
        assert_eq!(due(times, active, 12 * S), None);
    }

    #[test]
    fn until_ends_it_and_unknown_does_not() {
        let times = Times::default();
        let (yes, no, unknown) = (Truth::True, Truth::False, Truth::Unknown(0));
        let states = run(
            times,
            &[
                (0, yes, Some(no)),
                (1, no, Some(unknown)),
                (2, unknown, Some(no)),
                (3, yes, Some(yes)),
                (4, yes, Some(yes)),
            ],
        );
        let active = RuleState::Active { since_us: 0 };
        assert_eq!(states, [active, active, active, RuleState::Idle, RuleState::Idle]);
    }

    fn truth() -> impl Strategy<Value = Truth> {
        prop::sample::select(vec![Truth::True, Truth::False, Truth::Unknown(0)])
    }

    proptest! {
        /// I5, I9: whatever the truths and the clock do, nothing panics, a rule that holds for
        /// less than `for` never acts, and one that acts stays for `hold`.
        #[test]
        fn a_rule_never_acts_early_nor_ends_early(
            steps in prop::collection::vec((-5_i64..20, truth(), prop::option::of(truth())), 1..60),
            for_s in 0_i64..10, hold_s in 0_i64..30, cooldown_s in 0_i64..10,
        ) {
            let times =
                Times { for_us: for_s * S, hold_us: hold_s * S, cooldown_us: cooldown_s * S };
            let (mut now, mut state) = (1000 * S, RuleState::Idle);
            let mut held_since: Option<i64> = None;
            for (by, when, until) in steps {
                now += by * S;
                let next = step(times, state, when, until, now);
                prop_assert_eq!(step(times, next, when, until, now), next, "again");
                held_since = when.holds().then(|| held_since.map_or(now, |since| since.min(now)));
                if let (None, Some(_)) = (state.active_since(), next.active_since()) {
                    prop_assert!(now - held_since.unwrap_or(now) >= times.for_us);
                }
                if let (Some(since), None) = (state.active_since(), next.active_since()) {
                    prop_assert!(now - since.min(now) >= times.hold_us);
                }
                state = next;
            }
        }

        /// A state that changes while no truth does changes only when it was due.
        #[test]
        fn every_change_is_foretold(when in truth(), until in prop::option::of(truth()),
            for_s in 0_i64..5, hold_s in 0_i64..9, cooldown_s in 0_i64..5) {
            let times =
                Times { for_us: for_s * S, hold_us: hold_s * S, cooldown_us: cooldown_s * S };
            let mut state = step(times, RuleState::Idle, when, until, 0);
            let mut foretold = due(times, state, 0);
            for now in 1..40 {
                let now = now * S / 2;
                let next = step(times, state, when, until, now);
                if foretold.is_none_or(|at| now < at) {
                    prop_assert_eq!(next, state);
                }
                state = next;
                foretold = due(times, state, now);
            }
        }
    }
}
