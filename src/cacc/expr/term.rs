//! The terms of a checked expression: types, facts, operators, and what is wrong with one.

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
    pub(super) fn words(&self) -> String {
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

/// The states of a channel, as `channel().state` gives them.
pub const CHANNEL_STATES: &[&str] = &["Normal", "Busy", "Saturated"];
