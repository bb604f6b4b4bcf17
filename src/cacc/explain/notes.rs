//! What happened, as events for people.

use crate::cacc::cause::Source;
use crate::cacc::command::{Command, CommandState, Purpose};
use crate::cacc::decide::safety::Safety;
use crate::cacc::effects::{Note, rule_object, twin_object};
use crate::cacc::facts::Facts;
use crate::cacc::rules::{RuleChange, Rules};
use crate::cacc::session::SessionEvent;
use crate::twin::ThingId;
use crate::wire::{Event, EventKind};

/// That a rule became active, or ended; `None` for other changes of its state.
pub fn rule_note(change: &RuleChange, rules: &Rules, facts: &Facts) -> Option<Note> {
    let entry = rules.entry(change.rule);
    let name = &entry.rule.name;
    let whom = match (change.member, entry.members().len()) {
        (Some(slot), _) => facts.of(slot).id.to_string(),
        (None, 1) => "1 node".to_owned(),
        (None, many) => format!("{many} nodes"),
    };
    let (reason, message) = if change.became_active() {
        let source = match change.member {
            Some(slot) => entry.source(slot),
            None => entry.group_source(),
        };
        let trace = source.map(Source::trace).map(|trace| format!(" (trace {trace})"));
        let trace = trace.unwrap_or_default();
        ("RuleActive", format!("rule `{name}` became active for {whom}{trace}"))
    } else if change.ended() {
        ("RuleEnded", format!("rule `{name}` ended for {whom}"))
    } else {
        return None;
    };
    let object = match change.member {
        Some(slot) => twin_object(&facts.of(slot).id),
        None => rule_object(name),
    };
    Some(Note { warning: false, reason, object, message, show: true })
}

/// Something that happened to a node.
///
/// * `sentence`: how the node transmits and why.
pub fn session_note(id: &ThingId, event: &SessionEvent, sentence: impl FnOnce() -> String) -> Note {
    let (warning, reason, message, show) = match event {
        SessionEvent::CameBack => (false, "NodeOnline", format!("{id} is online again"), true),
        SessionEvent::WentOffline(reason) => {
            (true, "NodeOffline", format!("{id} is offline: {}", reason.text()), false)
        }
        SessionEvent::CommandSent(command) => {
            let Command { id: number, op, cause, .. } = command;
            let message = format!("sent `{op}` to {id} (command {number}, cause {})", cause.by);
            (false, "CommandSent", message, false)
        }
        SessionEvent::CommandAcked(command) => {
            let message = format!("{id} accepted `{}` (command {})", command.op, command.id);
            (false, "CommandAcked", message, false)
        }
        SessionEvent::CommandEnded(command) => return ended(id, command, sentence),
        SessionEvent::Reported(event) => {
            let (warning, reason, message) = reported(id, event);
            (warning, reason, message, false)
        }
        SessionEvent::SafetyChanged(Some(safety)) => {
            let message = format!("{}: {}", safety.suspended(), sentence());
            (*safety != Safety::Held, safety.reason(), message, true)
        }
        SessionEvent::SafetyChanged(None) => {
            let message = format!("rules apply to this node again: {}", sentence());
            (false, "RulesApply", message, true)
        }
        SessionEvent::UnknownOverride(fields) => {
            let message = format!(
                "`desiredProperties` of the transmission contain unknown fields: {}",
                fields.join(", ")
            );
            (true, "DesiredNotUnderstood", message, false)
        }
    };
    Note { warning, reason, object: twin_object(id), message, show }
}

fn ended(id: &ThingId, command: &Command, sentence: impl FnOnce() -> String) -> Note {
    let (warning, reason, what) = match command.state {
        CommandState::Applied => (false, "CommandApplied", "applied"),
        CommandState::Rejected => (true, "CommandRejected", "refused"),
        CommandState::Expired => (true, "CommandExpired", "did not answer"),
        _ => (false, "CommandSuperseded", "no longer needs"),
    };
    let trace = match command.cause.trace.as_str() {
        "" => String::new(),
        trace => format!(", trace {trace}"),
    };
    let of_transmission = command.purpose == Purpose::Transmission;
    let message = if of_transmission && command.state == CommandState::Applied {
        format!("{} (command {}{trace})", sentence(), command.id)
    } else {
        let why = match command.reason.as_str() {
            "" => String::new(),
            why => format!(", {why}"),
        };
        let Command { id: number, op, cause, .. } = command;
        format!("{id} {what} `{op}`{why} (command {number}, cause {}{trace})", cause.by)
    };
    let show = command.state != CommandState::Superseded;
    Note { warning, reason, object: twin_object(id), message, show }
}

fn reported(id: &ThingId, event: &Event) -> (bool, &'static str, String) {
    let (warning, reason, message) = match &event.ev {
        EventKind::Lease => {
            (true, "LeaseExpired", "received nothing for a whole lease and runs its safe program")
        }
        EventKind::Overflow => (true, "ReadingsOverwritten", "overwrote readings unsent"),
        EventKind::Fault => (true, "SensorFault", "has a sensor that does not answer"),
        EventKind::Reverted => {
            (true, "TrialReverted", "reverted to its former transmission after a trial")
        }
        EventKind::Safe => (true, "SafeProgram", "runs its safe program"),
        EventKind::Updating => (false, "Updating", "is installing new firmware"),
        EventKind::Other(_) => (false, "NodeEvent", "sent an unknown event"),
    };
    let why = event.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let lost = event.lost.map(|lost| format!(" ({lost} lost)")).unwrap_or_default();
    (warning, reason, format!("{id} {message}{why}{lost}"))
}
