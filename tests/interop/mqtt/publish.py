"""PUBLISH and its acknowledgements (3.3 to 3.7, 4.3), order (4.6), strings (1.5)."""

from . import codec
from .client import Failed, check
from .codec import PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, V4, V5
from .suite import BOTH, test


@test(*BOTH)
def qos0_is_not_answered(t):
    """[MQTT-3.3.4-1] 3.1.1 [MQTT-4.3.1.1] 5.0 [MQTT-4.3.1-1]: no acknowledgement; delivered with
    DUP 0."""
    peer = t.connect()
    peer.subscribed(t.topic("in"), 0)
    peer.send(codec.publish(t.version, t.topic("elsewhere"), b"x"))
    peer.send(codec.packet(codec.PINGREQ, 0))
    found = peer.next()
    check(found.kind == PINGRESP, f"{found} after a QoS 0 PUBLISH")
    peer.publish(t.topic("in"), b"y")
    found = peer.message()
    check((found.payload, found.qos, found.dup) == (b"y", 0, False), f"{found}")


@test(*BOTH)
def qos1_is_acknowledged(t):
    """[MQTT-3.3.4-1] 3.1.1 [MQTT-2.3.1-6] [MQTT-4.3.2.2] 5.0 [MQTT-2.2.1-5] [MQTT-4.3.2-4]:
    PUBACK with the same identifier, whichever it is."""
    peer = t.connect()
    for pid in (1, 2, 255, 256, 32768, 65535):
        answer = peer.publish(t.topic(), b"x", 1, pid=pid)
        check(answer.reason in (0x00, 0x10), f"{answer}")


@test(*BOTH)
def qos2_is_acknowledged_in_two_steps(t):
    """[MQTT-3.3.4-1] 3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-8] [MQTT-4.3.3-11]: PUBREC, then PUBCOMP
    for PUBREL, with the same identifier."""
    peer = t.connect()
    for pid in (1, 65535, 300):
        answer = peer.publish(t.topic(), b"x", 2, pid=pid)
        check(answer.reason in (0x00, 0x10), f"{answer}")


@test(*BOTH)
def acknowledgements_keep_the_order(t):
    """[MQTT-4.6.0-2] [MQTT-4.6.0-3] 4.6: PUBACKs and PUBRECs come in the order of the PUBLISHes."""
    peer = t.connect()
    peer.send(b"".join(codec.publish(t.version, t.topic(), b"x", 1, pid=n) for n in range(1, 41)))
    got = [peer.expect(PUBACK).pid for _ in range(40)]
    check(got == list(range(1, 41)), f"PUBACKs in order {got}")
    announced = peer.connack.prop("receive_maximum", 65535)
    count = min(15, announced)
    peer.send(b"".join(codec.publish(t.version, t.topic(), b"x", 2, pid=n)
                       for n in range(100, 100 + count)))
    got = [peer.expect(PUBREC).pid for _ in range(count)]
    check(got == list(range(100, 100 + count)), f"PUBRECs in order {got}")


@test(*BOTH)
def repeated_qos2_publish_is_one_message(t):
    """3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-10]: before PUBREL the same identifier is
    acknowledged again and not delivered again."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 2)
    peer = t.connect()
    for dup in (False, True, True):
        peer.send(codec.publish(t.version, t.topic(), b"once", 2, dup=dup, pid=3))
        peer.expect(PUBREC, 3)
    peer.release(3)
    seen = t.drain(watcher, peer)
    check(len(seen) == 1, f"delivered {len(seen)} times")


@test(*BOTH)
def qos2_identifier_is_free_after_pubcomp(t):
    """3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-12]: after PUBCOMP the same identifier is new, even
    with DUP."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 2)
    peer = t.connect()
    peer.publish(t.topic(), b"first", 2, pid=3)
    peer.publish(t.topic(), b"second", 2, pid=3, dup=True)
    check([p.payload for p in t.drain(watcher, peer)] == [b"first", b"second"], "lost")


