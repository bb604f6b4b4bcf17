//! What the writer promises, on a disk that fails on purpose.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::store::AppendError;
use crate::store::tests::FakeDisk;
use crate::twin::path::Path;
use crate::twin::sequence::Stamp;
use crate::twin::{Change, Refusal};
use serde_json::{Value, json};

fn open(disk: &Arc<FakeDisk>) -> (Writer, Found) {
    let options = StoreOptions { segment_len: 8192, history_bytes_max: 1 << 20 };
    Writer::open(Arc::new(disk.clone()), options, Vec::new()).unwrap()
}

fn id(name: &str) -> ThingId {
    ThingId::parse(&format!("lab:{name}")).unwrap()
}

fn request(name: &str, change: Change) -> Request {
    Request {
        id: id(name),
        change,
        only_if: Precondition::Always,
        origin: Origin::Client,
        depth: 0,
    }
}

fn create(writer: &Writer, name: &str) {
    let thing = json!({"attributes": {"padding": "x".repeat(200)}});
    writer.submit(request(name, Change::Modify(Path::Thing, thing)), 1).unwrap();
    writer.commit();
}

fn reading(name: &str, seq: u64) -> Request {
    let values = json!({"env": {"t": seq}}).as_object().unwrap().clone();
    let stamp = Some(Stamp { seq, boot: None });
    request(name, Change::Reading { values, stamp })
}

fn shown(writer: &Writer) -> BTreeMap<String, (Value, u64, crate::twin::sequence::Sequence)> {
    let twins = writer.twins();
    let each = twins
        .iter()
        .map(|twin| (twin.id.to_string(), (twin.to_json(), twin.revision, twin.sequence.clone())));
    each.collect()
}

#[test]
fn nothing_is_visible_before_it_is_durable() {
    let (writer, _) = open(&Arc::default());
    let accepted = writer.submit(request("a", Change::Modify(Path::Thing, json!({}))), 1).unwrap();
    assert!(writer.twin("lab:a").is_none());
    assert!(writer.durable_now().batch < accepted.batch);
    writer.commit();
    assert_eq!(writer.twin("lab:a").unwrap().revision, 1);
    assert!(writer.durable_now().batch >= accepted.batch);
}

#[test]
fn a_survey_sees_every_twin_and_tells_the_batch_of_what_it_asked() {
    let (writer, _) = open(&Arc::default());
    create(&writer, "a");
    let survey = writer.survey(2, |twins, requests| {
        assert_eq!(twins.map(|twin| twin.id.to_string()).collect::<Vec<_>>(), ["lab:a"]);
        requests.push(request("a", Change::Delete(Path::Attribute(vec!["none".into()]))));
        requests.push(request("b", Change::Modify(Path::Thing, json!({}))));
    });
    let batch = survey.unwrap().unwrap();
    assert!(writer.durable_now().batch < batch && writer.twin("lab:b").is_none());
    writer.commit();
    assert!(writer.durable_now().batch >= batch && writer.twin("lab:b").is_some());
    assert_eq!(writer.survey(3, |_, _| {}).unwrap(), None);
}

#[test]
fn a_refused_change_leaves_no_trace() {
    let disk = Arc::default();
    let (writer, _) = open(&disk);
    create(&writer, "a");
    let before = shown(&writer);
    for change in [
        Change::Delete(Path::Attribute(vec!["none".into()])),
        Change::Modify(Path::Property("none".into(), vec!["x".into()]), json!(1)),
        Change::Modify(Path::Attributes, json!(5)),
        Change::Modify(Path::Attributes, json!({"big": "x".repeat(200_000)})),
    ] {
        assert!(matches!(writer.submit(request("a", change), 2), Err(Rejected::Refused(_))));
    }
    let revision = Request { only_if: Precondition::Revision(7), ..reading("a", 1) };
    assert!(writer.submit(revision, 2).is_err());
    writer.commit();
    assert_eq!(shown(&writer), before);
    assert_eq!(shown(&open(&disk).0), before);
}

