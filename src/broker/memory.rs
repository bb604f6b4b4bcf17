//! The broker's memory: sessions, subscriptions, retained messages, and who gets a message. Pure:
//! no socket and no clock; `now` is an argument.
//!
//! A message goes once to a session whose subscriptions overlap, at the highest quality of service
//! among them and with all their identifiers (MQTT 5, 3.3.4; 3.1.1 leaves it open). A shared
//! subscription gives it to one member, in turn, those who are connected first.
//!
//! Not here: packets on the wire (`broker::listener`), readings (`wire`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mqtt_protocol_core::mqtt::ArcPayload;
use mqtt_protocol_core::mqtt::packet::{GenericStorePacket, Property};

/// Messages waiting for one session; what comes on top is dropped for it and counted. Publishers
/// are never slowed by a subscriber.
pub const QUEUE_LEN_MAX: usize = 1000;
/// Bytes waiting for one session; see [`QUEUE_LEN_MAX`].
pub const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Retained messages in all; one more is refused with `QuotaExceeded`.
pub const RETAINED_MAX: usize = 100_000;
/// Bytes of all retained messages.
pub const RETAINED_BYTES_MAX: usize = 64 << 20;
/// Subscriptions of one session; one more is refused with `QuotaExceeded`.
pub const SUBSCRIPTIONS_MAX: usize = 1000;
/// Sessions in all; one more client is refused with `QuotaExceeded`.
pub const SESSIONS_MAX: usize = 20_000;
/// Levels of a topic or filter; deeper ones are refused.
pub const LEVELS_MAX: usize = 64;

/// A client identifier.
pub type ClientId = Rc<str>;

/// A message on its way to subscribers.
#[derive(Debug)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Application payload.
    pub payload: ArcPayload,
    /// 0, 1 or 2, as published.
    pub qos: u8,
    /// Whether it was published with RETAIN.
    pub retain: bool,
    /// Properties that are passed on unchanged.
    pub properties: Vec<Property>,
    /// After this it is not delivered any more.
    pub expires: Option<Instant>,
    /// Who published it, for the option *no local*.
    pub sender: Option<ClientId>,
}

impl Message {
    /// What it takes in a queue, bytes.
    pub fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + 64 * self.properties.len() + 64
    }
}

/// A subscription's options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Most that is delivered: 0, 1 or 2.
    pub qos: u8,
    /// Not what this client published itself.
    pub no_local: bool,
    /// Pass on RETAIN as published.
    pub retain_as_published: bool,
    /// Subscription identifier, MQTT 5.
    pub identifier: Option<u32>,
}

/// One message for one session.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Rc<Message>,
    /// Quality of service to deliver at.
    pub qos: u8,
    /// RETAIN flag to deliver with.
    pub retain: bool,
    /// Subscription identifiers to deliver with.
    pub identifiers: Vec<u32>,
}

/// A will, or nothing once it was published or withdrawn.
#[derive(Debug, Clone)]
pub struct Will {
    /// The message.
    pub message: Rc<Message>,
    /// How long to wait for the client to come back.
    pub delay: Duration,
    /// Message expiry interval, counted from when it is published.
    pub expiry: Option<Duration>,
}

/// What is kept of a client between its connections.
#[derive(Default)]
pub struct Session {
    /// By topic filter, `$share/…` included.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// What could not be sent yet, oldest first.
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    /// Sent and not acknowledged, as the protocol library stores them.
    pub stored: Vec<GenericStorePacket<u16>>,
    /// Packet identifiers of messages received at QoS 2 whose release is due.
    pub received: std::collections::HashSet<u16>,
    /// How long the session lives without a connection; `None` for ever.
    pub expiry: Option<Duration>,
    /// Whether a connection has it.
    pub connected: bool,
    /// When the connection ended.
    pub ended: Option<Instant>,
    /// Published when the connection ends without DISCONNECT.
    pub will: Option<Will>,
    /// MQTT 5 or 3.1.1, of the last connection.
    pub version: u8,
}

