#!/usr/bin/env python3
"""Generated firmware, built by real compilers and run for real.

    all.py [-k WORD] [--record]

The Uno sketch is built by avr-gcc with the Arduino core and runs in simavr: flat out against golden
lines, and in real time through the serial gateway. The ESP32 sketch runs as a process, with the
sanitizers, against a runtime's MQTT listener. --record writes golden lines and sizes anew. Ends with
`N passed, N failed`; exits 1 if any failed.
"""

import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

import toolchain  # noqa: E402
import vectors  # noqa: E402
from edgetwin import Server  # noqa: E402

ROOT = toolchain.ROOT
RECORD = "--record" in sys.argv
EXAMPLES = ROOT / "manifests" / "serial"
QUICKSTART = ROOT / "manifests" / "quickstart"
SIZE_TOLERANCE = 0.02
# What the stack may take at most, of the 512 bytes that the generator leaves it at least.
STACK_MAX = 450


def crc16(data):
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def down(body):
    return f"!{body}*{crc16(body.encode()):04X}"


def unframe(line):
    """The JSON of a line, whose checksum is right."""
    content, crc = line.rsplit("*", 1)
    assert f"{crc16(content.encode()):04X}" == crc, f"checksum of {line}"
    return json.loads(content)


def write_trace(path, seconds, seed=7):
    """A made-up bench: drifting, with a lamp that is switched and a noise that comes and goes."""
    chance = random.Random(seed)
    rows, celsius, humidity = [], 213.0, 405.0
    for ms in range(0, seconds * 1000, 250):
        celsius += chance.uniform(-1.5, 1.6)
        humidity += chance.uniform(-3, 3)
        lamp = 3200 if ms // 6000 % 2 else 1400
        noise = 900 if ms // 5000 % 3 == 2 else 60
        rows.append((ms, celsius, lamp + chance.uniform(-40, 40), 1500, noise, celsius, humidity))
    path.write_text("".join(",".join(str(round(cell)) for cell in row) + "\n" for row in rows))


class Uno:
    """The emulated node, in real time, on a pty."""

    def __init__(self, elf, trace, parts):
        self.process = subprocess.Popen([toolchain.build_avrnode(), elf, "--trace", trace, "--pty", *parts],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("/dev/"):
                self.device = line.strip()
                return
        raise AssertionError("the emulated node did not start")

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Host:
    """The ESP32's sketch as a process."""

    def __init__(self, program, port, thing, eeprom, printed=False):
        namespace, name = thing.split("/")
        environment = {"ET_BROKER_PORT": str(port), "ET_CLIENT_ID": f"{namespace}-{name}",
                       "ET_TOPIC_PREFIX": f"et/v1/{namespace}/{name}/", "ET_EEPROM": str(eeprom)}
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE if printed else subprocess.DEVNULL,
                                        stderr=self.errors, text=True, env=environment)
        self.printed, self.changed = [], threading.Condition()
        if printed:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.printed.append(line.strip())
                self.changed.notify_all()

    def forget_printed(self):
        """What was printed before the next command does not count."""
        with self.changed:
            self.printed.clear()

    def wait_printed(self, line, timeout=5.0):
        """The board prints this line, and it is the next one about this pin."""
        pin = line.split()[1]
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                mine = [printed for printed in self.printed if printed.split()[1] == pin]
                if mine:
                    self.printed.remove(mine[0])
                    assert mine[0] == line, f"the board prints `{mine[0]}` instead of `{line}`"
                    return
                assert self.changed.wait(deadline - time.monotonic()), f"the board does not print `{line}`"

    def say(self, *lines):
        self.process.stdin.write("".join(f"{line}\n" for line in lines))
        self.process.stdin.flush()

    def stop(self, code=-9):
        """Kills it; what the sanitizers said is a failure."""
        if self.process.poll() is None:
            self.process.kill()
        ended = self.process.wait()
        self.process.stdin.close()
        self.errors.seek(0)
        said = self.errors.read()
        self.errors.close()
        assert ended == code and not said, f"the node ended with {ended}: {said}"


class Watcher:
    """All that is said on a node's topics, as it comes."""

    def __init__(self, port, thing):
        self.port, self.prefix = port, f"et/v1/{thing}/"
        self.messages, self.changed = [], threading.Condition()
        # What is retained comes when the subscription is there: nothing after it is missed.
        toolchain.run("mosquitto_pub", "-p", port, "-q", "1", "-r", "-t", "watching", "-m", "yes")
        self.process = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", "-p", str(port), "-q", "1", "-v", "-t", self.prefix + "+",
             "-t", "watching"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self.wait("watching")

    def _read(self):
        for line in self.process.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            leaf = topic.removeprefix(self.prefix)
            body = json.loads(payload) if payload.startswith("{") else payload
            with self.changed:
                self.messages.append((time.monotonic(), leaf, body))
                self.changed.notify_all()

    def all(self, leaf):
        with self.changed:
            return [(at, body) for at, of, body in self.messages if of == leaf]

    def wait(self, leaf, fits=lambda body: True, timeout=10.0, after=0):
        """The first such message, awaited; `after` skips what came before that moment.

        leaf: or several of them, `ack|state`.
        """
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                for at, of, body in self.messages:
                    if of in leaf.split("|") and at >= after and fits(body):
                        return at, body
                left = deadline - time.monotonic()
                if left <= 0:
                    tail = [(of, body) for _, of, body in self.messages[-6:]]
                    raise AssertionError(f"no such `{leaf}` in {timeout} s; the last were {tail}")
                self.changed.wait(left)

    def command(self, body):
        """Sends a command; its answer."""
        sent = time.monotonic()
        toolchain.run("mosquitto_pub", "-p", self.port, "-q", "1", "-t", self.prefix + "cmd", "-m", body)
        number = int(body.split()[0])
        return self.wait("ack", lambda ack: ack["id"] == number, after=sent)[1]

    def stop(self):
        self.process.kill()
        self.process.wait()


