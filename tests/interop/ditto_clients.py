#!/usr/bin/env python3
"""Is `/api/2` what Eclipse Ditto's HTTP API 2 is, for the part that edgetwin offers? Raw HTTP.

    ditto_clients.py --http http://127.0.0.1:8080 [-k pattern] [--json]

Things, attributes, features, properties and desired properties at any path; ETags and
preconditions; error bodies; history; SSE; search with eq, and, exists; and that no page of another
site can reach any of it (Host and Origin). Standard library only. Ends with `N passed, N failed`.
"""

import http.client
import json
import os
import re
import socket
import sys
import threading
import time
import urllib.parse
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from runner import Failed, check, parser, run  # noqa: E402

RUN = os.urandom(3).hex()
NS = f"it{RUN}"
WAIT_S = 10
JSON = "application/json"
MERGE = "application/merge-patch+json"
TESTS = []
_count = 0


def test(function):
    TESTS.append(function)
    return function


class Reply:
    def __init__(self, response, body):
        self.status, self.raw = response.status, body
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        try:
            self.json = json.loads(body) if body else None
        except ValueError:
            self.json = None

    @property
    def etag(self):
        check("etag" in self.headers, f"no ETag in a {self.status}")
        return self.headers["etag"]

    def __str__(self):
        return f"{self.status} {self.raw[:300].decode(errors='replace')}"


class Api:
    """Requests as a plain client sends them; each on its own connection."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port

    def __call__(self, method, path, body=None, headers=(), raw=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WAIT_S)
        try:
            headers = {name.lower(): value for name, value in dict(headers).items()}
            data = raw if raw is not None else (None if body is None else json.dumps(body).encode())
            if data is not None and "content-type" not in headers:
                headers["content-type"] = MERGE if method == "PATCH" else JSON
            connection.putrequest(method, path, skip_host="host" in headers,
                                  skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            if data is not None:
                connection.putheader("content-length", str(len(data)))
            connection.endheaders(data)
            response = connection.getresponse()
            return Reply(response, response.read())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def put(self, path, body, **headers):
        return self("PUT", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def patch(self, path, body, **headers):
        return self("PATCH", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def delete(self, path, **headers):
        return self("DELETE", path, headers={k.replace("_", "-"): v for k, v in headers.items()})


api = None


def name():
    """A thing ID of its own."""
    global _count
    _count += 1
    return f"{NS}:thing-{_count}"


def things(thing, rest=""):
    return f"/api/2/things/{thing}{rest}"


def made(thing=None, **parts):
    """A thing that exists; its ID."""
    thing = thing or name()
    reply = api.put(things(thing), parts)
    check(reply.status == 201, f"PUT of a new thing: {reply}")
    return thing


def is_error(reply, status, *codes):
    """A Ditto error body: status, error and message, of this status and one of these codes."""
    check(reply.status == status, f"{reply}, not {status}")
    check(isinstance(reply.json, dict), f"no JSON error body: {reply}")
    body = reply.json
    check(body.get("status") == status, f"`status` in the body: {reply}")
    check(isinstance(body.get("message"), str) and body["message"], f"no `message`: {reply}")
    check(isinstance(body.get("description", ""), str), f"`description`: {reply}")
    check(not codes or body.get("error") in codes, f"{reply}, not {' or '.join(codes)}")
    check("json" in reply.headers.get("content-type", ""), f"content type: {reply.headers}")


def empty(reply, status=204):
    check(reply.status == status, f"{reply}, not {status}")
    check(not reply.raw, f"a {status} with a body: {reply}")


def revision(thing):
    return api.get(things(thing, "?fields=_revision")).json["_revision"]


# --- things ------------------------------------------------------------------------------------

@test
def put_creates_then_replaces():
    """201 with body and Location, then 204 without body; what is left out is gone."""
    thing = name()
    reply = api.put(things(thing), {"attributes": {"a": 1}, "features": {"f": {"properties": {"x": 2}}}})
    check(reply.status == 201, f"{reply}")
    check(reply.json["thingId"] == thing and reply.json["attributes"] == {"a": 1}, f"{reply}")
    check(urllib.parse.unquote(reply.headers.get("location", "")).endswith(things(thing)),
          f"Location {reply.headers.get('location')}")
    empty(api.put(things(thing), {"thingId": thing, "attributes": {"b": 2}}))
    got = api.get(things(thing)).json
    check(got["attributes"] == {"b": 2} and "features" not in got, f"{got}")


@test
def thing_has_a_policy_id():
    """Without one, `policyId` is the thing's ID; a replacing PUT keeps it."""
    thing = made()
    check(api.get(things(thing)).json.get("policyId") == thing, "no implicit policy ID")
    check(api.get(things(thing, "/policyId")).json == thing, "policyId")
    empty(api.put(things(thing), {"attributes": {}}))
    check(api.get(things(thing, "/policyId")).json == thing, "policyId lost")
    check(api.delete(things(thing, "/policyId")).status in (400, 405), "policyId deleted")


