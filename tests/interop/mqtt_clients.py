#!/usr/bin/env python3
"""Do unmodified MQTT clients work? Debian's mosquitto_pub and mosquitto_sub, and Python's paho.

    mqtt_clients.py --port 1883 [--host H] [--version 3.1.1|5|both] [-k pattern] [--json]

Needs `mosquitto_pub` and `mosquitto_sub` on the path and `paho-mqtt` (requirements.txt). Prints a
line a test and ends with `N passed, N failed`; exits 1 if any failed.
"""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from runner import Failed, check, parser, run  # noqa: E402

V4, V5 = "3.1.1", "5"
TESTS = []
WAIT = 15
RUN = os.urandom(3).hex()

# server: {test: why it fails there}
DEVIATIONS = {
    "mosquitto": {
        "paho_publisher_survives_a_broken_network":
            "2.0.11 completes but does not deliver QoS 2 messages once a client with a kept "
            "session was cut off with a full window",
        "mosquitto_many_lines_in_order":
            "now and then 2.0.11 sends one message more than the client's Receive Maximum, and its "
            "own client ends for that",
    },
}


def test(*versions):
    def register(function):
        TESTS.append((function, versions or (V4, V5)))
        return function
    return register


class Context:
    """Names, servers and processes of one test."""

    numbers = 0

    def __init__(self, args, version):
        Context.numbers += 1
        self.args, self.version, self.number = args, version, Context.numbers
        self.processes, self.clients = [], []

    @property
    def v5(self):
        return self.version == V5

    def topic(self, rest="t"):
        return f"clients/{RUN}/{self.number}/{rest}"

    def cid(self, name):
        return f"k{RUN}n{self.number}{name}"

    # -- mosquitto's tools ----------------------------------------------------------------------

    def command(self, tool, *words):
        return [tool, "-h", self.args.host, "-p", str(self.args.port),
                "-V", "mqttv5" if self.v5 else "mqttv311", *map(str, words)]

    def pub(self, *words, stdin=None):
        """mosquitto_pub, to its end."""
        done = subprocess.run(self.command("mosquitto_pub", *words), input=stdin, timeout=WAIT * 2,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        check(done.returncode == 0, f"mosquitto_pub: {done.returncode} {done.stdout[-300:]!r}")

    def sub(self, *words, form="%q %r %t %p"):
        """mosquitto_sub, once it is subscribed."""
        return Sub(self, self.command("mosquitto_sub", "-d", "-F", "MSG " + form, *words))

    def sub_once(self, *words):
        """mosquitto_sub, to its end; the raw output."""
        done = subprocess.run(self.command("mosquitto_sub", "-W", WAIT, *words), timeout=WAIT * 2,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        check(done.returncode == 0, f"mosquitto_sub: {done.returncode} {done.stderr[-300:]!r}")
        return done.stdout

    # -- paho -----------------------------------------------------------------------------------

    def paho(self, name, persistent=False, setup=None):
        client = Paho(self, name, persistent, setup)
        self.clients.append(client)
        return client

    def finish(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for client in self.clients:
            client.stop()


class Sub:
    """A running mosquitto_sub whose lines are read by a thread."""

    def __init__(self, context, command):
        self.process = subprocess.Popen(["stdbuf", "-oL", *command], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        context.processes.append(self.process)
        self.lines, self.log = queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        self.await_line("Subscribed")

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def await_line(self, start):
        deadline = time.monotonic() + WAIT
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"no {start!r} line; had {self.log[-5:]}") from None
            if line is None:
                raise Failed(f"mosquitto_sub ended before {start!r}: {self.log[-5:]}")
            self.log.append(line)
            if line.startswith(start):
                return line

    def message(self):
        return self.await_line("MSG ")[4:]

    def messages(self, count):
        return [self.message() for _ in range(count)]


class Paho:
    """A paho client with a queue of messages and events to wait for."""

    def __init__(self, context, name, persistent, setup):
        self.context = context
        version = paho.MQTTv5 if context.v5 else paho.MQTTv311
        options = {} if context.v5 else {"clean_session": not persistent}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, context.cid(name),
                                  protocol=version, **options)
        self.received, self.connects, self.subacks = queue.Queue(), queue.Queue(), queue.Queue()
        self.client.on_message = lambda c, u, message: self.received.put(message)
        self.client.on_connect = lambda c, u, flags, reason, p: self.connects.put((flags, reason))
        self.client.on_subscribe = lambda c, u, mid, reasons, p: self.subacks.put(reasons)
        self.client.reconnect_delay_set(1, 2)
        self.client.max_queued_messages_set(0)
        if setup:
            setup(self.client)
        options = {}
        if context.v5:
            props = Properties(PacketTypes.CONNECT)
            if persistent:
                props.SessionExpiryInterval = 300
            options = {"properties": props, "clean_start": not persistent}
        self.client.connect(context.args.host, context.args.port, 30, **options)
        self.client.loop_start()
        self.flags = self.await_connect()

    def await_connect(self):
        try:
            flags, reason = self.connects.get(timeout=WAIT)
        except queue.Empty:
            raise Failed("paho did not connect") from None
        check(not reason.is_failure, f"connection refused: {reason}")
        return flags

    def subscribe(self, topic, qos=1, **options):
        if self.context.v5:
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options))
        else:
            self.client.subscribe(topic, qos)
        try:
            reasons = self.subacks.get(timeout=WAIT)
        except queue.Empty:
            raise Failed("no SUBACK") from None
        check(not reasons[0].is_failure, f"SUBACK {reasons}")

    def publish(self, topic, payload, qos=1, wait=True, **options):
        info = self.client.publish(topic, payload, qos, **options)
        if wait:
            info.wait_for_publish(WAIT)
            check(info.is_published(), f"not acknowledged within {WAIT} s")
        return info

    def message(self, timeout=WAIT):
        try:
            return self.received.get(timeout=timeout)
        except queue.Empty:
            raise Failed("no message") from None

    def cut(self):
        """The network fails under the client."""
        sock = self.client.socket()
        if sock:
            sock.shutdown(2)

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


