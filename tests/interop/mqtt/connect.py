"""CONNECT and CONNACK (3.1, 3.2), keep alive, PINGREQ and DISCONNECT (3.12, 3.14)."""

import string
import time

from . import codec
from .client import Closed, Failed, check
from .codec import CONNACK, DISCONNECT, PINGRESP, PUBLISH, SUBACK, V4, V5, Will
from .suite import BOTH, test


@test(*BOTH)
def first_packet_must_be_connect(t):
    """[MQTT-3.1.0-1]: any other first packet ends the connection, unanswered."""
    for raw in (codec.packet(codec.PINGREQ, 0),
                codec.publish(t.version, t.topic(), b"x"),
                codec.subscribe(t.version, 1, [(t.topic(), 0)]),
                codec.disconnect(t.version)):
        peer = t.raw()
        peer.send(raw)
        said = peer.ended()
        check(said is None, f"{said} before any CONNECT")
        check(not peer.queue, f"{peer.queue} before any CONNECT")


@test(*BOTH)
def second_connect_closes(t):
    """[MQTT-3.1.0-2]: a second CONNECT is a protocol error."""
    peer = t.connect()
    t.refused(peer, (0x82,), codec.connect(t.version, t.cid()))


@test(*BOTH)
def protocol_name_must_be_mqtt(t):
    """[MQTT-3.1.2-1]: another protocol name is not served."""
    for name in ("MQTTX", "mqtt", "", "MQT", "\ufeffMQTT"):
        t.connect_refused(codec.connect(t.version, t.cid(), name=name), (0x81, 0x82, 0x84),
                          codes=())


@test(*BOTH)
def protocol_level_unsupported(t):
    """[MQTT-3.1.2-2]: an unknown level is answered 0x01 (3.1.1) or 0x84 (5.0), then closed."""
    for level in (0, 6, 99, 0x85):
        peer = t.raw(V4)
        peer.send(codec.connect(t.version, t.cid(), level=level))
        raw = bytearray()
        peer.sock.settimeout(t.timeout)
        try:
            while chunk := peer.sock.recv(100):
                raw += chunk
        except TimeoutError:
            raise Failed(f"not closed after level {level}; got {raw.hex()}") from None
        except ConnectionResetError:
            pass
        peer.transcript.append(("<-", bytes(raw)))
        if not raw:
            check(t.v5, f"closed without CONNACK 0x01 after level {level}")
            t.note("closed without CONNACK 0x84")
        else:
            check(raw[0] == 0x20 and raw[2] == 0 and raw[3] in (0x01, 0x84),
                  f"{raw.hex()} after level {level}")


@test(*BOTH)
def connect_reserved_flag_must_be_zero(t):
    """[MQTT-3.1.2-3]: bit 0 of the connect flags set is refused."""
    t.connect_refused(codec.connect(t.version, t.cid(), flags=0x03), (0x81, 0x82))


@test(*BOTH)
def connect_without_will_has_no_will_bits(t):
    """[MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15]: will QoS or retain without will flag."""
    for bits in (0x08, 0x10, 0x20):
        t.connect_refused(codec.connect(t.version, t.cid(), flags=0x02 | bits), (0x81, 0x82))


@test(*BOTH)
def will_qos_three_is_refused(t):
    """[MQTT-3.1.2-14]: will QoS 3 is malformed."""
    raw = codec.connect(t.version, t.cid(), will=Will(t.topic()), flags=0x02 | 0x04 | 0x18)
    t.connect_refused(raw, (0x81, 0x82, 0x9B))


@test(*BOTH)
def will_fields_follow_the_will_flag(t):
    """[MQTT-3.1.2-9] [MQTT-3.1.3-1]: flag without fields, and fields without flag, are refused."""
    t.connect_refused(codec.connect(t.version, t.cid(), flags=0x06), (0x81, 0x82))
    t.connect_refused(codec.connect(t.version, t.cid(), will=Will(t.topic()), flags=0x02),
                      (0x81, 0x82))


