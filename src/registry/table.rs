//! The lease table: who is registered, until when, and what Eureka clients receive of it (pure).
//!
//! The rules are Eureka's (Netflix/eureka, `AbstractInstanceRegistry`), with two deviations:
//!
//! * A lease ends its duration after the last renewal. Netflix adds the duration twice after the
//!   first renewal (issues 531 and 1277, kept there for compatibility), so a dead instance is
//!   offered twice as long as it asked for.
//! * Expired instances are removed at once, not at the next minute, and all of them:
//!   self-preservation against a partition of many instances is not here yet.
//!
//! Effective status on registering, first match: a reported status other than UP and
//! OUT_OF_SERVICE; the override stored for the id; the status of the lease that is replaced, if
//! UP or OUT_OF_SERVICE; the reported status. A heartbeat evaluates the same for the stored
//! instance; UNKNOWN requests a new registration.
//!
//! Not here: locks and balancers (`super`), text on the wire (`wire`).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::instance::{Action, Endpoint, Instance, Now, Status};

/// Most instances. Why: twice what lookups are measured with; each takes about 1 KB. Beyond it
/// registering is refused ([`RegistrationRefusal::Full`]) until leases end.
pub const INSTANCES_MAX: usize = 20_000;

/// Most metadata entries of an instance; more is refused.
pub const METADATA_MAX: usize = 256;

/// Longest text of an instance (id, names, a metadata value), in bytes; longer is refused.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Longest lease, in seconds (a day); a longer one is cut. Why: an instance that asks for a year
/// and dies would be offered for a year.
pub const LEASE_S_MAX: u32 = 86_400;

/// How long a change stays in the delta, in milliseconds (Eureka's 180 s).
const DELTA_MS: u64 = 180_000;

/// Most changes in the delta. Why: a delta larger than the registry is no delta. Older ones are
/// dropped; a client that misses them sees another hash and fetches all.
const DELTA_MAX: usize = 10_000;

/// How long an override is kept without being asked for, in milliseconds (Eureka's hour).
const OVERRIDE_MS: u64 = 3_600_000;

/// Deltas are numbered below this, because a client reads 16 bits.
const VERSION_MAX: u32 = 32_767;

/// Why an instance is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationRefusal {
    /// [`INSTANCES_MAX`] are registered: not this instance's fault, try again.
    Full,
    /// A text or the metadata is too long; what.
    TooLong(&'static str),
}

impl fmt::Display for RegistrationRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the registry holds {INSTANCES_MAX} instances, its most"),
            Self::TooLong(what) => write!(f, "{what} too long"),
        }
    }
}

impl std::error::Error for RegistrationRefusal {}

/// The result of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heartbeat {
    /// The lease was renewed.
    Renewed,
    /// The lease was renewed, and the effective status changed.
    Changed,
    /// The instance is not registered, or with older data, or without a status: it must register.
    Register,
}

/// One registration.
#[derive(Debug)]
struct Held {
    instance: Arc<Instance>,
    /// Monotonic milliseconds at which the lease ends; none for an instance in this process.
    ends_ms: Option<u64>,
}

/// A change in the delta.
#[derive(Debug)]
struct DeltaEntry {
    at_ms: u64,
    instance: Arc<Instance>,
}

/// Who is registered.
#[derive(Debug, Default)]
pub struct Table {
    /// By application, then id: what is listed is sorted.
    apps: BTreeMap<String, BTreeMap<String, Held>>,
    count: usize,
    /// Lease ends, earliest first: (end, application, id).
    ends: BTreeSet<(u64, String, String)>,
    /// Overrides by id, with the time of the last access.
    overrides: HashMap<String, (Status, u64)>,
    changes: VecDeque<DeltaEntry>,
    version: u32,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of instances.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Applications and their instances, sorted by name and id.
    pub fn apps(&self) -> impl Iterator<Item = (&str, Vec<Arc<Instance>>)> {
        self.apps.iter().map(|(name, held)| {
            (name.as_str(), held.values().map(|h| Arc::clone(&h.instance)).collect())
        })
    }

    /// Instances of one application (in upper case), sorted by id.
    #[must_use]
    pub fn app(&self, app: &str) -> Vec<Arc<Instance>> {
        let held = self.apps.get(app);
        held.map_or(Vec::new(), |h| h.values().map(|h| Arc::clone(&h.instance)).collect())
    }

