"""Will messages (3.1.2.5, 3.1.3.2, 3.14.4)."""

import time

from . import codec
from .client import Closed, Failed, check
from .codec import V4, V5, Will
from .session import idle
from .suite import BOTH, test


def watcher(t, topic=None, qos=2):
    peer = t.connect("watch", keep_alive=0)
    peer.subscribed(topic or t.topic("will"), qos)
    return peer


@test(*BOTH)
def will_is_published_on_a_lost_connection(t):
    """[MQTT-3.1.2-8] 5.0 [MQTT-3.1.2-7]: reset or plain close, without DISCONNECT."""
    watch = watcher(t)
    for end in ("drop", "close"):
        peer = t.connect("p", will=Will(t.topic("will"), end.encode()))
        getattr(peer, end)()
        found = watch.message()
        check((found.payload, found.retain) == (end.encode(), False), f"{found}")


@test(*BOTH)
def will_is_published_after_a_protocol_error(t):
    """[MQTT-3.1.2-8] 3.1.2.5: the server closes because of an error of the client."""
    watch = watcher(t)
    peer = t.connect("p", will=Will(t.topic("will"), b"error", 1))
    peer.send(codec.packet(codec.SUBSCRIBE, 0, b"\x00\x01\x00\x00\x00"))
    check(watch.message().payload == b"error", "wrong will")


@test(*BOTH, slow=True)
def will_is_published_when_keep_alive_ends(t):
    """[MQTT-3.1.2-8] [MQTT-3.1.2-24]: as if the network had failed."""
    watch = watcher(t)
    t.connect("p", keep_alive=1, will=Will(t.topic("will"), b"silent"))
    check(watch.message(timeout=6).payload == b"silent", "wrong will")


@test(*BOTH)
def will_is_dropped_by_disconnect(t):
    """[MQTT-3.1.2-10] [MQTT-3.14.4-3]: a normal DISCONNECT deletes it."""
    watch = watcher(t)
    t.connect("p", will=Will(t.topic("will"), b"never")).disconnect()
    t.silent(watch, why="will after DISCONNECT")


@test(*BOTH)
def will_belongs_to_one_connection(t):
    """[MQTT-3.1.2-10] [MQTT-3.1.2-12]: published once, and not by a later connection without
    will."""
    watch = watcher(t)
    t.connect("p", persistent=True, will=Will(t.topic("will"), b"first")).drop()
    check(watch.message().payload == b"first", "wrong will")
    peer = t.connect("p", persistent=True)
    t.alive(peer)
    peer.drop()
    t.connect("p", persistent=True).disconnect()
    t.silent(watch, why="will of a connection without will")


@test(*BOTH)
def will_qos_is_used(t):
    """[MQTT-3.1.2-9] [MQTT-3.1.2-14]: delivered at the will's QoS."""
    watch = watcher(t)
    for qos in (0, 1, 2):
        t.connect(f"p{qos}", will=Will(t.topic("will"), b"%d" % qos, qos)).drop()
        found = watch.message()
        check((found.payload, found.qos) == (b"%d" % qos, qos), f"{found}")


@test(*BOTH)
def will_retain_is_used(t):
    """[MQTT-3.1.2-16] [MQTT-3.1.2-17]: kept if asked, and only then."""
    for retain in (False, True):
        topic = t.retained(t.topic(f"will{retain:d}"))
        watch = watcher(t, topic)
        t.connect("p", will=Will(topic, b"w", 1, retain)).drop()
        found = watch.message()
        check(not found.retain, "RETAIN 1 on an established subscription")
        watch.disconnect()
        late = t.connect("late")
        late.subscribed(topic, 1)
        seen = t.drain(late)
        check(len(seen) == (1 if retain else 0), f"retain {retain}: {len(seen)} kept")
        check(all(p.retain for p in seen), "RETAIN 0 on a kept message")
        late.disconnect()


@test(*BOTH)
def empty_will_is_a_message(t):
    """3.1.3.3 of 3.1.1, 3.1.3.4 of 5.0 [MQTT-3.1.2-8]: zero bytes of will are published."""
    watch = watcher(t)
    t.connect("p", will=Will(t.topic("will"), b"", 1)).drop()
    check(watch.message().payload == b"", "wrong will")


@test(*BOTH)
def will_payload_is_any_bytes(t):
    """3.1.3.3 of 3.1.1, 3.1.3.4 of 5.0 [MQTT-3.1.2-8]: binary, unchanged."""
    watch = watcher(t)
    payload = bytes(range(256)) * 20
    t.connect("p", will=Will(t.topic("will"), payload, 1)).drop()
    check(watch.message().payload == payload, "payload changed")