@test(*BOTH)
def user_name_and_password_follow_their_flags(t):
    """[MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.2-20] [MQTT-3.1.2-21]: presence as flagged."""
    t.connect_refused(codec.connect(t.version, t.cid(), flags=0x82), (0x81, 0x82))
    t.connect_refused(codec.connect(t.version, t.cid(), username="u", flags=0xC2), (0x81, 0x82))
    t.connect_refused(codec.connect(t.version, t.cid(), username="u", flags=0x02), (0x81, 0x82))
    t.connect_refused(codec.connect(t.version, t.cid(), username="u", password="p", flags=0x82),
                      (0x81, 0x82))


@test(V4)
def password_needs_a_user_name(t):
    """[MQTT-3.1.2-22] of 3.1.1: the password flag without the user name flag is refused."""
    t.connect_refused(codec.connect(t.version, t.cid(), password="p"))


@test(V5)
def password_alone_is_well_formed(t):
    """[MQTT-3.1.2-20] [MQTT-3.1.2-21] of 5.0: a password needs no user name; it is judged, not
    called malformed."""
    peer = t.connect(accept=False, password="p")
    check(peer.connack.reason in (0x00, 0x86, 0x87, 0x8C), f"{peer.connack}")


@test(*BOTH)
def client_id_of_up_to_23_letters_and_digits(t):
    """[MQTT-3.1.3-5]: 1 to 23 bytes of 0-9 a-z A-Z are allowed."""
    letters = string.digits + string.ascii_letters
    for start in range(0, len(letters), 17):
        tail = t.RUN + str(t.number)
        peer = t.connect(client_id=(letters + letters)[start:start + 23 - len(tail)] + tail)
        peer.disconnect()
    for letter in "Zq7":
        t.connect(client_id=letter).disconnect()


@test(*BOTH)
def client_ids_are_compared_exactly(t):
    """[MQTT-3.1.3-2]: identifiers that differ in case or length are different clients."""
    one, two, three = t.connect("ab"), t.connect("aB"), t.connect("abc")
    for peer in (one, two, three):
        t.alive(peer)


@test(V4)
def empty_client_id_with_clean_session(t):
    """[MQTT-3.1.3-6]: accepted with an identifier of the server's own, or refused with 0x02."""
    one = t.connect(client_id="", accept=False)
    if one.connack.reason:
        check(one.connack.reason == 2, f"{one.connack} for an empty client identifier")
        return
    two = t.connect(client_id="")
    t.alive(one)
    t.alive(two)


@test(V4)
def empty_client_id_without_clean_session_is_refused(t):
    """[MQTT-3.1.3-7] [MQTT-3.1.3-8] [MQTT-3.1.3-9]: CONNACK 0x02, then closed."""
    peer = t.raw()
    found = peer.handshake(codec.connect(V4, "", clean=False))
    check(found.reason == 2, f"{found}, not identifier rejected")
    check(peer.ended() is None, "more after a refusal")


@test(V5)
def empty_client_id_is_assigned_one(t):
    """[MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]: Assigned Client Identifier, always new."""
    given = []
    for clean in (True, True, False):
        peer = t.connect(client_id="", clean=clean, expiry=60)
        assigned = peer.connack.prop("assigned_client_id")
        check(assigned, f"no assigned client identifier in {peer.connack}")
        t._sessions.add(assigned)
        given.append(assigned)
        t.alive(peer)
    check(len(set(given)) == 3, f"assigned twice: {given}")
    for peer in t.peers:
        t.alive(peer)
    peer = t.peers[-1]
    peer.subscribed(t.topic(), 1)
    peer.drop()
    again = t.connect(client_id=given[-1], clean=False, expiry=60)
    check(again.connack.session_present, "the assigned identifier does not resume its session")