@test
def post_gives_an_id():
    """201, Location, the thing in the body; `namespace=` is used; a body with an ID is refused."""
    reply = api("POST", f"/api/2/things?namespace={NS}", {"attributes": {"a": 1}})
    check(reply.status == 201 and reply.json["thingId"].startswith(f"{NS}:"), f"{reply}")
    where = urllib.parse.urlsplit(reply.headers["location"]).path
    check(api.get(where).json == reply.json, "Location does not lead to the thing")
    other = api("POST", "/api/2/things", {})
    check(other.status == 201 and other.json["thingId"] != reply.json["thingId"], f"{other}")
    is_error(api("POST", "/api/2/things", {"thingId": name()}), 400, "things:id.notsettable")
    for thing in (reply.json["thingId"], other.json["thingId"]):
        empty(api.delete(things(thing)))


@test
def delete_and_what_follows():
    """204, then 404 for everything; the ID can be used again, with a new life."""
    thing = made(attributes={"a": 1})
    empty(api.delete(things(thing)))
    is_error(api.get(things(thing)), 404, "things:thing.notfound")
    is_error(api.delete(things(thing)), 404, "things:thing.notfound")
    is_error(api.put(things(thing, "/attributes/a"), 1), 404, "things:thing.notfound")
    is_error(api.patch(things(thing, "/attributes"), {"a": 1}), 404, "things:thing.notfound")
    made(thing)
    check("attributes" not in api.get(things(thing)).json, "attributes of a former life")


@test
def patch_of_a_thing():
    """RFC 7396: merges, null deletes, 204; creates what is not there, 201."""
    thing = made(attributes={"a": {"b": 1, "c": 2}, "d": 3}, features={"f": {"properties": {"x": 1}}})
    empty(api.patch(things(thing), {"attributes": {"a": {"b": None, "e": [1]}, "d": 4},
                                    "features": {"f": {"properties": {"y": 2}}, "g": {}}}))
    got = api.get(things(thing)).json
    check(got["attributes"] == {"a": {"c": 2, "e": [1]}, "d": 4}, f"{got}")
    check(got["features"]["f"]["properties"] == {"x": 1, "y": 2} and "g" in got["features"], f"{got}")
    empty(api.patch(things(thing), {"features": {"f": None}}))
    check("f" not in api.get(things(thing)).json["features"], "feature not deleted")
    new = name()
    reply = api.patch(things(new), {"attributes": {"a": 1, "b": None}})
    check(reply.status == 201, f"{reply}")
    check(api.get(things(new)).json["attributes"] == {"a": 1}, "null in a new thing")
    is_error(api.patch(things(thing), {"thingId": None}), 400)
    is_error(api.patch(things(thing), {"policyId": None}), 400)


@test
def patch_deletes_by_pattern():
    """`{{ ~re~ }}: null` deletes the keys that match."""
    thing = made(features={"f": {"properties": {"2023-1": 1, "2023-2": 2, "2024-1": 3}}})
    empty(api.patch(things(thing, "/features/f/properties"),
                    {"{{ ~2023-.*~ }}": None, "2025-1": 4}))
    got = api.get(things(thing, "/features/f/properties")).json
    check(got == {"2024-1": 3, "2025-1": 4}, f"{got}")


@test
def ids():
    """Well-formed IDs are taken as they are, also percent-encoded; others are 400."""
    for thing in (f"{NS}:a", f"{NS}.sub-x.y:Z_1", f"{NS}:with:colons", f"{NS}:\u017e\u4e2d"):
        path = things(urllib.parse.quote(thing, safe=":"))
        check(api.put(path, {}).status == 201, f"PUT {thing}")
        check(api.get(path).json["thingId"] == thing, f"GET {thing}")
        encoded = things(urllib.parse.quote(thing, safe=""))
        check(api.get(encoded).json["thingId"] == thing, f"GET {encoded}")
        empty(api.delete(path))
    for bad in ("nocolon", "1x:y", "a..b:c", "a%20b:c", f"{NS}:", f"{NS}:{'x' * 260}"):
        is_error(api.put(things(bad), {}), 400, "things:id.invalid")
    is_error(api.put(things(name()), {"thingId": name()}), 400)


@test
def several_things_by_id():
    """`GET /things?ids=`: those that exist, in an array; `fields` applies."""
    one, two = made(attributes={"n": 1}), made(attributes={"n": 2})
    reply = api.get(f"/api/2/things?ids={one},{two},{NS}:missing")
    check(reply.status == 200, f"{reply}")
    check({t["thingId"] for t in reply.json} == {one, two}, f"{reply}")
    reply = api.get(f"/api/2/things?ids={one}%2C{two}&fields=attributes/n")
    check(sorted(t["attributes"]["n"] for t in reply.json) == [1, 2], f"{reply}")
    check(all(set(t) == {"attributes"} for t in reply.json), f"{reply}")


