//! The files of a sketch. Pure: text in, text out, the same bytes for the same profile.

use minijinja::{Environment, context};
use sha2::{Digest, Sha256};

use super::part::{Counts, Driver, class, header};
use super::plan::Firmware;
use super::property::Property;
use crate::kinds::{Connection, Part, Transport};

macro_rules! templates {
    ($($name:literal from $path:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../firmware-templates/", $path)))),*]
    };
}

/// Files that are the same in every sketch.
const SHARED: [(&str, &str); 11] = templates! {
    "et_port.h" from "core/et_port.h",
    "et_line.h" from "core/et_line.h",
    "et_ring.h" from "core/et_ring.h",
    "et_core.h" from "core/et_core.h",
    "et_core.cpp" from "core/et_core.cpp",
    "et_cmd.cpp" from "core/et_cmd.cpp",
    "et_driver.h" from "drivers/et_driver.h",
    "et_analog.h" from "drivers/et_analog.h",
    "et_digital.h" from "drivers/et_digital.h",
    "et_i2c.h" from "drivers/et_i2c.h",
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
pub const HOST: [(&str, &str); 8] = templates! {
    "Arduino.h" from "host/Arduino.h",
    "Client.h" from "host/Client.h",
    "EEPROM.h" from "host/EEPROM.h",
    "et_emulated.h" from "host/et_emulated.h",
    "WiFi.h" from "host/WiFi.h",
    "Wire.h" from "host/Wire.h",
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
    let mut files = files(firmware);
    let mut add =
        |name: &str, text: String| files.push(File { name: format!("host/{name}"), text });
    for (name, text) in HOST {
        add(name, text.to_owned());
    }
    for part in parts_of(firmware) {
        let emulated = part.folder().map(|folder| folder.emulated).unwrap_or_default();
        add(&emulated_header(part), emulated.to_owned());
    }
    add("attached.cpp", attached(firmware));
    files
}

fn emulated_header(part: &Part) -> String {
    header(&part.name).replacen("et_", "emulated_", 1)
}

/// `attached.cpp`: the parts, emulated, at their places.
fn attached(firmware: &Firmware) -> String {
    let mut text = "// This profile's parts, emulated, at their places.\n".to_owned();
    text += "#include \"Arduino.h\"\n#include \"et_emulated.h\"\n";
    for part in parts_of(firmware) {
        text += &format!("#include \"{}\"\n", emulated_header(part));
    }
    text += "\nvoid et_host_attach_all() {\n";
    for (number, fitted) in firmware.fitted.iter().enumerate() {
        let Some(part) = fitted.part else { continue };
        let bus = part.connection == Connection::I2c;
        text += &format!(
            "  static emulated::{} part{number};\n  et_host_attach({}, {bus}, part{number});\n",
            class(&part.name),
            fitted.place.number
        );
    }
    text + "}\n"
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
    for part in parts_of(firmware) {
        let driver = part.folder().map(|folder| folder.driver).unwrap_or_default();
        files.push(File { name: header(&part.name), text: driver.to_owned() });
    }
    files.push(File { name: "et_parts.h".to_owned(), text: includes(firmware) });
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

/// The parts that it has, each once, by name.
fn parts_of(firmware: &Firmware) -> Vec<&'static Part> {
    let mut parts: Vec<&Part> = firmware.fitted.iter().filter_map(|fitted| fitted.part).collect();
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    parts.dedup();
    parts
}

/// `et_parts.h`: the drivers of these parts.
fn includes(firmware: &Firmware) -> String {
    let mut text = "// The drivers of this profile's parts.\n#pragma once\n".to_owned();
    // A battery is measured as every voltage is.
    let always = ["et_analog.h", "et_digital.h"].map(str::to_owned);
    for name in always.into_iter().chain(parts_of(firmware).iter().map(|part| header(&part.name))) {
        text += &format!("#include \"{name}\"\n");
    }
    text
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
                Driver::Switch | Driver::Dimmer { .. } => &firmware.actuators,
                _ => &firmware.sensors,
            };
            let properties = part.properties.iter().map(|index| name(index, of));
            let properties = match part.driver {
                Driver::Battery { .. } => "what is left, in percent".to_owned(),
                _ => properties.collect::<Vec<_>>().join(", "),
            };
            context! {
                pin => part.place.name.as_str(),
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
    if parts_of(firmware).iter().any(|part| part.connection == Connection::I2c) {
        begin += "  et::i2c::begin(); \\\n";
    }
    for (number, part) in firmware.fitted.iter().enumerate() {
        let place = part.place.number;
        let class = format!("et::parts::{}", class(&part.label));
        let mut instance = |class: &str, arguments: &str| {
            parts += &format!("  {class} part{number}({place}{arguments}); \\\n");
        };
        let read = format!("part{number}.read(now)");
        // The calls that give its properties, in their order.
        let mut calls = vec![read.clone()];
        match &part.driver {
            Driver::Linear { samples, factor, offset, period } => {
                instance(&class, &format!(", {samples}, {factor}L, {offset}L, {period}"));
            }
            Driver::Battery { samples, factor, offset, period } => {
                instance("et::Linear", &format!(", {samples}, {factor}L, {offset}L, {period}"));
                battery = format!("#define ET_BATTERY {read}\n");
            }
            Driver::Curve { samples, points, period } => {
                let points: Vec<String> = points.iter().map(|point| value(*point)).collect();
                curves += &format!(
                    "  const et::value_t curve{number}[17] ET_FLASH = {{{}}}; \\\n",
                    points.join(", ")
                );
                let bits = firmware.board.adc.bits;
                instance(&class, &format!(", {samples}, {bits}, curve{number}, {period}"));
            }
            Driver::Swing { samples, per_octave, at_one, period } => {
                instance(&class, &format!(", {samples}, {per_octave}L, {at_one}L, {period}"));
            }
            Driver::Level => instance(&class, ""),
            Driver::Counts { period, reads } => {
                instance(&class, &format!(", {period}"));
                let call = |Counts { quantity, factor, offset }: &Counts| {
                    format!("et::calibrated(part{number}.{quantity}(now), {factor}L, {offset}L)")
                };
                calls = reads.iter().map(call).collect();
            }
            Driver::Switch => instance(&format!("{class}Switch"), ""),
            Driver::Dimmer { least, span } => {
                instance(&format!("{class}Dimmer"), &format!(", {least}L, {span}UL"));
            }
        }
        begin += &format!("  part{number}.begin(); \\\n");
        for (index, call) in part.properties.iter().zip(&calls) {
            match part.driver {
                Driver::Switch | Driver::Dimmer { .. } => {
                    let index = firmware.sensors.len() + index;
                    acts += &format!("  case {index}: part{number}.set(value); break; \\\n");
                }
                _ => reads += &format!("  case {index}: return {call}; \\\n"),
            }
        }
    }
    let mut text = "\n// Parts at their places.\n".to_owned();
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
