"""Shared subscriptions of MQTT 5.0 (4.8.2)."""

from . import codec
from .client import Closed, check
from .codec import PUBACK, PUBREC, SUBACK, V5
from .suite import NotApplicable, test


def member(t, name, filter_=None, group="g", qos=1, **options):
    peer = t.connect(name, **options)
    if not peer.connack.prop("shared_available", 1):
        raise NotApplicable("the server announces no shared subscriptions")
    peer.subscribed(f"$share/{group}/{filter_ or t.topic()}", qos)
    return peer


@test(V5)
def each_message_goes_to_one_member(t):
    """[MQTT-4.8.2-1] 4.8.2: the members together get every message once, and share the work."""
    members = [member(t, name) for name in "abc"]
    for number in range(90):
        t.publisher().publish(t.topic(), f"{number}", 1)
    shares = [[int(p.payload) for p in t.drain(peer)] for peer in members]
    check(sorted(sum(shares, [])) == list(range(90)), f"{sum(map(len, shares))} of 90, {shares}")
    check(all(shares), f"{[len(s) for s in shares]}: a member got nothing of 90 messages")
    check(all(s == sorted(s) for s in shares), "order within a member")


@test(V5)
def groups_are_apart(t):
    """4.8.2 [MQTT-4.8.2-1]: each group, and each ordinary subscription, gets all messages."""
    one, two = member(t, "a", group="one"), member(t, "b", group="two")
    plain = t.connect("p")
    plain.subscribed(t.topic(), 1)
    for number in range(10):
        t.publisher().publish(t.topic(), f"{number}", 1)
    for peer in (one, two, plain):
        seen = [int(p.payload) for p in t.drain(peer)]
        check(seen == list(range(10)), f"{seen}")


@test(V5)
def shared_and_plain_on_one_client(t):
    """4.8.2 [MQTT-3.3.4-2]: a client with both subscriptions gets a copy for each."""
    peer = member(t, "a")
    peer.subscribed(t.topic(), 1)
    t.publisher().publish(t.topic(), b"x", 1)
    check(len(t.drain(peer)) == 2, "not one for each subscription")


@test(V5)
def shared_filters_may_have_wildcards(t):
    """[MQTT-4.8.2-2] 4.8.2: the part behind the share name is an ordinary filter."""
    peer = member(t, "a", t.topic("+/x/#"))
    t.publisher().publish(t.topic("1/x/y/z"), b"yes", 1)
    t.publisher().publish(t.topic("1/y"), b"no", 1)
    check([p.payload for p in t.drain(peer)] == [b"yes"], "filter not applied")


@test(V5)
def leaving_a_group(t):
    """[MQTT-3.10.4-1] 4.8.2: UNSUBSCRIBE names the whole `$share/…` filter; others go on."""
    one, two = member(t, "a"), member(t, "b")
    check(one.unsubscribe(t.topic()).reasons == (0x11,), "left by the bare filter")
    check(one.unsubscribe(f"$share/g/{t.topic()}").reasons == (0,), "not left")
    for number in range(10):
        t.publisher().publish(t.topic(), f"{number}", 1)
    check([int(p.payload) for p in t.drain(two)] == list(range(10)), "lost after leaving")
    t.silent(one)


@test(V5)
def gone_members_get_nothing_new(t):
    """4.8.2 [MQTT-4.1.0-2]: when a member's session ends, the others get all."""
    one, two = member(t, "a"), member(t, "b")
    one.drop()
    t.alive(two)
    watch = t.connect("a")  # the same client identifier: the server has seen the end of the first
    t.alive(watch)
    for number in range(10):
        t.publisher().publish(t.topic(), f"{number}", 1)
    seen = [int(p.payload) for p in t.drain(two)]
    check(seen == list(range(10)), f"{seen}")


@test(V5)
def share_name_rules(t):
    """[MQTT-4.8.2-1] [MQTT-4.8.2-2]: at least one character, no `+`, `#`; a filter must follow."""
    member(t, "probe").disconnect()
    for bad in (f"$share//{t.topic()}", f"$share/a+b/{t.topic()}", f"$share/a#/{t.topic()}",
                "$share/grp", "$share/grp/", "$share/", "$share/+/x", "$share/#"):
        peer = t.connect()
        pid = peer.pid()
        peer.send(codec.subscribe(V5, pid, [(bad, 1)]))
        try:
            found = peer.expect(SUBACK, pid)
        except Closed:
            if peer.queue:
                check(peer.queue[-1].reason in (0x81, 0x82, 0x8F), f"{peer.queue[-1]}")
            else:
                t.note("closed without DISCONNECT 0x81")
            continue
        check(found.reasons[0] in (0x8F, 0x80), f"{found} for {bad!r}")


