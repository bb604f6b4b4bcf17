//! Twins by slot: their newest state, their windows and ages, and what their nodes report.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::history::HistoryRequest;
use super::link::Link;
use super::property::{number, property, read_property, record, touches};
use super::window::Series;
use crate::cacc::expr::{Fact, LinkField, PropertyRef};
use crate::twin::{Action, Event, ThingId, Twin};
use crate::wire::Program;

/// The place of a twin in all tables of the controller. Reused once the twin is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// The slot at an index of a table.
    pub fn at(index: usize) -> Self {
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// As an index into a table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node last reported of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeStatus {
    /// Whether it is online; `None` if there is no node, or it has never been seen.
    pub online: Option<bool>,
    /// Percent.
    pub battery: Option<u8>,
    /// dBm.
    pub rssi: Option<i16>,
    /// The program that it runs.
    pub program: Option<Program>,
    /// When it started, microseconds since 1970.
    pub started_us: Option<i64>,
}

/// What a new state of a twin changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwinChange {
    /// The twin was not known before.
    pub is_new: bool,
    /// Its labels are others.
    pub labels: bool,
}

/// The window of a property that a rule asks for.
#[derive(Debug)]
pub(super) struct KeptWindow {
    of: PropertyRef,
    ms: u64,
    pub(super) series: Series,
    /// Changes up to this revision of the twin are not observed but read from history.
    upto: u64,
    /// History is still to be read. Until then no rule that asks for the window is judged: it
    /// would end, or become active, because of what was only not read yet.
    pub(super) awaited: bool,
}

/// What is known of one twin.
#[derive(Debug)]
pub struct TwinFacts {
    /// Its name.
    pub id: ThingId,
    /// Its newest state; `None` until it is first observed.
    pub twin: Option<Arc<Twin>>,
    /// The link to its node.
    pub link: Link,
    pub(super) status: NodeStatus,
    windows: Vec<KeptWindow>,
    /// When the properties and verdicts whose age is asked were last written.
    times: Vec<(PropertyRef, i64)>,
    /// When each feature last changed.
    changed: Vec<(Arc<str>, i64)>,
}

