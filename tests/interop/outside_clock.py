#!/usr/bin/env python3
"""An outside clock for `edgetwin bench pipeline`: the median from a reading sent over MQTT to its
verdict received over MQTT, one reading in flight, with nothing but Python's standard library.

    edgetwin run --state /tmp/clock --mqtt 127.0.0.1:18830 -f manifests/quickstart -f clock.yaml
    tests/interop/outside_clock.py --mqtt 127.0.0.1:18830 --node clock/node --service data-anomaly

with a twin of its own in clock.yaml, which as in the benchmark is a member of no aggregate:

    kind: Twin
    metadata: {name: node, namespace: clock}
    spec: {model: env-node, services: [data-anomaly]}

prints `{"p50_us": …, "p90_us": …, "p99_us": …, "count": …, "echo_us": …}`. Compare `p50_us` with the
case forest, in-process, one of a `bench pipeline` on the same machine and disk, just before or
after. `echo_us` is the median round trip between two of Python's sockets without a runtime in
between, for which `floor_us.loopback` is the benchmark's; where it is larger, the difference is the
interpreter's and not the runtime's. With `--spin` the script does not sleep while it waits, which
leaves out most of that. `--rate 1000` is for the case rate: both clients then start from rest.
"""

import argparse
import json
import socket
import statistics
import sys
import threading
import time


class Client:
    """MQTT 3.1.1, QoS 1, one message at a time."""

    def __init__(self, address, name, spin=False):
        self.flags = socket.MSG_DONTWAIT if spin else 0
        self.socket = socket.create_connection(address, timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.packet_id = 0
        self.send(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + text(name))
        self.expect(2)

    def send(self, first, body):
        self.socket.sendall(packet(first, body))

    def receive(self):
        """Type, flags and body of the next packet."""
        while True:
            found = split(self.buffer)
            if found:
                first, body, self.buffer = found
                return first >> 4, first & 15, body
            try:
                data = self.socket.recv(65536, self.flags)
            except BlockingIOError:
                continue
            if not data:
                sys.exit("the runtime closed the connection")
            self.buffer += data

    def expect(self, kind):
        found, _, body = self.receive()
        if found != kind:
            sys.exit(f"packet type {found} instead of {kind}")
        return body

    def subscribe(self, topic):
        self.send(0x82, b"\x00\x01" + text(topic) + b"\x01")
        self.expect(9)

    def reading(self, topic, payload):
        self.packet_id = self.packet_id % 65535 + 1
        return packet(0x32, text(topic) + self.packet_id.to_bytes(2, "big") + payload)


def text(words):
    data = words.encode()
    return len(data).to_bytes(2, "big") + data


def packet(first, body):
    length, left = b"", len(body)
    while True:
        byte, left = left & 0x7F, left >> 7
        length += bytes([byte | (0x80 if left else 0)])
        if not left:
            return bytes([first]) + length + body


def split(data):
    """First byte, body and rest of the first whole packet."""
    length = 0
    for at in range(1, min(len(data), 5)):
        length |= (data[at] & 0x7F) << 7 * (at - 1)
        if not data[at] & 0x80:
            end = at + 1 + length
            return (data[0], data[at + 1 : end], data[end:]) if len(data) >= end else None
    return None


def echo(count):
    """Median round trip of 160 bytes between two threads, microseconds."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := peer.recv(65536):
            peer.sendall(data)

    threading.Thread(target=answer, daemon=True).start()
    client = socket.create_connection(listener.getsockname())
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        client.sendall(b"x" * 160)
        left = 160
        while left:
            left -= len(client.recv(65536))
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e3


def await_moment(moment_ns):
    """Sleeps until shortly before, since a sleep may be late, and then looks at the clock."""
    left = moment_ns - time.perf_counter_ns() - 200_000
    if left > 0:
        time.sleep(left / 1e9)
    while time.perf_counter_ns() < moment_ns:
        pass


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--mqtt", required=True, metavar="HOST:PORT")
    arguments.add_argument("--node", required=True, metavar="NAMESPACE/NAME")
    arguments.add_argument("--service", required=True, metavar="NAME")
    arguments.add_argument("--count", type=int, default=3000)
    arguments.add_argument("--rate", type=float, metavar="N",
                           help="readings a second, each measured from when it was due; "
                           "default: one after the other")
    arguments.add_argument("--spin", action="store_true",
                           help="do not sleep while waiting: waking this interpreter is not measured")
    arguments = arguments.parse_args()
    host, port = arguments.mqtt.rsplit(":", 1)
    watcher = Client((host, int(port)), "clock-watcher", arguments.spin)
    watcher.subscribe(f"et/v1/{arguments.node}/verdict/{arguments.service}")
    node = Client((host, int(port)), "clock-node", arguments.spin)
    topic = f"et/v1/{arguments.node}/data"
    times, last_revision = [], 0
    begun = time.perf_counter_ns() + 1_000_000
    for number in range(arguments.count + 200):
        values = {
            "temperature": 20 + number % 50 / 10,
            "humidity": 40 + number % 70 / 10,
            "loudness": 45 + number % 90 / 10,
            "light": 300 + number % 200,
        }
        message = node.reading(topic, json.dumps({"environment": values}).encode())
        if arguments.rate:
            started = begun + int(number * 1e9 / arguments.rate)
            await_moment(started)
        else:
            started = time.perf_counter_ns()
        node.socket.sendall(message)
        kind, flags, body = watcher.receive()
        took = time.perf_counter_ns() - started
        if kind != 3 or flags & 6 != 2:
            sys.exit(f"packet type {kind} instead of a verdict")
        payload_at = 2 + int.from_bytes(body[:2], "big") + 2
        watcher.send(0x40, body[payload_at - 2 : payload_at])
        revision = json.loads(body[payload_at:])["ofRevision"]
        if revision <= last_revision:
            sys.exit(f"a verdict about revision {revision} after one about {last_revision}")
        last_revision = revision
        node.expect(4)
        if number >= 200:
            times.append(took)
    times.sort()
    at = {f"p{q}_us": round(times[len(times) * q // 100] / 1e3, 1) for q in (50, 90, 99)}
    print(json.dumps({**at, "count": len(times), "echo_us": round(echo(2000), 1)}))


if __name__ == "__main__":
    main()