def no_gap(readings):
    """Every number from the first to the last came."""
    numbers = sorted({(body["boot"], body["seq"]) for _, body in readings})
    missing = [(boot, seq) for (boot, last), (then, first) in zip(numbers, numbers[1:])
               for seq in range(last + 1, first) if boot == then]
    assert not missing, f"missing: {missing}"
    return len(numbers)


def spans(readings, count):
    """Times between the last readings on the node's clock, ms."""
    ticks = [body["ms"] for _, body in readings][-count:]
    return [later - earlier for earlier, later in zip(ticks, ticks[1:])]


# --- the tests -------------------------------------------------------------------------------------


def test_vectors():
    """C++ replays the vectors that Rust replays."""
    assert vectors.main() == 0


def test_sizes():
    """Flash and RAM of the Uno sketches are those of the table, and below the generator's sums."""
    table_path = HERE / "sizes.json"
    table = json.loads(table_path.read_text()) if table_path.exists() else {}
    found = {}
    command = [toolchain.BIN, "gen-firmware", "-f", EXAMPLES, "--out", toolchain.WORK, "--output", "json"]
    for sketch in json.loads(toolchain.run(*command))["items"]:
        flash, ram = toolchain.sizes(toolchain.build_uno(pathlib.Path(sketch["folder"])))
        found[sketch["profile"]] = {"flash": flash, "ram": ram}
        print(f"    {sketch['profile']}: {flash} bytes of flash ({sketch['flash']} estimated), "
              f"{ram} of RAM ({sketch['ram']} estimated)")
        assert flash <= sketch["flash"] and ram <= sketch["ram"], "the estimate is too low"
    if RECORD:
        table_path.write_text(json.dumps(found, indent=2) + "\n")
        return
    assert found.keys() == table.keys(), f"the table is of {list(table)}"
    for profile, sizes in found.items():
        for what, size in sizes.items():
            expected = table[profile][what]
            assert abs(size - expected) <= SIZE_TOLERANCE * expected, f"{profile} {what}: {size}, not {expected}"


SCRIPTS = {
    "interval": [(3100, "1 prog interval period=200 trial=3"), (4000, "1 prog interval period=200 trial=3"),
                 (6000, None), (9000, "2 prog interval period=500"), (9100, "3 keep"), (12000, "4 lease 2"), (16000, "5 info")],
    "on-change": [(1500, "1 prog on-change pmin=300 pmax=5000 st=temperature:0.5,loudness:3 gt=light:60"),
                  (12000, "2 thr loudness 30"), (15000, "3 prog on-change")],
    "on-request": [(500, "1 prog on-request"), (4000, "2 get"), (6000, "3 get light"), (7000, "4 act fan true"),
                   (7500, "5 act lamp 50"), (8000, "6 resend 0 1"), (9000, "7 fly"), (9500, "8 prog interval period=1"),
                   (10000, "9 hb ttl=100@9000"), (12000, "10 safe")],
    "features": [(1200, "1 prog features period=2000"), (11000, "2 prog features on=loudness period=1000"),
                 (15000, "3 reset")],
}


def golden(program):
    """A flat-out run writes these very lines, whatever the machine does meanwhile."""
    sketch = toolchain.sketches(toolchain.WORK, EXAMPLES, profile="uno-desk")[0]
    elf = toolchain.build_uno(pathlib.Path(sketch["folder"]))
    trace, script = toolchain.WORK / "trace.csv", toolchain.WORK / "script"
    write_trace(trace, 20)
    # Noise is nobody's command and is not answered; a cut command is, as wrong.
    noise = "{}*0000\n{} ~~~\n{} !9 h"
    script.write_text("".join(f"{ms} {down(body) if body else noise.format('', ms, ms)}\n"
                              for ms, body in SCRIPTS[program]))
    said = toolchain.run(toolchain.build_avrnode(), elf, "--trace", trace, "--seconds", "20", "--script", script,
                         *toolchain.attached(sketch))
    lines = []
    for line in said.splitlines():
        if line.startswith("{"):
            body = unframe(line)
            if "build" in body:
                body["build"] = "-"
            lines.append(json.dumps(body, separators=(",", ":")))
        elif line.startswith("pin"):
            lines.append(line)
    _, ram = toolchain.sizes(elf)
    stack = 0x900 - int(re.search(r"^stack (\d+) at", said, re.M)[1])
    print(f"    {program}: {len(lines)} lines, {stack} bytes of stack, {2048 - ram - stack} never used")
    assert stack <= STACK_MAX, f"{stack} bytes of stack"
    path = HERE / "golden" / f"{program}.txt"
    if RECORD:
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    expected = path.read_text().splitlines()
    for number, (is_, should) in enumerate(zip(lines, expected), 1):
        assert is_ == should, f"line {number}: {is_}\nexpected {should}"
    assert len(lines) == len(expected), f"{len(lines)} lines instead of {len(expected)}"


