//! Rules and programs: each field from the first layer that sets it, within the profile's bounds.

use super::layer::Layer;
use super::reasons::{Reasons, Refusal, Winner};
use super::spec::{Measured, NodeSpec, PERIOD_DEFAULT_MS, SCHEDULE};
use crate::cacc::rule::{Asked, Settings, Threshold};
use crate::wire::{Decimal, Pairs, Program, Tx};

/// What the layers ask for, within the profile's bounds.
pub(super) fn target(
    spec: &NodeSpec,
    user: &Asked,
    active: &[Layer<'_>],
    held: Option<&Asked>,
    reasons: Option<&mut Reasons>,
) -> (Tx, Option<u32>, Winner) {
    let rules = active.iter().map(|layer| &layer.effect.asked);
    let layers: Vec<&Asked> =
        std::iter::once(user).chain(rules).chain(held).chain([&spec.default]).collect();
    let strongest = layers.len();
    let held = held.is_some();
    let mut resolver = Resolver { spec, layers, active, held, strongest, reasons };
    let (base, schedule) = resolver.resolve(None);
    let Resolved { program, pmin, pmax, .. } = base;
    let mut tx = Tx::new(program, pmin, pmax);
    let per_property = resolver.layers.iter().any(|asked| !asked.properties.is_empty());
    let thresholds = tx.program == Program::OnChange;
    if !per_property && !thresholds {
        return (tx, schedule, resolver.winner(resolver.strongest));
    }
    let mut groups: Vec<(Vec<String>, Tx)> = Vec::new();
    for property in resolver.properties() {
        let (one, _) = resolver.resolve(Some(&property));
        let same =
            |tx: &Tx| tx.program == one.program && tx.pmin == one.pmin && tx.pmax == one.pmax;
        let place = if same(&tx) {
            &mut tx
        } else {
            let at = groups.iter().position(|(_, group)| same(group)).unwrap_or_else(|| {
                groups.push((Vec::new(), Tx::new(one.program.clone(), one.pmin, one.pmax)));
                groups.len() - 1
            });
            groups[at].0.push(property.name.clone());
            &mut groups[at].1
        };
        for (list, threshold) in
            [(&mut place.st, one.st), (&mut place.gt, one.gt), (&mut place.lt, one.lt)]
        {
            if let Some(threshold) = threshold.and_then(Decimal::from_f64) {
                list.0.push((property.name.clone(), threshold));
            }
        }
    }
    groups.sort_by(|a, b| a.0.cmp(&b.0));
    tx.groups = Pairs(groups.into_iter().map(|(names, tx)| (names.join(","), tx)).collect());
    (tx, schedule, resolver.winner(resolver.strongest))
}

/// What holds for one property, or for all that have nothing of their own.
struct Resolved {
    program: Program,
    pmin: Option<u32>,
    pmax: Option<u32>,
    st: Option<f64>,
    gt: Option<f64>,
    lt: Option<f64>,
}

struct Resolver<'a> {
    spec: &'a NodeSpec,
    /// From the strongest to the weakest.
    layers: Vec<&'a Asked>,
    active: &'a [Layer<'a>],
    /// The last layer but one is what the node was.
    held: bool,
    /// The strongest layer that sets a field.
    strongest: usize,
    reasons: Option<&'a mut Reasons>,
}

/// The settings of a layer for a property, the closest first.
fn settings<'a>(
    asked: &'a Asked,
    property: Option<&Measured>,
) -> impl Iterator<Item = &'a Settings> {
    let own = property.filter(|_| !asked.properties.is_empty()).map(|property| {
        let path = format!("{}/{}", property.feature, property.name);
        [path.as_str(), &property.name, &property.feature].map(|key| asked.properties.get(key))
    });
    own.into_iter().flatten().flatten().chain([&asked.all])
}

impl<'a> Resolver<'a> {
    fn winner(&self, layer: usize) -> Winner {
        match layer {
            0 => Winner::User,
            layer => match self.active.get(layer - 1) {
                Some(rule) => Winner::Rule(rule.name.to_string()),
                None if self.held && layer + 2 == self.layers.len() => Winner::Hold,
                None => Winner::Default,
            },
        }
    }

    /// The strongest layer from `from` on that sets a field, and to what.
    fn first<T>(
        &self,
        from: usize,
        property: Option<&Measured>,
        field: impl Fn(&Settings) -> Option<T>,
    ) -> Option<(usize, T)> {
        self.layers
            .iter()
            .enumerate()
            .skip(from)
            .find_map(|(at, asked)| Some((at, settings(asked, property).find_map(&field)?)))
    }

    fn note(&mut self, property: Option<&Measured>, field: &str, layer: Option<usize>) {
        self.strongest = self.strongest.min(layer.unwrap_or(self.layers.len()));
        if self.reasons.is_none() {
            return;
        }
        let by = layer.map_or(Winner::Default, |layer| self.winner(layer));
        if let Some(reasons) = &mut self.reasons {
            let key = match property {
                Some(property) => format!("{}.{field}", property.name),
                None => field.to_owned(),
            };
            // What a property shares with all is listed once.
            let shared = property.is_some() && reasons.winners.get(field) == Some(&by);
            if !shared {
                reasons.winners.insert(key, by);
            }
        }
    }

    fn refuse(&mut self, reason: &'static str, layer: usize, message: String) {
        let by = self.winner(layer);
        if let Some(reasons) = &mut self.reasons {
            let refusal = Refusal { reason, by, message, suspended: false };
            if !reasons.refusals.contains(&refusal) {
                reasons.refusals.push(refusal);
            }
        }
    }

