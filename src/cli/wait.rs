//! `edgetwin wait`: until a condition holds.

use super::apply::not_in_time;
use super::client::Client;
use super::error::{CliError, ErrorKind};
use super::global::Global;
use super::objects::{self, Target};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::units;
use crate::reconcile::ObjectKey;

/// Wait until objects are ready, gone, or have a condition.
///
/// Exit code 3 means that the time was not enough.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  edgetwin wait --for=condition=Ready service/data-anomaly\n  \
                  edgetwin wait --for=delete twin/node-1 -n lab --timeout 10s\n  edgetwin wait all -A")]
pub(super) struct Args {
    /// KIND, KIND NAME…, KIND/NAME… or KIND/NAMESPACE/NAME…
    #[arg(value_name = "OBJECT", required = true)]
    what: Vec<String>,
    /// condition=NAME, condition=NAME=STATUS, or delete
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready")]
    until: String,
    /// How long
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    timeout: units::Duration,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let until = match (args.until.as_str(), args.until.strip_prefix("condition=")) {
        ("delete", _) => "Deleted",
        (_, Some(condition)) if !condition.is_empty() => condition,
        (other, _) => {
            return Err(CliError::new(ErrorKind::Usage, format!("one cannot wait for `{other}`"))
                .hint("write --for=condition=Ready or --for=delete"));
        }
    };
    let client = Client::new(&global.server)?;
    let mut keys: Vec<ObjectKey> = Vec::new();
    for target in objects::targets(&args.what, global)? {
        match target {
            Target::One(key) => keys.push(key),
            Target::Kind(kind) => {
                let items = client.list(&super::get::query(kind, None, false, global))?;
                keys.extend(items.iter().filter_map(|item| objects::key_of(item).parse().ok()));
            }
        }
    }
    let words = if until == "Deleted" { "gone".to_owned() } else { until.to_lowercase() };
    not_in_time(client.wait(&keys, until, args.timeout.as_std())?, &words)?;
    match output.format() {
        Format::Name => keys.iter().for_each(|key| output.line(&key.to_string())),
        Format::Table | Format::Wide => {
            keys.iter().for_each(|key| output.line(&format!("{key} is {words}")));
        }
        Format::Json | Format::Yaml => {}
    }
    Ok(Outcome::Done)
}