def test_golden_interval():
    golden("interval")


def test_golden_on_change():
    golden("on-change")


def test_golden_on_request():
    golden("on-request")


def test_golden_features():
    golden("features")


def hung(seconds, *script, mute=0):
    """What the Uno says that hangs now and then, with its boot lines; its watchdog is the only help.

    mute: so many starts hang before their boot line has left.
    """
    sketch = toolchain.sketches(toolchain.WORK, HERE / "plain.yaml", profile="uno-plain")[0]
    trace, script_path = toolchain.WORK / "trace.csv", toolchain.WORK / "script"
    write_trace(trace, seconds)
    script_path.write_text("".join(f"{ms} {body if body == 'hang' else down(body)}\n" for ms, body in script))
    said = toolchain.run(toolchain.build_avrnode(), toolchain.build_uno(pathlib.Path(sketch["folder"])), "--trace",
                         trace, "--seconds", seconds, "--script", script_path, *toolchain.attached(sketch))
    hangs = [ms for ms, body in script if body == "hang"]
    resets = [int(ms) for ms in re.findall(r"^reset (\d+)$", said, re.M)]
    # Two seconds from when it was fed last, and nothing else resets it.
    assert len(resets) == len(hangs) and all(1900 <= reset - hang <= 2200 for hang, reset in zip(hangs, resets)), resets
    stack = 0x900 - int(re.search(r"^stack (\d+) at", said, re.M)[1])
    assert stack <= STACK_MAX, f"{stack} bytes of stack"
    bodies, cut = [], 0
    for line in re.findall(r"^\{.*", said, re.M):
        if re.search(r"\*[0-9A-F]{4}$", line):
            bodies.append(unframe(line))
        else:
            cut += 1
    boots = [body for body in bodies if body["k"] == "b"]
    assert [boot["boot"] for boot in boots] == list(range(1, len(hangs) + 2))[mute:], boots
    assert [boot["cause"] for boot in boots] == (["power"] + ["wdt"] * len(hangs))[mute:], boots
    return bodies, boots, cut


def test_watchdog():
    """A hang on trial comes back in the kept program, also out of a line; the third soon is too many."""
    bodies, boots, cut = hung(
        25, (500, "1 prog interval period=300"), (900, "2 keep"), (1500, "3 prog interval period=100 trial=60"),
        (3012, "hang"), (8000, "4 hb"), (9000, "hang"), (15000, "hang"))
    assert cut == 1, f"{cut} lines were cut; the first hang is meant to be in the middle of one"
    assert [boot["tx"]["pmin"] for boot in boots] == [1000, 300, 300, 1000], boots
    for boot in boots:
        readings = [(0, body) for body in bodies if body["k"] == "s" and body["boot"] == boot["boot"]]
        period = 100 if boot["boot"] == 1 else boot["tx"]["pmin"]
        assert all(abs(span - period) <= 3 for span in spans(readings, 5)), readings
        assert readings[0][1]["seq"] == 0 and no_gap(readings) >= 8, readings
    acks = [(body["id"], body["boot"]) for body in bodies if body["k"] == "a"]
    assert acks == [(1, 1), (2, 1), (3, 1), (4, 2)], acks
    events = [(body["boot"], body["ev"], body.get("why")) for body in bodies if body["k"] == "x"]
    assert events == [(4, "safe", "resets")], events


def test_watchdog_start():
    """The watchdog is on before a start is done."""
    hung(5, (1, "hang"), mute=1)


def test_watchdog_settled():
    """A node that ran for a minute has settled: what hung before does not count any more."""
    _, boots, _ = hung(80, (500, "1 prog interval period=300"), (900, "2 keep"), (2000, "hang"), (6000, "hang"),
                       (75000, "hang"))
    assert [boot["tx"]["pmin"] for boot in boots] == [1000, 300, 300, 300], boots


PARTS = ROOT / "firmware-templates" / "parts"
SENSORS_MAX = 12


def parts():
    """Every part as its folder describes it, with its test cases."""
    listed = json.loads(toolchain.run(toolchain.BIN, "explain", "parts", "-o", "json"))["items"]
    assert sorted(part["name"] for part in listed) == sorted(folder.name for folder in PARTS.iterdir())
    return [{**part, "cases": json.loads((PARTS / part["name"] / "test.json").read_text())} for part in listed]