    /// One instance.
    #[must_use]
    pub fn get(&self, app: &str, id: &str) -> Option<Arc<Instance>> {
        Some(Arc::clone(&self.apps.get(app)?.get(id)?.instance))
    }

    /// The first instance with this id, in any application.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Instance>> {
        self.apps.values().find_map(|held| Some(Arc::clone(&held.get(id)?.instance)))
    }

    /// Instances with this (secure) virtual address, by application.
    #[must_use]
    pub fn by_vip(&self, vip: &str, secure: bool) -> Vec<(String, Vec<Arc<Instance>>)> {
        let named = |i: &&Arc<Instance>| {
            let vips = if secure { &i.secure_vip } else { &i.vip };
            vips.iter().flat_map(|v| v.split(',')).any(|v| v.trim() == vip)
        };
        let mut found = Vec::new();
        for (app, held) in &self.apps {
            let instances: Vec<_> =
                held.values().map(|h| &h.instance).filter(named).map(Arc::clone).collect();
            if !instances.is_empty() {
                found.push((app.clone(), instances));
            }
        }
        found
    }

    /// Eureka's hash over all instances: `STATUS_count_` for each status that occurs, sorted by
    /// name. Clients compare it with what they hold.
    #[must_use]
    pub fn hash_code(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for held in self.apps.values().flat_map(BTreeMap::values) {
            *counts.entry(held.instance.status.name()).or_default() += 1;
        }
        counts.into_iter().map(|(status, n)| format!("{status}_{n}_")).collect()
    }

    /// Registers an instance, or again.
    ///
    /// A registration with older facts (`dirty_ms`) than the stored ones keeps those, but renews
    /// the lease.
    ///
    /// # Errors
    /// [`RegistrationRefusal`]; nothing changed.
    pub fn register(
        &mut self,
        mut instance: Instance,
        now: Now,
    ) -> Result<(), RegistrationRefusal> {
        check(&instance)?;
        let existing = self.get(&instance.app, &instance.id);
        if existing.is_none() && self.count >= INSTANCES_MAX {
            return Err(RegistrationRefusal::Full);
        }
        if instance.dirty_ms == 0 {
            instance.dirty_ms = now.unix_ms;
        }
        if let Some(existing) = &existing
            && existing.dirty_ms > instance.dirty_ms
        {
            instance = Instance::clone(existing);
        }
        let overridden = self.override_of(&instance.id, now);
        if instance.overridden != Status::Unknown && overridden.is_none() {
            self.overrides.insert(instance.id.clone(), (instance.overridden, now.mono_ms));
        }
        let overridden = overridden.or(Some(instance.overridden));
        let overridden = overridden.filter(|s| *s != Status::Unknown);
        instance.overridden = overridden.unwrap_or_default();
        instance.status =
            effective(instance.status, overridden, existing.as_deref().map(|e| e.status));

        let lease = &mut instance.lease;
        lease.duration_s = match lease.duration_s {
            0 => 90,
            s => s.min(LEASE_S_MAX),
        };
        if lease.renewal_s == 0 {
            lease.renewal_s = 30;
        }
        lease.registered_ms = now.unix_ms;
        lease.renewed_ms = now.unix_ms;
        lease.evicted_ms = 0;
        lease.up_ms = match &existing {
            Some(existing) if existing.lease.up_ms > 0 => existing.lease.up_ms,
            _ if instance.status == Status::Up => now.unix_ms,
            _ => 0,
        };
        instance.updated_ms = now.unix_ms;
        instance.action = Action::Added;
        self.put(instance, now);
        Ok(())
    }

    /// Renews a lease.
    ///
    /// * `dirty_ms`: when the instance last changed its data, if it reports that. A time later than
    ///   the stored one means that it must register again.
    pub fn heartbeat(&mut self, app: &str, id: &str, dirty_ms: Option<i64>, now: Now) -> Heartbeat {
        let Some(instance) = self.get(app, id) else {
            return Heartbeat::Register;
        };
        let overridden = self.override_of(id, now);
        let status = effective(instance.status, overridden, Some(instance.status));
        if status == Status::Unknown {
            return Heartbeat::Register;
        }
        let changed = status != instance.status;
        let mut renewed = Instance::clone(&instance);
        renewed.status = status;
        renewed.lease.renewed_ms = now.unix_ms;
        if changed {
            renewed.updated_ms = now.unix_ms;
            renewed.action = Action::Modified;
            self.put(renewed, now);
        } else {
            self.renew(renewed, now);
        }
        match dirty_ms {
            Some(dirty) if dirty > instance.dirty_ms => Heartbeat::Register,
            _ if changed => Heartbeat::Changed,
            _ => Heartbeat::Renewed,
        }
    }

    /// Ends a lease, and the override of its id; false if there is none.
    pub fn cancel(&mut self, app: &str, id: &str, now: Now) -> bool {
        self.overrides.remove(id);
        self.remove(app, id, now).is_some()
    }

    /// Removes instances whose lease has ended; returns them.
    pub fn expire(&mut self, now: Now) -> Vec<Arc<Instance>> {
        let mut expired = Vec::new();
        while let Some((ends, _, _)) = self.ends.first()
            && *ends <= now.mono_ms
        {
            let Some((_, app, id)) = self.ends.pop_first() else { break };
            self.overrides.remove(&id);
            expired.extend(self.remove(&app, &id, now));
        }
        expired
    }

    /// Overrides an instance's status and renews its lease; false if there is no such instance.
    pub fn set_status(
        &mut self,
        app: &str,
        id: &str,
        status: Status,
        dirty_ms: Option<i64>,
        now: Now,
    ) -> bool {
        let Some(instance) = self.get(app, id) else {
            return false;
        };
        let mut changed = Instance::clone(&instance);
        changed.lease.renewed_ms = now.unix_ms;
        if instance.status == status && instance.overridden == status {
            self.renew(changed, now);
            return true;
        }
        self.overrides.insert(id.to_owned(), (status, now.mono_ms));
        changed.status = status;
        changed.overridden = status;
        self.modified(changed, dirty_ms, now);
        true
    }

    /// Ends an override and renews the lease; false if there is no such instance. Without an
    /// override nothing else changes; with one the status is `fallback`, and UNKNOWN makes the
    /// next heartbeat register again.
    pub fn clear_status(
        &mut self,
        app: &str,
        id: &str,
        fallback: Status,
        dirty_ms: Option<i64>,
        now: Now,
    ) -> bool {
        let Some(instance) = self.get(app, id) else {
            return false;
        };
        let mut changed = Instance::clone(&instance);
        changed.lease.renewed_ms = now.unix_ms;
        if self.overrides.remove(id).is_none() {
            self.renew(changed, now);
            return true;
        }
        changed.overridden = Status::Unknown;
        changed.status = fallback;
        self.modified(changed, dirty_ms, now);
        true
    }

    /// Adds to an instance's metadata; false if there is no such instance or it would grow beyond
    /// its limits. Lost when the instance registers again, as with Eureka.
    pub fn set_metadata(
        &mut self,
        app: &str,
        id: &str,
        entries: impl IntoIterator<Item = (String, String)>,
        now: Now,
    ) -> bool {
        let Some(instance) = self.get(app, id) else {
            return false;
        };
        let mut changed = Instance::clone(&instance);
        changed.metadata.extend(entries);
        if check(&changed).is_err() {
            return false;
        }
        changed.updated_ms = now.unix_ms;
        changed.action = Action::Added;
        self.put(changed, now);
        true
    }

    /// The changes of the last 180 s, oldest first, each with the state it led to; and a number
    /// that grows with each delta that is asked for.
    pub fn delta(&mut self, now: Now) -> (u32, Vec<Arc<Instance>>) {
        self.forget_changes(now);
        self.version = self.version % VERSION_MAX + 1;
        let changes = self.changes.iter().map(|change| {
            // The current state of whoever is still here.
            let gone = change.instance.action == Action::Deleted;
            let current =
                if gone { None } else { self.get(&change.instance.app, &change.instance.id) };
            current.unwrap_or_else(|| Arc::clone(&change.instance))
        });
        (self.version, changes.collect())
    }

    fn modified(&mut self, mut instance: Instance, dirty_ms: Option<i64>, now: Now) {
        instance.dirty_ms = instance.dirty_ms.max(dirty_ms.unwrap_or(0));
        instance.updated_ms = now.unix_ms;
        instance.action = Action::Modified;
        if instance.status == Status::Up && instance.lease.up_ms == 0 {
            instance.lease.up_ms = now.unix_ms;
        }
        self.put(instance, now);
    }

    /// The override of an id; asking keeps it.
    fn override_of(&mut self, id: &str, now: Now) -> Option<Status> {
        let (status, asked_ms) = self.overrides.get_mut(id)?;
        if now.mono_ms.saturating_sub(*asked_ms) > OVERRIDE_MS {
            self.overrides.remove(id);
            return None;
        }
        *asked_ms = now.mono_ms;
        Some(*status)
    }

    /// Stores an instance with a lease from now, and records the change.
    fn put(&mut self, instance: Instance, now: Now) {
        let instance = self.renew(instance, now);
        self.note_change(instance, now);
    }

    /// Stores an instance with a lease from now.
    fn renew(&mut self, instance: Instance, now: Now) -> Arc<Instance> {
        let (app, id) = (instance.app.clone(), instance.id.clone());
        let ends_ms = (instance.endpoint != Endpoint::InProcess)
            .then(|| now.mono_ms.saturating_add(1000 * u64::from(instance.lease.duration_s)));
        let instance = Arc::new(instance);
        let held = Held { instance: Arc::clone(&instance), ends_ms };
        match self.apps.entry(app.clone()).or_default().insert(id.clone(), held) {
            Some(Held { ends_ms: Some(before), .. }) => {
                self.ends.remove(&(before, app.clone(), id.clone()));
            }
            Some(_) => {}
            None => self.count += 1,
        }
        if let Some(ends_ms) = ends_ms {
            self.ends.insert((ends_ms, app, id));
        }
        instance
    }

    fn remove(&mut self, app: &str, id: &str, now: Now) -> Option<Arc<Instance>> {
        let held = self.apps.get_mut(app)?.remove(id)?;
        if self.apps.get(app).is_some_and(BTreeMap::is_empty) {
            self.apps.remove(app);
        }
        self.count -= 1;
        if let Some(ends_ms) = held.ends_ms {
            self.ends.remove(&(ends_ms, app.to_owned(), id.to_owned()));
        }
        let mut gone = Instance::clone(&held.instance);
        gone.lease.evicted_ms = now.unix_ms;
        gone.updated_ms = now.unix_ms;
        gone.action = Action::Deleted;
        let gone = Arc::new(gone);
        self.note_change(Arc::clone(&gone), now);
        Some(gone)
    }

    fn note_change(&mut self, instance: Arc<Instance>, now: Now) {
        self.forget_changes(now);
        self.changes.push_back(DeltaEntry { at_ms: now.mono_ms, instance });
    }

    fn forget_changes(&mut self, now: Now) {
        while let Some(change) = self.changes.front()
            && (now.mono_ms.saturating_sub(change.at_ms) > DELTA_MS
                || self.changes.len() >= DELTA_MAX)
        {
            self.changes.pop_front();
        }
    }
}

