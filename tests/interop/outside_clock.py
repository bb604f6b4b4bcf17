#!/usr/bin/env python3
"""An outside clock for `edgetwin bench pipeline`: the median from a reading sent over MQTT to its
verdict received over MQTT, with a client of its own on plain sockets.

    tests/interop/outside_clock.py --turns 5

starts a runtime that judges as the benchmark's does (a twin in no aggregate, no context rules, which
would be looked at while the verdict is under way), lets this clock and `bench pipeline` (case
forest, in process, one) measure in turns, so that what the machine does meanwhile falls on both, and
prints the medians of both. Fails if they are more than 15 % apart. `--rate 1000` is for the case
rate. For a runtime that is there already:

    tests/interop/outside_clock.py --mqtt HOST:PORT --node NAMESPACE/NAME --service NAME

`echo_us` is the median round trip between two of Python's sockets without a runtime in between,
for which `floor_us.loopback` is the benchmark's. With `--spin` the script does not sleep while it
waits, so that waking the interpreter is not measured.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from edgetwin import ROOT, Server, binary  # noqa: E402

NODE, SERVICE = "clock/node", "data-anomaly"
TWIN = """kind: Twin
metadata: {name: node, namespace: clock}
spec: {model: env-node, services: [data-anomaly]}
"""
APART_MAX = 0.15


class Client:
    """MQTT 3.1.1, QoS 1, one message at a time."""

    def __init__(self, address, name, spin=False):
        self.flags = socket.MSG_DONTWAIT if spin else 0
        self.socket = socket.create_connection(address, timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.received = b"", 0
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
            self.received = time.perf_counter_ns()
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


def measure(mqtt, node_name, service, count, rate, spin):
    """The clock's figures, microseconds."""
    host, port = mqtt.rsplit(":", 1)
    watcher = Client((host, int(port)), "clock-watcher", spin)
    watcher.subscribe(f"et/v1/{node_name}/verdict/{service}")
    node = Client((host, int(port)), "clock-node", spin)
    topic = f"et/v1/{node_name}/data"
    times, last_revision = [], 0
    begun = time.perf_counter_ns() + 1_000_000
    for number in range(count + 200):
        values = {
            "temperature": 20 + number % 50 / 10,
            "humidity": 40 + number % 70 / 10,
            "loudness": 45 + number % 90 / 10,
            "light": 300 + number % 200,
        }
        message = node.reading(topic, json.dumps({"environment": values}).encode())
        if rate:
            started = begun + int(number * 1e9 / rate)
            await_moment(started)
        else:
            started = time.perf_counter_ns()
        node.socket.sendall(message)
        kind, flags, body = watcher.receive()
        took = watcher.received - started
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
    return {f"p{q}_us": round(times[len(times) * q // 100] / 1e3, 1) for q in (50, 90, 99)}


def in_turns(turns, count, rate, spin):
    """Both clocks, one after the other; whether they agree."""
    load = ["--load", "rate", "--rate", str(rate)] if rate else ["--load", "one"]
    seconds = count / rate if rate else 1
    with tempfile.TemporaryDirectory(prefix="edgetwin-clock-", dir=".") as directory:
        manifest = Path(directory) / "clock.yaml"
        manifest.write_text(TWIN)
        files = [ROOT / "manifests/quickstart" / name for name in ("models.yaml", "services.yaml")]
        extra = [word for file in [*files, manifest] for word in ("-f", str(file))]
        bench = [str(binary()), "bench", "pipeline", "--classifier", "forest", "--placement",
                 "in-process", *load, "--seconds", str(seconds), "--state-dir", directory, "--json"]
        clock, inside = [], []
        server = Server(Path(directory) / "state", extra=extra).start(60)
        try:
            subprocess.run([str(binary()), "wait", f"twin/{NODE}", f"service/{SERVICE}", "--server",
                            server.url("http")], check=True, capture_output=True)
            for _ in range(turns):
                mqtt = "%s:%s" % server.address("mqtt")
                clock.append(measure(mqtt, NODE, SERVICE, count, rate, spin)["p50_us"])
                report = json.loads(subprocess.run(bench, check=True, capture_output=True).stdout)
                inside.append(report["cases"][0]["latency_us"]["p50"])
        finally:
            server.kill()
    outside_us, inside_us = statistics.median(clock), statistics.median(inside)
    apart = outside_us / inside_us - 1
    print(json.dumps({"outside_us": clock, "inside_us": inside, "outside_median_us": outside_us,
                      "inside_median_us": inside_us, "apart": f"{apart:+.1%}"}))
    return abs(apart) <= APART_MAX


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--turns", type=int, metavar="N",
                           help="start a runtime, and measure N times in turns with the benchmark")
    arguments.add_argument("--mqtt", metavar="HOST:PORT")
    arguments.add_argument("--node", metavar="NAMESPACE/NAME", default=NODE)
    arguments.add_argument("--service", metavar="NAME", default=SERVICE)
    arguments.add_argument("--count", type=int, default=3000)
    arguments.add_argument("--rate", type=float, metavar="N",
                           help="readings a second, each measured from when it was due; "
                           "default: one after the other")
    arguments.add_argument("--spin", action="store_true",
                           help="do not sleep while waiting: waking this interpreter is not measured")
    arguments = arguments.parse_args()
    how = (arguments.count, arguments.rate, arguments.spin)
    if arguments.turns:
        sys.exit(0 if in_turns(arguments.turns, *how) else 1)
    if not arguments.mqtt:
        sys.exit("--turns N, or --mqtt HOST:PORT of a runtime that is there")
    figures = measure(arguments.mqtt, arguments.node, arguments.service, *how)
    print(json.dumps({**figures, "count": arguments.count, "echo_us": round(echo(2000), 1)}))


if __name__ == "__main__":
    main()