@test
def fields():
    """Lists, pointers, parentheses and `*`; special fields only when asked for."""
    thing = made(definition="a:b:1", attributes={"a": {"b": 1, "c": 2}, "d": 3},
                 features={"f": {"properties": {"x": 1, "y": 2}}, "g": {"properties": {"x": 3}}})
    whole = api.get(things(thing)).json
    check(set(whole) == {"thingId", "policyId", "definition", "attributes", "features"}, f"{whole}")

    def select(text):
        reply = api.get(things(thing, "?fields=" + urllib.parse.quote(text)))
        check(reply.status == 200, f"{text}: {reply}")
        return reply.json

    for text, expected in (
            ("thingId", {"thingId": thing}),
            ("thingId,definition", {"thingId": thing, "definition": "a:b:1"}),
            ("attributes/d", {"attributes": {"d": 3}}),
            ("attributes/a/b,attributes/d", {"attributes": {"a": {"b": 1}, "d": 3}}),
            ("attributes(a/c,d)", {"attributes": {"a": {"c": 2}, "d": 3}}),
            ("features/f/properties(x)", {"features": {"f": {"properties": {"x": 1}}}}),
            ("features/*/properties/x", {"features": {"f": {"properties": {"x": 1}},
                                                      "g": {"properties": {"x": 3}}}}),
            ("attributes/missing", {})):
        got = select(text)
        check(got == expected, f"fields={text}: {got}")
    special = select("_revision,_modified,_created,_namespace")
    check(special["_revision"] == 1 and special["_namespace"] == NS, f"{special}")
    for stamp in ("_modified", "_created"):
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", special[stamp]), f"{special}")
    is_error(api.get(things(thing, "?fields=nonsense")), 400, "things:field.selection.invalid",
             "json.fieldselector.invalid")
    got = api.get(things(thing, "/features/f?fields=properties/x"))
    check(got.json == {"properties": {"x": 1}}, f"{got}")


# --- parts of things ---------------------------------------------------------------------------

PARTS = [  # path, value, another value, code when it is missing
    ("/definition", "a:b:1", "a:b:2", "things:definition.notfound"),
    ("/attributes", {"a": 1}, {"b": {"c": [1, None, "x"]}}, "things:attributes.notfound"),
    ("/attributes/a", 1, {"x": 2}, "things:attribute.notfound"),
    ("/attributes/deep/er/still", True, "text", "things:attribute.notfound"),
    ("/features", {"f": {"properties": {"x": 1}}}, {"g": {}}, "things:features.notfound"),
    ("/features/f", {"properties": {"x": 1}}, {"desiredProperties": {"x": 2}},
     "things:feature.notfound"),
    ("/features/f/definition", ["a:b:1"], ["a:b:1", "c:d:2"], "things:feature.definition.notfound"),
    ("/features/f/properties", {"x": 1}, {"y": 2.5}, "things:feature.properties.notfound"),
    ("/features/f/properties/x", 21.5, {"y": {"z": 1}}, "things:feature.property.notfound"),
    ("/features/f/properties/x/y/z", "a", [1, 2], "things:feature.property.notfound"),
    ("/features/f/desiredProperties", {"x": 1}, {"y": 2}, "things:feature.desiredProperties.notfound"),
    ("/features/f/desiredProperties/x", 1, "on", "things:feature.desiredProperty.notfound"),
    ("/features/f/desiredProperties/x/y", 1, False, "things:feature.desiredProperty.notfound"),
]


def part_of(path):
    """A thing in which the part is missing, but what it is in is there."""
    if path.startswith("/features/f/definition"):
        return made(features={"f": {"properties": {"other": 1}}})
    if re.match(r"/features/f/\w+/", path):
        part = path.split("/")[3]
        return made(features={"f": {part: {"other": 1}}})
    if path.startswith("/features/f/"):
        return made(features={"f": {"definition": ["o:t:1"]}})
    if path.startswith("/features/f"):
        return made(features={"other": {}})
    if path.startswith("/attributes/"):
        return made(attributes={"other": 1})
    return made()


@test
def every_part_can_be_made_read_replaced_and_deleted():
    """PUT 201 then 204, GET, DELETE 204, and the part's own 404 before and after."""
    for path, first, second, code in PARTS:
        thing = part_of(path)
        where = things(thing, path)
        is_error(api.get(where), 404, code)
        is_error(api.delete(where), 404, code)
        reply = api.put(where, first)
        check(reply.status == 201, f"PUT {path}: {reply}")
        check(reply.json in (first, None), f"PUT {path}: {reply}")
        check(api.get(where).json == first, f"GET {path}")
        empty(api.put(where, second))
        check(api.get(where).json == second, f"GET {path} after replacing it")
        check(api.get(where + "/").status == 200, f"GET {path}/")
        empty(api.delete(where))
        is_error(api.get(where), 404, code)