/// The effective status; see the header.
fn effective(reported: Status, overridden: Option<Status>, existing: Option<Status>) -> Status {
    let settled = |s: Status| matches!(s, Status::Up | Status::OutOfService);
    if !settled(reported) {
        return reported;
    }
    overridden.or(existing.filter(|s| settled(*s))).unwrap_or(reported)
}

fn check(instance: &Instance) -> Result<(), RegistrationRefusal> {
    let long = |text: &str| text.len() > TEXT_BYTES_MAX;
    let optional = [
        &instance.vip,
        &instance.secure_vip,
        &instance.home_page,
        &instance.status_page,
        &instance.health_check,
        &instance.secure_health_check,
        &instance.app_group,
        &instance.asg,
        &instance.sid,
    ];
    if [&instance.id, &instance.app, &instance.host, &instance.ip].into_iter().any(|t| long(t)) {
        Err(RegistrationRefusal::TooLong("a name"))
    } else if optional.into_iter().flatten().any(|t| long(t)) {
        Err(RegistrationRefusal::TooLong("an address"))
    } else if instance.metadata.len() > METADATA_MAX
        || instance.data_center.metadata.len() > METADATA_MAX
        || instance
            .metadata
            .iter()
            .chain(&instance.data_center.metadata)
            .any(|(k, v)| long(k) || long(v))
    {
        Err(RegistrationRefusal::TooLong("the metadata"))
    } else {
        Ok(())
    }
}
