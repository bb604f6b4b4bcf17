"""Session state (3.1.2.4, 4.1), offline queues (4.5), redelivery (4.4, 4.6)."""

import time

from . import codec
from .client import Closed, Failed, check
from .codec import PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, V4, V5
from .suite import BOTH, test


def idle(peer, seconds):
    """Lets the standard's own time pass on a connection; nothing may arrive."""
    try:
        found = peer.take(lambda _: True, "nothing", timeout=seconds)
    except Closed:
        raise
    except Failed:
        return
    raise Failed(f"{found} during {seconds} s of silence")


def wait(seconds):
    """Lets the standard's own time pass: expiry intervals count whole seconds."""
    time.sleep(seconds)


@test(*BOTH)
def persistent_session_keeps_subscriptions(t):
    """[MQTT-3.1.2-4] 5.0 [MQTT-3.1.2-5]: subscriptions work after reconnecting, unasked."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic("+/x"), 1)
    peer.disconnect()
    peer = t.connect("s", persistent=True)
    check(peer.connack.session_present, "session not present")
    t.publisher().publish(t.topic("1/x"), b"again", 1)
    found = peer.message()
    check((found.payload, found.qos) == (b"again", 1), f"{found}")


@test(*BOTH)
def clean_session_forgets(t):
    """3.1.1 [MQTT-3.1.2-6] 5.0 [MQTT-3.1.2-4]: nothing of an earlier session is left."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.disconnect()
    t.publisher().publish(t.topic(), b"queued", 1)
    peer = t.connect("s", clean=True)
    t.publisher().publish(t.topic(), b"live", 1)
    t.silent(peer, why="subscription survived a clean start")


@test(V4)
def clean_session_ends_with_its_connection(t):
    """[MQTT-3.1.2-6]: a clean session is not there for a later CleanSession 0."""
    peer = t.connect("s", clean=True)
    peer.subscribed(t.topic(), 1)
    peer.drop()
    peer = t.connect("s", persistent=True)
    check(not peer.connack.session_present, "a clean session outlived its connection")
    t.publisher().publish(t.topic(), b"live", 1)
    t.silent(peer, why="subscription of a clean session")


@test(V5)
def expiry_zero_or_absent_ends_with_the_connection(t):
    """[MQTT-4.1.0-2] [MQTT-3.1.2-25]: session expiry 0 and none mean the same."""
    for expiry in (None, 0):
        peer = t.connect("s", clean=False, expiry=expiry)
        peer.subscribed(t.topic(), 1)
        peer.disconnect()
        peer = t.connect("s", clean=False, expiry=expiry)
        check(not peer.connack.session_present, f"session with expiry {expiry} was kept")
        peer.disconnect()


@test(V5)
def clean_start_with_expiry_begins_a_kept_session(t):
    """[MQTT-3.1.2-4] [MQTT-3.1.2-25] [MQTT-3.2.2-2]: Clean Start only empties; expiry keeps."""
    peer = t.connect("s", clean=True, expiry=0xFFFFFFFF)
    peer.subscribed(t.topic(), 1)
    peer.drop()
    peer = t.connect("s", clean=False, expiry=60)
    check(peer.connack.session_present, "session not kept")
    t.publisher().publish(t.topic(), b"x", 1)
    check(peer.message().payload == b"x", "subscription lost")


@test(V5)
def clean_start_zero_without_session_makes_one(t):
    """[MQTT-3.1.2-6]: Clean Start 0 and nothing stored begins a new session."""
    peer = t.connect("s", persistent=True)
    check(not peer.connack.session_present, "session present out of nowhere")
    peer.subscribed(t.topic(), 1)
    t.alive(peer)


@test(*BOTH)
def offline_messages_are_kept_in_order(t):
    """[MQTT-3.1.2-5] [MQTT-4.5.0-1] 4.6.0: QoS 1 and 2 of the absence arrive, in order."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic("one"), 1)
    peer.subscribed(t.topic("two"), 2)
    peer.disconnect()
    publisher = t.publisher()
    for number in range(40):
        publisher.publish(t.topic("one"), f"{number}", 1)
        publisher.publish(t.topic("two"), f"{number}", 2)
    peer = t.connect("s", persistent=True)
    check(peer.connack.session_present, "session not present")
    seen = {t.topic("one"): [], t.topic("two"): []}
    for _ in range(80):
        found = peer.message()
        check(found.qos == (1 if found.topic == t.topic("one") else 2), f"{found}")
        check(not found.dup, f"DUP on a first delivery: {found}")
        seen[found.topic].append(int(found.payload))
    for topic, numbers in seen.items():
        check(numbers == list(range(40)), f"{topic}: {numbers}")
    t.silent(peer, publisher)


@test(*BOTH)
def offline_messages_come_once(t):
    """[MQTT-4.3.2-3] 3.1.1 [MQTT-4.3.2-1] 4.4: what was acknowledged is not sent again."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.disconnect()
    t.publisher().publish(t.topic(), b"one", 1)
    peer = t.connect("s", persistent=True)
    peer.message()
    t.alive(peer)
    peer.disconnect()
    peer = t.connect("s", persistent=True)
    t.silent(peer, why="delivered twice")


