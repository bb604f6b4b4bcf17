//! Names, types and units of a parsed expression, and the typed tree that comes out.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};

use super::parse::Durations;
use super::term::{
    Binary, CHANNEL_STATES, ExprError, Fact, Fault, LinkField, NodeField, Property, PropertyRef,
    Scope, Term, Type, VerdictField, Window,
};
use crate::base::text::suggest;

const WINDOWS: &[(&str, Window)] = &[
    ("avg", Window::Avg),
    ("min", Window::Min),
    ("max", Window::Max),
    ("stddev", Window::Stddev),
    ("rate", Window::Rate),
    ("count", Window::Count),
];

const FUNCTIONS: &[&str] = &[
    "verdict", "age", "avg", "min", "max", "stddev", "rate", "count", "any", "all", "value",
    "label", "channel", "has", "abs",
];

const VERDICT_FIELDS: &[(&str, VerdictField)] = &[
    ("label", VerdictField::Label),
    ("score", VerdictField::Score),
    ("model", VerdictField::Model),
    ("version", VerdictField::Version),
    ("ofRevision", VerdictField::OfRevision),
    ("latencyMs", VerdictField::LatencyMs),
    ("instance", VerdictField::Instance),
];

const CHANNEL_FIELDS: &[(&str, LinkField)] = &[
    ("state", LinkField::State),
    ("load", LinkField::Load),
    ("loss", LinkField::Loss),
    ("delay", LinkField::Delay),
];

const LINK_FIELDS: &[(&str, LinkField)] = &[
    ("load", LinkField::Load),
    ("loss", LinkField::Loss),
    ("delay", LinkField::Delay),
    ("rate", LinkField::Rate),
];

const NODE_FIELDS: &[(&str, NodeField)] = &[
    ("online", NodeField::Online),
    ("battery", NodeField::Battery),
    ("lastSeen", NodeField::LastSeen),
    ("lost", NodeField::Lost),
    ("rssi", NodeField::Rssi),
    ("uptime", NodeField::Uptime),
    ("program", NodeField::Program),
];

/// The names of all functions and fields.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let functions = FUNCTIONS.iter().copied();
    let verdict = VERDICT_FIELDS.iter().map(|(name, _)| *name);
    let channel = CHANNEL_FIELDS.iter().map(|(name, _)| *name);
    let link = LINK_FIELDS.iter().map(|(name, _)| *name);
    let node = NODE_FIELDS.iter().map(|(name, _)| *name);
    functions.chain(verdict).chain(channel).chain(link).chain(node)
}

/// What a name stands for before its field is taken.
enum Subject<'a> {
    Feature(&'a str),
    Verdict(String),
    Channel(Option<String>),
    Link,
    Node,
}

pub(super) type Typed = Option<(Term, Type)>;

pub(super) struct Checker<'a> {
    pub(super) text: &'a str,
    pub(super) scope: &'a Scope,
    pub(super) source: &'a SourceInfo,
    pub(super) durations: &'a Durations,
    pub(super) errors: Vec<ExprError>,
}

impl<'a> Checker<'a> {
    pub(super) fn fail(
        &mut self,
        fault: Fault,
        offset: usize,
        width: usize,
        message: String,
        help: impl Into<String>,
    ) {
        self.errors.push(ExprError {
            fault,
            offset,
            width: width.max(1),
            message,
            help: help.into(),
        });
    }

    fn token(&self, expr: &IdedExpr) -> usize {
        self.source.offset_for(expr.id).map_or(0, |(start, _)| start as usize)
    }

    /// Where the expression's first character is.
    pub(super) fn start(&self, expr: &IdedExpr) -> usize {
        match &expr.expr {
            Expr::Call(call) => match (&call.target, call.args.first()) {
                (Some(target), _) => self.start(target),
                (None, Some(first))
                    if is_operator(&call.func_name) && !is_prefix(&call.func_name) =>
                {
                    self.start(first)
                }
                (None, _) if is_operator(&call.func_name) => self.token(expr),
                (None, _) => self.name_before(self.token(expr), &call.func_name),
            },
            Expr::Select(select) if !select.test => self.start(&select.operand),
            _ => self.token(expr),
        }
    }

    /// Where a function's name starts that ends before the parenthesis at `open`.
    fn name_before(&self, open: usize, name: &str) -> usize {
        self.text.get(..open).and_then(|before| before.rfind(name)).unwrap_or(open)
    }

