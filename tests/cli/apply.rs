//! `plan`, `diff`, `apply`, `delete`, `wait` against a running runtime.

use expect_test::expect;

use crate::support::process::edgetwin;
use crate::support::runtime::Runtime;
use crate::support::snapshot::snapshot;

const FARM: &str = "\
kind: TwinModel
metadata: {name: soil}
spec:
  features: {soil: {properties: {moisture: {type: number, unit: '%', minimum: 0, maximum: 100}}}}
---
kind: TwinSet
metadata: {name: row, namespace: farm}
spec:
  count: 3
  template: {metadata: {labels: {crop: kale}}, spec: {model: soil}}
---
kind: TwinAggregate
metadata: {name: field, namespace: farm}
spec:
  members: {matchLabels: {crop: kale}}
  derive: {soil/driest: {fn: min, of: soil/moisture}, field/rows: {fn: count}}
---
kind: Channel
metadata: {name: lora}
spec: {medium: lora, capacity: 5kbit/s}
";

#[test]
fn apply_twice_changes_nothing_and_a_plan_says_so() {
    let runtime = Runtime::start();
    runtime.write("farm.yaml", FARM);
    let plan = ["plan", "farm.yaml", "--detailed-exitcode"];
    snapshot(
        &runtime.run(&plan),
        expect![[r#"
        exit 2
        --- stdout
        + TwinModel/default/soil
        + Channel/default/lora
        + TwinSet/farm/row
        + TwinAggregate/farm/field

        Plan: 4 to create.
        --- stderr
        note: Channel `lora` is checked and stored; no link budget acts on it yet
    "#]],
    );
    snapshot(
        &runtime.run(&["apply", "farm.yaml", "--wait"]),
        expect![[r#"
        exit 0
        --- stdout
        + TwinModel/default/soil
        + Channel/default/lora
        + TwinSet/farm/row
        + TwinAggregate/farm/field

        4 created.
        --- stderr
        note: Channel `lora` is checked and stored; no link budget acts on it yet
    "#]],
    );
    snapshot(
        &runtime.run(&["apply", "-f", "farm.yaml"]),
        expect![[r#"
        exit 0
        --- stdout
        No changes: all 4 objects are as declared.
        --- stderr
        note: Channel `lora` is checked and stored; no link budget acts on it yet
    "#]],
    );
    snapshot(
        &runtime.run(&plan),
        expect![[r#"
        exit 0
        --- stdout
        No changes: all 4 objects are as declared.
        --- stderr
        note: Channel `lora` is checked and stored; no link budget acts on it yet
    "#]],
    );
    snapshot(
        &runtime.run(&["diff", "farm.yaml"]),
        expect![[r#"
        exit 0
    "#]],
    );
    let thing = runtime.run(&["get", "ta/farm/field", "-o", "json"]);
    let thing: serde_json::Value = serde_json::from_str(&thing.stdout).unwrap();
    assert_eq!(thing["status"]["members"], 3);
    assert_eq!(thing["status"]["generation"], 1);
    assert_eq!(thing["status"]["conditions"][0]["type"], "Ready");
}

#[test]
fn a_change_is_shown_field_by_field_and_line_by_line() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-"], FARM);
    let changed = FARM.replace("count: 3", "count: 2").replace("maximum: 100", "maximum: 90");
    runtime.write("farm.yaml", &changed);
    snapshot(
        &runtime.run(&["plan", "farm.yaml"]),
        expect![[r#"
        exit 0
        --- stdout
        ~ TwinModel/default/soil
            spec.features.soil.properties.moisture.maximum: 100 -> 90
        ~ TwinSet/farm/row
            spec.count: 3 -> 2

        Plan: 2 to change, 2 unchanged.
        --- stderr
        note: Channel `lora` is checked and stored; no link budget acts on it yet
    "#]],
    );
    snapshot(
        &runtime.run(&["diff", "farm.yaml", "--detailed-exitcode"]),
        expect![[r#"
        exit 2
        --- stdout
        --- TwinModel/default/soil
        +++ TwinModel/default/soil
        @@ -8,7 +8,7 @@
             soil:
               properties:
                 moisture:
        -          maximum: 100
        +          maximum: 90
                   minimum: 0
                   type: number
                   unit: '%'
        --- TwinSet/farm/row
        +++ TwinSet/farm/row
        @@ -4,7 +4,7 @@
           name: row
           namespace: farm
         spec:
        -  count: 3
        +  count: 2
           template:
             metadata:
               labels:
    "#]],
    );
    assert_eq!(runtime.run(&["apply", "farm.yaml", "--dry-run"]).code, 0);
    assert_eq!(runtime.run(&["plan", "farm.yaml", "--detailed-exitcode"]).code, 2);
    assert_eq!(runtime.run(&["apply", "farm.yaml", "--wait"]).code, 0);
    let names = runtime.run(&["get", "twins", "-n", "farm", "-o", "name"]).stdout;
    assert_eq!(names, "Twin/farm/row-1\nTwin/farm/row-2\n");
}

#[test]
fn one_broken_document_changes_nothing() {
    let runtime = Runtime::start();
    runtime.write("farm.yaml", &FARM.replace("model: soil}", "model: soill}"));
    let run = runtime.run(&["apply", "farm.yaml"]);
    snapshot(
        &run,
        expect![[r#"
        exit 78
        --- stderr
        error[ET0202]: TwinSet `farm/row` names a TwinModel that nobody declares
          --> farm.yaml:10:62
           |
        10 |   template: {metadata: {labels: {crop: kale}}, spec: {model: soill}}
           |                                                              ^^^^^ no TwinModel `soill` in the file read

        hint: did you mean `soil` (farm.yaml:2)?

        1 error in 1 file. Nothing was applied.
    "#]],
    );
    snapshot(
        &runtime.run(&["get", "all", "-A"]),
        expect![[r#"
        exit 0
        --- stderr
        There are no objects.
    "#]],
    );
}

#[test]
fn references_may_name_what_the_runtime_has() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-"], FARM);
    let twin = "kind: Twin\nmetadata: {name: well, namespace: farm}\nspec: {model: soil}\n";
    assert_eq!(runtime.run_with(&["apply", "-f", "-", "--wait"], twin).code, 0);
    // What would not be there any more cannot be referred to.
    let own = ["apply", "-", "--set", "farm"];
    assert_eq!(runtime.run_with(&own, FARM).code, 0);
    let pruned = runtime.run_with(&["apply", "-", "--set", "farm", "--prune"], twin);
    assert_eq!(pruned.code, 78, "{}", pruned.stderr);
}

#[test]
fn what_get_prints_can_be_applied_again() {
    let runtime = Runtime::start();
    runtime.run_with(&["apply", "-", "--wait"], FARM);
    for format in ["yaml", "json"] {
        for what in ["all", "twins", "twinsets"] {
            let printed = runtime.run(&["get", what, "-A", "-o", format]).stdout;
            let again = runtime.run_with(&["apply", "-f", "-"], &printed);
            assert_eq!(again.code, 0, "{}", again.stderr);
            let unchanged = again.stdout.starts_with("No changes") || what == "twins";
            assert!(unchanged, "{what} {format}: {}", again.stdout);
        }
    }
    assert_eq!(runtime.run(&["get", "twins", "-A", "-o", "name"]).stdout.lines().count(), 3);
}

#[test]
fn a_saved_plan_does_what_it_says_or_nothing() {
    let runtime = Runtime::start();
    runtime.write("farm.yaml", FARM);
    let saved = runtime.run(&["plan", "farm.yaml", "--out", "farm.plan"]);
    assert!(saved.stderr.ends_with("\nNext: edgetwin apply farm.plan\n"), "{}", saved.stderr);
    runtime.write("farm.yaml", "");
    let applied = runtime.run(&["apply", "farm.plan"]);
    assert!(applied.stdout.ends_with("\n4 created.\n"), "{}", applied.stdout);
    snapshot(
        &runtime.run(&["apply", "farm.plan"]),
        expect![[r#"
        exit 5
        --- stderr
        error: the objects changed since the plan was made

        hint: make the plan again
    "#]],
    );
}

#[test]
fn pruning_deletes_what_the_set_no_longer_declares() {
    let runtime = Runtime::start();
    let own = ["apply", "-", "--set", "farm", "--prune", "--wait"];
    runtime.run_with(&["apply", "-"], "kind: Twin\nmetadata: {name: stranger}\nspec: {}\n");
    runtime.run_with(&own, FARM);
    let without = FARM.split("---\n").take(2).collect::<Vec<_>>().join("---\n");
    snapshot(
        &runtime.run_with(&own, &without),
        expect![[r#"
        exit 0
        --- stdout
        - TwinAggregate/farm/field
        - Channel/default/lora

        2 deleted, 2 unchanged.
    "#]],
    );
    assert_eq!(runtime.run(&["wait", "ta/farm/field", "--for=delete"]).code, 0);
    let all = runtime.run(&["get", "all", "-A", "-o", "name"]).stdout;
    assert_eq!(all, "TwinModel/default/soil\nTwin/default/stranger\nTwinSet/farm/row\n");
    assert_eq!(runtime.run_with(&["apply", "-", "--prune"], FARM).code, 64);
    let other = runtime.run_with(&["apply", "-", "--set", "other"], FARM);
    assert_eq!(
        (other.code, other.stderr.lines().next()),
        (5, Some("error: TwinModel/default/soil belongs to the set `farm`"))
    );
}

#[test]
fn objects_and_twins_survive_kill_nine() {
    let runtime = Runtime::start();
    runtime.write("farm.yaml", FARM);
    runtime.run(&["apply", "farm.yaml", "--wait"]);
    let runtime = runtime.restart();
    let again = runtime.run(&["apply", "farm.yaml", "--wait"]);
    assert_eq!(again.stdout, "No changes: all 4 objects are as declared.\n");
    let set = runtime.run(&["get", "ts/farm/row"]).stdout;
    assert!(set.contains("row   True   3"), "{set}");
}

#[test]
fn deleting_by_name_by_label_and_by_file_removes_the_twins_too() {
    let runtime = Runtime::start();
    runtime.write("farm.yaml", FARM);
    let twin = "kind: Twin\nmetadata: {name: a, namespace: farm, labels: {old: 'yes'}}\nspec: {}\n";
    runtime.run(&["apply", "farm.yaml"]);
    runtime.run_with(&["apply", "-", "--wait"], twin);
    snapshot(
        &runtime.run(&["delete", "twins", "-l", "old=yes", "-n", "farm"]),
        expect![[r#"
        exit 0
        --- stdout
        Twin/farm/a deleted
    "#]],
    );
    snapshot(
        &runtime.run(&["delete", "twin", "a", "-n", "farm"]),
        expect![[r#"
        exit 1
        --- stderr
        error: there is no Twin/farm/a
    "#]],
    );
    let gone = ["delete", "twin", "a", "-n", "farm", "--ignore-not-found"];
    assert_eq!(runtime.run(&gone).code, 0);
    snapshot(
        &runtime.run(&["delete", "-f", "farm.yaml"]),
        expect![[r#"
        exit 0
        --- stdout
        TwinModel/default/soil deleted
        TwinSet/farm/row deleted
        TwinAggregate/farm/field deleted
        Channel/default/lora deleted
    "#]],
    );
    assert_eq!(runtime.run(&["get", "twins", "-A", "-o", "name"]).stdout, "");
}

#[test]
fn what_is_not_ready_in_time_is_exit_code_three() {
    let runtime = Runtime::start();
    let service = "kind: Service\nmetadata: {name: judge}\n\
                   spec: {external: true, inputs: [soil/moisture]}\n";
    let run = runtime.run_with(&["apply", "-", "--wait", "--timeout", "300ms"], service);
    snapshot(
        &run,
        expect![[r#"
        exit 3
        --- stdout
        + Service/default/judge

        1 created.
        --- stderr
        error: 1 object is not ready in time

        hint: Service/default/judge: NoHealthyInstance: no instance is registered
    "#]],
    );
    let waiting =
        runtime.run(&["wait", "--for=condition=Ready", "svc/judge", "--timeout", "100ms"]);
    assert_eq!(waiting.code, 3);
    let known = runtime.run(&["wait", "--for=condition=Ready=False", "svc/judge"]);
    assert_eq!((known.code, known.stdout.as_str()), (0, "Service/default/judge is ready=false\n"));
}

#[test]
fn training_data_goes_along_and_other_data_is_a_change() {
    let runtime = Runtime::start();
    let rows = |shift: usize| {
        let row = |n: usize| format!("{},{}\n", n + shift, if n < 50 { "low" } else { "high" });
        "x,label\n".to_owned() + &(0..100).map(row).collect::<String>()
    };
    runtime.write("data.csv", &rows(0));
    runtime.write(
        "model.yaml",
        "kind: Model\nmetadata: {name: m}\nspec:\n  classifier: forest\n  inputs: [x]\n  \
         train: {data: data.csv, parameters: {trees: 3}}\n",
    );
    let applied = runtime.run(&["apply", "model.yaml", "--wait"]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let version = || {
        let shown = runtime.run(&["get", "model", "m", "-o", "json"]).stdout;
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["status"]["version"].clone()
    };
    let first = version();
    assert_eq!(first.as_str().map(str::len), Some(12));
    assert!(runtime.run(&["apply", "model.yaml"]).stdout.starts_with("No changes"));
    runtime.write("data.csv", &rows(7));
    let again = runtime.run(&["apply", "model.yaml", "--wait"]);
    assert!(again.stdout.ends_with("1 changed.\n"), "{}", again.stdout);
    assert_ne!(version(), first);
    // Elsewhere, without the file, what the runtime shows can be applied.
    let shown = runtime.run(&["get", "model", "m", "-o", "yaml"]).stdout;
    let back = runtime.run_with(&["apply", "-"], &shown);
    assert!(back.stdout.starts_with("No changes"), "{}{}", back.stdout, back.stderr);
}

#[test]
fn no_runtime_is_exit_code_69_with_the_cure() {
    let run = edgetwin(&["get", "twins", "--server", "http://127.0.0.1:1"]);
    snapshot(
        &run,
        expect![[r#"
        exit 69
        --- stderr
        error: no runtime answers at http://127.0.0.1:1
          because Connection refused (os error 111)

        hint: start one with `edgetwin run`, in another terminal
        hint: one that is elsewhere is named by `--server URL` or EDGETWIN_SERVER
    "#]],
    );
    let json = edgetwin(&["apply", "x.yaml", "--server", "http://127.0.0.1:1", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!((json.code, &error["error"]["kind"]), (69, &"unreachable".into()));
    assert_eq!(edgetwin(&["get", "twins", "--server", "https://x"]).code, 64);
}
