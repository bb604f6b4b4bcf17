//! The functions that a condition can call: their names for the checker, a line each for people.
//!
//! Not here: what they take (`check`) and give (`eval`).

/// A function that a condition can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// An example of a call, which is a condition or a part of one.
    pub example: &'static str,
    /// What it gives, as a sentence.
    pub meaning: &'static str,
}

const fn function(name: &'static str, example: &'static str, meaning: &'static str) -> Function {
    Function { name, example, meaning }
}

/// All functions, in the order of the documentation.
pub const FUNCTIONS: &[Function] = &[
    function(
        "verdict",
        r#"verdict("data-anomaly").label == "anomalous""#,
        "The last verdict of a service about the twin: `.label`, `.score`, `.model`, `.version`, \
         `.ofRevision`, `.latencyMs`, `.instance`.",
    ),
    function("age", "age(temperature) > 1m", "Time since the property or verdict last changed."),
    function("avg", "avg(temperature, 10m) > 30", "Mean of a number over the last while."),
    function("min", "min(temperature, 10m) > 30", "Least value over the last while."),
    function("max", "max(temperature, 10m) < 30", "Greatest value over the last while."),
    function("stddev", "stddev(temperature, 10m) > 2", "Standard deviation over the last while."),
    function("rate", "rate(temperature, 1m) > 0.1", "Change per second over the last while."),
    function("count", "count(temperature, 1m) < 5", "Number of readings in the last while."),
    function(
        "any",
        "any(motion)",
        "Whether a true-or-false property is true on one of the rule's nodes.",
    ),
    function(
        "all",
        "all(motion)",
        "Whether a true-or-false property is true on all of the rule's nodes.",
    ),
    function(
        "value",
        r#"value("air-quality/pm-10") > 50"#,
        "A property whose name is not an identifier, by `feature/property`.",
    ),
    function("label", r#"label("room") == "north""#, "The value of a label of the twin, as text."),
    function(
        "channel",
        r#"channel("wifi").load > 0.8"#,
        "A Channel's health: `.state`, `.load`, `.loss`, `.delay`. Without a name, the node's own.",
    ),
    function("has", "has(environment.temperature)", "Whether a value is known."),
    function("abs", "abs(temperature) > 5", "A number without its sign."),
    function(
        "contains",
        r#"label("room").contains("lab")"#,
        "Whether text contains other text; called on the text.",
    ),
    function(
        "startsWith",
        r#"label("room").startsWith("n")"#,
        "Whether text starts with other text; called on the text.",
    ),
    function(
        "endsWith",
        r#"label("room").endsWith("h")"#,
        "Whether text ends with other text; called on the text.",
    ),
];

/// The functions that are called by name alone, for suggestions.
pub(super) fn names() -> Vec<&'static str> {
    let methods = ["contains", "startsWith", "endsWith"];
    FUNCTIONS.iter().map(|of| of.name).filter(|name| !methods.contains(name)).collect()
}
