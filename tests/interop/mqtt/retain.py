"""Retained messages (3.3.1.3)."""

from . import codec
from .client import check
from .codec import V4, V5
from .suite import BOTH, NotApplicable, test


def keep(t, topic, payload, qos=1, props=None):
    t.publisher().publish(t.retained(topic), payload, qos, retain=True, props=props)


@test(*BOTH)
def retained_message_greets_new_subscribers(t):
    """[MQTT-3.3.1-5] 3.1.1 [MQTT-3.3.1-6] [MQTT-3.3.1-8] 5.0 [MQTT-3.3.1-9]: with RETAIN 1 and
    its QoS."""
    for qos in (0, 1, 2):
        topic = t.topic(f"q{qos}")
        keep(t, topic, b"kept", qos)
        for name in "ab":
            peer = t.connect(name)
            peer.subscribed(topic, 2)
            found = peer.message()
            check((found.payload, found.retain, found.qos, found.dup)
                  == (b"kept", True, qos, False), f"{found}")
            peer.disconnect()


@test(*BOTH)
def retained_delivery_respects_the_granted_qos(t):
    """3.1.1 [MQTT-3.8.4-6] 5.0 [MQTT-3.8.4-8]: the lower of kept and granted QoS."""
    keep(t, t.topic(), b"kept", 2)
    for qos in (0, 1, 2):
        peer = t.connect()
        peer.subscribed(t.topic(), qos)
        check(peer.message().qos == qos, "wrong QoS")
        peer.disconnect()


