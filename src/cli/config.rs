//! Settings: a flag, then `EDGETWIN_*`, then `edgetwin.toml`, then a default.
//!
//! The file's values become the defaults of the flags they stand for, so that clap's own order of
//! flag, environment and default does the rest, and `--help` shows the effective values.
//!
//! Not here: what a setting means (`run`, `Global`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Subcommand};
use serde::Deserialize;
use serde_json::json;
use toml::Spanned;

use super::error::{CliError, ErrorKind};
use super::outcome::Outcome;
use super::output::{Format, Output};

/// Where settings are looked for when `--config` names no file.
const DEFAULT_FILE: &str = "edgetwin.toml";

/// Show the effective settings
///
/// A setting is taken from its flag, else from its variable, else from the configuration file,
/// else it has a default.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    View(View),
}

/// Print every setting
#[derive(Debug, clap::Args)]
struct View {
    /// Also print where each value is from
    #[arg(long)]
    show_origin: bool,
}

/// `edgetwin.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    server: Option<Spanned<String>>,
    state: Option<Spanned<String>>,
    http: Option<Spanned<String>>,
    mqtt: Option<Spanned<String>>,
    eureka: Option<Spanned<String>>,
    allow_host: Option<Spanned<Vec<String>>>,
    broker: Option<Broker>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Broker {
    url: Spanned<String>,
}

/// A setting: its name in the file, and the flag that it stands for.
struct Setting {
    name: &'static str,
    flag: &'static str,
    /// Whether all verbs have the flag, or only `run`.
    global: bool,
}

const SETTINGS: [Setting; 7] = [
    Setting { name: "server", flag: "server", global: true },
    Setting { name: "state", flag: "state", global: false },
    Setting { name: "http", flag: "http", global: false },
    Setting { name: "mqtt", flag: "mqtt", global: false },
    Setting { name: "eureka", flag: "eureka", global: false },
    Setting { name: "allow-host", flag: "allowed_hosts", global: false },
    Setting { name: "broker.url", flag: "broker", global: false },
];

/// A setting as a file says it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileSetting {
    name: &'static str,
    values: Vec<String>,
    line: usize,
}

/// What the configuration file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// The file, if there is one.
    path: Option<PathBuf>,
    from_file: Vec<FileSetting>,
}

impl Config {
    /// Reads the file that `--config` or `EDGETWIN_CONFIG` names, else `edgetwin.toml` here if it
    /// is there.
    ///
    /// # Errors
    /// A named file cannot be read, or what is in it is not a configuration.
    pub(super) fn load(command: Command, arguments: &[OsString]) -> Result<Self, CliError> {
        let found = command.ignore_errors(true).try_get_matches_from(arguments);
        let named = found.ok().and_then(|found| found.get_one::<PathBuf>("config").cloned());
        let path = match named {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).is_file() => DEFAULT_FILE.into(),
            None => return Ok(Self::default()),
        };
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let message = format!("the configuration {} cannot be read", path.display());
            CliError::new(ErrorKind::Usage, message).because(&error)
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, CliError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            let message = format!("{}:{line}: {}", path.display(), error.message());
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            CliError::new(ErrorKind::Usage, message)
                .hint(format!("the settings are {}", names.join(", ")))
        })?;
        let one = |name, value: Option<Spanned<String>>| {
            let value = value?;
            let line = line_of(text, value.span().start);
            Some(FileSetting { name, values: vec![value.into_inner()], line })
        };
        let hosts = file.allow_host.map(|hosts| {
            let line = line_of(text, hosts.span().start);
            FileSetting { name: "allow-host", values: hosts.into_inner(), line }
        });
        let from_file = [
            one("server", file.server),
            one("state", file.state),
            one("http", file.http),
            one("mqtt", file.mqtt),
            one("eureka", file.eureka),
            hosts.filter(|hosts| !hosts.values.is_empty()),
            one("broker.url", file.broker.map(|broker| broker.url)),
        ];
        Ok(Self { path: Some(path), from_file: from_file.into_iter().flatten().collect() })
    }

    /// The command with the file's values as defaults.
    pub(super) fn defaults_in(&self, command: Command) -> Command {
        let command = self.clients_follow(command);
        self.from_file.iter().fold(command, |command, from_file| {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.name == from_file.name)
            else {
                return command;
            };
            let values: Vec<_> =
                from_file.values.iter().cloned().map(clap::builder::OsStr::from).collect();
            let with = |command: Command| {
                command.mut_arg(setting.flag, |argument| argument.default_values(values))
            };
            if setting.global { with(command) } else { command.mut_subcommand("run", with) }
        })
    }

    /// Where clients look for the runtime follows from where it listens, unless it is set, too:
    /// `--server` from `http`, and the broker of `simulate` from `broker.url` or `mqtt`.
    fn clients_follow(&self, command: Command) -> Command {
        let listens = |name: &str, variable: &str| {
            let set = std::env::var(variable).ok().filter(|text| !text.is_empty());
            set.or_else(|| self.named(name).and_then(|from_file| from_file.values.first().cloned()))
        };
        let mut command = command;
        if let Some(http) =
            listens("http", "EDGETWIN_HTTP").filter(|_| self.named("server").is_none())
        {
            let server = clap::builder::OsStr::from(format!("http://{http}"));
            command = command.mut_arg("server", |argument| argument.default_value(server));
        }
        let broker =
            self.named("broker.url").and_then(|from_file| from_file.values.first().cloned());
        let own = || listens("mqtt", "EDGETWIN_MQTT").map(|mqtt| format!("mqtt://{mqtt}"));
        if let Some(broker) = broker.or_else(own) {
            let broker = clap::builder::OsStr::from(broker);
            command = command.mut_subcommand("simulate", |command| {
                command.mut_arg("broker", |argument| argument.default_value(broker))
            });
        }
        command
    }

    fn named(&self, name: &str) -> Option<&FileSetting> {
        self.from_file.iter().find(|from_file| from_file.name == name)
    }

    fn origin(&self, setting: &Setting, source: Option<ValueSource>, matched: &str) -> String {
        let from_file = self.from_file.iter().find(|from_file| from_file.name == setting.name);
        match (source, from_file, &self.path) {
            (Some(ValueSource::CommandLine), ..) => format!("--{matched}"),
            (Some(ValueSource::EnvVariable), ..) => {
                format!("EDGETWIN_{}", matched.replace('-', "_").to_uppercase())
            }
            (_, Some(from_file), Some(path)) => format!("{}:{}", path.display(), from_file.line),
            (_, None, path) if setting.name == "server" => {
                let variable = std::env::var_os("EDGETWIN_HTTP").is_some_and(|set| !set.is_empty());
                match (variable, self.named("http"), path) {
                    (true, ..) => "EDGETWIN_HTTP".to_owned(),
                    (_, Some(http), Some(path)) => format!("{}:{}", path.display(), http.line),
                    _ => "default".to_owned(),
                }
            }
            _ => "default".to_owned(),
        }
    }
}

