//! Every board with random sets of parts and programs: what is planned can be compiled.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::board::{board, board_names};
use super::{Firmware, PROGRAMS, render};
use crate::kinds::{BoardName, Connection, NodeProfileSpec, Part};

/// A profile with these parts on the board's pins, in turn; parts for which no pin is left are left out.
fn profile(
    board_name: &str,
    chosen: &[usize],
    programs: &[&str],
    battery: bool,
) -> NodeProfileSpec {
    let board = board(&BoardName::new(board_name)).unwrap();
    let bus: Vec<&String> = board.i2c.iter().flat_map(|bus| [&bus.sda, &bus.scl]).collect();
    let mut analog: Vec<&String> =
        board.pins.analog.keys().filter(|pin| !bus.contains(pin)).collect();
    let mut digital: Vec<&String> = (board.pins.pwm.iter())
        .filter(|pin| !bus.contains(pin) && !board.pins.analog.contains_key(*pin))
        .collect();
    let mut addresses = Vec::new();
    let (mut sensors, mut actuators) = (Vec::new(), Vec::new());
    for (number, index) in chosen.iter().enumerate() {
        let part = &Part::all()[index % Part::all().len()];
        let place = match part.connection {
            Connection::Analog => analog.pop().map(|pin| ("pin", json!(pin))),
            Connection::Digital => digital.pop().map(|pin| ("pin", json!(pin))),
            Connection::I2c => {
                let free = part.addresses.iter().find(|address| !addresses.contains(*address));
                addresses.extend(free);
                free.map(|address| ("address", json!(address)))
            }
        };
        let Some((key, place)) = place else { continue };
        if part.is_sensor() {
            let properties: serde_json::Map<String, Value> = (part.measures.iter())
                .map(|one| (one.quantity.clone(), json!(format!("f{number}/{}", one.quantity))))
                .collect();
            sensors.push(json!({"type": part.name, key: place, "properties": properties}));
        } else {
            let property = format!("f{number}/value");
            actuators.push(json!({"type": part.name, key: place, "property": property}));
        }
    }
    let mut spec = json!({"board": board_name, "sensors": sensors, "actuators": actuators, "programs": programs});
    if let Some(first) = programs.first() {
        spec["transmission"] = json!({"program": first});
    }
    if let Some(pin) = analog.pop().filter(|_| battery) {
        spec["battery"] = json!({"pin": pin, "emptyVolts": 2.4, "fullVolts": 3.2});
    }
    serde_json::from_value(spec).unwrap()
}

/// The lines of `#define NAME \\` up to the next empty one.
fn body<'a>(config: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("#define {name} ");
    let lines = config.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    lines.take_while(|line| !line.is_empty() && *line != "}").collect()
}

fn number(config: &str, name: &str) -> usize {
    let start = format!("#define {name} ");
    let line = config.lines().find_map(|line| line.strip_prefix(&start));
    line.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {config}"))
}

proptest! {
    #[test]
    fn what_is_planned_hangs_together(
        board_number in 0_usize..8,
        chosen in proptest::collection::vec(0_usize..64, 0..9),
        programs in proptest::sample::subsequence(PROGRAMS.to_vec(), 0..=4),
        battery in any::<bool>(),
    ) {
        let names: Vec<&str> = board_names().collect();
        let spec = profile(names[board_number % names.len()], &chosen, &programs, battery);
        let Ok(firmware) = Firmware::plan("sample", &spec, None) else { return Ok(()) };
        let files = render::host_files(&firmware);
        let text = |name: &str| {
            files.iter().find(|file| file.name == name).map(|file| file.text.as_str()).unwrap_or_default()
        };
        let config = text("et_config.h");
        let (sensors, actuators) = (number(config, "ET_SENSORS"), number(config, "ET_ACTUATORS"));
        prop_assert_eq!(body(config, "ET_PROPERTIES").len(), sensors + actuators);
        // One value for each sensor, and one where there is none: no list in C++ is empty or too long.
        for list in ["ET_DEFAULT_ST", "ET_DEFAULT_GT", "ET_DEFAULT_LT"] {
            let start = format!("#define {list} ");
            let values = config.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
            prop_assert_eq!(values.split(',').count(), sensors.max(1), "{}", values);
        }
        // Every property is read or set exactly once, by a part that is there and was begun.
        let (reads, acts) = (body(config, "ET_READS"), body(config, "ET_ACTUATES"));
        for index in 0..sensors {
            let case = format!("  case {index}: ");
            prop_assert_eq!(reads.iter().filter(|line| line.starts_with(&case)).count(), 1);
        }
        for index in sensors..sensors + actuators {
            let case = format!("  case {index}: ");
            prop_assert_eq!(acts.iter().filter(|line| line.starts_with(&case)).count(), 1);
        }
        prop_assert_eq!(reads.len() + acts.len(), sensors + actuators);
        let parts = body(config, "ET_PARTS");
        for number in 0..parts.len() {
            let name = format!("part{number}");
            let declared = parts.iter().filter(|line| line.contains(&format!(" {name}("))).count();
            prop_assert_eq!(declared, 1, "{}", config);
            let begun = format!("  {name}.begin(); \\");
            prop_assert!(body(config, "ET_BEGIN").contains(&begun.as_str()), "{}", config);
        }
        // The files that are included are there: of the links, the one that the board has.
        for file in &files {
            for line in file.text.lines() {
                let Some(name) = line.strip_prefix("#include \"").and_then(|l| l.strip_suffix('"')) else {
                    continue;
                };
                let there = files.iter().any(|file| file.name.trim_start_matches("host/") == name);
                prop_assert!(there || ["secrets.h", "et_serial.h", "et_mqtt.h"].contains(&name), "{} includes {}", file.name, name);
            }
        }
    }
}

#[test]
fn a_profile_with_actuators_alone_is_planned() {
    for name in board_names() {
        let actuators = Part::all().iter().enumerate().filter(|(_, part)| !part.is_sensor());
        let chosen: Vec<usize> = actuators.map(|(index, _)| index).collect();
        let firmware = Firmware::plan("sample", &profile(name, &chosen, &[], false), None).unwrap();
        assert_eq!((firmware.sensors.len(), firmware.actuators.len()), (0, chosen.len()));
    }
}