@test(*BOTH)
def offline_queue_survives_several_absences(t):
    """[MQTT-3.1.2-5] [MQTT-4.5.0-1]: the queue belongs to the session, not the connection."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    for number in range(3):
        peer.drop()
        t.publisher().publish(t.topic(), f"{number}", 1)
        peer = t.connect("s", persistent=True)
        check(int(peer.message().payload) == number, "wrong message")
        t.alive(peer)


@test(*BOTH)
def unacknowledged_qos1_is_sent_again(t):
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-4.6.0-1]: on return, same order, same identifiers, DUP
    set."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    for number in range(5):
        t.publisher().publish(t.topic(), f"{number}", 1)
    first = [peer.message(answer=False) for _ in range(5)]
    peer.drop()
    peer = t.connect("s", persistent=True)
    second = [peer.message(answer=False) for _ in range(5)]
    check([p.payload for p in second] == [p.payload for p in first],
          f"order {[p.payload for p in second]}")
    check([p.pid for p in second] == [p.pid for p in first], "other packet identifiers")
    check(all(p.dup for p in second), "DUP not set on redelivery")
    for found in second:
        peer.answer(found)
    t.silent(peer)


@test(*BOTH)
def unacknowledged_qos2_is_sent_again(t):
    """[MQTT-4.4.0-1] [MQTT-3.3.1-1] 5.0 [MQTT-4.3.3-3]: PUBLISH without PUBREC comes again."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"x", 2)
    first = peer.message(answer=False)
    check(not first.dup, "DUP on a first delivery")
    peer.drop()
    peer = t.connect("s", persistent=True)
    second = peer.message(answer=False)
    check((second.pid, second.payload, second.dup) == (first.pid, b"x", True), f"{second}")
    peer.answer(second)
    t.silent(peer)


@test(*BOTH)
def received_qos2_is_released_again(t):
    """[MQTT-4.4.0-1] 3.1.1 [MQTT-4.3.3-1] 5.0 [MQTT-4.3.3-5] [MQTT-4.3.3-6]: after PUBREC the
    server repeats PUBREL, never the PUBLISH."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"x", 2)
    first = peer.message(answer=False)
    peer.send(codec.ack(t.version, PUBREC, first.pid))
    peer.expect(PUBREL, first.pid)
    peer.drop()
    peer = t.connect("s", persistent=True)
    found = peer.take(lambda p: p.kind in (PUBREL, PUBLISH), "PUBREL")
    check(found.kind == PUBREL and found.pid == first.pid, f"{found}, not PUBREL {first.pid}")
    peer.send(codec.ack(t.version, PUBCOMP, first.pid))
    t.silent(peer, why="PUBLISH again after PUBREL")


@test(*BOTH)
def resent_qos2_publish_is_delivered_once(t):
    """3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-10]: a PUBLISH repeated on a new connection of the
    session is the same message."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 2)
    peer = t.connect("s", persistent=True)
    raw = codec.publish(t.version, t.topic(), b"once", 2, pid=77)
    peer.send(raw)
    peer.expect(PUBREC, 77)
    peer.drop()
    peer = t.connect("s", persistent=True)
    check(peer.connack.session_present, "session not present")
    peer.send(codec.publish(t.version, t.topic(), b"once", 2, dup=True, pid=77))
    peer.expect(PUBREC, 77)
    peer.release(77)
    seen = t.drain(watcher)
    check([p.payload for p in seen] == [b"once"], f"delivered {len(seen)} times")


@test(*BOTH)
def resent_pubrel_is_completed(t):
    """3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-11] [MQTT-4.4.0-1]: PUBREL repeated after a reconnect
    gets PUBCOMP, and the message is not delivered again."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 2)
    peer = t.connect("s", persistent=True)
    peer.publish(t.topic(), b"once", 2, pid=9)
    peer.drop()
    peer = t.connect("s", persistent=True)
    peer.release(9)
    peer.drop()
    peer = t.connect("s", persistent=True)
    peer.release(9)
    check([p.payload for p in t.drain(watcher)] == [b"once"], "not exactly once")


@test(*BOTH)
def qos2_identifier_is_free_after_pubcomp_and_reconnect(t):
    """3.1.1 [MQTT-4.3.3-2] 5.0 [MQTT-4.3.3-12]: after PUBCOMP the identifier means a new
    message."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic(), 2)
    peer = t.connect("s", persistent=True)
    peer.publish(t.topic(), b"first", 2, pid=4)
    peer.drop()
    peer = t.connect("s", persistent=True)
    peer.publish(t.topic(), b"second", 2, pid=4)
    check([p.payload for p in t.drain(watcher)] == [b"first", b"second"], "identifier not freed")


