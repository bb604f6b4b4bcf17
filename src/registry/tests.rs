//! Promises of leases and balancing, on invented clocks.

use std::collections::BTreeMap;

use super::instance::Action;
use super::table::{INSTANCES_MAX, LEASE_S_MAX, METADATA_MAX};
use super::*;
use crate::edgeai::service::Balancing;
use crate::registry::balance::{ATTEMPTS_MAX, Call, Pick};

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

fn at(ms: u64) -> Now {
    Now { unix_ms: 1_700_000_000_000 + ms as i64, mono_ms: ms }
}

fn http(app: &str, id: &str, port: u16) -> Instance {
    Instance::new(app, id, Endpoint::Http { host: "127.0.0.1".to_owned(), port })
}

fn leased(app: &str, id: &str, duration_s: u32) -> Instance {
    let mut instance = http(app, id, 1);
    instance.lease.duration_s = duration_s;
    instance
}

// --- leases ---------------------------------------------------------------------------------------

#[test]
fn a_lease_ends_its_duration_after_the_last_heartbeat() {
    let registry = Registry::new(1);
    registry.register(leased("a", "one", 10), at(0)).unwrap();
    assert_eq!(registry.heartbeat("A", "one", None, at(9_000)), Heartbeat::Renewed);
    assert!(registry.expire(at(18_999)).is_empty());
    let gone = registry.expire(at(19_000));
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].id.as_str(), gone[0].action), ("one", Action::Deleted));
    assert_eq!(registry.heartbeat("a", "one", None, at(19_001)), Heartbeat::Register);
    assert!(registry.expire(at(1_000_000)).is_empty());
}

#[test]
fn an_instance_is_up_since_it_first_said_so() {
    let registry = Registry::new(1);
    let up_ms = || registry.read(|table| table.app("A")[0].lease.up_ms);
    let starting = Instance { status: Status::Starting, ..http("a", "one", 1) };
    registry.register(starting, at(1)).unwrap();
    assert_eq!(up_ms(), 0);
    registry.register(http("a", "one", 1), at(2)).unwrap();
    assert_eq!(up_ms(), at(2).unix_ms);
    registry.register(http("a", "one", 1), at(3)).unwrap();
    assert_eq!(up_ms(), at(2).unix_ms);
}

#[test]
fn an_address_of_ipv6_is_shown_in_brackets() {
    let shown = |host: &str| Endpoint::Http { host: host.to_owned(), port: 80 }.to_string();
    assert_eq!((shown("edge.local"), shown("::1")), ("edge.local:80".into(), "[::1]:80".into()));
}

#[test]
fn setting_the_clock_evicts_nobody() {
    let registry = Registry::new(1);
    registry.register(leased("a", "one", 10), at(0)).unwrap();
    let tomorrow = Now { unix_ms: at(0).unix_ms + 86_400_000, mono_ms: 5_000 };
    assert!(registry.expire(tomorrow).is_empty());
}

#[test]
fn an_instance_in_this_process_needs_no_heartbeat() {
    let registry = Registry::new(1);
    registry.register(Instance::new("a", "self", Endpoint::InProcess), at(0)).unwrap();
    assert!(registry.expire(at(u64::MAX >> 24)).is_empty());
    assert_eq!(registry.read(Table::len), 1);
}

#[test]
fn expiry_removes_exactly_those_that_did_not_renew() {
    let registry = Registry::new(1);
    for i in 0..100 {
        registry.register(leased("a", &format!("i{i}"), 10), at(i)).unwrap();
    }
    for i in (0..100).step_by(3) {
        registry.heartbeat("a", &format!("i{i}"), None, at(5_000));
    }
    let gone = registry.expire(at(12_000));
    assert_eq!(gone.len(), 66);
    assert!(gone.iter().all(|i| i.id[1..].parse::<u32>().unwrap() % 3 != 0));
    assert_eq!(registry.read(Table::len), 34);
}