@test(*BOTH)
def will_topic_must_be_a_topic_name(t):
    """3.1.1 [MQTT-4.7.1-1] 5.0 [MQTT-4.7.0-1] [MQTT-4.7.3-1]: wildcards or nothing are refused,
    at CONNECT or by not being published."""
    watch = watcher(t, t.topic("#"))
    for bad in (t.topic("+"), t.topic("#"), ""):
        peer = t.raw()
        peer.send(codec.connect(t.version, t.cid("p"), will=Will(bad)))
        try:
            found = peer.next()
            if found.reason == 0:
                t.note(f"will topic {bad and bad[-1]!r} accepted at CONNECT")
            else:
                check(not t.v5 or found.reason in (0x81, 0x82, 0x90), f"{found}")
        except Closed:
            if t.v5:
                t.note("closed without CONNACK 0x90")
        peer.drop()
    t.silent(watch, why="will on an invalid topic")


@test(*BOTH)
def will_of_a_taken_over_connection(t):
    """[MQTT-3.1.2-8] [MQTT-3.1.4-2] 5.0 [MQTT-3.1.4-3]: the old connection ends without
    DISCONNECT, so its will is published."""
    watch = watcher(t)
    t.connect("p", will=Will(t.topic("will"), b"old", 1))
    new = t.connect("p", will=Will(t.topic("will"), b"new", 1))
    check(watch.message().payload == b"old", "wrong will")
    t.alive(new)
    new.disconnect()
    t.silent(watch, why="will after DISCONNECT")


@test(V5)
def will_after_disconnect_with_will(t):
    """[MQTT-3.1.2-8] 3.14.2.1: reason 0x04 and reasons of failure publish the will."""
    watch = watcher(t)
    for reason in (0x04, 0x80, 0x82):
        peer = t.connect("p", will=Will(t.topic("will"), b"%d" % reason, 1))
        peer.send(codec.disconnect(V5, reason))
        check(watch.message().payload == b"%d" % reason, "wrong will")


@test(V5)
def will_properties_are_published(t):
    """[MQTT-3.1.2-9] 3.1.3.2 [MQTT-3.3.2-17] [MQTT-3.3.2-18]: all of them but the delay."""
    watch = watcher(t)
    props = [("payload_format", 1), ("content_type", "text/plain"), ("response_topic", "r/e"),
             ("correlation_data", b"\xff\x00"), ("user_property", ("b", "1")),
             ("user_property", ("a", "2"))]
    t.connect("p", will=Will(t.topic("will"), b"w", 1,
                             props=[("will_delay", 0), ("message_expiry", 100)] + props)).drop()
    found = watch.message()
    expiry = found.prop("message_expiry")
    check(expiry in (99, 100), f"message expiry {expiry}")
    rest = [p for p in found.props if p[0] != "message_expiry"]
    check(sorted(map(str, rest)) == sorted(map(str, props)), f"{found.props}")
    check(found.all("user_property") == [("b", "1"), ("a", "2")], "order of user properties")


@test(V5, slow=True)
def will_delay_is_waited_for(t):
    """[MQTT-3.1.2-8] 3.1.3.2.2: not before its delay, also after DISCONNECT 0x04."""
    watch = watcher(t)
    for reason in (None, 0x04):
        peer = t.connect("p", persistent=True, clean=True,
                         will=Will(t.topic("will"), b"late", 1, props=[("will_delay", 2)]))
        started = time.monotonic()
        if reason is None:
            peer.drop()
        else:
            peer.send(codec.disconnect(V5, reason))
        check(watch.message(timeout=6).payload == b"late", "wrong will")
        took = time.monotonic() - started
        check(1 <= took <= 4.5, f"will after {took:.1f} s with a delay of 2 s")


@test(V5, slow=True)
def will_delay_ends_by_coming_back(t):
    """[MQTT-3.1.2-26]: a new connection to the session in time cancels the will."""
    watch = watcher(t)
    t.connect("p", persistent=True,
              will=Will(t.topic("will"), b"never", 1, props=[("will_delay", 2)])).drop()
    back = t.connect("p", persistent=True, keep_alive=0)
    idle(watch, 4)
    t.alive(back)


@test(V5, slow=True)
def will_delay_ends_with_the_session(t):
    """[MQTT-3.1.2-8]: when the session ends first, the will is published then."""
    watch = watcher(t)
    t.connect("p", persistent=True, expiry=1,
              will=Will(t.topic("will"), b"ended", 1, props=[("will_delay", 60)])).drop()
    check(watch.message(timeout=6).payload == b"ended", "wrong will")


@test(V5)
def will_delay_of_a_session_that_is_not_kept(t):
    """[MQTT-3.1.2-8]: expiry 0 ends the session with the connection: no delay."""
    watch = watcher(t)
    t.connect("p", will=Will(t.topic("will"), b"now", 1, props=[("will_delay", 60)])).drop()
    check(watch.message().payload == b"now", "wrong will")


@test(V5)
def will_delay_and_clean_start(t):
    """[MQTT-3.1.2-8] [MQTT-3.1.2-4]: a clean start ends the old session, so its will is due."""
    watch = watcher(t)
    t.connect("p", persistent=True,
              will=Will(t.topic("will"), b"due", 1, props=[("will_delay", 60)])).drop()
    new = t.connect("p", clean=True)
    check(watch.message().payload == b"due", "wrong will")
    t.alive(new)
