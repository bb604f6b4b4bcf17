//! The files of a sketch. Pure: text in, text out, the same bytes for the same profile.

use minijinja::{Environment, context};
use sha2::{Digest, Sha256};

use super::fit::Property;
use super::part::Driver;
use super::plan::Firmware;
use crate::kinds::Transport;

macro_rules! templates {
    ($($name:literal from $path:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../firmware-templates/", $path)))),*]
    };
}

/// Files that are the same in every sketch.
const SHARED: [(&str, &str); 8] = templates! {
    "et_port.h" from "core/et_port.h",
    "et_line.h" from "core/et_line.h",
    "et_ring.h" from "core/et_ring.h",
    "et_core.h" from "core/et_core.h",
    "et_core.cpp" from "core/et_core.cpp",
    "et_cmd.cpp" from "core/et_cmd.cpp",
    "et_sensors.h" from "sensors/et_sensors.h",
    "et_board.cpp" from "boards/et_board.cpp",
};
const SERIAL: [(&str, &str); 1] = templates! { "et_serial.h" from "link/et_serial.h" };
const MQTT: [(&str, &str); 3] = templates! {
    "et_mqtt.h" from "link/et_mqtt.h",
    "et_mqtt.cpp" from "link/et_mqtt.cpp",
    "secrets.h.example" from "sketch/secrets.h.example",
};
const SKETCH: &str = include_str!("../../firmware-templates/sketch/node.ino");
const PROJECT: &str = include_str!("../../firmware-templates/sketch/sketch.yaml");
const BUILD: &str = include_str!("../../firmware-templates/sketch/BUILD.md");

/// The board that is a process: `(file, text)`.
pub const HOST: [(&str, &str); 6] = templates! {
    "Arduino.h" from "host/Arduino.h",
    "Client.h" from "host/Client.h",
    "EEPROM.h" from "host/EEPROM.h",
    "WiFi.h" from "host/WiFi.h",
    "host.cpp" from "host/host.cpp",
    "secrets.h" from "host/secrets.h",
};

/// A file of a sketch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name; a sketch is one folder.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// The files of the sketch as a process: those of its board, and the board that is a process.
pub fn host_files(firmware: &Firmware) -> Vec<File> {
    let host = HOST
        .iter()
        .map(|(name, text)| File { name: format!("host/{name}"), text: (*text).to_owned() });
    files(firmware).into_iter().chain(host).collect()
}

/// The name of a sketch's folder and of its `.ino`.
pub fn sketch_name(profile: &str) -> String {
    profile.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// All files of the sketch, in order of their names.
pub fn files(firmware: &Firmware) -> Vec<File> {
    let link: &[(&str, &str)] = match firmware.board.link {
        Transport::Serial => &SERIAL,
        Transport::Mqtt => &MQTT,
    };
    let mut files: Vec<File> = SHARED
        .iter()
        .chain(link)
        .map(|(name, text)| File { name: (*name).to_owned(), text: (*text).to_owned() })
        .collect();
    files.push(File {
        name: format!("{}.ino", sketch_name(&firmware.profile)),
        text: SKETCH.to_owned(),
    });
    let build = build(firmware, &files);
    files.push(File { name: "et_config.h".to_owned(), text: config(firmware, &build) });
    for (name, template) in [("sketch.yaml", PROJECT), ("BUILD.md", BUILD)] {
        files.push(File { name: name.to_owned(), text: fill(template, firmware, &build) });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// Which firmware this is: a digest of all that goes into it.
fn build(firmware: &Firmware, files: &[File]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(&file.text);
    }
    hash.update(config(firmware, ""));
    hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a file's text, as the list of written files keeps it.
pub fn digest(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fill(template: &str, firmware: &Firmware, build: &str) -> String {
    let environment = Environment::new();
    let name = |index: &usize, of: &[Property]| of[*index].path.to_string();
    let pins: Vec<_> = firmware
        .fitted
        .iter()
        .map(|part| {
            let of = match part.driver {
                Driver::Switch | Driver::Duty { .. } => &firmware.actuators,
                _ => &firmware.sensors,
            };
            let properties = part.properties.iter().map(|index| name(index, of));
            let properties = match part.driver {
                Driver::Battery { .. } => "what is left, in percent".to_owned(),
                _ => properties.collect::<Vec<_>>().join(", "),
            };
            context! {
                pin => part.pin.0.as_str(),
                part => part.label.as_str(),
                properties => properties,
            }
        })
        .collect();
    let values = context! {
        board => context! {
            name => firmware.board.name.as_str(),
            fqbn => firmware.board.fqbn.as_str(),
            platform => firmware.board.platform.as_str(),
            platformIndex => firmware.board.platform_index.as_deref(),
            flash => firmware.board.flash,
            ram => firmware.board.ram,
        },
        profile => firmware.profile.as_str(),
        build => build,
        pins => minijinja::Value::from(pins),
        serial => firmware.board.link == Transport::Serial,
        flash => firmware.flash,
        ram => firmware.ram,
        ring => firmware.ring,
        line => firmware.line,
    };
    let text = environment
        .render_str(template, values)
        .unwrap_or_else(|error| unreachable!("a template of the sketch: {error}"));
    format!("{}\n", text.trim_end())
}

fn value(value: i32) -> String {
    // The least number has no literal in C++.
    if value == i32::MIN { "INT32_MIN".to_owned() } else { format!("{value}L") }
}

fn list(values: &[Option<i32>]) -> String {
    let values: Vec<String> =
        values.iter().map(|v| v.map_or("et::NONE".to_owned(), value)).collect();
    let values = if values.is_empty() { "et::NONE".to_owned() } else { values.join(", ") };
    format!("{{{values}}}")
}

/// `et_config.h`: the one file that differs between profiles.
fn config(firmware: &Firmware, build: &str) -> String {
    let mut text = String::new();
    let serial = firmware.board.link == Transport::Serial;
    let line = |text: &mut String, name: &str, value: &dyn std::fmt::Display| {
        *text += &format!("#define {name} {value}\n");
    };
    text += "// Made by `edgetwin gen-firmware` from a NodeProfile: change that one and make it again.\n";
    text += "#pragma once\n#include \"et_line.h\"\n\n";
    line(&mut text, "ET_PROFILE", &format!("\"{}\"", firmware.profile));
    line(&mut text, "ET_BOARD", &format!("\"{}\"", firmware.board.name));
    line(&mut text, "ET_BUILD", &format!("\"{build}\""));
    line(&mut text, "ET_LINK_SERIAL", &u8::from(serial));
    line(&mut text, "ET_RADIO", &u8::from(!serial));
    line(&mut text, "ET_RSSI", &u8::from(!serial));
    text += "\n// Sizes.\n";
    line(&mut text, "ET_SENSORS", &firmware.sensors.len());
    line(&mut text, "ET_ACTUATORS", &firmware.actuators.len());
    line(&mut text, "ET_GROUPS", &firmware.groups);
    line(&mut text, "ET_RING_BYTES", &firmware.ring);
    line(&mut text, "ET_LINE_MAX", &firmware.line);
    line(&mut text, "ET_RECEIVE_MAX", &512);
    line(&mut text, "ET_IN_FLIGHT", &8);
    let names = firmware.sensors.iter().chain(&firmware.actuators);
    let longest = names.map(|p| p.path.feature.len().max(p.path.property.len())).max();
    line(&mut text, "ET_NAME_LEN", &(longest.unwrap_or(0) + 1));
    text += "\n// Times in ms.\n";
    let own = &firmware.transmission;
    line(&mut text, "ET_PERIOD_MIN", &format!("{}UL", firmware.period_min));
    line(&mut text, "ET_SAMPLE_MS", &format!("{}UL", firmware.sample_ms));
    line(&mut text, "ET_LEASE_MS", &format!("{}UL", firmware.lease_ms));
    line(&mut text, "ET_OLD_MS", &"2000UL");
    text += "\n// Programs by bit: interval, on-change, on-request, features. And the node's own way.\n";
    line(&mut text, "ET_PROGRAMS", &format!("0x{:X}", firmware.programs));
    line(&mut text, "ET_DEFAULT_PROGRAM", &own.program);
    line(&mut text, "ET_DEFAULT_PMIN", &format!("{}UL", own.pmin));
    line(&mut text, "ET_DEFAULT_PMAX", &format!("{}UL", own.pmax));
    let period = if own.pmin == 0 { 1000 } else { own.pmin };
    line(&mut text, "ET_DEFAULT_PERIOD", &format!("{period}UL"));
    line(&mut text, "ET_DEFAULT_ST", &list(&own.st));
    line(&mut text, "ET_DEFAULT_GT", &list(&own.gt));
    line(&mut text, "ET_DEFAULT_LT", &list(&own.lt));
    text +=
        "\n// Name, feature, whether it needs the feature, range, places, boolean, safe value.\n";
    text += "#define ET_PROPERTIES { \\\n";
    for property in firmware.sensors.iter().chain(&firmware.actuators) {
        let Property { path, nested, places, range, boolean, safe } = property;
        let (least, most) = (value(range.0), value(range.1));
        let safe = safe.map_or("et::NONE".to_owned(), value);
        let (nested, boolean) = (u8::from(*nested), u8::from(*boolean));
        text += &format!(
            "  {{\"{}\", \"{}\", {nested}, {least}, {most}, {places}, {boolean}, {safe}}}, \\\n",
            path.property, path.feature
        );
    }
    text += "}\n";
    text += &parts(firmware);
    let layout = crate::wire::crc16(text.as_bytes());
    text += "\n// What is kept by other firmware than this is not used.\n";
    line(&mut text, "ET_LAYOUT", &format!("0x{layout:04X}"));
    text
}

/// Drivers, and which of them gives or takes which property.
fn parts(firmware: &Firmware) -> String {
    let [mut curves, mut parts, mut reads, mut acts, mut begin] = <[String; 5]>::default();
    let mut battery = String::new();
    let sensors = firmware.sensors.len();
    for (number, part) in firmware.fitted.iter().enumerate() {
        let pin = part.pin.1;
        let first = part.properties.first().copied().unwrap_or_default();
        let mut read = |index: usize, call: String| {
            reads += &format!("  case {index}: return {call}; \\\n");
        };
        match &part.driver {
            Driver::Linear { burst, factor, offset, period }
            | Driver::Battery { burst, factor, offset, period } => {
                parts += &format!(
                    "  et::Linear part{number}({pin}, {burst}, {factor}L, {offset}L, {period}); \\\n"
                );
                let call = format!("part{number}.read(now)");
                match part.driver {
                    Driver::Battery { .. } => battery = format!("#define ET_BATTERY {call}\n"),
                    _ => read(first, call),
                }
            }
            Driver::Curve { burst, points, period } => {
                let points: Vec<String> = points.iter().map(|point| value(*point)).collect();
                curves += &format!(
                    "  const et::value_t curve{number}[17] ET_FLASH = {{{}}}; \\\n",
                    points.join(", ")
                );
                let bits = firmware.board.adc.bits;
                parts += &format!(
                    "  et::Curve part{number}({pin}, {burst}, {bits}, curve{number}, {period}); \\\n"
                );
                read(first, format!("part{number}.read(now)"));
            }
            Driver::Swing { burst, per_octave, at_one, period } => {
                parts += &format!(
                    "  et::Swing part{number}({pin}, {burst}, {per_octave}L, {at_one}L, {period}); \\\n"
                );
                read(first, format!("part{number}.read(now)"));
            }
            Driver::Level => {
                parts += &format!("  et::Level part{number}({pin}); \\\n");
                read(first, format!("part{number}.read(now)"));
            }
            Driver::Dht { wide, period, calibration } => {
                parts += &format!("  et::Dht part{number}({pin}, {wide}, {period}); \\\n");
                for (index, (which, factor, offset)) in part.properties.iter().zip(calibration) {
                    let call = if *which == 0 { "temperature" } else { "humidity" };
                    read(
                        *index,
                        format!("et::calibrated(part{number}.{call}(now), {factor}L, {offset}L)"),
                    );
                }
            }
            Driver::Switch => {
                begin += &format!("  pinMode({pin}, OUTPUT); \\\n");
                let index = sensors + first;
                acts += &format!(
                    "  case {index}: digitalWrite({pin}, value ? HIGH : LOW); break; \\\n"
                );
            }
            Driver::Duty { property } => {
                begin += &format!("  pinMode({pin}, OUTPUT); \\\n");
                let (least, most) = firmware.actuators[*property].range;
                let index = sensors + first;
                let span = (i64::from(most) - i64::from(least)).max(1);
                acts += &format!(
                    "  case {index}: analogWrite({pin}, static_cast<int>((value - ({least}L)) * 255L / {span}L)); break; \\\n"
                );
            }
        }
    }
    let mut text = "\n// Parts on their pins.\n".to_owned();
    for (name, body) in [
        ("ET_CURVES", curves),
        ("ET_PARTS", parts),
        ("ET_READS", reads),
        ("ET_ACTUATES", acts),
        ("ET_BEGIN", begin),
    ] {
        text += &format!("#define {name} \\\n{body}\n");
    }
    text + &battery
}
