//! ContextRules: what they change exists on their nodes, and no two of them contradict each other.
//!
//! Not here: their conditions (`expression`).

use serde_json::Value;

use super::checker::Checker;
use super::index::{Found, Group, Has, Index};
use crate::base::text::list_words;
use crate::base::text::suggest;
use crate::base::units::PropertyPath;
use crate::kinds::{ContextRuleSpec, NodeSelector, RuleEffect, Transmission};
use crate::kinds::{Kind, Spec};
use crate::manifest::diagnostic::{Code, Diagnostic};

impl<'a> Checker<'a, '_> {
    pub(super) fn rule(&mut self, rule: &'a ContextRuleSpec) {
        let words = self.item.words();
        let groups = self.rule_groups(rule);
        let scope = self.scope(&groups);
        self.expression(&rule.when, &["spec", "when"], &scope);
        if let Some(until) = &rule.until {
            self.expression(until, &["spec", "until"], &scope);
        }
        let then = &rule.then;
        if *then == RuleEffect::default() {
            self.key_error(
                Code::MissingField,
                &["spec", "then"],
                format!("{words} changes nothing"),
            )
            .help
            .push(
                "add what changes, such as `then: {program: interval, interval: 200ms}`".to_owned(),
            );
        }
        self.rule_conflicts(rule);
        self.transmission(&then.transmission, &["spec", "then"]);
        for (name, transmission) in &then.properties {
            let path = ["spec", "then", "properties", name];
            self.rule_property(&groups, name, &path, true);
            self.transmission(transmission, &path);
        }
        for (at, name) in then.pull.iter().enumerate() {
            let at = at.to_string();
            self.rule_property(&groups, name, &["spec", "then", "pull", &at], false);
        }
        for (name, value) in &then.set {
            let path = ["spec", "then", "set", name];
            match name.parse::<PropertyPath>() {
                Err(error) => {
                    self.key_error(Code::BadText, &path, error.message).help.push(error.help);
                }
                Ok(property) => {
                    // It is enough that some of the nodes have the actuator.
                    let groups: Vec<&Group<'a>> =
                        groups.iter().map(|at| &self.index.groups[*at]).collect();
                    let has = |group: &&&Group<'a>| {
                        !matches!(self.index.property(group, &property), Found::Missing)
                    };
                    if let Some(group) = groups.iter().find(has).or(groups.first()) {
                        self.settable(group, &property, value, &path);
                    }
                }
            }
        }
    }

    /// Rules that set the same field for the same nodes, where only their names decide.
    fn rule_conflicts(&mut self, rule: &'a ContextRuleSpec) {
        let me = (self.item.namespace, self.item.name);
        let index = self.index;
        for other in index.names(Kind::ContextRule) {
            let Some(Spec::ContextRule(theirs)) = other.spec else { continue };
            // Of two that are both declared here, the second in the alphabet says so.
            let mine = other.root.is_none() || (other.namespace, other.name) < me;
            if (other.namespace, other.name) == me
                || !mine
                || theirs.priority != rule.priority
                || specificity(theirs) != specificity(rule)
                || !index.meet((self.item.namespace, rule), (other.namespace, theirs))
            {
                continue;
            }
            let Some(field) = common_field(rule, theirs) else { continue };
            let message = format!(
                "{} and {}{} both set `{field}`, to different values and with the same priority {}",
                self.item.words(),
                other.words(),
                other.place(),
                rule.priority
            );
            let path: &[&str] = match self.root.at(&["spec", "priority"]) {
                Some(_) => &["spec", "priority"],
                None => &["spec", "then"],
            };
            let region = match self.root.at(&["spec", "priority"]) {
                Some(_) => self.root.region_at(path),
                None => self.root.key_region_at(path),
            };
            let first = me.min((other.namespace, other.name)).1;
            let diagnostic =
                Diagnostic::warning(Code::RulesConflict, self.item.file, region, message)
                    .help(format!("`{first}` wins by its name; give one a higher `priority`"));
            self.push(diagnostic, path);
        }
    }

    fn rule_groups(&mut self, rule: &ContextRuleSpec) -> Vec<usize> {
        let nodes = &rule.nodes;
        let namespace = self.item.namespace;
        let mut groups = Vec::new();
        if let Some(aggregate) = &nodes.aggregate {
            if self.reference(Kind::TwinAggregate, aggregate, &["spec", "nodes", "aggregate"])
                && let Some(item) = self.index.find(Kind::TwinAggregate, namespace, aggregate)
                && let Some(Spec::TwinAggregate(spec)) = item.spec
            {
                groups.extend(self.index.twin(namespace, aggregate).flatten());
                groups.extend(self.index.members(item.namespace, spec));
            }
            if nodes.names.is_empty()
                && nodes.match_labels.is_empty()
                && nodes.match_expressions.is_empty()
            {
                return groups;
            }
        }
        if nodes.aggregate.is_none()
            && *nodes == (NodeSelector { each: nodes.each, ..Default::default() })
        {
            let message = format!("{} selects no nodes", self.item.words());
            self.key_error(Code::Contradiction, &["spec", "nodes"], message).help.push(
                "give `names`, `matchLabels`, `matchExpressions` or an `aggregate`".to_owned(),
            );
            return groups;
        }
        groups.extend(self.selector(
            &nodes.names,
            &nodes.match_labels,
            &nodes.match_expressions,
            &["spec", "nodes"],
        ));
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// A property that a rule names by property, feature, or `feature/property`.
    fn rule_property(&mut self, groups: &[usize], name: &str, path: &[&str], is_key: bool) {
        let groups: Vec<&Group<'a>> = groups.iter().map(|at| &self.index.groups[*at]).collect();
        if groups.is_empty() || groups.iter().any(|group| matches!(group.has, Has::Anything)) {
            return;
        }
        let mut known: Vec<String> =
            groups.iter().flat_map(|group| self.index.property_names(group)).collect();
        known.sort_unstable();
        known.dedup();
        let fits = |known: &String| {
            known == name
                || known
                    .split_once('/')
                    .is_some_and(|(feature, property)| feature == name || property == name)
        };
        if known.iter().any(fits) {
            return;
        }
        let words = known.iter().flat_map(|path| path.split('/').chain([path.as_str()]));
        let guess = suggest(name, words).map(str::to_owned);
        let message = format!("{} names `{name}`, which none of its nodes has", self.item.words());
        let region = if is_key { self.root.key_region_at(path) } else { self.root.region_at(path) };
        let mut diagnostic =
            Diagnostic::error(Code::UnknownProperty, self.item.file, region, message);
        if let Some(guess) = guess {
            diagnostic = diagnostic.help(format!("did you mean `{guess}`?"));
        }
        diagnostic =
            diagnostic.help(format!("they have {}", list_words(known.iter().map(String::as_str))));
        self.push(diagnostic, path);
    }
}