    /// Where the field of a selection is written.
    fn field_at(&self, expr: &IdedExpr, field: &str) -> usize {
        let dot = self.token(expr);
        self.text.get(dot..).and_then(|rest| rest.find(field)).map_or(dot, |at| dot + at)
    }

    fn unknown(
        &mut self,
        fault: Fault,
        offset: usize,
        name: &str,
        message: String,
        known: &[&str],
    ) {
        let help = match suggest(name, known.iter().copied()) {
            Some(guess) => format!("did you mean `{guess}`?"),
            None if known.is_empty() => String::new(),
            None => {
                let shown: Vec<String> =
                    known.iter().take(16).map(|word| format!("`{word}`")).collect();
                format!("there are {}", shown.join(", "))
            }
        };
        self.fail(fault, offset, name.chars().count(), message, help);
    }

    pub(super) fn expr(&mut self, expr: &'a IdedExpr) -> Typed {
        match &expr.expr {
            Expr::Literal(literal) => self.literal(expr, literal),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => self.select(expr, select),
            Expr::Call(call) => self.call(expr, call),
            Expr::List(list) => {
                let mut terms = Vec::new();
                let mut element: Option<Type> = None;
                for item in &list.elements {
                    let (term, kind) = self.expr(item)?;
                    if let Some(first) = &element
                        && !comparable(first, &kind)
                    {
                        let start = self.start(item);
                        let message =
                            format!("the list holds {} and {}", first.words(), kind.words());
                        self.fail(
                            Fault::WrongOperand,
                            start,
                            1,
                            message,
                            "a list holds values of one type",
                        );
                        return None;
                    }
                    element.get_or_insert(kind);
                    terms.push(term);
                }
                Some((Term::List(terms), Type::List(Box::new(element.unwrap_or(Type::Any)))))
            }
            Expr::Comprehension(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                let start = self.token(expr);
                self.fail(
                    Fault::WrongOperand,
                    start,
                    1,
                    "maps, messages and loops over lists are not part of a condition".to_owned(),
                    "use `any(property)`, `all(property)` or a window function",
                );
                None
            }
        }
    }

    fn literal(&mut self, expr: &IdedExpr, literal: &LiteralValue) -> Typed {
        Some(match literal {
            LiteralValue::Boolean(value) => (Term::Bool(*value.inner()), Type::Bool),
            LiteralValue::Double(value) => (Term::Number(*value.inner()), Type::Number(None)),
            LiteralValue::Int(value) => (Term::Number(*value.inner() as f64), Type::Number(None)),
            LiteralValue::UInt(value) => (Term::Number(*value.inner() as f64), Type::Number(None)),
            LiteralValue::String(value) => (Term::Text(value.inner().to_owned()), Type::Text(None)),
            LiteralValue::Null | LiteralValue::Bytes(_) => {
                let start = self.token(expr);
                let help = "whether a value is there is asked with `has(feature.property)`";
                self.fail(
                    Fault::WrongOperand,
                    start,
                    1,
                    "null and bytes are not values of a condition".to_owned(),
                    help,
                );
                return None;
            }
        })
    }

    fn duration_at(&self, offset: usize) -> Option<u64> {
        self.durations.iter().find(|(at, _)| *at == offset).map(|(_, ms)| *ms)
    }

    fn ident(&mut self, expr: &IdedExpr, name: &str) -> Typed {
        let at = self.token(expr);
        if let Some(ms) = self.duration_at(at) {
            return Some((Term::DurationMs(ms), Type::Duration));
        }
        let (property, kind) = self.property(at, name)?;
        Some((Term::Fact(Fact::Property(property)), kind))
    }