    /// The program of the strongest layer from `from` on whose program the node has.
    fn program(&mut self, mut from: usize, property: Option<&Measured>) -> (usize, Program) {
        loop {
            let found = self.first(from, property, |settings| settings.program.clone());
            let Some((layer, program)) = found else {
                return (self.layers.len(), Program::Interval);
            };
            let on_node = match &program {
                Program::Other(word) if word == SCHEDULE => &Program::OnRequest,
                program => program,
            };
            let known = match self.spec.programs.as_slice() {
                [] => !matches!(on_node, Program::Other(_)),
                programs => programs.contains(on_node),
            };
            if known {
                return (layer, program);
            }
            self.refuse("NotInProfile", layer, format!("the node has no program `{program}`"));
            from = layer + 1;
        }
    }

    fn resolve(&mut self, property: Option<&Measured>) -> (Resolved, Option<u32>) {
        let (by, program) = self.program(0, property);
        self.note(property, "program", Some(by));
        let mut pmin = self.first(0, property, |settings| settings.pmin);
        let mut pmax = self.first(0, property, |settings| settings.pmax);
        let every = program == Program::Interval
            || matches!(&program, Program::Other(word) if word == SCHEDULE);
        if every {
            // One period: that of the stronger layer.
            let period = match (pmin, pmax) {
                (Some(least), Some(most)) if most.0 < least.0 => Some(most),
                (least, most) => least.or(most),
            };
            let period = period.unwrap_or((self.layers.len(), PERIOD_DEFAULT_MS));
            (pmin, pmax) = (Some(period), Some(period));
        } else if let Some((layer, _)) = pmax
            && layer > by
        {
            // The longest silence of another program does not apply to this one.
            let (_, weaker) = self.program(by + 1, property);
            pmax = pmax.filter(|_| weaker == program);
        }
        let pmin = pmin.map(|(layer, ms)| (layer, self.at_least(layer, ms)));
        let pmax = pmax.map(|(layer, ms)| (layer, self.at_most(layer, ms)));
        self.note(property, "pmin", pmin.map(|(layer, _)| layer));
        self.note(property, "pmax", pmax.map(|(layer, _)| layer));
        let pmin_ms = pmin.map(|(_, ms)| ms);
        let pmax_ms = pmax.map(|(layer, ms)| match pmin_ms {
            Some(least) if ms < least => {
                let message = format!("`pmax` {ms} ms is less than `pmin` {least} ms");
                if !every {
                    self.refuse("Clamped", layer, message);
                }
                least
            }
            _ => ms,
        });
        let mut resolved =
            Resolved { program, pmin: pmin_ms, pmax: pmax_ms, st: None, gt: None, lt: None };
        let mut schedule = None;
        match &resolved.program {
            Program::Other(word) if word == SCHEDULE => {
                schedule = resolved.pmin;
                (resolved.program, resolved.pmin, resolved.pmax) = (Program::OnRequest, None, None);
            }
            Program::OnRequest => (resolved.pmin, resolved.pmax) = (None, None),
            Program::OnChange => {
                if let Some(property) = property {
                    self.thresholds(property, &mut resolved);
                }
            }
            _ => {}
        }
        (resolved, schedule)
    }

    fn thresholds(&mut self, property: &Measured, resolved: &mut Resolved) {
        if !property.number {
            return;
        }
        let st = self.first(0, Some(property), |settings| settings.st);
        if let Some((layer, st)) = st {
            resolved.st = match (st, property.range) {
                (Threshold::Absolute(st), _) => Some(st),
                (Threshold::OfRange(share), Some(range)) => Some(share * range),
                (Threshold::OfRange(_), None) => {
                    let message = format!(
                        "a share of `{}` has no meaning: its model gives no range",
                        property.name
                    );
                    self.refuse("NotInProfile", layer, message);
                    None
                }
            };
            if resolved.st.is_some() {
                self.note(Some(property), "st", Some(layer));
            }
        }
        for (field, place) in [("gt", &mut resolved.gt), ("lt", &mut resolved.lt)] {
            let found = self.first(0, Some(property), |settings| {
                if field == "gt" { settings.gt } else { settings.lt }
            });
            if let Some((layer, value)) = found {
                *place = Some(value);
                self.note(Some(property), field, Some(layer));
            }
        }
    }

    fn at_least(&mut self, layer: usize, ms: u32) -> u32 {
        let least = self.spec.pmin_least.max(1);
        if ms < least {
            let message = format!("{ms} ms is less than the profile's {least} ms");
            self.refuse("Clamped", layer, message);
        }
        ms.max(least)
    }

    fn at_most(&mut self, layer: usize, ms: u32) -> u32 {
        let most = self.spec.pmax_most;
        if most > 0 && ms > most {
            let message = format!("{ms} ms is more than the profile's {most} ms");
            self.refuse("Clamped", layer, message);
        }
        let ms = if most > 0 { ms.min(most) } else { ms };
        ms.max(self.spec.pmin_least.max(1))
    }

    /// What the node measures; without a model, what is asked of.
    fn properties(&self) -> Vec<Measured> {
        if !self.spec.properties.is_empty() {
            return self.spec.properties.clone();
        }
        let keys = self.layers.iter().flat_map(|asked| asked.properties.keys());
        let mut named: Vec<Measured> = keys
            .map(|key| {
                let (feature, name) = key.rsplit_once('/').unwrap_or(("", key));
                let (feature, name) = (feature.to_owned(), name.to_owned());
                Measured { feature, name, number: true, range: None }
            })
            .collect();
        named.sort_by(|a, b| a.name.cmp(&b.name));
        named.dedup_by(|a, b| a.name == b.name);
        named
    }
}
