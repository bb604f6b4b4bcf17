//! TwinAggregates: their members have what is derived of them, and none is a member of itself.
//!
//! Not here: what a selector reaches (`reference`).

use std::collections::{HashMap, HashSet};

use super::checker::Checker;
use super::index::{Found, Group, Has, Index};
use crate::base::text::suggest;
use crate::base::units::PropertyPath;
use crate::kinds::{DeriveFunction, TwinAggregateSpec, ValueType};
use crate::manifest::diagnostic::{Code, Diagnostic};

impl<'a> Checker<'a, '_> {
    pub(super) fn aggregate(&mut self, aggregate: &'a TwinAggregateSpec) {
        let members = self.members(&aggregate.members, &["spec", "members"]);
        for (target, derivation) in &aggregate.derive {
            let path = ["spec", "derive", target.as_str()];
            match target.parse::<PropertyPath>() {
                Ok(_) => {}
                Err(error) => {
                    self.key_error(
                        Code::BadText,
                        &path,
                        format!("{}, in `derive` of {}", error.message, self.item.words()),
                    )
                    .help
                    .push(error.help);
                }
            }
            let function = derivation.function;
            let at = |field: &'static str| ["spec", "derive", target.as_str(), field];
            if (function == DeriveFunction::Quantile) != derivation.q.is_some() {
                let message = match derivation.q {
                    None => "`quantile` needs `q`, the quantile from 0 to 1".to_owned(),
                    Some(_) => format!("`{}` takes no `q`", function.name()),
                };
                self.error(Code::Contradiction, &at("fn"), message);
            }
            let Some(of) = &derivation.of else {
                if function != DeriveFunction::Count {
                    let message =
                        format!("`{}` needs `of`, the members' property", function.name());
                    self.key_error(Code::MissingField, &path, message);
                }
                continue;
            };
            for member in &members {
                let group = &self.index.groups[*member];
                let wanted: &[ValueType] = match function {
                    DeriveFunction::Any | DeriveFunction::All => &[ValueType::Boolean],
                    DeriveFunction::Count | DeriveFunction::Latest => &[],
                    _ => &[ValueType::Number, ValueType::Integer],
                };
                let member_words = self.index.items[group.item].words();
                match self.index.property(group, of) {
                    Found::Missing => {
                        let names = self.index.property_names(group);
                        let guess = suggest(&of.to_string(), names.iter().map(String::as_str))
                            .map(str::to_owned);
                        let message = format!("the member {member_words} has no `{of}`");
                        let diagnostic = self.error(Code::UnknownProperty, &at("of"), message);
                        if let Some(guess) = guess {
                            diagnostic.help.push(format!("did you mean `{guess}`?"));
                        }
                        break;
                    }
                    Found::Property(property)
                        if !wanted.is_empty() && !wanted.contains(&property.value_type) =>
                    {
                        let message = format!(
                            "`{}` takes {}, and `{of}` of {member_words} is {}",
                            function.name(),
                            if wanted.len() == 1 { "true or false" } else { "numbers" },
                            property.value_type.name()
                        );
                        self.error(Code::WrongValue, &at("of"), message);
                        break;
                    }
                    Found::Property(_) | Found::Anything => {}
                }
            }
        }
        let group = Group::of_item(self.item, Has::Derived(aggregate), &aggregate.services);
        self.services(&group, &["spec"]);
    }
}

/// Finds aggregates that are, over others, members of themselves. Each cycle is reported once,
/// at the member selector of its first aggregate.
pub(super) fn check_cycles(index: &Index<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let aggregates: Vec<(usize, &TwinAggregateSpec)> = index
        .groups
        .iter()
        .enumerate()
        .filter_map(|(at, group)| match group.has {
            Has::Derived(aggregate) => Some((at, aggregate)),
            _ => None,
        })
        .collect();
    let is_aggregate: HashSet<usize> = aggregates.iter().map(|(at, _)| *at).collect();
    let edges: HashMap<usize, Vec<usize>> = aggregates
        .iter()
        .map(|(at, aggregate)| {
            let members = index.members(index.groups[*at].namespace, aggregate);
            (*at, members.into_iter().filter(|member| is_aggregate.contains(member)).collect())
        })
        .collect();
    let mut done: HashSet<usize> = HashSet::new();
    for (start, _) in &aggregates {
        // Depth first with an explicit stack: chains can be long.
        let mut path: Vec<(usize, usize)> = vec![(*start, 0)];
        let mut on_path: HashSet<usize> = HashSet::from([*start]);
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            let member = edges.get(&at).and_then(|members| members.get(*next)).copied();
            *next += 1;
            match member {
                None => {
                    path.pop();
                    on_path.remove(&at);
                    done.insert(at);
                }
                Some(member) if on_path.contains(&member) => {
                    let cycle: Vec<usize> = path
                        .iter()
                        .map(|(at, _)| *at)
                        .skip_while(|at| *at != member)
                        .chain([member])
                        .collect();
                    report_cycle(index, &cycle, diagnostics);
                }
                Some(member) if !done.contains(&member) => {
                    path.push((member, 0));
                    on_path.insert(member);
                }
                Some(_) => {}
            }
        }
    }
}

fn report_cycle(index: &Index<'_>, cycle: &[usize], diagnostics: &mut Vec<Diagnostic>) {
    // A cycle that the runtime already has is not this run's mistake; report at the first
    // aggregate that was read.
    let Some(item) = cycle
        .iter()
        .map(|at| &index.items[index.groups[*at].item])
        .find(|item| item.root.is_some())
    else {
        return;
    };
    let names: Vec<String> = cycle
        .iter()
        .map(|at| &index.items[index.groups[*at].item])
        .map(|item| format!("`{}:{}`", item.namespace, item.name))
        .collect();
    let region = item.root.map(|root| root.key_region_at(&["spec", "members"])).unwrap_or_default();
    let message = if names.len() == 2 {
        format!("{} is a member of itself", item.words())
    } else {
        format!("{} is, through others, a member of itself: {}", item.words(), names.join(" has "))
    };
    diagnostics.push(
        Diagnostic::error(Code::Cycle, item.file, region, message)
            .help("take one of them out of the other's members, or let the selector exclude it"),
    );
}