@test
def every_part_can_be_patched():
    """PATCH 204 at any path, also where nothing is yet; null deletes."""
    for path, first, second, code in PARTS:
        if isinstance(first, (list, bool)) or path == "/definition":
            continue
        thing = part_of(path)
        where = things(thing, path)
        empty(api.patch(where, first))
        check(api.get(where).json == first, f"GET {path} after PATCH")
        if isinstance(first, dict):
            key = next(iter(first))
            empty(api.patch(where, {key: None, "more": {"p": 1}}
                            if "properties" in path.lower() or "attributes" in path else {key: None}))
            got = api.get(where)
            check(got.status == 404 or key not in got.json, f"PATCH {path} null: {got}")


@test
def parts_need_what_they_are_in():
    """No thing: 404; no feature: 404 for what is below it (Ditto makes none for a PUT)."""
    missing = name()
    for path, first, _, _ in PARTS:
        is_error(api.put(things(missing, path), first), 404, "things:thing.notfound")
        is_error(api.get(things(missing, path)), 404, "things:thing.notfound")
    thing = made()
    for path, value in (("properties", {"x": 1}), ("properties/x", 1), ("definition", ["a:b:1"]),
                        ("desiredProperties", {"x": 1}), ("desiredProperties/x", 1)):
        is_error(api.put(things(thing, f"/features/none/{path}"), value), 404,
                 "things:feature.notfound")
        check(api.get(things(thing, f"/features/none/{path}")).status == 404, path)
    check(revision(thing) == 1, "a refused change raised the revision")


@test
def json_values_are_kept():
    """Numbers, strings and nesting come back as they were sent."""
    thing = made(attributes={})
    for value in (0, -1, 9007199254740993, 1.5, -2.5e-9, 1e300, True, False, "", "\u00e9\u4e2d\U0001f321",
                  "a\nb\t\"\\", [], {}, [1, [2, [3, {}]]], {"a": {"b": {"c": []}}}):
        check(api.put(things(thing, "/attributes/v"), value).status in (201, 204), f"{value!r}")
        got = api.get(things(thing, "/attributes/v")).json
        check(got == value and type(got) is type(value), f"{got!r}, not {value!r}")


@test
def keys_with_odd_characters():
    """Percent-encoded segments name the same key as in the body."""
    thing = made(attributes={"sp ace": 1, "pl+us": 2, "\u00e9": 3, "a.b": 4, "q?": 5, "h#": 6, "100%": 7})
    for key, value in api.get(things(thing, "/attributes")).json.items():
        got = api.get(things(thing, "/attributes/" + urllib.parse.quote(key)))
        check(got.json == value, f"{key!r}: {got}")


@test
def every_change_raises_the_revision_by_one():
    """Whatever the path and the verb; what is refused raises nothing."""
    thing = made()
    steps = [("PUT", "/attributes", {"a": 1}), ("PUT", "/attributes/a", 2), ("PATCH", "", {"attributes": {"b": 1}}),
             ("PUT", "/features/f", {"properties": {"x": 1}}), ("PATCH", "/features/f/properties", {"y": 1}),
             ("PUT", "/features/f/desiredProperties", {"x": 2}), ("DELETE", "/features/f", None),
             ("PUT", "", {"attributes": {}})]
    for expected, (verb, path, body) in enumerate(steps, 2):
        reply = api(verb, things(thing, path), body)
        check(reply.status in (201, 204), f"{verb} {path}: {reply}")
        check(revision(thing) == expected, f"{verb} {path}: revision {revision(thing)}")
    api.delete(things(thing, "/features/none"))
    api.put(things(thing, "/definition"), 5)
    check(revision(thing) == len(steps) + 1, "a refused change raised the revision")


@test
def writers_do_not_lose_each_others_changes():
    """8 clients × 40 PATCHes at once: each is there, and each raised the revision."""
    thing = made(attributes={})
    failures = []

    def work(worker):
        for number in range(40):
            reply = api.patch(things(thing, "/attributes"), {f"w{worker}n{number}": number})
            if reply.status != 204:
                failures.append(str(reply))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(not failures, f"{failures[:3]}")
    check(len(api.get(things(thing, "/attributes")).json) == 320, "changes lost")
    check(revision(thing) == 321, f"revision {revision(thing)}")


# --- preconditions -----------------------------------------------------------------------------

@test
def etag_of_a_thing():
    """`"rev:N"`, new with each change; GET with it in If-None-Match is 304 without body."""
    thing = made(attributes={"a": 1})
    first = api.get(things(thing))
    check(first.etag == '"rev:1"', f"ETag {first.etag}")
    empty(api.get(things(thing), if_none_match=first.etag), 304)
    empty(api.get(things(thing), if_none_match=f'"rev:9", {first.etag}'), 304)
    check(api.get(things(thing), if_none_match='"rev:9"').status == 200, "other tag")
    reply = api.put(things(thing), {"attributes": {"a": 2}})
    check(reply.headers.get("etag") == '"rev:2"', f"ETag of a PUT: {reply.headers.get('etag')}")
    check(api.get(things(thing), if_none_match=first.etag).status == 200, "old tag")


