//! Every kind of event: the latest are kept, watchers get each, and the log has a line of it.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

/// Events kept for `edgetwin events`; older ones are forgotten. A thousand fill a terminal many
/// times over and take about 300 KB.
pub const EVENTS_MAX: usize = 1000;
/// Events that wait for a watcher; one who is slower misses some.
const WATCHED_MAX: usize = 1024;

/// Something that a person who runs the twin should know of.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Microseconds since 1970, of the first time.
    pub first_us: i64,
    /// Microseconds since 1970, of the last time.
    pub last_us: i64,
    /// How often it happened in between.
    pub count: u64,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub severity: Severity,
    /// A stable CamelCase word.
    pub reason: &'static str,
    /// What it is about: `Twin/farm/node-17`.
    pub object: String,
    /// One sentence.
    pub message: String,
    /// Whether `run` shows it to people, although nobody has to act.
    #[serde(skip)]
    pub shown: bool,
}

/// Whether an event calls for someone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Severity {
    /// As intended.
    Normal,
    /// Someone should look.
    Warning,
}

/// The latest events, and those who watch.
#[derive(Debug)]
pub(super) struct Events {
    latest: Mutex<VecDeque<Event>>,
    watchers: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { latest: Mutex::default(), watchers: broadcast::Sender::new(WATCHED_MAX) }
    }
}

/// What to do about a warning, by its reason.
fn remedy(reason: &str) -> &'static str {
    REMEDIES
        .binary_search_by_key(&reason, |(name, _)| name)
        .map_or("`edgetwin describe` and `edgetwin events` show more about the object", |at| {
            REMEDIES[at].1
        })
}

/// Remedies by reason, sorted. A reason without one is of an object's condition, whose message says
/// what it lacks.
pub(crate) const REMEDIES: &[(&str, &str)] = &[
    ("AggregatesTooDeep", "use fewer levels of aggregates"),
    (
        "BootReset",
        "nothing, if the node's memory was erased or its board replaced; else find the second node that uses this twin's topics",
    ),
    (
        "BrokerUnreachable",
        "check the broker's address and that it runs; the connection is tried again",
    ),
    (
        "CorruptHistory",
        "stop the runtime, look with `edgetwin doctor`, and restore a backup or accept the loss",
    ),
    (
        "CorruptSnapshot",
        "nothing; the next snapshot replaces it. If it comes again, check the disk",
    ),
    ("HistoryUnreadable", "look at the log with `edgetwin doctor`"),
    ("LeaseExpired", "check that it runs and reaches this runtime"),
    (
        "NoHealthyInstance",
        "start an instance of the service, or look why its instances fail with `edgetwin describe service`",
    ),
    ("NoVerdict", "compare the service's inputs with the twin's model"),
    (
        "NotStored",
        "make room on the disk; if a write failed, look at the disk and start the runtime again",
    ),
    (
        "OldBoot",
        "have the node send its state when it connects, or erase neither its memory nor the twin's",
    ),
    ("ReadingsOverwritten", "have the node send less often, or mend its connection"),
    ("SensorFault", "check the sensor's wiring"),
    ("SerialLineClosed", "plug the board in again; the line is tried again"),
    (
        "SerialLineUnavailable",
        "plug the board in, or name its device; reading it may need a group such as `dialout`. It is tried again",
    ),
    ("SimulatedNodeEnded", "look at what it printed; it is started again"),
    ("SnapshotFailed", "make room on the disk; the log goes on without it"),
    ("TriggerLoop", "break the loop of services that read each other's verdicts"),
    ("TwinTooLarge", "remove what the twin does not need"),
    ("UnknownNode", "declare the twin, or correct the node's topic"),
    ("UnreadableObject", "apply the object again, or run the version that wrote it"),
    ("UnreadableRecords", "run the version that wrote them, or look with `edgetwin doctor`"),
    ("WriteFailed", "check the disk, then start the runtime again"),
];

impl Events {
    /// Keeps an event, hands it to watchers and logs it; one with the same reason and object raises
    /// the count of the former.
    pub(super) fn note(
        &self,
        now_us: i64,
        severity: Severity,
        shown: bool,
        reason: &'static str,
        object: String,
        message: String,
    ) {
        match severity {
            Severity::Normal => tracing::info!(reason, object, "{message}"),
            Severity::Warning => {
                tracing::warn!(reason, object, remedy = remedy(reason), "{message}");
            }
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            latest.iter().rposition(|event| event.reason == reason && event.object == object);
        let event = match same.and_then(|at| latest.remove(at)) {
            Some(event) => {
                Event { count: event.count + 1, last_us: now_us, severity, message, shown, ..event }
            }
            None => Event {
                first_us: now_us,
                last_us: now_us,
                count: 1,
                severity,
                reason,
                object,
                message,
                shown,
            },
        };
        if self.watchers.receiver_count() > 0 {
            // The last of them may have left just now.
            drop(self.watchers.send(event.clone()));
        }
        if latest.len() == EVENTS_MAX {
            latest.pop_front();
        }
        latest.push_back(event);
    }

    /// The latest events, oldest first.
    pub(super) fn list(&self) -> Vec<Event> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.iter().cloned().collect()
    }

    /// Each event from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<Event> {
        self.watchers.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Telemetry;
    use super::*;

    #[test]
    fn the_same_event_is_counted_and_old_ones_are_forgotten() {
        let telemetry = Telemetry::default();
        for time in 0..5 {
            telemetry.event(time, Severity::Warning, "NotJson", "Twin/a/b", format!("{time}"));
        }
        let events = telemetry.events();
        assert_eq!((events.len(), events[0].count), (1, 5));
        assert_eq!((events[0].first_us, events[0].last_us), (0, 4));
        for n in 0..EVENTS_MAX {
            telemetry.event(9, Severity::Normal, "Started", format!("Service/a/{n}"), "");
        }
        assert_eq!(telemetry.events().len(), EVENTS_MAX);
    }

    #[test]
    fn a_watcher_gets_each_event_and_whether_it_is_shown() {
        let telemetry = Telemetry::default();
        let mut watcher = telemetry.watch();
        telemetry.event(1, Severity::Normal, "CommandSent", "Twin/a/b", "sent");
        telemetry.announce(2, "RuleActive", "Twin/a/b", "active");
        let (first, second) = (watcher.try_recv().unwrap(), watcher.try_recv().unwrap());
        assert_eq!((first.reason, first.shown), ("CommandSent", false));
        assert_eq!((second.reason, second.shown), ("RuleActive", true));
    }

    #[test]
    fn remedies_are_found_by_their_reason() {
        assert!(REMEDIES.is_sorted_by_key(|(reason, _)| *reason));
        assert!(remedy("SnapshotFailed").contains("room"));
        assert!(remedy("ModelMissing").contains("describe"));
    }
}
