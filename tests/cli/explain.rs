//! `explain`: the words of the types and of the codes.

use crate::{edgetwin, expect};

#[test]
fn a_field_is_explained_in_the_words_of_its_type() {
    expect(
        &edgetwin(&["explain", "Service.overload"]),
        0,
        "Service.spec.overload  <map>

What happens to calls that come faster than they can be answered.

Default: {\"limit\":1024,\"policy\":\"queue\"}

Fields:
  limit  <whole number>
      How many calls may wait, for all twins together.
  policy  <one of several words>
      Which calls wait and which are dropped.
",
        "",
    );
}

#[test]
fn a_code_is_explained() {
    expect(
        &edgetwin(&["explain", "et0203"]),
        0,
        "ET0203: A twin names a service that nobody declares

A twin's `services` name Service objects. The Service is neither in the files read nor
in the runtime. A service that registers itself from outside still needs a Service
document with `external: true`, which says what its inputs are.
",
        "",
    );
}

#[test]
fn an_unknown_word_gets_a_suggestion() {
    expect(
        &edgetwin(&["explain", "Twin.modle"]),
        1,
        "",
        "error: `Twin` has no field `modle`; did you mean `model`?\n\nhint: `edgetwin explain` lists the kinds\n",
    );
}

#[test]
fn all_kinds_are_listed() {
    let run = edgetwin(&["explain", "-o", "name"]);
    assert_eq!(run.code, 0);
    assert_eq!(run.stdout.lines().count(), 13);
}
