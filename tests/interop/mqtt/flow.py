"""Receive Maximum (4.9), Maximum Packet Size (3.1.2.11.4), what the server announces."""

from . import codec
from .client import Failed, check
from .codec import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, V4, V5
from .suite import BOTH, NotApplicable, test


@test(V5)
def server_keeps_to_receive_maximum(t):
    """[MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2]: no more unacknowledged QoS 1 messages than
    the client allows; each PUBACK makes room for one."""
    peer = t.connect(props=[("receive_maximum", 2)])
    peer.subscribed(t.topic(), 1)
    for number in range(6):
        t.publisher().publish(t.topic(), f"{number}", 1)
    held = [peer.message(answer=False), peer.message(answer=False)]
    seen = [p.payload for p in held]
    while held:
        t.alive(peer)
        check(not any(p.kind == PUBLISH for p in peer.queue), "more than Receive Maximum")
        peer.answer(held.pop(0))
        if len(seen) < 6:
            held.append(peer.message(answer=False))
            seen.append(held[-1].payload)
    check(seen == [b"%d" % n for n in range(6)], f"order {seen}")


@test(V5)
def receive_maximum_counts_qos2_until_pubcomp(t):
    """[MQTT-3.3.4-9] [MQTT-4.9.0-2]: a QoS 2 message takes its place until PUBCOMP."""
    peer = t.connect(props=[("receive_maximum", 1)])
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"one", 2)
    t.publisher().publish(t.topic(), b"two", 2)
    found = peer.message(answer=False)
    t.alive(peer)
    check(not any(p.kind == PUBLISH for p in peer.queue), "second message too soon")
    peer.send(codec.ack(V5, PUBREC, found.pid))
    peer.expect(PUBREL, found.pid)
    t.alive(peer)
    check(not any(p.kind == PUBLISH for p in peer.queue), "second message before PUBCOMP")
    peer.send(codec.ack(V5, PUBCOMP, found.pid))
    check(peer.message().payload == b"two", "second message lost")


@test(V5)
def receive_maximum_holds_up_nothing_else(t):
    """[MQTT-3.3.4-10] [MQTT-4.9.0-3]: other packets flow, and QoS 0 messages do not count."""
    peer = t.connect(props=[("receive_maximum", 1)])
    peer.subscribed(t.topic("q1"), 1)
    t.publisher().publish(t.topic("q1"), b"one", 1)
    t.publisher().publish(t.topic("q1"), b"two", 1)
    held = peer.message(answer=False)
    peer.ping()
    peer.subscribed(t.topic("q0"), 0)
    peer.publish(t.topic("up"), b"x", 1)
    peer.publish(t.topic("up"), b"x", 2)
    peer.unsubscribe(t.topic("none"))
    t.publisher().publish(t.topic("q0"), b"zero", 0)
    check(peer.message().payload == b"zero", "a QoS 0 message waited for a PUBACK")
    peer.answer(held)
    check(peer.message().payload == b"two", "second message lost")