def bench(board, chosen, free):
    """A manifest with these parts on free pins of a board; each part with its place and properties.

    free: the pins of the board, by connection.
    """
    free = {connection: list(pins) for connection, pins in free.items()}
    sensors, actuators, features, placed = [], [], {}, []
    for part in chosen:
        feature = part["name"].replace("-", "_")
        if part["connection"] == "i2c":
            place, at = {}, f"0x{part['addresses'][0]:02x}"
        else:
            pin = free[part["connection"]].pop(0)
            place, at = {"pin": pin}, str(toolchain.pin_number(pin))
        if "sets" in part:
            kind = part["sets"][0]
            features[feature] = {"properties": {"value": {"type": kind, "readOnly": False}}}
            actuators.append({"type": part["name"], **place, "property": f"{feature}/value"})
        else:
            names = [measured["quantity"] for measured in part["measures"]]
            kind = "boolean" if part.get("conversion") == "level" else "number"
            features[feature] = {"properties": {name: {"type": kind} for name in names}}
            sensors.append({"type": part["name"], **place, "properties": {name: f"{feature}/{name}" for name in names}})
        placed.append((part, at, feature))
    name = f"bench-{board}-{'-'.join(part['name'] for part in chosen)}"[:60].rstrip("-")
    spec = {"board": board, "transmission": {"program": "interval", "interval": "200ms"}}
    documents = [
        {"kind": "TwinModel", "metadata": {"name": name}, "spec": {"features": features}},
        {"kind": "NodeProfile", "metadata": {"name": name}, "spec": {**spec, "sensors": sensors, "actuators": actuators}},
        {"kind": "Twin", "metadata": {"name": name}, "spec": {"model": name, "node": {"profile": name}}}]
    path = toolchain.WORK / f"{name}.yaml"
    toolchain.WORK.mkdir(parents=True, exist_ok=True)
    path.write_text("---\n".join(json.dumps(document) + "\n" for document in documents))
    return path, name, placed


def agrees(case, measured):
    """Whether a reading of one part is what its case wants; `null` is a quantity that is not there."""
    for quantity, wanted in case["reports"].items():
        is_ = measured.get(quantity)
        if wanted is None or isinstance(wanted, bool):
            if is_ is not wanted:
                return False
        elif is_ is None or abs(is_ - wanted) > case["within"] + 1e-9:
            return False
    return True


def order(case, at):
    """The line that makes a case so."""
    words = [case["event"]] if "event" in case else []
    return " ".join(["part", at, *words, *(f"{name}={value}" for name, value in case.get("set", {}).items())])


HOST_PINS = {"analog": [f"GPIO{pin}" for pin in (32, 33, 34, 35, 36, 39)],
             "digital": [f"GPIO{pin}" for pin in (4, 5, 13, 14, 16, 17, 18, 19, 23, 25)]}
UNO_PINS = {"analog": ["A0"], "digital": ["5"]}


def batches(listed):
    """Parts by how many fit one node."""
    listed = list(listed)
    batch, measured, analog = [], 0, 0
    for part in listed:
        more, pins = len(part.get("measures", [])), part["connection"] == "analog"
        if measured + more > SENSORS_MAX or analog + pins > len(HOST_PINS["analog"]):
            yield batch
            batch, measured, analog = [], 0, 0
        batch.append(part)
        measured, analog = measured + more, analog + pins
    if len(batch) == 1:
        # A node whose only part has no value sends nothing, so it could not be seen that it has none.
        batch.insert(0, listed[0])
    yield batch


def test_parts_host():
    """Every part's cases, with its driver and its emulated part on the host board."""
    for batch in batches(parts()):
        manifest, name, placed = bench("esp32", batch, HOST_PINS)
        sketch = toolchain.sketches(toolchain.WORK, manifest, profile=name, host=True)[0]
        program = toolchain.build_host(pathlib.Path(sketch["folder"]))
        server = Mosquitto()
        watcher = Watcher(server.port, "lab/bench")
        home = pathlib.Path(tempfile.mkdtemp(prefix="edgetwin-firmware-"))
        node = Host(program, server.port, "lab/bench", home / "eeprom", printed=True)
        try:
            watcher.wait("state", lambda state: state["up"] == 1)
            number = 0
            for part, at, feature in placed:
                for case in part["cases"]:
                    begun = time.monotonic()
                    if "act" in case:
                        number += 1
                        value = json.dumps(case["act"])
                        node.forget_printed()
                        assert watcher.command(f"{number} act {feature}/value {value}")["st"] == "ok"
                        node.wait_printed(case["prints"].replace("PIN", at))
                        continue
                    node.say(order(case, at))
                    named = lambda body: {  # noqa: E731
                        quantity: body.get(feature, {}).get(quantity, body.get(quantity)) for quantity in case["reports"]}
                    try:
                        watcher.wait("data", lambda body: agrees(case, named(body)), after=begun, timeout=15)
                    except AssertionError as error:
                        raise AssertionError(f"{part['name']}: {case}, but {named(watcher.all('data')[-1][1])}") from error
                print(f"    {part['name']}: {len(part['cases'])} cases")
        finally:
            watcher.stop()
            node.stop()
            server.stop()