impl Index<'_> {
    /// Whether two rules are about a common node.
    fn meet(&self, one: (&str, &ContextRuleSpec), other: (&str, &ContextRuleSpec)) -> bool {
        let by_name = |(_, rule): (&str, &ContextRuleSpec)| {
            let nodes = &rule.nodes;
            nodes.match_labels.is_empty()
                && nodes.match_expressions.is_empty()
                && nodes.aggregate.is_none()
        };
        if by_name(one) && by_name(other) {
            let named = |(namespace, rule): (&str, &ContextRuleSpec)| -> Vec<String> {
                let full = |name: &String| match name.contains('/') {
                    true => name.clone(),
                    false => format!("{namespace}/{name}"),
                };
                rule.nodes.names.iter().map(full).collect()
            };
            let theirs = named(other);
            return named(one).iter().any(|name| theirs.contains(name));
        }
        let groups = |(namespace, rule): (&str, &ContextRuleSpec)| -> Vec<usize> {
            let nodes = &rule.nodes;
            let mut found: Vec<usize> = nodes
                .names
                .iter()
                .filter_map(|name| self.twin(namespace, name).flatten())
                .collect();
            found.extend(self.selected(namespace, &nodes.match_labels, &nodes.match_expressions));
            if let Some(name) = &nodes.aggregate
                && let Some(item) = self.find(Kind::TwinAggregate, namespace, name)
                && let Some(Spec::TwinAggregate(spec)) = item.spec
            {
                found.extend(self.members(item.namespace, spec));
            }
            found
        };
        let theirs = groups(other);
        groups(one).iter().any(|group| theirs.contains(group))
    }
}

/// How closely a rule names its nodes; see `cacc::rule::Target`.
fn specificity(rule: &ContextRuleSpec) -> u8 {
    match (rule.nodes.names.is_empty(), &rule.nodes.aggregate) {
        (false, _) => 2,
        (true, Some(_)) => 1,
        (true, None) => 0,
    }
}

/// A field that both rules set, and to different values.
fn common_field(one: &ContextRuleSpec, other: &ContextRuleSpec) -> Option<String> {
    let json = |value: Result<Value, _>| value.unwrap_or_default();
    let transmission = |of: &Transmission| {
        let mut of = of.clone();
        if let Some(interval) = of.interval.take() {
            (of.pmin, of.pmax) = (Some(interval), Some(interval));
        }
        json(serde_json::to_value(&of))
    };
    let differ = |mine: &Value, theirs: &Value, prefix: &str| {
        let mine = mine.as_object()?;
        let field = mine
            .iter()
            .find(|(field, value)| theirs.get(field.as_str()).is_some_and(|other| other != *value));
        field.map(|(field, _)| format!("{prefix}{field}"))
    };
    let (mine, theirs) = (&one.then, &other.then);
    differ(&transmission(&mine.transmission), &transmission(&theirs.transmission), "")
        .or_else(|| {
            mine.properties.iter().find_map(|(name, settings)| {
                let other = theirs.properties.get(name)?;
                differ(&transmission(settings), &transmission(other), &format!("{name}."))
            })
        })
        .or_else(|| {
            let mine = json(serde_json::to_value(&mine.set));
            differ(&mine, &json(serde_json::to_value(&theirs.set)), "set.")
        })
}
