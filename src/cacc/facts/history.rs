//! Windows that are filled from the log: what is to be read, and what was read.
//!
//! A window that a rule newly asks for, as after a start, covers a time of which no events were
//! observed. Whoever has the log reads them into the [`HistoryRequest`]; events that happen meanwhile
//! are added behind it, so the window is as if it had been kept all along.

use std::collections::BTreeMap;

use super::property::{feature_of, record};
use super::window::Series;
use crate::cacc::expr::PropertyRef;
use crate::twin::path::Path;
use crate::twin::{Action, Event, ThingId, Twin, apply};

/// Windows that are to be filled from history, with what was read so far.
#[derive(Debug, Default, PartialEq)]
pub struct HistoryRequest {
    windows: BTreeMap<ThingId, Vec<MissingWindow>>,
}

/// A window whose events before `upto` are missing.
#[derive(Debug, PartialEq)]
pub(super) struct MissingWindow {
    /// The property as the rule names it.
    pub(super) asked: PropertyRef,
    /// The same with the feature that it stands for.
    of: PropertyRef,
    pub(super) ms: u64,
    /// The twin's last revision that is to be read.
    pub(super) upto: u64,
    pub(super) series: Series,
}

impl HistoryRequest {
    /// Asks for the window of a property, `ms` long, up to the twin's revision now.
    pub(super) fn ask(&mut self, twin: &Twin, of: &PropertyRef, ms: u64) {
        let feature = feature_of(twin, of).unwrap_or_default().to_owned();
        self.windows.entry(twin.id.clone()).or_default().push(MissingWindow {
            asked: of.clone(),
            of: PropertyRef { feature, name: of.name.clone() },
            ms,
            upto: twin.revision,
            series: Series::new(ms),
        });
    }

    pub(super) fn into_windows(self) -> BTreeMap<ThingId, Vec<MissingWindow>> {
        self.windows
    }

    /// How many windows are to be filled.
    pub fn len(&self) -> usize {
        self.windows.values().map(Vec::len).sum()
    }

    /// Adds what else is to be read.
    pub fn extend(&mut self, more: Self) {
        for (id, windows) in more.windows {
            self.windows.entry(id).or_default().extend(windows);
        }
    }

    /// The time of the oldest event that is needed, microseconds since 1970; `None` if none is.
    pub fn since(&self, now_us: i64) -> Option<i64> {
        self.windows.values().flatten().map(|window| window.series.since(now_us)).min()
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
        let Some(thing) = self.windows.get_key_value(id).map(|(thing, _)| thing.clone()) else {
            return;
        };
        let Some(windows) = self.windows.get_mut(id) else { return };
        if windows.iter().all(|window| revision > window.upto) {
            return;
        }
        let Some(event) = event() else { return };
        if event.path == Path::Thing && event.action == Action::Created {
            // Older events belong to another twin of this name.
            windows.iter_mut().for_each(|window| window.series = Series::new(window.ms));
        }
        if event.action == Action::ReadLate {
            return;
        }
        // The number that an event gives a property does not depend on what was there before.
        let Some(twin) = apply(&thing, None, &event, time_us) else { return };
        for window in windows.iter_mut().filter(|window| revision <= window.upto) {
            record(&mut window.series, &window.of, &event, &twin, time_us);
        }
    }
}
