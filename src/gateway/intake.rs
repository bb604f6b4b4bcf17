//! What a node's message becomes, whichever way it came: a change of its twin, or a word to whoever
//! listens. The listener, the external broker and, through either, serial lines share it.

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
pub struct Context {
    /// Takes readings.
    pub writer: Arc<Writer>,
    /// Knows the models.
    pub directory: Arc<Directory>,
    /// Counts.
    pub telemetry: Arc<Telemetry>,
    /// Verdicts to publish; a [`Sink`] of the writer.
    pub outbox: Arc<Outbox>,
    /// Is told what nodes say beside their readings.
    pub uplinks: Arc<dyn Uplinks>,
}

/// Outcome of a PUBLISH, as MQTT 5 says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Success,
    NoSubscribers,
    NotAuthorized,
    TopicInvalid,
    PayloadInvalid,
    QuotaExceeded,
}

/// What became of a message.
pub(crate) enum Taken {
    /// An ordinary message.
    NotAReading,
    /// Durable with this batch.
    Staged(u64),
    /// Taken before.
    Duplicate,
    /// Never to be taken.
    Refused(Reason),
    /// Not stored; the node should keep it.
    NotStored(DisconnectReasonCode),
}

/// Judges and stages a message that may be a reading.
///
/// * `live`: it comes from the node for the first time, neither sent again nor retained.
/// * `from`: who sent it, for events.
pub(crate) fn take_reading(
    context: &Context,
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
        Leaf::Ack | Leaf::Event | Leaf::State => return hear(context, topic, payload, live, from),
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
            tell_of_old_boot(context, &thing, stamp);
            Taken::Duplicate
        }
        Err(Rejected::Refused(refusal)) => {
            telemetry.readings_refused.inc();
            let (reason, word) = match &refusal {
                Refusal::NotFound(..) => (Reason::NotAuthorized, "UnknownNode"),
                Refusal::TooLarge(_) => (Reason::QuotaExceeded, "TwinTooLarge"),
                Refusal::Stalled(_) => {
                    return Taken::NotStored(DisconnectReasonCode::ImplementationSpecificError);
                }
                _ => (Reason::PayloadInvalid, "InvalidReading"),
            };
            let object = node_name(topic_name);
            let text = format!("a reading from {from} was refused: {}", refusal.message());
            telemetry.event(now_us(), Severity::Warning, word, object, text);
            Taken::Refused(reason)
        }
        Err(Rejected::NotStored(error)) => not_stored(context, &error),
    }
}

/// The node has to keep it.
fn not_stored(context: &Context, error: &AppendError) -> Taken {
    let text = format!("a reading was not taken: {error}");
    context.telemetry.event(now_us(), Severity::Warning, "NotStored", "Store", text);
    Taken::NotStored(DisconnectReasonCode::QuotaExceeded)
}

/// A node whose boot counter went back is not heard any more, and must not be so in silence.
fn tell_of_old_boot(context: &Context, thing: &ThingId, stamp: Option<Stamp>) {
    let known = context.writer.newest(thing.as_str()).and_then(|twin| twin.sequence.last());
    if let (Some(boot), Some(newest)) = (stamp.and_then(|s| s.boot), known.and_then(|s| s.boot))
        && boot != newest
    {
        let object = format!("Twin/{}/{}", thing.namespace(), thing.name());
        let text = format!(
            "readings of boot {boot} count as repeats, since boot {newest} was heard; a node whose \
             counter began anew has to say so: by a state, `{{\"up\":1,\"boot\":{boot}}}`, when it connects"
        );
        context.telemetry.event(now_us(), Severity::Warning, "OldBoot", object, text);
    }
}

/// Hands on what a node says beside its readings.
fn hear(
    context: &Context,
    topic: Topic,
    payload: &[u8],
    live: bool,
    from: &dyn std::fmt::Display,
) -> Taken {
    if payload.is_empty() {
        // A retained state is taken away.
        return Taken::NotAReading;
    }
    if context.writer.newest(topic.thing.as_str()).is_none() {
        context.telemetry.messages_unknown.inc();
        let refusal = Refusal::NotFound(topic.thing.clone(), Path::Thing);
        let object = format!("Twin/{}/{}", topic.thing.namespace(), topic.thing.name());
        let text = format!("a message from {from} is of no twin: {}", refusal.message());
        context.telemetry.event(now_us(), Severity::Warning, "UnknownNode", object, text);
        // It is handed on all the same: the twin may be about to be made.
    }
    match Uplink::decode_as(&topic.leaf, payload) {
        Ok(Some(mut uplink)) => {
            if !live {
                forget_uptime(&mut uplink);
            }
            let taken = match &uplink {
                Uplink::State(state) if state.up && live => born(context, &topic.thing, state.boot),
                _ => Taken::NotAReading,
            };
            context.uplinks.heard(topic.thing, uplink);
            taken
        }
        Ok(None) => Taken::NotAReading,
        Err(error) => {
            let error = PayloadError::NotJson(error.to_string());
            refused(context, &error, topic.thing.as_str(), from)
        }
    }
}

/// A state that is retained or sent again says nothing about the node's clock now: a command that
/// counted by it would reach the node too late.
fn forget_uptime(uplink: &mut Uplink) {
    if let Uplink::State(state) = uplink {
        state.ms = None;
    }
}

/// A node says at which boot it is. If its counter went back, its readings are taken from here on.
fn born(context: &Context, thing: &ThingId, boot: u32) -> Taken {
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
                "the node says that it is at boot {boot}, and later ones were heard before: its boots are \
                 numbered anew, as after its memory was erased or its board was replaced"
            );
            context.telemetry.event(now_us(), Severity::Warning, "BootReset", object, text);
            Taken::Staged(accepted.batch)
        }
        Err(Rejected::Refused(_)) => Taken::NotAReading,
        Err(Rejected::NotStored(error)) => not_stored(context, &error),
    }
}

fn refused(
    context: &Context,
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
