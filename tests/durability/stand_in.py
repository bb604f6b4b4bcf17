#!/usr/bin/env python3
"""A stand-in for `edgetwin run`, honest or with a planted fault: does kill_rounds.py see it?

    kill_rounds.py --program tests/durability/stand_in.py                        must pass
    STAND_IN_FAULT=lose|twice|skip kill_rounds.py --program …/stand_in.py        must fail

One process, one log of JSON lines; QoS 1 in, four HTTP calls. `lose` acknowledges before writing,
`twice` applies what is sent again, `skip` forgets every thousandth reading.
"""

import argparse
import json
import os
import selectors
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from mqtt import codec  # noqa: E402

FAULT = os.environ.get("STAND_IN_FAULT", "")
things, seen = {}, {}


def apply(record):
    thing = things.setdefault(record["id"], {"_revision": 0, "features": {}})
    thing["_revision"] += 1
    if "reading" in record:
        seen[record["id"]] = record["at"]
        thing["features"]["environment"] = {"properties": record["reading"]}


def recover(path):
    with open(path, "a+b") as log:
        log.seek(0)
        end = 0
        for line in log:
            if not line.endswith(b"\n"):
                break
            apply(json.loads(line))
            end += len(line)
        log.truncate(end)
    return open(path, "ab", buffering=0)


class Http(BaseHTTPRequestHandler):
    log_file = None

    def do_PUT(self):
        self.rfile.read(int(self.headers["content-length"]))
        record = {"id": self.path.rsplit("/", 1)[1]}
        apply(record)
        self.log_file.write(json.dumps(record).encode() + b"\n")
        self.send_response(201)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        body = json.dumps(things[self.path.rsplit("/", 1)[1].split("?")[0]]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def publish(connection, raw, version):
    """Applies a reading unless it was applied before; returns the log line and the PUBACK."""
    at = 1
    while raw[at] & 0x80:
        at += 1
    at += 1
    length = int.from_bytes(raw[at:at + 2], "big")
    topic = raw[at + 2:at + 2 + length].decode()
    at += 2 + length
    pid = int.from_bytes(raw[at:at + 2], "big")
    payload = json.loads(raw[at + 2 + (version == codec.V5):])
    ident = "lab:" + topic.split("/")[3]
    mark = [payload["boot"], payload["seq"]]
    line = b""
    fresh = mark > seen.get(ident, [0, 0]) or FAULT == "twice"
    if fresh and not (FAULT == "skip" and payload["seq"] % 1000 == 0):
        record = {"id": ident, "at": mark, "reading": payload["environment"]}
        apply(record)
        line = json.dumps(record).encode() + b"\n"
    return line, codec.ack(version, codec.PUBACK, pid)


def send(answers):
    for client, answer in answers:
        try:
            client.sendall(answer)
        except OSError:
            pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    for name in ("state", "http", "mqtt", "eureka"):
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    os.makedirs(args.state, exist_ok=True)
    log = recover(Path(args.state) / "log")
    Http.log_file = log
    web = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"http   http://127.0.0.1:{web.server_port}\n"
          f"mqtt   mqtt://127.0.0.1:{listener.getsockname()[1]}\n"
          f"eureka http://127.0.0.1:1/eureka", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    lazy, late = [], []
    while True:
        lines, acks = [], []
        events = selector.select(0.005 if late else None)
        send(late)
        for key, _ in events:
            if key.fileobj is listener:
                client = listener.accept()[0]
                selector.register(client, selectors.EVENT_READ, {"buffer": bytearray()})
                continue
            try:
                chunk = key.fileobj.recv(65536)
            except OSError:
                chunk = b""
            if not chunk:
                selector.unregister(key.fileobj)
                continue
            key.data["buffer"] += chunk
            while (raw := codec.split(key.data["buffer"])) is not None:
                if raw[0] >> 4 == codec.CONNECT:
                    key.data["version"] = raw[8]
                    acks.append((key.fileobj, b"\x20\x03\0\0\0" if raw[8] == 5 else b"\x20\x02\0\0"))
                else:
                    line, answer = publish(key.fileobj, raw, key.data["version"])
                    lines.append(line)
                    acks.append((key.fileobj, answer))
        if FAULT == "lose":
            lazy += lines
            if len(lazy) > 500:
                log.write(b"".join(lazy))
                lazy = []
        else:
            log.write(b"".join(lines))
        # With `twice`, something is written and not acknowledged at any moment.
        late = [item for item in acks if FAULT == "twice" and item[1][0] == 0x40]
        send([item for item in acks if item not in late])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