impl TwinFacts {
    fn new(id: ThingId) -> Self {
        Self {
            id,
            twin: None,
            link: Link::default(),
            status: NodeStatus::default(),
            windows: Vec::new(),
            times: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// Whether its node was online and is no longer.
    pub fn is_offline(&self) -> bool {
        self.status.online == Some(false)
    }

    /// When a feature last changed, microseconds since 1970.
    pub fn changed_us(&self, feature: &str) -> Option<i64> {
        self.changed.iter().find(|(id, _)| **id == *feature).map(|(_, time_us)| *time_us)
    }

    /// Whether an event wrote a property.
    pub fn is_written(&self, event: &Event, of: &PropertyRef) -> bool {
        self.twin.as_deref().is_some_and(|twin| touches(event, twin, of))
    }

    pub(super) fn window(&self, of: &PropertyRef, ms: u64) -> Option<&KeptWindow> {
        self.windows.iter().find(|kept| kept.of == *of && kept.ms == ms)
    }

    /// By the name alone, since the feature may have been found for it.
    pub(super) fn is_being_read(&self, of: &PropertyRef, ms: u64) -> bool {
        self.windows.iter().any(|kept| kept.awaited && kept.ms == ms && kept.of.name == of.name)
    }

    pub(super) fn written_us(&self, of: &PropertyRef) -> Option<i64> {
        self.times.iter().find(|(other, _)| other == of).map(|(_, time)| *time)
    }

    fn note_changed(&mut self, now_us: i64) {
        let Some(twin) = &self.twin else { return };
        // The features that have the twin's revision are those that changed with it.
        let now = twin.features.iter().filter(|(_, feature)| feature.revision == twin.revision);
        for (id, _) in now {
            match self.changed.iter_mut().find(|(other, _)| other == id) {
                Some((_, time_us)) => *time_us = now_us,
                None => self.changed.push((id.clone(), now_us)),
            }
        }
        self.changed.retain(|(id, _)| twin.features.contains_key(id));
    }

    /// Each window: its length, its values, and whether history is still to be read.
    #[cfg(test)]
    pub(crate) fn windows(&self) -> impl Iterator<Item = (u64, &Series, bool)> {
        self.windows.iter().map(|kept| (kept.ms, &kept.series, kept.awaited))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Facts {
    twins: Vec<TwinFacts>,
    index: HashMap<ThingId, Slot>,
    free: Vec<Slot>,
    history: HistoryRequest,
    /// Windows whose history is still to be read.
    awaited: usize,
}

impl Facts {
    /// The slot of a twin, if there is one.
    pub fn slot(&self, id: &ThingId) -> Option<Slot> {
        self.index.get(id).copied()
    }

    /// What is known of a twin.
    pub fn of(&self, slot: Slot) -> &TwinFacts {
        &self.twins[slot.index()]
    }

    /// All slots that are in use, in their order.
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.index.values().copied().collect();
        slots.sort_unstable();
        slots
    }

    /// The slot of a twin, which may be a new one.
    pub fn add(&mut self, id: &ThingId) -> Slot {
        if let Some(slot) = self.slot(id) {
            return slot;
        }
        let twin = TwinFacts::new(id.clone());
        let slot = match self.free.pop() {
            Some(slot) => {
                self.twins[slot.index()] = twin;
                slot
            }
            None => {
                self.twins.push(twin);
                Slot::at(self.twins.len() - 1)
            }
        };
        self.index.insert(id.clone(), slot);
        slot
    }

    /// Forgets a twin; its slot is free.
    pub fn remove(&mut self, slot: Slot) {
        let id = self.of(slot).id.clone();
        if self.index.remove(&id).is_some() {
            self.drop_windows(slot, |_| false);
            self.twins[slot.index()] = TwinFacts::new(id);
            self.free.push(slot);
        }
    }

    /// Takes the newest state of a twin.
    pub fn set_twin(&mut self, slot: Slot, twin: &Arc<Twin>) -> TwinChange {
        let labels = |twin: &Twin| {
            twin.attributes.as_deref().and_then(|attributes| attributes.get("labels")).cloned()
        };
        let before = self.twins[slot.index()].twin.replace(twin.clone());
        TwinChange {
            is_new: before.is_none(),
            labels: before.is_none_or(|before| labels(&before) != labels(twin)),
        }
    }

    /// Adds what an event wrote to the windows and ages that are kept.
    pub fn record(&mut self, slot: Slot, event: &Event, now_us: i64) {
        let facts = &mut self.twins[slot.index()];
        facts.note_changed(now_us);
        if event.action == Action::ReadLate {
            // History: it came too late to say how things are.
            return;
        }
        let Some(twin) = facts.twin.clone() else { return };
        for kept in &mut facts.windows {
            if twin.revision > kept.upto {
                record(&mut kept.series, &kept.of, event, &twin, now_us);
            }
        }
        for (of, time_us) in &mut facts.times {
            if touches(event, &twin, of) {
                *time_us = now_us;
            }
        }
    }

    /// A message of any sort came from the node.
    pub fn seen(&mut self, slot: Slot, now_us: i64) {
        self.twins[slot.index()].link.last_seen_us = Some(now_us);
    }

    /// A reading came from the node.
    pub fn count_reading(&mut self, slot: Slot, event: &Event, now_us: i64) {
        self.seen(slot, now_us);
        self.twins[slot.index()].link.count(event, now_us);
    }

    /// Takes what a node reports of itself. Returns whether the node came or went.
    pub fn set_status(&mut self, slot: Slot, status: NodeStatus) -> bool {
        let before = std::mem::replace(&mut self.twins[slot.index()].status, status);
        before.online != self.of(slot).status.online
    }

    /// Keeps the windows and ages that are among `facts` from here on.
    pub fn track(&mut self, slot: Slot, facts: &[Fact], now_us: i64) {
        let known = &mut self.twins[slot.index()];
        for fact in facts {
            match fact {
                Fact::Window(_, of, ms) => {
                    if known.window(of, *ms).is_some() {
                        continue;
                    }
                    let mut kept = KeptWindow {
                        of: of.clone(),
                        ms: *ms,
                        series: Series::new(*ms),
                        upto: known.twin.as_deref().map_or(0, |twin| twin.revision),
                        awaited: false,
                    };
                    if let Some(twin) = &known.twin
                        && twin.modified_us >= kept.series.since(now_us)
                    {
                        if twin.revision == 1 {
                            // It is all of its history.
                            let value = property(twin, of).map_or(f64::NAN, number);
                            kept.series.push(twin.modified_us.min(now_us), value);
                        } else {
                            kept.awaited = true;
                            self.awaited += 1;
                            self.history.ask(twin, of, *ms);
                        }
                    }
                    known.windows.push(kept);
                }
                Fact::Age(_) | Fact::VerdictAge(_) => {
                    let Some(of) = read_property(fact) else { continue };
                    if known.written_us(&of).is_none() {
                        // No later than the twin's last change.
                        let time = known.twin.as_deref().map_or(now_us, |twin| twin.modified_us);
                        known.times.push((of, time.min(now_us)));
                    }
                }
                Fact::Link(LinkField::Loss | LinkField::Rate) => known.link.track(),
                _ => {}
            }
        }
    }

    /// Drops the windows and ages that are not among `facts`.
    pub fn keep_only(&mut self, facts: &BTreeSet<&Fact>) {
        let windows: BTreeSet<(&PropertyRef, u64)> = facts
            .iter()
            .filter_map(|fact| match fact {
                Fact::Window(_, of, ms) => Some((of, *ms)),
                _ => None,
            })
            .collect();
        let ages: BTreeSet<PropertyRef> = facts
            .iter()
            .filter(|fact| matches!(fact, Fact::Age(_) | Fact::VerdictAge(_)))
            .filter_map(|fact| read_property(fact))
            .collect();
        for at in 0..self.twins.len() {
            self.drop_windows(Slot::at(at), |kept| windows.contains(&(&kept.of, kept.ms)));
            self.twins[at].times.retain(|(of, _)| ages.contains(of));
        }
    }

    fn drop_windows(&mut self, slot: Slot, keep: impl Fn(&KeptWindow) -> bool) {
        let awaited = &mut self.awaited;
        self.twins[slot.index()].windows.retain(|kept| {
            let keeps = keep(kept);
            if !keeps && kept.awaited {
                *awaited -= 1;
            }
            keeps
        });
    }

    /// When the next value leaves a window that is among `facts`, microseconds since 1970.
    pub fn window_due(&self, slot: Slot, facts: &[Fact]) -> Option<i64> {
        let known = self.of(slot);
        let due = |fact: &Fact| match fact {
            Fact::Window(_, of, ms) => known.window(of, *ms).and_then(|kept| kept.series.due()),
            Fact::Link(LinkField::Loss | LinkField::Rate) => known.link.due(),
            _ => None,
        };
        facts.iter().filter_map(due).min()
    }

    /// Forgets what has left the windows of a twin.
    pub fn forget_old(&mut self, slot: Slot, now_us: i64) {
        let known = &mut self.twins[slot.index()];
        known.windows.iter_mut().for_each(|kept| kept.series.forget(now_us));
        known.link.forget(now_us);
    }

    /// Whether a window among `facts` is still to be read from history.
    pub fn awaits(&self, slot: Slot, facts: &[Fact]) -> bool {
        self.awaited > 0
            && self.of(slot).windows.iter().any(|kept| {
                kept.awaited
                    && facts.iter().any(|fact| {
                        matches!(fact, Fact::Window(_, of, ms) if *of == kept.of && *ms == kept.ms)
                    })
            })
    }

    /// Whether any window is still to be read from history.
    pub fn awaits_any(&self) -> bool {
        self.awaited > 0
    }

    /// What is to be read from history, for [`Facts::fill`].
    pub fn take_history(&mut self) -> HistoryRequest {
        std::mem::take(&mut self.history)
    }

    /// Takes what was read from history. Returns the twins whose windows it filled.
    pub fn fill(&mut self, history: HistoryRequest, now_us: i64) -> Vec<Slot> {
        let mut filled = Vec::new();
        for (id, windows) in history.into_windows() {
            let Some(slot) = self.slot(&id) else { continue };
            for mut missing in windows {
                let same = |kept: &&mut KeptWindow| {
                    kept.awaited
                        && kept.of == missing.asked
                        && kept.ms == missing.ms
                        && kept.upto == missing.upto
                };
                if let Some(kept) = self.twins[slot.index()].windows.iter_mut().find(same) {
                    missing.series.extend(&kept.series);
                    missing.series.forget(now_us);
                    (kept.series, kept.awaited) = (missing.series, false);
                    self.awaited -= 1;
                }
            }
            filled.push(slot);
        }
        filled
    }
}
