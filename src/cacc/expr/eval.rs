//! Evaluation: a checked condition compiled to a tree over slots, with `unknown` as a third truth.
//!
//! The facts of a rule have numbers, its *slots*; whoever keeps the context fills one [`Value`] a
//! slot, and evaluating reads them in place: it allocates nothing and takes tens of nanoseconds
//! (`edgetwin bench cacc`).
//!
//! A fact that is missing makes what depends on it unknown, and names itself: `false && unknown`
//! is false and `true || unknown` is true, whichever side it stands on. Unknown is not true.
//! Arithmetic without a finite result is unknown, too.
//!
//! Ages grow by themselves. Their slots hold the time since when, so that they change only with
//! the fact; [`Expression::due`] says when the truth may change although no fact does.

use std::sync::Arc;

use super::term::{Binary, Checked, Fact, NodeField, Term};

/// Ages that are not simply compared with a constant are looked at this often, milliseconds.
pub const POLL_MS: i64 = 1000;

/// The slot that no fact has: what is unknown without a fact being missing.
pub const NO_SLOT: u16 = u16::MAX;

/// The value of a fact.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nobody knows.
    Unknown,
    /// True or false.
    Bool(bool),
    /// A number; of a duration milliseconds, of an age the time since when, microseconds.
    Number(f64),
    /// Text.
    Text(Arc<str>),
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It does.
    True,
    /// It does not.
    False,
    /// The fact in this slot is missing; [`NO_SLOT`] if no fact is missing.
    Unknown(u16),
}

impl Truth {
    /// Whether it is known to hold.
    pub fn holds(self) -> bool {
        self == Self::True
    }
}

/// Whether the age that a fact stands for grows by itself.
pub fn grows(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Age(_) | Fact::VerdictAge(_) | Fact::Node(NodeField::LastSeen | NodeField::Uptime)
    )
}

