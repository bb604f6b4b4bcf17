//! The commands of one node: those that are under way, and the last ones that ended.

use std::collections::VecDeque;

use crate::cacc::command::{Command, CommandState, KEPT_MAX, Purpose};

/// Ids that a start leaves out: heartbeats take ids without a record of their own.
const ID_LEAP: u32 = 64;

/// The commands of one node, the oldest first.
#[derive(Debug, Default)]
pub struct CommandQueue {
    commands: VecDeque<Command>,
    last_id: u32,
}

impl CommandQueue {
    /// As it was stored.
    pub fn restore(commands: Vec<Command>, last_id: u32) -> Self {
        Self { commands: commands.into(), last_id: last_id.saturating_add(ID_LEAP) }
    }

    /// All of them.
    pub fn all(&self) -> &VecDeque<Command> {
        &self.commands
    }

    /// The last id that was given.
    pub fn last_id(&self) -> u32 {
        self.last_id
    }

    /// The next command's id: it grows over restarts, and over the loss of all that was stored,
    /// so that a node never takes a new command for one that it had.
    pub fn next_id(&mut self, now_us: i64) -> u32 {
        let seconds = u32::try_from(now_us / 1_000_000).unwrap_or(1);
        self.last_id = self.last_id.wrapping_add(1).max(seconds).max(1);
        self.last_id
    }

    /// Adds a command. Of too many the oldest that has ended is forgotten; if none has, the oldest.
    pub fn push(&mut self, command: Command) {
        while self.commands.len() >= KEPT_MAX {
            let ended = self.commands.iter().position(|one| !one.state.is_open()).unwrap_or(0);
            self.commands.remove(ended);
        }
        self.commands.push_back(command);
    }

    /// A command by its id.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Command> {
        self.commands.iter_mut().find(|one| one.id == id)
    }

    /// Those that are under way.
    pub fn open_mut(&mut self) -> impl Iterator<Item = &mut Command> {
        self.commands.iter_mut().filter(|one| one.state.is_open())
    }

    /// Those that are under way.
    pub fn open(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter().filter(|one| one.state.is_open())
    }

    /// Whether a command is under way.
    pub fn is_open(&self, id: u32) -> bool {
        self.open().any(|one| one.id == id)
    }

    /// The command of the transmission that is under way, or the one that keeps it.
    pub fn open_transmission(&self) -> Option<&Command> {
        let mut newest = self.commands.iter().rev();
        newest.find(|one| {
            one.state.is_open() && matches!(one.purpose, Purpose::Transmission | Purpose::Keep)
        })
    }

    /// The last transmission that the node applied.
    pub fn applied_transmission(&self) -> Option<&Command> {
        let mut newest = self.commands.iter().rev();
        newest
            .find(|one| one.purpose == Purpose::Transmission && one.state == CommandState::Applied)
    }

    /// When a command was issued that was sent just once, microseconds since 1970.
    pub fn sent_once_us(&self, id: u32) -> Option<i64> {
        self.commands.iter().find(|one| one.id == id && one.tries == 1).map(|one| one.issued_us)
    }
}
