"""Properties of MQTT 5.0 messages (3.3.2.3), topic aliases, expiry, problem information."""

import time

from . import codec
from .client import check
from .codec import PUBACK, SUBACK, V5
from .session import wait
from .suite import NotApplicable, test


@test(V5)
def properties_are_forwarded_unaltered(t):
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20]: to every
    subscriber, at each QoS."""
    props = [("payload_format", 1), ("content_type", "text/plain;charset=\u00fctf-8"),
             ("response_topic", "reply/\u00e9/\ufeff"), ("correlation_data", bytes(range(256))),
             ("user_property", ("name", "value"))]
    one, two = t.connect("a"), t.connect("b")
    for peer in (one, two):
        peer.subscribed(t.topic(), 2)
    for qos in (0, 1, 2):
        t.publisher().publish(t.topic(), "text", qos, props=props)
        for peer in (one, two):
            found = peer.message()
            check(sorted(map(str, found.props)) == sorted(map(str, props)), f"{found.props}")


@test(V5)
def absent_properties_stay_absent(t):
    """[MQTT-3.3.2-4] [MQTT-2.2.2-1]: a server adds no message properties of its own."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"x", 1)
    found = peer.message()
    check(not found.props, f"{found.props}")


@test(V5)
def user_properties_keep_order_and_repetition(t):
    """[MQTT-3.3.2-17] [MQTT-3.3.2-18]: all of them, in order, also equal and empty ones."""
    pairs = [("z", "1"), ("a", "2"), ("z", "3"), ("z", "1"), ("", ""), ("k", ""), ("", "v"),
             ("\u00e9", "\U0001f321")] + [(f"n{n}", "v" * n) for n in range(40)]
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"x", 1, props=[("user_property", p) for p in pairs])
    found = peer.message().all("user_property")
    check(found == pairs, f"{found}")


@test(V5)
def empty_property_values_are_forwarded(t):
    """[MQTT-3.3.2-4] [MQTT-3.3.2-16] [MQTT-3.3.2-20]: zero-length values and format 0 are not
    nothing."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"x", 1,
                          props=[("content_type", ""), ("correlation_data", b""),
                                 ("payload_format", 0)])
    found = peer.message()
    check(found.prop("content_type") == "", f"content type in {found.props}")
    check(found.prop("correlation_data") == b"", f"correlation data in {found.props}")
    check(found.prop("payload_format") in (0, None), f"payload format in {found.props}")


@test(V5)
def offline_messages_keep_their_properties(t):
    """[MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20]: queued
    with the message."""
    props = [("content_type", "c"), ("response_topic", "r"), ("correlation_data", b"\x00"),
             ("user_property", ("a", "1")), ("user_property", ("a", "2"))]
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.drop()
    t.publisher().publish(t.topic(), b"x", 1, props=props)
    peer = t.connect("s", persistent=True)
    found = peer.message()
    check(sorted(map(str, found.props)) == sorted(map(str, props)), f"{found.props}")


@test(V5)
def response_topic_is_a_topic_name(t):
    """[MQTT-3.3.2-13] [MQTT-3.3.2-14]: no wildcards, well-formed."""
    for bad in ("a/+", "#", b"\xff"):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82, 0x90),
                  codec.publish(V5, t.topic(), b"x", props=[("response_topic", bad)]))


@test(V5)
def property_strings_must_be_utf8(t):
    """[MQTT-3.3.2-19] [MQTT-1.5.7-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2]: content type and user
    property."""
    for bad in (b"\xff", b"\xed\xa0\x80", b"a\x00"):
        for props in ([("content_type", bad)], [("user_property", (bad, "v"))],
                      [("user_property", ("k", bad))]):
            peer = t.connect()
            t.refused(peer, (0x81, 0x82), codec.publish(V5, t.topic(), b"x", props=props))


@test(V5)
def publish_properties_only_once(t):
    """[MQTT-4.13.1-1] 3.3.2.3: each of them but User Property at most once."""
    for item in (("payload_format", 1), ("message_expiry", 5), ("topic_alias", 1),
                 ("response_topic", "r"), ("correlation_data", b"c"), ("content_type", "c")):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.publish(V5, t.topic(), b"x", props=[item, item]))


@test(V5)
def properties_must_belong(t):
    """[MQTT-4.13.1-1] 2.2.2.2: a property of another packet, or of none, is malformed."""
    strange = [("session_expiry", 1), ("reason_string", "x"), ("receive_maximum", 1),
               ("will_delay", 1), b"\x7f\x00", b"\x04\x00"]
    for item in strange:
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.publish(V5, t.topic(), b"x", props=[item]))
    for item in (("topic_alias", 1), ("session_expiry", 1), ("reason_string", "x")):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.subscribe(V5, 1, [(t.topic(), 0)], [item]))
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.unsubscribe(V5, 1, [t.topic()], [item]))
    for item in (("subscription_id", 1), ("topic_alias", 1), ("content_type", "x")):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.ack(V5, PUBACK, 1, 0, [item]))
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.disconnect(V5, 0, [item]))


@test(V5)
def property_length_must_fit(t):
    """[MQTT-2.2.2-1] [MQTT-4.13.1-1]: a property length beyond the packet, or inside a property,
    is malformed."""
    topic = codec.binary(t.topic())
    for tail in (b"\x05", b"\x01\x01", b"\x02\x01", b"\xff\xff\xff\xff\x01",
                 b"\x04\x03\x00\x05a", b"\x80"):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.packet(codec.PUBLISH, 0, topic + tail))


@test(V5)
def reason_codes_of_a_publish_nobody_wants(t):
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1]: 0x00 or 0x10 where nobody subscribes, 0x00 where someone
    does."""
    peer = t.connect()
    for qos in (1, 2):
        check(peer.publish(t.topic("void"), b"x", qos).reason in (0x00, 0x10), "reason")
        watch = t.connect(f"w{qos}")
        watch.subscribed(t.topic("heard"), 1)
        check(peer.publish(t.topic("heard"), b"x", qos).reason == 0x00, "not success")
        watch.disconnect()