@test(*BOTH, slow=True)
def nothing_is_repeated_on_one_connection(t):
    """5.0 [MQTT-4.4.0-1]: an unacknowledged message is repeated only after a reconnect. (3.1.1
    4.4 leaves it open, and calls it not recommended.)"""
    peer = t.connect("s", keep_alive=0)
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"x", 1)
    t.publisher().publish(t.topic(), b"y", 2)
    peer.message(answer=False)
    peer.message(answer=False)
    idle(peer, 4)


@test(*BOTH)
def retained_messages_are_not_session_state(t):
    """3.1.1 [MQTT-3.1.2.7] 5.0 [MQTT-3.3.1-5]: they outlive the session that published them, and
    resuming a session does not send them."""
    topic = t.retained(t.topic())
    peer = t.connect("s", persistent=True)
    peer.subscribed(topic, 1)
    t.connect("p").publish(topic, b"kept", 1, retain=True)
    peer.message()
    t.alive(peer)
    peer.disconnect()
    peer = t.connect("s", persistent=True)
    t.silent(peer, why="retained message on resuming")
    fresh = t.connect("f")
    fresh.subscribed(topic, 1)
    check(fresh.message().retain, "retained message lost")


@test(*BOTH)
def unsubscribing_outlives_the_connection(t):
    """[MQTT-3.10.4-1] [MQTT-3.1.2-4]: an ended subscription is not resumed."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.unsubscribe(t.topic())
    peer.disconnect()
    t.publisher().publish(t.topic(), b"x", 1)
    peer = t.connect("s", persistent=True)
    t.silent(peer, why="resumed subscription")


@test(*BOTH)
def qos0_order_of_offline_and_live(t):
    """[MQTT-4.5.0-1] 3.1.1 [MQTT-4.6.0-6] 5.0 [MQTT-4.6.0-5]: queued messages come before those
    published after the return."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.drop()
    for number in range(10):
        t.publisher().publish(t.topic(), f"{number}", 1)
    peer = t.connect("s", persistent=True)
    for number in range(10, 20):
        t.publisher().publish(t.topic(), f"{number}", 1)
    numbers = [int(peer.message().payload) for _ in range(20)]
    check(numbers == list(range(20)), f"order {numbers}")


@test(V5)
def session_expiry_can_change_at_disconnect(t):
    """[MQTT-3.1.2-25] 3.14.2.2.2: DISCONNECT with expiry 0 ends a kept session at once."""
    peer = t.connect("s", persistent=True)
    peer.subscribed(t.topic(), 1)
    peer.disconnect(0, [("session_expiry", 0)])
    peer = t.connect("s", persistent=True)
    check(not peer.connack.session_present, "session kept in spite of expiry 0 at DISCONNECT")


@test(V5)
def session_expiry_cannot_be_raised_from_zero(t):
    """[MQTT-4.13.1-1] 3.14.2.2.2: expiry 0 in CONNECT and another in DISCONNECT is an error."""
    peer = t.connect("s")
    t.refused(peer, (0x82,), codec.disconnect(V5, 0, [("session_expiry", 60)]))


@test(V5, slow=True)
def session_expires(t):
    """[MQTT-4.1.0-2] [MQTT-3.1.2-25]: kept for its interval after the connection, then gone."""
    peer = t.connect("s", persistent=True, expiry=2)
    peer.subscribed(t.topic(), 1)
    peer.drop()
    peer = t.connect("s", clean=False, expiry=2)
    check(peer.connack.session_present, "session gone at once")
    wait(3)
    t.alive(peer)
    peer.drop()
    peer = t.connect("s", clean=False, expiry=2)
    check(peer.connack.session_present, "the interval ran while connected")
    peer.disconnect()
    wait(4.5)
    peer = t.connect("s", clean=False, expiry=2)
    check(not peer.connack.session_present, "session there 4.5 s after an expiry of 2 s")
    t.publisher().publish(t.topic(), b"x", 1)
    t.silent(peer, why="subscription of an expired session")


@test(V5, slow=True)
def session_expiry_of_the_last_connection_counts(t):
    """[MQTT-4.1.0-2]: each CONNECT and DISCONNECT sets the interval anew."""
    peer = t.connect("s", persistent=True, expiry=300)
    peer.subscribed(t.topic(), 1)
    peer.disconnect(0, [("session_expiry", 1)])
    other = t.connect("o", persistent=True, expiry=1)
    other.disconnect(0, [("session_expiry", 300)])
    wait(3.5)
    check(not t.connect("s", clean=False).connack.session_present, "300 s, although 1 s was asked")
    check(t.connect("o", clean=False).connack.session_present, "1 s, although 300 s was asked")