impl Session {
    /// Queues a delivery; `false` if it was dropped.
    pub fn push(&mut self, delivery: Delivery) -> bool {
        let len = delivery.message.size();
        if self.queue.len() >= QUEUE_LEN_MAX || self.queue_bytes + len > QUEUE_BYTES_MAX {
            return false;
        }
        self.queue_bytes += len;
        self.queue.push_back(delivery);
        true
    }

    /// The next delivery that has not expired.
    pub fn pop(&mut self, now: Instant) -> Option<Delivery> {
        while let Some(delivery) = self.queue.pop_front() {
            self.queue_bytes -= delivery.message.size();
            if delivery.message.expires.is_none_or(|expires| expires > now) {
                return Some(delivery);
            }
        }
        None
    }

    /// Puts back what [`Session::pop`] gave.
    pub fn unpop(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.message.size();
        self.queue.push_front(delivery);
    }

    /// Whether something waits.
    pub fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When the session ends, if nobody connects.
    pub fn ends_at(&self) -> Option<Instant> {
        self.ended.and_then(|ended| ended.checked_add(self.expiry?))
    }

    /// When the will is due: its delay or the end of the session, whichever is first.
    pub fn will_due(&self) -> Option<Instant> {
        let due = self.ended?.checked_add(self.will.as_ref()?.delay)?;
        Some(self.ends_at().map_or(due, |end| end.min(due)))
    }
}

/// Sessions, subscriptions and retained messages.
#[derive(Default)]
pub struct Broker {
    /// By client identifier.
    pub sessions: HashMap<ClientId, Session>,
    root: Level,
    retained: BTreeMap<String, Rc<Message>>,
    retained_bytes: usize,
    turn: usize,
}

#[derive(Default)]
struct Level {
    below: HashMap<Box<str>, Level>,
    here: Vec<Subscriber>,
    /// Of the filter that ends with `#` here.
    all: Vec<Subscriber>,
}

struct Subscriber {
    client: ClientId,
    subscription: Subscription,
    /// `$share` group and whole filter.
    share: Option<Rc<str>>,
}

/// Why a filter or topic is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidTopic;

/// Checks a topic name: not empty, no wildcards, no NUL, at most [`LEVELS_MAX`] levels.
///
/// # Errors
/// [`InvalidTopic`].
pub fn check_topic(topic: &str) -> Result<(), InvalidTopic> {
    let levels = topic.split('/').count();
    if topic.is_empty() || topic.contains(['+', '#', '\0']) || levels > LEVELS_MAX {
        return Err(InvalidTopic);
    }
    Ok(())
}

/// Checks a topic filter and splits `$share/<group>/<filter>`.
///
/// # Errors
/// [`InvalidTopic`].
pub fn parse_filter(filter: &str) -> Result<(Option<&str>, &str), InvalidTopic> {
    let (share, filter) = match filter.strip_prefix("$share/") {
        Some(rest) => {
            let (group, filter) = rest.split_once('/').ok_or(InvalidTopic)?;
            if group.is_empty() || group.contains(['+', '#']) {
                return Err(InvalidTopic);
            }
            (Some(group), filter)
        }
        None => (None, filter),
    };
    if filter.is_empty() || filter.contains('\0') || filter.split('/').count() > LEVELS_MAX {
        return Err(InvalidTopic);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let wild = level.contains(['+', '#']);
        if wild && level.len() > 1 || level == "#" && levels.peek().is_some() {
            return Err(InvalidTopic);
        }
    }
    Ok((share, filter))
}

/// Whether `filter` (without `$share`) matches `topic`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(part)) if level == part => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

