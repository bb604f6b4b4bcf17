//! What is judged and recorded, and not yet written: the newest state of everything, and the batch
//! that is being staged.

use std::collections::HashMap;
use std::sync::Arc;

use super::change::{Committed, Counts, Rejected, Request};
use super::entry::{Document, Entry};
use super::kind::{self, FORMAT};
use super::snapshot::StateSnapshot;
use crate::store::record::{HEADER_LEN, Position, Record, align};
use crate::store::{AppendError, Log};
use crate::twin::{Refusal, THING_LEN_MAX, ThingId, ValueError, apply, decide};

/// Changed under the writer's lock only.
pub(super) struct Staging {
    pub(super) log: Log,
    pub(super) twins: HashMap<ThingId, Entry>,
    pub(super) documents: HashMap<String, Document>,
    pub(super) staged: Vec<Committed>,
    /// Number of the batch that is being staged.
    pub(super) batch: u64,
    pub(super) counts: Counts,
    /// Due to be written.
    pub(super) snapshot: Option<StateSnapshot>,
}

impl Staging {
    /// Starts from what the log led to.
    pub(super) fn new(
        log: Log,
        twins: HashMap<ThingId, Entry>,
        documents: HashMap<String, Document>,
    ) -> Self {
        Self {
            log,
            twins,
            documents,
            staged: Vec::new(),
            batch: 1,
            counts: Counts::default(),
            snapshot: None,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.staged.is_empty() && !self.log.has_staged()
    }

    pub(super) fn record(&mut self, request: Request, now_us: i64) -> Result<Committed, Rejected> {
        let Request { id, change, only_if, origin, depth } = request;
        let entry = self.twins.get(&id);
        if entry.is_some_and(|entry| entry.stalled) {
            return Err(Rejected::Refused(Refusal::Stalled(id)));
        }
        let before = entry.map(|entry| entry.twin.clone());
        let tail = before.as_ref().map_or(Position::NONE, |twin| twin.tail);
        only_if.check(&id, before.as_deref()).map_err(Rejected::Refused)?;
        let event = decide(&id, before.as_deref(), change).map_err(Rejected::Refused)?;
        let after = apply(&id, before.as_deref(), &event, now_us);
        if after.as_ref().is_some_and(|twin| twin.json_len() > THING_LEN_MAX) {
            return Err(Rejected::Refused(Refusal::TooLarge(id)));
        }
        let revision = before.as_ref().map_or(0, |twin| twin.revision) + 1;
        let payload = serde_json::to_vec(&event).map_err(|error| {
            Rejected::Refused(Refusal::InvalidValue(ValueError::Json, error.to_string()))
        })?;
        let record = Record {
            kind: kind::EVENT,
            format: FORMAT,
            key: id.as_str(),
            revision,
            time_us: now_us,
            previous: tail,
            payload: &payload,
        };
        self.reserve(record.encoded_len())?;
        let tail = self.log.stage(&record);
        let after = after.map(|twin| Arc::new(twin.at(tail)));
        match &after {
            Some(twin) => match self.twins.get_mut(&id) {
                Some(entry) => entry.twin = twin.clone(),
                None => {
                    let entry = Entry { twin: twin.clone(), stalled: false };
                    self.twins.insert(id.clone(), entry);
                }
            },
            None => {
                self.twins.remove(&id);
            }
        }
        self.counts.events += 1;
        let change = Committed {
            id,
            event: Arc::new(event),
            before,
            after,
            revision,
            time_us: now_us,
            origin,
            depth,
        };
        self.staged.push(change.clone());
        Ok(change)
    }

    /// Stores or, with `None`, removes documents: all of them or none.
    pub(super) fn record_documents(
        &mut self,
        documents: Vec<(String, Option<Arc<str>>)>,
        now_us: i64,
    ) -> Result<(), AppendError> {
        let len = documents.iter().map(|(key, text)| {
            let payload = text.as_deref().map_or(0, str::len);
            align(HEADER_LEN + key.len() + payload)
        });
        self.reserve(len.sum())?;
        for (key, text) in documents {
            let (revision, tail) =
                self.documents.get(&key).map_or((0, Position::NONE), |d| (d.revision, d.tail));
            let record = Record {
                kind: kind::DOCUMENT,
                format: FORMAT,
                key: &key,
                revision: revision + 1,
                time_us: now_us,
                previous: tail,
                payload: text.as_deref().map_or(&[][..], str::as_bytes),
            };
            let tail = self.log.stage(&record);
            match text {
                Some(text) => {
                    self.documents.insert(key, Document { text, revision: revision + 1, tail });
                }
                None => {
                    self.documents.remove(&key);
                }
            }
        }
        Ok(())
    }

    pub(super) fn record_state(&mut self, id: &ThingId, now_us: i64) -> Result<(), Rejected> {
        let Some(entry) = self.twins.get(id) else { return Ok(()) };
        let (payload, revision, previous) =
            (entry.twin.to_state(), entry.twin.revision + 1, entry.twin.tail);
        let record = Record {
            kind: kind::STATE,
            format: FORMAT,
            key: id.as_str(),
            revision,
            time_us: now_us,
            previous,
            payload: &payload,
        };
        self.reserve(record.encoded_len())?;
        let tail = self.log.stage(&record);
        if let Some(entry) = self.twins.get_mut(id) {
            let twin = Arc::make_mut(&mut entry.twin);
            twin.revision = revision;
            twin.tail = tail;
            entry.stalled = false;
        }
        Ok(())
    }

    pub(super) fn reserve(&mut self, len: usize) -> Result<(), AppendError> {
        let segment = self.log.segment();
        let reserved = self.log.reserve(len);
        if reserved == Err(AppendError::Full) {
            self.counts.full += 1;
        }
        if self.log.segment() != segment {
            self.take_snapshot();
        }
        reserved
    }

    /// Notes everything as it is, at the boundary of a segment that has just begun.
    pub(super) fn take_snapshot(&mut self) {
        self.snapshot = Some(StateSnapshot {
            boundary: self.log.segment(),
            twins: self.twins.values().map(|entry| entry.twin.clone()).collect(),
            documents: self
                .documents
                .iter()
                .map(|(key, d)| (key.clone(), d.text.clone(), d.revision, d.tail))
                .collect(),
        });
    }
}