/// What an operand is while one evaluates.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operand<'a> {
    Unknown(u16),
    Bool(bool),
    Number(f64),
    Text(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Relation {
    fn of<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
        }
    }

    fn mirrored(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessEqual => Self::GreaterEqual,
            Self::Greater => Self::Less,
            Self::GreaterEqual => Self::LessEqual,
            same => same,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Constant(Value),
    Fact(u16),
    /// The age of what the slot holds, milliseconds.
    Since(u16),
    Has(u16),
    Not(Box<Node>),
    Negate(Box<Node>),
    Abs(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Compare(Relation, Box<Node>, Box<Node>),
    /// The usual comparisons, without a detour.
    CompareNumber(Relation, u16, f64),
    CompareText(Relation, u16, Arc<str>),
    CompareAge(Relation, u16, f64),
    Arithmetic(Binary, Box<Node>, Box<Node>),
    Text(Binary, Box<Node>, Box<Node>),
    In(Box<Node>, Vec<Node>),
    Choose(Box<Node>, Box<Node>, Box<Node>),
}

/// A compiled condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression(Node);

impl Expression {
    /// Compiles a checked condition; the facts that `slots` lacks are added to it.
    ///
    /// * `slots`: at most [`NO_SLOT`] facts; a longest expression has far fewer.
    pub fn compile(checked: &Checked, slots: &mut Vec<Fact>) -> Self {
        Self(node(&checked.term, slots))
    }

    /// Whether it holds.
    ///
    /// * `values`: one a slot.
    /// * `now_us`: microseconds since 1970.
    pub fn evaluate(&self, values: &[Value], now_us: i64) -> Truth {
        match operand(&self.0, values, now_us) {
            Operand::Bool(true) => Truth::True,
            Operand::Bool(false) => Truth::False,
            Operand::Unknown(slot) => Truth::Unknown(slot),
            Operand::Number(_) | Operand::Text(_) => Truth::Unknown(NO_SLOT),
        }
    }

    /// When it may hold otherwise although no fact changed, microseconds since 1970.
    pub fn due(&self, values: &[Value], now_us: i64) -> Option<i64> {
        due(&self.0, values, now_us)
    }
}

fn slot(fact: &Fact, slots: &mut Vec<Fact>) -> u16 {
    let at = slots.iter().position(|known| known == fact).unwrap_or_else(|| {
        slots.push(fact.clone());
        slots.len() - 1
    });
    assert!(at < usize::from(NO_SLOT), "an expression of a few kilobytes names few facts");
    at as u16
}

fn node(term: &Term, slots: &mut Vec<Fact>) -> Node {
    let boxed = |term: &Term, slots: &mut Vec<Fact>| Box::new(node(term, slots));
    match term {
        Term::Bool(value) => Node::Constant(Value::Bool(*value)),
        Term::Number(value) => Node::Constant(Value::Number(*value)),
        Term::Text(text) => Node::Constant(Value::Text(text.as_str().into())),
        Term::DurationMs(ms) => Node::Constant(Value::Number(*ms as f64)),
        // A list stands only where `node_of` takes it apart.
        Term::List(_) => Node::Constant(Value::Unknown),
        Term::Fact(fact) if grows(fact) => Node::Since(slot(fact, slots)),
        Term::Fact(fact) => Node::Fact(slot(fact, slots)),
        Term::Has(fact) => Node::Has(slot(fact, slots)),
        Term::Not(inner) => Node::Not(boxed(inner, slots)),
        Term::Negate(inner) => match node(inner, slots) {
            Node::Constant(Value::Number(number)) => Node::Constant(Value::Number(-number)),
            inner => Node::Negate(Box::new(inner)),
        },
        Term::Abs(inner) => Node::Abs(boxed(inner, slots)),
        Term::Choose(condition, one, other) => {
            Node::Choose(boxed(condition, slots), boxed(one, slots), boxed(other, slots))
        }
        Term::Binary(binary, left, right) => {
            let relation = match binary {
                Binary::And => return Node::And(boxed(left, slots), boxed(right, slots)),
                Binary::Or => return Node::Or(boxed(left, slots), boxed(right, slots)),
                Binary::Add
                | Binary::Subtract
                | Binary::Multiply
                | Binary::Divide
                | Binary::Modulo => {
                    return Node::Arithmetic(*binary, boxed(left, slots), boxed(right, slots));
                }
                Binary::Contains | Binary::StartsWith | Binary::EndsWith => {
                    return Node::Text(*binary, boxed(left, slots), boxed(right, slots));
                }
                Binary::In => {
                    let items = match &**right {
                        Term::List(items) => items.iter().map(|item| node(item, slots)).collect(),
                        other => vec![node(other, slots)],
                    };
                    return Node::In(boxed(left, slots), items);
                }
                Binary::Equal => Relation::Equal,
                Binary::NotEqual => Relation::NotEqual,
                Binary::Less => Relation::Less,
                Binary::LessEqual => Relation::LessEqual,
                Binary::Greater => Relation::Greater,
                Binary::GreaterEqual => Relation::GreaterEqual,
            };
            if let (Term::List(left), Term::List(right)) = (&**left, &**right) {
                return lists(relation, left, right, slots);
            }
            compare(relation, node(left, slots), node(right, slots))
        }
    }
}

/// Lists are equal if they have the same length and each pair is equal.
fn lists(relation: Relation, left: &[Term], right: &[Term], slots: &mut Vec<Fact>) -> Node {
    let same = left.len() == right.len();
    let mut all = Node::Constant(Value::Bool(same));
    for (left, right) in left.iter().zip(right).filter(|_| same) {
        let pair = compare(Relation::Equal, node(left, slots), node(right, slots));
        all = Node::And(Box::new(all), Box::new(pair));
    }
    if relation == Relation::NotEqual { Node::Not(Box::new(all)) } else { all }
}

fn compare(relation: Relation, left: Node, right: Node) -> Node {
    match (left, right) {
        (Node::Fact(slot), Node::Constant(Value::Number(number))) => {
            Node::CompareNumber(relation, slot, number)
        }
        (Node::Constant(Value::Number(number)), Node::Fact(slot)) => {
            Node::CompareNumber(relation.mirrored(), slot, number)
        }
        (Node::Fact(slot), Node::Constant(Value::Text(text))) => {
            Node::CompareText(relation, slot, text)
        }
        (Node::Constant(Value::Text(text)), Node::Fact(slot)) => {
            Node::CompareText(relation.mirrored(), slot, text)
        }
        (Node::Since(slot), Node::Constant(Value::Number(ms))) => {
            Node::CompareAge(relation, slot, ms)
        }
        (Node::Constant(Value::Number(ms)), Node::Since(slot)) => {
            Node::CompareAge(relation.mirrored(), slot, ms)
        }
        (left, right) => Node::Compare(relation, Box::new(left), Box::new(right)),
    }
}

fn age_ms(since_us: f64, now_us: i64) -> f64 {
    // A clock that was set back makes nothing younger than new.
    ((now_us as f64 - since_us) / 1000.0).max(0.0)
}

fn finite(number: f64) -> Operand<'static> {
    if number.is_finite() { Operand::Number(number) } else { Operand::Unknown(NO_SLOT) }
}