@test(*BOTH)
def qos1_identifier_is_free_after_puback(t):
    """3.1.1 [MQTT-4.3.2.2] 5.0 [MQTT-4.3.2-5]: after PUBACK the same identifier is a new
    publication, irrespective of DUP."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 1)
    peer = t.connect()
    peer.publish(t.topic(), b"first", 1, pid=3)
    peer.publish(t.topic(), b"second", 1, pid=3, dup=True)
    check([p.payload for p in t.drain(watcher, peer)] == [b"first", b"second"], "lost")


@test(*BOTH)
def identifiers_of_the_two_directions_are_apart(t):
    """2.3.1 of 3.1.1 [MQTT-2.3.1-4], 2.2.1 of 5.0 [MQTT-2.2.1-4]: client and server assign
    identifiers independently of each other."""
    peer = t.connect()
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"to peer", 2)
    coming = peer.message(answer=False)
    peer.publish(t.topic("other"), b"from peer", 2, pid=coming.pid)
    peer.publish(t.topic("other"), b"from peer", 1, pid=coming.pid)
    peer.answer(coming)


@test(*BOTH)
def pubrel_of_unknown_identifier_is_completed(t):
    """3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-11] 3.7.2.1: PUBCOMP (0x92 or 0x00)."""
    peer = t.connect()
    peer.release(4321)
    t.alive(peer)


@test(*BOTH)
def dup_is_not_propagated(t):
    """[MQTT-3.3.1-3]: the DUP flag of a delivery says nothing of the publisher's."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 2)
    peer = t.connect()
    for qos in (1, 2):
        peer.publish(t.topic(), b"x", qos, dup=True)
        found = watcher.message()
        check(not found.dup and found.qos == qos, f"{found}")


