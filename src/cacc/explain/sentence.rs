//! How a node transmits and why, as one sentence. Nothing here decides anything.

use crate::base::time::rfc3339;
use crate::base::units::Duration;
use crate::wire::{Program, Tx};

/// What a sentence is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation<'a> {
    /// The node's name.
    pub node: &'a str,
    /// How it is to transmit.
    pub desired: &'a Tx,
    /// At which interval the edge asks, ms.
    pub schedule: Option<u32>,
    /// How it reports that it transmits.
    pub reported: Option<&'a Tx>,
    /// Since when that is desired, microseconds since 1970.
    pub since_us: i64,
    /// Now, microseconds since 1970.
    pub now_us: i64,
    /// Why.
    pub because: Because<'a>,
    /// How far the node is.
    pub progress: Progress<'a>,
}

/// Why a transmission is desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because<'a> {
    /// A rule's condition holds, or the rule stays active until then, microseconds since 1970.
    Rule(&'a str, Option<i64>),
    /// A client asked for it.
    User,
    /// It is the default.
    Default,
    /// A client wants it left as it is.
    Held,
    /// The rule of this name isolates the node.
    Quarantined(&'a str),
    /// The battery is low.
    LowBattery,
    /// A rule ended, and what follows waits until then, microseconds since 1970.
    Waiting(i64),
}

/// How far a node is on the way to what is desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// It transmits as desired.
    Done,
    /// A command is under way.
    Commanded,
    /// No message ever came from it.
    NeverSeen,
    /// It sends readings, and has never reported how it transmits.
    Unreported,
    /// It has no profile and has never shown that it knows commands.
    NoCommands,
    /// It is offline since then, microseconds since 1970.
    Offline(i64),
    /// It refused, or did not answer: why.
    Refused(&'a str),
}

/// The sentence.
pub fn sentence(about: &Situation<'_>) -> String {
    let Situation { node, since_us, now_us, .. } = *about;
    let desired = transmission(about.desired, about.schedule);
    let because = match about.because {
        Because::Rule(rule, Some(until_us)) => {
            format!("rule `{rule}`, {} left", span(until_us - now_us))
        }
        Because::Rule(rule, None) => format!("rule `{rule}`"),
        Because::User => "set in `desiredProperties`".to_owned(),
        Because::Default => "its default".to_owned(),
        Because::Held => "held by `hold` in `desiredProperties`".to_owned(),
        Because::Quarantined(rule) => format!("quarantined by rule `{rule}`"),
        Because::LowBattery => "its battery is low".to_owned(),
        Because::Waiting(due_us) => format!(
            "it sends more again in {}, so that the load does not swing",
            span(due_us - now_us)
        ),
    };
    match about.progress {
        Progress::Done => {
            format!("{node} has been sending {desired} since {} ({because})", clock(since_us))
        }
        Progress::Commanded => format!("{node} is being set to send {desired} ({because})"),
        Progress::NeverSeen => {
            format!("{node} has not connected yet; it is to send {desired} ({because})")
        }
        Progress::Unreported => {
            format!("{node} has not reported how it transmits; it is to send {desired} ({because})")
        }
        Progress::NoCommands => format!(
            "{node} has no node profile, so no commands are sent to it; it is to send {desired} \
             ({because})"
        ),
        Progress::Offline(since_us) => format!(
            "{node} has been offline since {}; when it reconnects it is to send {desired} \
             ({because})",
            clock(since_us)
        ),
        Progress::Refused(reason) => {
            let instead = match about.reported {
                Some(reported) => format!("; it still sends {}", transmission(reported, None)),
                None => String::new(),
            };
            format!("{node} is to send {desired} ({because}) and does not: {reason}{instead}")
        }
    }
}

/// A transmission, as it follows "sends".
pub fn transmission(tx: &Tx, schedule: Option<u32>) -> String {
    let every = |ms: u32| format!("every {}", period(ms));
    let bounds = || match (tx.pmin, tx.pmax) {
        (Some(least), Some(most)) if most > 0 => {
            format!(", at most {} and at least {}", every(least), every(most))
        }
        (Some(least), _) => format!(", at most {}", every(least)),
        (None, Some(most)) if most > 0 => format!(", at least {}", every(most)),
        _ => String::new(),
    };
    let whole = match (&tx.program, schedule, tx.pmin.or(tx.pmax)) {
        (_, Some(ms), _) => format!("{} when it is asked", every(ms)),
        (Program::OnRequest, None, _) => "only when it is asked".to_owned(),
        (Program::Interval, _, Some(ms)) => every(ms),
        (Program::OnChange, ..) => format!("what changes{}", bounds()),
        (Program::Features, ..) => match (tx.pmin, tx.pmax) {
            (Some(least), Some(most)) if least == most => format!("a summary {}", every(least)),
            _ => format!("summaries{}", bounds()),
        },
        (program, ..) => format!("by the program `{program}`{}", bounds()),
    };
    let groups = tx.groups.0.iter().map(|(names, group)| {
        format!("{} {}", names.replace(',', " and "), transmission(group, None))
    });
    std::iter::once(whole).chain(groups).collect::<Vec<_>>().join(", and ")
}

/// `200 ms`, `1.5 s`, `15 min`.
fn period(ms: u32) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        1000..60_000 => format!("{} s", f64::from(ms) / 1000.0),
        _ if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        _ => Duration::from_ms(ms.into()).to_string(),
    }
}

