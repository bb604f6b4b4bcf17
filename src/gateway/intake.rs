//! Intake: a node's message becomes a change of its twin, or is passed to the receiver of uplinks. The
//! listener, the external broker and, through either, serial lines share it.

use mqtt_protocol_core::mqtt::result_code::DisconnectReasonCode;

use crate::base::clock::now_us;
use crate::base::telemetry::Severity;
use crate::base::telemetry::Telemetry;
use crate::gateway::directory::{Directory, Uplinks};
use crate::gateway::outbox::Outbox;
use crate::store::AppendError;
use crate::twin::path::Path;
use crate::twin::sequence::Stamp;
use crate::twin::{Change, Refusal, ThingId};
use crate::wire::Uplink;
use crate::wire::{Leaf, PayloadError, Topic};
use crate::writer::{Origin, Precondition, Rejected, Request, Writer};
use std::sync::Arc;

/// Largest packet taken, bytes; announced to MQTT 5 clients, others are disconnected.
pub const PACKET_LEN_MAX: u32 = 1 << 20;

/// What intake works with, whichever way a message came.
#[derive(Clone)]
pub struct IntakeContext {
    /// Takes readings.
    pub writer: Arc<Writer>,
    /// Knows the models.
    pub directory: Arc<Directory>,
    /// Counts.
    pub telemetry: Arc<Telemetry>,
    /// Verdicts to publish; a `Sink` of the writer.
    pub outbox: Arc<Outbox>,
    /// Receives acknowledgements, events and states.
    pub uplinks: Arc<dyn Uplinks>,
}

/// The result of a PUBLISH, as a reason code of MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Success,
    NoSubscribers,
    NotAuthorized,
    TopicInvalid,
    PayloadInvalid,
    QuotaExceeded,
}

/// The result of a message.
pub(crate) enum Taken {
    /// An ordinary message.
    NotAReading,
    /// Durable with this batch.
    Staged(u64),
    /// Applied before.
    Duplicate,
    /// Can never be applied.
    Refused(Reason),
    /// Not stored; the node should keep it.
    NotStored(DisconnectReasonCode),
}

/// Validates and stages a message that may be a reading.
///
/// * `live`: it was sent by the node for the first time, neither repeated nor retained.
/// * `from`: who sent it, for events.
pub(crate) fn take_reading(
    context: &IntakeContext,
    topic_name: &str,
    payload: &[u8],
    live: bool,
    from: &dyn std::fmt::Display,
) -> Taken {
    let topic = match Topic::parse(topic_name) {
        None => return Taken::NotAReading,
        Some(Err(error)) => return refused(context, &error, topic_name, from),
        Some(Ok(topic)) => topic,
    };
    let model = || context.directory.model(&topic.thing);
    let decoded = match topic.leaf {
        Leaf::Data => crate::wire::decode(payload, model().as_deref()),
        Leaf::Features => crate::wire::decode_features(payload, model().as_deref()),
        Leaf::Ack | Leaf::Event | Leaf::State => {
            return receive_uplink(context, topic, payload, live, from);
        }
        _ => return Taken::NotAReading,
    };
    let reading = match decoded {
        Ok(reading) => reading,
        Err(error) => return refused(context, &error, topic.thing.as_str(), from),
    };
    let (thing, stamp) = (topic.thing.clone(), reading.stamp);
    let request = Request {
        id: topic.thing,
        change: Change::Reading { values: reading.values, stamp },
        only_if: Precondition::Always,
        origin: Origin::Node,
        depth: 0,
    };
    let telemetry = &context.telemetry;
    match context.writer.submit(request, now_us()) {
        Ok(accepted) => {
            telemetry.readings.inc();
            Taken::Staged(accepted.batch)
        }
        Err(Rejected::Refused(Refusal::Duplicate)) => {
            telemetry.readings_duplicate.inc();
            report_old_boot(context, &thing, stamp);
            Taken::Duplicate
        }
        Err(Rejected::Refused(refusal)) => {
            telemetry.readings_refused.inc();
            let (reason, name) = match &refusal {
                Refusal::NotFound(..) => (Reason::NotAuthorized, "UnknownNode"),
                Refusal::TooLarge(_) => (Reason::QuotaExceeded, "TwinTooLarge"),
                Refusal::Stalled(_) => {
                    return Taken::NotStored(DisconnectReasonCode::ImplementationSpecificError);
                }
                _ => (Reason::PayloadInvalid, "InvalidReading"),
            };
            let object = node_name(topic_name);
            let text = format!("a reading from {from} was refused: {}", refusal.message());
            telemetry.event(now_us(), Severity::Warning, name, object, text);
            Taken::Refused(reason)
        }
        Err(Rejected::NotStored(error)) => not_stored(context, &error),
    }
}

/// The node has to keep it.
fn not_stored(context: &IntakeContext, error: &AppendError) -> Taken {
    let text = format!("a reading was not stored: {error}");
    context.telemetry.event(now_us(), Severity::Warning, "NotStored", "Store", text);
    Taken::NotStored(DisconnectReasonCode::QuotaExceeded)
}

