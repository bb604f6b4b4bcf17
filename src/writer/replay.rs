//! The state that the log leads to: what [`Writer::open`](super::Writer::open) starts from.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::entry::{Document, Entry};
use super::kind;
use crate::store::record::{Position, Record};
use crate::store::{Recovered, Recovery};
use crate::twin::path::Path;
use crate::twin::{Action, Event, ThingId, Twin, apply};

/// What [`Writer::open`](super::Writer::open) found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Of the log.
    pub recovery: Recovery,
    /// Twins that exist.
    pub twins: usize,
    /// Twins whose history has a hole: they show the newest state that can be proved and take no
    /// changes.
    pub stalled: BTreeSet<ThingId>,
    /// Records that could not be read for another reason than damage.
    pub unreadable: u64,
}

/// The state that the log's records lead to.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) twins: HashMap<ThingId, Entry>,
    pub(super) documents: HashMap<String, Document>,
    pub(super) stalled: BTreeSet<ThingId>,
    pub(super) unreadable: u64,
}

impl Replay {
    /// Marks the twins that the damage of the log may concern.
    pub(super) fn stall(&mut self, recovery: &Recovery) {
        let keys = recovery.damage.iter().flat_map(|damage| &damage.keys);
        self.stalled.extend(keys.filter_map(|key| ThingId::parse(key).ok()));
        for (id, entry) in &mut self.twins {
            entry.stalled = self.stalled.contains(id);
        }
        self.stalled.retain(|id| self.twins.contains_key(id));
    }

    pub(super) fn take(&mut self, recovered: Recovered<'_>) {
        let (record, tail) = match recovered {
            Recovered::State(record) => (record, record.previous),
            Recovered::Appended(record, position) => (record, position),
        };
        match record.kind {
            kind::DOCUMENT if record.payload.is_empty() => {
                self.documents.remove(record.key);
            }
            kind::DOCUMENT => match std::str::from_utf8(record.payload) {
                Ok(text) => {
                    let document = Document { text: text.into(), revision: record.revision, tail };
                    self.documents.insert(record.key.to_owned(), document);
                }
                Err(_) => self.unreadable += 1,
            },
            kind::STATE | kind::EVENT => {
                if self.twin(&record, tail).is_none() {
                    self.unreadable += 1;
                }
            }
            _ => self.unreadable += 1,
        }
    }

    fn twin(&mut self, record: &Record<'_>, tail: Position) -> Option<()> {
        let id = ThingId::parse(record.key).ok()?;
        if record.kind == kind::STATE {
            let twin = Twin::from_state(record.revision, record.payload).ok()?;
            let twin = Arc::new(twin.at(tail));
            // A whole state needs nothing before it.
            self.stalled.remove(&id);
            self.twins.insert(id, Entry { twin, stalled: false });
            return Some(());
        }
        let event: Event = serde_json::from_slice(record.payload).ok()?;
        let created = event.path == Path::Thing && event.action == Action::Created;
        let before = self.twins.get(&id).map(|entry| entry.twin.clone());
        let expected = before.as_ref().map_or(0, |twin| twin.revision) + 1;
        if record.revision != expected || (before.is_none() && !created) {
            // A record is missing before this one. The state stays what can be proved.
            self.stalled.insert(id);
            return Some(());
        }
        match apply(&id, before.as_deref(), &event, record.time_us) {
            Some(twin) => {
                let twin = Arc::new(twin.at(tail));
                self.twins.insert(id, Entry { twin, stalled: false });
            }
            None => {
                self.twins.remove(&id);
            }
        }
        Some(())
    }
}
