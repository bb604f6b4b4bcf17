//! `any` and `all` over the members of a rule, counted.

use crate::cacc::expr::{Fact, PropertyRef, eval};

/// One `any` or `all` of a rule: each member's flag, and how many are known and true.
#[derive(Debug)]
pub(super) struct Quantifier {
    /// The fact's slot in the rule.
    pub(super) slot: usize,
    /// The property of each member that it reads.
    pub(super) of: PropertyRef,
    all: bool,
    each: Vec<Option<bool>>,
    known: usize,
    holding: usize,
    /// The value that the members have; `None`: they have none yet.
    pub(super) shared: Option<eval::Value>,
}

impl Quantifier {
    /// Of a fact, if it is one.
    pub(super) fn of(slot: usize, fact: &Fact) -> Option<Self> {
        let (of, all) = match fact {
            Fact::AnyOf(of) => (of.clone(), false),
            Fact::AllOf(of) => (of.clone(), true),
            _ => return None,
        };
        Some(Self { slot, of, all, each: Vec::new(), known: 0, holding: 0, shared: None })
    }

    /// A member joined, with the last place.
    pub(super) fn push(&mut self) {
        self.each.push(None);
    }

    /// A member left; the last one takes its place.
    pub(super) fn swap_remove(&mut self, place: usize) {
        self.set(place, None);
        self.each.swap_remove(place);
    }

    /// The flag of a member.
    pub(super) fn set(&mut self, place: usize, to: Option<bool>) {
        let count =
            |flag: Option<bool>| (usize::from(flag.is_some()), usize::from(flag == Some(true)));
        let (was, is) = (count(self.each[place]), count(to));
        self.known = self.known + is.0 - was.0;
        self.holding = self.holding + is.1 - was.1;
        self.each[place] = to;
    }

    /// Its value for all members.
    pub(super) fn value(&self) -> eval::Value {
        match (self.all, self.holding, self.known, self.each.len()) {
            (false, 1.., _, _) => eval::Value::Bool(true),
            (true, holding, known, _) if holding < known => eval::Value::Bool(false),
            (_, _, known, all) if known < all || all == 0 => eval::Value::Unknown,
            (all, ..) => eval::Value::Bool(all),
        }
    }
}