#[test]
fn missing_and_absurd_leases_are_mended() {
    let registry = Registry::new(1);
    registry.register(leased("a", "none", 0), at(0)).unwrap();
    registry.register(leased("a", "year", u32::MAX), at(0)).unwrap();
    let lease = |id: &str| registry.read(|t| t.get("A", id)).unwrap().lease.duration_s;
    assert_eq!((lease("none"), lease("year")), (90, LEASE_S_MAX));
}

#[test]
fn limits_refuse_and_change_nothing() {
    let mut table = Table::new();
    for i in 0..INSTANCES_MAX {
        table.register(http("a", &i.to_string(), 1), at(0)).unwrap();
    }
    assert_eq!(table.register(http("a", "more", 1), at(0)), Err(RegistrationRefusal::Full));
    assert_eq!(table.register(http("a", "7", 2), at(0)), Ok(()), "known ones may register again");
    assert_eq!(table.len(), INSTANCES_MAX);
    let mut wordy = http("a", "7", 1);
    wordy.metadata = (0..=METADATA_MAX).map(|i| (i.to_string(), String::new())).collect();
    assert!(matches!(table.register(wordy, at(0)), Err(RegistrationRefusal::TooLong(_))));
}

// --- Eureka's rules -------------------------------------------------------------------------------

#[test]
fn hash_counts_all_statuses_in_alphabetical_order() {
    let mut table = Table::new();
    assert_eq!(table.hash_code(), "");
    for (id, status) in [("1", Status::Up), ("2", Status::Up), ("3", Status::Down)] {
        let mut instance = http("a", id, 1);
        instance.status = status;
        table.register(instance, at(0)).unwrap();
    }
    assert_eq!(table.hash_code(), "DOWN_1_UP_2_");
}

#[test]
fn an_override_outlives_registrations_until_it_is_cleared() {
    let mut table = Table::new();
    let status = |t: &Table| t.get("A", "1").unwrap().status;
    table.register(http("a", "1", 1), at(0)).unwrap();
    assert!(table.set_status("A", "1", Status::OutOfService, None, at(1)));
    table.register(http("a", "1", 1), at(2)).unwrap();
    assert_eq!(status(&table), Status::OutOfService);
    assert_eq!(table.heartbeat("A", "1", None, at(3)), Heartbeat::Renewed);
    assert!(table.clear_status("A", "1", Status::Unknown, None, at(4)));
    assert_eq!(status(&table), Status::Unknown);
    assert_eq!(table.heartbeat("A", "1", None, at(5)), Heartbeat::Register);
    table.register(http("a", "1", 1), at(6)).unwrap();
    assert_eq!(status(&table), Status::Up);
    assert!(!table.set_status("A", "2", Status::Down, None, at(7)));
}

#[test]
fn an_instance_may_say_that_it_is_down_but_not_overrule_the_operator() {
    let mut table = Table::new();
    let status = |t: &Table| t.get("A", "1").unwrap().status;
    let saying = |status| {
        let mut instance = http("a", "1", 1);
        instance.status = status;
        instance
    };
    table.register(saying(Status::Up), at(0)).unwrap();
    table.register(saying(Status::OutOfService), at(1)).unwrap();
    assert_eq!(status(&table), Status::Up, "the existing lease decides between these two");
    table.register(saying(Status::Down), at(2)).unwrap();
    assert_eq!(status(&table), Status::Down);
    table.register(saying(Status::OutOfService), at(3)).unwrap();
    assert_eq!(status(&table), Status::OutOfService);
}

#[test]
fn older_facts_keep_the_stored_instance_and_newer_ones_ask_for_registration() {
    let mut table = Table::new();
    let dirty = |dirty_ms, port| {
        let mut instance = leased("a", "1", 10);
        instance.dirty_ms = dirty_ms;
        instance.port.number = port;
        instance
    };
    table.register(dirty(100, 1), at(0)).unwrap();
    table.register(dirty(50, 2), at(5_000)).unwrap();
    assert_eq!(table.get("A", "1").unwrap().port.number, 1);
    assert!(table.expire(at(14_000)).is_empty(), "the lease was renewed all the same");
    assert_eq!(table.heartbeat("A", "1", Some(100), at(14_000)), Heartbeat::Renewed);
    assert_eq!(table.heartbeat("A", "1", Some(99), at(14_000)), Heartbeat::Renewed);
    assert_eq!(table.heartbeat("A", "1", Some(101), at(14_000)), Heartbeat::Register);
}

