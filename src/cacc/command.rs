//! Commands to nodes, and the state of each. Pure.
//!
//! | from | to | when |
//! |---|---|---|
//! | `Pending` | `Sent` | it is on the wire; and again after 1, 2, 4 … s ± 20 % |
//! | `Sent` | `Acked` | the node took it and has not shown the result yet |
//! | `Sent`, `Acked` | `Applied` | the node reports what was asked |
//! | `Sent` | `Rejected` | the node refused it, with the reason |
//! | any open | `Expired` | the deadline passed |
//! | any open | `Superseded` | something newer is wanted |
//!
//! A command is durable before it is sent, and is sent again under the same id after a restart;
//! a node repeats its answer to an id and not the action. Once the node has answered something,
//! each command also carries the time until which it may be done by the node's own clock (`ttl=`), so that one
//! which was held up on the way surprises nobody.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cause::Cause;
use crate::base::time::rfc3339;
use crate::base::units::Duration;
use crate::twin::ThingId;
use crate::wire::{AckStatus, ActValue, BodyError, Decimal, Op, Pairs, Prog, Program, Tx};

/// How long a transmission command may take, microseconds.
pub const DEADLINE_US: i64 = 30_000_000;
/// How long an actuator command may take, microseconds: later it would surprise somebody.
pub const ACT_DEADLINE_US: i64 = 10_000_000;
/// Commands that are remembered of one node, the open ones included; older ones are forgotten.
pub const KEPT_MAX: usize = 16;
/// First wait before a command is sent again, microseconds.
const RETRY_US: i64 = 1_000_000;

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Unique for its node, never 0.
    pub id: u32,
    /// The decision that it brings about; 0 for one that no decision asks for.
    pub generation: u32,
    /// Why.
    pub cause: Cause,
    /// When, microseconds since 1970.
    pub issued_us: i64,
    /// Until when it is sent, microseconds since 1970.
    pub deadline_us: i64,
    /// How long the node goes without a message before it falls back to its default, s.
    #[serde(default)]
    pub lease_s: u32,
    /// The operation, as on the wire.
    pub op: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its state.
    pub state: CommandState,
    /// How often it was sent.
    #[serde(default)]
    pub tries: u32,
    /// When it is sent again, microseconds since 1970.
    #[serde(skip)]
    pub next_us: i64,
    /// When it came to its end, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_us: Option<i64>,
    /// Why it ended so, for people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What a command is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// A transmission.
    Transmission,
    /// Keeping the transmission after its trial.
    Keep,
    /// An actuator, by feature and property.
    Act(String, String),
    /// A value.
    Get,
}

/// The state of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandState {
    /// Not sent yet.
    Pending,
    /// Sent, and not answered.
    Sent,
    /// Taken; its result is not seen yet.
    Acked,
    /// The node reports what was asked.
    Applied,
    /// The node refused it.
    Rejected,
    /// Not answered in time.
    Expired,
    /// Something newer is wanted.
    Superseded,
}

impl CommandState {
    /// Whether anything may still come of it.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Sent | Self::Acked)
    }
}

impl Command {
    /// Notes that it goes out now.
    pub fn sent(&mut self, now_us: i64) {
        self.state = if self.state == CommandState::Acked {
            CommandState::Acked
        } else {
            CommandState::Sent
        };
        self.next_us = now_us.saturating_add(wait_us(self.id, self.tries));
        self.tries += 1;
    }

    /// Ends it.
    pub fn end(&mut self, state: CommandState, reason: impl Into<String>, now_us: i64) {
        self.state = state;
        self.reason = reason.into();
        self.ended_us = Some(now_us);
    }

    /// As reading verbs show it.
    pub fn to_json(&self, node: &ThingId) -> Value {
        let mut status = json!({ "state": self.state, "tries": self.tries });
        if let Some(ended_us) = self.ended_us {
            status["ended"] = rfc3339(ended_us).into();
        }
        if !self.reason.is_empty() {
            status["reason"] = self.reason.as_str().into();
        }
        json!({
            "kind": "Command",
            "metadata": { "namespace": node.namespace(), "name": format!("{}-{}", node.name(), self.id) },
            "spec": {
                "node": node.as_str(),
                "id": self.id,
                "set": self.op,
                "generation": self.generation,
                "cause": self.cause.by,
                "trace": self.cause.trace,
                "issuedAt": rfc3339(self.issued_us),
                "deadline": rfc3339(self.deadline_us),
                "lease": Duration::from_ms(u64::from(self.lease_s) * 1000).to_string(),
            },
            "status": status,
        })
    }
}