@test(V5)
def problem_information_can_be_declined(t):
    """[MQTT-3.1.2-32]: with Request Problem Information 0 only PUBLISH, CONNACK and DISCONNECT
    may carry reason strings and user properties."""
    peer = t.connect(props=[("request_problem_info", 0)])
    answers = [peer.subscribe((t.topic(), 1)),
               peer.unsubscribe(t.topic("none")),
               peer.publish(t.topic("void"), b"x", 1),
               peer.publish(t.topic("void"), b"x", 2),
               peer.release(999)]
    for found in answers:
        check(not found.props, f"{found}")
    peer.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"x", 1, props=[("user_property", ("a", "b"))])
    check(peer.message().all("user_property") == [("a", "b")], "user property withheld")


# --- topic aliases -----------------------------------------------------------------------------

def alias_limit(t, peer):
    limit = peer.connack.prop("topic_alias_maximum", 0)
    if not limit:
        raise NotApplicable("the server takes no topic aliases")
    return limit


@test(V5)
def topic_alias_to_the_server(t):
    """[MQTT-3.3.2-12]: each alias from 1 to the server's maximum stands for its topic, and can be
    set anew."""
    watch = t.connect("w")
    watch.subscribed(t.topic("#"), 1)
    peer = t.connect()
    limit = alias_limit(t, peer)
    for alias in sorted({1, 2 if limit > 1 else 1, limit}):
        for name in (f"a{alias}", f"b{alias}"):
            peer.publish(t.topic(name), b"set", 1, props=[("topic_alias", alias)])
            peer.publish("", b"used", 1, props=[("topic_alias", alias)])
            for payload in (b"set", b"used"):
                found = watch.message()
                check((found.topic, found.payload) == (t.topic(name), payload), f"{found}")
                check(found.prop("topic_alias") is None, f"alias forwarded: {found}")


@test(V5)
def topic_alias_out_of_range(t):
    """[MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.2.2-18]: alias 0 or above the
    server's maximum ends the connection (0x94)."""
    peer = t.connect()
    limit = peer.connack.prop("topic_alias_maximum", 0)
    for alias in [0] + ([limit + 1] if limit < 65535 else []):
        peer = t.connect()
        t.refused(peer, (0x94,) if alias else (0x94, 0x82, 0x81),
                  codec.publish(V5, t.topic(), b"x", props=[("topic_alias", alias)]))


@test(V5)
def topic_alias_unknown(t):
    """[MQTT-4.13.1-1] 3.3.2.3.4: no topic and an alias that was never set is a protocol error."""
    peer = t.connect()
    alias_limit(t, peer)
    t.refused(peer, (0x82,), codec.publish(V5, "", b"x", props=[("topic_alias", 1)]))