impl Broker {
    /// Adds or replaces a subscription; `true` if it is new.
    pub fn subscribe(
        &mut self,
        client: &ClientId,
        filter: &str,
        subscription: Subscription,
    ) -> bool {
        let Ok((share, bare)) = parse_filter(filter) else { return false };
        let share = share.map(|_| Rc::from(filter));
        let mut level = &mut self.root;
        let mut all = false;
        for part in bare.split('/') {
            if part == "#" {
                all = true;
                break;
            }
            level = level.below.entry(part.into()).or_default();
        }
        let list = if all { &mut level.all } else { &mut level.here };
        list.retain(|s| s.client != *client || s.share != share);
        list.push(Subscriber { client: client.clone(), subscription, share });
        match self.sessions.get_mut(client) {
            Some(session) => {
                session.subscriptions.insert(filter.to_owned(), subscription).is_none()
            }
            None => false,
        }
    }

    /// Removes a subscription; `true` if there was one.
    pub fn unsubscribe(&mut self, client: &ClientId, filter: &str) -> bool {
        let Some(session) = self.sessions.get_mut(client) else { return false };
        if session.subscriptions.remove(filter).is_none() {
            return false;
        }
        self.root.forget(client, filter);
        true
    }

    /// Ends a session and returns it.
    pub fn remove(&mut self, client: &ClientId) -> Option<Session> {
        let session = self.sessions.remove(client)?;
        for filter in session.subscriptions.keys() {
            self.root.forget(client, filter);
        }
        Some(session)
    }

    /// Who gets `message`, and how.
    pub fn route(&mut self, message: &Rc<Message>) -> Vec<(ClientId, Delivery)> {
        if self.root.below.is_empty() && self.root.all.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<&Subscriber> = Vec::new();
        self.root.find(&message.topic, &mut found);
        let mut deliveries: Vec<(ClientId, Delivery)> = Vec::new();
        let mut groups: BTreeMap<Rc<str>, Vec<&Subscriber>> = BTreeMap::new();
        for subscriber in found {
            if let Some(share) = &subscriber.share {
                groups.entry(share.clone()).or_default().push(subscriber);
                continue;
            }
            let Subscriber { client, subscription, .. } = subscriber;
            if subscription.no_local && message.sender.as_ref() == Some(client) {
                continue;
            }
            let qos = subscription.qos.min(message.qos);
            let retain = subscription.retain_as_published && message.retain;
            match deliveries.iter_mut().find(|(known, _)| known == client) {
                Some((_, delivery)) => {
                    delivery.qos = delivery.qos.max(qos);
                    delivery.retain |= retain;
                    delivery.identifiers.extend(subscription.identifier);
                }
                None => deliveries.push((client.clone(), delivery(message, subscription, retain))),
            }
        }
        for members in groups.into_values() {
            let connected: Vec<&Subscriber> = members
                .iter()
                .copied()
                .filter(|member| self.sessions.get(&member.client).is_some_and(|s| s.connected))
                .collect();
            let members = if connected.is_empty() { members } else { connected };
            self.turn = self.turn.wrapping_add(1);
            let Subscriber { client, subscription, .. } = members[self.turn % members.len()];
            let retain = subscription.retain_as_published && message.retain;
            deliveries.push((client.clone(), delivery(message, subscription, retain)));
        }
        deliveries
    }