/// Readings of a node whose boot counter went back are taken for duplicates: that needs an event.
fn report_old_boot(context: &IntakeContext, thing: &ThingId, stamp: Option<Stamp>) {
    let known = context.writer.newest(thing.as_str()).and_then(|twin| twin.sequence.last());
    if let (Some(boot), Some(newest)) = (stamp.and_then(|s| s.boot), known.and_then(|s| s.boot))
        && boot != newest
    {
        let object = format!("Twin/{}/{}", thing.namespace(), thing.name());
        let text = format!(
            "readings of boot {boot} count as duplicates, because boot {newest} was received; a node \
             whose counter restarted has to publish a state, `{{\"up\":1,\"boot\":{boot}}}`, when it connects"
        );
        context.telemetry.event(now_us(), Severity::Warning, "OldBoot", object, text);
    }
}

/// Passes on acknowledgements, events and states.
fn receive_uplink(
    context: &IntakeContext,
    topic: Topic,
    payload: &[u8],
    live: bool,
    from: &dyn std::fmt::Display,
) -> Taken {
    if payload.is_empty() {
        // A retained state is deleted.
        return Taken::NotAReading;
    }
    if context.writer.newest(topic.thing.as_str()).is_none() {
        context.telemetry.messages_unknown.inc();
        let refusal = Refusal::NotFound(topic.thing.clone(), Path::Thing);
        let object = format!("Twin/{}/{}", topic.thing.namespace(), topic.thing.name());
        let text = format!("a message from {from} belongs to no twin: {}", refusal.message());
        context.telemetry.event(now_us(), Severity::Warning, "UnknownNode", object, text);
        // It is passed on all the same: the twin may be about to be created.
    }
    match Uplink::decode_as(&topic.leaf, payload) {
        Ok(Some(mut uplink)) => {
            if !live {
                forget_uptime(&mut uplink);
            }
            let taken = match &uplink {
                Uplink::State(state) if state.up && live => {
                    report_boot(context, &topic.thing, state.boot)
                }
                _ => Taken::NotAReading,
            };
            context.uplinks.received(topic.thing, uplink);
            taken
        }
        Ok(None) => Taken::NotAReading,
        Err(error) => {
            let error = PayloadError::NotJson(error.to_string());
            refused(context, &error, topic.thing.as_str(), from)
        }
    }
}

/// The uptime in a state that is retained or repeated is out of date: a command whose time to live
/// was computed from it would arrive too late.
fn forget_uptime(uplink: &mut Uplink) {
    if let Uplink::State(state) = uplink {
        state.ms = None;
    }
}

/// A node reports its boot counter. If it went back, readings are accepted from this boot on.
fn report_boot(context: &IntakeContext, thing: &ThingId, boot: u32) -> Taken {
    let request = Request {
        id: thing.clone(),
        change: Change::Boot(boot.into()),
        only_if: Precondition::Always,
        origin: Origin::Runtime,
        depth: 0,
    };
    match context.writer.submit(request, now_us()) {
        Ok(accepted) => {
            let object = format!("Twin/{}/{}", thing.namespace(), thing.name());
            let text = format!(
                "the node reports boot {boot}, and later boots were received before: its boot counter \
                 restarted, as after its memory was erased or its board was replaced"
            );
            context.telemetry.event(now_us(), Severity::Warning, "BootReset", object, text);
            Taken::Staged(accepted.batch)
        }
        Err(Rejected::Refused(_)) => Taken::NotAReading,
        Err(Rejected::NotStored(error)) => not_stored(context, &error),
    }
}

fn refused(
    context: &IntakeContext,
    error: &PayloadError,
    about: &str,
    from: &dyn std::fmt::Display,
) -> Taken {
    let telemetry = &context.telemetry;
    telemetry.readings_refused.inc();
    let object = match ThingId::parse(about) {
        Ok(id) => format!("Twin/{}/{}", id.namespace(), id.name()),
        Err(_) => format!("Topic/{about}"),
    };
    let text = format!("a reading from {from} was refused: {error}");
    telemetry.event(now_us(), Severity::Warning, error.reason(), object, text);
    Taken::Refused(match error {
        PayloadError::Topic(_) => Reason::TopicInvalid,
        PayloadError::TooLarge(_) => Reason::QuotaExceeded,
        _ => Reason::PayloadInvalid,
    })
}

fn node_name(topic: &str) -> String {
    match Topic::parse(topic) {
        Some(Ok(topic)) => format!("Twin/{}/{}", topic.thing.namespace(), topic.thing.name()),
        _ => format!("Topic/{topic}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_before_has_no_uptime() {
        let text = br#"{"up":1,"boot":4,"ms":70,"lease":60}"#;
        let mut state = Uplink::decode_as(&Leaf::State, text).unwrap().unwrap();
        forget_uptime(&mut state);
        let without = br#"{"up":1,"boot":4,"lease":60}"#;
        assert_eq!(state, Uplink::decode_as(&Leaf::State, without).unwrap().unwrap());
    }
}