@test(*BOTH)
def dup_with_qos0_is_an_error(t):
    """[MQTT-3.3.1-2]: DUP must be 0 for QoS 0."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82), codec.publish(t.version, t.topic(), b"x", 0, dup=True))


@test(*BOTH)
def qos3_closes(t):
    """[MQTT-3.3.1-4]: both QoS bits set is malformed."""
    for dup in (False, True):
        peer = t.connect()
        t.refused(peer, (0x81, 0x9B), codec.publish(t.version, t.topic(), b"x", 3, dup=dup, pid=1))


@test(*BOTH)
def publish_identifier_zero_closes(t):
    """3.1.1 [MQTT-2.3.1-1] 5.0 [MQTT-2.2.1-3]: QoS 1 and 2 need a non-zero identifier."""
    for qos in (1, 2):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.publish(t.version, t.topic(), b"x", qos, pid=0))


@test(*BOTH)
def acknowledgement_identifier_zero_closes(t):
    """3.1.1 [MQTT-2.3.1-6] [MQTT-4.8.0-1] 5.0 [MQTT-2.2.1-5] [MQTT-4.13.1-1]: no packet has
    identifier 0."""
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.ack(t.version, kind, 0))


@test(*BOTH)
def topic_name_rules(t):
    """[MQTT-3.3.2-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] 3.1.1 [MQTT-4.7.1-1] 5.0 [MQTT-4.7.0-1]: no
    wildcards, no null character, at least one character."""
    for bad in (t.topic("+"), t.topic("#"), "#", "+", t.topic("a+b"), t.topic("a#"),
                t.topic("a\0b"), ""):
        for qos in (0, 1):
            peer = t.connect()
            t.refused(peer, (0x81, 0x82, 0x90),
                      codec.publish(t.version, bad, b"x", qos, pid=qos or None))


@test(*BOTH)
def topic_name_must_be_utf8(t):
    """[MQTT-3.3.2-1] 3.1.1 [MQTT-1.4.0-1] 5.0 [MQTT-1.5.4-1]: ill-formed topic names."""
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xe2\x82",
                b"\xf4\x90\x80\x80", b"\x80"):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82, 0x90),
                  codec.publish(t.version, t.topic("x").encode() + bad, b"x"))


@test(*BOTH)
def payload_is_any_bytes(t):
    """3.3.3 [MQTT-3.3.4-1]: all byte values, no bytes, large messages; none is changed."""
    peer = t.connect()
    peer.subscribed(t.topic(), 2)
    for payload in (bytes(range(256)), b"", b"\x00", b"\xff" * 3, bytes(range(256)) * 800):
        for qos in (0, 1, 2):
            t.publisher().publish(t.topic(), payload, qos)
            found = peer.message()
            check(found.payload == payload, f"{len(found.payload)} bytes for {len(payload)}")


@test(*BOTH)
def remaining_length_borders(t):
    """2.2.3 of 3.1.1 [MQTT-3.3.4-1], 2.1.4 of 5.0 [MQTT-1.5.5-1]: packets around 127/128,
    16383/16384 and 2097151/2097152 bytes pass both ways, or are refused as too large (0x95)."""
    peer = t.connect()
    peer.subscribed(t.topic(), 0)
    limit = peer.connack.prop("maximum_packet_size", 1 << 28)
    overhead = len(codec.publish(t.version, t.topic())) - 2
    for edge in (127, 16383, 2097151):
        for length in (edge, edge + 1):
            if length + 5 > limit or (not t.v5 and length > 200000):
                continue
            payload = b"z" * (length - overhead)
            t.publisher().publish(t.topic(), payload)
            check(peer.message().payload == payload, f"remaining length {length}")


@test(*BOTH)
def byte_order_mark_is_kept(t):
    """3.1.1 [MQTT-1.4.0-3] 5.0 [MQTT-1.5.4-3]: U+FEFF in a topic is a character like others."""
    peer = t.connect()
    peer.subscribed(t.topic("#"), 0)
    for topic in (t.topic("\ufeffa"), t.topic("a\ufeff")):
        t.publisher().publish(topic, b"x")
        check(peer.message().topic == topic, "U+FEFF stripped")


@test(*BOTH)
def topics_are_compared_as_they_are(t):
    """[MQTT-4.7.3-4]: no normalisation, no case folding, no trimming."""
    names = [t.topic(s) for s in ("a", "A", "a ", " a", "\u00e9", "e\u0301", "\u212b", "\u00c5",
                                  "a/", "/a", "\ufb01", "fi", "\U0001f321")]
    for name in names:
        peer = t.connect("s")
        peer.subscribed(name, 1)
        for other in names:
            t.publisher().publish(other, b"x", 1)
        seen = [p.topic for p in t.drain(peer)]
        check(seen == [name], f"{name!r} got {seen}")
        peer.disconnect()


@test(*BOTH)
def long_topics(t):
    """[MQTT-4.7.3-3]: topic names may be long; one of 4,000 bytes passes unchanged."""
    peer = t.connect()
    topic = t.topic("x" * 4000)
    peer.subscribed(topic, 1)
    t.publisher().publish(topic, b"x", 1)
    check(peer.message().topic == topic, "topic changed")


@test(*BOTH)
def order_is_kept_per_qos(t):
    """3.1.1 [MQTT-4.6.0-5] [MQTT-4.6.0-6] 5.0 [MQTT-4.6.0-5] [MQTT-4.6.0-6]: 300 messages of each
    QoS arrive in the order in which they were published."""
    for qos in (0, 1, 2):
        topic = t.topic(str(qos))
        watcher = t.connect(f"w{qos}")
        watcher.subscribed(topic, qos)
        publisher = t.publisher()
        window = min(10, publisher.connack.prop("receive_maximum", 65535))
        expected = list(range(300))
        seen = []
        for start in range(0, 300, window):
            numbers = expected[start:start + window]
            pids = [publisher.pid() if qos else None for _ in numbers]
            publisher.send(b"".join(
                codec.publish(t.version, topic, f"{n}", qos, pid=pid)
                for n, pid in zip(numbers, pids)))
            for pid in pids if qos else ():
                publisher.expect(PUBACK if qos == 1 else PUBREC, pid)
            if qos == 2:
                publisher.send(b"".join(codec.ack(t.version, PUBREL, pid) for pid in pids))
                for pid in pids:
                    publisher.expect(PUBCOMP, pid)
            seen += [int(watcher.message().payload) for _ in numbers]
        check(seen == expected, f"QoS {qos}: {seen[:20]}…")


@test(*BOTH)
def delivered_qos_is_the_lower_one(t):
    """3.1.1 [MQTT-3.8.4-6] 5.0 [MQTT-3.8.4-8]: minimum of the published and the granted QoS."""
    for granted in (0, 1, 2):
        peer = t.connect("s")
        peer.subscribed(t.topic(), granted)
        for published in (0, 1, 2):
            t.publisher().publish(t.topic(), b"x", published)
            found = peer.message()
            check(found.qos == min(granted, published),
                  f"QoS {found.qos} for published {published}, granted {granted}")
        peer.disconnect()


@test(*BOTH)
def server_identifiers_are_unused_ones(t):
    """3.1.1 [MQTT-2.3.1-4] 5.0 [MQTT-2.2.1-4]: deliveries in flight have different, non-zero
    identifiers."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    for number in range(10):
        t.publisher().publish(t.topic(), f"{number}", 1)
    found = [peer.message(answer=False) for _ in range(10)]
    check(len({p.pid for p in found}) == 10, f"{[p.pid for p in found]}")
    for message in found:
        peer.answer(message)
    t.publisher().publish(t.topic(), b"more", 1)
    peer.message()


