//! NodeProfiles: sensors, programs, battery, and what firmware can be made of them.
//!
//! Not here: boards, pins and memory (`firmware::check`).

use super::checker::Checker;
use crate::firmware::{self, Fault};
use crate::kinds::{Kind, NodeProfileSpec};
use crate::manifest::diagnostic::Code;

impl Checker<'_, '_> {
    pub(super) fn profile(&mut self, profile: &NodeProfileSpec) {
        for (at, sensor) in profile.sensors.iter().enumerate() {
            let at = at.to_string();
            if sensor.property.is_none() == sensor.properties.is_empty() {
                let message = format!(
                    "a sensor of {} needs either `property` or `properties`",
                    self.item.words()
                );
                self.error(Code::Contradiction, &["spec", "sensors", &at, "type"], message);
            }
        }
        for (at, program) in profile.programs.iter().enumerate() {
            let at = at.to_string();
            self.member_name(program, "program", &["spec", "programs", &at]);
        }
        for (at, channel) in profile.channels.iter().enumerate() {
            let at = at.to_string();
            self.reference(Kind::Channel, channel, &["spec", "channels", &at]);
        }
        if let Some(transmission) = &profile.transmission {
            self.transmission(transmission, &["spec", "transmission"]);
        }
        if let Some(battery) = &profile.battery
            && battery.full_volts <= battery.empty_volts
        {
            let (full, empty) = (battery.full_volts, battery.empty_volts);
            let message = format!("`fullVolts` ({full}) is not more than `emptyVolts` ({empty})");
            self.error(Code::BadBounds, &["spec", "battery", "fullVolts"], message);
        }
        for problem in firmware::check(profile) {
            let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
            let code = code_of(problem.fault);
            let found = match problem.warning {
                true => self.warning(code, &path, problem.message),
                false => self.error(code, &path, problem.message),
            };
            found.help.extend(problem.help);
        }
    }
}

/// The code that a problem of firmware is shown with.
pub(crate) fn code_of(fault: Fault) -> Code {
    match fault {
        Fault::BadPin => Code::BadPin,
        Fault::PinTwice => Code::PinTwice,
        Fault::TooFast => Code::TooFast,
        Fault::UnknownQuantity => Code::UnknownProperty,
        Fault::OutOfRange => Code::OutOfRange,
        Fault::WrongType => Code::WrongType,
        Fault::DoesNotFit => Code::DoesNotFit,
        Fault::NotGenerated => Code::NotGenerated,
    }
}
