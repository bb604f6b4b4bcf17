"""How tests are declared, what they are given, and how they run.

A test is a function of one `Context`, declared with `@test(versions)`. Its docstring names the
normative statements it is about and says in a line what must be seen. `slow=True` marks a test
that must let the standard's own time pass (keep alive, expiry); all slow tests run side by side.

What is *not* sent cannot be awaited. `Context.drain` stands in for it: a marker is published
behind the message in question and must reach the subscriber; whatever was to come has come by
then, as every server delivers one publisher's messages to one subscriber in order.
"""

import concurrent.futures
import itertools
import os
import threading
import time

from . import codec
from .client import Closed, Failed, Peer, check
from .codec import AUTH, CONNACK, DISCONNECT, V4, V5

BOTH = (V4, V5)
TESTS = []
_numbers = itertools.count(1)


class NotApplicable(Exception):
    """The server announces that it does not offer what the test is about."""


def test(*versions, slow=False):
    """Registers a test for these protocol versions."""
    def register(function):
        assert "MQTT-" in (function.__doc__ or ""), f"{function.__name__} names no statement"
        assert function.__name__ not in {known.__name__ for known, _, _ in TESTS}, \
            f"{function.__name__} twice"
        TESTS.append((function, versions or BOTH, slow))
        return function
    return register


class Context:
    """What one run of one test may use. Names are its own: tests never meet each other."""

    RUN = os.urandom(3).hex()

    def __init__(self, address, version, timeout):
        self.address, self.version, self.timeout = address, version, timeout
        self.number = next(_numbers)
        self.peers, self.notes = [], []
        self._sessions, self._retained = set(), set()
        self._markers = itertools.count(1)

    @property
    def v5(self):
        return self.version == V5

    # -- names ----------------------------------------------------------------------------------

    def topic(self, rest="t"):
        return f"conf/{self.RUN}/{self.number}/{rest}"

    def cid(self, name="a"):
        """A client identifier that every server must take [MQTT-3.1.3-5]."""
        return f"c{self.RUN}n{self.number}{name}"[:23]

    # -- connections ----------------------------------------------------------------------------

    def raw(self, version=None):
        """A TCP connection on which nothing has been sent."""
        peer = Peer(self.address, version or self.version, self.timeout)
        self.peers.append(peer)
        return peer

    def connect(self, name="a", persistent=False, clean=None, expiry=None, props=(), accept=True,
                client_id=None, **options):
        """Connects as client `name`.

        `persistent` asks for a session that outlives the connection, in the version's own way,
        and resumes the one there is unless `clean` says otherwise.
        """
        peer = self.raw()
        client_id = self.cid(name) if client_id is None else client_id
        peer.label = name
        if clean is None:
            clean = not persistent
        props = list(props)
        if self.v5 and persistent and expiry is None:
            expiry = 300
        if expiry is not None:
            props.append(("session_expiry", expiry))
        if persistent or expiry:
            self._sessions.add(client_id)
        found = peer.handshake(codec.connect(self.version, client_id, clean, props=props,
                                             **options))
        if accept:
            check(found.kind == CONNACK and found.reason == 0, f"connection refused: {found}")
            if clean:
                check(not found.session_present, f"{found} for a clean start [MQTT-3.2.2-2]")
        return peer

    def publisher(self):
        """A client of its own that only publishes; made once."""
        for peer in self.peers:
            if peer.label == "publisher" and not peer.eof:
                return peer
        return self.connect("publisher")

    def retained(self, topic):
        """Remembers that a topic may hold a retained message, to clear it in the end."""
        self._retained.add(topic)
        return topic

    # -- expectations ---------------------------------------------------------------------------

    def note(self, text):
        """Something the standard says SHOULD or MAY be different. Fails only under --strict."""
        if text not in self.notes:
            self.notes.append(text)

    def drain(self, subscriber, publisher=None, qos=1):
        """Every message that reaches `subscriber` before a marker published now."""
        marker = f"conf-marker/{self.RUN}/{self.number}/{next(self._markers)}"
        subscriber.subscribed(marker, qos)
        (publisher or self.publisher()).publish(marker, b"marker", qos)
        seen = []
        while True:
            found = subscriber.message()
            if found.topic == marker:
                return seen
            if not found.topic.startswith("conf-marker/"):
                seen.append(found)

    def silent(self, subscriber, publisher=None, why=""):
        """Nothing that was published so far is delivered."""
        seen = self.drain(subscriber, publisher)
        check(not seen, f"{why or 'unexpected message'}: {', '.join(map(str, seen))}")

    def refused(self, peer, reasons=(0x81, 0x82), sent=None):
        """The server closes the connection; if MQTT 5 says why, it must be one of `reasons`.

        That a server says why before closing is a SHOULD (4.13): its absence is a note.
        Before a CONNACK of success no DISCONNECT may be sent [MQTT-3.14.0-1].
        """
        connected = peer.connack is not None
        if sent is not None:
            peer.send(sent)
        said = peer.ended()
        if not self.v5:
            check(said is None or not connected, f"{said} to a connected 3.1.1 client")
            return said
        if said is None:
            self.note(f"closed without {'DISCONNECT' if connected else 'CONNACK'} "
                      f"0x{min(reasons):02x}")
            return None
        check(said.kind == (DISCONNECT if connected else CONNACK),
              f"{said} {'after' if connected else 'before'} a successful CONNACK")
        check(said.reason in reasons,
              f"reason 0x{said.reason:02x}, not {' or '.join(f'0x{r:02x}' for r in reasons)}")
        return said

    def connect_refused(self, raw, reasons=(0x81, 0x82), codes=()):
        """A CONNECT that must not be accepted; `codes` are the 3.1.1 return codes allowed."""
        peer = self.raw()
        peer.send(raw)
        said = peer.ended()
        if self.v5:
            if said is None:
                self.note(f"closed without CONNACK 0x{min(reasons):02x}")
                return
            check(said.kind == CONNACK, f"{said} before CONNACK [MQTT-3.14.0-1]")
            check(said.reason in reasons,
                  f"reason 0x{said.reason:02x}, not {' or '.join(f'0x{r:02x}' for r in reasons)}")
        elif said is not None:
            check(said.reason in codes, f"{said}, not closed in silence [MQTT-3.1.4-1]")
        elif codes:
            raise Failed(f"closed without CONNACK 0x{min(codes):02x}")

    def alive(self, peer):
        """The connection still works."""
        peer.ping()

    # -- the end --------------------------------------------------------------------------------

    def finish(self):
        """Closes everything and takes back what would outlive the test."""
        for peer in self.peers:
            try:
                peer.sock.close()
            except OSError:
                pass
        try:
            for client_id in self._sessions:
                peer = Peer(self.address, self.version, 2)
                peer.handshake(codec.connect(self.version, client_id, True))
                peer.send(codec.disconnect(self.version))
                peer.sock.close()
            if self._retained:
                peer = Peer(self.address, self.version, 2)
                peer.handshake(codec.connect(self.version, self.cid("z"), True))
                for topic in self._retained:
                    peer.publish(topic, b"", 1, retain=True)
                peer.send(codec.disconnect(self.version))
                peer.sock.close()
        except (OSError, Failed, codec.Malformed):
            pass


