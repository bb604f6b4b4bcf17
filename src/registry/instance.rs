//! One running copy of a service, as Eureka describes it.

use std::collections::BTreeMap;

/// A time on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, for what is shown: the clock may be set.
    pub unix_ms: i64,
    /// Milliseconds since any fixed moment, never running backwards: what leases count by.
    pub mono_ms: u64,
}

/// The status that an instance reports, or that an operator sets. Only `Up` receives calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Status {
    /// Ready for calls.
    Up,
    /// Not working.
    Down,
    /// Not ready yet.
    Starting,
    /// Taken out by an operator.
    OutOfService,
    /// Not given.
    #[default]
    Unknown,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Up, Self::Down, Self::Starting, Self::OutOfService, Self::Unknown];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
            Self::Starting => "STARTING",
            Self::OutOfService => "OUT_OF_SERVICE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// From the name on the wire, in any letter case; `None` for other names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name().eq_ignore_ascii_case(name.trim()))
    }
}

/// The last change of an instance, as in Eureka's deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Registered, for the first time or again.
    #[default]
    Added,
    /// Its status changed.
    Modified,
    /// Cancelled or expired.
    Deleted,
}

impl Action {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A model in this process.
    InProcess,
    /// A service that speaks the Open Inference Protocol over HTTP.
    Http {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Nowhere that we could call: it offers no plain HTTP port.
    Nowhere,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InProcess => f.write_str("in-process"),
            Self::Http { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Http { host, port } => write!(f, "{host}:{port}"),
            Self::Nowhere => f.write_str("nowhere"),
        }
    }
}

/// A port and whether it is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// Whether the instance listens there.
    pub enabled: bool,
}

/// How long a registration lives, and what it has lived through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// How often the instance means to renew, in seconds.
    pub renewal_s: u32,
    /// How long the lease lasts after a renewal, in seconds; above 0.
    pub duration_s: u32,
    /// When it was registered, in Unix milliseconds.
    pub registered_ms: i64,
    /// When it was last renewed, in Unix milliseconds.
    pub renewed_ms: i64,
    /// When it was cancelled or expired, in Unix milliseconds; 0 while it lives.
    pub evicted_ms: i64,
    /// When it first was UP, in Unix milliseconds; 0 if it never was.
    pub up_ms: i64,
}

impl Default for Lease {
    /// Eureka's defaults: renewed every 30 s, ends after 90 s.
    fn default() -> Self {
        Self {
            renewal_s: 30,
            duration_s: 90,
            registered_ms: 0,
            renewed_ms: 0,
            evicted_ms: 0,
            up_ms: 0,
        }
    }
}

/// Where an instance runs, as far as it says: kept for the clients that ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataCenter {
    /// `MyOwn`, `Netflix` or `Amazon`.
    pub name: String,
    /// Amazon's details; empty for the others.
    pub metadata: BTreeMap<String, String>,
}

impl Default for DataCenter {
    fn default() -> Self {
        Self { name: "MyOwn".to_owned(), metadata: BTreeMap::new() }
    }
}

/// One running copy of a service. The fields are Eureka's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Identity within the application.
    pub id: String,
    /// Application: the service's name in upper case.
    pub app: String,
    /// Where calls go.
    pub endpoint: Endpoint,
    /// Host name.
    pub host: String,
    /// Address.
    pub ip: String,
    /// Plain HTTP port.
    pub port: Port,
    /// HTTPS port.
    pub secure_port: Port,
    /// Names by which others look it up, comma-separated.
    pub vip: Option<String>,
    /// The same for HTTPS.
    pub secure_vip: Option<String>,
    /// The effective status: what the instance reports, unless an operator overrode it.
    pub status: Status,
    /// The operator's override; `Unknown` for none.
    pub overridden: Status,
    /// Where it runs.
    pub data_center: DataCenter,
    /// Its lease.
    pub lease: Lease,
    /// Further metadata.
    pub metadata: BTreeMap<String, String>,
    /// Page for people.
    pub home_page: Option<String>,
    /// Status page.
    pub status_page: Option<String>,
    /// Page that answers while it is healthy.
    pub health_check: Option<String>,
    /// The same over HTTPS.
    pub secure_health_check: Option<String>,
    /// Group of applications.
    pub app_group: Option<String>,
    /// Auto-scaling group.
    pub asg: Option<String>,
    /// An old identity that some clients still send.
    pub sid: Option<String>,
    /// An old field; 1.
    pub country_id: i64,
    /// Whether it is a registry itself.
    pub coordinating: bool,
    /// When it last changed, in Unix milliseconds.
    pub updated_ms: i64,
    /// When the instance itself last changed what it says, in Unix milliseconds, by its clock.
    pub dirty_ms: i64,
    /// What last happened to it.
    pub action: Action,
}

impl Instance {
    /// An instance of `app` that is UP, with defaults for all else.
    #[must_use]
    pub fn new(app: &str, id: &str, endpoint: Endpoint) -> Self {
        let (host, number, enabled) = match &endpoint {
            Endpoint::Http { host, port } => (host.clone(), *port, true),
            Endpoint::InProcess | Endpoint::Nowhere => ("127.0.0.1".to_owned(), 0, false),
        };
        Self {
            id: id.to_owned(),
            app: app_name(app),
            endpoint,
            ip: host.clone(),
            host,
            port: Port { number, enabled },
            secure_port: Port { number: 443, enabled: false },
            vip: Some(app.to_owned()),
            secure_vip: Some(app.to_owned()),
            status: Status::Up,
            overridden: Status::Unknown,
            data_center: DataCenter::default(),
            lease: Lease::default(),
            metadata: BTreeMap::new(),
            home_page: None,
            status_page: None,
            health_check: None,
            secure_health_check: None,
            app_group: None,
            asg: None,
            sid: None,
            country_id: 1,
            coordinating: false,
            updated_ms: 0,
            dirty_ms: 0,
            action: Action::Added,
        }
    }

    /// Whether calls may go to it.
    #[must_use]
    pub fn callable(&self) -> bool {
        self.status == Status::Up && self.endpoint != Endpoint::Nowhere
    }
}

/// The name that a service has as an application.
#[must_use]
pub fn app_name(service: &str) -> String {
    service.trim().to_uppercase()
}