/// The wait after the `tries`-th try (from 0), microseconds: 1, 2, 4 … s, spread by ± 20 % so that
/// nodes which came back together do not answer together. The same id always waits the same.
pub fn wait_us(id: u32, tries: u32) -> i64 {
    let base = RETRY_US << tries.min(5);
    // A multiplicative hash: successive ids are far apart.
    let spread = i64::from((id ^ tries.rotate_left(16)).wrapping_mul(0x9E37_79B1) >> 16);
    base * 4 / 5 + base * 2 / 5 * spread / 0xFFFF
}

/// Whether a node reports what is asked: periods that are left to the profile are as it reports them.
pub fn satisfies(reported: &Tx, desired: &Tx) -> bool {
    let same = |reported: &Tx, desired: &Tx| {
        let period = |asked: Option<u32>, is: Option<u32>| asked.is_none() || asked == is;
        let list = |asked: &Pairs<Decimal>, is: &Pairs<Decimal>| sorted(asked) == sorted(is);
        let timed = desired.program != Program::OnRequest;
        reported.program == desired.program
            && (!timed
                || period(desired.pmin, reported.pmin) && period(desired.pmax, reported.pmax))
            && (desired.program != Program::OnChange
                || list(&desired.st, &reported.st)
                    && list(&desired.gt, &reported.gt)
                    && list(&desired.lt, &reported.lt))
    };
    same(reported, desired)
        && reported.groups.0.len() == desired.groups.0.len()
        && desired.groups.0.iter().all(|(name, group)| {
            find_group(reported, name).is_some_and(|reported| same(reported, group))
        })
}

fn sorted(list: &Pairs<Decimal>) -> Vec<&(String, Decimal)> {
    let mut all: Vec<_> = list.0.iter().collect();
    all.sort();
    all
}

fn members(name: &str) -> Vec<&str> {
    let mut names: Vec<&str> = name.split(',').collect();
    names.sort_unstable();
    names
}

fn find_group<'a>(tx: &'a Tx, name: &str) -> Option<&'a Tx> {
    tx.groups.0.iter().find(|(other, _)| members(other) == members(name)).map(|(_, group)| group)
}

/// The next command on the way from what a node reports to what is desired; none if it is there.
///
/// The transmission of all properties comes first: it dissolves the groups, which follow one by
/// one.
pub fn next_op(reported: Option<&Tx>, desired: &Tx, trial_s: Option<u32>) -> Option<Op> {
    let whole = |tx: &Tx| Tx { groups: Pairs::default(), ..tx.clone() };
    let prog = |tx: &Tx, on: Vec<String>| {
        let of = |list: &Pairs<Decimal>| list.0.clone();
        Op::Prog(Prog {
            program: tx.program.clone(),
            on,
            pmin: tx.pmin,
            pmax: tx.pmax,
            st: of(&tx.st),
            gt: of(&tx.gt),
            lt: of(&tx.lt),
            trial: trial_s,
        })
    };
    let Some(reported) = reported else { return Some(prog(desired, Vec::new())) };
    let stray = |(name, _): &(String, Tx)| find_group(desired, name).is_none();
    if !satisfies(&whole(reported), &whole(desired)) || reported.groups.0.iter().any(stray) {
        return Some(prog(desired, Vec::new()));
    }
    let differs = |(name, group): &&(String, Tx)| {
        find_group(reported, name).is_none_or(|reported| !satisfies(reported, group))
    };
    let (name, group) = desired.groups.0.iter().find(differs)?;
    Some(prog(group, name.split(',').map(str::to_owned).collect()))
}