    /// Keeps or, with an empty payload, removes the retained message of its topic.
    ///
    /// # Errors
    /// [`InvalidTopic`] when there is no room.
    pub fn retain(&mut self, message: &Rc<Message>) -> Result<(), InvalidTopic> {
        let old = self.retained.get(&message.topic).map_or(0, |old| old.size());
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
            self.retained_bytes -= old;
            return Ok(());
        }
        let len = message.size();
        let full = old == 0 && self.retained.len() >= RETAINED_MAX;
        if full || self.retained_bytes - old + len > RETAINED_BYTES_MAX {
            return Err(InvalidTopic);
        }
        self.retained_bytes -= old;
        self.retained_bytes += len;
        self.retained.insert(message.topic.clone(), message.clone());
        Ok(())
    }

    /// The retained messages that a new subscription gets.
    pub fn retained(
        &self,
        filter: &str,
        subscription: &Subscription,
        now: Instant,
    ) -> Vec<Delivery> {
        let live = |message: &&Rc<Message>| message.expires.is_none_or(|expires| expires > now);
        let exact = !filter.contains(['+', '#']);
        let found: Vec<&Rc<Message>> = if exact {
            self.retained.get(filter).into_iter().filter(live).collect()
        } else {
            let prefix = filter[..filter.find(['+', '#']).unwrap_or(0)].trim_end_matches('/');
            let from = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
            self.retained
                .range::<str, _>(from)
                .take_while(|(topic, _)| topic.starts_with(prefix))
                .filter(|(topic, _)| matches(filter, topic))
                .map(|(_, message)| message)
                .filter(live)
                .collect()
        };
        found.into_iter().map(|message| delivery(message, subscription, true)).collect()
    }

    /// When [`Broker::due`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        let each = self.sessions.values().filter(|session| !session.connected);
        each.filter_map(|session| match (session.ends_at(), session.will_due()) {
            (Some(end), Some(will)) => Some(end.min(will)),
            (end, will) => end.or(will),
        })
        .min()
    }

    /// Ends the sessions whose time is over and returns the wills that are due.
    pub fn due(&mut self, now: Instant) -> Vec<Will> {
        let mut wills = Vec::new();
        let mut ended = Vec::new();
        for (client, session) in &mut self.sessions {
            if session.connected {
                continue;
            }
            if session.will_due().is_some_and(|due| due <= now) {
                wills.extend(session.will.take());
            }
            if session.ends_at().is_some_and(|end| end <= now) {
                ended.push(client.clone());
            }
        }
        for client in ended {
            self.remove(&client);
        }
        wills
    }
}

fn delivery(message: &Rc<Message>, subscription: &Subscription, retain: bool) -> Delivery {
    Delivery {
        message: message.clone(),
        qos: subscription.qos.min(message.qos),
        retain,
        identifiers: subscription.identifier.into_iter().collect(),
    }
}