/// Whether a flag was given for this run: on the command line or by a variable.
pub(super) fn given(found: &ArgMatches, flag: &str) -> bool {
    matches!(found.value_source(flag), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.get(..at).unwrap_or(text).matches('\n').count()
}

/// `command` is the whole command line with the file's values as defaults.
pub(super) fn run(
    args: &Args,
    config: &Config,
    command: Command,
    arguments: &[OsString],
    output: &mut Output,
) -> Result<Outcome, CliError> {
    let What::View(args) = &args.what;
    let cannot = |error: clap::Error| {
        CliError::new(ErrorKind::Usage, "the settings are not valid").because(&error)
    };
    let global = command.clone().try_get_matches_from(arguments).map_err(cannot)?;
    let run = command.try_get_matches_from(["edgetwin", "run"]).map_err(cannot)?;
    let run = run.subcommand_matches("run");
    let mut rows = Vec::new();
    for setting in &SETTINGS {
        let Some(found) = (if setting.global { Some(&global) } else { run }) else { continue };
        let values: Vec<String> = found
            .get_raw(setting.flag)
            .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let long = if setting.name == "broker.url" { "broker" } else { setting.name };
        let origin = config.origin(setting, found.value_source(setting.flag), long);
        rows.push((setting.name, values, origin));
    }
    let value = || {
        let entries = rows.iter().map(|(name, values, origin)| {
            let value = match (*name, values.as_slice()) {
                ("allow-host", values) => json!(values),
                (_, [value]) => json!(value),
                _ => json!(null),
            };
            let mut entry = json!({"name": name, "value": value});
            if args.show_origin {
                entry["origin"] = json!(origin);
            }
            entry
        });
        json!({"kind": "List", "items": entries.collect::<Vec<_>>()})
    };
    match output.format() {
        Format::Json => output.json(&value()),
        Format::Yaml => output.yaml(&value()),
        Format::Name => rows.iter().for_each(|(name, ..)| output.line(name)),
        Format::Table | Format::Wide => {
            let header: &[&str] = if args.show_origin {
                &["SETTING", "VALUE", "ORIGIN"]
            } else {
                &["SETTING", "VALUE"]
            };
            let row = |(name, values, origin): &(&str, Vec<String>, String)| {
                let value = if values.is_empty() { "-".to_owned() } else { values.join(", ") };
                let mut row = vec![(*name).to_owned(), value, origin.clone()];
                row.truncate(header.len());
                row
            };
            output.table(header, &rows.iter().map(row).collect::<Vec<_>>());
        }
    }
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse("edgetwin.toml".into(), text).map_err(|error| error.to_json().to_string())
    }

    #[test]
    fn a_file_names_settings_with_their_lines() {
        let config = parse("# ours\nstate = \"/s\"\n\n[broker]\nurl = \"mqtt://b\"\n").unwrap();
        let from_file =
            |name, value: &str, line| FileSetting { name, values: vec![value.to_owned()], line };
        assert_eq!(
            config.from_file,
            [from_file("state", "/s", 2), from_file("broker.url", "mqtt://b", 5)]
        );
    }

    #[test]
    fn a_misspelt_setting_is_told_with_its_line() {
        let error = parse("http = \"127.0.0.1:1\"\nhtpp = \"x\"\n").unwrap_err();
        assert!(error.contains("edgetwin.toml:2: unknown field `htpp`"), "{error}");
        let error = parse("http = 8080").unwrap_err();
        assert!(error.contains("edgetwin.toml:1: invalid type"), "{error}");
    }

    #[test]
    fn every_setting_is_a_flag() {
        let text = "server = \"a\"\nstate = \"b\"\nhttp = \"c\"\nmqtt = \"d\"\neureka = \"e\"\n\
                    allow-host = [\"f\", \"g\"]\nbroker.url = \"h\"\n";
        let config = parse(text).unwrap();
        assert_eq!(config.from_file.len(), SETTINGS.len());
        let mut command = config.defaults_in(super::super::command());
        command.build();
        let run = command.find_subcommand("run").unwrap();
        for (setting, from_file) in SETTINGS.iter().zip(&config.from_file) {
            assert_eq!(setting.name, from_file.name);
            let flag = run.get_arguments().find(|flag| flag.get_id() == setting.flag).unwrap();
            assert_eq!(flag.get_default_values(), from_file.values.as_slice(), "{}", setting.name);
        }
    }
}