@test(*BOTH)
def acknowledgements_may_come_in_any_order(t):
    """3.1.1 [MQTT-4.3.2-1] 5.0 [MQTT-4.3.2-3]: each acknowledgement frees its own message."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    for number in range(6):
        t.publisher().publish(t.topic(), f"{number}", 1)
    found = [peer.message(answer=False) for _ in range(6)]
    for index in (5, 0, 3):
        peer.answer(found[index])
    t.alive(peer)
    peer.drop()
    peer = t.connect("s", persistent=True)
    again = [peer.message() for _ in range(3)]
    check([p.payload for p in again] == [b"1", b"2", b"4"], f"{[p.payload for p in again]}")
    t.silent(peer)


@test(*BOTH)
def publisher_hears_itself(t):
    """[MQTT-4.5.0-1] 5.0 [MQTT-3.8.3-3]: without No Local a client gets its own messages."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    peer.publish(t.topic(), b"echo", 1)
    check(peer.message().payload == b"echo", "wrong message")


@test(*BOTH)
def many_subscribers_get_one_each(t):
    """[MQTT-4.5.0-1]: a message goes once to every session with a matching subscription."""
    watchers = [t.connect(f"w{n}") for n in range(12)]
    for watcher in watchers:
        watcher.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"all", 1)
    for watcher in watchers:
        check([p.payload for p in t.drain(watcher)] == [b"all"], "not exactly one")


@test(*BOTH)
def two_versions_share_the_topics(t):
    """[MQTT-4.5.0-1]: a client of either version gets what the other publishes."""
    other_version = V4 if t.v5 else V5
    other = t.raw(other_version)
    other.handshake(codec.connect(other_version, t.cid("o")))
    other.subscribed(t.topic(), 2)
    peer = t.connect()
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"mixed", 2)
    check(other.message().payload == peer.message().payload == b"mixed", "lost between versions")
    other.publish(t.topic(), b"back", 2)
    check(other.message().payload == peer.message().payload == b"back", "lost between versions")


@test(V5)
def acknowledgement_forms(t):
    """[MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]: the client's acknowledgements
    may be two, three or more bytes long."""
    peer = t.connect()
    peer.subscribed(t.topic(), 2)
    forms = ({}, {"reason": 0}, {"reason": 0, "props": []},
             {"reason": 0, "props": [("user_property", ("a", "b")), ("reason_string", "fine")]})
    for form in forms:
        t.publisher().publish(t.topic(), b"one", 1)
        found = peer.message(answer=False)
        peer.send(codec.ack(V5, PUBACK, found.pid, **form))
        t.publisher().publish(t.topic(), b"two", 2)
        found = peer.message(answer=False)
        peer.send(codec.ack(V5, PUBREC, found.pid, **form))
        peer.expect(PUBREL, found.pid)
        peer.send(codec.ack(V5, PUBCOMP, found.pid, **form))
        peer.send(codec.publish(V5, t.topic("up"), b"x", 2, pid=50))
        peer.expect(PUBREC, 50)
        peer.send(codec.ack(V5, PUBREL, 50, **form))
        peer.expect(PUBCOMP, 50)
    t.silent(peer)


@test(V5)
def refused_delivery_is_not_repeated(t):
    """[MQTT-4.4.0-2]: PUBACK or PUBREC of 0x80 and above settles the message."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"one", 1)
    peer.send(codec.ack(V5, PUBACK, peer.message(answer=False).pid, 0x83))
    t.publisher().publish(t.topic(), b"two", 2)
    found = peer.message(answer=False)
    peer.send(codec.ack(V5, PUBREC, found.pid, 0x83))
    t.alive(peer)
    check(not any(p.kind == PUBREL for p in peer.queue), "PUBREL after a refusing PUBREC")
    peer.drop()
    peer = t.connect("s", persistent=True)
    t.silent(peer, why="repeated after a refusal")


@test(V5)
def acknowledgement_reason_must_be_a_known_one(t):
    """[MQTT-3.4.2-1] [MQTT-4.13.1-1]: a reason code that PUBACK does not have is an error."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"one", 1)
    found = peer.message(answer=False)
    t.refused(peer, (0x81, 0x82), codec.ack(V5, PUBACK, found.pid, 0x01))