# --- mosquitto_pub, mosquitto_sub --------------------------------------------------------------

@test()
def mosquitto_each_qos(t):
    """A message at each QoS to a subscriber at each QoS."""
    for granted in (0, 1, 2):
        sub = t.sub("-t", t.topic("+"), "-q", granted)
        for published in (0, 1, 2):
            t.pub("-t", t.topic("x"), "-q", published, "-m", f"m {published}")
            line = sub.message()
            expected = f"{min(granted, published)} 0 {t.topic('x')} m {published}"
            check(line == expected, f"{line!r}, not {expected!r}")


@test()
def mosquitto_many_lines_in_order(t):
    """1,000 lines through `mosquitto_pub -l`, at each QoS, in order."""
    for qos in (0, 1, 2):
        sub = t.sub("-t", t.topic(), "-q", qos, form="%p")
        t.pub("-t", t.topic(), "-q", qos, "-l",
              stdin="".join(f"{n}\n" for n in range(1000)).encode())
        got = [int(line) for line in sub.messages(1000)]
        check(got == list(range(1000)), f"QoS {qos}: out of order, or lost")
        sub.process.kill()


@test()
def mosquitto_retained(t):
    """`-r` is kept for later subscribers, an empty one (`-n -r`) clears it."""
    t.pub("-t", t.topic(), "-r", "-q", 1, "-m", "kept")
    check(t.sub_once("-t", t.topic(), "-C", 1, "-F", "%r %p") == b"1 kept\n", "not kept")
    t.pub("-t", t.topic(), "-r", "-q", 1, "-n")
    sub = t.sub("-t", t.topic(), form="%r %p")
    t.pub("-t", t.topic(), "-q", 1, "-m", "live")
    check(sub.message() == "0 live", "not cleared")


@test()
def mosquitto_large_payload(t):
    """200,000 arbitrary bytes from a file (`-f`), unchanged."""
    payload = os.urandom(200_000)
    with tempfile.NamedTemporaryFile() as file:
        file.write(payload)
        file.flush()
        t.pub("-t", t.topic(), "-r", "-q", 2, "-f", file.name)
    got = t.sub_once("-t", t.topic(), "-C", 1, "-N", "-q", 2)
    t.pub("-t", t.topic(), "-r", "-q", 1, "-n")
    check(got == payload, f"{len(got)} bytes, changed")


@test()
def mosquitto_empty_payload(t):
    """`-n` sends a message of no bytes."""
    sub = t.sub("-t", t.topic(), form="%l.")
    t.pub("-t", t.topic(), "-q", 1, "-n")
    check(sub.message() == "0.", "not empty")


