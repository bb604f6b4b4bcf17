//! Conditions of context rules: CEL in, a checked and typed tree out.
//!
//! The `cel` crate parses; names, types and units are checked here against the properties,
//! services and channels in [`Scope`], and every fault carries the byte offset in the
//! expression, so that a manifest can show its line and column. [`check()`] also returns the
//! typed tree ([`Term`]), which is all that an evaluator needs: durations are milliseconds,
//! names are resolved, windows are explicit, and [`Checked::facts`] lists what it reads.
//!
//! Beyond plain CEL there are duration literals (`10s`, `1h`): they are put in as identifiers of
//! the same length before parsing, so that offsets stay true.
//!
//! What a condition can name:
//! - a property: `temperature`, or `environment.temperature` where two features have the name,
//!   or `value("air-quality/pm-10")` where the name is not an identifier;
//! - `verdict("SERVICE")` with `.label .score .model .version .ofRevision .latencyMs .instance`;
//! - `avg min max stddev rate count` of a property over a duration; `age` of a property or
//!   verdict; `any all` of a true-or-false property over the rule's nodes;
//! - `label("KEY")` of the twin; `channel()` or `channel("NAME")` with `.state .load .loss
//!   .delay`; `link` with `.load .loss .delay .rate`; `node` with `.online .battery .lastSeen
//!   .lost .rssi .uptime .program`;
//! - `abs`, `has`, and on text `contains startsWith endsWith`.
//!
//! `term` has the types that the parts share, `parse` takes durations out and makes the parser's
//! faults plain, `check` types the tree, [`eval`] compiles and evaluates it.
//!
//! Not here: windows' contents and other facts; YAML.

mod check;
pub mod eval;
mod parse;
pub mod reference;
mod term;

use std::collections::BTreeSet;

use cel::parser::Parser;

use check::Checker;
use parse::{explain_syntax, offset_of, take_out_durations};

pub use term::{
    Checked, EXPRESSION_BYTES_MAX, ExprError, Fact, Fault, LinkField, NodeField, Property,
    PropertyRef, Scope, Service, Term, Type, VerdictField, Window,
};

/// Parses and checks a condition.
///
/// # Errors
/// Every fault found, in the order of their places; at least one. A syntax fault hides the rest.
pub fn check(text: &str, scope: &Scope) -> Result<Checked, Vec<ExprError>> {
    let syntax = |offset, message: String, help: &str| {
        vec![ExprError { fault: Fault::Syntax, offset, width: 1, message, help: help.to_owned() }]
    };
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes");
        return Err(syntax(0, message, "split it into several rules"));
    }
    if text.trim().is_empty() {
        return Err(syntax(
            0,
            "the expression is empty".to_owned(),
            "write `true` for a rule that always holds",
        ));
    }
    let (prepared, durations) = take_out_durations(text)?;
    let parsed = Parser::new().max_recursion_depth(48).parse_with_source_info(&prepared);
    let (expr, source) = parsed.map_err(|errors| {
        let mut faults: Vec<ExprError> = errors
            .errors
            .iter()
            .map(|error| {
                let offset = offset_of(&prepared, error.pos);
                let (message, help) = explain_syntax(text, offset, &error.msg);
                ExprError { fault: Fault::Syntax, offset, width: 1, message, help }
            })
            .collect();
        // What follows a syntax fault is mostly noise of the parser's recovery.
        faults.truncate(1);
        faults
    })?;
    let mut checker =
        Checker { text, scope, source: &source, durations: &durations, errors: Vec::new() };
    let typed = checker.expr(&expr);
    if let Some((_, kind)) = &typed
        && !matches!(kind, Type::Bool | Type::Any)
    {
        let start = checker.start(&expr);
        checker.fail(
            Fault::NotACondition,
            start,
            text.trim().chars().count(),
            format!("the condition is {}, not true or false", kind.words()),
            "compare it with something: `temperature > 30`",
        );
    }
    let mut errors = checker.errors;
    errors.sort_by_key(|error| error.offset);
    errors.dedup();
    match typed {
        Some((term, _)) if errors.is_empty() => {
            let mut facts = BTreeSet::new();
            collect_facts(&term, &mut facts);
            Ok(Checked { term, facts: facts.into_iter().collect() })
        }
        _ => Err(errors),
    }
}

