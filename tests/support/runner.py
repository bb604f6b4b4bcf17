"""Runs the tests of a script and prints them in the way all of them do.

A line a test, `N passed, N failed` at the end, exit code 1 if any failed.
"""

import argparse
import json
import time


class Failed(AssertionError):
    """A test's expectation did not hold."""


def check(condition, message):
    if not condition:
        raise Failed(message)


def parser(about):
    """The arguments that every suite has."""
    made = argparse.ArgumentParser(description=about.splitlines()[0])
    made.add_argument("-k", metavar="PATTERN", default="", help="only tests named like this")
    made.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    return made


def run(cases, args, known=None):
    """Runs `(name, version or "", function)`; `known` maps names to why they fail there."""
    results = []
    for name, version, body in cases:
        if args.k.lower() not in name:
            continue
        outcome, detail, started = "ok", "", time.monotonic()
        try:
            body()
        except Exception as error:  # one broken test must not hide the others
            shown = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
            outcome, detail = "FAIL", f"{shown}{error}"
        if outcome == "FAIL" and name in (known or {}):
            outcome, detail = "known", known[name]
        results.append({"test": name, "version": version, "outcome": outcome, "detail": detail,
                        "seconds": round(time.monotonic() - started, 2)})
        if not args.json:
            print(f"{outcome:<5} {version and f'{version:<6}'}{name}"
                  + (f": {detail}" if detail else ""), flush=True)
    passed = sum(r["outcome"] == "ok" for r in results)
    failed = sum(r["outcome"] == "FAIL" for r in results)
    if args.json:
        print(json.dumps({"passed": passed, "failed": failed, "tests": results}, indent=1))
    else:
        print(f"{passed} passed, {failed} failed")
    return 1 if failed or not results else 0