impl Level {
    fn find<'a>(&'a self, topic: &str, found: &mut Vec<&'a Subscriber>) {
        let system = topic.starts_with('$');
        self.walk(Some(topic), system, found);
    }

    /// `rest` is what is left of the topic; `first_is_system` keeps wildcards from `$` topics.
    fn walk<'a>(&'a self, rest: Option<&str>, system: bool, found: &mut Vec<&'a Subscriber>) {
        if !system {
            found.extend(&self.all);
        }
        let Some(rest) = rest else {
            found.extend(&self.here);
            return;
        };
        let (part, rest) = match rest.split_once('/') {
            Some((part, rest)) => (part, Some(rest)),
            None => (rest, None),
        };
        if let Some(level) = self.below.get(part) {
            level.walk(rest, false, found);
        }
        if !system && let Some(level) = self.below.get("+") {
            level.walk(rest, false, found);
        }
    }

    fn forget(&mut self, client: &ClientId, filter: &str) {
        let Ok((share, bare)) = parse_filter(filter) else { return };
        let share = share.map(|_| filter);
        self.forget_below(client, share, Some(bare));
    }

    fn forget_below(&mut self, client: &ClientId, share: Option<&str>, rest: Option<&str>) {
        let other = |s: &Subscriber| s.client != *client || s.share.as_deref() != share;
        let Some(rest) = rest else {
            self.here.retain(other);
            return;
        };
        let (part, rest) = match rest.split_once('/') {
            Some((part, rest)) => (part, Some(rest)),
            None => (rest, None),
        };
        if part == "#" {
            self.all.retain(other);
            return;
        }
        if let Some(level) = self.below.get_mut(part) {
            level.forget_below(client, share, rest);
            if level.below.is_empty() && level.here.is_empty() && level.all.is_empty() {
                self.below.remove(part);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests begin at the time it is")]
mod tests {
    use super::*;
    use mqtt_protocol_core::mqtt::IntoPayload;
    use proptest::prelude::*;

    fn message(topic: &str, payload: &str, qos: u8) -> Rc<Message> {
        Rc::new(Message {
            topic: topic.to_owned(),
            payload: payload.to_owned().into_payload(),
            qos,
            retain: false,
            properties: Vec::new(),
            expires: None,
            sender: None,
        })
    }

    fn plain(qos: u8) -> Subscription {
        Subscription { qos, no_local: false, retain_as_published: false, identifier: None }
    }

    fn with(clients: &[(&str, &str)]) -> Broker {
        let mut broker = Broker::default();
        for (client, filter) in clients {
            let client: ClientId = (*client).into();
            broker.sessions.entry(client.clone()).or_default().connected = true;
            broker.subscribe(&client, filter, plain(1));
        }
        broker
    }

    fn receivers(broker: &mut Broker, topic: &str) -> Vec<String> {
        let routed = broker.route(&message(topic, "x", 1));
        let mut all: Vec<String> = routed.iter().map(|(client, _)| client.to_string()).collect();
        all.sort();
        all
    }

    /// The examples of MQTT 5, section 4.7.
    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("ACCOUNTS", "Accounts", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
            let mut broker = with(&[("c", filter)]);
            assert_eq!(
                !receivers(&mut broker, topic).is_empty(),
                expected,
                "trie {filter} {topic}"
            );
        }
    }

    #[test]
    fn malformed_filters_are_refused() {
        for filter in
            ["", "a#", "a/#/b", "a+/b", "$share/g", "$share//a", "$share/g+/a", "$share/g/", "a\0"]
        {
            assert_eq!(parse_filter(filter), Err(InvalidTopic), "{filter}");
        }
        assert_eq!(parse_filter("$share/g/a/+"), Ok((Some("g"), "a/+")));
    }

    #[test]
    fn overlapping_subscriptions_deliver_once_at_the_highest_quality() {
        let mut broker = with(&[("c", "a/+")]);
        let client: ClientId = "c".into();
        broker.subscribe(&client, "a/#", Subscription { qos: 2, identifier: Some(5), ..plain(2) });
        let routed = broker.route(&message("a/b", "x", 2));
        assert_eq!(routed.len(), 1);
        assert_eq!((routed[0].1.qos, &routed[0].1.identifiers[..]), (2, &[5][..]));
    }

    #[test]
    fn a_shared_subscription_takes_turns_and_skips_who_is_away() {
        let mut broker = with(&[("a", "$share/g/t"), ("b", "$share/g/t"), ("c", "t")]);
        let mut counts = BTreeMap::new();
        for _ in 0..10 {
            for client in receivers(&mut broker, "t") {
                *counts.entry(client).or_insert(0) += 1;
            }
        }
        assert_eq!(counts, BTreeMap::from([("a".into(), 5), ("b".into(), 5), ("c".into(), 10)]));
        broker.sessions.get_mut("a").unwrap().connected = false;
        for _ in 0..4 {
            assert_eq!(receivers(&mut broker, "t"), ["b", "c"]);
        }
    }

    #[test]
    fn a_queue_is_bounded_in_messages_and_bytes() {
        let mut session = Session::default();
        let small = delivery(&message("t", "x", 1), &plain(1), false);
        for _ in 0..QUEUE_LEN_MAX {
            assert!(session.push(small.clone()));
        }
        assert!(!session.push(small));
        let mut session = Session::default();
        let large = delivery(&message("t", &"x".repeat(1 << 20), 1), &plain(1), false);
        assert!((0..3).all(|_| session.push(large.clone())));
        assert!(!session.push(large));
    }

    #[test]
    fn the_newest_retained_message_stays_until_an_empty_one_removes_it() {
        let mut broker = Broker::default();
        let now = Instant::now();
        let found = |broker: &Broker, filter: &str| -> Vec<(String, bool)> {
            let text = |delivery: &Delivery| {
                String::from_utf8(delivery.message.payload.as_slice().to_vec()).unwrap()
            };
            let deliveries = broker.retained(filter, &plain(1), now);
            deliveries.iter().map(|delivery| (text(delivery), delivery.retain)).collect()
        };
        for (topic, payload) in [("a/b", "1"), ("a/b", "22"), ("a/c", "3"), ("b", "4")] {
            broker.retain(&message(topic, payload, 1)).unwrap();
        }
        assert_eq!(found(&broker, "a/b"), [("22".to_owned(), true)]);
        assert_eq!(found(&broker, "a/+"), [("22".to_owned(), true), ("3".to_owned(), true)]);
        assert_eq!(found(&broker, "c"), []);
        for topic in ["a/b", "a/c", "b", "never"] {
            broker.retain(&message(topic, "", 1)).unwrap();
        }
        assert_eq!((found(&broker, "#"), broker.retained_bytes), (vec![], 0));
    }

    #[test]
    fn retained_messages_are_bounded_in_number_and_bytes() {
        let mut broker = Broker::default();
        let large = "x".repeat(1 << 20);
        let kept = (0..).take_while(|n| {
            let message = message(&format!("t/{n}"), &large, 1);
            broker.retain(&message).is_ok()
        });
        let kept = kept.count();
        assert_eq!(kept, RETAINED_BYTES_MAX / message("t/00", &large, 1).size());
        // One that takes another's place needs only the difference.
        assert!(broker.retain(&message("t/0", &large, 1)).is_ok());
        let mut broker = Broker::default();
        for n in 0..RETAINED_MAX {
            broker.retain(&message(&n.to_string(), "x", 1)).unwrap();
        }
        assert!(broker.retain(&message("more", "x", 1)).is_err());
        assert!(broker.retain(&message("0", "y", 1)).is_ok());
    }

    #[test]
    fn a_will_waits_for_its_delay_or_the_end_of_the_session() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut broker = with(&[("c", "t")]);
        let session = broker.sessions.get_mut("c").unwrap();
        let will = Will { message: message("w", "x", 0), delay: 10 * second, expiry: None };
        *session = Session {
            expiry: Some(5 * second),
            ended: Some(now),
            will: Some(will),
            ..Session::default()
        };
        assert_eq!(broker.next_due(), Some(now + 5 * second));
        assert!(broker.due(now + 4 * second).is_empty());
        assert_eq!(broker.due(now + 5 * second).len(), 1);
        assert!(broker.sessions.is_empty());
    }

    proptest! {
        #[test]
        fn the_trie_and_the_definition_agree(
            filters in proptest::collection::vec("(a|b|\\+|)(/(a|b|\\+|)){0,3}(/#)?", 1..8),
            topic in "(a|b|\\$x|)(/(a|b|)){0,4}",
        ) {
            let mut broker = Broker::default();
            for (n, filter) in filters.iter().enumerate().filter(|(_, f)| parse_filter(f).is_ok()) {
                let client: ClientId = n.to_string().into();
                broker.sessions.entry(client.clone()).or_default();
                broker.subscribe(&client, filter, plain(0));
            }
            let mut expected: Vec<String> = filters.iter().enumerate()
                .filter(|(_, f)| parse_filter(f).is_ok() && matches(f, &topic))
                .map(|(n, _)| n.to_string()).collect();
            expected.sort();
            prop_assert_eq!(receivers(&mut broker, &topic), expected);
            for (n, filter) in filters.iter().enumerate() {
                broker.unsubscribe(&n.to_string().into(), filter);
            }
            prop_assert!(broker.root.below.is_empty() && broker.root.all.is_empty());
        }
    }
}
