"""Builds generated sketches with real compilers: avr-gcc with the Arduino core, and the host's."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "firmware"
BIN = pathlib.Path(os.environ.get("EDGETWIN_BIN", TARGET / "debug" / "edgetwin"))

STRICT = ["-Wall", "-Wextra", "-Werror"]
MCU = ["-mmcu=atmega328p", "-DF_CPU=16000000L", "-DARDUINO=10819", "-DARDUINO_AVR_UNO",
       "-DARDUINO_ARCH_AVR", "-DDECIMAL_DIG=__DECIMAL_DIG__"]
CXX = ["-c", "-g", "-Os", "-std=gnu++11", "-fpermissive", "-fno-exceptions", "-ffunction-sections",
       "-fdata-sections", "-fno-threadsafe-statics", "-flto"]
CC = ["-c", "-g", "-Os", "-std=gnu11", "-ffunction-sections", "-fdata-sections", "-flto",
      "-fno-fat-lto-objects"]
AS = ["-c", "-g", "-x", "assembler-with-cpp", "-flto"]


def run(*command, **options):
    """Runs a command to its end; its output if it succeeds, and all it said if not."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def sketches(out, *paths, profile=None, host=False, arguments=()):
    """Makes the sketches of a manifest: what each is, with its folder and its parts."""
    files = [word for path in paths for word in ("-f", path)]
    command = [BIN, "gen-firmware", *([profile] if profile else []), *files, "--out", out,
               *(["--host"] if host else []), *arguments, "--output", "json"]
    return json.loads(run(*command))["items"]


def generate(*arguments, **options):
    """Makes the sketches of a manifest; their folders."""
    return [pathlib.Path(sketch["folder"]) for sketch in sketches(*arguments, **options)]


def attached(sketch):
    """The options that attach a sketch's parts to the emulated Uno."""
    return [word for part in sketch["parts"] for word in ("--part", f"{part['part']}@{part['at']}")]


def pin_number(name):
    """The number that C++ has for a pin as printed on the board."""
    return 14 + int(name[1:]) if name.startswith("A") else int(name.removeprefix("GPIO"))


def arduino_core():
    """The folder of the AVR core."""
    for line in run("dpkg", "-L", "arduino-core-avr").splitlines():
        if line.endswith("/boards.txt"):
            return pathlib.Path(line).parent
    raise AssertionError("arduino-core-avr has no boards.txt")


def build_core():
    """core.a, once."""
    out = WORK / "core"
    archive = out / "core.a"
    if archive.exists():
        return archive
    out.mkdir(parents=True, exist_ok=True)
    home = arduino_core()
    source = home / "cores" / "arduino"
    include = [f"-I{source}", f"-I{home / 'variants' / 'standard'}"]
    objects = []
    for path in sorted(source.iterdir()):
        flags = {".cpp": ("avr-g++", CXX), ".c": ("avr-gcc", CC), ".S": ("avr-gcc", AS)}.get(path.suffix)
        if flags:
            objects.append(out / (path.name + ".o"))
            run(flags[0], *flags[1], "-w", *MCU, *include, path, "-o", objects[-1])
    run("avr-gcc-ar", "rcs", archive, *objects)
    return archive


def build_uno(folder):
    """The sketch's ELF file."""
    home = arduino_core()
    core = build_core()
    include = [f"-I{home / 'cores' / 'arduino'}", f"-I{home / 'variants' / 'standard'}",
               f"-I{home / 'libraries' / 'EEPROM' / 'src'}"]
    out = folder / "build"
    out.mkdir(exist_ok=True)
    objects = []
    for path in sorted([*folder.glob("*.cpp"), *folder.glob("*.ino")]):
        objects.append(out / (path.name + ".o"))
        run("avr-g++", *CXX, *STRICT, *MCU, *include, "-x", "c++",
            path, "-o", objects[-1])
    elf = out / "sketch.elf"
    run("avr-gcc", "-Os", "-g", "-flto", "-fuse-linker-plugin", "-Wl,--gc-sections",
        "-mmcu=atmega328p", "-o", elf, *objects, core, "-lm")
    run("avr-objcopy", "-O", "ihex", "-R", ".eeprom", elf, out / "sketch.hex")
    return elf


def sizes(elf):
    """(flash, RAM) in bytes."""
    text, data, bss = run("avr-size", elf).splitlines()[1].split()[:3]
    return int(text) + int(data), int(data) + int(bss)


def build_host(folder, sanitize=True):
    """The sketch as a process."""
    out = folder / "build"
    out.mkdir(exist_ok=True)
    program = out / ("node-sanitized" if sanitize else "node")
    sources = [*sorted(folder.glob("*.cpp")), *sorted((folder / "host").glob("*.cpp"))]
    flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"] if sanitize else ["-O2"]
    run("g++", "-std=gnu++11", *STRICT, *flags, f"-I{folder}", f"-I{folder / 'host'}", *sources,
        "-x", "c++", *sorted(folder.glob("*.ino")), "-o", program)
    return program


def build_avrnode():
    """The emulated Uno, with the emulated part of every folder."""
    WORK.mkdir(parents=True, exist_ok=True)
    program, listed = WORK / "avrnode", WORK / "parts.h"
    source = pathlib.Path(__file__).with_name("avrnode.cpp")
    common = ROOT / "firmware-templates" / "host"
    headers = sorted((ROOT / "firmware-templates" / "parts").glob("*/emulated.h"))
    text = "".join(f'#include "{header}"\n' for header in headers)
    text += "namespace emulated {\ninline Part *make(const char *name) {\n"
    for header in headers:
        name = header.parent.name
        kind = "".join(word.capitalize() for word in name.split("-"))
        text += f'  if (!strcmp(name, "{name}")) return new {kind};\n'
    text += "  return NULL;\n}\n}\n"
    if not listed.exists() or listed.read_text() != text:
        listed.write_text(text)
    newest = max(path.stat().st_mtime for path in [source, listed, common / "et_emulated.h", *headers])
    if not program.exists() or program.stat().st_mtime < newest:
        run("g++", "-std=gnu++11", "-O2", "-Wall", "-Wextra", f"-I{WORK}", f"-I{common}", source, "-o", program,
            "-lsimavr", "-lelf", "-lutil")
    return program
