//! Conditions of context rules: CEL in, a checked and typed tree out.
//!
//! The `cel` crate parses; names, types and units are checked here against the properties,
//! services and channels in [`Scope`], and every fault carries the byte offset in the
//! expression, so that a manifest can show its line and column. [`check`] also returns the
//! typed tree ([`Term`]), which is all that an evaluator needs: durations are milliseconds,
//! names are resolved, windows are explicit, and [`Checked::facts`] lists what it reads.
//!
//! Beyond plain CEL there are duration literals (`10s`, `1h`): they are put in as identifiers of
//! the same length before parsing, so that offsets stay true.
//!
//! What a condition can name:
//! - a property: `temperature`, or `environment.temperature` where two features have the name,
//!   or `value("air-quality/pm-10")` where the name is not an identifier;
//! - `verdict("SERVICE")` with `.label .score .model .version .ofRevision .latencyMs .instance`;
//! - `avg min max stddev rate count` of a property over a duration; `age` of a property or
//!   verdict; `any all` of a true-or-false property over the rule's nodes;
//! - `label("KEY")` of the twin; `channel()` or `channel("NAME")` with `.state .load .loss
//!   .delay`; `link` with `.load .loss .delay .rate`; `node` with `.online .battery .lastSeen
//!   .lost .rssi .uptime .program`;
//! - `abs`, `has`, and on text `contains startsWith endsWith`.
//!
//! Not here: evaluation, `unknown`, windows' contents; YAML.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use cel::parser::Parser;

use crate::scalar::{Duration, suggest};

/// Longest expression, in bytes. A longer one is several rules.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// The type of a value in an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// True or false.
    Bool,
    /// A number, with its unit if the model gives one.
    Number(Option<String>),
    /// Text, with the words that it can be if they are known.
    Text(Option<Vec<String>>),
    /// A time span.
    Duration,
    /// A list of values of one type.
    List(Box<Type>),
    /// Not known before it runs: a property of a twin without a model.
    Any,
}

impl Type {
    fn words(&self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Number(Some(unit)) => format!("a number in {unit}"),
            Self::Number(None) => "a number".to_owned(),
            Self::Text(_) => "text".to_owned(),
            Self::Duration => "a duration".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::Any => "any value".to_owned(),
        }
    }
}

/// A property that a rule's twins have.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    /// The feature's id.
    pub feature: String,
    /// The property's name.
    pub name: String,
    /// Its type.
    pub value: Type,
}

/// A service whose verdicts a rule can use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Service {
    /// The service's name.
    pub name: String,
    /// The labels that its model can give, if they are known.
    pub labels: Option<Vec<String>>,
}

/// What the names in an expression can mean.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scope {
    /// The properties of the rule's twins.
    pub properties: Vec<Property>,
    /// Whether some of the twins have no model, so that any other name can be a property too.
    pub open: bool,
    /// The services in reach.
    pub services: Vec<Service>,
    /// The channels in reach.
    pub channels: Vec<String>,
}

/// What sort of fault an expression has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not CEL.
    Syntax,
    /// A name that means nothing.
    UnknownName,
    /// Values that do not go together.
    WrongOperand,
    /// A function that does not exist.
    UnknownFunction,
    /// A function called wrongly.
    WrongArguments,
    /// Not true or false.
    NotACondition,
    /// Values of different units.
    UnitsDiffer,
    /// A service that nobody declares.
    UnknownService,
    /// A channel that does not exist.
    UnknownChannel,
}

/// A fault at its place in the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    /// What sort of fault.
    pub fault: Fault,
    /// Byte offset in the expression.
    pub offset: usize,
    /// How many characters are meant.
    pub width: usize,
    /// What is wrong, in the user's words.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

/// A property by feature and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PropertyRef {
    /// The feature's id; empty if the twins have no model and only the name was written.
    pub feature: String,
    /// The property's name.
    pub name: String,
}

/// A function over a window of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// Mean.
    Avg,
    /// Least.
    Min,
    /// Greatest.
    Max,
    /// Standard deviation.
    Stddev,
    /// Change a second.
    Rate,
    /// How many values.
    Count,
}

/// A field of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictField {
    /// `label`
    Label,
    /// `score`
    Score,
    /// `model`
    Model,
    /// `version`
    Version,
    /// `ofRevision`
    OfRevision,
    /// `latencyMs`
    LatencyMs,
    /// `instance`
    Instance,
}

