"""Packets that break the format (2.1, 2.2, 4.8 of 3.1.1, 4.13 of 5.0)."""

from . import codec
from .client import check
from .codec import (AUTH, CONNACK, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC,
                    PUBREL, SUBACK, UNSUBACK, UNSUBSCRIBE, V4, V5)
from .suite import BOTH, test


def closes(t, raw, reasons=(0x81, 0x82)):
    """A connected client that sends this is cut off, and nobody else is."""
    peer = t.connect()
    t.refused(peer, reasons, raw)


@test(*BOTH)
def remaining_length_of_five_bytes(t):
    """3.1.1 2.2.3 [MQTT-4.8.0-1] 5.0 1.5.5 [MQTT-4.13.1-1]: at most four bytes, before and after
    CONNECT."""
    for raw in (b"\x30\xff\xff\xff\xff\x7f", b"\xc0\x80\x80\x80\x80\x00",
                b"\x10\x80\x80\x80\x80\x01"):
        closes(t, raw + b"\x00" * 20, (0x81, 0x82, 0x95))
        peer = t.raw()
        peer.send(raw + b"\x00" * 20)
        said = peer.ended()
        check(said is None or t.v5 or said.reason, f"{said}")


@test(V5)
def lengths_use_the_fewest_bytes(t):
    """[MQTT-1.5.5-1]: a longer encoding than needed is malformed."""
    closes(t, b"\xc0\x80\x00")
    topic = codec.binary(t.topic())
    closes(t, codec.packet(PUBLISH, 0, topic + b"\x80\x00" + b"x"))


@test(*BOTH)
def packet_types_zero_and_fifteen(t):
    """3.1.1 2.2.1 [MQTT-4.8.0-1] 5.0 2.1.2 [MQTT-4.13.1-1] [MQTT-4.12.0-7]: reserved types."""
    closes(t, b"\x00\x00")
    closes(t, b"\x0f\x02\x00\x00")
    closes(t, b"\xf0\x00")


@test(*BOTH)
def packets_that_only_a_server_sends(t):
    """3.1.1 2.2.1 [MQTT-4.8.0-1] 5.0 2.1.2 [MQTT-4.13.1-1]: CONNACK, SUBACK, UNSUBACK and PINGRESP
    from a client are errors."""
    tail = b"\x00" if t.v5 else b""
    closes(t, codec.packet(CONNACK, 0, b"\x00\x00" + tail))
    closes(t, codec.packet(SUBACK, 0, b"\x00\x01" + tail + b"\x00"))
    closes(t, codec.packet(UNSUBACK, 0, b"\x00\x01" + (b"\x00\x00" if t.v5 else b"")))
    closes(t, codec.packet(PINGRESP, 0))


@test(*BOTH)
def reserved_header_bits(t):
    """3.1.1 [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] 5.0 [MQTT-2.1.3-1] [MQTT-3.6.1-1]: in
    acknowledgements, PINGREQ and DISCONNECT."""
    for kind, right in ((PUBACK, 0), (PUBREC, 0), (PUBREL, 2), (PUBCOMP, 0)):
        for flags in (right ^ 1, right ^ 2, right ^ 8):
            closes(t, codec.ack(t.version, kind, 1, flags=flags))
    for flags in (1, 2, 4, 8):
        closes(t, codec.packet(PINGREQ, flags))


@test(*BOTH)
def truncated_packets(t):
    """3.1.1 [MQTT-4.8.0-1] 5.0 [MQTT-4.13.1-1]: a remaining length that cuts a field."""
    closes(t, codec.packet(PUBLISH, 0))
    closes(t, codec.packet(PUBLISH, 0, b"\x00"))
    closes(t, codec.packet(PUBLISH, 0, b"\x00\x09abc"))
    closes(t, codec.packet(PUBLISH, 2, b"\x00\x03abc"))
    closes(t, codec.packet(PUBLISH, 2, b"\x00\x03abc\x01"))
    if t.v5:
        closes(t, codec.packet(PUBLISH, 2, b"\x00\x03abc\x00\x01"))
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        for body in (b"", b"\x00"):
            closes(t, codec.packet(kind, 2 if kind == PUBREL else 0, body))
    for body in (b"", b"\x00", b"\x00\x01", b"\x00\x01\x00", b"\x00\x01\x00\x05abc"):
        closes(t, codec.packet(UNSUBSCRIBE, 2, body))


@test(V4)
def bytes_too_many(t):
    """[MQTT-4.8.0-1] 3.4 to 3.7, 3.12, 3.14: packets of a fixed length have just that."""
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        closes(t, codec.packet(kind, 2 if kind == PUBREL else 0, b"\x00\x01\x00"))
    closes(t, codec.packet(PINGREQ, 0, b"\x00"))
    closes(t, codec.packet(DISCONNECT, 0, b"\x00"))


@test(V5)
def bytes_too_many_5(t):
    """[MQTT-4.13.1-1] 3.4 to 3.7, 3.12, 3.14: nothing follows the properties."""
    for kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        closes(t, codec.packet(kind, 2 if kind == PUBREL else 0, b"\x00\x01\x00\x00\x00"))
    closes(t, codec.packet(PINGREQ, 0, b"\x00"))
    closes(t, codec.packet(DISCONNECT, 0, b"\x00\x00\x00"))


@test(*BOTH)
def filter_longer_than_its_packet(t):
    """3.1.1 [MQTT-4.8.0-1] 5.0 [MQTT-4.13.1-1]: string lengths beyond the packet, in CONNECT too."""
    closes(t, codec.packet(codec.SUBSCRIBE, 2,
                           b"\x00\x01" + (b"\x00" if t.v5 else b"") + b"\xff\xffabc\x00"))
    head = codec.binary("MQTT") + bytes([t.version, 2]) + b"\x00\x3c" + (b"\x00" if t.v5 else b"")
    t.connect_refused(codec.packet(codec.CONNECT, 0, head + b"\xff\xffabc"), (0x81, 0x82, 0x85))


@test(*BOTH)
def packet_in_pieces(t):
    """[MQTT-3.3.4-1] 3.1.1 [MQTT-7.1.1-1] 5.0 [MQTT-7.1.1-1]: packets cut and glued by the network
    are read alike."""
    peer = t.connect()
    peer.subscribed(t.topic(), 1)
    raw = b"".join(codec.publish(t.version, t.topic(), b"%d" % n, 1, pid=n) for n in range(1, 31))
    for start in range(0, len(raw), 13):
        peer.send(raw[start:start + 13])
    for number in range(1, 31):
        check(int(peer.message().payload) == number, "wrong message")
        peer.expect(PUBACK, number)


@test(*BOTH)
def half_a_packet_is_no_packet(t):
    """3.1.1 [MQTT-3.1.2-8] 5.0 [MQTT-3.1.2-8]: a PUBLISH cut off by the end of the connection is
    not published; the will is."""
    watch = t.connect("w")
    watch.subscribed(t.topic("#"), 1)
    peer = t.connect("p", will=codec.Will(t.topic("will"), b"will", 1))
    peer.send(codec.publish(t.version, t.topic("x"), b"whole payload", 1, pid=1)[:-4])
    peer.close()
    found = watch.message()
    check(found.topic == t.topic("will"), f"{found}")
    t.silent(watch)
