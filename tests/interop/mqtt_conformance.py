#!/usr/bin/env python3
"""Is an MQTT server what MQTT 3.1.1 and MQTT 5.0 say? One test per numbered statement or group.

    mqtt_conformance.py --port 1883                      both versions
    mqtt_conformance.py --port 1883 --version 5 -k will  a part
    mqtt_conformance.py --list                           the statements covered

Prints a line a test and, behind a failure, the bytes sent and received; ends with
`N passed, N failed`, and exits 1 if any failed. What the standard asks for with SHOULD is printed
as a note; `--strict` makes failures of the notes. `--known mosquitto` accepts the deviations of
that server from the table below: they are printed, and not counted.

Python's standard library only; nothing of the server under test is used.
"""

import argparse
import json
import re
import sys
import time

from mqtt import (codec, connect, flow, malformed, properties, publish, retain, session, shared,
                  subscribe, suite, will)

SECTIONS = (connect, session, publish, retain, subscribe, will, properties, flow, shared, malformed)

# server: {test or (test, version): why it differs}, each checked against the standard's text.
DEVIATIONS = {
    # Debian 12's 2.0.11
    "mosquitto": {
        ("protocol_level_unsupported", "3.1.1"): "bit 7 of the level is its bridge flag: 0x85 is "
                                                 "taken for level 5",
        "connect_property_values_out_of_range": "accepts authentication data without a method "
                                                "(3.1.2.11.10: protocol error)",
        "server_keeps_to_receive_maximum": "after a PUBACK it sends one message too many",
        "client_beyond_receive_maximum_is_cut_off": "answers PUBREC 0x97 instead of DISCONNECT "
                                                    "0x93 (3.3.4)",
        "too_large_for_the_client_is_discarded": "a discarded QoS 1 message keeps its place in "
                                                 "Receive Maximum, so nothing follows "
                                                 "[MQTT-3.1.2-28]",
        "lengths_use_the_fewest_bytes": "accepts padded variable byte integers [MQTT-1.5.5-1]",
        "packets_that_only_a_server_sends": "ignores SUBACK and UNSUBACK from a client, as its "
                                            "bridges share the code",
        "reserved_header_bits": "does not look at the reserved bits of acknowledgements "
                                "[MQTT-2.2.2-2]",
        "bytes_too_many": "ignores bytes behind an acknowledgement's identifier",
        "bytes_too_many_5": "ignores bytes behind an acknowledgement's properties",
        "repeated_qos2_publish_is_one_message": "closes when a QoS 2 PUBLISH is repeated a second "
                                                "time before PUBREL [MQTT-4.3.3-10]",
        "response_topic_is_a_topic_name": "does not look for wildcards [MQTT-3.3.2-14]",
        "dup_with_qos0_is_an_error": "accepts DUP with QoS 0 [MQTT-3.3.1-2]",
        "share_name_rules": "accepts `$share//filter` [MQTT-4.8.2-1]",
        "silent_client_is_cut_off": "looks at keep alive times every five seconds only",
        "what_the_server_sends_keeps_nobody_alive": "looks at keep alive times every five "
                                                    "seconds only",
        ("overlapping_subscriptions_give_the_highest_qos", "3.1.1"):
            "delivers at the QoS of whichever subscription it finds first [MQTT-3.3.5-1]",
        "acknowledgement_reason_must_be_a_known_one": "does not look at the reason of a PUBACK",
        "no_local_with_shared_is_an_error": "accepts it [MQTT-3.8.3-4]",
        "no_local": "subscribing again does not take No Local back [MQTT-3.8.4-3]",
        "publish_with_subscription_identifier": "accepts it [MQTT-3.3.4-6]",
        "will_after_disconnect_with_will": "drops the will also at reasons 0x80 and above "
                                           "(3.14.2.1; only 0x00 drops it)",
        "will_delay_of_a_session_that_is_not_kept": "waits for the delay although the session "
                                                    "has ended [MQTT-3.1.2-8]",
        "will_delay_and_clean_start": "keeps waiting although a clean start ended the session "
                                      "[MQTT-3.1.2-8]",
        "retained_messages_do_not_greet_members": "sends retained messages for shared "
                                                  "subscriptions (4.8.2: none are sent)",
    },
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--version", choices=["3.1.1", "5", "both"], default="both")
    parser.add_argument("-k", metavar="PATTERN", default="",
                        help="only tests whose name or statement contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument("--strict", action="store_true", help="notes (SHOULD) are failures")
    parser.add_argument("--known", choices=sorted(DEVIATIONS), help="accept a server's deviations")
    parser.add_argument("--timeout", type=float, default=5, help="seconds to wait for an event")
    parser.add_argument("--jobs", type=int, default=4, help="tests at a time")
    parser.add_argument("--list", action="store_true", help="list tests and statements, run none")
    return parser.parse_args()


def list_tests():
    statements = set()
    for function, versions, _ in suite.TESTS:
        named = "/".join("5" if v == codec.V5 else "3.1.1" for v in versions)
        print(f"{function.__module__.split('.')[-1]:<11}{function.__name__} ({named})\n"
              f"           {' '.join(function.__doc__.split())}")
        statements |= set(re.findall(r"\[(MQTT-[\d.-]+)\]", function.__doc__))
    print(f"{len(suite.TESTS)} tests, {len(statements)} statement numbers")


def main():
    args = arguments()
    if args.list:
        return list_tests()
    versions = {"3.1.1": [codec.V4], "5": [codec.V5], "both": [codec.V4, codec.V5]}[args.version]
    known = DEVIATIONS.get(args.known, {})
    results = []

    def report(result):
        why = known.get((result.name, result.version), known.get(result.name))
        if result.outcome == "FAIL" and why:
            result.outcome, result.detail = "known", f"{args.known} deviates: {why}"
        results.append(result)
        if args.json:
            return
        line = f"{result.outcome:<5} {result.version:<6}{result.name}"
        if result.detail:
            line += f": {result.detail}"
        print(line)
        if result.outcome == "FAIL":
            print(f"      {result.statement}")
            for entry in result.transcript:
                print(f"      | {entry}")
        for note in result.notes:
            print(f"      note: {note}")
        sys.stdout.flush()

    started = time.monotonic()
    suite.run((args.host, args.port), versions, args.k, args.timeout, args.strict, args.jobs, report)
    passed = sum(r.outcome == "ok" for r in results)
    failed = sum(r.outcome == "FAIL" for r in results)
    if args.json:
        print(json.dumps({"passed": passed, "failed": failed,
                          "seconds": round(time.monotonic() - started, 1),
                          "tests": [r.as_dict() for r in results]}, indent=1))
    else:
        others = len(results) - passed - failed
        print(f"{time.monotonic() - started:.1f} s"
              + (f", {others} not applicable or known" if others else ""))
        print(f"{passed} passed, {failed} failed")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