#[test]
fn a_reading_is_taken_once_across_restarts() {
    let disk = Arc::default();
    let (writer, _) = open(&disk);
    create(&writer, "a");
    writer.submit(reading("a", 1), 2).unwrap();
    writer.commit();
    for writer in [writer, open(&disk).0] {
        let again = writer.submit(reading("a", 1), 3);
        assert_eq!(again.unwrap_err(), Rejected::Refused(Refusal::Duplicate));
        assert_eq!(writer.twin("lab:a").unwrap().revision, 2);
    }
}

#[test]
fn after_a_failed_write_or_sync_nothing_is_accepted_and_reads_go_on() {
    for nth in [1, 2] {
        let disk = Arc::<FakeDisk>::default();
        let (writer, _) = open(&disk);
        create(&writer, "a");
        disk.fail(nth, io::ErrorKind::Other);
        writer.submit(reading("a", 1), 2).unwrap();
        writer.commit();
        disk.heal();
        let durable = writer.durable_now();
        assert!(durable.failed.is_some(), "call {nth}");
        assert_eq!(writer.twin("lab:a").unwrap().revision, 1, "what failed is not visible");
        assert!(matches!(
            writer.submit(reading("a", 2), 3),
            Err(Rejected::NotStored(AppendError::ReadOnly(_)))
        ));
        assert!(writer.read_only().is_some());
    }
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_space() {
    let disk = Arc::<FakeDisk>::default();
    let (writer, _) = open(&disk);
    create(&writer, "a");
    disk.fail(1, io::ErrorKind::StorageFull);
    let mut taken = 0;
    let refused = loop {
        match writer.submit(reading("a", taken + 1), 2) {
            Ok(_) => taken += 1,
            Err(rejected) => break rejected,
        }
        writer.commit();
    };
    assert_eq!(refused, Rejected::NotStored(AppendError::Full));
    assert_eq!(writer.twin("lab:a").unwrap().revision, 1 + taken);
    disk.heal();
    writer.submit(reading("a", taken + 1), 3).unwrap();
    writer.commit();
    let before = shown(&writer);
    assert_eq!(before["lab:a"].1, 2 + taken);
    let (again, found) = open(&disk);
    assert!(found.recovery.damage.is_empty());
    assert_eq!(shown(&again), before);
}

#[test]
fn a_restart_finds_the_same_twins_with_and_without_snapshots() {
    for snapshots in [false, true] {
        let disk = Arc::default();
        let (writer, _) = open(&disk);
        for name in ["a", "b", "c"] {
            create(&writer, name);
        }
        writer
            .put_documents(vec![("object/x".into(), Some(json!({"y": 1}).to_string().into()))], 1)
            .unwrap();
        for seq in 1..200 {
            writer.submit(reading(["a", "b"][seq as usize % 2], seq), seq as i64).unwrap();
            writer.commit();
            if snapshots {
                writer.write_snapshot().unwrap();
            }
        }
        writer.submit(request("c", Change::Delete(Path::Thing)), 9).unwrap();
        writer.commit();
        let (again, found) = open(&disk);
        assert!(found.recovery.damage.is_empty() && found.stalled.is_empty());
        assert_eq!(shown(&again), shown(&writer));
        assert_eq!(again.documents("object/").len(), 1);
        assert_eq!(again.twin_count(), 2);
    }
}

#[test]
fn history_is_read_backwards_from_the_newest_durable_event() {
    let (writer, _) = open(&Arc::default());
    create(&writer, "a");
    for seq in 1..50 {
        writer.submit(reading("a", seq), 1).unwrap();
        writer.commit();
    }
    // Staged and not durable: not in the history yet.
    writer.submit(reading("a", 50), 1).unwrap();
    let mut revisions = Vec::new();
    writer
        .history(&id("a"), |revision, _, _| {
            revisions.push(revision);
            true
        })
        .unwrap();
    let expected: Vec<u64> = (1..=50).rev().collect();
    assert_eq!(revisions, expected);
}

#[test]
fn damage_stalls_the_twins_that_it_may_concern_until_the_loss_is_accepted() {
    let disk = Arc::<FakeDisk>::default();
    let (writer, _) = open(&disk);
    create(&writer, "a");
    for seq in 1..10 {
        writer.submit(reading("a", seq), 1).unwrap();
        writer.commit();
    }
    drop(writer);
    // A byte of an early reading, with acknowledged records behind it.
    disk.flip("seg-00000001.log", 700);
    let (writer, found) = open(&disk);
    assert_eq!(found.recovery.damage.len(), 1);
    assert!(found.stalled.contains(&id("a")));
    let stalled = writer.submit(reading("a", 20), 2).unwrap_err();
    assert_eq!(stalled, Rejected::Refused(Refusal::Stalled(id("a"))));
    assert!(writer.twin("lab:a").is_some(), "what can be proved is shown");
    create(&writer, "b");
    assert_eq!(writer.twin("lab:b").unwrap().revision, 1, "others work");
    assert_eq!(writer.accept_loss(3).unwrap(), [id("a")]);
    writer.submit(reading("a", 21), 4).unwrap();
    writer.commit();
    let before = shown(&writer);
    let (again, found) = open(&disk);
    assert!(!found.stalled.contains(&id("b")));
    assert_eq!(shown(&again)["lab:a"].1, before["lab:a"].1);
}

/// Adds one to a counter in another feature for each reading.
struct Counting;

impl Reaction for Counting {
    fn react(&self, change: &Committed, follow: &mut Vec<Request>) {
        if change.event.path == Path::Features || change.depth > 0 {
            let n = json!({"n": change.revision});
            follow.push(Request {
                origin: Origin::Service("count".into()),
                ..request("a", Change::Merge(Path::Properties("count".into()), n))
            });
        }
    }
    fn too_deep(&self, change: &Committed) {
        assert_eq!(change.depth, REACTION_DEPTH_MAX);
    }
}

#[test]
fn what_follows_is_in_the_same_batch_and_chains_end() {
    let disk = Arc::<FakeDisk>::default();
    let options = StoreOptions { segment_len: 8192, history_bytes_max: 0 };
    let reactions: Vec<Arc<dyn Reaction>> = vec![Arc::new(Counting)];
    let (writer, _) = Writer::open(Arc::new(disk.clone()), options, reactions).unwrap();
    create(&writer, "a");
    let batches = writer.counts().batches;
    writer.submit(reading("a", 1), 2).unwrap();
    writer.commit();
    assert_eq!(writer.counts().batches, batches + 1);
    // The reading and as many changes as may follow.
    let depth = u64::from(REACTION_DEPTH_MAX);
    assert_eq!(writer.twin("lab:a").unwrap().revision, 2 + depth);
}

#[test]
fn what_is_about_an_older_state_does_not_replace_what_is_about_a_newer() {
    let (writer, _) = open(&Arc::default());
    create(&writer, "a");
    let verdict = |of_revision: u64| {
        let path = Path::Properties("judge".to_owned());
        let change = Change::Merge(path, json!({"ofRevision": of_revision}));
        let (feature, property) = ("judge".into(), "ofRevision");
        let only_if = Precondition::NotAbove { feature, property, number: of_revision };
        writer.submit(Request { only_if, ..request("a", change) }, 2).map(|_| ())
    };
    assert_eq!(verdict(7).map_err(|_| ()), Ok(()));
    // Not committed yet: what counts is what was accepted, not what is visible.
    assert!(matches!(verdict(6), Err(Rejected::Refused(Refusal::PreconditionFailed(_)))));
    assert_eq!((verdict(7).map_err(|_| ()), verdict(8).map_err(|_| ())), (Ok(()), Ok(())));
    writer.commit();
    let twin = writer.twin("lab:a").unwrap();
    assert_eq!(twin.property_named("judge", "ofRevision"), Some(&json!(8)));
}

#[test]
fn events_are_read_from_a_time_on_over_segments_and_what_is_missing_is_told() {
    let disk = Arc::<FakeDisk>::default();
    let options = StoreOptions { segment_len: 8192, history_bytes_max: 0 };
    let (writer, _) = Writer::open(Arc::new(disk.clone()), options, Vec::new()).unwrap();
    create(&writer, "a");
    for seq in 1..=400 {
        writer.submit(reading("a", seq), seq as i64).unwrap();
        writer.commit();
    }
    let read = |since_us: i64, bytes_max: u64, count: usize| {
        let mut times = Vec::new();
        let whole = writer.events_since(since_us, bytes_max, |logged| {
            let event = logged.event().unwrap();
            assert_eq!(
                (logged.id(), event.stamp.map(|s| s.seq as i64)),
                ("lab:a", Some(logged.time_us()))
            );
            assert_eq!(logged.revision() as i64, logged.time_us() + 1);
            times.push(logged.time_us());
            times.len() < count
        });
        (whole.unwrap(), times)
    };
    assert_eq!(read(2, u64::MAX, usize::MAX), (true, (2..=400).collect()));
    assert_eq!(read(390, 2 * 8192, usize::MAX), (true, (390..=400).collect()));
    assert_eq!(read(401, u64::MAX, usize::MAX), (true, Vec::new()));
    let (whole, times) = read(2, 3 * 8192, usize::MAX);
    assert!(!whole && times[0] > 200, "{times:?}");
    assert!(times.iter().copied().eq(times[0]..=400), "{times:?}");
    assert_eq!(read(2, u64::MAX, 5), (false, (2..=6).collect()));
    // History that was dropped is reported.
    assert!(writer.write_snapshot().unwrap());
    for seq in 401..=500 {
        writer.submit(reading("a", seq), seq as i64).unwrap();
        writer.commit();
    }
    assert!(writer.write_snapshot().unwrap());
    let (whole, times) = read(2, u64::MAX, usize::MAX);
    assert!(!whole && times[0] > 200 && times.last() == Some(&500), "{times:?}");
}

#[test]
fn a_boot_that_began_anew_is_remembered_over_a_crash_and_usual_records_are_as_long_as_before() {
    let disk = Arc::<FakeDisk>::default();
    let (writer, _) = open(&disk);
    create(&writer, "a");
    let numbered = |writer: &Writer, boot: u64, seq: u64| {
        let values = json!({"env": {"t": seq}}).as_object().unwrap().clone();
        let stamp = Some(Stamp { seq, boot: Some(boot) });
        let taken = writer.submit(request("a", Change::Reading { values, stamp }), 2);
        writer.commit();
        taken.map(|accepted| serde_json::to_string(&*accepted.change.event).unwrap())
    };
    let duplicate = Err(Rejected::Refused(Refusal::Duplicate));
    assert!(numbered(&writer, 7, 0).is_ok());
    assert_eq!(numbered(&writer, 1, 0), duplicate);
    let refused = |boot| writer.submit(request("a", Change::Boot(boot)), 3).is_err();
    assert!(refused(7) && refused(8));
    assert!(!refused(1) && refused(1), "it is taken once");
    writer.commit();
    assert_eq!(writer.twin("lab:a").unwrap().revision, 3);
    let disk = disk.crash(|| false);
    let (writer, found) = open(&disk);
    assert_eq!(found.unreadable, 0);
    assert_eq!(numbered(&writer, 7, 0), duplicate);
    let record = r#"{"a":"r","p":"/features","v":{"env":{"t":0}},"s":[0,1]}"#;
    assert_eq!(numbered(&writer, 1, 0), Ok(record.to_owned()));
    assert_eq!((numbered(&writer, 1, 0), numbered(&writer, 7, 1)), (duplicate.clone(), duplicate));
    // A snapshot keeps it, too.
    let twin = writer.twin("lab:a").unwrap();
    assert_eq!(Twin::from_state(twin.revision, &twin.to_state()).unwrap().sequence, twin.sequence);
}

#[tokio::test]
async fn a_task_waits_until_its_change_is_durable_or_learns_why_it_never_is() {
    for wakes_a_thread in [false, true] {
        let disk: Arc<FakeDisk> = Arc::default();
        let (writer, _) = open(&disk);
        create(&writer, "a");
        let writer = Arc::new(writer);
        let committer = wakes_a_thread.then(|| Committer::start(writer.clone()).unwrap());
        let accepted = writer.submit(reading("a", 1), 2).unwrap();
        writer.make_durable(accepted.batch).await.unwrap();
        assert_eq!(writer.twin("lab:a").unwrap().revision, 2);
        disk.fail(1, io::ErrorKind::Other);
        let accepted = writer.submit(reading("a", 2), 3).unwrap();
        let error = writer.make_durable(accepted.batch).await.unwrap_err();
        assert_eq!(Some(error.to_string()), writer.durable_now().failed.map(|why| why.to_string()));
        assert_eq!(writer.twin("lab:a").unwrap().revision, 2);
        if let Some(committer) = committer {
            committer.end();
        }
    }
}