class Result:
    def __init__(self, function, version, outcome, detail, notes, transcript, seconds):
        self.name = function.__name__
        self.statement = " ".join(function.__doc__.split())
        self.version = "5" if version == V5 else "3.1.1"
        self.outcome, self.detail, self.notes = outcome, detail, notes
        self.transcript, self.seconds = transcript, seconds

    def as_dict(self):
        return {"test": self.name, "version": self.version, "outcome": self.outcome,
                "detail": self.detail, "notes": self.notes, "statement": self.statement,
                "seconds": round(self.seconds, 3), "transcript": self.transcript}


def _transcript(context):
    """The last bytes of each connection, for a failure's report."""
    lines = []
    for number, peer in enumerate(context.peers, 1):
        for direction, raw in peer.transcript[-8:]:
            text = raw.decode() if raw[:1] == b"(" else raw[:96].hex(" ")
            more = f" … ({len(raw)} bytes)" if len(raw) > 96 else ""
            lines.append(f"{peer.label or number} {direction} {text}{more}")
    return lines


def run_one(function, version, address, timeout, strict):
    context = Context(address, version, timeout)
    started = time.monotonic()
    outcome, detail = "ok", ""
    try:
        function(context)
        if strict and context.notes:
            raise Failed("; ".join(context.notes))
    except NotApplicable as error:
        outcome, detail = "n/a", str(error)
    except (Failed, codec.Malformed) as error:
        outcome, detail = "FAIL", str(error) or type(error).__name__
    except OSError as error:
        outcome, detail = "FAIL", f"{type(error).__name__}: {error}"
    except Exception as error:  # a bug of the suite must not hide the other results
        outcome, detail = "FAIL", f"in the test itself: {type(error).__name__}: {error}"
    transcript = _transcript(context) if outcome == "FAIL" else []
    seconds = time.monotonic() - started
    context.finish()
    return Result(function, version, outcome, detail, context.notes, transcript, seconds)


def run(address, versions, pattern, timeout, strict, jobs, report):
    """Runs the tests whose name or docstring contains `pattern`; calls `report` for each."""
    chosen = [(function, version, slow)
              for function, wanted, slow in TESTS for version in wanted
              if version in versions
              and pattern.lower() in f"{function.__name__} {function.__doc__}".lower()]
    lock = threading.Lock()

    def work(function, version):
        result = run_one(function, version, address, timeout, strict)
        with lock:
            report(result)

    slow = [item for item in chosen if item[2]]
    quick = [item for item in chosen if not item[2]]
    with concurrent.futures.ThreadPoolExecutor(max(1, len(slow)) + jobs) as pool:
        slow_futures = [pool.submit(work, f, v) for f, v, _ in slow]
        with concurrent.futures.ThreadPoolExecutor(jobs) as quick_pool:
            quick_futures = [quick_pool.submit(work, f, v) for f, v, _ in quick]
        for future in slow_futures + quick_futures:
            future.result()


__all__ = ["BOTH", "V4", "V5", "AUTH", "Closed", "Context", "Failed", "NotApplicable", "check",
           "run", "test"]