#[test]
fn applying_deltas_gives_the_whole_and_its_hash() {
    let mut table = Table::new();
    let mut random = 12345_u64;
    let mut mirror: BTreeMap<(String, String), Status> = BTreeMap::new();
    for step in 0..2000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (app, id) = (format!("A{}", random >> 33 & 3), format!("i{}", random >> 40 & 7));
        let now = at(step * 100);
        match random >> 50 & 7 {
            0..=2 => table.register(leased(&app, &id, 20), now).unwrap(),
            3 => drop(table.cancel(&app, &id, now)),
            4 => drop(table.set_status(&app, &id, Status::OutOfService, None, now)),
            5 => drop(table.clear_status(&app, &id, Status::Up, None, now)),
            _ => drop(table.expire(now)),
        }
        if step % 17 == 0 {
            let (version, changes) = table.delta(now);
            assert!((1..=32_767).contains(&version));
            for change in changes {
                let key = (change.app.clone(), change.id.clone());
                if change.action == Action::Deleted {
                    mirror.remove(&key);
                } else {
                    mirror.insert(key, change.status);
                }
            }
            let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
            for status in mirror.values() {
                *counts.entry(status.name()).or_default() += 1;
            }
            let hash: String = counts.iter().map(|(s, n)| format!("{s}_{n}_")).collect();
            assert_eq!(hash, table.hash_code(), "after step {step}");
        }
    }
}

#[test]
fn delta_forgets_after_three_minutes() {
    let mut table = Table::new();
    table.register(http("a", "1", 1), at(0)).unwrap();
    assert_eq!(table.delta(at(180_000)).1.len(), 1);
    assert_eq!(table.delta(at(180_001)).1.len(), 0);
}

#[test]
fn virtual_addresses_match_whole_parts() {
    let mut table = Table::new();
    let mut instance = http("a", "1", 1);
    instance.vip = Some("judge, judge-v2".to_owned());
    table.register(instance, at(0)).unwrap();
    assert_eq!(table.by_vip("judge-v2", false).len(), 1);
    assert_eq!(table.by_vip("judge-v", false).len(), 0);
    assert_eq!(table.by_vip("judge", true).len(), 0);
}

// --- registry and balancer together ---------------------------------------------------------------

#[test]
fn the_balancer_offers_exactly_what_is_up_and_callable() {
    let registry = Registry::new(1);
    let balancer = registry.balancer("judge").unwrap();
    let offered =
        || -> Vec<String> { balancer.instances(0).iter().map(|(i, _)| i.id.clone()).collect() };
    registry.register(leased("Judge", "b", 10), at(0)).unwrap();
    registry.register(http("JUDGE", "a", 1), at(0)).unwrap();
    registry.register(http("other", "c", 1), at(0)).unwrap();
    assert_eq!(offered(), ["a", "b"]);
    registry.set_status("judge", "a", Status::OutOfService, None, at(1));
    assert_eq!(offered(), ["b"]);
    registry.clear_status("judge", "a", Status::Up, None, at(2));
    assert_eq!(offered(), ["a", "b"]);
    registry.expire(at(10_000));
    assert_eq!(offered(), ["a"]);
    let mut tls_only = http("judge", "a", 1);
    tls_only.endpoint = Endpoint::Nowhere;
    tls_only.dirty_ms = i64::MAX;
    registry.register(tls_only, at(10_001)).unwrap();
    assert!(offered().is_empty());
    registry.cancel("judge", "a", at(10_002));
    assert!(balancer.call().next(0).is_none());
    let late = registry.balancer("OTHER").unwrap();
    assert_eq!(late.len(), 1, "a balancer made later knows what was there before");
}