@test
def etag_of_a_part():
    """Strong, opaque, changes with the part and only then."""
    for path, change, elsewhere in (
            ("/attributes", {"z": 1}, "/features/f/properties/x"),
            ("/attributes/a", 2, "/attributes/b"),
            ("/features/f", {"properties": {"z": 1}}, "/attributes/a"),
            ("/features/f/properties/x", 2, "/attributes/a")):
        thing = made(attributes={"a": 1}, features={"f": {"properties": {"x": 1}}})
        tag = api.get(things(thing, path)).etag
        check(re.fullmatch(r'"[^"]+"', tag), f"{path}: {tag}")
        empty(api.get(things(thing, path), if_none_match=tag), 304)
        api.put(things(thing, elsewhere), 7)
        check(api.get(things(thing, path)).etag == tag, f"{path} has another tag for {elsewhere}")
        empty(api.patch(things(thing, path), change))
        check(api.get(things(thing, path)).etag != tag, f"{path}: same tag after a change")


@test
def if_match():
    """Writes only on the tag's state: 412 otherwise, and nothing changes."""
    thing = made(attributes={"a": 1})
    tag = api.get(things(thing)).etag
    empty(api.put(things(thing), {"attributes": {"a": 2}}, if_match=tag))
    for verb in (api.put, api.patch):
        is_error(verb(things(thing), {"attributes": {"a": 3}}, if_match=tag), 412,
                 "things:precondition.failed")
    is_error(api.delete(things(thing), if_match=tag), 412, "things:precondition.failed")
    check(api.get(things(thing, "/attributes/a")).json == 2, "changed in spite of 412")
    part = api.get(things(thing, "/attributes/a")).etag
    empty(api.put(things(thing, "/attributes/a"), 4, if_match=part))
    is_error(api.put(things(thing, "/attributes/a"), 5, if_match=part), 412,
             "things:precondition.failed")
    empty(api.put(things(thing, "/attributes/a"), 6, if_match="*"))
    is_error(api.put(things(thing, "/attributes/new"), 6, if_match="*"), 412,
             "things:precondition.failed")
    check(api.put(things(name()), {}, if_match="*").status in (404, 412), "created by If-Match: *")
    empty(api.delete(things(thing), if_match=api.get(things(thing)).etag))


@test
def if_none_match():
    """`*` creates and never replaces; a matching tag refuses a write with 412."""
    thing = name()
    check(api.put(things(thing), {"attributes": {"a": 1}}, if_none_match="*").status == 201, "create")
    is_error(api.put(things(thing), {}, if_none_match="*"), 412, "things:precondition.failed")
    check(api.put(things(thing, "/attributes/b"), 1, if_none_match="*").status == 201, "create part")
    is_error(api.put(things(thing, "/attributes/b"), 2, if_none_match="*"), 412,
             "things:precondition.failed")
    is_error(api.put(things(thing), {}, if_none_match=api.get(things(thing)).etag), 412,
             "things:precondition.failed")
    check(api.get(things(thing, "/attributes")).json == {"a": 1, "b": 1}, "changed in spite of 412")


@test
def racing_writers_with_if_match():
    """Of many that write on one state, one wins; a counter built so counts right."""
    thing = made(attributes={"n": 0})
    won = []

    def work():
        while len(won) < 60:
            got = api.get(things(thing, "/attributes/n"))
            reply = api.put(things(thing, "/attributes/n"), got.json + 1, if_match=got.etag)
            if reply.status == 204:
                won.append(1)
            elif reply.status != 412:
                won.extend([str(reply)] * 60)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(all(entry == 1 for entry in won), f"{[e for e in won if e != 1][:1]}")
    counted = api.get(things(thing, "/attributes/n")).json
    check(counted == len(won), f"{len(won)} writers won, the counter says {counted}")


# --- errors ------------------------------------------------------------------------------------

@test
def bodies_that_cannot_be():
    """Broken JSON, wrong types, wrong media types, too large."""
    thing = made(attributes={}, features={"f": {}})
    for raw in (b"{", b"", b"nonsense", b'{"a":1,}', b"\xff"):
        is_error(api("PUT", things(thing, "/attributes"), raw=raw), 400)
    is_error(api("PUT", things(thing), raw=b"{"), 400, "json.invalid")
    for path, value in (("", []), ("", 5), ("/attributes", 5), ("/features", []), ("/features/f", 1),
                        ("/features/f/properties", "x"), ("/definition", 5),
                        ("/features/f/definition", []), ("/features/f/definition", "x")):
        is_error(api.put(things(thing, path), value), 400)
    is_error(api("PUT", things(thing, "/definition"), "no definition"), 400)
    is_error(api("PUT", things(thing), {}, {"content-type": "text/plain"}), 415, "mediatype.unsupported")
    is_error(api("PATCH", things(thing), {}, {"content-type": JSON}), 415, "mediatype.unsupported")
    check(api("PUT", things(thing), {}, {"content-type": "application/json; charset=utf-8"}).status == 204,
          "charset parameter")
    is_error(api.put(things(thing, "/attributes/big"), "x" * 103_000), 413, "things:thing.toolarge")
    check(api("PUT", things(thing), raw=b'{"attributes":{"a":"' + b"x" * 1_200_000 + b'"}}').status == 413,
          "a body above 1 MiB")
    check(api.get(things(thing)).status == 200, "the thing after all that")


