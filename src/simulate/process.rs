//! The firmware itself as simulated nodes: the ESP32's sketch, built for this machine, a process a
//! node. What its sensors would measure is written to its standard input.
//!
//! It takes a C++ compiler, about a second the first time, and then little: the program is kept in
//! the state directory under the digest of its sources.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::subject::{FAULT_GAP, SPEED, START_S, SimulatedNode, battery};
use crate::base::clock::now_us;
use crate::base::http::stopped;
use crate::edgeai::generate::{CHANNELS, Generator};
use crate::firmware::{Firmware, render};
use crate::gateway::external::Broker;
use crate::wire::crc16;

/// Nodes that run as processes; of more, all are simulated in this process. Each wakes a thousand
/// times a second, like the board it stands for.
pub const PROCESSES_MAX: usize = 16;
/// A process that ended is started again after this.
const RESTART: Duration = Duration::from_secs(1);
/// The longest that building may take.
const BUILD_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of the permanent memory.
const MEMORY_LEN: usize = 1024;

/// The C++ compiler: what `CXX` names, else `c++` or `g++`, if it is there.
pub fn compiler() -> Option<PathBuf> {
    let named = std::env::var("CXX").ok();
    let names = named.as_deref().map_or(vec!["c++", "g++"], |named| vec![named]);
    let path = std::env::var_os("PATH")?;
    names.into_iter().filter(|name| !name.is_empty()).find_map(|name| {
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
    })
}

