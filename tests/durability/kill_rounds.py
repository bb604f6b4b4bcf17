#!/usr/bin/env python3
"""kill -9 at full load: is every acknowledged reading there, and none twice?

    kill_rounds.py --rounds 100 [--seed S] [--program target/release/edgetwin] [--nodes 6]

A round: start on the state of the round before; look; send again, with DUP, what was not
acknowledged; publish on at full load (QoS 1, 64 in flight on each connection, both versions of
MQTT); kill -9 at a random moment. Now and then the kill comes while the server is still starting,
and now and then a node reboots (new `boot`, `seq` from 1).

The nodes' n-th reading carries `temperature: n`, and a twin without services gains one revision
with each reading that is applied. So the twin itself says which readings were applied:

    revision - revision at creation == temperature     each of 1..n once, none left out
    temperature >= the highest acknowledged n          nothing acknowledged was lost
    temperature <= the highest n ever sent             nothing was invented

Ends with `N passed, N failed` (rounds); exits 1 if any failed. A failure prints the command that
repeats the run, and the state is kept.
"""

import argparse
import collections
import http.client
import json
import random
import selectors
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[1] / "interop")]

from edgetwin import NotStarted, Server, binary  # noqa: E402
from mqtt import codec  # noqa: E402

WINDOW = 64
WAIT_S = 20


class Broken(Exception):
    """A promise did not hold."""