@test
def paths_that_are_not():
    """Unknown versions, resources and methods; each in Ditto's error body."""
    thing = made()
    is_error(api.get("/api/1/things"), 404, "api.version.notsupported")
    for path in (things(thing, "/nonsense"), things(thing, "/features/f/nonsense"), "/api/2/nonsense"):
        check(api.get(path).status == 404, f"GET {path}")
    for verb, path in (("POST", things(thing)), ("DELETE", "/api/2/things"), ("PUT", "/api/2/things"),
                       ("POST", things(thing, "/attributes"))):
        is_error(api(verb, path, {} if verb != "DELETE" else None), 405)
    for bad in ("/attributes//a", "/attributes/%01", "/attributes/%ff"):
        check(api.get(things(thing, bad)).status in (400, 404), f"GET {bad}")
    deep = {}
    for _ in range(200):
        deep = {"a": deep}
    check(api.put(things(thing, "/attributes"), deep).status in (400, 413), "200 levels of nesting")


@test
def correlation_id():
    """The request's, or a new one, on every answer, errors too."""
    thing = made()
    for path in (things(thing), things(name())):
        check(api.get(path, correlation_id="abc-1").headers.get("correlation-id") == "abc-1", path)
        given = [api.get(path).headers.get("correlation-id") for _ in range(2)]
        check(all(given) and given[0] != given[1], f"{given}")


@test
def basic_credentials_do_no_harm():
    """Clients of Ditto always send some; a runtime without users takes them on loopback."""
    thing = made()
    reply = api.get(things(thing), authorization="Basic ZGl0dG86ZGl0dG8=")
    check(reply.status == 200, f"{reply}")