@test(V5)
def receive_maximum_holds_for_offline_messages(t):
    """[MQTT-3.3.4-9]: also for what was queued, and for what is sent again."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.drop()
    for number in range(5):
        t.publisher().publish(t.topic(), f"{number}", 1)
    for _ in range(2):
        peer = t.connect("s", persistent=True, props=[("receive_maximum", 3)])
        found = [peer.message(answer=False) for _ in range(3)]
        t.alive(peer)
        check(not any(p.kind == PUBLISH for p in peer.queue), "more than Receive Maximum")
        check([p.payload for p in found] == [b"0", b"1", b"2"], f"{[p.payload for p in found]}")
        peer.drop()


@test(V5)
def client_beyond_receive_maximum_is_cut_off(t):
    """[MQTT-3.3.4-7] 3.3.4: more unreleased QoS 2 messages than the server announced end the
    connection (0x93)."""
    peer = t.connect()
    limit = peer.connack.prop("receive_maximum", 65535)
    if limit > 20000:
        raise NotApplicable(f"the server announces Receive Maximum {limit}")
    peer.send(b"".join(codec.publish(V5, t.topic(), b"x", 2, pid=n) for n in range(1, limit + 2)))
    t.refused(peer, (0x93,))


@test(V5)
def client_may_use_all_of_receive_maximum(t):
    """[MQTT-3.3.4-7] [MQTT-4.9.0-1]: exactly as many as announced are fine, again and again."""
    peer = t.connect()
    limit = min(peer.connack.prop("receive_maximum", 65535), 200)
    for _ in range(2):
        peer.send(b"".join(codec.publish(V5, t.topic(), b"x", 2, pid=n)
                           for n in range(1, limit + 1)))
        for pid in range(1, limit + 1):
            peer.expect(PUBREC, pid)
        peer.send(b"".join(codec.ack(V5, PUBREL, n) for n in range(1, limit + 1)))
        for pid in range(1, limit + 1):
            peer.expect(PUBCOMP, pid)
    t.alive(peer)


@test(V5)
def too_large_for_the_client_is_discarded(t):
    """[MQTT-3.1.2-27] [MQTT-3.1.2-28]: a message above the client's Maximum Packet Size is left
    out as if it had been sent; the others come."""
    peer = t.connect(props=[("maximum_packet_size", 200), ("receive_maximum", 1)])
    peer.subscribed(t.topic(), 2)
    other = t.connect("other")
    other.subscribed(t.topic(), 2)
    for qos in (0, 1, 2):
        t.publisher().publish(t.topic(), b"L" * 300, qos)
        t.publisher().publish(t.topic(), b"small", qos)
        found = peer.message()
        check(found.payload == b"small", f"{len(found.raw)} bytes sent to a client of 200")
        check(other.message().payload == b"L" * 300, "withheld from a client without limit")
        other.message()
    edge = 200 - 2 - 1 - 1 - 2 - len(t.topic().encode()) - 2
    t.publisher().publish(t.topic(), b"E" * edge, 1)
    found = peer.message()
    check(len(found.raw) == 200, f"{len(found.raw)} bytes where exactly 200 are allowed")
    t.publisher().publish(t.topic(), b"E" * (edge + 1), 1)
    t.silent(peer, why="201 bytes to a client of 200")


@test(V5)
def too_large_for_the_server_is_refused(t):
    """[MQTT-3.2.2-15] 3.2.2.3.6: a packet above the announced Maximum Packet Size ends the
    connection (0x95)."""
    peer = t.connect()
    limit = peer.connack.prop("maximum_packet_size")
    if limit is None or limit > 64 << 20:
        raise NotApplicable("the server announces no Maximum Packet Size worth sending")
    fits = limit - len(codec.publish(V5, t.topic("x"), b"", 1, pid=1)) - 3
    check(peer.publish(t.topic("x"), b"z" * fits, 1).reason in (0, 0x10, 0x97), "not accepted")
    t.refused(peer, (0x95,), codec.packet(PUBLISH, 0, b"", length=limit + 1) + b"z" * 1000)


@test(*BOTH)
def oversize_packets_are_refused_before_they_come(t):
    """3.1.1 [MQTT-4.8.0-2] 5.0 [MQTT-3.2.2-15]: a header that promises 256 MB is not waited for,
    if the server limits packets at all."""
    peer = t.connect()
    limit = peer.connack.prop("maximum_packet_size")
    peer.send(codec.packet(PUBLISH, 0, b"", length=268435455) + codec.binary(t.topic()) + b"z" * 99)
    if t.v5 and limit is not None:
        t.refused(peer, (0x95,))
        return
    other = t.connect("other")
    t.alive(other)


@test(V5)
def maximum_qos_announcement_is_true(t):
    """[MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12]: what exceeds it is refused with 0x9B;
    SUBSCRIBE at any QoS is accepted."""
    peer = t.connect()
    for qos in (0, 1, 2):
        check(peer.subscribe((t.topic(f"{qos}"), qos)).reasons[0] <= qos, "SUBSCRIBE refused")
    best = peer.connack.prop("maximum_qos", 2)
    if best == 2:
        for qos in (1, 2):
            peer.publish(t.topic("x"), b"x", qos)
        return
    t.refused(peer, (0x9B,), codec.publish(V5, t.topic("x"), b"x", best + 1, pid=1))
    t.connect_refused(codec.connect(V5, t.cid("b"), will=codec.Will(t.topic(), qos=best + 1)),
                      (0x9B,))


@test(*BOTH)
def slow_subscriber_does_not_stop_others(t):
    """[MQTT-4.5.0-1] 4.9: a client that reads nothing holds up neither publishers nor other
    subscribers."""
    stuck = t.connect("stuck")
    stuck.subscribed(t.topic(), 0)
    watch = t.connect("watch")
    watch.subscribed(t.topic(), 1)
    publisher = t.publisher()
    for _ in range(60):
        publisher.publish(t.topic(), b"f" * 60000, 1)
        check(len(watch.message().payload) == 60000, "wrong message")


@test(*BOTH)
def bystanders_are_not_disturbed(t):
    """3.1.1 [MQTT-4.8.0-1] 5.0 [MQTT-4.13.1-1]: only the connection with the error is closed."""
    watch = t.connect("w")
    watch.subscribed(t.topic(), 1)
    for nonsense in (b"\xff" * 100, b"\x00\x00", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"\x10\xff\xff\xff\xff\xff", b"\x30\x02\x00\x09"):
        peer = t.raw()
        peer.send(nonsense)
        peer.ended()
        peer = t.connect("x")
        peer.send(nonsense)
        t.publisher().publish(t.topic(), b"on", 1)
        check(watch.message().payload == b"on", "wrong message")
        peer.drop()