class Node:
    """A node's memory, which outlives the server: what it sent and what was acknowledged."""

    def __init__(self, number):
        self.number = number
        self.name = f"node-{number}"
        self.version = codec.V5 if number % 2 else codec.V4
        self.topic = f"et/v1/lab/{self.name}/data".encode()
        self.boot, self.boot_base = 1, 0
        self.sent = self.acked = 0                  # highest n sent; highest n acknowledged
        self.in_flight = collections.OrderedDict()  # packet identifier: (n, PUBLISH without DUP)
        self.next_pid = 1
        self.created_at = None                      # the twin's revision before any reading
        self.sock = None

    def connect(self, address):
        self.sock = socket.create_connection(address, WAIT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        props = [("session_expiry", 3600)] if self.version == codec.V5 else None
        self.sock.sendall(codec.connect(self.version, f"kill{self.name}", clean=False,
                                        keep_alive=0, props=props))
        buffer = bytearray()
        while (raw := codec.split(buffer)) is None:
            chunk = self.sock.recv(4096)
            if not chunk:
                raise Broken(f"{self.name}: closed instead of CONNACK")
            buffer += chunk
        connack = codec.parse(self.version, raw)
        if connack.reason:
            raise Broken(f"{self.name}: {connack}")
        self.window = min(WINDOW, connack.prop("receive_maximum", WINDOW))
        self.received, self.outgoing = buffer, bytearray()
        for _, raw in self.in_flight.values():
            self.outgoing.append(raw[0] | 0x08)
            self.outgoing += raw[1:]
        self.sock.setblocking(False)

    def reading(self):
        """The next reading, as a PUBLISH."""
        self.sent += 1
        n = self.sent
        payload = (f'{{"seq":{n - self.boot_base},"boot":{self.boot},"environment":{{'
                   f'"temperature":{n},"humidity":{n % 100},"loudness":{n % 7},"light":{n % 1000}}}}}')
        while self.next_pid in self.in_flight:
            self.next_pid = self.next_pid % 65535 + 1
        pid, self.next_pid = self.next_pid, self.next_pid % 65535 + 1
        body = codec.u16(len(self.topic)) + self.topic + codec.u16(pid)
        body += (b"\0" if self.version == codec.V5 else b"") + payload.encode()
        raw = b"\x32" + codec.vbi(len(body)) + body
        self.in_flight[pid] = (n, raw)
        return raw

    def fill(self):
        """Readings up to the window, unless much is still unsent."""
        while len(self.in_flight) < self.window and len(self.outgoing) < 65536:
            self.outgoing += self.reading()

    def write(self):
        if self.outgoing:
            try:
                del self.outgoing[:self.sock.send(self.outgoing)]
            except BlockingIOError:
                pass

    def read(self):
        """Takes acknowledgements; False at the end of the connection."""
        try:
            chunk = self.sock.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not chunk:
            return False
        self.received += chunk
        while (raw := codec.split(self.received)) is not None:
            packet = codec.parse(self.version, raw)
            if packet.kind != codec.PUBACK or packet.reason >= 0x80:
                raise Broken(f"{self.name}: {packet}")
            if packet.pid not in self.in_flight:
                raise Broken(f"{self.name}: PUBACK {packet.pid} of nothing in flight")
            n, _ = self.in_flight.pop(packet.pid)
            self.acked = max(self.acked, n)
        return True

    def reboot(self):
        self.boot += 1
        self.boot_base = self.sent


class Run:
    def __init__(self, args, state):
        self.random = random.Random(args.seed)
        self.nodes = [Node(number) for number in range(1, args.nodes + 1)]
        self.server = Server(state, args.program)
        self.starts = []

    # -- the twins ------------------------------------------------------------------------------

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(*self.server.address("http"), timeout=WAIT_S)
        headers = {"content-type": "application/json"} if body is not None else {}
        connection.request(method, path, body and json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status not in (200, 201, 204):
            raise Broken(f"{method} {path}: {response.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def look(self, node):
        """What the twin says: readings applied by revision, and the last one's number."""
        thing = self.request("GET", f"/api/2/things/lab:{node.name}?fields=_revision,features")
        properties = thing.get("features", {}).get("environment", {}).get("properties", {})
        return thing["_revision"], int(properties.get("temperature", 0))

    def create(self):
        for node in self.nodes:
            self.request("PUT", f"/api/2/things/lab:{node.name}", {"attributes": {"row": 1}})
            node.created_at, last = self.look(node)
            if last:
                raise Broken(f"{node.name} has a reading before any was sent")

    def compare(self, when):
        faults = []
        for node in self.nodes:
            revision, last = self.look(node)
            applied = revision - node.created_at
            said = (f"{node.name} {when}: revision {revision} - {node.created_at} = {applied} "
                    f"readings applied, the last is {last}, acknowledged up to {node.acked}, "
                    f"sent up to {node.sent}, {len(node.in_flight)} in flight")
            if last < node.acked:
                faults.append(f"LOST {node.acked - last}: {said}")
            elif applied > last:
                faults.append(f"TWICE {applied - last}: {said}")
            elif applied < last:
                faults.append(f"LEFT OUT {last - applied}: {said}")
            elif last > node.sent:
                faults.append(f"INVENTED: {said}")
        if faults:
            raise Broken("\n".join(faults))

    # -- the load -------------------------------------------------------------------------------

    def load(self, seconds):
        """Publishes for so long; returns whether the server cut a connection meanwhile."""
        selector = selectors.DefaultSelector()
        for node in self.nodes:
            selector.register(node.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, node)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, events in selector.select(left):
                node = key.data
                if events & selectors.EVENT_READ and not node.read():
                    raise Broken(f"{node.name}: the server closed the connection under load")
                node.fill()
                node.write()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if node.outgoing else 0)
                selector.modify(node.sock, wanted, node)
        selector.close()

    def settle(self):
        """Sends what is left and waits until all of it is acknowledged."""
        deadline = time.monotonic() + WAIT_S
        selector = selectors.DefaultSelector()
        for node in self.nodes:
            selector.register(node.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, node)
        while any(node.in_flight for node in self.nodes):
            if time.monotonic() > deadline:
                waiting = {node.name: len(node.in_flight) for node in self.nodes if node.in_flight}
                raise Broken(f"not acknowledged within {WAIT_S} s: {waiting}")
            for key, events in selector.select(1):
                node = key.data
                if events & selectors.EVENT_READ and not node.read():
                    raise Broken(f"{node.name}: the server closed the connection")
                node.write()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if node.outgoing else 0)
                selector.modify(node.sock, wanted, node)
        selector.close()

    def last_words(self):
        """Acknowledgements that had left before the kill count: the client has them."""
        for node in self.nodes:
            try:
                while node.read():
                    node.sock.setblocking(True)
                    node.sock.settimeout(WAIT_S)
            except TimeoutError as error:
                raise Broken(f"{node.name}: the connection outlived its server") from error
            finally:
                node.sock.close()

    def start(self):
        """Starts the server, sometimes killing it a few times before it is up."""
        while self.random.random() < 0.15:
            self.server.spawn()
            time.sleep(self.random.uniform(0, 0.15))
            self.server.kill()
        begun = time.monotonic()
        self.server.start()
        self.starts.append(time.monotonic() - begun)

    def round(self):
        self.start()
        if self.nodes[0].created_at is None:
            self.create()
        self.compare("after the restart")
        for node in self.nodes:
            node.connect(self.server.address("mqtt"))
        if self.random.random() < 0.5:
            # Half of the rounds check the repeated ones alone, half under the load that follows.
            self.settle()
            self.compare("after sending again")
            for node in self.nodes:
                if self.random.random() < 0.1:
                    node.reboot()
        self.load(self.random.uniform(0.01, 0.6))
        self.server.kill()
        self.last_words()

    def finish(self):
        """A last start: everything is sent, acknowledged, and there after a proper stop too."""
        self.server.start()
        self.compare("after the last kill")
        for node in self.nodes:
            node.connect(self.server.address("mqtt"))
        self.settle()
        self.compare("at the end")
        for node in self.nodes:
            node.sock.close()
        code, took = self.server.stop()
        if code != 0:
            raise Broken(f"Ctrl-C: exit code {code} after {took:.1f} s")
        self.server.start()
        self.compare("after a proper stop")
        self.server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--program", help="default: EDGETWIN_BIN, or the newest build")
    parser.add_argument("--state", help="default: a new directory, removed if all is well")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.seed is None:
        args.seed = time.time_ns() % 1_000_000
    args.program = args.program or str(binary())
    state = Path(args.state or tempfile.mkdtemp(prefix="edgetwin-kill-"))
    run = Run(args, state)
    print(f"seed {args.seed}, {args.nodes} nodes, {args.program}", file=sys.stderr)

    started, passed, failed = time.monotonic(), 0, 0
    for number in range(1, args.rounds + 2):
        try:
            run.round() if number <= args.rounds else run.finish()
            passed += number <= args.rounds
        except (Broken, NotStarted, OSError, KeyError, ValueError, codec.Malformed,
                http.client.HTTPException) as error:
            failed += 1
            run.server.kill()
            print(f"FAIL  round {number}: {type(error).__name__}: {error}\n"
                  f"      server: {''.join(run.server.said[-5:]).strip()}\n"
                  f"      repeat: tests/durability/kill_rounds.py --rounds {number} "
                  f"--seed {args.seed} --nodes {args.nodes}; the state is in {state}", flush=True)
            break
    seconds = time.monotonic() - started
    acknowledged = sum(node.acked for node in run.nodes)
    starts = sorted(run.starts) or [0]
    report = {"passed": passed, "failed": failed, "seed": args.seed,
              "seconds": round(seconds, 1), "rounds_per_s": round(passed / seconds, 2),
              "acknowledged": acknowledged, "acknowledged_per_s": round(acknowledged / seconds),
              "start_s": {"p50": round(starts[len(starts) // 2], 3), "max": round(starts[-1], 3)}}
    if not failed:
        shutil.rmtree(state, ignore_errors=True)
    if args.json:
        print(json.dumps(report))
    else:
        print(f"{report['rounds_per_s']} rounds/s, {acknowledged} readings acknowledged, "
              f"start p50 {report['start_s']['p50']} s, max {report['start_s']['max']} s")
        print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