fn collect_facts(term: &Term, facts: &mut BTreeSet<Fact>) {
    match term {
        Term::Fact(fact) | Term::Has(fact) => {
            facts.insert(fact.clone());
        }
        Term::List(items) => items.iter().for_each(|item| collect_facts(item, facts)),
        Term::Not(inner) | Term::Negate(inner) | Term::Abs(inner) => collect_facts(inner, facts),
        Term::Binary(_, left, right) => {
            [left, right].into_iter().for_each(|side| collect_facts(side, facts))
        }
        Term::Choose(a, b, c) => [a, b, c].into_iter().for_each(|part| collect_facts(part, facts)),
        Term::Bool(_) | Term::Number(_) | Term::Text(_) | Term::DurationMs(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let property = |feature: &str, name: &str, value: Type| Property {
            feature: feature.to_owned(),
            name: name.to_owned(),
            value,
        };
        let number = |unit: &str| Type::Number(Some(unit.to_owned()));
        Scope {
            properties: vec![
                property("environment", "temperature", number("Cel")),
                property("environment", "humidity", number("%RH")),
                property("pir", "motion", Type::Bool),
                property("robot", "vibration", number("m/s2")),
                property("vitals", "ecg", number("mV")),
                property("room", "occupancy", Type::Number(None)),
                property("a", "level", number("m")),
                property("b", "level", number("m")),
                property("air-quality", "pm-10", number("ug/m3")),
                property(
                    "door",
                    "state",
                    Type::Text(Some(vec!["open".to_owned(), "shut".to_owned()])),
                ),
            ],
            open: false,
            services: vec![
                Service {
                    name: "data-anomaly".to_owned(),
                    labels: Some(vec!["normal".to_owned(), "anomalous".to_owned()]),
                },
                Service { name: "crowd-audio".to_owned(), labels: None },
                Service { name: "early-warning".to_owned(), labels: None },
            ],
            channels: vec!["wifi-6".to_owned()],
        }
    }

    /// Offset and fault of each error.
    fn faults(text: &str) -> Vec<(Fault, usize)> {
        match check(text, &scope()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|error| (error.fault, error.offset)).collect(),
        }
    }

    #[test]
    fn rules_of_the_documentation_check() {
        for text in [
            r#"verdict("crowd-audio").label == "unrest" && verdict("crowd-audio").score > 0.8"#,
            r#"verdict("crowd-audio").score < 0.5"#,
            r#"any(motion) && channel().state == "Saturated""#,
            r#"verdict("early-warning").score >= 5 || age(ecg) > 10s"#,
            "stddev(vibration, 10s) > 3 * stddev(vibration, 1h)",
            "max(occupancy, 30m) == 0",
            r#"verdict("data-anomaly").label == "anomalous""#,
            "environment.temperature > 30 && !motion",
            r#"value("air-quality/pm-10") > 50.0"#,
            "a.level - b.level > 1",
            "has(environment.temperature) && age(verdict(\"data-anomaly\")) < 1m",
            "node.battery < 20 || node.lastSeen > 5m || link.loss > 0.2 || channel(\"wifi-6\").load > 0.9",
            "rate(temperature, 1m) > 0.5",
            "label(\"room\") in [\"north\", \"south\"] && door.state == \"open\"",
            "motion ? temperature > 1 : temperature > 2",
            "abs(temperature - 20) > 1.5 && -temperature < 3",
        ] {
            assert_eq!(check(text, &scope()).map(drop), Ok(()), "{text}");
        }
    }

    #[test]
    fn faults_stand_where_they_are() {
        assert_eq!(faults("temprature > 30"), [(Fault::UnknownName, 0)]);
        assert_eq!(faults("temperature > 30 && humdity < 2"), [(Fault::UnknownName, 20)]);
        assert_eq!(faults("environment.temprature > 1"), [(Fault::UnknownName, 12)]);
        assert_eq!(faults("age(ecg) > 10"), [(Fault::WrongOperand, 9)]);
        assert_eq!(faults("age(ecg) > 10sec"), [(Fault::WrongOperand, 11)]);
        assert_eq!(faults("temperature == \"warm\""), [(Fault::WrongOperand, 12)]);
        assert_eq!(faults("temperature > humidity"), [(Fault::UnitsDiffer, 12)]);
        assert_eq!(faults("temperature"), [(Fault::NotACondition, 0)]);
        assert_eq!(faults("  temperature + 1"), [(Fault::NotACondition, 2)]);
        assert_eq!(faults("average(temperature, 10s) > 1"), [(Fault::UnknownFunction, 0)]);
        assert_eq!(faults("motion && avg(temperature) > 1"), [(Fault::WrongArguments, 10)]);
        assert_eq!(faults("avg(temperature, 10) > 1"), [(Fault::WrongArguments, 17)]);
        assert_eq!(faults("avg(motion, 10s) > 1"), [(Fault::WrongArguments, 4)]);
        assert_eq!(faults("any(temperature)"), [(Fault::WrongArguments, 4)]);
        assert_eq!(faults("level > 1"), [(Fault::UnknownName, 0)]);
        assert_eq!(faults("verdict(\"data-anomly\").label == \"x\""), [(Fault::UnknownService, 9)]);
        assert_eq!(faults("verdict(\"data-anomaly\").lable == \"x\""), [(Fault::UnknownName, 24)]);
        assert_eq!(
            faults("verdict(\"data-anomaly\").label == \"anomalus\""),
            [(Fault::UnknownName, 34)]
        );
        assert_eq!(faults("channel().state == \"Saturatd\""), [(Fault::UnknownName, 20)]);
        assert_eq!(faults("motion && temperature"), [(Fault::WrongOperand, 10)]);
        assert_eq!(faults("node.batery < 1"), [(Fault::UnknownName, 5)]);
        assert_eq!(faults("motion < true"), [(Fault::WrongOperand, 7)]);
        assert_eq!(faults("[1, 2].all(x, x > 1)").len(), 1);
        assert_eq!(faults(""), [(Fault::Syntax, 0)]);
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(
            faults("temprature > 30 && avg(humdity, 10s) > 1 && nope(motion)"),
            [(Fault::UnknownName, 0), (Fault::UnknownName, 23), (Fault::UnknownFunction, 44)]
        );
    }

    #[test]
    fn syntax_faults_have_a_place_and_a_cure() {
        for (text, offset, help) in [
            ("temperature = 30", 12, "`==`"),
            ("temperature > ", 14, "missing"),
            ("temperature > 30 and motion", 17, "`&&`"),
            ("(temperature > 30", 17, "missing"),
            ("label(\"é\") = \"ü\"", 12, "`==`"),
            ("motion\n  && temperature = 3", 24, "`==`"),
        ] {
            let errors = check(text, &scope()).unwrap_err();
            assert_eq!(
                (errors[0].fault, errors[0].offset),
                (Fault::Syntax, offset),
                "{text}: {errors:?}"
            );
            assert!(errors[0].help.contains(help), "{errors:?}");
        }
    }

    #[test]
    fn offsets_count_bytes_behind_other_letters() {
        let text = "label(\"é\") == \"ü\" && temprature > 1";
        assert_eq!(faults(text), [(Fault::UnknownName, text.find("temprature").unwrap())]);
    }

    #[test]
    fn twins_without_a_model_have_any_property() {
        let open = Scope { open: true, ..scope() };
        assert!(
            check("pressure > 3 && barometer.value < 2 && avg(pressure, 1m) > 1", &open).is_ok()
        );
        assert!(check("pressure > 3", &scope()).is_err());
    }

    #[test]
    fn facts_are_what_is_read() {
        let checked =
            check("stddev(vibration, 10s) > 3 * stddev(vibration, 1h) && motion", &scope())
                .unwrap();
        let vibration = PropertyRef { feature: "robot".to_owned(), name: "vibration".to_owned() };
        assert_eq!(checked.facts.len(), 3);
        assert!(checked.facts.contains(&Fact::Window(Window::Stddev, vibration, 3_600_000)));
    }
}
