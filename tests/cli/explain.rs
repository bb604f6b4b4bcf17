//! `explain`: the words of the types and of the codes.

use expect_test::expect;

use crate::support::process::edgetwin;
use crate::support::snapshot::snapshot;

#[test]
fn a_field_is_explained_in_the_words_of_its_type() {
    snapshot(
        &edgetwin(&["explain", "Service.overload"]),
        expect![[r#"
        exit 0
        --- stdout
        Service.spec.overload  <map>

        What happens to calls that arrive faster than they can be answered.

        Default: {"limit":1024,"policy":"queue"}

        Fields:
          limit  <integer>
              How many calls may wait, for all twins together.
          policy  <enum>
              Which calls wait and which are dropped.
    "#]],
    );
}

#[test]
fn a_code_is_explained() {
    snapshot(
        &edgetwin(&["explain", "et0203"]),
        expect![[r#"
        exit 0
        --- stdout
        ET0203: A twin names a service that is not declared

        A twin's `services` name Service objects. The Service is neither in the files read nor
        in the runtime. A service that registers itself over the Eureka API also needs a Service
        document, with `external: true` and its inputs.
    "#]],
    );
}

#[test]
fn an_unknown_word_gets_a_suggestion() {
    snapshot(
        &edgetwin(&["explain", "Twin.modle"]),
        expect![[r#"
        exit 1
        --- stderr
        error: `Twin` has no field `modle`; did you mean `model`?

        hint: `edgetwin explain` lists the kinds
    "#]],
    );
}

#[test]
fn all_kinds_are_listed() {
    let run = edgetwin(&["explain", "-o", "name"]);
    assert_eq!(run.code, 0);
    assert_eq!(run.stdout.lines().count(), 13);
}

#[test]
fn the_functions_of_conditions_are_a_topic() {
    let run = edgetwin(&["explain", "expressions"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    for form in ["avg(temperature, 5m)", "verdict(\"SERVICE\").label", "age(temperature)"] {
        assert!(run.stdout.contains(form), "{}", run.stdout);
    }
    let named = edgetwin(&["explain", "functions", "-o", "name"]);
    assert!(named.stdout.contains("abs("), "{}", named.stdout);
}