def test_parts_uno():
    """Every part's cases in the emulated Uno, and that it takes no more than its folder says."""
    empty = None
    for part in parts():
        manifest, name, [(_, at, feature)] = bench("uno", [part], UNO_PINS)
        sketch = toolchain.sketches(toolchain.WORK, manifest, profile=name)[0]
        elf = toolchain.build_uno(pathlib.Path(sketch["folder"]))
        flash, ram = toolchain.sizes(elf)
        assert flash <= sketch["flash"] and ram <= sketch["ram"], f"{part['name']}: {flash}, {ram}, {sketch}"
        empty = min(flash, empty or flash)
        trace, script = toolchain.WORK / "still.csv", toolchain.WORK / "script"
        trace.write_text("0,0,0,0,0,200,500\n")
        lines, step = [], 8000
        for index, case in enumerate(part["cases"]):
            text = down(f"{index + 1} act value {json.dumps(case['act'])}") if "act" in case else order(case, at)
            lines.append(f"{500 + index * step} {text}\n")
        script.write_text("".join(lines))
        printed = toolchain.run(toolchain.build_avrnode(), elf, "--trace", trace, "--seconds",
                                (500 + len(lines) * step) // 1000 + 1, "--script", script, *toolchain.attached(sketch))
        bodies = [unframe(line) for line in printed.splitlines() if line.startswith("{")]
        for index, case in enumerate(part["cases"]):
            if "act" in case:
                assert any(body.get("id") == index + 1 and body["st"] == "ok" for body in bodies), bodies
                continue
            until = 500 + (index + 1) * step
            seen = [body for body in bodies if body["k"] == "s" and until - 2000 < body["ms"] < until]
            measured = [{quantity: body.get(feature, {}).get(quantity, body.get(quantity)) for quantity in case["reports"]}
                        for body in seen]
            gone = all(wanted is None for wanted in case["reports"].values())
            assert (gone and not seen) or (seen and all(agrees(case, one) for one in measured)), \
                f"{part['name']}: {case}, but {measured[-3:]}"
        print(f"    {part['name']}: {len(part['cases'])} cases; {flash} bytes of flash, {ram} of RAM")


def host_program():
    plain = toolchain.generate(toolchain.WORK, HERE / "plain.yaml", profile="esp32-plain", host=True)
    return toolchain.build_host(plain[0])


class Mosquitto:
    """A broker that steers nobody, so that a test can send the commands."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self):
        config = toolchain.WORK / f"mosquitto-{self.port}.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.process = subprocess.Popen(["mosquitto", "-c", config], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "mosquitto does not listen"
                time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()

    stop = kill


class Runtime:
    """A runtime with the twins of plain.yaml, on the same port after a restart."""

    def __init__(self, *extra, **options):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="edgetwin-firmware-"))
        self.server = Server(self.home / "state", toolchain.BIN, ["-f", str(HERE / "plain.yaml"), *extra], **options)
        self.start()
        self.port = self.server.address("mqtt")[1]
        self.server.command[self.server.command.index("--mqtt") + 1] = f"127.0.0.1:{self.port}"

    def start(self):
        self.server.start()

    def kill(self):
        self.server.kill()

    def stop(self):
        self.server.stop()

    def get(self, path):
        return toolchain.run("curl", "-sf", self.server.url("http") + path)


INPUTS = ["analog 34 500", "swing 34 60", "analog 35 1000", "part 4 temperature=21.3 humidity=40.5", "analog 32 1975"]


class Lab:
    """The sketch as a process, a broker or runtime, and somebody who watches."""

    def __init__(self, server=None):
        self.program = host_program()
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="edgetwin-firmware-"))
        self.server = server or Mosquitto()
        self.port = self.server.port
        self.watcher = Watcher(self.port, "lab/bench")
        self.node = self.start()

    def start(self):
        node = Host(self.program, self.port, "lab/bench", self.home / "eeprom")
        node.say(*INPUTS)
        return node

    def __enter__(self):
        self.watcher.wait("state", lambda state: state["up"] == 1)
        self.watcher.wait("data")
        return self

    def __exit__(self, kind, *_):
        self.watcher.stop()
        try:
            self.node.stop()
        except AssertionError:
            if kind is None:
                raise
        self.server.stop()


def test_host_commands():
    """Readings arrive, commands are answered, and the rate changes within two periods."""
    with Lab() as lab:
        watcher = lab.watcher
        assert watcher.command("17 prog interval period=200 trial=60")["tx"]["pmin"] == 200
        changed = time.monotonic()
        at, _ = watcher.wait("data", after=changed)
        assert at - changed <= 0.5, f"{at - changed:.2f} s until the first reading"
        watcher.wait("data", lambda body: body["seq"] >= 8)
        assert all(150 <= span <= 250 for span in spans(watcher.all("data"), 5)), spans(watcher.all("data"), 5)
        assert watcher.command("17 prog interval period=200 trial=60")["dup"] == 1
        refused = watcher.command("18 prog interval period=1")
        assert (refused["st"], refused["why"]) == ("range", "period")
        assert watcher.command("19 fly")["st"] == "op"
        assert watcher.command("20 hb ttl=1@1")["st"] == "late"
        begun = time.monotonic()
        assert watcher.command("21 get environment/humidity")["st"] == "ok"
        _, body = watcher.wait("data", lambda body: body["program"] == "on-request", after=begun)
        assert body["humidity"] == 40.5 and "light" not in body, body
        assert watcher.command("22 prog on-change on=light st=environment/light:50 pmin=100")["st"] == "ok"
        lab.node.say("analog 35 2000")
        _, body = watcher.wait("data", lambda body: body["program"] == "on-change")
        assert body["light"] == 800, body
        lab.node.say("part 4 off")
        watcher.wait("event", lambda body: body["ev"] == "fault", timeout=15)
        # 1.975 V behind the divider are 72 % of the way from 3.3 V to 4.2 V.
        ack = watcher.command("23 hb")
        assert (ack["rssi"], ack["battery"]) == (-60, 72), ack
        lab.node.say("rssi -75", "battery 41")
        for number, body in ((24, "hb"), (25, "info")):
            ack = watcher.command(f"{number} {body}")
            assert (ack["rssi"], ack["battery"]) == (-75, 41), ack
        watcher.wait("state", lambda state: (state["rssi"], state["battery"]) == (-75, 41))
        ack = watcher.command("26 get")
        assert "rssi" not in ack and "battery" not in ack, ack
        no_gap(watcher.all("data"))


def test_host_features():
    """The features of a known signal, within a count."""
    with Lab() as lab:
        lab.watcher.command("1 prog features on=environment/light period=1000")
        _, body = lab.watcher.wait("feat", lambda body: body["seq"] > 3)
        light = body["light"]
        assert abs(light["mean"] - 400) <= 1 and light["min"] <= light["mean"] <= light["max"], light
        assert light["var"] <= 1 and 9 <= body["n"] <= 11, body


def test_host_store_and_forward():
    """The network goes and comes, the runtime is killed and comes back: no reading is missing."""
    with Lab(Runtime()) as lab:
        watcher = lab.watcher
        # It is told, or finds it retained when it comes: that depends on who was first.
        watcher.wait("ack|state", lambda body: body.get("tx", {}).get("pmin") == 100)
        _, body = watcher.wait("data")
        watcher.wait("data", lambda later: later["seq"] >= body["seq"] + 10)
        lab.node.say("network lab down")
        watcher.wait("state", lambda state: state["up"] == 0)
        time.sleep(3)  # of readings that have to wait
        back = time.monotonic()
        lab.node.say("network lab up")
        watcher.wait("state", lambda state: state["up"] == 1, after=back)
        watcher.wait("data", lambda body: not body.get("old"), after=back + 0.5)
        assert any(body.get("old") for _, body in watcher.all("data"))
        assert no_gap(watcher.all("data")) >= 40
        watcher.stop()
        lab.server.kill()
        time.sleep(2)  # of readings that have to wait
        lab.server.start()
        lab.watcher = watcher = Watcher(lab.port, "lab/bench")
        _, state = watcher.wait("state", lambda state: state["up"] == 1, timeout=20)
        assert state["lost"] == 0, state
        _, body = watcher.wait("data")
        watcher.wait("data", lambda later: later["seq"] >= body["seq"] + 10)
        # What came before anybody listened again is known by the runtime, which counts the numbers.
        twin = json.loads(lab.server.get("/api/2/things/lab:bench"))
        assert "temperature" in twin["features"]["environment"]["properties"], twin


def test_host_lease_and_will():
    """Without a word from the edge the node goes back to its own way; a killed one leaves its will."""
    with Lab() as lab:
        watcher = lab.watcher
        watcher.command("1 lease 2")
        watcher.command("2 prog interval period=100")
        _, event = watcher.wait("event", lambda body: body["ev"] == "lease")
        assert event["tx"]["pmin"] == 1000
        watcher.command("3 prog interval period=100")
        watcher.command("4 lease 3")
        lab.server.kill()
        watcher.stop()
        time.sleep(4)  # the lease
        lab.server.start()
        lab.watcher = watcher = Watcher(lab.port, "lab/bench")
        _, state = watcher.wait("state", lambda state: state["up"] == 1, timeout=15)
        assert state["tx"]["pmin"] == 1000, state
        boot = state["boot"]
        lab.node.process.kill()
        watcher.wait("state", lambda state: state == {"up": 0, "boot": boot})
        lab.node.stop()
        lab.node = lab.start()
        _, state = watcher.wait("state", lambda body: body.get("up") == 1 and body["boot"] > boot)
        assert state["cause"] == "power", state


def test_host_keep_and_hang():
    """What is kept is there after a hang; what is on trial is not; three quick resets are enough."""
    with Lab() as lab:
        watcher = lab.watcher
        watcher.command("1 prog interval period=300")
        assert watcher.command("2 keep")["tx"]["kept"] == 1
        watcher.command("3 prog interval period=100 trial=60")
        boot = watcher.wait("state")[1]["boot"]
        for turn in range(1, 4):
            lab.node.say("hang")
            _, state = watcher.wait("state", lambda body: body.get("boot") == boot + turn and body["up"], timeout=15)
            assert state["cause"] == "wdt", state
            if turn < 3:
                assert state["tx"]["pmin"] == 300, state
            lab.node.say(*INPUTS)
        assert state["tx"]["pmin"] == 1000, state
        watcher.wait("event", lambda body: body["ev"] == "safe" and body["why"] == "resets")


def test_host_radio():
    """Another network is joined on command; one that the node does not know is refused."""
    with Lab() as lab:
        watcher = lab.watcher
        assert watcher.command("1 radio elsewhere")["why"] == "radio"
        moved = time.monotonic()
        assert watcher.command("2 radio spare")["st"] == "ok"
        watcher.wait("state", lambda state: state["up"] == 1, after=moved)
        lab.node.say("network lab down")  # and it does not matter any more
        watcher.wait("data", after=time.monotonic() + 1)
        no_gap(watcher.all("data"))


def test_gateway():
    """An emulated Uno in real time through the gateway: readings, commands, lost lines, a cut line."""
    sketch = toolchain.sketches(toolchain.WORK, HERE / "plain.yaml", profile="uno-plain")[0]
    elf = toolchain.build_uno(pathlib.Path(sketch["folder"]))
    trace = toolchain.WORK / "gateway.csv"
    write_trace(trace, 60)
    uno = Uno(elf, trace, toolchain.attached(sketch))
    link = pathlib.Path(tempfile.mkdtemp(prefix="edgetwin-firmware-")) / "line"
    link.symlink_to(uno.device)
    server = Runtime("--serial", f"{link}=lab/desk")
    watcher = Watcher(server.port, "lab/desk")
    try:
        _, state = watcher.wait("state", lambda body: body.get("up") == 1)
        assert state["via"] and state["board"] == "uno", state
        # 3.8 V at the pin, in steps of half a percent; a serial line has no signal strength.
        assert 55 <= state["battery"] <= 57 and "rssi" not in state, state
        # What the twin asks for reaches the node.
        # It comes as a command, or, decided before the node was there, as what it finds desired.
        at, _ = watcher.wait("ack|state|data", lambda body: body.get("tx", {}).get("pmin") == 200 or body.get("seq", 0) >= 8)
        reading, body = watcher.wait("data", after=at)
        assert reading - at <= 0.6, f"{reading - at:.2f} s until the first reading"
        watcher.wait("data", lambda later: later["seq"] >= body["seq"] + 8)
        assert all(150 <= span <= 250 for span in spans(watcher.all("data"), 5)), spans(watcher.all("data"), 5)
        assert watcher.command("18 act fan true")["act"] == {"fan": True}
        assert watcher.command("18 act fan true")["dup"] == 1
        assert watcher.command("19 prog interval period=1")["why"] == "period"
        loud = "environment/loudness"
        longest = f"20 prog on-change on={loud} pmin=500 pmax=60000 st={loud}:3 gt={loud}:70.5 lt={loud}:20.5"
        assert watcher.command(longest)["st"] == "ok"
        # The line is stolen for a moment: what another reader gets the gateway does not.
        thief = subprocess.run(["timeout", "1.5", "cat", link], stdout=subprocess.PIPE)
        assert b'"k":"s"' in thief.stdout, thief.stdout
        again = time.monotonic()
        watcher.wait("data", lambda body: not body.get("old"), after=again + 3)
        assert any(body.get("old") for _, body in watcher.all("data")), "nothing was asked for again"
        no_gap(watcher.all("data") + watcher.all("feat"))
        # It hangs, and its watchdog helps it: the edge hears why, and readings go on.
        boot, hung_at = state["boot"], time.monotonic()
        uno.process.send_signal(signal.SIGUSR1)
        _, state = watcher.wait("state", lambda body: body.get("boot") == boot + 1, after=hung_at)
        assert state["cause"] == "wdt", state
        watcher.wait("data", lambda body: body["boot"] == boot + 1 and body["seq"] >= 1, after=hung_at)
        # The node goes, and the gateway says so; it comes back on another device.
        uno.stop()
        watcher.wait("state", lambda body: body.get("up") == 0 and "via" in body)
        uno = Uno(elf, trace, toolchain.attached(sketch))
        link.unlink()
        link.symlink_to(uno.device)
        back = time.monotonic()
        watcher.wait("state", lambda body: body.get("up") == 1, after=back)
        watcher.wait("data", after=back)
        twin = json.loads(server.get("/api/2/things/lab:desk"))
        assert "temperature" in twin["features"]["environment"]["properties"], twin
    finally:
        watcher.stop()
        uno.stop()
        server.stop()


def steered(watcher, upset, calm):
    """An anomaly makes the node send five times as often within two periods, and then slower again."""
    _, first = watcher.wait("data")
    watcher.wait("data", lambda body: body["seq"] >= first["seq"] + 2)
    assert all(900 <= span <= 1100 for span in spans(watcher.all("data"), 3)), spans(watcher.all("data"), 3)
    upset()
    at, command = watcher.wait("cmd", lambda body: "period=200" in body or "pmin=200" in body, timeout=20)
    at, ack = watcher.wait("ack", lambda ack: ack["id"] == int(command.split()[0]))
    assert ack["st"] == "ok" and ack["tx"]["pmin"] == 200, ack
    reading, _ = watcher.wait("data", after=at)
    assert reading - at <= 0.4 + 0.2, f"{reading - at:.2f} s until the first reading"
    fast = time.monotonic()
    watcher.wait("data", after=fast + 1.2)
    count = len([body for when, body in watcher.all("data") if when >= fast])
    assert count >= 5, f"{count} readings in 1.2 s"
    calm()
    slow, ack = watcher.wait("ack", lambda ack: ack.get("tx", {}).get("pmin") == 1000, after=fast, timeout=30)
    watcher.wait("data", after=slow + 3)
    later = [entry for entry in watcher.all("data") if entry[0] >= slow + 0.2]
    assert all(900 <= span <= 1100 for span in spans(later, 3)), spans(later, 3)
    no_gap(watcher.all("data"))


def test_loop():
    """Verdict, rule, command, reading: an emulated Uno and the ESP32's process, until the edge is gone."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="edgetwin-firmware-"))
    manifests = [QUICKSTART, HERE / "loop.yaml"]
    sketch = toolchain.sketches(toolchain.WORK, *manifests, profile="uno-loop")[0]
    elf = toolchain.build_uno(pathlib.Path(sketch["folder"]))
    program = toolchain.build_host(toolchain.generate(toolchain.WORK, *manifests, profile="esp32-loop", host=True)[0])
    trace = home / "trace.csv"
    trace.write_text("0,215,4500,1500,6,215,400\n9000,420,4500,1500,6,215,400\n14000,215,4500,1500,6,215,400\n"
                     "40000,420,4500,1500,6,215,400\n")
    uno = Uno(elf, trace, toolchain.attached(sketch))
    begun = time.monotonic()
    extra = ["-f", str(QUICKSTART), "-f", str(HERE / "loop.yaml"), "--serial", f"{uno.device}=lab/uno"]
    server = Server(home / "state", toolchain.BIN, extra)
    server.start()
    port = server.address("mqtt")[1]
    esp = Host(program, port, "lab/esp", home / "eeprom")
    calm, hot = ["analog 34 500", "swing 34 4", "analog 35 1125", "part 4 temperature=21.5 humidity=40"], ["part 4 temperature=42 humidity=40"]
    esp.say(*calm)
    watchers = {name: Watcher(port, f"lab/{name}") for name in ("uno", "esp")}
    failed = []

    def check(name, upset, settle):
        try:
            steered(watchers[name], upset, settle)
        except Exception:  # noqa: BLE001  told by the main thread
            failed.append(f"{name}: {traceback.format_exc()}")

    try:
        threads = [threading.Thread(target=check, args=("uno", lambda: None, lambda: None)),
                   threading.Thread(target=check, args=("esp", lambda: esp.say(*hot), lambda: esp.say(*calm)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed, "\n".join(failed)
        # Both are sent faster once more, and then nobody is there to say so.
        esp.say(*hot)
        again = time.monotonic()
        for watcher in watchers.values():
            watcher.wait("ack", lambda ack: ack.get("tx", {}).get("pmin") == 200, after=again, timeout=60)
        print(f"    steered for {again - begun:.0f} s; the edge is stopped", flush=True)
        server.kill()
        text = subprocess.run(["timeout", "10", "cat", uno.device], capture_output=True, text=True).stdout
        lines = [unframe(line) for line in text.splitlines()[1:-1] if line.startswith("{")]
        lease = [body for body in lines if body.get("ev") == "lease"]
        assert lease and lease[0]["tx"]["pmin"] == 1000, lines[-3:]
        readings = [(0, body) for body in lines if body["k"] == "s" and body["ms"] > lease[0]["ms"]]
        assert len(readings) >= 2 and all(900 <= span <= 1100 for span in spans(readings, 4)), readings
        server.command[server.command.index("--mqtt") + 1] = f"127.0.0.1:{port}"
        server.start()
        watchers["esp"].stop()
        watchers["esp"] = Watcher(port, "lab/esp")
        _, event = watchers["esp"].wait("event", lambda body: body["ev"] == "lease", timeout=15)
        assert event["tx"]["pmin"] == 1000, event
    finally:
        for watcher in watchers.values():
            watcher.stop()
        uno.stop()
        esp.process.kill()
        server.stop()
    esp.stop()


def test_simulate():
    """Simulated nodes are the firmware where there is a compiler, and obey without one as well."""
    for compiler, build in (("", "simulated"), ("g++", None)):
        home = pathlib.Path(tempfile.mkdtemp(prefix="edgetwin-firmware-"))
        extra = ["-f", str(QUICKSTART), "--simulate"]
        server = Server(home / "state", toolchain.BIN, extra, under=["env", f"CXX={compiler}"])
        server.start()
        watcher = Watcher(server.address("mqtt")[1], "lab/north-1")
        try:
            _, state = watcher.wait("state", lambda body: body["up"] == 1, timeout=30)
            assert (state["build"] == "simulated") == (build == "simulated"), state
            assert state["rssi"] == -60 and "battery" not in state, state
            watcher.wait("data", lambda body: body["temperature"] > 0 and body["light"] >= 0)
            assert watcher.command("7 info")["tx"]["program"] == "interval"
            assert watcher.command("8 get light")["st"] == "ok"
            watcher.wait("data", lambda body: body["program"] == "on-request")
            no_gap(watcher.all("data"))
        finally:
            watcher.stop()
            server.stop()


def test_simulated_battery():
    """A simulated node has the battery of its profile, as a process and without one."""
    for compiler in ("", "g++"):
        server = Runtime("--simulate", under=["env", f"CXX={compiler}"])
        watcher = Watcher(server.port, "lab/bench")
        try:
            _, state = watcher.wait("state", lambda body: body["up"] == 1, timeout=30)
            assert (state["build"] == "simulated") == (not compiler) and 50 <= state["battery"] <= 100, state
            ack = watcher.command("7 hb")
            assert ack["rssi"] == -60 and state["battery"] - 1 <= ack["battery"] <= state["battery"], ack
        finally:
            watcher.stop()
            server.stop()


def main():
    word = sys.argv[sys.argv.index("-k") + 1] if "-k" in sys.argv else ""
    tests = [(name, test) for name, test in globals().items() if name.startswith("test_") and word in name]
    failed = 0
    for name, test in tests:
        begun = time.monotonic()
        try:
            test()
            print(f"ok    {name} ({time.monotonic() - begun:.1f} s)", flush=True)
        except Exception:  # noqa: BLE001  every failure is one, whatever it is called
            failed += 1
            print(f"FAIL  {name}\n{traceback.format_exc()}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
