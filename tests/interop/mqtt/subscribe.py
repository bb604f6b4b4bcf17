"""SUBSCRIBE, UNSUBSCRIBE (3.8 to 3.11) and topic filters (4.7)."""

from . import codec
from .client import Closed, Failed, check
from .codec import PUBCOMP, PUBREC, PUBREL, SUBACK, UNSUBACK, V4, V5, options
from .suite import BOTH, NotApplicable, test

# filter, topics it matches, topics it does not; all below the test's own prefix
MATCHES = [
    ("sport/tennis/#", ["sport/tennis", "sport/tennis/p1", "sport/tennis/p1/score"],
     ["sport", "sport/tennisx", "sport/Tennis/p1"]),
    ("sport/#", ["sport", "sport/", "sport//", "sport/a"], ["sports", "sporty/a"]),
    ("sport/+", ["sport/", "sport/a"], ["sport", "sport/a/b", "sport//"]),
    ("+/+", ["/a", "a/", "a/b", "/"], ["a", "a/b/c", "/a/b"]),
    ("/+", ["/a", "/"], ["a", "//a", "a/b"]),
    ("+", ["a", "\u00e9"], ["/a", "a/", "a/b"]),
    ("+/tennis/#", ["x/tennis", "x/tennis/y/z", "/tennis"], ["x/y/tennis", "tennis"]),
    ("a/+/+/d", ["a/b/c/d", "a///d"], ["a/b/d", "a/b/c/d/e"]),
    ("a/b", ["a/b"], ["a/b/", "/a/b", "a//b", "A/b", "a/b "]),
    ("a//b", ["a//b"], ["a/b", "a/x/b"]),
    ("$x/+", ["$x/y"], ["x/y"]),
]

INVALID = ["sport/tennis#", "sport/tennis/#/ranking", "#/", "##", "a/#b", "sport+", "+sport",
           "a/b+/c", "a/+b", "++", "a/#/#"]


@test(*BOTH)
def filters_match_as_specified(t):
    """3.1.1 [MQTT-4.7.1-2] [MQTT-4.7.1-3] 5.0 [MQTT-4.7.1-1] [MQTT-4.7.1-2]: the standard's own
    examples and their neighbours."""
    peer = t.connect()
    for filter_, matching, others in MATCHES:
        peer.subscribed(t.topic(filter_), 1)
        for topic in matching + others:
            t.publisher().publish(t.topic(topic), b"x", 1)
        seen = [p.topic for p in t.drain(peer)]
        check(seen == [t.topic(topic) for topic in matching], f"{filter_}: {seen}")
        peer.unsubscribe(t.topic(filter_))


@test(*BOTH)
def hash_matches_its_parent_level(t):
    """3.1.1 [MQTT-4.7.1-2] 5.0 [MQTT-4.7.1-1] 4.7.1.2: `a/#` also matches `a`."""
    peer = t.connect()
    peer.subscribed(t.topic("a/#"), 1)
    t.publisher().publish(t.topic("a"), b"x", 1)
    check(peer.message().topic == t.topic("a"), "parent level not matched")


@test(*BOTH)
def leading_wildcards_do_not_match_dollar_topics(t):
    """[MQTT-4.7.2-1]: `#`, `+/…` never receive topics that begin with `$`."""
    peer = t.connect()
    peer.subscribed("#", 1)
    peer.subscribed(f"+/{t.RUN}/{t.number}/#", 1)
    publisher = t.publisher()
    topic = f"$conf/{t.RUN}/{t.number}/x"
    publisher.send(codec.publish(t.version, topic, b"x", 0))
    try:
        publisher.ping()
    except Closed:  # a server may refuse such a topic to clients altogether
        publisher = t.connect("again")
    seen = [p for p in t.drain(peer, publisher) if p.topic.startswith("$")]
    check(not seen, f"{seen[0] if seen else ''}")


