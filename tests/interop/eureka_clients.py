#!/usr/bin/env python3
"""Does py-eureka-client, unmodified, work with our registry?

    eureka_clients.py --eureka http://127.0.0.1:8761/eureka [-k pattern] [--json]

It reads XML only. Prints a line a test and ends with `N passed, N failed`; exits 1 if any failed.
"""

import asyncio
import logging
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from runner import check, parser, run  # noqa: E402

import py_eureka_client.eureka_client as eureka  # noqa: E402

RUN = secrets.token_hex(3)
CASES = []
# The library logs every refusal that a test provokes.
logging.disable(logging.CRITICAL)
# Its calls are coroutines, and its timers want a loop that runs all the time.
LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, daemon=True).start()
eureka.set_event_loop(LOOP)


class Api:
    """The library's functions, awaited."""

    def __getattr__(self, name):
        return lambda *given: wait(getattr(eureka, name)(SERVER, *given))


def wait(coroutine):
    found = asyncio.run_coroutine_threadsafe(coroutine, LOOP).result(15)
    # One of the library's functions forgets to await another.
    return wait(found) if asyncio.iscoroutine(found) else found


api = Api()


def test(body):
    CASES.append((body.__name__.replace("_", " "), "", body))
    return body


def eventually(condition, what, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"no {what} within {seconds} s")
        time.sleep(0.05)


def instance(app, number, **more):
    """What the library's low level registers."""
    given = eureka.Instance(
        instanceId=f"127.0.0.1:{app}:{number}", hostName="127.0.0.1", ipAddr="127.0.0.1",
        app=app.upper(), status=eureka.INSTANCE_STATUS_UP, vipAddress=f"{app}-vip,{app}-second",
        secureVipAddress=f"{app}-secure", metadata={"zone": "a", "with_under.score": "1 < 2"},
        port=eureka.PortWrapper(port=number, enabled=True),
        dataCenterInfo=eureka.DataCenterInfo(name="MyOwn"),
        leaseInfo=eureka.LeaseInfo(renewalIntervalInSecs=1, durationInSecs=30),
        lastDirtyTimestamp=str(int(time.time() * 1000)))
    for name, value in more.items():
        setattr(given, name, value)
    return given


def started(app, port, **more):
    client = eureka.EurekaClient(
        eureka_server=OPTIONS.eureka + "/", app_name=app, instance_host="127.0.0.1",
        instance_ip="127.0.0.1", instance_port=port, renewal_interval_in_secs=1,
        duration_in_secs=3, metadata={"zone": "a"}, **more)
    wait(client.start())
    return client


def known(app):
    """Ids of an application, as a full fetch tells them."""
    found = api.get_applications().get_application(app.upper())
    return {i.instanceId: i for i in found.instances} if found else {}


def status_of(path):
    try:
        return urllib.request.urlopen(OPTIONS.eureka + path).status
    except urllib.error.HTTPError as error:
        return error.code


@test
def registers_is_seen_and_cancels():
    app = f"py-{RUN}-low"
    given = instance(app, 9101)
    api.register(given)
    seen = known(app)[given.instanceId]
    check(seen.port.port == 9101 and seen.port.enabled, f"port {seen.port.port}")
    check(seen.status == "UP" and seen.metadata["zone"] == "a", "status or metadata")
    check(seen.leaseInfo.durationInSecs == 30, f"lease {seen.leaseInfo.durationInSecs}")
    api.cancel(app.upper(), given.instanceId)
    check(not known(app), "still there")


@test
def is_found_by_application_id_and_virtual_address():
    app = f"py-{RUN}-find"
    given = instance(app, 9102)
    api.register(given)
    one = api.get_app_instance(app, given.instanceId)
    check(one.instanceId == given.instanceId, "by application and id")
    check(api.get_instance(given.instanceId).app == app.upper(), "by id")
    check(len(api.get_application(app).instances) == 1, "by application")
    for vip in (f"{app}-vip", f"{app}-second"):
        check(api.get_vip(vip).get_application(app.upper()), f"by {vip}")
    check(api.get_secure_vip(f"{app}-secure").get_application(app.upper()), "secure vip")
    check(not api.get_vip(f"{app}-none").applications, "unknown vip is an empty list")