fn balancer(n: usize, strategy: Balancing) -> Balancer {
    let balancer = Balancer::new(strategy, 7);
    for i in 0..n {
        balancer.set(&Arc::new(http("a", &format!("{i:05}"), 1)));
    }
    balancer
}

fn index(pick: &Pick) -> usize {
    pick.instance().id.parse().unwrap()
}

#[test]
fn equal_instances_get_equal_shares() {
    for strategy in
        [Balancing::PeakEwma, Balancing::LeastRequest, Balancing::RoundRobin, Balancing::Random]
    {
        let balancer = balancer(10, strategy);
        let mut counts = [0_u32; 10];
        for i in 0..100_000_u64 {
            let mut call = balancer.call();
            let pick = call.next(i * MS).unwrap();
            counts[index(&pick)] += 1;
            call.succeeded(pick, i * MS + MS);
        }
        let most = *counts.iter().max().unwrap();
        assert!(most <= 11_000, "{strategy:?}: {counts:?}");
    }
}

/// A call under way: its instance, and how that will end.
type Flight<'b> = (Call<'b>, Pick, Result<(), FailureKind>);

/// Drives a balancer in virtual time, `workers` calls in flight at once, for `length_ns`;
/// `serve(instance, now)` says how long it takes and how it ends. Returns attempts by instance and
/// calls that failed.
fn drive(
    balancer: &Balancer,
    workers: usize,
    from_ns: u64,
    length_ns: u64,
    serve: impl Fn(usize, u64) -> (u64, Result<(), FailureKind>),
) -> (Vec<u32>, u32) {
    let mut attempts = vec![0; balancer.len()];
    let mut failed_calls = 0;
    let mut flights: Vec<(u64, Option<Flight<'_>>)> =
        (0..workers).map(|w| (from_ns + w as u64, None)).collect();
    loop {
        let flight = flights.iter_mut().min_by_key(|f| f.0).unwrap();
        let now = flight.0;
        if now > from_ns + length_ns {
            return (attempts, failed_calls);
        }
        let mut call = match flight.1.take() {
            None => balancer.call(),
            Some((mut call, pick, Ok(()))) => {
                call.succeeded(pick, now);
                balancer.call()
            }
            Some((mut call, pick, Err(kind))) => {
                call.failed(pick, kind, now);
                call
            }
        };
        match call.next(now) {
            Some(pick) => {
                attempts[index(&pick)] += 1;
                let (takes_ns, outcome) = serve(index(&pick), now);
                *flight = (now + takes_ns.max(1), Some((call, pick, outcome)));
            }
            None => {
                failed_calls += 1;
                *flight = (now + MS, None);
            }
        }
    }
}

#[test]
fn a_slow_instance_gets_little_of_the_traffic() {
    let balancer = balancer(5, Balancing::PeakEwma);
    let (attempts, failed) =
        drive(&balancer, 8, 1, 20 * S, |i, _| (if i == 3 { 20 * MS } else { 2 * MS }, Ok(())));
    let all: u32 = attempts.iter().sum();
    assert!(attempts[3] * 20 < all, "{attempts:?}");
    assert_eq!(failed, 0);
}

#[test]
fn two_new_instances_share_calls_whatever_the_first_ones_took() {
    for workers in [1, 4] {
        let balancer = balancer(2, Balancing::PeakEwma);
        let answered = [std::cell::Cell::new(0), std::cell::Cell::new(0)];
        let (attempts, failed) = drive(&balancer, workers, 1, S, |i, _| {
            let before = answered[i].replace(answered[i].get() + 1);
            // The first call connects and loads a model, at one instance for longer.
            let first = [40 * MS, 3 * MS][i];
            (if before == 0 { first } else { MS + before % 3 * MS / 10 }, Ok(()))
        });
        let share = f64::from(attempts[0]) / f64::from(attempts[0] + attempts[1]);
        assert!((0.35..0.65).contains(&share), "{workers}: {attempts:?}");
        assert_eq!(failed, 0);
    }
}

#[test]
fn a_new_instance_beside_one_that_is_known_gets_its_share_at_once() {
    let balancer = balancer(1, Balancing::PeakEwma);
    drive(&balancer, 2, 1, S, |_, _| (MS, Ok(())));
    balancer.set(&Arc::new(http("a", "00001", 1)));
    let (attempts, _) = drive(&balancer, 2, 2 * S, S, |_, _| (MS, Ok(())));
    let share = f64::from(attempts[1]) / f64::from(attempts[0] + attempts[1]);
    assert!((0.35..0.65).contains(&share), "{attempts:?}");
}

#[test]
fn a_dead_instance_costs_one_attempt_a_worker_and_no_call() {
    let balancer = balancer(3, Balancing::PeakEwma);
    let dead_from = 2 * S;
    let dead_attempts = std::cell::Cell::new(0);
    let (_, failed) = drive(&balancer, 4, 1, 3 * S - S / 2, |i, now| {
        if i == 1 && now >= dead_from {
            dead_attempts.set(dead_attempts.get() + 1);
            (MS / 10, Err(FailureKind::Connect))
        } else {
            (MS, Ok(()))
        }
    });
    assert_eq!(failed, 0);
    assert!((1..=4).contains(&dead_attempts.get()), "{}", dead_attempts.get());
}

#[test]
fn two_dead_of_three_cost_no_call_either() {
    let balancer = balancer(3, Balancing::PeakEwma);
    let (attempts, failed) = drive(&balancer, 4, 1, 10 * S, |i, _| {
        if i == 2 { (MS, Ok(())) } else { (MS / 10, Err(FailureKind::Connect)) }
    });
    assert_eq!(failed, 0);
    assert!(attempts[0] + attempts[1] < 30, "{attempts:?}");
}

#[test]
fn an_instance_that_fails_fast_gets_next_to_nothing() {
    let balancer = balancer(4, Balancing::PeakEwma);
    let serve = |i: usize, _| {
        if i == 0 { (MS / 10, Err(FailureKind::Failed)) } else { (2 * MS, Ok(())) }
    };
    let (_, failed) = drive(&balancer, 8, 1, S, serve);
    assert_eq!(failed, 0);
    let (attempts, failed) = drive(&balancer, 8, S + 2, 30 * S, serve);
    let all: u32 = attempts.iter().sum();
    assert!(attempts[0] * 100 < all, "{attempts:?}");
    assert_eq!(failed, 0);
}

#[test]
fn a_recovered_instance_is_back_after_a_probe() {
    let balancer = balancer(2, Balancing::PeakEwma);
    let until = 3 * S;
    let serve = |i: usize, now: u64| {
        if i == 0 && now < until { (MS / 10, Err(FailureKind::Connect)) } else { (MS, Ok(())) }
    };
    drive(&balancer, 4, 1, 3 * S, serve);
    // Three ejections at most by then: the longest ends within 6 s.
    let (attempts, _) = drive(&balancer, 4, 10 * S, S, serve);
    let share = f64::from(attempts[0]) / f64::from(attempts[0] + attempts[1]);
    assert!((0.4..0.6).contains(&share), "{attempts:?}");
}

#[test]
fn when_all_are_ejected_all_are_tried() {
    let balancer = balancer(2, Balancing::PeakEwma);
    let back = 60 * S;
    let first = std::cell::Cell::new(0);
    drive(&balancer, 2, 1, 61 * S, |_, now| {
        if now < back {
            return (MS / 10, Err(FailureKind::Connect));
        }
        if first.get() == 0 {
            first.set(now);
        }
        (MS, Ok(()))
    });
    assert!(first.get() - back < S, "first success {} ms late", (first.get() - back) / MS);
}

#[test]
fn retries_stay_within_their_budget_when_all_fail() {
    let balancer = balancer(4, Balancing::PeakEwma);
    let attempts = std::cell::Cell::new(0_u32);
    let (mut calls, length_s) = (0_u32, 20_u64);
    for i in 0..length_s * 200 {
        let now = 1 + i * 5 * MS;
        let mut call = balancer.call();
        calls += 1;
        while let Some(pick) = call.next(now) {
            attempts.set(attempts.get() + 1);
            call.failed(pick, FailureKind::Failed, now + MS);
        }
    }
    let retries = attempts.get() - calls;
    // A fifth of the calls, ten a second, and what was saved up before.
    assert!(retries <= calls / 5 + 10 * length_s as u32 + 20, "{retries} of {calls}");
    assert!(retries > calls / 10);
}

#[test]
fn instances_take_turns_and_a_failed_call_goes_to_the_next() {
    let balancer = balancer(3, Balancing::RoundRobin);
    let mut firsts = Vec::new();
    for _ in 0..6 {
        let mut call = balancer.call();
        let pick = call.next(5).unwrap();
        firsts.push(index(&pick));
        call.succeeded(pick, 6);
    }
    assert!(firsts.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 3), "{firsts:?}");
    let mut call = balancer.call();
    let mut tried = Vec::new();
    while let Some(pick) = call.next(7) {
        tried.push(index(&pick));
        call.failed(pick, FailureKind::Connect, 8);
    }
    assert_eq!(tried, [0, 1, 2].map(|n| (firsts[5] + 1 + n) % 3));
}