@test(V5)
def given_client_id_is_not_replaced(t):
    """[MQTT-3.1.3-7] [MQTT-3.2.2-16]: no Assigned Client Identifier when the client has one."""
    peer = t.connect()
    check(peer.connack.prop("assigned_client_id") is None, f"{peer.connack}")


@test(*BOTH)
def connect_strings_must_be_utf8(t):
    """[MQTT-3.1.3-4] 3.1.1 [MQTT-1.4.0-1] [MQTT-1.4.0-2] 5.0 [MQTT-1.5.4-1] [MQTT-1.5.4-2]:
    ill-formed client id, user name or will topic."""
    for bad in (b"a\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"a\x00b"):
        t.connect_refused(codec.connect(t.version, bad), (0x81, 0x82, 0x85), codes=())
        t.connect_refused(codec.connect(t.version, t.cid(), username=bad), (0x81, 0x82, 0x86),
                          codes=())
        t.connect_refused(codec.connect(t.version, t.cid(), will=Will(bad)), (0x81, 0x82, 0x90),
                          codes=())


@test(*BOTH)
def connect_length_must_fit(t):
    """[MQTT-3.1.4-1]: a truncated CONNECT, or one with bytes to spare, is refused."""
    t.connect_refused(codec.connect(t.version, t.cid(), tail=b"xx"))
    whole = codec.connect(t.version, t.cid())[2:]
    for cut in (0, 1, 5, 7, 9, len(whole) - 1):
        t.connect_refused(codec.packet(codec.CONNECT, 0, whole[:cut]), (0x81, 0x82, 0x84))


@test(*BOTH)
def connect_header_flags_are_reserved(t):
    """3.1.1 [MQTT-2.2.2-1] [MQTT-2.2.2-2] 5.0 [MQTT-2.1.3-1]: CONNECT's low bits must be 0."""
    for flags in (1, 2, 8, 15):
        t.connect_refused(codec.connect(t.version, t.cid(), header_flags=flags))


@test(*BOTH)
def connack_says_success_first_and_once(t):
    """[MQTT-3.2.0-1] [MQTT-3.1.4-4] [MQTT-3.1.4-5] 5.0 [MQTT-3.2.0-2]: one CONNACK, ahead of all
    else, also when the client sends on without waiting."""
    peer = t.raw()
    topic = t.topic()
    peer.send(codec.connect(t.version, t.cid())
              + codec.subscribe(t.version, 1, [(topic, 0)])
              + codec.publish(t.version, topic, b"early")
              + codec.packet(codec.PINGREQ, 0))
    kinds = []
    while PINGRESP not in kinds or PUBLISH not in kinds:
        kinds.append(peer.next().kind)
    check(kinds[0] == CONNACK, f"first packet is {codec.NAMES[kinds[0]]}")
    check(kinds.count(CONNACK) == 1 and SUBACK in kinds, f"{[codec.NAMES[k] for k in kinds]}")


@test(*BOTH)
def bytes_may_come_one_by_one(t):
    """[MQTT-3.1.4-1] 3.1.1 [MQTT-7.1.1-1] 5.0 [MQTT-7.1.1-1]: a stream has no packet borders."""
    peer = t.raw()
    topic = t.topic()
    raw = (codec.connect(t.version, t.cid()) + codec.subscribe(t.version, 9, [(topic, 1)])
           + codec.publish(t.version, topic, b"drip", 1, pid=5))
    for index in range(len(raw)):
        peer.send(raw[index:index + 1])
    check(peer.next().kind == CONNACK, "no CONNACK")
    peer.expect(SUBACK, 9)
    check(peer.message().payload == b"drip", "wrong payload")


@test(*BOTH)
def refused_connect_is_not_acted_upon(t):
    """3.1.1 [MQTT-3.1.4-5] 5.0 [MQTT-3.1.4-6]: nothing sent behind a refused CONNECT counts."""
    watcher = t.connect("w")
    watcher.subscribed(t.topic("#"), 1)
    for bad in (codec.connect(t.version, t.cid(), level=99),
                codec.connect(t.version, t.cid(), flags=0x03)):
        peer = t.raw(V4)
        peer.send(bad + codec.publish(t.version, t.topic("x"), b"no", 0))
        peer.send(codec.publish(t.version, t.topic("x"), b"no", 0))
        peer.close()
    t.silent(watcher, why="published by a refused client")


@test(*BOTH)
def session_present_follows_the_session(t):
    """[MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]: 0 for new or clean, 1 for a stored session."""
    first = t.connect("s", persistent=True)
    check(not first.connack.session_present, "session present for a new session")
    first.disconnect()
    second = t.connect("s", persistent=True)
    check(second.connack.session_present, "session not present on return")
    second.disconnect()
    third = t.connect("s", clean=True)
    check(not third.connack.session_present, "session present for a clean start")
    third.disconnect()
    fourth = t.connect("s", persistent=True)
    check(not fourth.connack.session_present, "a clean start left the old session")


@test(*BOTH)
def same_client_id_takes_over(t):
    """3.1.1 [MQTT-3.1.4-2] 5.0 [MQTT-3.1.4-3]: the older connection is closed (0x8E)."""
    old = t.connect("same")
    new = t.connect("same")
    said = old.ended()
    if t.v5:
        check(said is None or said.reason == 0x8E, f"{said}, not DISCONNECT 0x8E")
        if said is None:
            t.note("closed without DISCONNECT 0x8e")
    else:
        check(said is None, f"{said} to a 3.1.1 client")
    t.alive(new)


@test(*BOTH)
def takeover_keeps_the_session(t):
    """3.1.1 [MQTT-3.1.4-2] [MQTT-3.1.2-4] 5.0 [MQTT-3.1.4-3] [MQTT-3.1.2-5]: subscriptions live
    on when a persistent session changes its connection."""
    old = t.connect("same", persistent=True)
    old.subscribed(t.topic(), 1)
    new = t.connect("same", persistent=True)
    check(new.connack.session_present, "session lost in a takeover")
    old.ended()
    t.publisher().publish(t.topic(), b"for the new one", 1)
    check(new.message().payload == b"for the new one", "wrong message")


@test(*BOTH)
def pingreq_is_answered(t):
    """[MQTT-3.12.4-1]: PINGRESP for each PINGREQ, in order with other answers."""
    peer = t.connect()
    for _ in range(3):
        t.alive(peer)
    peer.send(codec.packet(codec.PINGREQ, 0) * 3)
    for _ in range(3):
        peer.expect(PINGRESP)


@test(*BOTH)
def disconnect_reserved_bits(t):
    """[MQTT-3.14.1-1]: DISCONNECT with reserved bits set is refused (0x81)."""
    for flags in (1, 2, 4, 8):
        peer = t.connect()
        t.refused(peer, (0x81, 0x82), codec.disconnect(t.version, flags=flags))


@test(*BOTH)
def disconnect_closes_in_silence(t):
    """[MQTT-3.14.4-1] [MQTT-3.14.4-2]: nothing more is sent; the server closes its side."""
    peer = t.connect()
    peer.subscribed(t.topic())
    peer.send(codec.disconnect(t.version))
    said = peer.ended()
    check(said is None and not peer.queue, f"{said or peer.queue} after the client's DISCONNECT")


@test(V5)
def disconnect_forms(t):
    """[MQTT-3.14.2-1] [MQTT-2.2.2-1]: no body, reason alone, reason and properties all work."""
    for raw in (codec.packet(DISCONNECT, 0), codec.packet(DISCONNECT, 0, b"\x00"),
                codec.packet(DISCONNECT, 0, b"\x00\x00"),
                codec.disconnect(V5, 0x04), codec.disconnect(V5, 0x80),
                codec.disconnect(V5, 0x00, [("user_property", ("why", "done")),
                                            ("reason_string", "done")])):
        peer = t.connect()
        peer.send(raw)
        said = peer.ended()
        check(said is None, f"{said} after {raw.hex()}")


@test(V5)
def disconnect_reason_must_be_a_clients(t):
    """[MQTT-3.14.2-1]: reason codes that only a server uses, or nobody, are a protocol error."""
    for reason in (0x01, 0x8E, 0xFF):
        peer = t.connect()
        peer.send(codec.disconnect(V5, reason))
        said = peer.ended()
        check(said is None or said.reason in (0x81, 0x82), f"{said}")


# --- properties of CONNECT (5.0) ---------------------------------------------------------------

@test(V5)
def connect_property_values_out_of_range(t):
    """[MQTT-3.1.4-1] [MQTT-4.13.1-1] 3.1.2.11: zero Receive Maximum or Maximum Packet Size, flags
    other than 0 and 1, authentication data without method."""
    for bad in ([("receive_maximum", 0)], [("maximum_packet_size", 0)],
                [("request_problem_info", 2)], [("request_response_info", 2)],
                [("auth_data", b"x")]):
        t.connect_refused(codec.connect(V5, t.cid(), props=bad), (0x81, 0x82))


@test(V5)
def connect_properties_only_once(t):
    """[MQTT-3.1.4-1] [MQTT-4.13.1-1] 3.1.2.11: each property but User Property at most once."""
    for item in (("session_expiry", 5), ("receive_maximum", 5), ("maximum_packet_size", 5000),
                 ("topic_alias_maximum", 5), ("request_problem_info", 1),
                 ("request_response_info", 1)):
        t.connect_refused(codec.connect(V5, t.cid(), props=[item, item]), (0x81, 0x82))


@test(V5)
def connect_properties_must_belong(t):
    """[MQTT-3.1.4-1] [MQTT-4.13.1-1] 2.2.2.2: properties of other packets, and unknown ones, are
    malformed."""
    for bad in ([("topic_alias", 1)], [("server_keep_alive", 1)], [("maximum_qos", 1)],
                [("will_delay", 1)], [b"\x7f\x00"], [b"\x00"], [("reason_string", "x")]):
        t.connect_refused(codec.connect(V5, t.cid(), props=bad), (0x81, 0x82))


@test(V5)
def will_properties_must_belong(t):
    """[MQTT-3.1.4-1] [MQTT-4.13.1-1] 3.1.3.2: will properties once each, and only its own."""
    for bad in ([("topic_alias", 1)], [("session_expiry", 1)], [("subscription_id", 1)],
                [("will_delay", 1)] * 2, [("content_type", "a")] * 2,
                [("payload_format", 0)] * 2):
        will = Will(t.topic(), props=bad)
        t.connect_refused(codec.connect(V5, t.cid(), will=will), (0x81, 0x82))


@test(V5)
def connect_user_properties_are_accepted(t):
    """[MQTT-1.5.7-1] 3.1.2.11.8: user properties may repeat, also the same name."""
    t.connect(props=[("user_property", ("a", "1")), ("user_property", ("a", "2")),
                     ("user_property", ("", ""))])


@test(V5)
def unknown_authentication_method_is_refused(t):
    """[MQTT-4.12.0-1]: 0x8C or 0x87, then closed."""
    raw = codec.connect(V5, t.cid(), props=[("auth_method", "NO-SUCH-METHOD")])
    t.connect_refused(raw, (0x8C, 0x87))


@test(V5)
def no_authentication_unless_asked(t):
    """[MQTT-4.12.0-6] [MQTT-4.12.0-7]: no method in CONNACK; an AUTH out of the blue is a
    protocol error."""
    peer = t.connect()
    check(peer.connack.prop("auth_method") is None, f"{peer.connack}")
    t.refused(peer, (0x82,), codec.auth(0x19, [("auth_method", "X")]))


@test(V5)
def auth_reserved_bits(t):
    """[MQTT-3.15.1-1]: AUTH with reserved bits set is malformed."""
    peer = t.connect()
    t.refused(peer, (0x81, 0x82), codec.packet(codec.AUTH, 1, b"\x19\x00"))


@test(V5)
def response_information_only_if_asked(t):
    """[MQTT-3.1.2-31]: without a request, or with request 0, CONNACK has no Response
    Information."""
    for props in ([], [("request_response_info", 0)]):
        peer = t.connect(props=props)
        check(peer.connack.prop("response_info") is None, f"{peer.connack}")
        peer.disconnect()
    t.connect(props=[("request_response_info", 1)])


@test(V5)
def connack_announcements_are_sane(t):
    """[MQTT-3.2.2-8] [MQTT-3.2.2-9] 3.2.2.3: announced values are in their ranges."""
    found = t.connect(keep_alive=600).connack
    for name in ("maximum_qos", "retain_available", "wildcard_available",
                 "subscription_ids_available", "shared_available"):
        check(found.prop(name, 0) in (0, 1), f"{name} is {found.prop(name)}")
    for name in ("receive_maximum", "maximum_packet_size"):
        check(found.prop(name, 1) > 0, f"{name} is 0")


# --- keep alive --------------------------------------------------------------------------------

@test(*BOTH, slow=True)
def silent_client_is_cut_off(t):
    """[MQTT-3.1.2-24]: no packet for 1.5 × keep alive ends the connection (0x8D)."""
    peer = t.connect(keep_alive=2)
    announced = peer.connack.prop("server_keep_alive")
    limit = 1.5 * (2 if announced is None else announced)
    started = time.monotonic()
    said = peer.ended(timeout=limit + 3)
    took = time.monotonic() - started
    check(took >= limit / 1.5, f"closed after {took:.1f} s, within the keep alive time")
    check(took <= limit + 1.5, f"closed only after {took:.1f} s")
    if t.v5:
        if said is None:
            t.note("closed without DISCONNECT 0x8d")
        else:
            check(said.reason == 0x8D, f"{said}, not keep alive timeout")


@test(*BOTH, slow=True)
def what_the_server_sends_keeps_nobody_alive(t):
    """[MQTT-3.1.2-24]: only packets *from* the client count."""
    peer = t.connect(keep_alive=1)
    peer.subscribed(t.topic(), 0)
    publisher = t.publisher()
    started = time.monotonic()
    while time.monotonic() - started < 4.5:
        publisher.publish(t.topic(), b"tick")
        try:
            peer.take(lambda _: False, "end", timeout=0.2)
        except Closed:
            check(time.monotonic() - started >= 1, "closed within the keep alive time")
            return
        except Failed:
            continue
    raise Failed("a client that sent nothing was kept for 4.5 s with keep alive 1")


@test(*BOTH, slow=True)
def any_packet_keeps_a_client_alive(t):
    """[MQTT-3.1.2-24]: PINGREQ and PUBLISH both restart the keep alive time."""
    ping, publish = t.connect("ping", keep_alive=1), t.connect("publish", keep_alive=1)
    started = time.monotonic()
    while time.monotonic() - started < 3.5:
        ping.ping()
        publish.publish(t.topic(), b"x", 0)
        try:
            publish.take(lambda _: False, "nothing", timeout=0.5)
        except Closed:
            raise
        except Failed:
            pass
    publish.ping()


@test(*BOTH, slow=True)
def keep_alive_zero_is_off(t):
    """[MQTT-3.1.2-24] 3.1.2.10: with keep alive 0 an idle client stays."""
    peer = t.connect(keep_alive=0)
    try:
        peer.take(lambda _: False, "nothing", timeout=4)
    except Closed:
        raise
    except Failed:
        pass
    t.alive(peer)
