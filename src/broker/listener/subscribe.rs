//! SUBSCRIBE and UNSUBSCRIBE in both versions.

use std::rc::Rc;
use std::time::Instant;

use mqtt_protocol_core::mqtt::packet::{Property, RetainHandling, v5_0};
use mqtt_protocol_core::mqtt::result_code::{DisconnectReasonCode, SubackReasonCode};

use super::hub::{Hub, Link};
use crate::broker::memory::{self, Delivery, SUBSCRIPTIONS_MAX, Subscription};

impl Hub {
    pub(super) fn subscribe_v5(self: &Rc<Self>, link: &Rc<Link>, subscribe: &v5_0::Subscribe) {
        let identifier = subscribe.props().iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier.val()),
            _ => None,
        });
        let mut wanted = Vec::new();
        for entry in subscribe.entries() {
            let options = entry.sub_opts();
            let shared = entry.topic_filter().starts_with("$share/");
            if shared && options.nl() {
                // MQTT-3.8.3-4
                return self.violation(link, DisconnectReasonCode::ProtocolError);
            }
            let subscription = Subscription {
                qos: options.qos() as u8,
                no_local: options.nl(),
                retain_as_published: options.rap(),
                identifier,
            };
            wanted.push((entry.topic_filter().to_owned(), subscription, options.rh()));
        }
        let (codes, retained) = self.subscribe(link, wanted);
        let codes = codes
            .into_iter()
            .map(|code| match code {
                Ok(0) => SubackReasonCode::GrantedQos0,
                Ok(1) => SubackReasonCode::GrantedQos1,
                Ok(_) => SubackReasonCode::GrantedQos2,
                Err(code) => code,
            })
            .collect();
        let builder = v5_0::Suback::builder().packet_id(subscribe.packet_id());
        if let Ok(suback) = builder.reason_codes(codes).build() {
            self.send(link, suback.into());
        }
        self.deliver_all(link, retained);
    }

    pub(super) fn subscribe(
        &self,
        link: &Link,
        wanted: Vec<(String, Subscription, RetainHandling)>,
    ) -> (Vec<Result<u8, SubackReasonCode>>, Vec<Delivery>) {
        let Some(client) = link.state.borrow().client.clone() else { return Default::default() };
        let mut broker = self.broker.borrow_mut();
        let mut retained = Vec::new();
        let mut codes = Vec::new();
        let now = Instant::now();
        for (filter, subscription, handling) in wanted {
            let shared = match memory::parse_filter(&filter) {
                Ok((share, _)) => share.is_some(),
                Err(_) => {
                    codes.push(Err(SubackReasonCode::TopicFilterInvalid));
                    continue;
                }
            };
            let count = broker.sessions.get(&client).map_or(0, |s| s.subscriptions.len());
            if count >= SUBSCRIPTIONS_MAX {
                codes.push(Err(SubackReasonCode::QuotaExceeded));
                continue;
            }
            let new = broker.subscribe(&client, &filter, subscription);
            let send = match handling {
                RetainHandling::SendRetained => true,
                RetainHandling::SendRetainedIfNotExists => new,
                RetainHandling::DoNotSendRetained => false,
            };
            if send && !shared {
                retained.extend(broker.retained(&filter, &subscription, now));
            }
            codes.push(Ok(subscription.qos));
        }
        (codes, retained)
    }

    /// `None` for a filter that is none, else whether there was such a subscription.
    pub(super) fn unsubscribe(&self, link: &Link, filters: Vec<String>) -> Vec<Option<bool>> {
        let Some(client) = link.state.borrow().client.clone() else { return Vec::new() };
        let mut broker = self.broker.borrow_mut();
        let each = filters.iter().map(|filter| {
            memory::parse_filter(filter).ok().map(|_| broker.unsubscribe(&client, filter))
        });
        each.collect()
    }
}