fn of_slot(values: &[Value], slot: u16) -> Operand<'_> {
    match &values[usize::from(slot)] {
        Value::Unknown => Operand::Unknown(slot),
        Value::Bool(value) => Operand::Bool(*value),
        Value::Number(value) if value.is_finite() => Operand::Number(*value),
        Value::Number(_) => Operand::Unknown(slot),
        Value::Text(text) => Operand::Text(text),
    }
}

fn operand<'a>(node: &'a Node, values: &'a [Value], now_us: i64) -> Operand<'a> {
    use Operand::{Bool, Number, Text, Unknown};
    let get = |node: &'a Node| operand(node, values, now_us);
    match node {
        Node::Constant(value) => match value {
            Value::Unknown => Unknown(NO_SLOT),
            Value::Bool(value) => Bool(*value),
            Value::Number(value) => Number(*value),
            Value::Text(text) => Text(text),
        },
        Node::Fact(slot) => of_slot(values, *slot),
        Node::Since(slot) => match of_slot(values, *slot) {
            Number(since_us) => Number(age_ms(since_us, now_us)),
            _ => Unknown(*slot),
        },
        Node::Has(slot) => Bool(values[usize::from(*slot)] != Value::Unknown),
        Node::CompareNumber(relation, slot, right) => match of_slot(values, *slot) {
            Number(left) => Bool(relation.of(&left, right)),
            _ => Unknown(*slot),
        },
        Node::CompareText(relation, slot, right) => match of_slot(values, *slot) {
            Text(left) => Bool(relation.of(&left, &&**right)),
            _ => Unknown(*slot),
        },
        Node::CompareAge(relation, slot, ms) => match of_slot(values, *slot) {
            Number(since_us) => Bool(relation.of(&age_ms(since_us, now_us), ms)),
            _ => Unknown(*slot),
        },
        Node::Compare(relation, left, right) => relate(*relation, get(left), get(right)),
        Node::Not(inner) => match get(inner) {
            Bool(value) => Bool(!value),
            Unknown(slot) => Unknown(slot),
            _ => Unknown(NO_SLOT),
        },
        Node::Negate(inner) => match get(inner) {
            Number(number) => Number(-number),
            Unknown(slot) => Unknown(slot),
            _ => Unknown(NO_SLOT),
        },
        Node::Abs(inner) => match get(inner) {
            Number(number) => Number(number.abs()),
            Unknown(slot) => Unknown(slot),
            _ => Unknown(NO_SLOT),
        },
        Node::And(left, right) => junction(get(left), || get(right), false),
        Node::Or(left, right) => junction(get(left), || get(right), true),
        Node::Arithmetic(binary, left, right) => match (get(left), get(right)) {
            (Number(left), Number(right)) => finite(match binary {
                Binary::Add => left + right,
                Binary::Subtract => left - right,
                Binary::Multiply => left * right,
                Binary::Divide => left / right,
                _ => left % right,
            }),
            (Unknown(slot), _) | (_, Unknown(slot)) => Unknown(slot),
            _ => Unknown(NO_SLOT),
        },
        Node::Text(binary, left, right) => match (get(left), get(right)) {
            (Text(left), Text(right)) => Bool(match binary {
                Binary::Contains => left.contains(right),
                Binary::StartsWith => left.starts_with(right),
                _ => left.ends_with(right),
            }),
            (Unknown(slot), _) | (_, Unknown(slot)) => Unknown(slot),
            _ => Unknown(NO_SLOT),
        },
        Node::In(left, items) => {
            let left = get(left);
            let mut found = Bool(false);
            for item in items {
                found = junction(found, || relate(Relation::Equal, left, get(item)), true);
            }
            found
        }
        Node::Choose(condition, one, other) => match get(condition) {
            Bool(true) => get(one),
            Bool(false) => get(other),
            Unknown(slot) => Unknown(slot),
            _ => Unknown(NO_SLOT),
        },
    }
}