@test(*BOTH)
def sys_topics_are_not_matched_by_hash(t):
    """[MQTT-4.7.2-1]: what the server itself says under `$SYS` does not reach `#`."""
    peer = t.connect()
    suback = peer.subscribe(("$SYS/#", 0))
    peer.disconnect()
    peer = t.connect("b")
    peer.subscribed("#", 0)
    peer.subscribed("+/broker/#", 0)
    seen = [p for p in t.drain(peer) if p.topic.startswith("$")]
    check(not seen, f"{seen[0] if seen else ''} (SUBACK for $SYS/#: {suback})")


@test(*BOTH)
def invalid_filters_are_refused(t):
    """3.1.1 [MQTT-4.7.1-2] [MQTT-4.7.1-3] 5.0 [MQTT-4.7.1-1] [MQTT-4.7.1-2]: misplaced wildcards
    end the connection or get a failure code."""
    for bad in INVALID:
        peer = t.connect()
        pid = peer.pid()
        peer.send(codec.subscribe(t.version, pid, [(t.topic(bad), 1)]))
        try:
            found = peer.expect(SUBACK, pid)
        except Closed:
            said = peer.queue[-1] if peer.queue else None
            if t.v5 and said is not None:
                check(said.reason in (0x81, 0x82, 0x8F), f"{said} for {bad!r}")
            elif t.v5:
                t.note("closed without DISCONNECT 0x81")
            continue
        check(found.reasons[0] in ((0x8F, 0x80) if t.v5 else (0x80,)), f"{found} for {bad!r}")
        t.alive(peer)


@test(*BOTH)
def empty_or_null_filters_close(t):
    """[MQTT-4.7.3-1] [MQTT-4.7.3-2] 3.1.1 [MQTT-1.4.0-2] 5.0 [MQTT-1.5.4-2]: at least one
    character, and no null character."""
    for bad in ("", t.topic("a\0b"), "\0"):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82, 0x8F), codec.subscribe(t.version, 1, [(bad, 0)]))


