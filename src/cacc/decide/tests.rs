//! Decisions, over rules and nodes of every sort.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::decision::HOLD_UP_US;
use super::safety::{Safety, Standing};
use super::*;
use crate::cacc::rule::{Asked, Class, Effect, Settings, Threshold};
use crate::wire::{Decimal, Program, Tx};

const S: i64 = 1_000_000;

fn spec() -> NodeSpec {
    let measured = |name: &str, number, range| Measured {
        feature: "environment".to_owned(),
        name: name.to_owned(),
        number,
        range,
    };
    NodeSpec {
        has_profile: true,
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
    // `low` had its raise, so it waits.
    let waits = decide(&[low], Some(&slowed), 2 * S);
    assert_eq!(waits.tx.pmin, Some(5000));
    let (target, due) = waits.target.clone().unwrap();
    assert_eq!((target.pmin, due), (Some(200), S + HOLD_UP_US));
    assert_eq!(decide(&[low], Some(&waits), due - 1).tx.pmin, Some(5000));
    assert_eq!(decide(&[low], Some(&waits), due).tx.pmin, Some(200));
    // A rule that becomes active anew has its own raise.
    let anew = layer("low", 0, 3 * S, &fast);
    assert_eq!(decide(&[anew], Some(&waits), 3 * S).tx.pmin, Some(200));
}

#[test]
fn each_field_is_set_by_the_strongest_that_sets_it() {
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
    assert_eq!((&tx.program, tx.pmin, tx.pmax), (&Program::OnChange, Some(1000), Some(600_000)));
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
fn a_program_that_the_node_lacks_is_refused_and_the_next_layer_counts() {
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
fn a_client_override_applies_before_all_rules_and_at_once() {
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

    /// Many nodes are decided as each is alone, and what applies is left as it is.
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
            prop_assert_eq!(together.map_or_else(|| before.clone(), |one| one.decision), alone);
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

    /// I10: a node in quarantine has no weight, and no rule applies about it.
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
        // And when it is not held any more, rules apply at once.
        let free = one(&user, Standing::default(), &layers(&rules), Some(&held), 61 * S, None);
        let as_new = decide(&layers(&rules), None, 0);
        if rules.iter().any(|(.., effect)| !effect.asked.is_empty()) {
            prop_assert_eq!(&free.tx, &as_new.tx);
        }
    }

    /// Of a node whose battery is low only rules of class `safety` apply.
    #[test]
    fn a_low_battery_permits_only_safety(rules in arbitrary_rules()) {
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