fn relate<'a>(relation: Relation, left: Operand<'a>, right: Operand<'a>) -> Operand<'a> {
    match (left, right) {
        (Operand::Unknown(slot), _) | (_, Operand::Unknown(slot)) => Operand::Unknown(slot),
        (Operand::Number(left), Operand::Number(right)) => {
            Operand::Bool(relation.of(&left, &right))
        }
        (Operand::Text(left), Operand::Text(right)) => Operand::Bool(relation.of(&left, &right)),
        (Operand::Bool(left), Operand::Bool(right)) => Operand::Bool(relation.of(&left, &right)),
        // Only a property of a twin without a model can be of another type than expected.
        _ => Operand::Unknown(NO_SLOT),
    }
}

/// And (`strong` false) and or (`strong` true): a side that is `strong` decides alone.
fn junction<'a>(
    left: Operand<'a>,
    right: impl FnOnce() -> Operand<'a>,
    strong: bool,
) -> Operand<'a> {
    if left == Operand::Bool(strong) {
        return left;
    }
    match (left, right()) {
        (_, Operand::Bool(right)) if right == strong => Operand::Bool(strong),
        (Operand::Bool(_), right @ (Operand::Bool(_) | Operand::Unknown(_))) => right,
        (Operand::Unknown(slot), _) | (_, Operand::Unknown(slot)) => Operand::Unknown(slot),
        _ => Operand::Unknown(NO_SLOT),
    }
}

fn due(node: &Node, values: &[Value], now_us: i64) -> Option<i64> {
    let of = |node: &Node| due(node, values, now_us);
    let known = |slot: u16| match values[usize::from(slot)] {
        Value::Number(since_us) => Some(since_us as i64),
        _ => None,
    };
    match node {
        Node::CompareAge(_, slot, ms) => {
            // Just behind the moment at which the age is the constant, and at that moment.
            let at = known(*slot)?.saturating_add((*ms * 1000.0) as i64);
            [at, at + 1].into_iter().find(|at| *at > now_us)
        }
        Node::Since(slot) => known(*slot).map(|_| now_us + POLL_MS * 1000),
        Node::Constant(_)
        | Node::Fact(_)
        | Node::Has(_)
        | Node::CompareNumber(..)
        | Node::CompareText(..) => None,
        Node::Not(inner) | Node::Negate(inner) | Node::Abs(inner) => of(inner),
        Node::And(left, right)
        | Node::Or(left, right)
        | Node::Compare(_, left, right)
        | Node::Arithmetic(_, left, right)
        | Node::Text(_, left, right) => earlier(of(left), of(right)),
        Node::In(left, items) => items.iter().map(of).fold(of(left), earlier),
        Node::Choose(a, b, c) => earlier(of(a), earlier(of(b), of(c))),
    }
}

