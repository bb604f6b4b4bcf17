"""Bytes of MQTT 3.1.1 (level 4) and 5.0 (level 5) control packets.

Reading is strict: whatever a server sends must be well-formed by the standard, or `Malformed` is
raised, so that every test is also a test of every packet it receives. Writing is lax: strings may
be raw bytes, properties may be raw bytes, flags and lengths may be overridden, because half of a
conformance suite is sending what must be refused.
"""

from dataclasses import dataclass, field

V4, V5 = 4, 5

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 1, 2, 3, 4, 5, 6, 7
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT, AUTH = 12, 13, 14, 15
WILL = "will"  # not a packet: the place of a will's properties inside CONNECT

NAMES = {
    CONNECT: "CONNECT", CONNACK: "CONNACK", PUBLISH: "PUBLISH", PUBACK: "PUBACK",
    PUBREC: "PUBREC", PUBREL: "PUBREL", PUBCOMP: "PUBCOMP", SUBSCRIBE: "SUBSCRIBE",
    SUBACK: "SUBACK", UNSUBSCRIBE: "UNSUBSCRIBE", UNSUBACK: "UNSUBACK", PINGREQ: "PINGREQ",
    PINGRESP: "PINGRESP", DISCONNECT: "DISCONNECT", AUTH: "AUTH",
}

_ACKS = (PUBACK, PUBREC, PUBREL, PUBCOMP)
_EVERYWHERE = (CONNECT, CONNACK, PUBLISH, WILL, *_ACKS, SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK,
               DISCONNECT, AUTH)

# name: (identifier, type, packets that may carry it), table 2-4 of MQTT 5.0
PROPERTIES = {
    "payload_format": (0x01, "byte", (PUBLISH, WILL)),
    "message_expiry": (0x02, "u32", (PUBLISH, WILL)),
    "content_type": (0x03, "str", (PUBLISH, WILL)),
    "response_topic": (0x08, "str", (PUBLISH, WILL)),
    "correlation_data": (0x09, "bin", (PUBLISH, WILL)),
    "subscription_id": (0x0B, "vbi", (PUBLISH, SUBSCRIBE)),
    "session_expiry": (0x11, "u32", (CONNECT, CONNACK, DISCONNECT)),
    "assigned_client_id": (0x12, "str", (CONNACK,)),
    "server_keep_alive": (0x13, "u16", (CONNACK,)),
    "auth_method": (0x15, "str", (CONNECT, CONNACK, AUTH)),
    "auth_data": (0x16, "bin", (CONNECT, CONNACK, AUTH)),
    "request_problem_info": (0x17, "byte", (CONNECT,)),
    "will_delay": (0x18, "u32", (WILL,)),
    "request_response_info": (0x19, "byte", (CONNECT,)),
    "response_info": (0x1A, "str", (CONNACK,)),
    "server_reference": (0x1C, "str", (CONNACK, DISCONNECT)),
    "reason_string": (0x1F, "str", (CONNACK, *_ACKS, SUBACK, UNSUBACK, DISCONNECT, AUTH)),
    "receive_maximum": (0x21, "u16", (CONNECT, CONNACK)),
    "topic_alias_maximum": (0x22, "u16", (CONNECT, CONNACK)),
    "topic_alias": (0x23, "u16", (PUBLISH,)),
    "maximum_qos": (0x24, "byte", (CONNACK,)),
    "retain_available": (0x25, "byte", (CONNACK,)),
    "user_property": (0x26, "pair", _EVERYWHERE),
    "maximum_packet_size": (0x27, "u32", (CONNECT, CONNACK)),
    "wildcard_available": (0x28, "byte", (CONNACK,)),
    "subscription_ids_available": (0x29, "byte", (CONNACK,)),
    "shared_available": (0x2A, "byte", (CONNACK,)),
}
_BY_ID = {ident: (name, kind, where) for name, (ident, kind, where) in PROPERTIES.items()}