/// A figure of a channel, or of the link between one node and the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkField {
    /// `state`: `Normal`, `Busy` or `Saturated`. Channels only.
    State,
    /// `load`: share of the capacity, 0 to 1.
    Load,
    /// `loss`: share of messages that do not arrive, 0 to 1.
    Loss,
    /// `delay`: standing delay.
    Delay,
    /// `rate`: messages a second. Links only.
    Rate,
}

/// A figure of a node's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeField {
    /// `online`
    Online,
    /// `battery`: percent.
    Battery,
    /// `lastSeen`: time since the last message.
    LastSeen,
    /// `lost`: readings that never came, by sequence number.
    Lost,
    /// `rssi`: received signal, dBm.
    Rssi,
    /// `uptime`: time since its last start.
    Uptime,
    /// `program`: the transmission program that it reports.
    Program,
}

/// One thing that an expression reads. A rule is evaluated again when one of them changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// The newest value of a property.
    Property(PropertyRef),
    /// A function over a property's values of the last `ms`.
    Window(Window, PropertyRef, u64),
    /// Time since a property changed.
    Age(PropertyRef),
    /// Time since a service's verdict.
    VerdictAge(String),
    /// Whether any node of the rule has a true value.
    AnyOf(PropertyRef),
    /// Whether all nodes of the rule have a true value.
    AllOf(PropertyRef),
    /// A field of a service's verdict.
    Verdict(String, VerdictField),
    /// A label of the twin.
    Label(String),
    /// A figure of a channel; the node's own if no name is given.
    Channel(Option<String>, LinkField),
    /// A figure of the node's link.
    Link(LinkField),
    /// A figure of the node.
    Node(NodeField),
}

/// An operator with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// `&&`
    And,
    /// `||`
    Or,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Modulo,
    /// `in`
    In,
    /// `contains`
    Contains,
    /// `startsWith`
    StartsWith,
    /// `endsWith`
    EndsWith,
}

/// A checked expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// True or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// A time span, ms.
    DurationMs(u64),
    /// A list.
    List(Vec<Term>),
    /// Something from the context.
    Fact(Fact),
    /// Whether a fact is known.
    Has(Fact),
    /// `!`
    Not(Box<Term>),
    /// `-`
    Negate(Box<Term>),
    /// `abs`
    Abs(Box<Term>),
    /// Two operands.
    Binary(Binary, Box<Term>, Box<Term>),
    /// `condition ? one : other`
    Choose(Box<Term>, Box<Term>, Box<Term>),
}

/// An expression that may be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The typed tree.
    pub term: Term,
    /// Everything that it reads, without repetition, in a fixed order.
    pub facts: Vec<Fact>,
}

/// Parses and checks a condition.
///
/// # Errors
/// Every fault found, in the order of their places; at least one. A syntax fault hides the rest.
pub fn check(text: &str, scope: &Scope) -> Result<Checked, Vec<ExprError>> {
    let syntax = |offset, message: String, help: &str| {
        vec![ExprError { fault: Fault::Syntax, offset, width: 1, message, help: help.to_owned() }]
    };
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes");
        return Err(syntax(0, message, "split it into several rules"));
    }
    if text.trim().is_empty() {
        return Err(syntax(
            0,
            "the expression is empty".to_owned(),
            "write `true` for a rule that always holds",
        ));
    }
    let (prepared, durations) = take_out_durations(text)?;
    let parsed = Parser::new().max_recursion_depth(48).parse_with_source_info(&prepared);
    let (expr, source) = parsed.map_err(|errors| {
        let mut faults: Vec<ExprError> = errors
            .errors
            .iter()
            .map(|error| {
                let offset = offset_of(&prepared, error.pos);
                let (message, help) = explain_syntax(text, offset, &error.msg);
                ExprError { fault: Fault::Syntax, offset, width: 1, message, help }
            })
            .collect();
        // What follows a syntax fault is mostly noise of the parser's recovery.
        faults.truncate(1);
        faults
    })?;
    let mut checker =
        Checker { text, scope, source: &source, durations: &durations, errors: Vec::new() };
    let typed = checker.expr(&expr);
    if let Some((_, kind)) = &typed
        && !matches!(kind, Type::Bool | Type::Any)
    {
        let start = checker.start(&expr);
        checker.fail(
            Fault::NotACondition,
            start,
            text.trim().chars().count(),
            format!("the condition is {}, not true or false", kind.words()),
            "compare it with something: `temperature > 30`",
        );
    }
    let mut errors = checker.errors;
    errors.sort_by_key(|error| error.offset);
    errors.dedup();
    match typed {
        Some((term, _)) if errors.is_empty() => {
            let mut facts = BTreeSet::new();
            collect_facts(&term, &mut facts);
            Ok(Checked { term, facts: facts.into_iter().collect() })
        }
        _ => Err(errors),
    }
}

