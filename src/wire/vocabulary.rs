//! The vocabulary that firmware and the edge share: programs, results of commands, events, causes of a
//! restart.
//!
//! Not here: the operations of commands (`command`), which have arguments.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares an enum of names on the wire with `as_str`, `From<&str>` and serde; an unknown name is
/// kept as it is.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $name_on_wire:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A name that this version does not know.
            Other(String),
        }

        impl $name {
            /// As written on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name_on_wire,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                match name {
                    $($name_on_wire => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(String::deserialize(deserializer)?.as_str().into())
            }
        }
    };
}

vocabulary! {
    /// A data-transmission program in a node's firmware.
    Program {
        /// A sample every period.
        Interval = "interval",
        /// A sample when a value changed by a threshold or crossed one.
        OnChange = "on-change",
        /// A sample when asked.
        OnRequest = "on-request",
        /// Minimum, maximum, mean and variance over each period.
        Features = "features",
    }
}

vocabulary! {
    /// The result of a command, in a node's acknowledgement.
    AckStatus {
        /// Done.
        Ok = "ok",
        /// A value is outside what the node can do, or malformed; nothing was changed.
        Range = "range",
        /// No such operation here.
        Op = "op",
        /// The checksum was wrong.
        Crc = "crc",
        /// Not now.
        Busy = "busy",
        /// Its time to live is over.
        Late = "late",
        /// Not permitted.
        Denied = "denied",
    }
}

vocabulary! {
    /// An event that a node reports by itself.
    EventKind {
        /// No message arrived from the edge for a whole lease: the safe program runs.
        Lease = "lease",
        /// Samples were overwritten before they were sent; `lost` counts them since boot.
        Overflow = "overflow",
        /// A sensor does not answer; `why` names its property.
        Fault = "fault",
        /// A trial ended without `keep`.
        Reverted = "reverted",
        /// The safe program runs, for the reason in `why`.
        Safe = "safe",
        /// New firmware is being taken; sampling stops.
        Updating = "updating",
    }
}

vocabulary! {
    /// The cause of a node's restart.
    Cause {
        /// Power on.
        Power = "power",
        /// The reset pin, or the `reset` command.
        External = "ext",
        /// The watchdog.
        Watchdog = "wdt",
        /// The supply fell too low.
        Brownout = "brown",
    }
}