@test(*BOTH)
def live_delivery_has_retain_zero(t):
    """3.1.1 [MQTT-3.3.1-9] 5.0 [MQTT-3.3.1-12]: an established subscription sees RETAIN 0."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    keep(t, t.topic(), b"kept")
    found = peer.message()
    check(not found.retain, f"{found}")


@test(*BOTH)
def retained_message_is_replaced(t):
    """[MQTT-3.3.1-5]: only the last retained message of a topic is kept, also at a lower QoS."""
    keep(t, t.topic(), b"old", 2)
    keep(t, t.topic(), b"new", 1)
    peer = t.connect()
    peer.subscribed(t.topic(), 2)
    check([(p.payload, p.qos) for p in t.drain(peer)] == [(b"new", 1)], "not replaced")
    keep(t, t.topic(), b"newest", 0)
    other = t.connect("b")
    other.subscribed(t.topic(), 2)
    seen = [p.payload for p in t.drain(other)]
    check(seen in ([b"newest"], []), f"3.1.1 [MQTT-3.3.1-7]: {seen}")


@test(*BOTH)
def empty_retained_message_clears(t):
    """3.1.1 [MQTT-3.3.1-10] [MQTT-3.3.1-11] 5.0 [MQTT-3.3.1-6] [MQTT-3.3.1-7]: delivered as any
    other, and nothing is kept."""
    keep(t, t.topic(), b"kept")
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    check(peer.message().payload == b"kept", "not kept")
    t.publisher().publish(t.topic(), b"", 1, retain=True)
    found = peer.message()
    check(found.payload == b"" and not found.retain, f"{found}")
    other = t.connect("b")
    other.subscribed(t.topic(), 1)
    t.silent(other, why="cleared message")


@test(*BOTH)
def message_without_retain_changes_nothing(t):
    """3.1.1 [MQTT-3.3.1-12] 5.0 [MQTT-3.3.1-8]: RETAIN 0 neither stores, replaces nor clears."""
    keep(t, t.topic(), b"kept")
    t.publisher().publish(t.topic(), b"passing", 1)
    t.publisher().publish(t.topic(), b"", 1)
    t.publisher().publish(t.topic("never"), b"passing", 1)
    peer = t.connect()
    peer.subscribed(t.topic("#"), 1)
    peer.subscribed(t.topic(), 1)
    seen = {(p.topic, p.payload) for p in t.drain(peer)}
    check(seen == {(t.topic(), b"kept")}, f"{seen}")


@test(*BOTH)
def retained_messages_match_wildcards(t):
    """3.1.1 [MQTT-3.3.1-6] 5.0 [MQTT-3.3.1-9]: every matching topic's message is sent, however
    many."""
    for number in range(60):
        keep(t, t.topic(f"{number}/t"), f"{number}")
    keep(t, t.topic("1/other"), b"no")
    peer = t.connect()
    peer.subscribed(t.topic("+/t"), 1)
    seen = t.drain(peer)
    check(sorted(int(p.payload) for p in seen) == list(range(60)), f"{len(seen)} of 60")
    check(all(p.retain for p in seen), "RETAIN not set")


@test(*BOTH)
def retained_messages_come_again_with_each_subscribe(t):
    """3.1.1 [MQTT-3.8.4-3] 5.0 [MQTT-3.8.4-4] [MQTT-3.3.1-9]: subscribing anew sends them anew."""
    keep(t, t.topic(), b"kept")
    peer = t.connect()
    for _ in range(3):
        peer.subscribed(t.topic(), 1)
        found = peer.message()
        check((found.payload, found.retain) == (b"kept", True), f"{found}")
    t.silent(peer)


@test(*BOTH)
def retained_message_outlives_its_publisher(t):
    """3.1.1 [MQTT-3.1.2.7] 5.0 [MQTT-3.3.1-5] 4.1: not tied to the session or connection."""
    peer = t.connect("p")
    peer.publish(t.retained(t.topic()), b"kept", 1, retain=True)
    peer.drop()
    t.connect("p").disconnect()
    other = t.connect("o")
    other.subscribed(t.topic(), 1)
    check(other.message().payload == b"kept", "gone with its publisher")


@test(V5)
def retain_handling(t):
    """[MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]: 0 always, 1 only when new, 2 never."""
    keep(t, t.topic(), b"kept")
    peer = t.connect()

    def times(handling):
        peer.subscribed(t.topic(), 1, retain_handling=handling)
        return len(t.drain(peer))

    check(times(2) == 0, "retained message with retain handling 2")
    check(times(1) == 0, "retain handling 1, subscription existed")
    check(times(0) == 1, "retain handling 0")
    check(times(0) == 1, "retain handling 0, again")
    peer.unsubscribe(t.topic())
    check(times(1) == 1, "retain handling 1, new subscription")
    check(times(1) == 0, "retain handling 1, again")


@test(V5)
def retain_as_published(t):
    """[MQTT-3.3.1-12] [MQTT-3.3.1-13]: RETAIN 0, or as the publisher set it."""
    plain, kept = t.connect("a"), t.connect("b")
    plain.subscribed(t.topic(), 1)
    kept.subscribed(t.topic(), 1, retain_as_published=True)
    for retain in (True, False):
        t.publisher().publish(t.retained(t.topic()), b"x", 1, retain=retain)
        check(not plain.message().retain, "RETAIN 1 without retain as published")
        check(kept.message().retain == retain, f"RETAIN not {retain:d}")
    new = t.connect("c")
    new.subscribed(t.topic(), 1, retain_as_published=False)
    check(new.message().retain, "RETAIN 0 on a retained message for a new subscription")


@test(V5)
def retained_message_keeps_its_properties(t):
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20]: kept with
    the message."""
    props = [("payload_format", 1), ("content_type", "text/plain"), ("response_topic", "r/e"),
             ("correlation_data", b"\x00\x01"), ("user_property", ("a", "1")),
             ("user_property", ("a", "2"))]
    keep(t, t.topic(), b"kept", props=props)
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    found = peer.message()
    check(sorted(map(str, found.props)) == sorted(map(str, props)), f"{found.props}")


@test(V5)
def retain_announcement_is_true(t):
    """[MQTT-3.2.2-14] 3.2.2.3.5: if Retain Available is 0, RETAIN 1 is refused with 0x9A."""
    peer = t.connect()
    if peer.connack.prop("retain_available", 1):
        raise NotApplicable("the server offers retained messages")
    t.refused(peer, (0x9A,), codec.publish(V5, t.topic(), b"x", 0, retain=True))