@test
def several_requests_on_one_connection():
    """HTTP/1.1 keep alive, also behind an error."""
    thing = made(attributes={"a": 1})
    connection = http.client.HTTPConnection(api.host, api.port, timeout=WAIT_S)
    connection.connect()
    sock = connection.sock
    for path, status in ((things(thing), 200), (things(name()), 404), (things(thing, "/attributes"), 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        check(response.status == status and connection.sock is sock, f"{path}: {response.status}")
    connection.close()


# --- history -----------------------------------------------------------------------------------

@test
def history_by_revision():
    """`at-historical-revision`: the thing, or a part of it, as it was."""
    thing = made(attributes={"n": 1})
    for number in range(2, 6):
        api.put(things(thing, "/attributes/n"), number)
    for number in range(1, 6):
        got = api.get(things(thing), at_historical_revision=str(number))
        check(got.status == 200 and got.json["attributes"]["n"] == number, f"revision {number}: {got}")
        part = api.get(things(thing, "/attributes/n"), at_historical_revision=str(number))
        check(part.json == number, f"revision {number}: {part}")
    is_error(api.get(things(thing), at_historical_revision="99"), 404, "things:thing.history.notfound")
    check(api.get(things(thing), at_historical_revision="x").status == 400, "not a number")


# --- search ------------------------------------------------------------------------------------

def search(filter_=None, **params):
    """IDs that are found, sorted."""
    if filter_:
        params["filter"] = filter_
    reply = api.get("/api/2/search/things?" + urllib.parse.urlencode(params))
    check(reply.status == 200, f"{filter_}: {reply}")
    check(isinstance(reply.json.get("items"), list), f"{reply}")
    return sorted(item["thingId"] for item in reply.json["items"])


def mine(condition):
    return f'and(eq(attributes/run,"{RUN}s"),{condition})'


@test
def search_eq_and_exists():
    """eq on every type and field, and, exists; live, so that no waiting is needed."""
    run_ = f"{RUN}s"
    one = made(attributes={"run": run_, "n": 1, "s": "x", "b": True, "deep": {"er": 1.5}},
               features={"env": {"properties": {"t": 21.5}}})
    two = made(definition="a:b:1", attributes={"run": run_, "n": 2, "s": "y", "b": False, "list": [1, "z"]},
               features={"env": {"properties": {"t": 3}, "desiredProperties": {"t": 4}}, "cam": {}})
    for condition, expected in (
            ("exists(thingId)", [one, two]), ("eq(attributes/n,1)", [one]),
            ("eq(attributes/n,2.0)", [two]), ('eq(attributes/s,"x")', [one]),
            ("eq(attributes/s,'y')", [two]), ("eq(attributes/b,true)", [one]),
            ("eq(attributes/deep/er,1.5)", [one]), (f'eq(thingId,"{two}")', [two]),
            ('eq(definition,"a:b:1")', [two]), ("exists(features/cam)", [two]),
            ("exists(attributes/deep)", [one]), ("exists(features/env/desiredProperties/t)", [two]),
            ("eq(features/env/properties/t,21.5)", [one]), ("eq(features/*/properties/t,3)", [two]),
            ('eq(attributes/list,"z")', [two]), ("eq(attributes/n,9)", []),
            ('eq(attributes/n,"1")', []), ("exists(attributes/none)", []),
            ("and(eq(attributes/n,1),exists(features/env),eq(attributes/b,true))", [one]),
            ("and(eq(attributes/n,1),eq(attributes/n,2))", [])):
        found = search(mine(condition))
        check(found == sorted(expected), f"{condition}: {found}")
    check(search(mine("exists(thingId)"), namespaces=NS) == [one, two], "namespaces=")
    check(search(mine("exists(thingId)"), namespaces="other") == [], "namespaces=other")
    empty(api.put(things(one, "/attributes/n"), 7))
    check(search(mine("eq(attributes/n,7)")) == [one], "a change is not found")
    check(search(mine("eq(attributes/n,1)")) == [], "the old value is found")
    empty(api.delete(things(one)))
    check(search(mine("exists(thingId)")) == [two], "a deleted thing is found")


@test
def search_fields_and_form():
    """`fields` selects; POST takes the same as a form."""
    thing = made(attributes={"only": f"{RUN}f", "x": 1})
    filter_ = f'eq(attributes/only,"{RUN}f")'
    query = urllib.parse.urlencode({"filter": filter_, "fields": "thingId,attributes/x,_revision"})
    got = api.get("/api/2/search/things?" + query)
    check(got.json["items"] == [{"thingId": thing, "attributes": {"x": 1}, "_revision": 1}], f"{got}")
    posted = api("POST", "/api/2/search/things", raw=urllib.parse.urlencode({"filter": filter_}).encode(),
                 headers={"content-type": "application/x-www-form-urlencoded"})
    check([item["thingId"] for item in posted.json["items"]] == [thing], f"{posted}")


@test
def search_filters_that_cannot_be():
    """400 `rql.expression.invalid`, never an empty answer."""
    for bad in ("eq(attributes/n", "eq(attributes/n)", "nonsense(attributes/n,1)", "and()", "eq(unknownField,1)",
                "eq(attributes/n,1))", "()", "eq(attributes/n,nonsense)"):
        is_error(api.get("/api/2/search/things?" + urllib.parse.urlencode({"filter": bad})), 400,
                 "rql.expression.invalid")


# --- server-sent events ------------------------------------------------------------------------

class Events:
    """An open event stream."""

    def __init__(self, path):
        self.connection = http.client.HTTPConnection(api.host, api.port, timeout=WAIT_S)
        self.connection.request("GET", path, headers={"accept": "text/event-stream"})
        self.response = self.connection.getresponse()
        if self.response.status != 200:
            # Read only what ends: an open stream has no end.
            raise Failed(f"{path}: {self.response.status} {self.response.read(300)}")
        content = self.response.getheader("content-type", "")
        check(content.startswith("text/event-stream"), f"content type {content}")

    def next(self):
        """The next event's data as JSON; heartbeats are passed over."""
        data, deadline = [], time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                line = self.response.readline().decode().rstrip("\r\n")
            except TimeoutError:
                break
            if line.startswith("data:"):
                data.append(line[5:].strip())
            elif not line and "".join(data):
                return json.loads("\n".join(data))
        raise Failed(f"no event within {WAIT_S} s")

    def close(self):
        self.connection.close()


@test
def sse_of_things():
    """What changed, with the thing's ID, in order; only of the things asked for."""
    thing, other = made(attributes={"a": 1}), made()
    events = Events(f"/api/2/things?ids={thing}")
    api.put(things(other, "/attributes/x"), 1)
    api.put(things(thing, "/attributes/a"), 2)
    api.put(things(thing, "/features/f"), {"properties": {"x": 1}})
    api.patch(things(thing, "/features/f/properties"), {"y": 2})
    for expected in ({"attributes": {"a": 2}}, {"features": {"f": {"properties": {"x": 1}}}},
                     {"features": {"f": {"properties": {"y": 2}}}}):
        got = events.next()
        check(got == {"thingId": thing, **expected}, f"{got}, not {expected}")
    events.close()


@test
def sse_sees_every_change_once():
    """200 changes in a row arrive in order, none twice."""
    thing = made(attributes={"n": 0})
    events = Events(f"/api/2/things?ids={thing}&fields=thingId,attributes/n")
    for number in range(1, 201):
        api.put(things(thing, "/attributes/n"), number)
    got = [events.next()["attributes"]["n"] for _ in range(200)]
    check(got == list(range(1, 201)), f"{got[:10]}…")
    events.close()


@test
def sse_of_one_thing_and_of_a_part():
    """`/things/{id}` and `/things/{id}/<path>`, which gives the bare value."""
    thing = made(attributes={"a": 1, "b": 1})
    whole, part = Events(things(thing)), Events(things(thing, "/attributes/a"))
    api.put(things(thing, "/attributes/b"), 5)
    api.put(things(thing, "/attributes/a"), 6)
    check(whole.next() == {"thingId": thing, "attributes": {"b": 5}}, "first event")
    check(whole.next() == {"thingId": thing, "attributes": {"a": 6}}, "second event")
    check(part.next() == 6, "bare value")
    whole.close()
    part.close()


@test
def sse_of_all_things():
    """Without `ids`: every thing, also those made later."""
    events = Events("/api/2/things")
    thing = made(attributes={"new": 1})
    while (got := events.next())["thingId"] != thing:
        pass
    check(got["attributes"] == {"new": 1}, f"{got}")
    events.close()


# --- who may ask -------------------------------------------------------------------------------

PLACES = ("/api/2/things?ids=a:b", "/health", "/", "/metrics", "/edgetwin/v1/status",
          "/api/2/search/things", "/eureka/apps", "/no/such/place")


@test
def foreign_hosts_are_refused():
    """DNS rebinding: a name that is not ours in Host is 403 or 421, on every path."""
    port = api.port
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}",
                 f"localhost.evil.example:{port}", f"127.0.0.1@evil.example:{port}", "",
                 f"evil.example:{port},127.0.0.1:{port}"):
        for path in PLACES:
            reply = api.get(path, host=host)
            check(reply.status in (400, 403, 421), f"Host {host!r}, {path}: {reply}")
            check(reply.status != 400 or host in ("", f"127.0.0.1@evil.example:{port}",
                                                  f"evil.example:{port},127.0.0.1:{port}"), f"{host}: {reply}")


