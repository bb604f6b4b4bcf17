//! What is decided, as one plain sentence. One template a cause; nothing here decides anything.

use crate::base::time::rfc3339;
use crate::base::units::Duration;
use crate::wire::{Program, Tx};

/// What a sentence is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation<'a> {
    /// The node's name.
    pub node: &'a str,
    /// How it is to talk.
    pub desired: &'a Tx,
    /// At which interval the edge asks, ms.
    pub schedule: Option<u32>,
    /// How it says that it talks.
    pub reported: Option<&'a Tx>,
    /// Since when that is desired, microseconds since 1970.
    pub since_us: i64,
    /// Now, microseconds since 1970.
    pub now_us: i64,
    /// Whose word it is.
    pub cause: Cause<'a>,
    /// How far it is.
    pub progress: Progress<'a>,
}

/// Whose word a transmission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'a> {
    /// A rule's whose condition holds, or that holds until then, microseconds since 1970.
    Rule(&'a str, Option<i64>),
    /// A person's.
    User,
    /// Nobody's: it is the default.
    Default,
    /// Nobody's: a person wants it left as it is.
    Held,
    /// A rule's of this name, which isolates the node.
    Quarantined(&'a str),
    /// Nobody's: its battery is low.
    LowBattery,
    /// A rule's that is over, while the return waits until then, microseconds since 1970.
    Waiting(i64),
}

/// How far a node is on the way to what is desired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// It is there.
    There,
    /// It is being told.
    Told,
    /// It was never heard of.
    Unheard,
    /// It sends readings, and has never said how it talks.
    Mute,
    /// It is away since then, microseconds since 1970.
    Away(i64),
    /// It refused, or did not answer: why.
    Refused(&'a str),
}

/// The sentence.
pub fn sentence(about: &Situation<'_>) -> String {
    let Situation { node, since_us, now_us, .. } = *about;
    let desired = talk(about.desired, about.schedule);
    let because = match about.cause {
        Cause::Rule(rule, Some(until_us)) => {
            format!("because `{rule}` holds for another {}", span(until_us - now_us))
        }
        Cause::Rule(rule, None) => format!("because `{rule}` holds"),
        Cause::User => "because somebody asked for it in `desiredProperties`".to_owned(),
        Cause::Default => "which is its default: no rule holds".to_owned(),
        Cause::Held => "because it is held so with `hold` in `desiredProperties`".to_owned(),
        Cause::Quarantined(rule) => format!("because `{rule}` has it in quarantine"),
        Cause::LowBattery => "because its battery is low".to_owned(),
        Cause::Waiting(due_us) => {
            format!(
                "and sends more again in {}, so that the load does not swing",
                span(due_us - now_us)
            )
        }
    };
    match about.progress {
        Progress::There => {
            format!("{node} sends {desired} since {}, {because}.", clock(since_us))
        }
        Progress::Told => format!("{node} is being told to send {desired}, {because}."),
        Progress::Unheard => {
            format!("{node} was not heard of yet; it is to send {desired}, {because}.")
        }
        Progress::Mute => {
            format!("{node} has not said how it talks; it is to send {desired}, {because}.")
        }
        Progress::Away(away_us) => format!(
            "{node} is away since {}; when it comes back it is to send {desired}, {because}.",
            clock(away_us)
        ),
        Progress::Refused(why) => {
            let goes_on = match about.reported {
                Some(reported) => format!("; it goes on sending {}", talk(reported, None)),
                None => String::new(),
            };
            format!("{node} is to send {desired}, {because}, and does not: {why}{goes_on}.")
        }
    }
}

/// A transmission in words that follow "sends".
pub fn talk(tx: &Tx, schedule: Option<u32>) -> String {
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
    let groups = tx
        .groups
        .0
        .iter()
        .map(|(names, group)| format!("{} {}", names.replace(',', " and "), talk(group, None)));
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
    rfc3339(time_us).get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_sentence() {
        let tx = Tx::new(Program::Interval, Some(200), Some(200));
        let slow = Tx::new(Program::Interval, Some(1500), Some(1500));
        let since_us = 1_700_000_000_000_000;
        let base = Situation {
            node: "node-17",
            desired: &tx,
            schedule: None,
            reported: Some(&slow),
            since_us,
            now_us: since_us + 40_000_000,
            cause: Cause::Rule("look-closer", Some(since_us + 120_000_000)),
            progress: Progress::There,
        };
        let say = |cause, progress| sentence(&Situation { cause, progress, ..base.clone() });
        let rule = base.cause;
        assert_eq!(
            say(rule, Progress::There),
            "node-17 sends every 200 ms since 22:13:20, because `look-closer` holds for another 80 s."
        );
        assert_eq!(
            say(Cause::Rule("look-closer", None), Progress::Told),
            "node-17 is being told to send every 200 ms, because `look-closer` holds."
        );
        assert_eq!(
            say(Cause::Default, Progress::Unheard),
            "node-17 was not heard of yet; it is to send every 200 ms, which is its default: no rule holds."
        );
        assert_eq!(
            say(Cause::Rule("r", None), Progress::Mute),
            "node-17 has not said how it talks; it is to send every 200 ms, because `r` holds."
        );
        assert_eq!(
            say(Cause::User, Progress::Away(since_us)),
            "node-17 is away since 22:13:20; when it comes back it is to send every 200 ms, because somebody asked for it in `desiredProperties`."
        );
        assert_eq!(
            say(rule, Progress::Refused("the node says that a value is out of its range: pmin")),
            "node-17 is to send every 200 ms, because `look-closer` holds for another 80 s, and does not: the node says that a value is out of its range: pmin; it goes on sending every 1.5 s."
        );
        let ends = |cause, end: &str| assert!(say(cause, Progress::There).ends_with(end));
        ends(Cause::Held, "because it is held so with `hold` in `desiredProperties`.");
        ends(Cause::Quarantined("liar"), "because `liar` has it in quarantine.");
        ends(Cause::LowBattery, "because its battery is low.");
        assert_eq!(
            say(Cause::Waiting(since_us + 50_000_000), Progress::There),
            "node-17 sends every 200 ms since 22:13:20, and sends more again in 10 s, so that the load does not swing."
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
            assert_eq!(talk(&tx, schedule), words);
        }
    }
}