@test()
def mosquitto_will(t):
    """`--will-*`: published when the client is killed; when it is stopped only by the MQTT 5
    client, which then asks for it (DISCONNECT 0x04)."""
    watch = t.sub("-t", t.topic("will"), "-q", 1, form="%q %p")
    will = ("--will-topic", t.topic("will"), "--will-qos", 1, "--will-payload")
    stopped = t.sub("-t", t.topic("other"), *will, "stopped")
    stopped.process.send_signal(signal.SIGINT)
    stopped.process.wait(WAIT)
    if t.v5:
        check(watch.message() == "1 stopped", "no will after DISCONNECT 0x04")
    killed = t.sub("-t", t.topic("other"), *will, "killed")
    killed.process.kill()
    check(watch.message() == "1 killed", "wrong will")


@test()
def mosquitto_persistent_session(t):
    """`-c -i ID`: messages of the absence come on return, in order."""
    session = ["-c", "-i", t.cid("p"), "-q", 1, "-t", t.topic()] + (["-x", 300] if t.v5 else [])
    t.sub_once(*session, "-E")
    for number in range(20):
        t.pub("-t", t.topic(), "-q", 1, "-m", number)
    got = t.sub_once(*session, "-C", 20).decode().split()
    check(got == [str(n) for n in range(20)], f"{got}")


@test()
def mosquitto_wildcards(t):
    """`+` and `#`, two filters at once, `-T` to leave one out."""
    sub = t.sub("-t", t.topic("a/+/c"), "-t", t.topic("b/#"), "-T", t.topic("b/skip"), "-q", 1,
                form="%t")
    for rest in ("a/1/c", "a/1/d", "b", "b/skip", "b/1/2", "end"):
        t.pub("-t", t.topic(rest), "-q", 1, "-m", "x")
    t.pub("-t", t.topic("a/end/c"), "-q", 1, "-m", "x")
    got = [line.removeprefix(t.topic("")) for line in sub.messages(4)]
    check(got == ["a/1/c", "b", "b/1/2", "a/end/c"], f"{got}")


@test(V5)
def mosquitto_properties(t):
    """`-D publish …` properties of MQTT 5 reach the subscriber."""
    sub = t.sub("-t", t.topic(), "-q", 1, form="%C %D %R %F %P %E")
    t.pub("-t", t.topic(), "-q", 1, "-m", "x", "-D", "publish", "content-type", "text/plain",
          "-D", "publish", "correlation-data", "corr", "-D", "publish", "response-topic", "re/ply",
          "-D", "publish", "payload-format-indicator", 1,
          "-D", "publish", "user-property", "a", "1", "-D", "publish", "user-property", "a", "2",
          "-D", "publish", "message-expiry-interval", 600)
    line = sub.message()
    check(line in ("text/plain corr re/ply 1 a:1 a:2 600", "text/plain corr re/ply 1 a:1 a:2 599"),
          line)


@test(V5)
def mosquitto_shared_subscription(t):
    """Two `$share` members split 100 messages between them."""
    subs = [t.sub("-t", f"$share/g/{t.topic()}", "-q", 1, form="%p") for _ in range(2)]
    t.pub("-t", t.topic(), "-q", 1, "-l", stdin="".join(f"{n}\n" for n in range(100)).encode())
    got = []
    deadline = time.monotonic() + WAIT
    while len(got) < 100 and time.monotonic() < deadline:
        for sub in subs:
            try:
                line = sub.lines.get(timeout=0.05)
            except queue.Empty:
                continue
            if line and line.startswith("MSG "):
                got.append((sub, int(line[4:])))
    check(sorted(n for _, n in got) == list(range(100)), f"{len(got)} of 100, or twice")
    check(len({id(sub) for sub, _ in got}) == 2, "one member got all")


