//! Expressions: what their names can mean in a rule, and where a mistake stands.
//!
//! Not here: the language itself (`cacc::expr`).

use std::collections::HashSet;

use super::checker::Checker;
use super::index::{Found, Has, Item, reaches};
use crate::base::units::PropertyPath;
use crate::cacc::expr;
use crate::kinds::{DeriveFunction, PropertyModel, TwinAggregateSpec, TwinModelSpec, ValueType};
use crate::kinds::{Kind, Spec};
use crate::manifest::diagnostic::{Code, Diagnostic};
use crate::manifest::region::Region;
use crate::manifest::yaml::position_in_scalar;

impl<'a> Checker<'a, '_> {
    /// What the names in an expression of this rule can mean.
    pub(super) fn scope(&self, groups: &[usize]) -> expr::Scope {
        let mut scope = expr::Scope::default();
        let mut models: Vec<&TwinModelSpec> = Vec::new();
        for at in groups {
            let group = &self.index.groups[*at];
            match &group.has {
                Has::Anything => scope.open = true,
                Has::Model(model) => {
                    if !models.iter().any(|seen| std::ptr::eq(*seen, *model)) {
                        models.push(model);
                    }
                }
                Has::Derived(aggregate) => {
                    let members = self.index.members(group.namespace, aggregate);
                    scope.properties.extend(self.derived(aggregate, &members));
                }
            }
        }
        if groups.is_empty() {
            // Nothing selected yet: any model's property may be meant, also of a model that has
            // mistakes of its own.
            let declared = self.index.items.iter().filter(|item| item.kind == Kind::TwinModel);
            let broken = declared.clone().any(|item| item.spec.is_none());
            models.extend(declared.filter_map(|item| match item.spec {
                Some(Spec::TwinModel(model)) => Some(&**model),
                _ => None,
            }));
            scope.open = models.is_empty() || broken;
        }
        for model in models {
            for (feature, content) in &model.features {
                scope.properties.extend(content.properties.iter().map(|(name, property)| {
                    expr::Property {
                        feature: feature.clone(),
                        name: name.clone(),
                        value: expression_type(property),
                    }
                }));
            }
        }
        let mut seen = HashSet::new();
        scope
            .properties
            .retain(|property| seen.insert((property.feature.clone(), property.name.clone())));
        let reachable = |item: &&Item<'a>| reaches(self.item.namespace, item.namespace);
        scope.services = self
            .index
            .names(Kind::Service)
            .filter(reachable)
            .map(|item| {
                let model = match item.spec {
                    Some(Spec::Service(service)) => service.model.as_deref(),
                    _ => None,
                };
                let model =
                    model.and_then(|name| self.index.find(Kind::Model, item.namespace, name));
                let labels = match model.and_then(|model| model.spec) {
                    Some(Spec::Model(model)) if !model.labels.is_empty() => {
                        Some(model.labels.clone())
                    }
                    _ => None,
                };
                expr::Service { name: item.name.to_owned(), labels }
            })
            .collect();
        scope.channels = self
            .index
            .names(Kind::Channel)
            .filter(reachable)
            .map(|item| item.name.to_owned())
            .collect();
        scope
    }

    fn derived(&self, aggregate: &TwinAggregateSpec, members: &[usize]) -> Vec<expr::Property> {
        aggregate
            .derive
            .iter()
            .filter_map(|(target, derivation)| {
                let path = target.parse::<PropertyPath>().ok()?;
                let of = derivation.of.as_ref().and_then(|of| {
                    members.iter().find_map(|member| {
                        match self.index.property(&self.index.groups[*member], of) {
                            Found::Property(property) => Some(expression_type(property)),
                            Found::Missing | Found::Anything => None,
                        }
                    })
                });
                let value = match derivation.function {
                    DeriveFunction::Any | DeriveFunction::All => expr::Type::Bool,
                    DeriveFunction::Count => expr::Type::Number(None),
                    DeriveFunction::Latest => of.unwrap_or(expr::Type::Any),
                    _ => of.unwrap_or(expr::Type::Number(None)),
                };
                Some(expr::Property { feature: path.feature, name: path.property, value })
            })
            .collect()
    }

    pub(super) fn expression(&mut self, text: &str, path: &[&str], scope: &expr::Scope) {
        let Err(errors) = expr::check(text, scope) else {
            return;
        };
        for error in errors {
            let code = match error.fault {
                expr::Fault::Syntax => Code::ExpressionSyntax,
                expr::Fault::UnknownName => Code::UnknownName,
                expr::Fault::WrongOperand => Code::WrongOperand,
                expr::Fault::UnknownFunction => Code::UnknownFunction,
                expr::Fault::WrongArguments => Code::WrongArguments,
                expr::Fault::NotACondition => Code::NotACondition,
                expr::Fault::UnitsDiffer => Code::UnitsDiffer,
                expr::Fault::UnknownService => Code::UnknownService,
                expr::Fault::UnknownChannel => Code::UnknownReference,
            };
            let field = path.last().copied().unwrap_or_default();
            let message = format!("{}, in `{field}` of {}", error.message, self.item.words());
            let source = self.sources.iter().find(|source| source.name == self.item.file);
            let region = match (self.root.at(path), source) {
                (Some(node), Some(source)) => {
                    let at = position_in_scalar(&source.text, node, error.offset);
                    Region { at, width: u32::try_from(error.width).unwrap_or(1) }
                }
                _ => Region::default(),
            };
            let mut diagnostic = Diagnostic::error(code, self.item.file, region, message);
            if !error.help.is_empty() {
                diagnostic = diagnostic.help(error.help);
            }
            self.push(diagnostic, path);
        }
    }
}

fn expression_type(property: &PropertyModel) -> expr::Type {
    match property.value_type {
        ValueType::Number | ValueType::Integer => {
            expr::Type::Number(property.unit.as_ref().map(ToString::to_string))
        }
        ValueType::Boolean => expr::Type::Bool,
        ValueType::String => expr::Type::Text(property.values.clone()),
        ValueType::Object | ValueType::Array => expr::Type::Any,
    }
}
