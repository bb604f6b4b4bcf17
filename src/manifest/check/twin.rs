//! Twins and TwinSets: their model has what their services, profile and desired values need.
//!
//! Not here: how they transmit (`transmission`), the services themselves (`service`).

use std::collections::HashSet;

use serde_json::Value;

use super::checker::Checker;
use super::index::{Found, Group};
use crate::base::text::list_words;
use crate::base::text::suggest;
use crate::base::units::PropertyPath;
use crate::kinds::{Kind, Spec};
use crate::kinds::{ServiceNames, TwinSetSpec, TwinSpec};
use crate::manifest::diagnostic::{Code, Diagnostic, plural};

impl<'a> Checker<'a, '_> {
    pub(super) fn twin_set(&mut self, set: &'a TwinSetSpec) {
        if set.count.is_some() == set.names.is_some() {
            let message = format!("{} needs either `count` or `names`", self.item.words());
            self.key_error(Code::Contradiction, &["spec"], message);
        }
        for (at, name) in set.names.iter().flatten().enumerate() {
            self.object_name(name, &["spec", "names", &at.to_string()]);
        }
        self.labels(&set.template.metadata.labels, &["spec", "template", "metadata", "labels"]);
        self.twin(&set.template.spec, &["spec", "template", "spec"]);
    }

    pub(super) fn twin(&mut self, twin: &'a TwinSpec, base: &[&str]) {
        let at = |more: &[&str]| -> Vec<String> {
            base.iter().chain(more).map(|step| (*step).to_owned()).collect()
        };
        let namespace = self.item.namespace;
        if let Some(name) = &twin.model {
            self.reference(Kind::TwinModel, name, &refs(&at(&["model"])));
        }
        let has = self.index.model_of(self.item, twin);
        let group = Group::of_item(self.item, has, &twin.services);
        self.services(&group, base);
        if let Some(profile) = twin.node.as_ref().and_then(|node| node.profile.as_deref()) {
            let path = at(&["node", "profile"]);
            self.reference(Kind::NodeProfile, profile, &refs(&path));
            if let Some(Spec::NodeProfile(spec)) =
                self.index.find(Kind::NodeProfile, namespace, profile).and_then(|item| item.spec)
            {
                let measured = spec
                    .sensors
                    .iter()
                    .flat_map(|sensor| sensor.property.iter().chain(sensor.properties.values()));
                let driven = spec.actuators.iter().map(|actuator| &actuator.property);
                for property in measured.chain(driven) {
                    if matches!(self.index.property(&group, property), Found::Missing) {
                        let model = twin.model.as_deref().unwrap_or_default();
                        let message = format!(
                            "NodeProfile `{profile}` has `{property}`, which TwinModel `{model}` does not"
                        );
                        self.error(Code::UnknownProperty, &refs(&path), message);
                    }
                }
            }
        }
        for (feature, properties) in &twin.desired {
            for (name, value) in properties {
                let path = PropertyPath { feature: feature.clone(), property: name.clone() };
                let steps = at(&["desired", feature, name]);
                self.settable(&group, &path, value, &refs(&steps));
            }
        }
        if let Some(transmission) = &twin.transmission {
            self.transmission(transmission, &refs(&at(&["transmission"])));
        }
    }

    /// The services that a twin names: they exist, and the twin has what they read.
    pub(super) fn services(&mut self, group: &Group<'a>, base: &[&str]) {
        let mut seen: HashSet<&str> = HashSet::new();
        for (at, name) in group.services.names().into_iter().enumerate() {
            let at = at.to_string();
            let step = match group.services {
                ServiceNames::List(_) => at.as_str(),
                ServiceNames::Map(_) => name,
            };
            let path: Vec<&str> = base.iter().copied().chain(["services", step]).collect();
            if !seen.insert(name) {
                self.warning(Code::Unused, &path, format!("`{name}` is named twice"));
                continue;
            }
            if !self.reference(Kind::Service, name, &path) {
                continue;
            }
            let Some(service) = self.index.service(self.item.namespace, name) else {
                continue;
            };
            let own = match group.services {
                ServiceNames::Map(map) => map.get(name).and_then(|options| options.inputs.as_ref()),
                ServiceNames::List(_) => None,
            };
            let (inputs, region) = match own {
                Some(inputs) => {
                    if inputs.len() != service.inputs.len() {
                        let path: Vec<&str> = path.iter().copied().chain(["inputs"]).collect();
                        let message = format!(
                            "{} gives {} to `{name}`, which takes {}",
                            self.item.words(),
                            plural(inputs.len(), "input"),
                            service.inputs.len()
                        );
                        self.key_error(Code::InputsDiffer, &path, message);
                    }
                    (inputs, None)
                }
                None => {
                    let region = match group.services {
                        ServiceNames::List(_) => self.root.region_at(&path),
                        ServiceNames::Map(_) => self.root.key_region_at(&path),
                    };
                    (&service.inputs, Some(region))
                }
            };
            for (input_at, input) in inputs.iter().enumerate() {
                if !matches!(self.index.property(group, input), Found::Missing) {
                    continue;
                }
                let input_at = input_at.to_string();
                let region = region.unwrap_or_else(|| {
                    let path: Vec<&str> =
                        path.iter().copied().chain(["inputs", input_at.as_str()]).collect();
                    self.root.region_at(&path)
                });
                let message =
                    format!("`{name}` reads `{input}`, which {} does not have", self.item.words());
                let names = self.index.property_names(group);
                let guess = suggest(&input.to_string(), names.iter().map(String::as_str));
                let mut diagnostic =
                    Diagnostic::error(Code::UnknownProperty, self.item.file, region, message);
                if let Some(guess) = guess {
                    diagnostic =
                        diagnostic.help(format!("did you mean `{guess}` in the service's inputs?"));
                }
                diagnostic = diagnostic
                    .help(format!("it has {}", list_words(names.iter().map(String::as_str))));
                self.push(diagnostic, &path);
            }
        }
    }

    /// A value that is asked of a property: the property exists, may be set, and takes the value.
    pub(super) fn settable(
        &mut self,
        group: &Group<'a>,
        path: &PropertyPath,
        value: &Value,
        steps: &[&str],
    ) {
        match self.index.property(group, path) {
            Found::Anything => {}
            Found::Missing => {
                let names = self.index.property_names(group);
                let message = format!(
                    "{} asks for `{path}`, which the twin's model does not have",
                    self.item.words()
                );
                let guess =
                    suggest(&path.to_string(), names.iter().map(String::as_str)).map(str::to_owned);
                let diagnostic = self.key_error(Code::UnknownProperty, steps, message);
                if let Some(guess) = guess {
                    diagnostic.help.push(format!("did you mean `{guess}`?"));
                }
            }
            Found::Property(property) => {
                if property.read_only {
                    let message = format!("`{path}` cannot be set: it is read-only in its model");
                    self.key_error(Code::ReadOnly, steps, message).help.push(
                        "an actuator's property has `readOnly: false` in the TwinModel".to_owned(),
                    );
                }
                if let Some(why) = property.misfit(value) {
                    self.error(Code::WrongValue, steps, format!("`{path}` {why}"));
                }
            }
        }
    }
}

fn refs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
