//! The registry: which instances of a service there are, and which of them to call next.
//!
//! Services are looked up by name only. An instance registers under its service's name with a
//! lease and renews it by heartbeats; an instance inside this process has no lease, it lives as
//! long as the process. [`Table`] keeps the leases and knows Eureka's rules; a [`Balancer`] a
//! service spreads calls over the instances that are up; [`Registry`] holds both together, so that
//! a change is seen by the next call, without polling.
//!
//! Always true, and tested:
//! 1. a balancer offers exactly the instances of its service that are UP and can be called;
//! 2. an instance whose lease ended is gone at the next [`Registry::expire`], and an expiry never
//!    touches an instance that renewed in time;
//! 3. `now` is an argument: nothing here reads a clock, and setting the clock evicts nobody.
//!
//! Names are those of Eureka where it has one (application, lease, status); an application is a
//! service, and its name is compared without regard to case.
//!
//! Not here: the Eureka API (`http`, `wire`), calls (`trigger`), peers, self-preservation and
//! zones (later).

pub mod balance;
#[expect(clippy::disallowed_methods, reason = "I/O boundary: Eureka's API, and leases that end")]
pub mod http;
mod instance;
pub mod table;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use balance::{Balancer, FailureKind};
pub use instance::{Endpoint, Instance, Now, Port, Status, app_name};
pub use table::{Heartbeat, RegistrationRefusal, Table};

/// Most services that calls were made to or that have instances, as the registry remembers them.
/// Why: names come from manifests and twins' attributes; ten times the services of a large site.
pub const SERVICES_MAX: usize = 10_000;

/// Leases and balancers together; shared by all who register, look up and call.
#[derive(Debug)]
pub struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    balancers: HashMap<String, Arc<Balancer>>,
    seed: u64,
}

impl Registry {
    /// An empty registry.
    ///
    /// * `seed`: of the balancers' random choices.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let inner = Inner { table: Table::new(), balancers: HashMap::new(), seed };
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The table is whole after each of its methods; a panic elsewhere cannot break it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The balancer of a service, by its name in any case. Keep it: it follows the registry, and
    /// picking from it takes no lock. `None` beyond [`SERVICES_MAX`] names.
    #[must_use]
    pub fn balancer(&self, service: &str) -> Option<Arc<Balancer>> {
        let app = app_name(service);
        let mut inner = self.lock();
        if let Some(balancer) = inner.balancers.get(&app) {
            return Some(Arc::clone(balancer));
        }
        if inner.balancers.len() >= SERVICES_MAX {
            // Services that nobody calls and that have no instance are as good as unknown.
            inner.balancers.retain(|_, b| Arc::strong_count(b) > 1 || !b.is_empty());
            if inner.balancers.len() >= SERVICES_MAX {
                return None;
            }
        }
        let seed = inner.seed ^ inner.balancers.len() as u64;
        let balancer = Arc::new(Balancer::new(Default::default(), seed));
        for instance in inner.table.app(&app) {
            balancer.set(&instance);
        }
        inner.balancers.insert(app, Arc::clone(&balancer));
        Some(balancer)
    }

    /// Registers an instance, or again.
    ///
    /// # Errors
    /// [`RegistrationRefusal`]: a limit; nothing changed.
    pub fn register(&self, instance: Instance, now: Now) -> Result<(), RegistrationRefusal> {
        let app = instance.app.clone();
        let id = instance.id.clone();
        let mut inner = self.lock();
        inner.table.register(instance, now)?;
        inner.follow(&app, &id);
        if let Some(balancer) = inner.balancers.get(&app) {
            balancer.forgive(&id);
        }
        Ok(())
    }

    /// Renews a lease; see [`Table::heartbeat`].
    pub fn heartbeat(&self, app: &str, id: &str, dirty_ms: Option<i64>, now: Now) -> Heartbeat {
        let app = app_name(app);
        let mut inner = self.lock();
        let beat = inner.table.heartbeat(&app, id, dirty_ms, now);
        if beat == Heartbeat::Changed {
            inner.follow(&app, id);
        }
        beat
    }

    /// Ends a lease; false if there is none.
    pub fn cancel(&self, app: &str, id: &str, now: Now) -> bool {
        self.change(app, id, |table, app| table.cancel(app, id, now))
    }

    /// Overrides an instance's status; false if there is no such instance.
    pub fn set_status(
        &self,
        app: &str,
        id: &str,
        status: Status,
        dirty_ms: Option<i64>,
        now: Now,
    ) -> bool {
        self.change(app, id, |table, app| table.set_status(app, id, status, dirty_ms, now))
    }

    /// Ends an override; false if there is no such instance. `fallback` is the status until the
    /// instance says its own again.
    pub fn clear_status(
        &self,
        app: &str,
        id: &str,
        fallback: Status,
        dirty_ms: Option<i64>,
        now: Now,
    ) -> bool {
        self.change(app, id, |table, app| table.clear_status(app, id, fallback, dirty_ms, now))
    }

    /// Adds to an instance's metadata; false if there is no such instance or it would have more
    /// than [`table::METADATA_MAX`] entries.
    pub fn set_metadata(
        &self,
        app: &str,
        id: &str,
        entries: impl IntoIterator<Item = (String, String)>,
        now: Now,
    ) -> bool {
        self.change(app, id, |table, app| table.set_metadata(app, id, entries, now))
    }

    /// Removes instances whose lease has ended; they are returned, to be reported.
    pub fn expire(&self, now: Now) -> Vec<Arc<Instance>> {
        let mut inner = self.lock();
        let expired = inner.table.expire(now);
        for instance in &expired {
            inner.follow(&instance.app, &instance.id);
        }
        expired
    }

    /// Looks into the table. Keep it short: nobody can register or renew meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.lock().table)
    }

    /// The changes of the last minutes, as in Eureka (see [`Table::delta`]), and the hash
    /// of all instances after them.
    pub fn delta(&self, now: Now) -> (u32, Vec<Arc<Instance>>, String) {
        let mut inner = self.lock();
        let (version, changes) = inner.table.delta(now);
        (version, changes, inner.table.hash_code())
    }

    fn change(&self, app: &str, id: &str, by: impl FnOnce(&mut Table, &str) -> bool) -> bool {
        let app = app_name(app);
        let mut inner = self.lock();
        let done = by(&mut inner.table, &app);
        if done {
            inner.follow(&app, id);
        }
        done
    }
}

impl Inner {
    /// Tells a service's balancer what became of an instance.
    fn follow(&mut self, app: &str, id: &str) {
        if let Some(balancer) = self.balancers.get(app) {
            match self.table.get(app, id) {
                Some(instance) => balancer.set(&instance),
                None => balancer.remove(id),
            }
        }
    }
}

#[cfg(test)]
mod tests;