@test(V5)
def mosquitto_rr(t):
    """mosquitto_rr: a request is answered on its response topic."""
    def respond(client, _, message):
        props = Properties(PacketTypes.PUBLISH)
        props.CorrelationData = getattr(message.properties, "CorrelationData", b"")
        client.publish(message.properties.ResponseTopic, b"pong " + message.payload, 1,
                       properties=props)

    responder = t.paho("responder")
    responder.client.on_message = respond
    responder.subscribe(t.topic("request"))
    done = subprocess.run(t.command("mosquitto_rr", "-q", 1, "-t", t.topic("request"),
                                    "-e", t.topic("reply"), "-m", "ping", "-W", WAIT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT * 2)
    check(done.stdout.strip() == b"pong ping", f"{done.returncode} {done.stdout!r}")


# --- paho --------------------------------------------------------------------------------------

@test()
def paho_each_qos(t):
    """Each QoS to a subscriber at each QoS; payload and flags arrive."""
    for granted in (0, 1, 2):
        watch = t.paho(f"w{granted}")
        watch.subscribe(t.topic(f"{granted}"), granted)
        sender = t.paho(f"s{granted}")
        for published in (0, 1, 2):
            sender.publish(t.topic(f"{granted}"), f"{published}", published)
            got = watch.message()
            check((got.payload, got.qos) == (b"%d" % published, min(granted, published)),
                  f"{got.payload} at QoS {got.qos}")


@test()
def paho_thousand_in_order(t):
    """1,000 messages at each QoS, handed to the client at once, arrive in order and once."""
    for qos in (0, 1, 2):
        watch = t.paho(f"w{qos}")
        watch.subscribe(t.topic(f"{qos}"), qos)
        sender = t.paho(f"s{qos}")
        infos = [sender.publish(t.topic(f"{qos}"), f"{n}", qos, wait=False) for n in range(1000)]
        got = [int(watch.message().payload) for _ in range(1000)]
        check(got == list(range(1000)), f"QoS {qos}: out of order, or lost")
        infos[-1].wait_for_publish(WAIT)
        check(all(info.is_published() for info in infos), "not all acknowledged")


@test()
def paho_persistent_session(t):
    """A client that goes away finds its subscription and 50 messages on return; order holds for
    each QoS."""
    first = t.paho("p", persistent=True)
    check(not first.flags.session_present, "session present for a new client")
    first.subscribe(t.topic(), 2)
    first.stop()
    sender = t.paho("s")
    for number in range(50):
        sender.publish(t.topic(), f"{number}", 1 + number % 2)
    second = t.paho("p", persistent=True)
    check(second.flags.session_present, "session not present")
    got = [int(second.message().payload) for _ in range(50)]
    check(sorted(got) == list(range(50)), f"{got}")
    for parity in (0, 1):
        one_qos = [number for number in got if number % 2 == parity]
        check(one_qos == sorted(one_qos), f"QoS {1 + parity} out of order: {one_qos}")


@test()
def paho_publisher_survives_a_broken_network(t):
    """A publisher that is cut off in the middle reconnects by itself: QoS 2 exactly once, QoS 1
    at least once."""
    for qos in (1, 2):
        watch = t.paho(f"w{qos}")
        watch.subscribe(t.topic(f"{qos}"), 2)
        sender = t.paho(f"s{qos}", persistent=True)
        infos = []
        for number in range(400):
            infos.append(sender.publish(t.topic(f"{qos}"), f"{number}", qos, wait=False))
            if number == 150:
                infos[60].wait_for_publish(WAIT)
                sender.cut()
        sender.await_connect()
        for info in infos:
            info.wait_for_publish(WAIT)
        got = []
        while len(set(got)) < 400:
            got.append(int(watch.message().payload))
        sender.publish(t.topic(f"{qos}"), "-1", qos)
        while got[-1] != -1:
            got.append(int(watch.message().payload))
        got.pop()
        check(set(got) == set(range(400)), "lost")
        if qos == 2:
            check(len(got) == 400, f"{len(got) - 400} messages twice at QoS 2")


@test()
def paho_subscriber_survives_a_broken_network(t):
    """A subscriber with a kept session that is cut off loses nothing and gets QoS 2 once."""
    watch = t.paho("w", persistent=True)
    watch.subscribe(t.topic(), 2)
    sender = t.paho("s")
    infos = []
    for number in range(300):
        infos.append(sender.publish(t.topic(), f"{number}", 2, wait=False))
        if number == 100:
            infos[50].wait_for_publish(WAIT)
            watch.cut()
    got = [int(watch.message().payload) for _ in range(300)]
    check(got == list(range(300)), "lost, twice, or out of order")


@test()
def paho_will(t):
    """The will of a process that is killed; none of one that disconnects."""
    watch = t.paho("w")
    watch.subscribe(t.topic("will"), 2)
    code = (
        "import sys, time, paho.mqtt.client as p\n"
        "c = p.Client(p.CallbackAPIVersion.VERSION2, sys.argv[3], protocol=int(sys.argv[4]))\n"
        "c.will_set(sys.argv[5], sys.argv[6], 2)\n"
        "c.on_connect = lambda *_: print('up', flush=True)\n"
        "c.connect(sys.argv[1], int(sys.argv[2])); c.loop_start()\n"
        "sys.stdin.readline(); c.disconnect(); c.loop_stop()\n")
    for end in ("stopped", "killed"):
        process = subprocess.Popen(
            [sys.executable, "-c", code, t.args.host, str(t.args.port), t.cid(end),
             str(int(paho.MQTTv5 if t.v5 else paho.MQTTv311)), t.topic("will"), end],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        t.processes.append(process)
        check(process.stdout.readline() == "up\n", "not connected")
        if end == "killed":
            process.kill()
        else:
            process.stdin.close()
        process.wait(WAIT)
    got = watch.message()
    check((got.payload, got.qos) == (b"killed", 2), f"{got.payload}")


@test()
def paho_retained(t):
    """RETAIN on a later subscription, not on a live one; cleared by an empty message."""
    sender = t.paho("s")
    early = t.paho("e")
    early.subscribe(t.topic(), 1)
    sender.publish(t.topic(), b"kept", 1, retain=True)
    check(not early.message().retain, "RETAIN on a live message")
    late = t.paho("l")
    late.subscribe(t.topic(), 1)
    got = late.message()
    check(got.retain and got.payload == b"kept", "not kept")
    sender.publish(t.topic(), b"", 1, retain=True)
    check(early.message().payload == b"" and late.message().payload == b"", "clear not seen")


@test(V5)
def paho_shared_subscription(t):
    """Three members of a group get 300 messages between them, each once."""
    members = [t.paho(f"m{n}") for n in range(3)]
    for member in members:
        member.subscribe(f"$share/g/{t.topic()}", 1)
    sender = t.paho("s")
    for number in range(300):
        sender.publish(t.topic(), f"{number}", 1, wait=False)
    got, deadline = [], time.monotonic() + WAIT
    while len(got) < 300 and time.monotonic() < deadline:
        for member in members:
            try:
                got.append((member, int(member.received.get(timeout=0.05).payload)))
            except queue.Empty:
                pass
    check(sorted(n for _, n in got) == list(range(300)), f"{len(got)} of 300, or twice")
    check(len({id(m) for m, _ in got}) == 3, "a member got nothing")


@test(V5)
def paho_properties(t):
    """Properties of a message, both ways; No Local; subscription identifier."""
    watch = t.paho("w")
    props = Properties(PacketTypes.SUBSCRIBE)
    props.SubscriptionIdentifier = 42
    watch.client.subscribe(t.topic(), options=SubscribeOptions(qos=1, noLocal=True),
                           properties=props)
    watch.subacks.get(timeout=WAIT)
    watch.publish(t.topic(), b"own", 1)
    sender = t.paho("s")
    props = Properties(PacketTypes.PUBLISH)
    props.ContentType, props.ResponseTopic = "text/plain", "re/ply"
    props.CorrelationData = b"\x00\xff"
    props.UserProperty = [("a", "1"), ("a", "2")]
    sender.publish(t.topic(), b"x", 1, properties=props)
    got = watch.message()
    check(got.payload == b"x", "own message despite No Local")
    check((got.properties.ContentType, got.properties.ResponseTopic,
           got.properties.CorrelationData, got.properties.UserProperty,
           got.properties.SubscriptionIdentifier)
          == ("text/plain", "re/ply", b"\x00\xff", [("a", "1"), ("a", "2")], [42]),
          f"{got.properties}")


def main():
    arguments = parser(__doc__)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=1883)
    arguments.add_argument("--version", choices=[V4, V5, "both"], default="both")
    arguments.add_argument("--known", choices=sorted(DEVIATIONS), help="accept a server's deviations")
    args = arguments.parse_args()

    def case(function, version):
        def body():
            context = Context(args, version)
            try:
                function(context)
            finally:
                context.finish()
        return function.__name__, version, body

    cases = [case(function, version) for function, versions in TESTS for version in versions
             if args.version in (version, "both")]
    return run(cases, args, DEVIATIONS.get(args.known))


if __name__ == "__main__":
    sys.exit(main())