/// What is left of a time: whole seconds, and one at least.
pub fn span(us: i64) -> String {
    let s = (us.max(0) + 999_999) / 1_000_000;
    match s {
        0..=1 => "1 s".to_owned(),
        2..=119 => format!("{s} s"),
        120..=7199 => format!("{} min", s / 60),
        _ => format!("{} h", s / 3600),
    }
}

/// The time of day, UTC.
fn clock(time_us: i64) -> String {
    format!("{} UTC", rfc3339(time_us).get(11..19).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_sentence() {
        let tx = Tx::new(Program::Interval, Some(200), Some(200));
        let slow = Tx::new(Program::Interval, Some(1500), Some(1500));
        let since_us = 1_700_000_000_000_000;
        let rule = Because::Rule("look-closer", Some(since_us + 70_000_000));
        let base = Situation {
            node: "north-4",
            desired: &tx,
            schedule: None,
            reported: Some(&slow),
            since_us,
            now_us: since_us + 40_000_000,
            because: rule,
            progress: Progress::Done,
        };
        let say = |because, progress| sentence(&Situation { because, progress, ..base.clone() });
        let other = Because::Rule("r", None);
        for (because, progress, expected) in [
            (
                rule,
                Progress::Done,
                "north-4 has been sending every 200 ms since 22:13:20 UTC (rule `look-closer`, 30 s left)",
            ),
            (other, Progress::Commanded, "north-4 is being set to send every 200 ms (rule `r`)"),
            (
                Because::Default,
                Progress::NeverSeen,
                "north-4 has not connected yet; it is to send every 200 ms (its default)",
            ),
            (
                other,
                Progress::Unreported,
                "north-4 has not reported how it transmits; it is to send every 200 ms (rule `r`)",
            ),
            (
                other,
                Progress::NoCommands,
                "north-4 has no node profile, so no commands are sent to it; it is to send every 200 ms (rule `r`)",
            ),
            (
                Because::User,
                Progress::Offline(since_us),
                "north-4 has been offline since 22:13:20 UTC; when it reconnects it is to send every 200 ms (set in `desiredProperties`)",
            ),
            (
                other,
                Progress::Refused("the node reports that a value is out of its range: pmin"),
                "north-4 is to send every 200 ms (rule `r`) and does not: the node reports that a value is out of its range: pmin; it still sends every 1.5 s",
            ),
        ] {
            assert_eq!(say(because, progress), expected);
        }
        let ends = |because, end: &str| {
            let said = say(because, Progress::Done);
            assert!(said.ends_with(end), "{said}");
        };
        ends(Because::Held, "(held by `hold` in `desiredProperties`)");
        ends(Because::Quarantined("liar"), "(quarantined by rule `liar`)");
        ends(Because::LowBattery, "(its battery is low)");
        ends(
            Because::Waiting(since_us + 50_000_000),
            "(it sends more again in 10 s, so that the load does not swing)",
        );
    }

    #[test]
    fn every_program_has_its_words() {
        let tx = |program, pmin, pmax| Tx::new(program, pmin, pmax);
        for (tx, schedule, words) in [
            (tx(Program::OnRequest, None, None), None, "only when it is asked"),
            (tx(Program::OnRequest, None, None), Some(60_000), "every 1 min when it is asked"),
            (
                tx(Program::OnChange, Some(1000), Some(900_000)),
                None,
                "what changes, at most every 1 s and at least every 15 min",
            ),
            (tx(Program::Features, Some(5000), Some(5000)), None, "a summary every 5 s"),
            (tx(Program::Other("burst".to_owned()), None, None), None, "by the program `burst`"),
        ] {
            assert_eq!(transmission(&tx, schedule), words);
        }
    }
}