@test(*BOTH)
def filters_must_be_utf8(t):
    """[MQTT-3.8.3-1] [MQTT-3.10.3-1] 3.1.1 [MQTT-1.4.0-1] 5.0 [MQTT-1.5.4-1]: ill-formed
    filters end the connection."""
    for bad in (b"a/\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82, 0x8F), codec.subscribe(t.version, 1, [(bad, 0)]))
        peer = t.connect()
        t.refused(peer, (0x81, 0x82, 0x8F), codec.unsubscribe(t.version, 1, [bad]))


@test(*BOTH)
def subscribe_header_flags(t):
    """[MQTT-3.8.1-1]: bits 3,2,1,0 must be 0,0,1,0."""
    for flags in (0, 1, 3, 6, 10, 15):
        peer = t.connect()
        t.refused(peer, (0x81,), codec.subscribe(t.version, 1, [(t.topic(), 0)], flags=flags))


@test(*BOTH)
def unsubscribe_header_flags(t):
    """[MQTT-3.10.1-1]: bits 3,2,1,0 must be 0,0,1,0."""
    for flags in (0, 1, 3, 6, 10, 15):
        peer = t.connect()
        t.refused(peer, (0x81,), codec.unsubscribe(t.version, 1, [t.topic()], flags=flags))


@test(*BOTH)
def subscribe_needs_a_filter(t):
    """3.1.1 [MQTT-3.8.3-3] 5.0 [MQTT-3.8.3-2]: no payload is a protocol error."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82), codec.subscribe(t.version, 1, []))


@test(*BOTH)
def unsubscribe_needs_a_filter(t):
    """[MQTT-3.10.3-2]: no payload is a protocol error."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82), codec.unsubscribe(t.version, 1, []))


@test(*BOTH)
def subscribe_identifier_zero_closes(t):
    """3.1.1 [MQTT-2.3.1-1] 5.0 [MQTT-2.2.1-3]: SUBSCRIBE and UNSUBSCRIBE need an identifier."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82), codec.subscribe(t.version, 0, [(t.topic(), 0)]))
    peer = t.connect()
    t.refused(peer, (0x81, 0x82), codec.unsubscribe(t.version, 0, [t.topic()]))


@test(*BOTH)
def subscribe_options_reserved_bits(t):
    """3.1.1 [MQTT-3-8.3-4] 5.0 [MQTT-3.8.3-5]: QoS 3 or reserved bits are malformed."""
    bad = (3, 0x40, 0x80, 0x30, 0x33) if t.v5 else (3, 4, 8, 0x10, 0x40, 0x80, 0xFF)
    for bits in bad:
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.subscribe(t.version, 1, [(t.topic(), bits)]))


@test(*BOTH)
def subscribe_length_must_fit(t):
    """[MQTT-3.8.4-1] 3.1.1 [MQTT-4.8.0-1] 5.0 [MQTT-4.13.1-1]: cut filters and missing options
    are malformed."""
    whole = codec.subscribe(t.version, 1, [("abc", 0)])[2:]
    for cut in range(1, len(whole)):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.packet(codec.SUBSCRIBE, 2, whole[:cut]))


@test(*BOTH)
def suback_answers_each_filter_in_order(t):
    """[MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.9.3-1] 3.1.1 [MQTT-3.8.4-4] [MQTT-3.8.4-5] 5.0
    [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-2]: one code a filter."""
    peer = t.connect()
    wanted = [number % 3 for number in range(60)]
    found = peer.subscribe(*[(t.topic(f"f{n}"), qos) for n, qos in enumerate(wanted)])
    check(list(found.reasons) == wanted, f"{found}")
    for number in (0, 31, 59):
        t.publisher().publish(t.topic(f"f{number}"), b"x", 2)
        check(peer.message().qos == wanted[number], f"filter {number}")


@test(*BOTH)
def one_filter_twice_in_a_subscribe(t):
    """[MQTT-3.8.4-3] 3.1.1 [MQTT-3.8.4-4] 5.0 [MQTT-3.8.4-5]: as if sent one after the other: the
    last one holds, and messages come once."""
    peer = t.connect()
    found = peer.subscribe((t.topic(), 2), (t.topic(), 1))
    check(found.reasons == (2, 1), f"{found}")
    t.publisher().publish(t.topic(), b"x", 2)
    check([p.qos for p in t.drain(peer)] == [1], "not one message at QoS 1")


@test(*BOTH)
def subscribing_again_replaces(t):
    """[MQTT-3.8.4-3]: an identical filter replaces the subscription, up and down."""
    peer = t.connect()
    for qos in (2, 0, 1):
        peer.subscribed(t.topic("+"), qos)
        t.publisher().publish(t.topic("a"), b"x", 2)
        check([p.qos for p in t.drain(peer)] == [qos], f"QoS {qos} not in force, or twice")
    peer.unsubscribe(t.topic("+"))
    t.publisher().publish(t.topic("a"), b"x", 2)
    t.silent(peer)


@test(*BOTH)
def replacing_a_subscription_loses_nothing(t):
    """[MQTT-3.8.4-3] 5.0 [MQTT-3.8.4-4]: the flow of publications is not interrupted."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    publisher = t.publisher()
    for number in range(20):
        publisher.send(codec.publish(t.version, t.topic(), f"{number}", 0))
        peer.send(codec.subscribe(t.version, peer.pid(), [(t.topic(), 1)]))
    for _ in range(20):
        peer.expect(SUBACK)
    seen = [int(p.payload) for p in t.drain(peer, publisher)]
    check(seen == list(range(20)), f"{seen}")


@test(*BOTH)
def overlapping_subscriptions_give_the_highest_qos(t):
    """3.1.1 [MQTT-3.3.5-1] 5.0 [MQTT-3.3.4-2]: the message comes at the highest QoS of all that
    match; further copies, if any, at their own subscription's QoS."""
    peer = t.connect()
    peer.subscribed(t.topic("a/#"), 0)
    peer.subscribed(t.topic("a/+"), 2)
    peer.subscribed(t.topic("a/b"), 1)
    t.publisher().publish(t.topic("a/b"), b"x", 2)
    found = [p.qos for p in t.drain(peer)]
    check(found and max(found) == 2 and len(found) <= 3, f"QoS {found}")
    check(len(found) == 1 or sorted(found) == [0, 1, 2], f"QoS {found}")


@test(*BOTH)
def unsubscribe_ends_delivery(t):
    """[MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5]: UNSUBACK with the same
    identifier; nothing more is added."""
    peer = t.connect()
    peer.subscribed(t.topic("a"), 1)
    peer.subscribed(t.topic("b"), 1)
    found = peer.unsubscribe(t.topic("a"))
    if t.v5:
        check(found.reasons == (0,), f"{found}")
    t.publisher().publish(t.topic("a"), b"x", 1)
    t.publisher().publish(t.topic("b"), b"y", 1)
    check([p.payload for p in t.drain(peer)] == [b"y"], "wrong messages after UNSUBSCRIBE")


@test(*BOTH)
def unsubscribe_compares_filters_exactly(t):
    """[MQTT-3.10.4-1]: character by character; a wildcard is not expanded."""
    peer = t.connect()
    peer.subscribed(t.topic("a/+"), 1)
    for filter_ in (t.topic("a/b"), t.topic("a/#"), t.topic("+/+"), t.topic("A/+")):
        found = peer.unsubscribe(filter_)
        if t.v5:
            check(found.reasons == (0x11,), f"{found} for {filter_}")
    t.publisher().publish(t.topic("a/b"), b"x", 1)
    check(peer.message().payload == b"x", "the wrong subscription was deleted")


@test(*BOTH)
def unsubscribe_of_many(t):
    """[MQTT-3.10.4-6] [MQTT-3.10.4-5] 5.0 [MQTT-3.11.3-1] [MQTT-3.11.3-2]: one UNSUBACK, codes in
    order, also where nothing was deleted."""
    peer = t.connect()
    peer.subscribed(t.topic("a"), 1)
    peer.subscribed(t.topic("b"), 1)
    found = peer.unsubscribe(t.topic("a"), t.topic("none"), t.topic("b"), t.topic("a"))
    if t.v5:
        check(found.reasons == (0, 0x11, 0, 0x11), f"{found}")
    for name in "ab":
        t.publisher().publish(t.topic(name), b"x", 1)
    t.silent(peer)


@test(*BOTH)
def unsubscribe_completes_what_was_begun(t):
    """[MQTT-3.10.4-3]: QoS 1 and 2 deliveries under way are completed."""
    peer = t.connect()
    peer.subscribed(t.topic(), 2)
    t.publisher().publish(t.topic(), b"x", 2)
    found = peer.message(answer=False)
    peer.unsubscribe(t.topic())
    peer.send(codec.ack(t.version, PUBREC, found.pid))
    peer.expect(PUBREL, found.pid)
    peer.send(codec.ack(t.version, PUBCOMP, found.pid))
    t.silent(peer)


@test(*BOTH)
def subscriptions_are_a_sessions_own(t):
    """[MQTT-3.10.4-1] [MQTT-3.1.3-2]: ending one client's subscription leaves others' alone."""
    one, two = t.connect("a"), t.connect("b")
    one.subscribed(t.topic(), 1)
    two.subscribed(t.topic(), 1)
    one.unsubscribe(t.topic())
    t.publisher().publish(t.topic(), b"x", 1)
    check([p.payload for p in t.drain(two)] == [b"x"], "lost by another's UNSUBSCRIBE")
    t.silent(one)


@test(V5)
def no_local(t):
    """[MQTT-3.8.3-3]: a No Local subscription does not get the client's own messages."""
    peer, other = t.connect("a"), t.connect("b")
    peer.subscribed(t.topic(), 1, no_local=True)
    other.subscribed(t.topic(), 1, no_local=True)
    peer.publish(t.topic(), b"mine", 1)
    check(other.message().payload == b"mine", "withheld from another client")
    other.publish(t.topic(), b"theirs", 1)
    check([p.payload for p in t.drain(peer)] == [b"theirs"], "own message despite No Local")
    peer.subscribed(t.topic(), 1, no_local=False)
    peer.publish(t.topic(), b"mine again", 1)
    check(peer.message().payload == b"mine again", "No Local outlived its replacement")


@test(V5)
def subscribe_and_unsubscribe_take_user_properties(t):
    """[MQTT-1.5.7-1] 3.8.2.1.3, 3.10.2.1.2: accepted, any number."""
    props = [("user_property", ("a", "1")), ("user_property", ("a", "2"))]
    peer = t.connect()
    peer.subscribed(t.topic(), 1, props=props)
    check(peer.unsubscribe(t.topic(), props=props).reasons == (0,), "not deleted")


@test(V5)
def wildcard_announcement_is_true(t):
    """[MQTT-3.9.3-2] 3.2.2.3.11: Wildcard Subscription Available 0 means 0xA2, else they work."""
    peer = t.connect()
    found = peer.subscribe((t.topic("+/#"), 1))
    if peer.connack.prop("wildcard_available", 1):
        check(found.reasons == (1,), f"{found} although wildcards are available")
    else:
        check(found.reasons == (0xA2,), f"{found} although wildcards are not available")


# --- subscription identifiers ------------------------------------------------------------------

def needs_identifiers(peer):
    if not peer.connack.prop("subscription_ids_available", 1):
        raise NotApplicable("the server announces no subscription identifiers")


@test(V5)
def subscription_identifier_comes_back(t):
    """[MQTT-3.3.4-3]: with each message that its subscription brings, live and retained."""
    peer = t.connect()
    needs_identifiers(peer)
    t.publisher().publish(t.retained(t.topic("kept")), b"k", 1, retain=True)
    for ident in (1, 127, 128, 16384, 268435455):
        peer.subscribed(t.topic("+"), 1, props=[("subscription_id", ident)])
        found = peer.message()
        check(found.retain and found.all("subscription_id") == [ident], f"{found}")
        t.publisher().publish(t.topic("live"), b"x", 1)
        found = peer.message()
        check(found.all("subscription_id") == [ident], f"{found}")
    peer.subscribed(t.topic("+"), 1, retain_handling=2)
    t.publisher().publish(t.topic("live"), b"x", 1)
    found = peer.message()
    check(found.all("subscription_id") == [], f"{found}: replaced by one without identifier")


@test(V5)
def overlapping_subscriptions_name_all_identifiers(t):
    """[MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]: all in one copy, or each copy its own."""
    peer = t.connect()
    needs_identifiers(peer)
    peer.subscribed(t.topic("a/#"), 1, props=[("subscription_id", 11)])
    peer.subscribed(t.topic("a/+"), 1, props=[("subscription_id", 22)])
    peer.subscribed(t.topic("a/b"), 1)
    t.publisher().publish(t.topic("a/b"), b"x", 1)
    seen = [sorted(p.all("subscription_id")) for p in t.drain(peer)]
    check(seen == [[11, 22]] or sorted(seen) == [[], [11], [22]], f"{seen}")


@test(V5)
def subscription_identifier_is_kept_with_the_session(t):
    """[MQTT-3.3.4-3] [MQTT-3.1.2-5]: it is part of the subscription, offline messages too."""
    peer = t.connect("s", persistent=True)
    needs_identifiers(peer)
    peer.subscribed(t.topic(), 1, props=[("subscription_id", 5)])
    peer.drop()
    t.publisher().publish(t.topic(), b"x", 1)
    peer = t.connect("s", persistent=True)
    check(peer.message().all("subscription_id") == [5], "identifier lost")


@test(V5)
def subscription_identifier_zero_or_twice(t):
    """[MQTT-4.13.1-1] 3.8.2.1.2: value 0 or two identifiers are a protocol error."""
    for props in ([("subscription_id", 0)], [("subscription_id", 1), ("subscription_id", 2)]):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.subscribe(V5, 1, [(t.topic(), 0)], props))


@test(V5)
def publish_with_subscription_identifier(t):
    """[MQTT-3.3.4-6]: a client must not send one in PUBLISH."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82),
              codec.publish(V5, t.topic(), b"x", props=[("subscription_id", 1)]))
