#!/usr/bin/env python3
"""A real Mosquitto between nodes and `edgetwin run --broker`: nothing is lost when either is killed.

    external_broker.py [--program target/debug/edgetwin] [--readings 3000]

A paho client publishes numbered readings at QoS 1 while the runtime is killed with SIGKILL and
started again, twice, and once Mosquitto is. Mosquitto saves its state (autosave on every change),
as whoever relies on it must have it. At the end every acknowledged reading is in the twin exactly
once: the revision counts them. Then a verdict-less message shows that publishing goes the other way
too. Ends with `N passed, N failed`.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from edgetwin import Server  # noqa: E402

import paho.mqtt.client as paho  # noqa: E402

WAIT_S = 30


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Mosquitto:
    def __init__(self, folder):
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        self.config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {folder}/\nautosave_on_changes true\nautosave_interval 1\n"
            "max_queued_messages 100000\nmax_inflight_messages 1000\nuser root\n")
        self.process = None

    def start(self):
        self.process = subprocess.Popen(["mosquitto", "-c", str(self.config)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Node:
    """Publishes readings until told to stop; knows which were acknowledged."""

    def __init__(self, port, count):
        self.acknowledged, self.count = set(), count
        self.numbers = {}
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, "node", clean_session=False)
        self.client.max_inflight_messages_set(200)
        self.client.on_publish = self.published
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def published(self, _client, _data, mid, _reason, _properties):
        with self.lock:
            self.acknowledged.add(mid)
            if len(self.acknowledged) == self.count:
                self.done.set()

    def publish(self, number):
        payload = json.dumps({"seq": number, "boot": 1, "environment": {"temperature": number}})
        self.client.publish("et/v1/lab/node/data", payload, qos=1)


def get(server, path):
    with urllib.request.urlopen(server.url("http") + path, timeout=10) as reply:
        return json.load(reply)


def put(server, path, value):
    request = urllib.request.Request(server.url("http") + path, json.dumps(value).encode(),
                                     {"content-type": "application/json"}, method="PUT")
    urllib.request.urlopen(request, timeout=10).close()


def revision(server):
    return get(server, "/api/2/things/lab:node?fields=_revision")["_revision"]


def await_revision(server, wanted):
    deadline = time.monotonic() + WAIT_S
    while (now := revision(server)) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return now


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--program")
    arguments.add_argument("--readings", type=int, default=3000)
    args = arguments.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        broker = Mosquitto(folder)
        broker.start()
        server = Server(folder / "state", args.program)
        # The listener's address makes way for the broker's.
        at = server.command.index("--mqtt")
        server.command[at:at + 2] = ["--broker", f"mqtt://127.0.0.1:{broker.port}"]
        server.start()
        put(server, "/api/2/things/lab:node", {})
        # The subscription must stand before anything is published: the first reading tells.
        node = Node(broker.port, args.readings)
        probe = 0
        deadline = time.monotonic() + WAIT_S
        while revision(server) < 2 and time.monotonic() < deadline:
            probe += 1
            node.publish(probe)
            time.sleep(0.2)
        taken_before = revision(server) - 1
        first = probe + 1
        for number in range(first, first + args.readings):
            node.publish(number)
            if number - first in (args.readings // 4, args.readings // 2):
                server.kill()
                server.start()
        node.done.wait(WAIT_S)
        wanted = 1 + taken_before + args.readings
        found = await_revision(server, wanted)
        time.sleep(0.5)
        found = revision(server)
        if found != wanted:
            failures.append(f"runtime killed twice: revision {found}, not {wanted}")
        last = get(server, "/api/2/things/lab:node/features/environment/properties/temperature")
        if last != first + args.readings - 1:
            failures.append(f"the last reading is not there: {last}")
        print(f"{len(failures) and 'FAIL' or 'ok'}  runtime killed twice under {args.readings} readings")

        # The broker restarts: the runtime comes back by itself and goes on.
        broker.process.send_signal(signal.SIGTERM)
        broker.process.wait(10)
        broker.start()
        number = first + args.readings
        deadline = time.monotonic() + WAIT_S
        back = False
        while not back and time.monotonic() < deadline:
            node.publish(number)
            number += 1
            back = await_revision_short(server, found + 1)
        if not back:
            failures.append("no reading is taken after the broker was restarted")
        print(f"{'ok' if back else 'FAIL'}  goes on after the broker was restarted")
        node.client.loop_stop()
        code, took = server.stop()
        if code != 0 or took > 2:
            failures.append(f"Ctrl-C: exit code {code} after {took:.1f} s")
        broker.stop()
    for failure in failures:
        print("FAIL", failure)
    print(f"{3 - len(failures)} passed, {len(failures)} failed")
    return 1 if failures else 0


def await_revision_short(server, wanted):
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if revision(server) >= wanted:
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    sys.exit(main())
