//! Messages of the runtime to subscribers and nodes, on their way to the broker.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::wire::{Leaf, Topic};
use crate::writer::{Committed, Origin, Sink};

/// Messages of the runtime on their way to subscribers: verdicts that became durable, and whatever
/// else it publishes.
#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<VecDeque<(String, Vec<u8>, bool)>>,
    wake: Notify,
}

/// Messages of the runtime that wait for the listener; beyond it the oldest is dropped.
const OUTBOX_MAX: usize = 65_536;

impl Outbox {
    /// Publishes a message at QoS 1.
    pub fn publish(&self, topic: String, payload: Vec<u8>, retain: bool) {
        self.publish_all([(topic, payload, retain)]);
    }

    fn publish_all(&self, messages: impl IntoIterator<Item = (String, Vec<u8>, bool)>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            if waiting.len() == OUTBOX_MAX {
                waiting.pop_front();
            }
            waiting.push_back(message);
        }
        let any = !waiting.is_empty();
        drop(waiting);
        if any {
            self.wake.notify_one();
        }
    }

    /// What waits, oldest first.
    pub(crate) fn take(&self) -> VecDeque<(String, Vec<u8>, bool)> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Outbox {
    /// Returns when something may wait.
    pub(crate) async fn filled(&self) {
        self.wake.notified().await;
    }
}

impl Sink for Outbox {
    fn committed(&self, changes: &[Committed]) {
        // Once for all of them: each lock and each wake-up may cost another thread's time.
        let mut messages = Vec::new();
        for change in changes {
            let Origin::Service(service) = &change.origin else { continue };
            let (Some(value), Some(_)) = (&change.event.value, &change.after) else { continue };
            let topic =
                Topic { thing: change.id.clone(), leaf: Leaf::Verdict(service.to_string()) };
            messages.push((topic.to_string(), value.to_string().into_bytes(), false));
        }
        if !messages.is_empty() {
            self.publish_all(messages);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_outbox_drops_the_oldest_and_keeps_the_order() {
        let outbox = Outbox::default();
        let message = |n: usize| (n.to_string(), vec![1], n.is_multiple_of(2));
        outbox.publish_all((0..=OUTBOX_MAX).map(message));
        let (topic, payload, retain) = message(OUTBOX_MAX + 1);
        outbox.publish(topic, payload, retain);
        let waiting = outbox.take();
        assert!(waiting.into_iter().eq((2..OUTBOX_MAX + 2).map(message)));
        assert!(outbox.take().is_empty());
    }
}
