//! `edgetwin diff`: the runtime's objects and the manifests, line by line.

use std::fmt::Write as _;

use serde_json::Value;

use super::apply::{body, plan_of, warn};
use super::client::Client;
use super::error::CliError;
use super::global::Global;
use super::manifests::{Manifests, Owner};
use super::objects;
use super::outcome::Outcome;
use super::output::{Format, Output};
use crate::reconcile::plan::Operation;

/// Lines of an object that are compared; beyond it all of them count as different.
const LINES_MAX: usize = 5000;
/// Lines shown around a change.
const AROUND: usize = 3;

/// Show how the runtime's objects differ from the manifests, as YAML.
///
/// With `--detailed-exitcode` the exit code is 2 if there are differences and 0 if there are none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  edgetwin diff manifests/")]
pub(super) struct Args {
    #[command(flatten)]
    manifests: Manifests,
    #[command(flatten)]
    owner: Owner,
    /// Exit with 2 if there are differences
    #[arg(long)]
    detailed_exitcode: bool,
}

pub(super) fn run(args: &Args, global: &Global, output: &mut Output) -> Result<Outcome, CliError> {
    let client = Client::new(&global.server)?;
    let loaded = args.manifests.load(global, &client, Some(&args.owner), "")?;
    warn(&loaded, output);
    let report = client.post("/plan", &body(&loaded, &args.owner))?;
    let plan = plan_of(&report)?;
    if matches!(output.format(), Format::Json | Format::Yaml) {
        if output.format() == Format::Json { output.json(&report) } else { output.yaml(&report) }
    } else {
        let stored = client.list("")?;
        for action in plan.actions.iter().filter(|action| action.action != Operation::Unchanged) {
            let key = action.key.to_string();
            if output.format() == Format::Name {
                output.line(&key);
                continue;
            }
            let from = stored.iter().find(|item| objects::key_of(item) == key);
            let to = loaded.objects.iter().find(|object| object.key() == key);
            let to = to.filter(|_| action.action != Operation::Delete).map(|object| &object.json);
            let text = unified(&key, &lines(from), &lines(to), output.colour_stdout());
            output.text(&text);
        }
    }
    if args.detailed_exitcode && plan.has_changes() {
        return Ok(Outcome::ChangesPresent);
    }
    Ok(Outcome::Done)
}

/// An object as lines of YAML, without its status.
fn lines(object: Option<&Value>) -> Vec<String> {
    let Some(object) = object else { return Vec::new() };
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    // A `Value` always has a YAML form.
    let text = serde_yaml::to_string(&object).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// One line of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep(usize, usize),
    Remove(usize),
    Add(usize),
}

/// The shortest edit by the longest common subsequence.
fn edits(from: &[String], to: &[String]) -> Vec<Edit> {
    let same = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let rest = (from.len() - same).min(to.len() - same);
    let tail =
        from.iter().rev().zip(to.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (a, b) = (&from[same..from.len() - tail], &to[same..to.len() - tail]);
    let mut all: Vec<Edit> = (0..same).map(|at| Edit::Keep(at, at)).collect();
    if a.len() > LINES_MAX || b.len() > LINES_MAX {
        all.extend((0..a.len()).map(|at| Edit::Remove(same + at)));
        all.extend((0..b.len()).map(|at| Edit::Add(same + at)));
    } else {
        let width = b.len() + 1;
        let mut common = vec![0_u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                common[i * width + j] = if a[i] == b[j] {
                    common[(i + 1) * width + j + 1] + 1
                } else {
                    common[(i + 1) * width + j].max(common[i * width + j + 1])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                all.push(Edit::Keep(same + i, same + j));
                (i, j) = (i + 1, j + 1);
            } else if j == b.len()
                || i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
            {
                all.push(Edit::Remove(same + i));
                i += 1;
            } else {
                all.push(Edit::Add(same + j));
                j += 1;
            }
        }
    }
    let start = (from.len() - tail, to.len() - tail);
    all.extend((0..tail).map(|at| Edit::Keep(start.0 + at, start.1 + at)));
    all
}

/// A unified diff of one object.
fn unified(name: &str, from: &[String], to: &[String], colour: bool) -> String {
    let edits = edits(from, to);
    let changed: Vec<usize> =
        (0..edits.len()).filter(|&at| !matches!(edits[at], Edit::Keep(..))).collect();
    let side = |lines: &[String]| if lines.is_empty() { "/dev/null" } else { name }.to_owned();
    let mut text = format!("--- {}\n+++ {}\n", side(from), side(to));
    let mut next = 0;
    while next < changed.len() {
        let mut last = next;
        while last + 1 < changed.len() && changed[last + 1] - changed[last] <= 2 * AROUND {
            last += 1;
        }
        let start = changed[next].saturating_sub(AROUND);
        let end = (changed[last] + AROUND + 1).min(edits.len());
        let hunk = &edits[start..end];
        let count = |keep: fn(&Edit) -> bool| hunk.iter().filter(|edit| keep(edit)).count();
        let old = count(|edit| !matches!(edit, Edit::Add(_)));
        let new = count(|edit| !matches!(edit, Edit::Remove(_)));
        let before = &edits[..start];
        let old_start = before.iter().filter(|edit| !matches!(edit, Edit::Add(_))).count();
        let new_start = before.iter().filter(|edit| !matches!(edit, Edit::Remove(_))).count();
        let first = |start: usize, len: usize| if len == 0 { start } else { start + 1 };
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "@@ -{},{old} +{},{new} @@",
            first(old_start, old),
            first(new_start, new)
        );
        for edit in hunk {
            let (sign, line, on) = match *edit {
                Edit::Keep(at, _) => (' ', &from[at], ""),
                Edit::Remove(at) => ('-', &from[at], "\x1b[31m"),
                Edit::Add(at) => ('+', &to[at], "\x1b[32m"),
            };
            text += &match colour && !on.is_empty() {
                true => format!("{on}{sign}{line}\x1b[0m\n"),
                false => format!("{sign}{line}\n"),
            };
        }
        next = last + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn hunks_have_three_lines_around() {
        let text = unified("x", &of("a b c d e f g h"), &of("a b c d E f g h i"), false);
        assert_eq!(text, "--- x\n+++ x\n@@ -2,7 +2,8 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n+i\n");
        let new = unified("x", &[], &of("a b"), false);
        assert_eq!(new, "--- /dev/null\n+++ x\n@@ -0,0 +1,2 @@\n+a\n+b\n");
    }

    proptest! {
        #[test]
        fn edits_lead_from_one_to_the_other(
            from in proptest::collection::vec("[a-c]", 0..12),
            to in proptest::collection::vec("[a-c]", 0..12),
        ) {
            let edits = edits(&from, &to);
            let old: Vec<&String> = edits.iter().filter_map(|edit| match edit {
                Edit::Keep(at, _) | Edit::Remove(at) => Some(&from[*at]),
                Edit::Add(_) => None,
            }).collect();
            let new: Vec<&String> = edits.iter().filter_map(|edit| match edit {
                Edit::Keep(_, at) | Edit::Add(at) => Some(&to[*at]),
                Edit::Remove(_) => None,
            }).collect();
            prop_assert!(old.into_iter().eq(&from));
            prop_assert!(new.into_iter().eq(&to));
        }
    }
}