/// The earlier of two times, where there are any.
pub fn earlier(left: Option<i64>, right: Option<i64>) -> Option<i64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Scope, Service, check};
    use super::*;
    use proptest::prelude::*;

    fn compiled(text: &str) -> (Expression, Vec<Fact>) {
        let services = vec![Service { name: "s".to_owned(), labels: None }];
        let scope = Scope { open: true, services, ..Scope::default() };
        let mut slots = Vec::new();
        let checked = check(text, &scope).unwrap();
        let expression = Expression::compile(&checked, &mut slots);
        assert_eq!(slots.len(), checked.facts.len());
        (expression, slots)
    }

    /// The truth where each property has the value of its name here, and others none.
    fn truth(text: &str) -> Truth {
        let (expression, slots) = compiled(text);
        let values: Vec<Value> = slots
            .iter()
            .map(|fact| match fact {
                Fact::Property(property) => match property.name.as_str() {
                    "one" => Value::Number(1.0),
                    "two" => Value::Number(2.0),
                    "yes" => Value::Bool(true),
                    "word" => Value::Text("word".into()),
                    "nan" => Value::Number(f64::NAN),
                    _ => Value::Unknown,
                },
                Fact::Age(_) => Value::Number(5e6),
                _ => Value::Unknown,
            })
            .collect();
        expression.evaluate(&values, 15_000_000)
    }

    #[test]
    fn conditions_are_evaluated() {
        for text in [
            "one < two && two >= 2",
            "one + two * 2 == 5 && 7 % 4 == 3",
            "word == \"word\" && word in [\"a\", \"word\"] && \"a\" < word",
            "yes ? one == 1 : nothing",
            "word.contains(\"or\") && word.startsWith(\"w\") && word.endsWith(\"d\")",
            "abs(one - two) == 1 && -one == -1 && !(two == one)",
            "[one, 2] == [1, two] && [1] != [1, 2]",
            "age(one) == 10s && age(one) > 9s && 11s > age(one) && age(one) * 2 == 20s",
            "!has(a.nothing) && yes == true",
            "!yes || one == 1",
        ] {
            assert_eq!(truth(text), Truth::True, "{text}");
        }
    }

    #[test]
    fn what_is_missing_makes_unknown_only_what_depends_on_it() {
        for text in ["nothing > 1 && one == 2", "one == 2 && nothing > 1"] {
            assert_eq!(truth(text), Truth::False, "{text}");
        }
        for text in ["nothing > 1 || one == 1", "one == 1 || nothing > 1"] {
            assert_eq!(truth(text), Truth::True, "{text}");
        }
        for text in [
            "nothing > 1",
            "!(nothing > 1)",
            "nothing > 1 && one == 1",
            "one == 1 && nothing > 1",
            "one == 2 || nothing > 1",
            "one in [nothing, 3]",
            "one + nothing > 0",
            "nothing ? yes : yes",
            "nan > 0",
            "!(nan > 0)",
            "one / 0 > 1",
            "word > 1",
        ] {
            assert!(matches!(truth(text), Truth::Unknown(_)), "{text}");
        }
        let (expression, slots) = compiled("one == 1 && nothing > 1");
        let truth = expression.evaluate(&[Value::Number(1.0), Value::Unknown], 0);
        let Truth::Unknown(slot) = truth else { panic!("{truth:?}") };
        assert!(matches!(&slots[usize::from(slot)], Fact::Property(p) if p.name == "nothing"));
    }

    #[test]
    fn an_age_is_due_when_it_crosses_its_limit_and_not_before() {
        let (expression, _) = compiled("age(x) > 10s");
        let values = [Value::Number(1_000_000.0)];
        let mut now = 2_000_000;
        assert_eq!(expression.evaluate(&values, now), Truth::False);
        while let Some(at) = expression.due(&values, now) {
            assert!(at > now);
            assert_eq!(expression.evaluate(&values, at - 1), Truth::False);
            now = at;
        }
        assert_eq!((now, expression.evaluate(&values, now)), (11_000_001, Truth::True));
        assert_eq!(expression.due(&[Value::Unknown], 0), None);
        let (sum, _) = compiled("age(x) + 1s > 10s");
        assert_eq!(sum.due(&values, now), Some(now + POLL_MS * 1000));
    }

    proptest! {
        /// A truth that changes without a fact changes only at a time that was foretold.
        #[test]
        fn every_change_of_an_age_is_foretold(
            limit_ms in 0_u64..5000, since in 0_i64..3_000_000, or in any::<bool>(),
            relation in prop::sample::select(vec!["<", "<=", ">", ">=", "==", "!="]),
        ) {
            let glue = if or { "||" } else { "&&" };
            let (expression, slots) =
                compiled(&format!("age(x) {relation} {limit_ms}ms {glue} age(y) > 2s"));
            let values = vec![Value::Number(since as f64); slots.len()];
            let mut now = 0;
            let mut foretold = expression.due(&values, now);
            let mut before = expression.evaluate(&values, now);
            while now < 9_000_000 {
                // Age is kept in microseconds, limits in milliseconds: no change in between.
                let next = foretold.filter(|at| *at <= now + 500).unwrap_or(now + 500);
                let truth = expression.evaluate(&values, next);
                if Some(next) != foretold {
                    prop_assert_eq!(truth, before, "at {}", next);
                }
                now = next;
                before = truth;
                foretold = expression.due(&values, now);
            }
        }
    }
}