/// Builds the firmware's program below `folder`, or finds it there.
///
/// # Errors
/// What the disk or the compiler says.
pub async fn build(firmware: &Firmware, folder: &Path, compiler: &Path) -> io::Result<PathBuf> {
    let files = render::host_files(firmware);
    let all: String = files.iter().map(|file| format!("{}\n{}", file.name, file.text)).collect();
    let digest = render::digest(all.as_bytes());
    let home = folder.join(&digest[..16]);
    let program = home.join("node");
    if program.is_file() {
        return Ok(program);
    }
    let source = folder.join(format!("{}.{}", &digest[..16], std::process::id()));
    std::fs::create_dir_all(source.join("host"))?;
    for file in &files {
        std::fs::write(source.join(&file.name), &file.text)?;
    }
    let mut command = Command::new(compiler);
    command.args(["-std=gnu++11", "-O1", "-I.", "-Ihost", "-o", "node", "-x", "c++"]);
    command.args(files.iter().map(|file| &file.name).filter(|name| {
        let end = Path::new(name.as_str()).extension();
        end.is_some_and(|end| end == "cpp" || end == "ino")
    }));
    command.current_dir(&source).stdin(Stdio::null()).kill_on_drop(true);
    let built = tokio::time::timeout(BUILD_TIMEOUT, command.output()).await;
    let built = built.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if !built.status.success() {
        let printed = String::from_utf8_lossy(&built.stderr).chars().take(500).collect::<String>();
        let why = match printed.trim() {
            "" => format!("it ended with {}", built.status),
            printed => printed.to_owned(),
        };
        return Err(io::Error::other(why));
    }
    // Another runtime may have been faster with the same.
    if std::fs::rename(&source, &home).is_err() && program.is_file() {
        std::fs::remove_dir_all(&source)?;
    }
    if program.is_file() { Ok(program) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// Runs one node until `stop` turns true.
pub(super) async fn run(
    node: SimulatedNode,
    image: &Firmware,
    number: u32,
    program: PathBuf,
    broker: Broker,
    seed: u64,
    mut stop: watch::Receiver<bool>,
) {
    let sensors: Vec<(usize, usize, u8)> = image
        .sensors
        .iter()
        .enumerate()
        .filter_map(|(index, sensor)| {
            let channel = CHANNELS.iter().position(|name| *name == sensor.path.property)?;
            Some((index, channel, sensor.places))
        })
        .collect();
    let mut generator = Generator::new(seed, number).fault_gap(FAULT_GAP);
    let started = Instant::now();
    let period = Duration::from_millis(image.transmission.pmin.max(10).into());
    let mut tick = tokio::time::interval(period);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let (mut child, mut first): (Option<Child>, bool) = (None, true);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => return,
            _ = tick.tick() => {}
        }
        let t = START_S + started.elapsed().as_secs_f64() * SPEED;
        let sample = generator.next(t);
        let mut lines = String::new();
        for (index, channel, places) in &sensors {
            let units = f64::from(sample.values[*channel]) * 10_f64.powi((*places).into());
            lines += &format!("value {index} {}\n", units.round() as i64);
        }
        if image.battery {
            lines += &format!("battery {}\n", battery(number, started.elapsed()));
        }
        if child.is_none() {
            match spawn(&node, &program, &broker, first) {
                Ok(started) => (child, first) = (Some(started), false),
                Err(error) => {
                    let remedy =
                        "look at the state directory's folder `firmware`; it is tried again";
                    tracing::warn!(%error, node = %node.thing, remedy, "a simulated node does not start");
                    tokio::time::sleep(RESTART).await;
                    continue;
                }
            }
        }
        let Some(process) = &mut child else { continue };
        let written = match &mut process.stdin {
            Some(stdin) => stdin.write_all(lines.as_bytes()).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Err(error) = written {
            let remedy = "nothing, unless it repeats; it is started again";
            tracing::warn!(%error, node = %node.thing, remedy, "a simulated node ended");
            child = None;
            tokio::time::sleep(RESTART).await;
        }
    }
}

/// A permanent memory whose boot counter says `boot`. It is the time, as that of nodes which are
/// simulated in this process: whatever ran before, later boots have greater numbers.
fn stamped(memory: Option<Vec<u8>>, boot: u32) -> Vec<u8> {
    const SLOTS: usize = 8;
    let mut memory =
        memory.filter(|kept| kept.len() == MEMORY_LEN).unwrap_or_else(|| vec![0xFF; MEMORY_LEN]);
    let mut slot = boot.to_le_bytes().to_vec();
    // No quick boots so far, and the mark of a slot in use.
    slot.extend([0, 0xE7]);
    let crc = crc16(&slot);
    slot.extend(crc.to_le_bytes());
    let at = boot as usize % SLOTS * slot.len();
    memory[at..at + slot.len()].copy_from_slice(&slot);
    memory
}

fn spawn(node: &SimulatedNode, program: &Path, broker: &Broker, first: bool) -> io::Result<Child> {
    let (namespace, name) = (node.thing.namespace(), node.thing.name());
    let folder = program.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let memory = folder.join(format!("{namespace}-{name}.eeprom"));
    if first {
        let boot = u32::try_from(now_us() / 1_000_000).unwrap_or(1);
        std::fs::write(&memory, stamped(std::fs::read(&memory).ok(), boot))?;
    }
    Command::new(program)
        .env_clear()
        .env("ET_BROKER", &broker.host)
        .env("ET_BROKER_PORT", broker.port.to_string())
        .env("ET_CLIENT_ID", format!("sim-{namespace}-{name}"))
        .env("ET_TOPIC_PREFIX", format!("et/v1/{namespace}/{name}/"))
        .env("ET_EEPROM", memory)
        .env("ET_QUIT_AT_END", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_is_stamped_and_the_rest_of_it_kept() {
        let fresh = stamped(None, 9);
        // Slot 1: the number, no quick boots, the mark, and the checksum of these six bytes.
        assert_eq!(fresh[8..14], [9, 0, 0, 0, 0, 0xE7]);
        assert_eq!(fresh[14..16], crc16(&fresh[8..14]).to_le_bytes());
        assert!(fresh[16..].iter().all(|byte| *byte == 0xFF));
        let mut used = fresh.clone();
        used[500] = 7;
        let again = stamped(Some(used), 10);
        assert_eq!((again[8], again[16], again[500]), (9, 10, 7));
        assert_eq!(stamped(Some(vec![1; 3]), 9), fresh, "one that was cut is begun anew");
    }

    #[tokio::test]
    async fn a_compiler_that_builds_nothing_leaves_no_process() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/quickstart");
        let nodes = crate::simulate::nodes(&crate::manifest::load(&[path.to_owned()], &[]).objects);
        let folder = tempfile::tempdir().unwrap();
        let workshop = crate::simulate::Workshop {
            compiler: PathBuf::from("/bin/false"),
            folder: folder.path().to_owned(),
        };
        let programs = crate::simulate::build(&nodes, Some(&workshop)).await;
        assert_eq!(programs.count(&nodes), 0);
        let [why] = programs.failed.as_slice() else { panic!("{:?}", programs.failed) };
        assert!(why.contains("/bin/false") && why.contains("exit status: 1"), "{why}");
    }
}
