//! Every metric, by name: one place for `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;
use tokio::sync::broadcast;

use super::events::{Event, Events, Severity};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A level.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the level.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The level.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, nanoseconds, three significant digits up to a minute.
#[derive(Debug)]
pub struct Timing(Mutex<Histogram<u64>>);

impl Default for Timing {
    fn default() -> Self {
        // The bounds are constants that hdrhistogram accepts.
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 2)
            .unwrap_or_else(|_| unreachable!("constant bounds"));
        Self(Mutex::new(histogram))
    }
}

impl Timing {
    /// Records a duration.
    pub fn record(&self, duration: std::time::Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos);
    }

    /// A copy of what was recorded.
    pub fn snapshot(&self) -> Histogram<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ident = $name:literal,)+) => {
        /// All metrics and the latest events of a runtime.
        #[derive(Debug, Default)]
        pub struct Telemetry {
            $($(#[doc = $help])+ pub $field: $type,)+
            events: Events,
        }

        impl Telemetry {
            /// The metrics in the text format of Prometheus 0.0.4.
            pub fn prometheus(&self) -> String {
                let mut text = String::with_capacity(8192);
                $(self.$field.write(&mut text, $name, concat!($($help),+).trim());)+
                text
            }
        }
    };
}

metrics! {
    /// Readings that became part of a twin.
    readings: Counter = "edgetwin_readings_total",
    /// Readings that were taken before and came again.
    readings_duplicate: Counter = "edgetwin_readings_duplicate_total",
    /// Readings that were refused: malformed, unknown node, out of range.
    readings_refused: Counter = "edgetwin_readings_refused_total",
    /// Acknowledgements, events and states of nodes that have no twin.
    messages_unknown: Counter = "edgetwin_messages_unknown_total",
    /// Readings that were not stored, for lack of space or after a failed write.
    readings_not_stored: Counter = "edgetwin_readings_not_stored_total",
    /// MQTT connections that are open.
    mqtt_connections: Gauge = "edgetwin_mqtt_connections",
    /// MQTT connections accepted.
    mqtt_accepted: Counter = "edgetwin_mqtt_connections_accepted_total",
    /// MQTT connections closed for a violation of the protocol.
    mqtt_violations: Counter = "edgetwin_mqtt_protocol_violations_total",
    /// MQTT messages received.
    mqtt_received: Counter = "edgetwin_mqtt_messages_received_total",
    /// MQTT messages sent to subscribers.
    mqtt_sent: Counter = "edgetwin_mqtt_messages_sent_total",
    /// MQTT messages dropped because a subscriber was too slow or away for too long.
    mqtt_dropped: Counter = "edgetwin_mqtt_messages_dropped_total",
    /// MQTT sessions kept, connected or not.
    mqtt_sessions: Gauge = "edgetwin_mqtt_sessions",
    /// Verdicts written to twins.
    verdicts: Counter = "edgetwin_verdicts_total",
    /// Calls of services that failed after all tries.
    calls_failed: Counter = "edgetwin_service_calls_failed_total",
    /// Calls of services that were dropped by an overload policy.
    calls_dropped: Counter = "edgetwin_service_calls_dropped_total",
    /// Attempts that went to another instance after a failure.
    calls_retried: Counter = "edgetwin_service_calls_retried_total",
    /// Commands sent to nodes, repetitions and heartbeats included.
    commands_sent: Counter = "edgetwin_commands_sent_total",
    /// Changes of twins that the controller did not see one by one, because it was overrun.
    context_missed: Counter = "edgetwin_context_changes_missed_total",
    /// HTTP requests answered.
    http_requests: Counter = "edgetwin_http_requests_total",
    /// HTTP requests refused for their Host or Origin.
    http_refused: Counter = "edgetwin_http_refused_total",
    /// Events that a slow reader of a stream missed.
    stream_missed: Counter = "edgetwin_stream_events_missed_total",
    /// From the arrival of a reading to its record being staged.
    stage_apply: Timing = "edgetwin_stage_apply_seconds",
    /// From the lookup of a service to its verdict, in process.
    stage_inference: Timing = "edgetwin_stage_inference_seconds",
    /// Lookup of an instance by name.
    stage_lookup: Timing = "edgetwin_stage_lookup_seconds",
    /// Calls of a service over HTTP, tries included.
    stage_call: Timing = "edgetwin_stage_call_seconds",
    /// Writing and syncing a batch.
    stage_commit: Timing = "edgetwin_stage_commit_seconds",
    /// From a rule becoming active (without `for`, from the verdict) to its command being sent.
    stage_command: Timing = "edgetwin_stage_command_seconds",
    /// From a transmission command to the node's answer.
    stage_answer: Timing = "edgetwin_stage_command_answer_seconds",
    /// From a transmission command to the first reading under it.
    stage_reading: Timing = "edgetwin_stage_command_reading_seconds",
    /// From a rule becoming active (without `for`, from the verdict) to its actuator command.
    stage_act_command: Timing = "edgetwin_stage_actuator_command_seconds",
    /// From an actuator command to the node's answer.
    stage_act_answer: Timing = "edgetwin_stage_actuator_answer_seconds",
    /// From the arrival of a reading to its acknowledgement being written.
    stage_ack: Timing = "edgetwin_stage_ack_seconds",
}

impl Telemetry {
    /// Notes an event; one with the same reason and object raises the count of the former. A warning
    /// is a line of the log, folded where it repeats.
    pub fn event(
        &self,
        now_us: i64,
        severity: Severity,
        reason: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.events.note(now_us, severity, false, reason, object.into(), message.into());
    }

    /// The same for what goes as intended and a person wants to see all the same: a rule that
    /// becomes active, a node that is back.
    pub fn announce(
        &self,
        now_us: i64,
        reason: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.events.note(now_us, Severity::Normal, true, reason, object.into(), message.into());
    }

    /// The latest events, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.events.list()
    }

    /// Each event from now on.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.events.watch()
    }
}

/// A metric that writes itself.
trait Metric {
    fn write(&self, text: &mut String, name: &str, help: &str);
}

impl Metric for Counter {
    fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, help, "counter");
        line(text, name, self.get());
    }
}

impl Metric for Gauge {
    fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, help, "gauge");
        line(text, name, self.get());
    }
}

impl Metric for Timing {
    fn write(&self, text: &mut String, name: &str, help: &str) {
        let histogram = self.snapshot();
        head(text, name, help, "summary");
        for quantile in [0.5, 0.9, 0.99, 0.999] {
            let seconds = histogram.value_at_quantile(quantile) as f64 / 1e9;
            line(text, &format!("{name}{{quantile=\"{quantile}\"}}"), seconds);
        }
        line(text, &format!("{name}_sum"), histogram.mean() * histogram.len() as f64 / 1e9);
        line(text, &format!("{name}_count"), histogram.len());
    }
}

/// Writes the two lines in front of a metric.
pub fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string cannot fail.
    let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Writes one sample.
pub fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    let _infallible = writeln!(text, "{name} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_in_the_text_format() {
        let telemetry = Telemetry::default();
        telemetry.readings.add(3);
        telemetry.stage_commit.record(std::time::Duration::from_micros(80));
        let text = telemetry.prometheus();
        assert!(
            text.contains("# TYPE edgetwin_readings_total counter\nedgetwin_readings_total 3\n")
        );
        assert!(text.contains("edgetwin_stage_commit_seconds_count 1\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
        }
    }
}
