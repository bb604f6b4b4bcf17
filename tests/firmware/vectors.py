"""The firmware's C++ replays the vectors that `wire` and the simulated node replay too.

    python3 tests/firmware/vectors.py            compares
    python3 tests/firmware/vectors.py --record   writes the lines of sessions.json anew
"""

import json
import pathlib
import re
import sys

import toolchain

HERE = pathlib.Path(__file__).resolve().parent


def build():
    """The session program, with the sanitizers."""
    folder = toolchain.generate(toolchain.WORK, HERE / "session.yaml")[0]
    source = folder / "session"
    source.mkdir(exist_ok=True)
    # The build's digest is part of the state; sessions do not depend on it.
    config = re.sub(r'ET_BUILD ".*"', 'ET_BUILD "00000000"', (folder / "et_config.h").read_text())
    # A serial line has no signal strength; a session may give one.
    config = config.replace("#define ET_RSSI 0", "#define ET_RSSI 1")
    for path in folder.glob("et_*"):
        (source / path.name).write_bytes(path.read_bytes())
    (source / "et_config.h").write_text(config)
    program = source / "session"
    toolchain.run("g++", "-std=gnu++11", *toolchain.STRICT, "-Wshadow", "-g", "-O1",
                  "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{source}",
                  source / "et_core.cpp", source / "et_cmd.cpp", HERE / "session.cpp", "-o", program)
    return program


def replay(program, steps):
    return toolchain.run(program, input="".join(f"{step}\n" for step in steps)).splitlines()


def commands(program):
    """The answers to the bodies of commands.json: what is refused, and why."""
    known = {"temperature": "soil/temperature", "light": "loudness", "humidity": "loudness"}
    failures = 0
    for vector in json.loads((HERE / "vectors" / "commands.json").read_text()):
        body = vector["body"]
        for word, name in known.items():
            body = re.sub(rf"\b{word}\b(?!%)", name, body)
        line = replay(program, [f"cmd {body}"])[-1]
        answer = json.loads(line)
        if "canonical" in vector:
            # It is understood: what is refused then is a value that this node cannot have.
            good = answer["st"] != "range" or answer.get("why") not in ("args", "length", "ttl")
            good = good and (answer["st"] != "op" or " radio " in f" {body} ")
        else:
            wanted = (vector["id"] or 0, vector["st"], vector["why"] if vector["st"] == "range" else None)
            good = (answer["id"], answer["st"], answer.get("why")) == wanted
        if not good:
            failures += 1
            print(f"command {body!r}: {line}, expected {vector}")
    return failures


def main():
    program = build()
    path = HERE / "vectors" / "sessions.json"
    sessions = json.loads(path.read_text())
    failures = 0
    for session in sessions:
        lines = replay(program, session["steps"])
        if "--record" in sys.argv:
            session["lines"] = lines
        elif lines != session["lines"]:
            failures += 1
            print(f"session {session['name']!r}:")
            for number, (is_, should) in enumerate(zip(lines, session["lines"])):
                if is_ != should:
                    print(f"  line {number}: {is_}\n  expected {should}")
                    break
            else:
                print(f"  {len(lines)} lines instead of {len(session['lines'])}")
    if "--record" in sys.argv:
        path.write_text(json.dumps(sessions, indent=1) + "\n")
    failures += commands(program)
    print(f"{len(sessions)} sessions, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
