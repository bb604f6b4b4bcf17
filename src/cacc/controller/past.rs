//! Windows that are filled from history: what is to be read, what was, and that it is taken up.
//!
//! A window that a rule asks for anew, as at a start, has a past that the controller was not told
//! of. Who has the log reads it into the [`Past`] that was asked for; what happens meanwhile is kept
//! behind it, so the window says what it would have said had it been kept all along.

use std::collections::HashMap;

use super::facts::{feature_of, note};
use super::{Controller, Kept, Subject};
use crate::cacc::expr::{Fact, PropertyRef};
use crate::cacc::facts::window::Series;
use crate::twin::path::Path;
use crate::twin::{Action, Event, ThingId, Twin, apply};

/// Windows that are to be filled from history, with what was read so far.
#[derive(Debug, Default, PartialEq)]
pub struct Past {
    gaps: HashMap<ThingId, Vec<Gap>>,
}

#[derive(Debug, PartialEq)]
struct Gap {
    asked: PropertyRef,
    /// The same with the feature that it stands for.
    of: PropertyRef,
    ms: u64,
    upto: u64,
    series: Series,
}

impl Past {
    pub(super) fn ask(&mut self, twin: &Twin, kept: &Kept) {
        let feature = feature_of(twin, &kept.of).unwrap_or_default().to_owned();
        self.gaps.entry(twin.id.clone()).or_default().push(Gap {
            asked: kept.of.clone(),
            of: PropertyRef { feature, name: kept.of.name.clone() },
            ms: kept.ms,
            upto: kept.upto,
            series: Series::new(kept.ms),
        });
    }

    /// How many windows are to be filled.
    pub fn len(&self) -> usize {
        self.gaps.values().map(Vec::len).sum()
    }

    /// Whether nothing is to be read.
    pub fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Adds what else is to be read.
    pub fn extend(&mut self, more: Self) {
        for (id, gaps) in more.gaps {
            self.gaps.entry(id).or_default().extend(gaps);
        }
    }

    /// The time from which on events count, microseconds since 1970; `None` if none does.
    pub fn since(&self, now_us: i64) -> Option<i64> {
        self.gaps.values().flatten().map(|gap| gap.series.since(now_us)).min()
    }

    /// Takes one event; to be called with all of them, oldest first.
    ///
    /// * `revision`: that the event gave the twin.
    /// * `event`: is called only for events that are needed.
    pub fn take(
        &mut self,
        id: &str,
        revision: u64,
        time_us: i64,
        event: impl FnOnce() -> Option<Event>,
    ) {
        let Some(thing) = self.gaps.get_key_value(id).map(|(thing, _)| thing.clone()) else {
            return;
        };
        let Some(gaps) = self.gaps.get_mut(id) else { return };
        if gaps.iter().all(|gap| revision > gap.upto) {
            return;
        }
        let Some(event) = event() else { return };
        if event.path == Path::Thing && event.action == Action::Created {
            // What was before is of another twin of this name.
            gaps.iter_mut().for_each(|gap| gap.series = Series::new(gap.ms));
        }
        if event.action == Action::ReadLate {
            return;
        }
        // The number that an event gives a property does not depend on what was there before.
        let Some(twin) = apply(&thing, None, &event, time_us) else { return };
        for gap in gaps.iter_mut().filter(|gap| revision <= gap.upto) {
            note(&mut gap.series, &gap.of, &event, &twin, time_us);
        }
    }
}

impl Kept {
    /// Whether it is the window that a fact is about.
    pub(super) fn is_of(&self, fact: &Fact) -> bool {
        matches!(fact, Fact::Window(_, of, ms) if *of == self.of && *ms == self.ms)
    }
}

impl Subject {
    /// The window of a property, if a rule asks for it.
    pub(super) fn kept(&self, of: &PropertyRef, ms: u64) -> Option<&Kept> {
        self.series.iter().find(|kept| kept.of == *of && kept.ms == ms)
    }
}

impl Controller {
    /// Takes up what was read of an [`super::Effects::past`], and judges the rules that waited for it.
    pub fn fill(&mut self, past: Past, now_us: i64) {
        let now_us = self.now(now_us);
        for (id, gaps) in past.gaps {
            let Some(at) = self.index.get(&id).copied() else { continue };
            for Gap { asked, ms, upto, mut series, .. } in gaps {
                let same = |kept: &&mut Kept| {
                    kept.awaited && kept.of == asked && kept.ms == ms && kept.upto == upto
                };
                if let Some(kept) = self.subjects[at].series.iter_mut().find(same) {
                    series.extend(&kept.series);
                    series.forget(now_us);
                    (kept.series, kept.awaited) = (series, false);
                }
            }
            for (rule, place) in self.subjects[at].memberships.clone() {
                self.refresh(rule, place, None, now_us);
                self.judge(rule, place, None, now_us);
            }
            for rule in self.rules_over(&id) {
                self.judge_members(rule, now_us);
            }
        }
        for rule in 0..self.rules.len() {
            self.judge_group(rule, None, now_us);
        }
    }

    /// Whether a window that the rule asks for of a member, or of its aggregate, is still to be read.
    pub(super) fn awaits(&self, rule: usize, at: usize) -> bool {
        let facts = &self.rules[rule].facts;
        let asks = |kept: &Kept| kept.awaited && facts.iter().any(|fact| kept.is_of(fact));
        self.read_of(rule, at).any(|at| self.subjects[at].series.iter().any(asks))
    }
}
