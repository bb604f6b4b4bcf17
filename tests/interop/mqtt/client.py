"""One connection to the server under test.

Nothing here sleeps: every wait is on the socket and ends at a deadline. Packets that arrive while
something else is awaited are kept in order and found by the next wait, because a server may send
a PUBLISH at any moment, even ahead of the SUBACK.
"""

import socket
import struct
import time

from . import codec
from .codec import (AUTH, CONNACK, DISCONNECT, NAMES, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC,
                    PUBREL, SUBACK, UNSUBACK, V5)


class Failed(AssertionError):
    """A test's expectation did not hold."""


class Closed(Failed):
    """The server closed the connection while something was awaited."""


def check(condition, message):
    if not condition:
        raise Failed(message)


class Peer:
    """A TCP connection that speaks MQTT `version` and remembers every byte."""

    def __init__(self, address, version, timeout, label=""):
        self.version, self.timeout, self.label = version, timeout, label
        self.sock = socket.create_connection(address, timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()
        self.queue = []          # packets received and not yet asked for
        self.transcript = []     # ("->" or "<-", bytes)
        self.eof = False
        self.connack = None
        self.last_pid = 0
        self.aliases = {}

    # -- bytes ----------------------------------------------------------------------------------

    def send(self, raw):
        """Sends bytes; that the server has already closed is found by the next wait."""
        self.transcript.append(("->", bytes(raw)))
        try:
            self.sock.settimeout(self.timeout)
            self.sock.sendall(raw)
        except TimeoutError as error:
            raise Failed(f"the server stopped reading: {len(raw)} bytes unsent") from error
        except OSError:
            pass

    def drop(self):
        """Ends the connection as a crash does: no DISCONNECT, reset."""
        self.transcript.append(("->", b"(reset)"))
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.sock.close()

    def close(self):
        """Ends the connection by FIN, without DISCONNECT."""
        self.transcript.append(("->", b"(close)"))
        self.sock.close()

    def _receive(self, deadline):
        """One packet off the wire; None at the deadline; raises Closed at the end."""
        while True:
            raw = codec.split(self.buffer)
            if raw is not None:
                self.transcript.append(("<-", raw))
                return codec.parse(self.version, raw)
            if self.eof:
                raise Closed("the server closed the connection")
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                chunk = self.sock.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                chunk = b""
            if not chunk:
                self.transcript.append(("<-", b"(closed)"))
                self.eof = True
            self.buffer += chunk

    # -- packets --------------------------------------------------------------------------------

    def take(self, want, what, timeout=None):
        """The first packet, kept or coming, for which `want(packet)` holds."""
        for index, found in enumerate(self.queue):
            if want(found):
                return self.queue.pop(index)
        deadline = time.monotonic() + (timeout or self.timeout)
        while True:
            try:
                found = self._receive(deadline)
            except Closed as error:
                last = f" after {self.queue[-1]}" if self.queue else ""
                raise Closed(f"closed{last}, waiting for {what}") from error
            if found is None:
                kept = f"; had {', '.join(map(str, self.queue[:3]))}" if self.queue else ""
                raise Failed(f"no {what} within {timeout or self.timeout} s{kept}")
            if want(found):
                return found
            self.queue.append(found)

    def next(self, timeout=None):
        """The very next packet, whatever it is."""
        return self.take(lambda _: True, "packet", timeout)

    def expect(self, kind, pid=None, timeout=None):
        """The next packet of a kind (and packet identifier)."""
        return self.take(lambda p: p.kind == kind and (pid is None or p.pid == pid),
                         NAMES[kind] + (f" {pid}" if pid is not None else ""), timeout)

    def ended(self, timeout=None):
        """Waits for the server to close; returns its DISCONNECT or CONNACK, or None."""
        said = None
        deadline = time.monotonic() + (timeout or self.timeout)
        while True:
            try:
                found = self._receive(deadline)
            except Closed:
                return said
            if found is None:
                raise Failed(f"the server did not close the connection within "
                             f"{timeout or self.timeout} s"
                             + (f", after {said}" if said else ""))
            check(said is None or said.kind != DISCONNECT,
                  f"{found} after DISCONNECT [MQTT-3.14.4-1]")
            if found.kind in (DISCONNECT, CONNACK):
                said = found
            else:
                self.queue.append(found)

    def pid(self):
        self.last_pid = self.last_pid % 65535 + 1
        return self.last_pid

    # -- exchanges ------------------------------------------------------------------------------

    def handshake(self, raw):
        """Sends a CONNECT and returns the CONNACK, which must come first."""
        self.send(raw)
        found = self.next()
        check(found.kind in (CONNACK, AUTH), f"{found} before CONNACK [MQTT-3.2.0-1]")
        self.connack = found
        return found

    def subscribe(self, *filters, props=None):
        """Subscribes; a filter is `(filter, options)`. Returns the SUBACK."""
        pid = self.pid()
        self.send(codec.subscribe(self.version, pid, filters, props))
        found = self.expect(SUBACK)
        check(found.pid == pid, f"SUBACK {found.pid} for SUBSCRIBE {pid} [MQTT-3.8.4-2]")
        check(len(found.reasons) == len(filters),
              f"{len(found.reasons)} reason codes for {len(filters)} filters [MQTT-3.8.4-6]")
        return found

    def subscribed(self, filter_, qos=0, props=None, **opts):
        """Subscribes to one filter and insists on the QoS asked for."""
        found = self.subscribe((filter_, codec.options(qos, **opts)), props=props)
        check(found.reasons[0] == qos, f"{found} for {filter_!r} at QoS {qos}")
        return found

    def unsubscribe(self, *filters, props=None):
        pid = self.pid()
        self.send(codec.unsubscribe(self.version, pid, filters, props))
        found = self.expect(UNSUBACK)
        check(found.pid == pid, f"UNSUBACK {found.pid} for UNSUBSCRIBE {pid} [MQTT-3.10.4-5]")
        if self.version == V5:
            check(len(found.reasons) == len(filters), f"{found} for {len(filters)} filters")
        return found

    def publish(self, topic, payload=b"", qos=0, retain=False, dup=False, props=None, pid=None):
        """Publishes and completes the exchange; returns the PUBACK or PUBREC."""
        pid = pid or (self.pid() if qos else None)
        self.send(codec.publish(self.version, topic, payload, qos, retain, dup, pid, props))
        if qos == 0:
            return None
        answer = self.expect(PUBACK if qos == 1 else PUBREC, pid)
        if qos == 2 and answer.reason < 0x80:
            self.release(pid)
        return answer

    def release(self, pid):
        self.send(codec.ack(self.version, PUBREL, pid))
        return self.expect(PUBCOMP, pid)

    def message(self, timeout=None, answer=True):
        """The next PUBLISH, acknowledged in full unless told not to."""
        found = self.expect(PUBLISH, timeout=timeout)
        self._resolve(found)
        if answer:
            self.answer(found)
        return found

    def _resolve(self, found):
        """Fills in the topic that an alias stands for."""
        alias = found.prop("topic_alias")
        if alias is None:
            return
        if found.topic:
            self.aliases[alias] = found.topic
        else:
            check(alias in self.aliases, f"topic alias {alias} was never set: {found}")
            found.topic = self.aliases[alias]

    def answer(self, found):
        """Completes the receiver's side of QoS 1 or 2."""
        if found.qos == 1:
            self.send(codec.ack(self.version, PUBACK, found.pid))
        elif found.qos == 2:
            self.send(codec.ack(self.version, PUBREC, found.pid))
            self.expect(PUBREL, found.pid)
            self.send(codec.ack(self.version, PUBCOMP, found.pid))

    def ping(self):
        self.send(codec.packet(codec.PINGREQ, 0))
        return self.expect(PINGRESP)

    def disconnect(self, reason=None, props=None):
        """DISCONNECT, then the end of the connection. Waits until the server has seen it."""
        self.send(codec.disconnect(self.version, reason, props))
        try:
            self.sock.shutdown(socket.SHUT_WR)
            self.ended()
        except (OSError, Failed, codec.Malformed):
            pass
        self.sock.close()