@test
def metadata_keys_that_xml_cannot_name_arrive():
    app = f"py-{RUN}-meta"
    given = instance(app, 9103, metadata={"a b": "1", "a_b": "<&>", "9": "x", "plain.dots": "y"})
    api.register(given)
    # The library does not decode the names as Java does; the values are what counts.
    check(sorted(known(app)[given.instanceId].metadata.values()) == ["1", "<&>", "x", "y"],
          f"{known(app)[given.instanceId].metadata}")


@test
def heartbeat_of_nobody_is_told_to_register():
    try:
        api.send_heartbeat("NOBODY", "x:1", 1)
    except urllib.error.HTTPError as error:
        check(error.code == 404, f"{error.code}")
    except Exception as error:  # the library has an error of its own
        check("404" in str(error) or "HTTP" in type(error).__name__, repr(error))
    else:
        check(False, "no error")


@test
def status_is_overridden_and_given_back():
    app = f"py-{RUN}-status"
    given = instance(app, 9104)
    dirty = given.lastDirtyTimestamp
    api.register(given)
    api.status_update(app.upper(), given.instanceId, dirty, "OUT_OF_SERVICE")
    seen = known(app)[given.instanceId]
    check((seen.status, seen.overriddenstatus) == ("OUT_OF_SERVICE",) * 2, f"{vars(seen)}")
    api.delete_status_override(app.upper(), given.instanceId, dirty)
    check(known(app)[given.instanceId].status == "UNKNOWN", "the override is gone")
    api.register(instance(app, 9104))
    check(known(app)[given.instanceId].status == "UP", "up again")


@test
def delta_tells_of_what_came_and_went():
    app = f"py-{RUN}-delta"
    given = instance(app, 9105)
    api.register(given)
    actions = lambda: [i.actionType for i in
                       api.get_delta().get_application(app.upper()).instances]
    check(actions() == ["ADDED"], f"{actions()}")
    api.cancel(app.upper(), given.instanceId)
    check(actions()[-1] == "DELETED", f"{actions()}")
    check(api.get_delta().appsHashcode == api.get_applications().appsHashcode,
          "delta and full fetch have one hash")


@test
def a_started_client_renews_discovers_and_stops():
    app = f"py-{RUN}-life"
    client = started(app, 9106)
    try:
        check(list(known(app)), "registered")
        time.sleep(4.5)  # longer than the lease: its heartbeats keep it
        check(list(known(app)), "kept by heartbeats")
        eventually(lambda: client.applications.get_application(app.upper()).up_instances,
                   "discovery of itself")
    finally:
        wait(client.stop())
    eventually(lambda: not known(app), "end after stop")


@test
def a_client_that_was_forgotten_registers_again():
    app = f"py-{RUN}-back"
    client = started(app, 9107, should_discover=False)
    try:
        for found in known(app):
            api.cancel(app.upper(), found)
        eventually(lambda: known(app), "registration after the 404")
    finally:
        wait(client.stop())


@test
def a_silent_instance_is_gone_when_its_lease_ends():
    app = f"py-{RUN}-dead"
    given = instance(app, 9108)
    given.leaseInfo.durationInSecs = 2
    api.register(given)
    check(known(app), "there at first")
    began = time.monotonic()
    eventually(lambda: not known(app), "expiry")
    took = time.monotonic() - began
    check(1.0 < took < 3.5, f"gone after {took:.1f} s")


@test
def unknown_things_are_404():
    for path in ("/apps/NOBODY", "/apps/NOBODY/1", "/instances/nobody", "/nothing"):
        check(status_of(path) == 404, f"{path}: {status_of(path)}")


arguments = parser(__doc__)
arguments.add_argument("--eureka", default="http://127.0.0.1:8761/eureka")
OPTIONS = arguments.parse_args()
OPTIONS.eureka = OPTIONS.eureka.rstrip("/")
SERVER = OPTIONS.eureka + "/"
code = run(CASES, OPTIONS)
sys.stdout.flush()
# The library's timers would keep the process.
__import__("os")._exit(code)
