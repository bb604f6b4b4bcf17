#!/usr/bin/env python3
"""What the running binary asks of the system, and what it does when the system says no.

    system_calls.py [--program target/debug/edgetwin] [-k enospc]

strace shows the order of a node's packet, the sync and the PUBACK, and delays and fails syncs from
outside; a small tmpfs is a disk that is really full. Ends with `N passed, N failed`.
"""

import contextlib
import json
import re
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import runner  # noqa: E402
from edgetwin import Server  # noqa: E402
from runner import check  # noqa: E402

WAIT_S = 30
TOPIC = "et/v1/disk/node/data"
THING = "/api/2/things/disk:node"


class Node:
    """MQTT 3.1.1, QoS 1, one message at a time."""

    def __init__(self, server):
        self.socket = socket.create_connection(server.address("mqtt"), timeout=WAIT_S)
        self.identifier, self.buffer = 0, b""
        self.socket.sendall(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04node")
        check(self.packet()[0] == 0x20, "no CONNACK")

    def packet(self):
        """First byte and body of the next packet; all of these are short. None at the end."""
        while len(self.buffer) < 2 or len(self.buffer) < 2 + self.buffer[1]:
            data = self.socket.recv(4096)
            if not data:
                return None
            self.buffer += data
        end = 2 + self.buffer[1]
        found, self.buffer = (self.buffer[0], self.buffer[2:end]), self.buffer[end:]
        return found

    def send(self, payload):
        self.identifier += 1
        body = len(TOPIC).to_bytes(2, "big") + TOPIC.encode() + self.identifier.to_bytes(2, "big")
        body += payload
        length, left = b"", len(body)
        while True:
            left, part = left >> 7, left & 0x7F
            length += bytes([part | (0x80 if left else 0)])
            if not left:
                break
        self.socket.sendall(b"\x32" + length + body)

    def acknowledged(self, wait_s=WAIT_S):
        """Whether the PUBACK came; False if the connection ended or nothing came in time."""
        self.socket.settimeout(wait_s)
        try:
            found = self.packet()
        except (TimeoutError, ConnectionError):
            return False
        check(found is None or found == (0x40, self.identifier.to_bytes(2, "big")),
              f"{found} instead of the PUBACK")
        return found is not None

    def publish(self, number, padding=0, wait_s=WAIT_S):
        values = {"count": number, "text": "x" * padding} if padding else {"count": number}
        self.send(json.dumps({"seq": number, "boot": 1, "state": values}).encode())
        return self.acknowledged(wait_s)


def request(server, method, path, body=None):
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(server.url("http") + path, data, method=method,
                                   headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=WAIT_S) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def count(server):
    status, value = request(server, "GET", THING + "/features/state/properties/count")
    check(status == 200, f"the twin is not readable: {status} {value}")
    return value


@contextlib.contextmanager
def running(program, state, under=()):
    """A runtime with the twin."""
    server = Server(state, program, under=under)
    try:
        server.start()
        status, _ = request(server, "GET", THING)
        if status == 404:
            made = {"features": {"state": {"properties": {"count": 0}}}}
            status, said = request(server, "PUT", THING, made)
            check(status == 201, f"the twin cannot be made: {status} {said}")
        yield server
    finally:
        server.kill()


def traced(log, *options):
    """strace as a grandchild, so that the process here is the runtime itself."""
    return ("strace", "-D", "-f", "-qq", "-o", str(log), *options)


def puback_follows_the_sync(program, scratch):
    log = scratch / "trace"
    calls = "trace=recvfrom,sendto,pwrite64,fdatasync"
    with running(program, scratch / "state", traced(log, "-s", "64", "-e", calls)) as server:
        node = Node(server)
        for number in range(1, 51):
            check(node.publish(number), f"reading {number} was not acknowledged")
        code, _ = server.stop()
        check(code == 0, f"the runtime ended with {code}")
    # A resumed call has its result on a line of its own: what counts is when it returned.
    seen, written, synced = 0, False, False
    for line in log.read_text().splitlines():
        if TOPIC in line and "recvfrom" in line:
            written = synced = False
        elif re.search(r"pwrite64.*= \d+$", line):
            written, synced = True, False
        elif re.search(r"fdatasync.*= 0$", line):
            synced = written
        elif re.search(r'sendto\(\d+, "@\\2\\', line):
            check(written, "a PUBACK left before its reading was written")
            check(synced, "a PUBACK left before the sync returned")
            seen += 1
    check(seen == 50, f"the trace shows {seen} of 50 PUBACKs")


def a_slow_sync_delays_the_ack_and_what_is_visible(program, scratch):
    delay_s = 0.4
    inject = f"inject=fdatasync:delay_exit={int(delay_s * 1e6)}"
    with running(program, scratch / "state", traced(scratch / "trace", "-e", inject)) as server:
        node = Node(server)
        check(node.publish(1), "reading 1 was not acknowledged")
        started = time.monotonic()
        node.send(b'{"seq": 2, "boot": 1, "state": {"count": 2}}')
        check(count(server) == 1, "a reading was visible before its sync returned")
        read_s = time.monotonic() - started
        check(read_s < delay_s / 2, f"a read waited {read_s:.2f} s for the sync")
        check(node.acknowledged(), "reading 2 was not acknowledged")
        took = time.monotonic() - started
        check(took >= delay_s, f"PUBACK after {took:.3f} s with a sync of {delay_s} s")
        check(count(server) == 2, "an acknowledged reading is not visible")
        started = time.monotonic()
        status, _ = request(server, "PUT", THING + "/attributes/floor", 3)
        took = time.monotonic() - started
        check(status == 201, f"PUT was answered with {status}")
        check(took >= delay_s, f"PUT answered after {took:.3f} s with a sync of {delay_s} s")


def a_failed_sync_is_final(program, scratch):
    state = scratch / "state"
    with running(program, state) as server:
        check(Node(server).publish(1), "reading 1 was not acknowledged")
        server.stop()
    # The first syncs are the recovery's: from the tenth of a thread on all of them fail.
    inject = "inject=fdatasync:error=EIO:when=10+"
    with running(program, state, traced(scratch / "trace", "-e", inject)) as server:
        node, number = Node(server), 1
        while node.publish(number + 1):
            number += 1
            check(number < 1000, "no sync failed")
        check(1 < number <= 20, f"{number} readings were acknowledged")
        status, said = request(server, "PUT", THING + "/attributes/floor", 3)
        check(status == 503, f"a write after a failed sync was answered with {status} {said}")
        check(count(server) == number, "a read after a failed sync is not the acknowledged state")
        check(not Node(server).publish(number + 1), "acknowledged after a failed sync")
    with running(program, state) as server:
        # The one whose sync failed may have reached the disk all the same.
        check(count(server) in (number, number + 1), f"{count(server)} of {number} readings")
        check(Node(server).publish(number + 2), "not acknowledged after a restart")
        check(count(server) == number + 2, "the reading is not there")


def a_full_disk_refuses_and_recovers(program, scratch):
    disk = scratch / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=40m none "{disk}" && exec "$0" "$@"'
    with running(program, disk / "state", ("unshare", "-rm", "sh", "-c", mount)) as server:
        # The tmpfs is in a mount namespace of the runtime's.
        inside = Path(f"/proc/{server.process.pid}/root{disk}")
        ballast = inside / "ballast"
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        node, number = Node(server), 0
        while node.publish(number + 1, padding=60_000):
            number += 1
            check(number < 1000, "the disk is never full")
        check(number > 100, f"only {number} readings fit: the segment is not used up")
        text = THING + "/features/state/properties/text"
        status, said = request(server, "PUT", text, "y" * 60_000)
        check(status == 507, f"a write to a full disk was answered with {status} {said}")
        check(count(server) == number, "a read from a full disk is not the acknowledged state")
        ballast.unlink()
        node, deadline = Node(server), time.monotonic() + WAIT_S
        while not node.publish(number + 1, padding=60_000):
            check(time.monotonic() < deadline, "it does not recover when there is space again")
            node = Node(server)
        check(count(server) == number + 1, "the reading after the recovery is not there")
        status, _ = request(server, "PUT", text, "y")
        check(status == 204, f"a write after the recovery was answered with {status}")
        revision = request(server, "GET", THING + "?fields=_revision")[1]["_revision"]
        code, _ = server.stop()
        check(code == 0, f"the runtime ended with {code}")
        check(revision == 1 + number + 1 + 1, f"revision {revision} after {number + 1} readings")


def main():
    parser = runner.parser(__doc__)
    parser.add_argument("--program", help="default: EDGETWIN_BIN, or the newest build")
    args = parser.parse_args()
    tests = [puback_follows_the_sync, a_slow_sync_delays_the_ack_and_what_is_visible,
             a_failed_sync_is_final, a_full_disk_refuses_and_recovers]

    def case(test):
        def body():
            with tempfile.TemporaryDirectory(prefix="edgetwin-calls-") as scratch:
                test(args.program, Path(scratch))
        return test.__name__, "", body

    return runner.run([case(test) for test in tests], args)


if __name__ == "__main__":
    sys.exit(main())