# Reason codes a server may use in each packet, section 2.4 of MQTT 5.0.
SERVER_REASONS = {
    CONNACK: {0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
              0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F},
    PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREL: {0x00, 0x92},
    PUBCOMP: {0x00, 0x92},
    SUBACK: {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    UNSUBACK: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    DISCONNECT: {0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
                 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0,
                 0xA1, 0xA2},
    AUTH: {0x00, 0x18},
}


class Malformed(Exception):
    """The server sent bytes that the standard does not allow."""


# --- writing -----------------------------------------------------------------------------------

def u16(value):
    return value.to_bytes(2, "big")


def u32(value):
    return value.to_bytes(4, "big")


def vbi(value):
    """Variable byte integer, as short as it can be."""
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def binary(value):
    """Length-prefixed bytes; text is encoded, bytes are taken as they are."""
    raw = value.encode() if isinstance(value, str) else bytes(value)
    return u16(len(raw)) + raw


def one_property(name, value):
    ident, kind, _ = PROPERTIES[name]
    encoded = {
        "byte": lambda: bytes([value]),
        "u16": lambda: u16(value),
        "u32": lambda: u32(value),
        "vbi": lambda: vbi(value),
        "str": lambda: binary(value),
        "bin": lambda: binary(value),
        "pair": lambda: binary(value[0]) + binary(value[1]),
    }[kind]()
    return bytes([ident]) + encoded


def properties(props):
    """Property length and properties; an item is `(name, value)` or raw bytes."""
    body = b"".join(p if isinstance(p, bytes) else one_property(*p) for p in props or ())
    return vbi(len(body)) + body


def packet(kind, flags, body=b"", length=None):
    """A packet with any header; `length` overrides the remaining length, raw bytes if bytes."""
    if length is None:
        length = len(body)
    encoded = length if isinstance(length, bytes) else vbi(length)
    return bytes([kind << 4 | flags]) + encoded + body


@dataclass
class Will:
    topic: object
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    props: list = field(default_factory=list)


def connect(version, client_id, clean=True, keep_alive=60, will=None, username=None,
            password=None, props=None, name="MQTT", level=None, flags=None, tail=b"",
            header_flags=0):
    """CONNECT; `flags` overrides the connect flags, `tail` is put behind the payload."""
    bits = 0
    payload = binary(client_id)
    if clean:
        bits |= 0x02
    if will:
        bits |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
        if version == V5:
            payload += properties(will.props)
        payload += binary(will.topic) + binary(will.payload)
    if username is not None:
        bits |= 0x80
        payload += binary(username)
    if password is not None:
        bits |= 0x40
        payload += binary(password)
    head = binary(name) + bytes([version if level is None else level])
    head += bytes([bits if flags is None else flags]) + u16(keep_alive)
    if version == V5:
        head += properties(props)
    return packet(CONNECT, header_flags, head + payload + tail)


def publish(version, topic, payload=b"", qos=0, retain=False, dup=False, pid=None, props=None):
    """PUBLISH; the packet identifier is written if `pid` is given, whatever the QoS."""
    head = binary(topic)
    if pid is not None:
        head += u16(pid)
    if version == V5:
        head += properties(props)
    raw = payload.encode() if isinstance(payload, str) else bytes(payload)
    return packet(PUBLISH, (8 if dup else 0) | qos << 1 | (1 if retain else 0), head + raw)


def ack(version, kind, pid, reason=None, props=None, flags=None):
    """PUBACK, PUBREC, PUBREL or PUBCOMP; the short form unless a reason is given."""
    body = u16(pid)
    if version == V5 and reason is not None:
        body += bytes([reason])
        if props is not None:
            body += properties(props)
    return packet(kind, (2 if kind == PUBREL else 0) if flags is None else flags, body)


def subscribe(version, pid, filters, props=None, flags=2):
    """SUBSCRIBE; `filters` is a list of `(filter, options byte)`."""
    body = u16(pid)
    if version == V5:
        body += properties(props)
    body += b"".join(binary(f) + bytes([options]) for f, options in filters)
    return packet(SUBSCRIBE, flags, body)


def unsubscribe(version, pid, filters, props=None, flags=2):
    body = u16(pid)
    if version == V5:
        body += properties(props)
    return packet(UNSUBSCRIBE, flags, body + b"".join(binary(f) for f in filters))


def disconnect(version, reason=None, props=None, flags=0):
    if version == V5 and (reason is not None or props is not None):
        body = bytes([reason or 0])
        if props is not None:
            body += properties(props)
        return packet(DISCONNECT, flags, body)
    return packet(DISCONNECT, flags)


def auth(reason=0x19, props=None):
    return packet(AUTH, 0, bytes([reason]) + properties(props))


def options(qos=0, no_local=False, retain_as_published=False, retain_handling=0):
    """Subscription options byte of MQTT 5.0; with only a QoS it is also that of 3.1.1."""
    return qos | (4 if no_local else 0) | (8 if retain_as_published else 0) | retain_handling << 4


# --- reading -----------------------------------------------------------------------------------

@dataclass
class Packet:
    kind: int
    flags: int
    raw: bytes
    pid: int = 0
    reason: int = 0
    reasons: tuple = ()
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    props: list = field(default_factory=list)

    @property
    def qos(self):
        return self.flags >> 1 & 3

    @property
    def dup(self):
        return bool(self.flags & 8)

    @property
    def retain(self):
        return bool(self.flags & 1)

    def prop(self, name, default=None):
        """The first value of a property."""
        return next((value for key, value in self.props if key == name), default)

    def all(self, name):
        return [value for key, value in self.props if key == name]

    def __str__(self):
        name = NAMES.get(self.kind, f"type {self.kind}")
        if self.kind == PUBLISH:
            return (f"PUBLISH({self.topic!r}, qos {self.qos}, dup {self.dup:d}, "
                    f"retain {self.retain:d}, pid {self.pid}, {self.payload[:32]!r}, {self.props})")
        if self.kind == CONNACK:
            return f"CONNACK(0x{self.reason:02x}, session {self.session_present:d}, {self.props})"
        if self.reasons:
            return f"{name}(pid {self.pid}, {[hex(r) for r in self.reasons]}, {self.props})"
        return f"{name}(pid {self.pid}, 0x{self.reason:02x}, {self.props})"


class _Reader:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def left(self):
        return len(self.raw) - self.at

    def take(self, count):
        if self.left() < count:
            raise Malformed(f"packet ends {count - self.left()} bytes early: {self.raw.hex()}")
        self.at += count
        return self.raw[self.at - count:self.at]

    def byte(self):
        return self.take(1)[0]

    def number(self, width):
        return int.from_bytes(self.take(width), "big")

    def binary(self):
        return self.take(self.number(2))

    def text(self):
        raw = self.binary()
        try:
            value = raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"ill-formed UTF-8 [MQTT-1.5.4-1]: {raw.hex()}") from error
        if "\0" in value:
            raise Malformed(f"null character in a string [MQTT-1.5.4-2]: {raw.hex()}")
        return value

    def vbi(self):
        value = shift = 0
        while True:
            digit = self.byte()
            value |= (digit & 0x7F) << shift
            if not digit & 0x80:
                break
            shift += 7
            if shift > 21:
                raise Malformed("variable byte integer of more than four bytes")
        if shift and digit == 0:
            raise Malformed("variable byte integer longer than needed [MQTT-1.5.5-1]")
        return value

    def properties(self, where):
        end = self.vbi()
        if end > self.left():
            raise Malformed("property length beyond the packet")
        end += self.at
        found = []
        while self.at < end:
            ident = self.vbi()
            if ident not in _BY_ID:
                raise Malformed(f"unknown property 0x{ident:02x}")
            name, kind, allowed = _BY_ID[ident]
            if where not in allowed:
                raise Malformed(f"property {name} is not allowed in {NAMES[where]}")
            value = {
                "byte": self.byte,
                "u16": lambda: self.number(2),
                "u32": lambda: self.number(4),
                "vbi": self.vbi,
                "str": self.text,
                "bin": self.binary,
                "pair": lambda: (self.text(), self.text()),
            }[kind]()
            repeatable = name == "user_property" or (name == "subscription_id" and where == PUBLISH)
            if not repeatable and any(key == name for key, _ in found):
                raise Malformed(f"property {name} twice")
            found.append((name, value))
        if self.at != end:
            raise Malformed("property length cuts a property")
        return found


