//! Transmissions: periods that agree, programs and channels that exist.
//!
//! Not here: who asks for them (`twin`, `node`, `rule`).

use super::checker::Checker;
use super::index::Index;
use crate::base::text::list_words;
use crate::base::text::suggest;
use crate::kinds::Transmission;
use crate::kinds::{Kind, Spec};
use crate::manifest::diagnostic::Code;

/// Transmission programs that every firmware can have.
const PROGRAMS: &[&str] = &[
    "interval",
    "on-change",
    "burst",
    "features",
    "raw",
    "aggregate",
    "predict",
    "on-request",
    "schedule",
];

impl Checker<'_, '_> {
    pub(super) fn transmission(&mut self, transmission: &Transmission, base: &[&str]) {
        let at = |field: &'static str| [base, &[field]].concat();
        let t = transmission;
        for (least, most, fields) in
            [(t.pmin, t.pmax, ("pmin", "pmax")), (t.epmin, t.epmax, ("epmin", "epmax"))]
        {
            if let (Some(least), Some(most)) = (least, most)
                && most < least
            {
                let message =
                    format!("`{}` ({most}) is less than `{}` ({least})", fields.1, fields.0);
                self.error(Code::BadBounds, &at(fields.1), message)
                    .help
                    .push(format!("`{}` is the least time, `{}` the longest", fields.0, fields.1));
            }
        }
        if t.interval.is_some() {
            for (given, field) in [(t.pmin.is_some(), "pmin"), (t.pmax.is_some(), "pmax")] {
                if given {
                    let message = format!(
                        "`interval` sets `pmin` and `pmax` together, so `{field}` contradicts it"
                    );
                    self.key_error(Code::BadBounds, &at(field), message)
                        .help
                        .push("keep one of them".to_owned());
                }
            }
        }
        if t.interval.is_some_and(|interval| interval.as_ms() == 0) {
            self.error(
                Code::OutOfRange,
                &at("interval"),
                "`interval` must be greater than 0".to_owned(),
            );
        }
        if let Some(program) = &t.program {
            let known = self.index.programs();
            if !known.contains(&program.as_str()) {
                let guess = suggest(program, known.iter().copied());
                let help = guess.map(|guess| format!("did you mean `{guess}`?"));
                let list = list_words(known.iter().copied());
                let message = format!("{} names a program that no firmware has", self.item.words());
                let diagnostic = self.error(Code::UnknownProgram, &at("program"), message);
                diagnostic.label = format!("no program `{program}`");
                diagnostic.help.extend(help);
                diagnostic
                    .help
                    .push(format!("the programs are {list}; a NodeProfile can list more"));
            }
        }
        if let Some(channel) = &t.channel {
            self.reference(Kind::Channel, channel, &at("channel"));
        }
    }
}

impl Index<'_> {
    fn programs(&self) -> Vec<&str> {
        let listed = self.items.iter().filter_map(|item| match item.spec {
            Some(Spec::NodeProfile(profile)) => Some(profile.programs.iter().map(String::as_str)),
            _ => None,
        });
        PROGRAMS.iter().copied().chain(listed.flatten()).collect()
    }
}