@test
def own_hosts_are_taken():
    """127.0.0.1 and localhost, with the port, in any case of letters."""
    thing = made()
    for host in (f"127.0.0.1:{api.port}", f"localhost:{api.port}", f"LocalHost:{api.port}"):
        check(api.get(things(thing), host=host).status == 200, f"Host {host}")


@test
def foreign_origins_are_refused():
    """A page of another site can neither read nor write, nor send a preflight that allows it."""
    thing = made(attributes={"a": 1})
    for origin in ("http://evil.example", f"http://evil.example:{api.port}", "null",
                   f"http://127.0.0.1.evil.example:{api.port}", "http://127.0.0.1:1", "https://localhost"):
        for verb, path, body in (("GET", things(thing), None), ("PUT", things(thing, "/attributes/a"), 2),
                                 ("DELETE", things(thing), None), ("POST", "/api/2/things", {}),
                                 ("GET", "/edgetwin/v1/status", None), ("GET", "/health", None)):
            reply = api(verb, path, body, {"origin": origin})
            check(reply.status in (403, 421), f"Origin {origin}, {verb} {path}: {reply}")
            check("access-control-allow-origin" not in reply.headers, f"{reply.headers}")
        reply = api("OPTIONS", things(thing), headers={"origin": origin, "access-control-request-method": "PUT"})
        check("access-control-allow-origin" not in reply.headers, f"preflight of {origin}: {reply.headers}")
    check(api.get(things(thing, "/attributes/a")).json == 1, "written by a foreign page")


@test
def own_origin_is_taken():
    """The dashboard's own origin."""
    thing = made()
    for place in (f"127.0.0.1:{api.port}", f"localhost:{api.port}"):
        reply = api("PUT", things(thing, "/attributes/a"), 1, {"origin": f"http://{place}", "host": place})
        check(reply.status in (201, 204), f"Origin http://{place}: {reply}")


@test
def foreign_pages_open_no_stream():
    """Event streams and WebSocket upgrades are checked alike."""
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        reply = api("GET", "/api/2/things", headers={"accept": "text/event-stream", **headers})
        check(reply.status in (403, 421), f"{headers}: {reply}")
        reply = api("GET", "/ws/2", headers={
            "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", **headers})
        check(reply.status in (403, 421), f"upgrade, {headers}: {reply}")


@test
def requests_that_are_none():
    """Garbage, two Hosts, no Host: refused; the server goes on."""
    for raw in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n\r\n",
                b"GET /api/2/things HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
                b"GET http://evil.example/api/2/things?ids=a:b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % api.port,
                b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"):
        with socket.create_connection((api.host, api.port), WAIT_S) as sock:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while chunk := sock.recv(4096):
                    answer += chunk
            except ConnectionResetError:
                pass
        check(not re.match(rb"HTTP/1.1 2\d\d", answer), f"{raw[:60]!r}: {answer[:80]!r}")
    check(api.get("/health").status == 200, "the server after that")


def main():
    global api
    arguments = parser(__doc__)
    arguments.add_argument("--http", default="http://127.0.0.1:8080")
    args = arguments.parse_args()
    api = Api(args.http)
    status = run([(function.__name__, "", function) for function in TESTS], args)
    try:  # leave nothing behind
        for found in api.get(f"/api/2/search/things?namespaces={NS}&option=size(200)").json["items"]:
            api.delete(things(urllib.parse.quote(found["thingId"], safe=":")))
    except (OSError, TypeError, KeyError, http.client.HTTPException):
        pass
    return status


if __name__ == "__main__":
    sys.exit(main())