/// How long a node tries a transmission before it falls back to the former, s: long enough for two
/// readings under it and the command to keep it. Programs that send nothing have no trial.
pub fn trial_s(tx: &Tx) -> Option<u32> {
    if tx.program == Program::OnRequest || tx.program == Program::OnChange {
        // Nothing need come of it: there is no reading to wait for.
        return None;
    }
    let longest = tx.pmax.or(tx.pmin)?;
    Some((2 * (longest / 1000)).saturating_add(10).min(3600))
}

/// The value of an actuator as a node takes it; `None` for what has no spelling on the wire.
pub fn act_value(value: &Value) -> Option<ActValue> {
    match value {
        Value::Bool(on) => Some(ActValue::Bool(*on)),
        value => Decimal::from_f64(value.as_f64()?).map(ActValue::Number),
    }
}

/// What an answer means, in words.
pub fn refusal(status: &AckStatus, why: Option<&str>) -> String {
    let what = match status {
        AckStatus::Range => "the node reports that a value is out of its range",
        AckStatus::Op => "the node does not know the operation",
        AckStatus::Late => "it reached the node too late",
        AckStatus::Denied => "the node does not permit it",
        AckStatus::Crc => "it reached the node damaged",
        AckStatus::Busy => "the node was busy",
        AckStatus::Ok => "the node took it",
        AckStatus::Other(_) => "the node refused it",
    };
    match why {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    }
}

/// Why no such command can be sent, in words.
pub fn unsayable(error: &BodyError) -> String {
    format!("it cannot be encoded for a node: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn interval(ms: u32) -> Tx {
        Tx::new(Program::Interval, Some(ms), Some(ms))
    }

    /// A node that obeys.
    fn obey(reported: &mut Option<Tx>, op: &Op) {
        let Op::Prog(prog) = op else { panic!("{op}") };
        let mut tx = Tx::new(prog.program.clone(), prog.pmin, prog.pmax);
        (tx.st, tx.gt, tx.lt) =
            (Pairs(prog.st.clone()), Pairs(prog.gt.clone()), Pairs(prog.lt.clone()));
        if prog.on.is_empty() {
            *reported = Some(tx);
            return;
        }
        let whole = reported.as_mut().unwrap();
        let name = prog.on.join(",");
        whole.groups.0.retain(|(other, _)| *other != name);
        whole.groups.0.push((name, tx));
    }

    #[test]
    fn waits_double_and_are_spread_by_a_fifth() {
        for id in 1..2000 {
            for tries in 0..8 {
                let base = RETRY_US << tries.min(5);
                let wait = wait_us(id, tries);
                assert!((base * 4 / 5..=base * 6 / 5).contains(&wait), "{id} {tries} {wait}");
            }
        }
        let spread: std::collections::BTreeSet<i64> = (1..100).map(|id| wait_us(id, 0)).collect();
        assert!(spread.len() > 90);
    }

    #[test]
    fn what_is_left_to_the_profile_is_as_it_says() {
        let asked = Tx::new(Program::OnChange, Some(500), None);
        let is = Tx::new(Program::OnChange, Some(500), Some(60_000));
        assert!(satisfies(&is, &asked));
        assert!(!satisfies(&interval(500), &asked));
        assert_eq!(next_op(Some(&is), &asked, None), None);
    }

    proptest! {
        /// I6: whatever a node reports, the differences lead to what is desired, in one command
        /// and one for each group.
        #[test]
        fn differences_lead_to_what_is_desired(
            from in prop::collection::btree_map("[abc](,[de])?", 1_u32..5, 0..3),
            to in prop::collection::btree_map("[abc](,[de])?", 1_u32..5, 0..3),
            base in 1_u32..3,
        ) {
            let tx = |base, groups: &std::collections::BTreeMap<String, u32>| Tx {
                groups: Pairs(groups.iter().map(|(n, ms)| (n.clone(), interval(*ms))).collect()),
                ..interval(base)
            };
            let (mut reported, desired) = (Some(tx(1, &from)), tx(base, &to));
            for _ in 0..=to.len() {
                match next_op(reported.as_ref(), &desired, None) {
                    Some(op) => obey(&mut reported, &op),
                    None => break,
                }
            }
            prop_assert_eq!(next_op(reported.as_ref(), &desired, None), None);
            prop_assert!(satisfies(reported.as_ref().unwrap(), &desired));
        }
    }
}