#[test]
fn no_call_goes_to_one_instance_twice() {
    let balancer = balancer(3, Balancing::PeakEwma);
    let mut call = balancer.call();
    let mut seen = Vec::new();
    while let Some(pick) = call.next(5) {
        seen.push(index(&pick));
        call.failed(pick, FailureKind::Connect, 6);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
    assert!(call.attempts() <= ATTEMPTS_MAX);
}

#[test]
fn registering_anew_ends_an_ejection() {
    let registry = Registry::new(1);
    let balancer = registry.balancer("a").unwrap();
    registry.register(http("a", "1", 1), at(0)).unwrap();
    let mut call = balancer.call();
    let pick = call.next(1).unwrap();
    call.failed(pick, FailureKind::Connect, 2);
    assert!(balancer.instances(3)[0].1);
    registry.register(http("a", "1", 1), at(1)).unwrap();
    assert!(!balancer.instances(3)[0].1);
}

#[test]
fn a_dropped_call_leaves_no_trace() {
    let balancer = balancer(1, Balancing::LeastRequest);
    for _ in 0..10 {
        let mut call = balancer.call();
        drop(call.next(1));
    }
    let mut call = balancer.call();
    let pick = call.next(1).unwrap();
    call.failed(pick, FailureKind::Connect, 2);
    // The probe that is due is dropped, too: the next call may probe again.
    for now in [100 * S, 101 * S] {
        let mut call = balancer.call();
        assert!(call.next(now).is_some());
    }
    let mut call = balancer.call();
    let pick = call.next(102 * S).unwrap();
    call.succeeded(pick, 103 * S);
    assert!(!balancer.instances(104 * S)[0].1);
}

#[test]
fn picks_race_with_changes_without_harm() {
    let registry = Arc::new(Registry::new(3));
    let balancer = registry.balancer("a").unwrap();
    registry.register(http("a", "00000", 1), at(0)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let balancer = &balancer;
            scope.spawn(move || {
                for i in 0..20_000 {
                    let mut call = balancer.call();
                    let pick = call.next(i).expect("one instance always stays");
                    if (i + thread) % 3 == 0 {
                        call.failed(pick, FailureKind::Failed, i + 1);
                    } else {
                        call.succeeded(pick, i + 1);
                    }
                }
            });
        }
        for i in 0..500 {
            registry.register(http("a", &format!("{:05}", 1 + i % 5), 1), at(i)).unwrap();
            registry.cancel("a", &format!("{:05}", 1 + (i + 2) % 5), at(i));
        }
    });
    let idle = balancer.call().next(u64::MAX / 2).map(|p| p.instance().app.clone());
    assert_eq!(idle.as_deref(), Some("A"));
}
