//! What `run` shows: events, verdicts and figures, as lines for people or for programs.
//!
//! Pure but for [`Watch`], which listens to the writer.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::base::telemetry::Event;
use crate::base::telemetry::fold::{Fold, Summary};
use crate::base::time::rfc3339;
use crate::cacc::controller::Counts;
use crate::cacc::facts::TRANSMISSION;
use crate::twin::{ThingId, Twin};
use crate::writer::{Committed, Origin, Sink};

/// Verdicts that wait to be shown; further ones are not shown.
const VERDICTS_MAX: usize = 256;
/// Rates are means over so many seconds.
const RATE_SECONDS: usize = 5;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Events as lines, repetitions folded.
#[derive(Debug)]
pub(super) struct Events {
    style: Style,
    fold: Fold<&'static str, Event>,
}

impl Events {
    /// Without events yet.
    pub(super) fn new(style: Style) -> Self {
        Self { style, fold: Fold::default() }
    }

    /// The line of an event, if it is shown now. People see warnings in the log.
    pub(super) fn line(&mut self, event: Event, now: Instant) -> Option<String> {
        if self.style == Style::Text && !event.shown {
            return None;
        }
        let mut subject = DefaultHasher::new();
        event.object.hash(&mut subject);
        let reason = event.reason;
        let event = self.fold.take(&reason, subject.finish(), event, now)?;
        Some(event_line(&event, 0, self.style))
    }

    /// The lines of what was counted.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let style = self.style;
        let line = |counted: Summary<_, Event>| event_line(&counted.last, counted.more, style);
        self.fold.due(now).into_iter().map(line).collect()
    }
}

fn event_line(event: &Event, more: u64, style: Style) -> String {
    let time = rfc3339(event.last_us);
    match style {
        Style::Text if more > 0 => {
            format!("{time}  {} ({} and {more} more)\n", event.message, event.reason)
        }
        Style::Text => format!("{time}  {}\n", event.message),
        Style::Json => {
            let mut line = json!({
                "type": "event",
                "time": time,
                "severity": event.severity,
                "reason": event.reason,
                "object": event.object,
                "message": event.message,
            });
            if more > 0 {
                line["more"] = more.into();
            }
            format!("{line}\n")
        }
    }
}

/// A verdict that was written to a twin.
#[derive(Debug)]
pub(super) struct Verdict {
    twin: Arc<Twin>,
    service: Arc<str>,
    verdict: Value,
    time_us: i64,
}

impl Verdict {
    /// `2026-11-27T12:56:42.1Z  lab:north-1   data-anomaly  anomalous 0.97  temperature 35.1, …`
    pub(super) fn line(&self, style: Style) -> String {
        let time = rfc3339(self.time_us);
        let Self { twin, service, verdict, .. } = self;
        if style == Style::Json {
            let line = json!({
                "type": "verdict",
                "time": time,
                "twin": twin.id.as_str(),
                "service": service,
                "verdict": verdict,
            });
            return format!("{line}\n");
        }
        let label = verdict["label"].as_str().unwrap_or("?");
        let score = verdict["score"].as_f64().map(|score| format!("{score:.2}"));
        let measured = twin.features.iter().filter(|(id, _)| &***id != TRANSMISSION);
        let values: Vec<String> = measured
            .filter_map(|(_, feature)| feature.properties.as_ref())
            .filter(|properties| !properties.contains_key("ofRevision"))
            .flatten()
            .filter_map(|(name, value)| Some(format!("{name} {}", value.as_f64()?)))
            .collect();
        format!(
            "{time}  {:<14} {service:<17} {label:<10} {:<4}  {}\n",
            twin.id.as_str(),
            score.unwrap_or_default(),
            values.join(", ")
        )
    }
}

/// Listens to the writer: counts the twins whose newest verdict is anomalous, and hands verdicts on.
#[derive(Debug, Default)]
pub(super) struct Watch {
    anomalous: Mutex<HashMap<ThingId, Vec<Arc<str>>>>,
    count: AtomicUsize,
    show: Option<mpsc::Sender<Verdict>>,
}

