//! `edgetwin doctor`: what is wrong with a state directory, and accepting a loss.

use std::path::PathBuf;

use super::error::{CliError, ErrorKind};
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::base::clock::now_us;
use crate::runtime;

/// Look into a state directory for damage
///
/// No runtime may be using it. Damage means that records which were acknowledged cannot be read:
/// the twins that it may concern show the newest state that can be proved and take no changes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    edgetwin doctor --state /var/lib/edgetwin\n  \
    edgetwin doctor --accept-loss")]
pub(super) struct Args {
    /// Directory of everything durable
    #[arg(long, env = "EDGETWIN_STATE", value_name = "DIR", default_value = "edgetwin-state")]
    state: PathBuf,
    /// Take the stalled twins as they are, so that they take changes again
    #[arg(long)]
    accept_loss: bool,
}

/// Says what was found; exit code 1 if twins are stalled and stay so.
pub(super) fn run(args: &Args, output: &mut Output) -> Result<Outcome, CliError> {
    if !args.state.is_dir() {
        let text = format!("there is no state in {}", args.state.display());
        return Err(CliError::new(ErrorKind::Failed, text).hint("name its directory with --state"));
    }
    let opened = runtime::open_state(&args.state).map_err(|error| {
        CliError::new(ErrorKind::Failed, "the state cannot be opened").because(&error)
    })?;
    let (writer, found, _lock) = opened;
    let recovery = &found.recovery;
    let accepted = if args.accept_loss {
        writer.accept_loss(now_us()).map_err(|error| {
            CliError::new(ErrorKind::Failed, "the loss could not be accepted").because(&error)
        })?
    } else {
        Vec::new()
    };
    let stalled: Vec<&str> = found.stalled.iter().map(|id| id.as_str()).collect();
    if output.format() == Format::Json {
        output.json(&serde_json::json!({
            "twins": found.twins,
            "records": recovery.records,
            "tornBytes": recovery.torn_bytes,
            "damage": recovery.damage.iter().map(|damage| serde_json::json!({
                "segment": damage.segment, "offset": damage.offset, "length": damage.len,
            })).collect::<Vec<_>>(),
            "badSnapshots": recovery.bad_snapshots,
            "stalled": stalled,
            "lossAccepted": args.accept_loss,
        }));
    } else {
        output.line(&format!("{} twins, {} records read", found.twins, recovery.records));
        if recovery.torn_bytes > 0 {
            let torn = recovery.torn_bytes;
            output.line(&format!(
                "{torn} bytes torn by a crash were cut off; nobody was promised them"
            ));
        }
        for damage in &recovery.damage {
            output.line(&format!(
                "segment {} is damaged at byte {}, {} bytes",
                damage.segment, damage.offset, damage.len
            ));
        }
        for name in &recovery.bad_snapshots {
            output.line(&format!("{name} does not read back; the one before was used"));
        }
        for id in &stalled {
            output.line(&format!("{id} may have lost changes"));
        }
        if args.accept_loss {
            output.line(&format!("{} twins take changes again", accepted.len()));
        } else if recovery.damage.is_empty() && recovery.bad_snapshots.is_empty() {
            output.line("nothing is wrong");
        }
    }
    if !stalled.is_empty() && !args.accept_loss {
        return Err(CliError::new(
            ErrorKind::Failed,
            format!("{} twins are stalled", stalled.len()),
        )
        .hint("restore a backup, or take them as they are with --accept-loss"));
    }
    Ok(Outcome::Done)
}
