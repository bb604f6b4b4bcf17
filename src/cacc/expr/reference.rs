//! What a condition can name and call, for people: `edgetwin explain expressions` prints it.

/// One form and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Under which heading it stands.
    pub group: &'static str,
    /// How it is written.
    pub form: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn entry(group: &'static str, form: &'static str, meaning: &'static str) -> Entry {
    Entry { group, form, meaning }
}

/// All forms, in the order in which they are explained.
pub const REFERENCE: &[Entry] = &[
    entry("Values", "temperature", "A property of the twin."),
    entry("Values", "environment.temperature", "The same, where two features have the property."),
    entry(
        "Values",
        "value(\"air-quality/pm-10\")",
        "The same, where a name has other characters than letters, digits and _.",
    ),
    entry("Values", "label(\"KEY\")", "A label of the twin, as text; empty if it has none."),
    entry(
        "Verdicts",
        "verdict(\"SERVICE\").label",
        "The newest verdict of a service about the twin. Further fields: score, model, version, \
         ofRevision, latencyMs, instance.",
    ),
    entry("Windows", "avg(temperature, 5m)", "The mean over the last 5 minutes."),
    entry("Windows", "min(temperature, 5m)", "The least value."),
    entry("Windows", "max(temperature, 5m)", "The greatest value."),
    entry("Windows", "stddev(temperature, 5m)", "The standard deviation."),
    entry(
        "Windows",
        "rate(temperature, 5m)",
        "The change a second, from the first to the last value.",
    ),
    entry("Windows", "count(temperature, 5m)", "How many values came."),
    entry(
        "Age",
        "age(temperature)",
        "How long ago the property changed; of a verdict, when it came.",
    ),
    entry(
        "Groups",
        "any(occupied)",
        "Whether a true-or-false property holds for one of the rule's nodes.",
    ),
    entry("Groups", "all(occupied)", "Whether it holds for all of the rule's nodes."),
    entry(
        "Nodes and links",
        "node.online",
        "The health of the twin's node. Further fields: battery, lastSeen, lost, rssi, uptime, program.",
    ),
    entry(
        "Nodes and links",
        "link.loss",
        "The link of the node. Further fields: load, delay, rate.",
    ),
    entry(
        "Nodes and links",
        "channel().state",
        "The node's channel, or channel(\"NAME\"). Further fields: load, loss, delay.",
    ),
    entry("Functions", "has(temperature)", "Whether the twin has the property."),
    entry("Functions", "abs(temperature - 20)", "The magnitude of a number."),
    entry(
        "Functions",
        "label(\"room\").startsWith(\"north\")",
        "On text: contains, startsWith, endsWith.",
    ),
    entry(
        "Operators",
        "&& || !",
        "And, or, not. A value that is not known makes the condition unknown, which is not true.",
    ),
    entry(
        "Operators",
        "== != < <= > >=",
        "Comparisons of numbers, text and durations of the same kind.",
    ),
    entry("Operators", "+ - * / %", "Arithmetic on numbers."),
    entry("Operators", "room in [\"a\", \"b\"]", "Whether a list has the value."),
    entry(
        "Literals",
        "10s 5m 1h 250ms",
        "Durations. Text is written in quotes, numbers as 3 or 3.5.",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn every_function_and_field_is_explained() {
        let text: String =
            REFERENCE.iter().map(|entry| format!("{} {}\n", entry.form, entry.meaning)).collect();
        for name in check::names() {
            let found = text.match_indices(name).any(|(at, _)| {
                let letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
                !letter(text[..at].chars().next_back())
                    && !letter(text[at + name.len()..].chars().next())
            });
            assert!(found, "{name}");
        }
    }
}