    /// A property by its bare name.
    fn property(&mut self, at: usize, name: &str) -> Option<(PropertyRef, Type)> {
        let scope = self.scope;
        let found: Vec<&Property> =
            scope.properties.iter().filter(|property| property.name == name).collect();
        let first = match found.as_slice() {
            [] => None,
            [first, rest @ ..] => {
                if let Some(other) = rest.iter().find(|other| other.feature != first.feature) {
                    let message = format!("`{name}` is in two features");
                    let help =
                        format!("write `{}.{name}` or `{}.{name}`", first.feature, other.feature);
                    self.fail(Fault::UnknownName, at, name.len(), message, help);
                    return None;
                }
                Some(*first)
            }
        };
        if let Some(property) = first {
            let reference =
                PropertyRef { feature: property.feature.clone(), name: name.to_owned() };
            return Some((reference, property.value.clone()));
        }
        if matches!(name, "link" | "node") {
            let fields = if name == "link" {
                "load, loss, delay, rate"
            } else {
                "online, battery, lastSeen, lost, rssi, uptime, program"
            };
            self.fail(
                Fault::WrongOperand,
                at,
                name.len(),
                format!("`{name}` is not a value by itself"),
                format!("it has the fields {fields}"),
            );
            return None;
        }
        if scope.properties.iter().any(|property| property.feature == name) {
            let names: Vec<&str> = scope
                .properties
                .iter()
                .filter(|p| p.feature == name)
                .map(|p| p.name.as_str())
                .collect();
            let help = format!("write `{name}.{}`", names.first().unwrap_or(&"property"));
            self.fail(
                Fault::UnknownName,
                at,
                name.len(),
                format!("`{name}` is a feature, not a property"),
                help,
            );
            return None;
        }
        if scope.open {
            return Some((
                PropertyRef { feature: String::new(), name: name.to_owned() },
                Type::Any,
            ));
        }
        let mut known: Vec<&str> =
            scope.properties.iter().map(|property| property.name.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        self.unknown(
            Fault::UnknownName,
            at,
            name,
            format!("there is no property `{name}` in the rule's twins"),
            &known,
        );
        None
    }

    /// A property by feature and name.
    fn feature_property(
        &mut self,
        at: usize,
        feature: &str,
        name: &str,
    ) -> Option<(PropertyRef, Type)> {
        let scope = self.scope;
        let reference = PropertyRef { feature: feature.to_owned(), name: name.to_owned() };
        if let Some(property) =
            scope.properties.iter().find(|p| p.feature == feature && p.name == name)
        {
            return Some((reference, property.value.clone()));
        }
        if scope.open {
            return Some((reference, Type::Any));
        }
        let known: Vec<&str> = scope
            .properties
            .iter()
            .filter(|p| p.feature == feature)
            .map(|p| p.name.as_str())
            .collect();
        let message = format!("feature `{feature}` has no property `{name}` in the rule's twins");
        self.unknown(Fault::UnknownName, at, name, message, &known);
        None
    }

    fn subject(&mut self, expr: &'a IdedExpr) -> Option<Subject<'a>> {
        match &expr.expr {
            Expr::Ident(name) => {
                let feature =
                    self.scope.properties.iter().any(|property| property.feature == *name);
                match name.as_str() {
                    _ if feature => Some(Subject::Feature(name)),
                    "link" => Some(Subject::Link),
                    "node" => Some(Subject::Node),
                    _ if self.scope.open => Some(Subject::Feature(name)),
                    _ => {
                        let at = self.token(expr);
                        let mut known: Vec<&str> =
                            self.scope.properties.iter().map(|p| p.feature.as_str()).collect();
                        known.extend(["link", "node"]);
                        known.sort_unstable();
                        known.dedup();
                        let message = format!("there is no feature `{name}` in the rule's twins");
                        self.unknown(Fault::UnknownName, at, name, message, &known);
                        None
                    }
                }
            }
            Expr::Call(call) if call.target.is_none() && call.func_name == "verdict" => {
                Some(Subject::Verdict(self.verdict(expr, call)?))
            }
            Expr::Call(call) if call.target.is_none() && call.func_name == "channel" => {
                let at = self.start(expr);
                match call.args.as_slice() {
                    [] => Some(Subject::Channel(None)),
                    [argument] => {
                        let name = self.text_argument(argument, "channel", "a Channel's name")?;
                        if !self.scope.channels.contains(&name) {
                            let at = self.token(argument) + 1;
                            let known: Vec<&str> =
                                self.scope.channels.iter().map(String::as_str).collect();
                            self.unknown(
                                Fault::UnknownChannel,
                                at,
                                &name,
                                format!("there is no Channel `{name}`"),
                                &known,
                            );
                            return None;
                        }
                        Some(Subject::Channel(Some(name)))
                    }
                    _ => {
                        let help = "write `channel()` for the node's own, or `channel(\"NAME\")`";
                        self.fail(
                            Fault::WrongArguments,
                            at,
                            7,
                            "`channel` takes at most one name".to_owned(),
                            help,
                        );
                        None
                    }
                }
            }
            _ => {
                let typed = self.expr(expr);
                if let Some((_, kind)) = typed {
                    let at = self.start(expr);
                    self.fail(
                        Fault::WrongOperand,
                        at,
                        1,
                        format!("{} has no fields", kind.words()),
                        "",
                    );
                }
                None
            }
        }
    }

    fn select(&mut self, expr: &'a IdedExpr, select: &'a SelectExpr) -> Typed {
        let field = select.field.as_str();
        let at = if select.test { self.token(expr) } else { self.field_at(expr, field) };
        let (fact, kind) = match self.subject(&select.operand)? {
            Subject::Feature(feature) => {
                let (property, kind) = self.feature_property(at, feature, field)?;
                (Fact::Property(property), kind)
            }
            Subject::Verdict(service) => {
                let of = self.field(at, field, "a verdict", VERDICT_FIELDS)?;
                let kind = match of {
                    VerdictField::Label => {
                        let labels = self
                            .scope
                            .services
                            .iter()
                            .find(|s| s.name == service)
                            .and_then(|s| s.labels.clone());
                        Type::Text(labels)
                    }
                    VerdictField::Score | VerdictField::OfRevision | VerdictField::LatencyMs => {
                        Type::Number(None)
                    }
                    VerdictField::Model | VerdictField::Version | VerdictField::Instance => {
                        Type::Text(None)
                    }
                };
                (Fact::Verdict(service, of), kind)
            }
            Subject::Channel(name) => {
                let of = self.field(at, field, "a channel", CHANNEL_FIELDS)?;
                (Fact::Channel(name, of), link_type(of))
            }
            Subject::Link => {
                let of = self.field(at, field, "`link`", LINK_FIELDS)?;
                (Fact::Link(of), link_type(of))
            }
            Subject::Node => {
                let of = self.field(at, field, "`node`", NODE_FIELDS)?;
                let kind = match of {
                    NodeField::Online => Type::Bool,
                    NodeField::Battery | NodeField::Lost | NodeField::Rssi => Type::Number(None),
                    NodeField::LastSeen | NodeField::Uptime => Type::Duration,
                    NodeField::Program => Type::Text(None),
                };
                (Fact::Node(of), kind)
            }
        };
        if select.test {
            return Some((Term::Has(fact), Type::Bool));
        }
        Some((Term::Fact(fact), kind))
    }

    fn field<T: Copy>(
        &mut self,
        at: usize,
        field: &str,
        owner: &str,
        table: &[(&str, T)],
    ) -> Option<T> {
        let found = table.iter().find(|(name, _)| *name == field).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
            self.unknown(
                Fault::UnknownName,
                at,
                field,
                format!("{owner} has no `{field}`"),
                &known,
            );
        }
        found
    }

    fn text_argument(&mut self, argument: &IdedExpr, function: &str, what: &str) -> Option<String> {
        if let Expr::Literal(LiteralValue::String(text)) = &argument.expr {
            return Some(text.inner().to_owned());
        }
        let at = self.start(argument);
        let message = format!("`{function}` takes {what} in quotes");
        self.fail(Fault::WrongArguments, at, 1, message, format!("write `{function}(\"…\")`"));
        None
    }

    fn verdict(&mut self, expr: &IdedExpr, call: &CallExpr) -> Option<String> {
        let at = self.start(expr);
        let [argument] = call.args.as_slice() else {
            let help = "write `verdict(\"SERVICE\").label`";
            self.fail(
                Fault::WrongArguments,
                at,
                7,
                "`verdict` takes one service's name".to_owned(),
                help,
            );
            return None;
        };
        let name = self.text_argument(argument, "verdict", "a service's name")?;
        if self.scope.services.iter().all(|service| service.name != name) {
            let at = self.token(argument) + 1;
            let known: Vec<&str> =
                self.scope.services.iter().map(|service| service.name.as_str()).collect();
            self.unknown(
                Fault::UnknownService,
                at,
                &name,
                format!("there is no Service `{name}`"),
                &known,
            );
            return None;
        }
        Some(name)
    }

    /// An argument that names a property.
    fn property_argument(
        &mut self,
        argument: &'a IdedExpr,
        function: &str,
    ) -> Option<(PropertyRef, Type)> {
        match &argument.expr {
            Expr::Ident(name) if self.duration_at(self.token(argument)).is_none() => {
                let at = self.token(argument);
                return self.property(at, name);
            }
            Expr::Select(_) | Expr::Call(_) => {
                if let (Term::Fact(Fact::Property(property)), kind) = self.expr(argument)? {
                    return Some((property, kind));
                }
            }
            _ => {}
        }
        let at = self.start(argument);
        let message = format!("`{function}` takes a property here");
        self.fail(
            Fault::WrongArguments,
            at,
            1,
            message,
            format!("write `{function}(temperature…)`"),
        );
        None
    }

    fn call(&mut self, expr: &'a IdedExpr, call: &'a CallExpr) -> Typed {
        if let Some(target) = &call.target {
            return self.member_call(expr, target, call);
        }
        let name = call.func_name.as_str();
        if is_operator(name) {
            return self.operator(expr, name, &call.args);
        }
        let at = self.start(expr);
        let width = name.chars().count();
        if let Some((_, window)) = WINDOWS.iter().find(|(word, _)| *word == name) {
            return self.window(at, name, *window, &call.args);
        }
        match (name, call.args.as_slice()) {
            ("age", [argument]) => {
                if let Expr::Call(inner) = &argument.expr
                    && inner.func_name == "verdict"
                {
                    let service = self.verdict(argument, inner)?;
                    return Some((Term::Fact(Fact::VerdictAge(service)), Type::Duration));
                }
                let (property, _) = self.property_argument(argument, name)?;
                Some((Term::Fact(Fact::Age(property)), Type::Duration))
            }
            ("any" | "all", [argument]) => {
                let (property, kind) = self.property_argument(argument, name)?;
                if !matches!(kind, Type::Bool | Type::Any) {
                    let at = self.start(argument);
                    let message = format!(
                        "`{name}` takes a true-or-false property, and this is {}",
                        kind.words()
                    );
                    self.fail(Fault::WrongArguments, at, property.name.len(), message, "");
                    return None;
                }
                let fact =
                    if name == "any" { Fact::AnyOf(property) } else { Fact::AllOf(property) };
                Some((Term::Fact(fact), Type::Bool))
            }
            ("value", [argument]) => {
                let path =
                    self.text_argument(argument, name, "a property as `feature/property`")?;
                let at = self.token(argument) + 1;
                let Some((feature, property)) = path.split_once('/') else {
                    let help = "write `value(\"feature/property\")`";
                    self.fail(
                        Fault::WrongArguments,
                        at,
                        path.chars().count(),
                        format!("`{path}` lacks its feature"),
                        help,
                    );
                    return None;
                };
                let (reference, kind) = self.feature_property(at, feature, property)?;
                Some((Term::Fact(Fact::Property(reference)), kind))
            }
            ("label", [argument]) => {
                let key = self.text_argument(argument, name, "a label's key")?;
                Some((Term::Fact(Fact::Label(key)), Type::Text(None)))
            }
            ("abs", [argument]) => {
                let (term, kind) = self.expr(argument)?;
                if !matches!(kind, Type::Number(_) | Type::Any) {
                    let at = self.start(argument);
                    let message = format!("`abs` takes a number, and this is {}", kind.words());
                    self.fail(Fault::WrongArguments, at, 1, message, "");
                    return None;
                }
                Some((Term::Abs(Box::new(term)), kind))
            }
            ("verdict" | "channel", _) => {
                // Checked for its own faults; by itself it is no value.
                self.subject(expr)?;
                let help = if name == "verdict" {
                    "take a field of it: `.label`, `.score`"
                } else {
                    "take a field of it: `.state`, `.load`"
                };
                self.fail(
                    Fault::WrongOperand,
                    at,
                    width,
                    format!("`{name}` is not a value by itself"),
                    help,
                );
                None
            }
            ("age" | "any" | "all" | "value" | "label" | "abs", arguments) => {
                let message = format!("`{name}` takes 1 argument, not {}", arguments.len());
                self.fail(Fault::WrongArguments, at, width, message, "");
                None
            }
            _ => {
                self.unknown(
                    Fault::UnknownFunction,
                    at,
                    name,
                    format!("there is no function `{name}`"),
                    FUNCTIONS,
                );
                None
            }
        }
    }

    fn window(
        &mut self,
        at: usize,
        name: &str,
        window: Window,
        arguments: &'a [IdedExpr],
    ) -> Typed {
        let [property, over] = arguments else {
            let message = format!(
                "`{name}` takes a property and a duration, not {} arguments",
                arguments.len()
            );
            self.fail(
                Fault::WrongArguments,
                at,
                name.len(),
                message,
                format!("write `{name}(temperature, 10m)`"),
            );
            return None;
        };
        let of = self.property_argument(property, name);
        let over_at = self.start(over);
        let ms = match &over.expr {
            Expr::Ident(_) => self.duration_at(over_at),
            _ => None,
        };
        let Some(ms) = ms.filter(|ms| *ms > 0) else {
            let message = format!("the second argument of `{name}` is a duration");
            let width =
                self.text.get(over_at..).map_or(1, |rest| rest.find([')', ',']).unwrap_or(1));
            self.fail(
                Fault::WrongArguments,
                over_at,
                width,
                message,
                "write it with a unit: `10s`, `5m`, `1h`",
            );
            return None;
        };
        let (of, kind) = of?;
        let kind = match (window, kind) {
            (Window::Count, _) => Type::Number(None),
            (Window::Rate, Type::Number(unit)) => {
                Type::Number(unit.map(|unit| format!("{unit}/s")))
            }
            (_, Type::Number(unit)) => Type::Number(unit),
            (_, Type::Any) => Type::Number(None),
            (_, other) => {
                let at = self.start(property);
                let message =
                    format!("`{name}` takes a number, and `{}` is {}", of.name, other.words());
                self.fail(
                    Fault::WrongArguments,
                    at,
                    of.name.len(),
                    message,
                    "`any(p)`, `all(p)` and `count(p, 1m)` take other properties",
                );
                return None;
            }
        };
        Some((Term::Fact(Fact::Window(window, of, ms)), kind))
    }

    fn member_call(
        &mut self,
        expr: &'a IdedExpr,
        target: &'a IdedExpr,
        call: &'a CallExpr,
    ) -> Typed {
        let name = call.func_name.as_str();
        let at = self.name_before(self.token(expr), name);
        let operator = match name {
            "contains" => Binary::Contains,
            "startsWith" => Binary::StartsWith,
            "endsWith" => Binary::EndsWith,
            _ => {
                let known = ["contains", "startsWith", "endsWith"];
                self.unknown(
                    Fault::UnknownFunction,
                    at,
                    name,
                    format!("there is no function `{name}` of a value"),
                    &known,
                );
                return None;
            }
        };
        let [argument] = call.args.as_slice() else {
            self.fail(
                Fault::WrongArguments,
                at,
                name.len(),
                format!("`{name}` takes 1 argument, not {}", call.args.len()),
                "",
            );
            return None;
        };
        let (target_at, argument_at) = (self.start(target), self.start(argument));
        let (target, argument) = (self.expr(target), self.expr(argument));
        let ((target, target_kind), (argument, argument_kind)) = (target?, argument?);
        for (at, kind) in [(target_at, target_kind), (argument_at, argument_kind)] {
            if !matches!(kind, Type::Text(_) | Type::Any) {
                self.fail(
                    Fault::WrongOperand,
                    at,
                    1,
                    format!("`{name}` works on text, and this is {}", kind.words()),
                    "",
                );
                return None;
            }
        }
        Some((Term::Binary(operator, Box::new(target), Box::new(argument)), Type::Bool))
    }

    fn operator(&mut self, expr: &'a IdedExpr, name: &str, arguments: &'a [IdedExpr]) -> Typed {
        match (name, arguments) {
            (operators::LOGICAL_NOT, [inner]) => {
                let term = self.condition(inner, "!");
                Some((Term::Not(Box::new(term?)), Type::Bool))
            }
            (operators::NEGATE, [inner]) => {
                let (term, kind) = self.expr(inner)?;
                if !matches!(kind, Type::Number(_) | Type::Any) {
                    let at = self.start(inner);
                    self.fail(
                        Fault::WrongOperand,
                        at,
                        1,
                        format!("`-` takes a number, and this is {}", kind.words()),
                        "",
                    );
                    return None;
                }
                Some((Term::Negate(Box::new(term)), kind))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
                let (binary, word) = if name == operators::LOGICAL_AND {
                    (Binary::And, "&&")
                } else {
                    (Binary::Or, "||")
                };
                let (left, right) = (self.condition(left, word), self.condition(right, word));
                Some((Term::Binary(binary, Box::new(left?), Box::new(right?)), Type::Bool))
            }
            (operators::CONDITIONAL, [condition, one, other]) => {
                let condition = self.condition(condition, "?");
                let other_at = self.start(other);
                let (one, other) = (self.expr(one), self.expr(other));
                let ((one, kind), (other, other_kind)) = (one?, other?);
                if !comparable(&kind, &other_kind) {
                    let message =
                        format!("one branch is {}, the other {}", kind.words(), other_kind.words());
                    self.fail(Fault::WrongOperand, other_at, 1, message, "");
                    return None;
                }
                Some((Term::Choose(Box::new(condition?), Box::new(one), Box::new(other)), kind))
            }
            (_, [left, right]) => self.binary(expr, name, left, right),
            _ => {
                let at = self.token(expr);
                self.fail(
                    Fault::WrongOperand,
                    at,
                    1,
                    "this operator is not part of a condition".to_owned(),
                    "",
                );
                None
            }
        }
    }

    fn condition(&mut self, expr: &'a IdedExpr, operator: &str) -> Option<Term> {
        let (term, kind) = self.expr(expr)?;
        if matches!(kind, Type::Bool | Type::Any) {
            return Some(term);
        }
        let at = self.start(expr);
        let message = format!("`{operator}` combines conditions, and this is {}", kind.words());
        self.fail(
            Fault::WrongOperand,
            at,
            1,
            message,
            "compare it with something: `temperature > 30`",
        );
        None
    }

    fn binary(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        left: &'a IdedExpr,
        right: &'a IdedExpr,
    ) -> Typed {
        let at = self.token(expr);
        let (typed_left, typed_right) = (self.expr(left), self.expr(right));
        let ((left_term, left_type), (right_term, right_type)) = (typed_left?, typed_right?);
        let (binary, word) = match name {
            operators::EQUALS => (Binary::Equal, "=="),
            operators::NOT_EQUALS => (Binary::NotEqual, "!="),
            operators::LESS => (Binary::Less, "<"),
            operators::LESS_EQUALS => (Binary::LessEqual, "<="),
            operators::GREATER => (Binary::Greater, ">"),
            operators::GREATER_EQUALS => (Binary::GreaterEqual, ">="),
            operators::ADD => (Binary::Add, "+"),
            operators::SUBSTRACT => (Binary::Subtract, "-"),
            operators::MULTIPLY => (Binary::Multiply, "*"),
            operators::DIVIDE => (Binary::Divide, "/"),
            operators::MODULO => (Binary::Modulo, "%"),
            operators::IN => (Binary::In, "in"),
            _ => {
                self.fail(
                    Fault::WrongOperand,
                    at,
                    1,
                    "indexing is not part of a condition".to_owned(),
                    "",
                );
                return None;
            }
        };
        let kind = match binary {
            Binary::In => {
                let fits = match &right_type {
                    Type::List(element) => comparable(&left_type, element),
                    other => *other == Type::Any,
                };
                if !fits {
                    let message =
                        format!("{} cannot be in {}", left_type.words(), right_type.words());
                    self.fail(
                        Fault::WrongOperand,
                        at,
                        word.len(),
                        message,
                        "write `label(\"room\") in [\"north\", \"south\"]`",
                    );
                    return None;
                }
                if let (Type::Text(Some(words)), Expr::List(list)) = (&left_type, &right.expr) {
                    for item in &list.elements {
                        self.known_word(item, words);
                    }
                }
                Type::Bool
            }
            Binary::Equal
            | Binary::NotEqual
            | Binary::Less
            | Binary::LessEqual
            | Binary::Greater
            | Binary::GreaterEqual => {
                let ordered = !matches!(binary, Binary::Equal | Binary::NotEqual);
                if !comparable(&left_type, &right_type)
                    || ordered && matches!(left_type, Type::Bool | Type::List(_))
                {
                    self.incomparable(at, word, &left_type, &right_type, right);
                    return None;
                }
                if !self.units_agree(at, word, &left_type, &right_type) {
                    return None;
                }
                if let Type::Text(Some(words)) = &left_type {
                    self.known_word(right, words);
                }
                if let Type::Text(Some(words)) = &right_type {
                    self.known_word(left, words);
                }
                Type::Bool
            }
            _ => self.arithmetic(at, word, binary, left_type, right_type)?,
        };
        Some((Term::Binary(binary, Box::new(left_term), Box::new(right_term)), kind))
    }

    /// Text that is compared with a value of a few known words is one of them.
    fn known_word(&mut self, expr: &IdedExpr, words: &[String]) {
        if let Expr::Literal(LiteralValue::String(text)) = &expr.expr
            && !words.iter().any(|word| word == text.inner())
        {
            let at = self.token(expr) + 1;
            let known: Vec<&str> = words.iter().map(String::as_str).collect();
            let message = format!("this value is never `{}`", text.inner());
            self.unknown(Fault::UnknownName, at, text.inner(), message, &known);
        }
    }

    fn incomparable(
        &mut self,
        at: usize,
        word: &str,
        left: &Type,
        right: &Type,
        right_expr: &IdedExpr,
    ) {
        let message = format!("`{word}` compares {} with {}", left.words(), right.words());
        let number = match &right_expr.expr {
            Expr::Literal(LiteralValue::Int(value)) => Some(value.inner().to_string()),
            Expr::Literal(LiteralValue::Double(value)) => Some(value.inner().to_string()),
            _ => None,
        };
        let help = match (left, right, number) {
            (Type::Duration, Type::Number(_), Some(number)) => {
                format!("give it a unit: `{number}s`")
            }
            (Type::Number(_), Type::Text(_), _) => "write the number without quotes".to_owned(),
            (Type::Text(_), Type::Number(_), Some(number)) => {
                format!("write text in quotes: `\"{number}\"`")
            }
            (Type::Bool, Type::Bool, _) => "only `==` and `!=` compare true and false".to_owned(),
            _ => String::new(),
        };
        self.fail(Fault::WrongOperand, at, word.len(), message, help);
    }

    fn units_agree(&mut self, at: usize, word: &str, left: &Type, right: &Type) -> bool {
        if let (Type::Number(Some(left)), Type::Number(Some(right))) = (left, right)
            && left != right
        {
            let message = format!("`{word}` combines a value in {left} with one in {right}");
            self.fail(
                Fault::UnitsDiffer,
                at,
                word.len(),
                message,
                "compare values of one unit, or each with a number",
            );
            return false;
        }
        true
    }

    fn arithmetic(
        &mut self,
        at: usize,
        word: &str,
        binary: Binary,
        left: Type,
        right: Type,
    ) -> Option<Type> {
        let additive = matches!(binary, Binary::Add | Binary::Subtract);
        Some(match (left, right) {
            (Type::Any, other) | (other, Type::Any)
                if !matches!(other, Type::Bool | Type::List(_)) =>
            {
                match other {
                    Type::Number(_) => Type::Number(None),
                    other => other,
                }
            }
            (Type::Number(left), Type::Number(right)) => {
                if additive {
                    let (left, right) = (Type::Number(left), Type::Number(right));
                    if !self.units_agree(at, word, &left, &right) {
                        return None;
                    }
                    if left == Type::Number(None) { right } else { left }
                } else {
                    match (left, right) {
                        (Some(unit), None) => Type::Number(Some(unit)),
                        (None, Some(unit)) if binary == Binary::Multiply => {
                            Type::Number(Some(unit))
                        }
                        _ => Type::Number(None),
                    }
                }
            }
            (Type::Duration, Type::Duration) if additive => Type::Duration,
            (Type::Duration, Type::Duration) if binary == Binary::Divide => Type::Number(None),
            (Type::Duration, Type::Number(None))
                if matches!(binary, Binary::Multiply | Binary::Divide) =>
            {
                Type::Duration
            }
            (Type::Number(None), Type::Duration) if binary == Binary::Multiply => Type::Duration,
            (left, right) => {
                let message =
                    format!("`{word}` does not take {} and {}", left.words(), right.words());
                self.fail(Fault::WrongOperand, at, word.len(), message, "");
                return None;
            }
        })
    }
}

fn link_type(field: LinkField) -> Type {
    match field {
        LinkField::State => {
            Type::Text(Some(CHANNEL_STATES.iter().map(|word| (*word).to_owned()).collect()))
        }
        LinkField::Load | LinkField::Loss | LinkField::Rate => Type::Number(None),
        LinkField::Delay => Type::Duration,
    }
}

pub(super) fn comparable(left: &Type, right: &Type) -> bool {
    matches!(
        (left, right),
        (Type::Any, _)
            | (_, Type::Any)
            | (Type::Bool, Type::Bool)
            | (Type::Number(_), Type::Number(_))
            | (Type::Text(_), Type::Text(_))
            | (Type::Duration, Type::Duration)
    ) || matches!((left, right), (Type::List(left), Type::List(right)) if comparable(left, right))
}

fn is_operator(name: &str) -> bool {
    name.contains('_') && name.contains(|c: char| !c.is_alphanumeric() && c != '_')
        || name == operators::IN
}

fn is_prefix(name: &str) -> bool {
    matches!(name, operators::LOGICAL_NOT | operators::NEGATE)
}