fn collect_facts(term: &Term, facts: &mut BTreeSet<Fact>) {
    match term {
        Term::Fact(fact) | Term::Has(fact) => {
            facts.insert(fact.clone());
        }
        Term::List(items) => items.iter().for_each(|item| collect_facts(item, facts)),
        Term::Not(inner) | Term::Negate(inner) | Term::Abs(inner) => collect_facts(inner, facts),
        Term::Binary(_, left, right) => {
            [left, right].into_iter().for_each(|side| collect_facts(side, facts))
        }
        Term::Choose(a, b, c) => [a, b, c].into_iter().for_each(|part| collect_facts(part, facts)),
        Term::Bool(_) | Term::Number(_) | Term::Text(_) | Term::DurationMs(_) => {}
    }
}

/// Duration literals by byte offset.
type Durations = Vec<(usize, u64)>;

/// Replaces `10s` by an identifier of the same length and remembers its value by its offset.
fn take_out_durations(text: &str) -> Result<(String, Durations), Vec<ExprError>> {
    let bytes = text.as_bytes();
    let mut prepared = bytes.to_vec();
    let mut durations = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'0'..=b'9' => {
                let start = at;
                while at < bytes.len()
                    && (bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'.' | b'_'))
                {
                    at += 1;
                }
                let word = &text[start..at];
                let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                let number = unit.is_empty()
                    || word.parse::<f64>().is_ok()
                    || word.starts_with("0x")
                    || word.trim_end_matches(['u', 'U']).bytes().all(|b| b.is_ascii_digit());
                if number {
                    continue;
                }
                match word.parse::<Duration>() {
                    Ok(duration) => {
                        durations.push((start, duration.as_ms()));
                        prepared[start..at].fill(b'_');
                    }
                    Err(error) => {
                        return Err(vec![ExprError {
                            fault: Fault::WrongOperand,
                            offset: start,
                            width: word.len(),
                            message: error.message,
                            help: error.help,
                        }]);
                    }
                }
            }
            b if b.is_ascii_alphabetic() || b == b'_' => {
                while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                    at += 1;
                }
            }
            _ => at += 1,
        }
    }
    // Only whole ASCII words were replaced, so this is UTF-8 as before.
    Ok((String::from_utf8_lossy(&prepared).into_owned(), durations))
}

/// The byte offset of a line and column (both from 1, the column in characters).
fn offset_of(text: &str, (line, column): (isize, isize)) -> usize {
    let line_start: usize =
        text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let rest = text.get(line_start..).unwrap_or_default();
    let column = usize::try_from(column - 1).unwrap_or(0);
    line_start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
}

/// The parser's words made plainer, and what usually helps.
fn explain_syntax(text: &str, offset: usize, words: &str) -> (String, String) {
    let rest = text.get(offset..).unwrap_or_default();
    let found = rest.split_whitespace().next();
    let doubled = |c: &str, right: &str| rest.starts_with(c) && !rest.starts_with(right);
    let help = if doubled("=", "==") {
        "equality is written `==`"
    } else if doubled("&", "&&") || rest.starts_with("and") {
        "and is written `&&`"
    } else if doubled("|", "||") || rest.starts_with("or") {
        "or is written `||`"
    } else if rest.starts_with("not ") {
        "not is written `!`"
    } else if words.contains("reserved") {
        "this word is reserved in CEL; use `value(\"feature/property\")` for a property of that name"
    } else if words.contains("has()") {
        "`has` takes `feature.property`"
    } else if found.is_none() {
        "something is missing at the end, such as an operand or a `)`"
    } else {
        ""
    };
    let message = match found {
        Some(_) if words.contains("reserved") || words.contains("has()") => {
            format!("not a CEL expression: {words}")
        }
        Some(found) => {
            format!("not a CEL expression at `{}`", found.chars().take(24).collect::<String>())
        }
        None => "not a CEL expression: it ends too early".to_owned(),
    };
    (message, help.to_owned())
}

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