impl Watch {
    /// One that only counts.
    pub(super) fn counting() -> Arc<Self> {
        Arc::default()
    }

    /// One that hands verdicts on, too.
    pub(super) fn showing() -> (Arc<Self>, mpsc::Receiver<Verdict>) {
        let (show, verdicts) = mpsc::channel(VERDICTS_MAX);
        (Arc::new(Self { show: Some(show), ..Self::default() }), verdicts)
    }

    /// Twins whose newest verdict of some service is anomalous.
    pub(super) fn anomalies(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Sink for Watch {
    fn committed(&self, changes: &[Committed]) {
        for change in changes {
            if change.after.is_none() {
                let mut anomalous = self.anomalous.lock().unwrap_or_else(PoisonError::into_inner);
                anomalous.remove(&change.id);
                self.count.store(anomalous.len(), Ordering::Relaxed);
                continue;
            }
            let Origin::Service(service) = &change.origin else { continue };
            let (Some(twin), Some(verdict)) = (&change.after, &change.event.value) else {
                continue;
            };
            let is = verdict["label"].as_str().is_some_and(|label| label.starts_with("anomal"));
            let mut anomalous = self.anomalous.lock().unwrap_or_else(PoisonError::into_inner);
            let services = anomalous.get_mut(&change.id);
            let was = services.as_ref().is_some_and(|services| services.contains(service));
            match (was, is) {
                (false, true) => {
                    anomalous.entry(change.id.clone()).or_default().push(service.clone());
                }
                (true, false) => {
                    if let Some(services) = services {
                        services.retain(|other| other != service);
                        if services.is_empty() {
                            anomalous.remove(&change.id);
                        }
                    }
                }
                _ => {}
            }
            self.count.store(anomalous.len(), Ordering::Relaxed);
            drop(anomalous);
            if let Some(show) = &self.show {
                // A slow terminal misses some; they are in the twins all the same.
                drop(show.try_send(Verdict {
                    twin: twin.clone(),
                    service: service.clone(),
                    verdict: verdict.clone(),
                    time_us: change.time_us,
                }));
            }
        }
    }
}

/// The figures of the status line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figures {
    /// Nodes: those that are online, all, and commands that are not finished.
    pub(super) counts: Counts,
    /// Readings that became part of a twin, a second.
    pub(super) readings: f64,
    /// Verdicts written, a second.
    pub(super) verdicts: f64,
    /// Twins whose newest verdict is anomalous.
    pub(super) anomalies: usize,
}

impl Figures {
    /// `9 of 9 nodes online · 4.5 readings/s · 4.5 verdicts/s · 1 anomaly · no commands under way`
    pub(super) fn text(&self) -> String {
        let Counts { nodes, online, commands } = self.counts;
        let count = |n: usize, one: &str, many: &str| match n {
            0 => format!("no {many}"),
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        format!(
            "{online} of {} online · {} readings/s · {} verdicts/s · {} · {} under way",
            if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") },
            rate(self.readings),
            rate(self.verdicts),
            count(self.anomalies, "anomaly", "anomalies"),
            count(commands, "command", "commands"),
        )
    }

    /// The line for programs.
    pub(super) fn json(&self, now_us: i64) -> String {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        let line = json!({
            "type": "status",
            "time": rfc3339(now_us),
            "nodes": self.counts.nodes,
            "nodesOnline": self.counts.online,
            "readingsPerSecond": tenths(self.readings),
            "verdictsPerSecond": tenths(self.verdicts),
            "anomalies": self.anomalies,
            "commandsUnderWay": self.counts.commands,
        });
        format!("{line}\n")
    }
}

fn rate(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

/// Rates of two counters, as means over the last seconds.
#[derive(Debug)]
pub(super) struct Rates {
    seen: VecDeque<(Instant, u64, u64)>,
}

impl Rates {
    /// Begins now.
    pub(super) fn new(now: Instant, readings: u64, verdicts: u64) -> Self {
        Self { seen: VecDeque::from([(now, readings, verdicts)]) }
    }

    /// Takes the counters, about once a second, and returns both rates.
    pub(super) fn take(&mut self, now: Instant, readings: u64, verdicts: u64) -> (f64, f64) {
        self.seen.push_back((now, readings, verdicts));
        if self.seen.len() > RATE_SECONDS + 1 {
            self.seen.pop_front();
        }
        let Some((then, old_readings, old_verdicts)) = self.seen.front() else { return (0.0, 0.0) };
        let s = now.saturating_duration_since(*then).max(Duration::from_millis(1)).as_secs_f64();
        let mean = |new: u64, old: u64| new.saturating_sub(old) as f64 / s;
        (mean(readings, *old_readings), mean(verdicts, *old_verdicts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::telemetry::Severity;

    fn event(reason: &'static str, object: &str, shown: bool) -> Event {
        Event {
            first_us: 0,
            last_us: 0,
            count: 1,
            severity: Severity::Normal,
            reason,
            object: object.to_owned(),
            message: format!("{object} changed"),
            shown,
        }
    }

    #[test]
    fn people_see_what_they_need_and_programs_everything() {
        let now = Instant::now();
        let mut text = Events::new(Style::Text);
        assert_eq!(text.line(event("CommandSent", "Twin/lab/a", false), now), None);
        assert_eq!(
            text.line(event("RuleActive", "Twin/lab/a", true), now).unwrap(),
            "1970-01-01T00:00:00.000Z  Twin/lab/a changed\n"
        );
        let line = Events::new(Style::Json).line(event("CommandSent", "Twin/lab/a", false), now);
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(
            line,
            json!({
                "type": "event", "time": "1970-01-01T00:00:00.000Z", "severity": "Normal",
                "reason": "CommandSent", "object": "Twin/lab/a", "message": "Twin/lab/a changed",
            })
        );
    }

    #[test]
    fn a_rule_that_toggles_all_day_writes_few_lines() {
        let start = Instant::now();
        let mut events = Events::new(Style::Text);
        let mut lines = 0;
        for s in 0..86_400 {
            let now = start + Duration::from_secs(s);
            for node in 0..9 {
                let reason = if s % 2 == 0 { "RuleActive" } else { "RuleEnded" };
                let event = event(reason, &format!("Twin/lab/{node}"), true);
                lines += usize::from(events.line(event, now).is_some());
            }
            lines += events.due(now).len();
        }
        assert!(lines < 3000, "{lines}");
    }

    #[test]
    fn figures_read_as_a_sentence() {
        let mut figures = Figures {
            counts: Counts { nodes: 9, online: 8, commands: 1 },
            readings: 4.52,
            verdicts: 1234.6,
            anomalies: 0,
        };
        assert_eq!(
            figures.text(),
            "8 of 9 nodes online · 4.5 readings/s · 1235 verdicts/s · no anomalies · 1 command \
             under way"
        );
        figures.anomalies = 2;
        let line: Value = serde_json::from_str(&figures.json(0)).unwrap();
        assert_eq!((&line["anomalies"], &line["readingsPerSecond"]), (&2.into(), &4.5.into()));
    }

    #[test]
    fn rates_are_means_of_the_last_seconds() {
        let start = Instant::now();
        let mut rates = Rates::new(start, 100, 0);
        for s in 1..20 {
            let now = start + Duration::from_secs(s);
            let (readings, verdicts) = rates.take(now, 100 + 10 * s, 0);
            assert!((readings - 10.0).abs() < 1e-9, "{readings}");
            assert_eq!(verdicts, 0.0);
        }
        let now = start + Duration::from_secs(25);
        assert!(rates.take(now, 100 + 190, 0).0 < 10.0);
    }
}
