//! What is wrong with a profile, by the field that it is about.

/// What sort of mistake it is. Whoever shows problems has a code for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The board has no such pin, or it cannot do what the part needs.
    BadPin,
    /// Two parts share a pin.
    PinTwice,
    /// A sensor is read too often.
    TooFast,
    /// The part does not measure this.
    UnknownQuantity,
    /// A value is out of its range.
    OutOfRange,
    /// A value of another type than its property.
    WrongType,
    /// Memory, a message or the link's capacity is exceeded.
    DoesNotFit,
    /// There is no firmware for this.
    NotGenerated,
}

/// A mistake in a NodeProfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What sort of mistake.
    pub fault: Fault,
    /// The field, from the object's root.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Vec<String>,
    /// It is wrong whether firmware is made or not.
    pub(super) always: bool,
    /// It only keeps firmware from being made; whoever makes their own may go on.
    pub warning: bool,
}

/// A field's path below `spec`.
#[derive(Debug, Clone)]
pub(super) struct Field(Vec<String>);

impl Field {
    pub(super) fn at(steps: &[&str]) -> Self {
        Self(["spec"].iter().chain(steps).map(|step| (*step).to_owned()).collect())
    }
}

#[derive(Default)]
pub(super) struct Problems {
    pub(super) list: Vec<Problem>,
}

impl Problems {
    fn push(&mut self, fault: Fault, field: Field, message: &str, always: bool) -> &mut Problem {
        let message = message.to_owned();
        self.list.push(Problem {
            fault,
            path: field.0,
            message,
            help: Vec::new(),
            always,
            warning: false,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Wrong in any case.
    pub(super) fn always(&mut self, fault: Fault, field: Field, message: &str) -> &mut Problem {
        self.push(fault, field, message, true)
    }

    /// Firmware is not made for it.
    pub(super) fn not_made(&mut self, field: Field, message: &str) -> &mut Problem {
        self.push(Fault::NotGenerated, field, message, false)
    }

    /// It does not fit.
    pub(super) fn too_big(&mut self, field: Field, message: &str) -> &mut Problem {
        self.push(Fault::DoesNotFit, field, message, false)
    }
}
