#!/usr/bin/env python3
"""Every interoperability suite, each against a fresh `edgetwin` of its own.

    all.py [--program target/debug/edgetwin] [-k mqtt]

Uses the real clients that tests/run installs under target/; a missing one is a failure here, never
a skip. Ends with `N passed, N failed`; exits 1 if any failed.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from edgetwin import ROOT, NotStarted, Server, binary  # noqa: E402

VENV = ROOT / "target/venv/bin/python"
MQTT = ("--host", "{mqtt_host}", "--port", "{mqtt_port}")
HTTP = ("--http", "{http}")
EUREKA = ("--eureka", "{eureka}")
SUITES = [
    ("mqtt_conformance", [sys.executable, HERE / "mqtt_conformance.py", *MQTT]),
    ("mqtt_clients.py", [VENV, HERE / "mqtt_clients.py", *MQTT]),
    ("mqtt_clients.mjs", ["node", HERE / "mqtt_clients.mjs", *MQTT]),
    ("ditto_clients.py", [sys.executable, HERE / "ditto_clients.py", *HTTP]),
    ("ditto_clients.mjs", ["node", HERE / "ditto_clients.mjs", *HTTP]),
    ("eureka_clients.py", [VENV, HERE / "eureka_clients.py", *EUREKA]),
    ("eureka_clients.mjs", ["node", HERE / "eureka_clients.mjs", *EUREKA]),
]


def run(name, command, program):
    """Passed and failed of one suite; a suite that cannot run has failed."""
    print(f"--- {name}", flush=True)
    state = tempfile.mkdtemp(prefix="edgetwin-interop-")
    server = Server(state, program)
    try:
        server.start()
        host, port = server.address("mqtt")
        places = {"mqtt_host": host, "mqtt_port": port, "http": server.url("http"),
                  "eureka": server.url("eureka")}
        words = [str(word).format(**places) for word in command]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=600)
        print(done.stdout, end="", flush=True)
        closing = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout.rstrip().split("\n")[-1])
        if not closing:
            print(f"{name} ended with {done.returncode} and no closing line")
            return 0, 1
        passed, failed = int(closing[1]), int(closing[2])
        code, took = server.stop()
        if code != 0 or took > 2:
            print(f"FAIL  Ctrl-C after {name}: exit code {code} after {took:.1f} s")
            failed += 1
        return passed, failed
    except (NotStarted, OSError, subprocess.TimeoutExpired) as error:
        print(f"FAIL  {name}: {error}")
        return 0, 1
    finally:
        server.kill()
        shutil.rmtree(state, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", help="default: EDGETWIN_BIN, or the newest build")
    parser.add_argument("-k", metavar="PATTERN", default="", help="only suites named like this")
    args = parser.parse_args()
    program = args.program or str(binary())
    results = [run(name, command, program) for name, command in SUITES if args.k in name]
    passed, failed = (sum(column) for column in zip(*results)) if results else (0, 0)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
