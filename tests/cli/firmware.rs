//! `gen-firmware`: checked before anything is written, the same bytes again, edits left alone.

use std::fs;
use std::path::Path;

use expect_test::expect;

use crate::support::process::{edgetwin, edgetwin_in};
use crate::support::snapshot::snapshot;

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_same_profile_gives_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().to_str().unwrap();
    let make = |name: &str| {
        let target = format!("{out}/{name}");
        let run = edgetwin(&["gen-firmware", "-f", "manifests/serial", "--out", &target]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        files(&home.path().join(name).join("uno-desk"))
    };
    let first = make("a");
    assert_eq!(first, make("b"));
    assert_eq!(first, make("a"), "again, over itself");
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    for wanted in ["uno-desk.ino", "et_config.h", "et_core.cpp", "sketch.yaml", "BUILD.md"] {
        assert!(names.contains(&wanted), "{wanted} is not in {names:?}");
    }
    let project = first.iter().find(|(name, _)| name == "sketch.yaml").unwrap();
    assert_eq!(
        String::from_utf8_lossy(&project.1),
        "profiles:
  uno:
    notes: uno-desk, made by edgetwin gen-firmware
    fqbn: arduino:avr:uno
    platforms:
      - platform: arduino:avr (1.8.6)
default_profile: uno
"
    );
}

#[test]
fn an_edited_file_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().to_str().unwrap();
    let make = |more: &[&str]| {
        let fixed = ["gen-firmware", "uno-mini", "-f", "manifests/serial", "-o", out];
        edgetwin(&[&fixed, more].concat())
    };
    assert_eq!(make(&[]).code, 0);
    let edited = home.path().join("uno-mini/et_core.cpp");
    let config = home.path().join("uno-mini/et_config.h");
    fs::write(&edited, "// mine\n").unwrap();
    fs::remove_file(&config).unwrap();
    let refused = make(&[]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("et_core.cpp` was edited"), "{}", refused.stderr);
    assert_eq!(fs::read(&edited).unwrap(), b"// mine\n");
    assert!(!config.exists(), "nothing else is written either");
    assert_eq!(make(&["--force"]).code, 0);
    assert_ne!(fs::read(&edited).unwrap(), b"// mine\n");
}

#[test]
fn what_does_not_fit_is_shown_where_it_stands() {
    let home = tempfile::tempdir().unwrap();
    let manifest = "kind: NodeProfile
metadata: {name: big}
spec:
  board: uno
  sensors:
    - {type: lm35, pin: A0, property: environment/temperature}
  programs: [interval, burst]
  transmission: {program: interval, interval: 5ms}
  memory: {ring: 500}
";
    fs::write(home.path().join("big.yaml"), manifest).unwrap();
    let arguments = ["gen-firmware", "big", "-f", "big.yaml", "--out", "out"];
    let run = edgetwin_in(home.path(), &arguments, "");
    snapshot(
        &run,
        expect![[r#"
            exit 78
            --- stderr
            error[ET0505]: firmware has no program `burst` yet
             --> big.yaml:7:24
              |
            7 |   programs: [interval, burst]
              |                        ^^^^^

            hint: the programs are interval, on-change, on-request, features

            error[ET0504]: a message of up to 162 bytes every 5 ms does not fit the serial line
             --> big.yaml:8:47
              |
            8 |   transmission: {program: interval, interval: 5ms}
              |                                               ^^^

            hint: at 115,200 Bd, 21 ms or more do

            error[ET0504]: this takes about 8254 of the uno's 2048 bytes of RAM and leaves less than 512 for the stack
             --> big.yaml:9:18
              |
            9 |   memory: {ring: 500}
              |                  ^^^

            hint: a ring of 52 readings would fit

            3 errors in 1 file. Nothing was written.
        "#]],
    );
    assert!(!home.path().join("out").exists());
}

#[test]
fn a_profile_that_is_not_there_gets_a_suggestion() {
    let run =
        edgetwin(&["gen-firmware", "uno-dsk", "-f", "manifests/serial", "--out", "/nonexistent"]);
    assert_eq!(run.code, 64);
    assert!(run.stderr.contains("did you mean `uno-desk`?"), "{}", run.stderr);
}

#[test]
fn what_firmware_does_not_have_is_reported_by_validate() {
    let home = tempfile::tempdir().unwrap();
    let manifest = "kind: NodeProfile
metadata: {name: typos}
spec:
  board: esp23
  sensors: [{type: dht12, pin: 4, property: air/temperature}]
  actuators: [{type: relai, pin: 5, property: room/fan}]
---
kind: NodeProfile
metadata: {name: words}
spec:
  board: esp32
  actuators: [{type: relay, pin: 5, property: room/fan, safe: closed}]
  programs: [intervall]
---
kind: NodeProfile
metadata: {name: bus}
spec:
  board: uno
  sensors: [{type: lm35, pin: A0, address: 35, property: air/temperature}]
";
    fs::write(home.path().join("typos.yaml"), manifest).unwrap();
    let run = edgetwin_in(home.path(), &["validate", "typos.yaml"], "");
    assert_eq!(run.code, 78, "{}", run.stderr);
    let outputs = format!("{}{}", run.stdout, run.stderr);
    for wanted in [
        "did you mean `esp32`?",
        "did you mean `dht11`?",
        "did you mean `relay`?",
        "`room/fan` is true or false, and `safe` is \"closed\"",
        "write `true` or `false`",
        "did you mean `interval`?",
        "a lm35 is not on the I2C bus and has no address",
    ] {
        assert!(outputs.contains(wanted), "{wanted} is not in\n{outputs}");
    }
}

#[test]
fn parts_are_explained() {
    let run = edgetwin(&["explain", "parts", "-o", "name"]);
    assert!(run.stdout.contains("lm35\n") && run.stdout.contains("relay\n"), "{}", run.stdout);
    snapshot(
        &edgetwin(&["explain", "lm35"]),
        expect![[r#"
        exit 0
        --- stdout
        lm35  <sensor, analog pin>

        Analog temperature sensor, 10 mV per degree.

        Measures:
          temperature  <Cel>  from -10 to 150

        Read every 100 ms; `period` can be 10 ms or more.

        Takes about 950 bytes of flash and 22 of RAM on an Uno.
    "#]],
    );
}