@test(V5)
def no_local_with_shared_is_an_error(t):
    """[MQTT-3.8.3-4]: No Local on a shared subscription is a protocol error."""
    member(t, "probe").disconnect()
    peer = t.connect()
    t.refused(peer, (0x82,),
              codec.subscribe(V5, 1, [(f"$share/g/{t.topic()}", codec.options(1, no_local=True))]))


@test(V5)
def retained_messages_do_not_greet_members(t):
    """[MQTT-3.3.1-9] 3.8.3.1, 4.8.2: none is sent when a shared subscription is made."""
    t.publisher().publish(t.retained(t.topic()), b"kept", 1, retain=True)
    peer = member(t, "a")
    t.silent(peer, why="retained message for a shared subscription")


@test(V5)
def granted_qos_of_members_is_respected(t):
    """[MQTT-4.8.2-3]: each member at its own granted QoS."""
    zero, two = member(t, "a", qos=0), member(t, "b", qos=2)
    for number in range(30):
        t.publisher().publish(t.topic(), f"{number}", 2)
    shares = [t.drain(zero, qos=1), t.drain(two, qos=1)]
    check(sum(map(len, shares)) == 30, f"{[len(s) for s in shares]} of 30")
    for share, qos in zip(shares, (0, 2)):
        check({p.qos for p in share} <= {qos}, f"QoS {[p.qos for p in share]} for granted {qos}")


@test(V5)
def begun_delivery_stays_with_its_member(t):
    """[MQTT-4.8.2-4]: a QoS 2 message that a member holds unfinished is completed with it when it
    returns, and goes to nobody else."""
    one = member(t, "a", qos=2, persistent=True)
    t.publisher().publish(t.topic(), b"x", 2)
    found = one.message(answer=False)
    two = member(t, "b", qos=2)
    one.drop()
    one = t.connect("a", persistent=True)
    again = one.message()
    check((again.pid, again.payload, again.dup) == (found.pid, b"x", True), f"{again}")
    t.silent(two, why="the same message for another member")


@test(V5)
def begun_delivery_ends_with_its_session(t):
    """[MQTT-4.8.2-5]: if the member's session ends, the QoS 2 message goes to nobody else."""
    one = member(t, "a", qos=2, persistent=True)
    t.publisher().publish(t.topic(), b"x", 2)
    one.message(answer=False)
    two = member(t, "b", qos=2)
    one.drop()
    t.connect("a", clean=True)
    t.silent(two, why="a dead member's message for another")


@test(V5)
def refused_delivery_goes_to_nobody(t):
    """[MQTT-4.8.2-6]: PUBACK or PUBREC of 0x80 and above discards the message."""
    one = member(t, "a", qos=2)
    two = None
    for qos, kind in ((1, PUBACK), (2, PUBREC)):
        t.publisher().publish(t.topic(), b"x", qos)
        found = one.message(answer=False)
        two = two or member(t, "b", "elsewhere/" + t.topic())
        one.send(codec.ack(V5, kind, found.pid, 0x83))
        t.alive(one)
    t.silent(one)
    t.silent(two)


@test(V5)
def shared_subscription_of_an_absent_client(t):
    """[MQTT-3.1.2-5] 4.8.2: a lone member with a kept session finds its messages on return."""
    peer = member(t, "a", persistent=True)
    peer.drop()
    for number in range(5):
        t.publisher().publish(t.topic(), f"{number}", 1)
    peer = t.connect("a", persistent=True)
    seen = [int(peer.message().payload) for _ in range(5)]
    check(seen == list(range(5)), f"{seen}")


@test(V5)
def subscription_identifier_of_a_shared_subscription(t):
    """[MQTT-3.3.4-3] 4.8.2: it works as on an ordinary one."""
    peer = t.connect()
    if not (peer.connack.prop("shared_available", 1)
            and peer.connack.prop("subscription_ids_available", 1)):
        raise NotApplicable("announced as not available")
    peer.subscribed(f"$share/g/{t.topic()}", 1, props=[("subscription_id", 9)])
    t.publisher().publish(t.topic(), b"x", 1)
    check(peer.message().all("subscription_id") == [9], "identifier missing")


@test(V5)
def shared_announcement_is_true(t):
    """[MQTT-3.9.3-2] 3.2.2.3.13: Shared Subscription Available 0 means 0x9E, else they work."""
    peer = t.connect()
    if peer.connack.prop("shared_available", 1):
        peer.subscribed(f"$share/g/{t.topic()}", 1)
        return
    t.refused(peer, (0x9E,), codec.subscribe(V5, 1, [(f"$share/g/{t.topic()}", 1)]))