@test(V5)
def topic_alias_ends_with_the_connection(t):
    """[MQTT-3.3.2-7]: mappings are not carried into the next connection of the session."""
    peer = t.connect("s", persistent=True)
    alias_limit(t, peer)
    peer.publish(t.topic(), b"x", 1, props=[("topic_alias", 1)])
    peer.drop()
    peer = t.connect("s", persistent=True)
    t.refused(peer, (0x82,), codec.publish(V5, "", b"x", props=[("topic_alias", 1)]))


@test(V5)
def empty_topic_without_alias(t):
    """[MQTT-4.7.3-1] 3.3.2.1: a zero-length topic name and no alias is a protocol error."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82, 0x90), codec.publish(V5, "", b"x"))


@test(V5)
def topic_alias_to_the_client(t):
    """[MQTT-3.1.2-29] [MQTT-3.1.2-30] [MQTT-3.3.2-11]: never above the client's maximum, none
    without one, and always resolvable."""
    for limit in (None, 0, 2):
        peer = t.connect("s", props=[] if limit is None else [("topic_alias_maximum", limit)])
        peer.subscribed(t.topic("#"), 1)
        for _ in range(2):
            for number in range(5):
                t.publisher().publish(t.topic(f"{number}"), b"x", 1)
                found = peer.message()
                check(found.topic == t.topic(f"{number}"), f"{found}")
                check((found.prop("topic_alias") or 0) <= (limit or 0), f"{found}")
        peer.disconnect()


@test(V5)
def topic_alias_works_with_offline_messages(t):
    """[MQTT-3.3.2-7] [MQTT-3.1.2-29]: after a reconnect the first use of an alias names its
    topic."""
    props = [("topic_alias_maximum", 3)]
    peer = t.connect("s", persistent=True, props=props)
    peer.subscribed(t.topic("#"), 1)
    t.publisher().publish(t.topic("a"), b"x", 1)
    peer.message()
    t.alive(peer)
    peer.drop()
    for name in "abab":
        t.publisher().publish(t.topic(name), b"x", 1)
    peer = t.connect("s", persistent=True, props=props)
    seen = [peer.message().topic for _ in range(4)]
    check(seen == [t.topic(name) for name in "abab"], f"{seen}")


# --- message expiry ----------------------------------------------------------------------------

@test(V5)
def message_expiry_is_forwarded(t):
    """[MQTT-3.3.2-6]: the received value less the whole seconds waited."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    for value in (1000, 0xFFFFFFFF):
        t.publisher().publish(t.topic(), b"x", 1, props=[("message_expiry", value)])
        found = peer.message().prop("message_expiry")
        check(found in (value, value - 1), f"{found} for {value}")


@test(V5, slow=True)
def expired_messages_are_not_delivered(t):
    """[MQTT-3.3.2-5] [MQTT-3.3.2-6]: gone from the queue of an absent client; the others' expiry
    is what is left of it."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 2)
    peer.drop()
    publisher = t.publisher()
    publisher.publish(t.topic(), b"short", 1, props=[("message_expiry", 1)])
    publisher.publish(t.topic(), b"long", 1, props=[("message_expiry", 100)])
    publisher.publish(t.topic(), b"short", 2, props=[("message_expiry", 1)])
    publisher.publish(t.topic(), b"none", 1)
    started = time.monotonic()
    wait(3)
    peer = t.connect("s", persistent=True)
    seen = t.drain(peer)
    waited = time.monotonic() - started
    check([p.payload for p in seen] == [b"long", b"none"], f"{[p.payload for p in seen]}")
    left = seen[0].prop("message_expiry")
    check(100 - waited - 1 <= left <= 98, f"{left} s left after {waited:.1f} s")
    check(seen[1].prop("message_expiry") is None, "expiry out of nowhere")


@test(V5, slow=True)
def expired_retained_messages_are_not_sent(t):
    """[MQTT-3.3.2-5] [MQTT-3.3.2-6]: retained messages expire too."""
    publisher = t.publisher()
    publisher.publish(t.retained(t.topic("short")), b"x", 1, retain=True,
                      props=[("message_expiry", 1)])
    publisher.publish(t.retained(t.topic("long")), b"x", 1, retain=True,
                      props=[("message_expiry", 100)])
    wait(3)
    peer = t.connect()
    peer.subscribed(t.topic("+"), 1)
    seen = t.drain(peer)
    check([p.topic for p in seen] == [t.topic("long")], f"{[p.topic for p in seen]}")
    left = seen[0].prop("message_expiry")
    check(90 <= left <= 98, f"{left} s left of 100 after 3 s")