/// The states of a channel, as `channel().state` gives them.
pub const CHANNEL_STATES: &[&str] = &["Normal", "Busy", "Saturated"];

/// What a name stands for before its field is taken.
enum Subject<'a> {
    Feature(&'a str),
    Verdict(String),
    Channel(Option<String>),
    Link,
    Node,
}

type Typed = Option<(Term, Type)>;

struct Checker<'a> {
    text: &'a str,
    scope: &'a Scope,
    source: &'a SourceInfo,
    durations: &'a Durations,
    errors: Vec<ExprError>,
}

impl<'a> Checker<'a> {
    fn fail(
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
    fn start(&self, expr: &IdedExpr) -> usize {
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

    fn expr(&mut self, expr: &'a IdedExpr) -> Typed {
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
            (Type::Text(_), Type::Text(_)) if binary == Binary::Add => Type::Text(None),
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

fn comparable(left: &Type, right: &Type) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        let property = |feature: &str, name: &str, value: Type| Property {
            feature: feature.to_owned(),
            name: name.to_owned(),
            value,
        };
        let number = |unit: &str| Type::Number(Some(unit.to_owned()));
        Scope {
            properties: vec![
                property("environment", "temperature", number("Cel")),
                property("environment", "humidity", number("%RH")),
                property("pir", "motion", Type::Bool),
                property("robot", "vibration", number("m/s2")),
                property("vitals", "ecg", number("mV")),
                property("room", "occupancy", Type::Number(None)),
                property("a", "level", number("m")),
                property("b", "level", number("m")),
                property("air-quality", "pm-10", number("ug/m3")),
                property(
                    "door",
                    "state",
                    Type::Text(Some(vec!["open".to_owned(), "shut".to_owned()])),
                ),
            ],
            open: false,
            services: vec![
                Service {
                    name: "data-anomaly".to_owned(),
                    labels: Some(vec!["normal".to_owned(), "anomalous".to_owned()]),
                },
                Service { name: "crowd-audio".to_owned(), labels: None },
                Service { name: "early-warning".to_owned(), labels: None },
            ],
            channels: vec!["wifi-6".to_owned()],
        }
    }

    /// Offset and fault of each error.
    fn faults(text: &str) -> Vec<(Fault, usize)> {
        match check(text, &scope()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|error| (error.fault, error.offset)).collect(),
        }
    }

    #[test]
    fn rules_of_the_documentation_check() {
        for text in [
            r#"verdict("crowd-audio").label == "unrest" && verdict("crowd-audio").score > 0.8"#,
            r#"verdict("crowd-audio").score < 0.5"#,
            r#"any(motion) && channel().state == "Saturated""#,
            r#"verdict("early-warning").score >= 5 || age(ecg) > 10s"#,
            "stddev(vibration, 10s) > 3 * stddev(vibration, 1h)",
            "max(occupancy, 30m) == 0",
            r#"verdict("data-anomaly").label == "anomalous""#,
            "environment.temperature > 30 && !motion",
            r#"value("air-quality/pm-10") > 50.0"#,
            "a.level - b.level > 1",
            "has(environment.temperature) && age(verdict(\"data-anomaly\")) < 1m",
            "node.battery < 20 || node.lastSeen > 5m || link.loss > 0.2 || channel(\"wifi-6\").load > 0.9",
            "rate(temperature, 1m) > 0.5",
            "label(\"room\") in [\"north\", \"south\"] && door.state == \"open\"",
            "motion ? temperature > 1 : temperature > 2",
            "abs(temperature - 20) > 1.5 && -temperature < 3",
        ] {
            assert_eq!(check(text, &scope()).map(drop), Ok(()), "{text}");
        }
    }

    #[test]
    fn faults_stand_where_they_are() {
        assert_eq!(faults("temprature > 30"), [(Fault::UnknownName, 0)]);
        assert_eq!(faults("temperature > 30 && humdity < 2"), [(Fault::UnknownName, 20)]);
        assert_eq!(faults("environment.temprature > 1"), [(Fault::UnknownName, 12)]);
        assert_eq!(faults("age(ecg) > 10"), [(Fault::WrongOperand, 9)]);
        assert_eq!(faults("age(ecg) > 10sec"), [(Fault::WrongOperand, 11)]);
        assert_eq!(faults("temperature == \"warm\""), [(Fault::WrongOperand, 12)]);
        assert_eq!(faults("temperature > humidity"), [(Fault::UnitsDiffer, 12)]);
        assert_eq!(faults("temperature"), [(Fault::NotACondition, 0)]);
        assert_eq!(faults("  temperature + 1"), [(Fault::NotACondition, 2)]);
        assert_eq!(faults("average(temperature, 10s) > 1"), [(Fault::UnknownFunction, 0)]);
        assert_eq!(faults("motion && avg(temperature) > 1"), [(Fault::WrongArguments, 10)]);
        assert_eq!(faults("avg(temperature, 10) > 1"), [(Fault::WrongArguments, 17)]);
        assert_eq!(faults("avg(motion, 10s) > 1"), [(Fault::WrongArguments, 4)]);
        assert_eq!(faults("any(temperature)"), [(Fault::WrongArguments, 4)]);
        assert_eq!(faults("level > 1"), [(Fault::UnknownName, 0)]);
        assert_eq!(faults("verdict(\"data-anomly\").label == \"x\""), [(Fault::UnknownService, 9)]);
        assert_eq!(faults("verdict(\"data-anomaly\").lable == \"x\""), [(Fault::UnknownName, 24)]);
        assert_eq!(
            faults("verdict(\"data-anomaly\").label == \"anomalus\""),
            [(Fault::UnknownName, 34)]
        );
        assert_eq!(faults("channel().state == \"Saturatd\""), [(Fault::UnknownName, 20)]);
        assert_eq!(faults("motion && temperature"), [(Fault::WrongOperand, 10)]);
        assert_eq!(faults("node.batery < 1"), [(Fault::UnknownName, 5)]);
        assert_eq!(faults("motion < true"), [(Fault::WrongOperand, 7)]);
        assert_eq!(faults("[1, 2].all(x, x > 1)").len(), 1);
        assert_eq!(faults(""), [(Fault::Syntax, 0)]);
    }

    #[test]
    fn every_fault_is_reported() {
        assert_eq!(
            faults("temprature > 30 && avg(humdity, 10s) > 1 && nope(motion)"),
            [(Fault::UnknownName, 0), (Fault::UnknownName, 23), (Fault::UnknownFunction, 44)]
        );
    }

    #[test]
    fn syntax_faults_have_a_place_and_a_cure() {
        for (text, offset, help) in [
            ("temperature = 30", 12, "`==`"),
            ("temperature > ", 14, "missing"),
            ("temperature > 30 and motion", 17, "`&&`"),
            ("(temperature > 30", 17, "missing"),
            ("label(\"é\") = \"ü\"", 12, "`==`"),
            ("motion\n  && temperature = 3", 24, "`==`"),
        ] {
            let errors = check(text, &scope()).unwrap_err();
            assert_eq!(
                (errors[0].fault, errors[0].offset),
                (Fault::Syntax, offset),
                "{text}: {errors:?}"
            );
            assert!(errors[0].help.contains(help), "{errors:?}");
        }
    }

    #[test]
    fn offsets_count_bytes_behind_other_letters() {
        let text = "label(\"é\") == \"ü\" && temprature > 1";
        assert_eq!(faults(text), [(Fault::UnknownName, text.find("temprature").unwrap())]);
    }

    #[test]
    fn twins_without_a_model_have_any_property() {
        let open = Scope { open: true, ..scope() };
        assert!(
            check("pressure > 3 && barometer.value < 2 && avg(pressure, 1m) > 1", &open).is_ok()
        );
        assert!(check("pressure > 3", &scope()).is_err());
    }

    #[test]
    fn facts_are_what_is_read() {
        let checked =
            check("stddev(vibration, 10s) > 3 * stddev(vibration, 1h) && motion", &scope())
                .unwrap();
        let vibration = PropertyRef { feature: "robot".to_owned(), name: "vibration".to_owned() };
        assert_eq!(checked.facts.len(), 3);
        assert!(checked.facts.contains(&Fact::Window(Window::Stddev, vibration, 3_600_000)));
    }
}