def split(buffer):
    """Takes one whole packet off the front of a `bytearray`: its bytes, or None."""
    length = shift = 0
    for index in range(1, 5):
        if index >= len(buffer):
            return None
        digit = buffer[index]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            if index > 1 and digit == 0:
                raise Malformed("remaining length longer than needed [MQTT-1.5.5-1]")
            end = index + 1 + length
            if len(buffer) < end:
                return None
            raw = bytes(buffer[:end])
            del buffer[:end]
            return raw
    raise Malformed("remaining length of more than four bytes")


def parse(version, raw):
    """Reads a packet that a server sent."""
    kind, flags = raw[0] >> 4, raw[0] & 15
    head = 1
    while raw[head] & 0x80:
        head += 1
    r = _Reader(raw[head + 1:])
    found = Packet(kind, flags, raw)
    if kind not in NAMES or kind in (CONNECT, SUBSCRIBE, UNSUBSCRIBE, PINGREQ):
        raise Malformed(f"a server never sends packet type {kind}")
    if kind == AUTH and version != V5 or kind == DISCONNECT and version != V5:
        raise Malformed(f"a 3.1.1 server never sends {NAMES[kind]}")
    if kind != PUBLISH and flags != (2 if kind == PUBREL else 0):
        raise Malformed(f"reserved flags {flags:04b} in {NAMES[kind]} [MQTT-2.1.3-1]")

    if kind == CONNACK:
        bits = r.byte()
        if bits & 0xFE:
            raise Malformed(f"reserved connect acknowledge flags 0x{bits:02x} [MQTT-3.2.2-1]")
        found.session_present = bool(bits)
        found.reason = r.byte()
        if version == V5:
            found.props = r.properties(CONNACK)
        elif found.reason > 5:
            raise Malformed(f"reserved connect return code {found.reason}")
        if found.reason and found.session_present:
            raise Malformed("session present with a refusal [MQTT-3.2.2-6]")
    elif kind == PUBLISH:
        if found.qos == 3:
            raise Malformed("QoS 3 [MQTT-3.3.1-4]")
        if found.qos == 0 and found.dup:
            raise Malformed("DUP with QoS 0 [MQTT-3.3.1-2]")
        found.topic = r.text()
        if "+" in found.topic or "#" in found.topic:
            raise Malformed(f"wildcard in a topic name [MQTT-3.3.2-2]: {found.topic}")
        if found.qos:
            found.pid = r.number(2)
            if not found.pid:
                raise Malformed("packet identifier 0 [MQTT-2.2.1-4]")
        if version == V5:
            found.props = r.properties(PUBLISH)
            if found.prop("topic_alias") == 0:
                raise Malformed("topic alias 0 [MQTT-3.3.2-8]")
            if 0 in found.all("subscription_id"):
                raise Malformed("subscription identifier 0")
        if not found.topic and found.prop("topic_alias") is None:
            raise Malformed("empty topic name without an alias [MQTT-4.7.3-1]")
        found.payload = r.take(r.left())
    elif kind in _ACKS:
        found.pid = r.number(2)
        if not found.pid:
            raise Malformed(f"packet identifier 0 in {NAMES[kind]}")
        if version == V5 and r.left():
            found.reason = r.byte()
            if r.left():
                found.props = r.properties(kind)
    elif kind in (SUBACK, UNSUBACK):
        found.pid = r.number(2)
        if version == V5:
            found.props = r.properties(kind)
        found.reasons = tuple(r.take(r.left()))
        if version == V4 and kind == UNSUBACK and found.reasons:
            raise Malformed("a 3.1.1 UNSUBACK has no payload")
        if version == V4 and not set(found.reasons) <= {0, 1, 2, 0x80}:
            raise Malformed(f"reserved SUBACK return code in {found.reasons} [MQTT-3.9.3-2]")
    elif kind in (DISCONNECT, AUTH):
        if r.left():
            found.reason = r.byte()
            if r.left():
                found.props = r.properties(kind)
        if kind == DISCONNECT and found.prop("session_expiry") is not None:
            raise Malformed("session expiry in a server's DISCONNECT [MQTT-3.14.2-2]")
    if r.left():
        raise Malformed(f"{r.left()} bytes too many in {NAMES[kind]}: {raw.hex()}")
    if version == V5 and kind in SERVER_REASONS:
        for reason in found.reasons or (found.reason,):
            if reason not in SERVER_REASONS[kind]:
                raise Malformed(f"reason 0x{reason:02x} is not one of {NAMES[kind]}")
    return found
