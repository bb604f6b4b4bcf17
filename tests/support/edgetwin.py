"""A running `edgetwin` for tests: started on free ports, found by what it prints, killed or stopped.

Any executable that takes the same arguments and prints the same lines will do.
"""

import os
import re
import signal
import subprocess
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {
    "http": re.compile(r"\bhttp\s+(http://[\w.\[\]:-]+)"),
    "mqtt": re.compile(r"\bmqtt\s+((?:mqtt|tcp)://[\w.\[\]:-]+)"),
    "eureka": re.compile(r"\beureka\s+(http://[\w.\[\]:-]+(?:/[\w/]*)?)"),
}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class NotStarted(Exception):
    """The process ended, or said nothing of its addresses in time."""


def binary():
    """The executable under test: EDGETWIN_BIN, or the newer of the release and debug builds."""
    if given := os.environ.get("EDGETWIN_BIN"):
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [p for p in (target / "release/edgetwin", target / "debug/edgetwin") if p.exists()]
    if not built:
        raise NotStarted("no binary: build first (cargo build), or set EDGETWIN_BIN")
    return max(built, key=lambda p: p.stat().st_mtime)


class Server:
    """One process of `edgetwin run` on its own state directory."""

    def __init__(self, state, program=None, extra=(), under=()):
        """`under`: a command that the program is run by, and becomes."""
        self.command = [*under, str(program or binary()), "run", "--state", str(state),
                        "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0",
                        "--eureka", "127.0.0.1:0", *extra]
        self.process, self.said, self.found = None, [], {}
        self._ready = threading.Event()

    def spawn(self):
        """Starts the process without waiting for it to listen."""
        self.said, self.found = [], {}
        self._ready = threading.Event()
        environment = dict(os.environ, NO_COLOR="1")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, errors="replace", env=environment)
        threading.Thread(target=self._read, args=(self.process, self._ready), daemon=True).start()
        return self

    def start(self, wait_s=20):
        """Starts the process and waits until it has said where it listens."""
        self.spawn()
        self.await_ready(wait_s)
        return self

    def await_ready(self, wait_s=20):
        self._ready.wait(wait_s)
        missing = [name for name in ("http", "mqtt") if name not in self.found]
        if missing:
            code = self.process.poll()
            ended = f"ended with {code}" if code is not None else f"silent for {wait_s} s"
            self.kill()
            raise NotStarted(f"no address of {', '.join(missing)}: {ended}; said:\n"
                             + "".join(self.said[-20:]))

    def _read(self, process, ready):
        for line in process.stdout:
            self.said.append(line)
            del self.said[:-2000]
            plain = COLOUR.sub("", line)
            for name, pattern in ADDRESSES.items():
                if name not in self.found and (hit := pattern.search(plain)):
                    self.found[name] = hit.group(1)
            if len(self.found) == len(ADDRESSES):
                ready.set()
        ready.set()

    def address(self, name):
        """Host and port of `http`, `mqtt` or `eureka`."""
        parts = urllib.parse.urlsplit(self.found[name])
        return parts.hostname, parts.port

    def url(self, name):
        return self.found[name].rstrip("/")

    def kill(self):
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self, wait_s=10):
        """Ctrl-C; returns the exit code and the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        return code, time.monotonic() - started
