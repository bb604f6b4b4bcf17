//! The documents: the generated reference is as the program is, every command of the README and of
//! the guides runs, links lead somewhere, and the words are the field's.
//!
//! `EDGETWIN_BLESS=1 cargo test --test docs` rewrites `docs/reference`.

#![expect(clippy::disallowed_methods, reason = "tests run the program and read its files")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Longest README and ARCHITECTURE, in lines: what a reader takes in within ten minutes.
const LINES_MAX: usize = 200;

/// A command with one of these comments is not run: a reader sees why.
const NOT_RUN: [&str; 4] =
    ["# needs a board", "# needs a second machine", "# needs your own broker", "# takes minutes"];

/// Programs that only documents call; all others mean that a block is a command.
const PROGRAMS: [&str; 7] =
    ["cargo ", "curl ", "edgetwin ", "mosquitto_pub ", "mosquitto_sub ", "tests/run", "systemctl "];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder of the checkout with one of these endings, in order.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| endings.iter().any(|e| end == *e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// All documents that people write or read.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name)).into();
    found.extend(files("docs", &["md"]));
    found
}

// ---------------------------------------------------------------------------------------------
// Blocks

/// A fenced block of a document.
struct Block {
    /// The line of its first fence, from 1.
    line: usize,
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (at, line) in document.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                let (language, text) = (language.trim().to_owned(), String::new());
                open = Some(Block { line: at + 1, language, text });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// What stands in front of each document's commands: the runtime goes to the background, on free
/// ports and until the next one; clients go to its ports; what is missing here is left out, unless
/// the whole test suite was asked for.
const PRELUDE: &str = r#"
set -euo pipefail
export EDGETWIN_HTTP=127.0.0.1:$HTTP_PORT EDGETWIN_MQTT=127.0.0.1:$MQTT_PORT
export EDGETWIN_EUREKA=127.0.0.1:$EUREKA_PORT EDGETWIN_SERVER=http://127.0.0.1:$HTTP_PORT
runtime=
block=0

stop() {
    if [[ -n $runtime ]]; then
        kill -INT "$runtime"
        wait "$runtime" || { echo "edgetwin run ended with $?:"; cat "$LOG"; exit 1; }
        runtime=
    fi
}

failed() {
    local code=$?
    echo "FAILED in the block of line $block, exit code $code: $BASH_COMMAND"
    if [[ -f $LOG ]]; then echo "--- edgetwin run:"; tail -n 40 "$LOG"; fi
    exit "$code"
}
trap failed ERR
set -E
trap '[[ -z $runtime ]] || kill -KILL "$runtime" 2>/dev/null || true' EXIT

edgetwin() {
    if [[ ${1:-} != run || " $* " == *" --help "* ]]; then
        "$EDGETWIN" "$@"
        return
    fi
    stop
    "$EDGETWIN" "$@" >"$LOG" 2>&1 &
    runtime=$!
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if "$EDGETWIN" get all -A >/dev/null 2>&1; then break; fi
        kill -0 "$runtime" || { echo "edgetwin run ended:"; cat "$LOG"; exit 1; }
        sleep 0.1
    done
    for ((tries = 0; tries < 300; tries++)); do
        if [[ " $* " != *" -f "* || -n $("$EDGETWIN" get all -A -o name) ]]; then break; fi
        sleep 0.1
    done
    "$EDGETWIN" wait all -A --timeout 60s >/dev/null
}

cargo() {
    [[ "$1 $2 $3" == "run --release --" ]] || { echo "not run by this test: cargo $*"; exit 1; }
    shift 3
    edgetwin "$@"
}

have() {
    command -v "$1" >/dev/null && return
    [[ -z ${EDGETWIN_TEST_FULL:-} ]] || { echo "$1 is missing"; exit 1; }
    echo "left out, since $1 is missing: $*"
    return 1
}

curl() {
    have curl || return 0
    local arguments=("${@//localhost:8080/127.0.0.1:$HTTP_PORT}")
    arguments=("${arguments[@]//localhost:8761/127.0.0.1:$EUREKA_PORT}")
    command curl -sS --fail-with-body --max-time 30 "${arguments[@]}"
}

mosquitto_pub() { ! have mosquitto_pub || command mosquitto_pub -p "$MQTT_PORT" "$@"; }
mosquitto_sub() { ! have mosquitto_sub || command mosquitto_sub -p "$MQTT_PORT" -W 60 "$@"; }
"#;

/// The script of a document's commands, without those that it says cannot be run here.
fn script(document: &str) -> String {
    let mut script = PRELUDE.to_owned();
    for block in blocks(document).iter().filter(|block| block.language == "sh") {
        script.push_str(&format!("\nblock={}\n", block.line));
        for line in block.text.lines() {
            if !NOT_RUN.iter().any(|mark| line.contains(mark)) {
                script.push_str(line);
                script.push('\n');
            }
        }
    }
    script.push_str("stop\n");
    script
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Runs the commands of a document in order, as one reader would, in a directory of its own that
/// has the named parts of a checkout.
fn run(document: &Path, parts: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    for name in parts {
        std::os::unix::fs::symlink(root().join(name), directory.path().join(name)).unwrap();
    }
    let file = directory.path().join(".commands.sh");
    fs::write(&file, script(&read(document))).unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "300", "bash"])
        .arg(&file)
        .current_dir(directory.path())
        .env("EDGETWIN", env!("CARGO_BIN_EXE_edgetwin"))
        .env("LOG", directory.path().join(".run.log"))
        .env("HTTP_PORT", free_port())
        .env("MQTT_PORT", free_port())
        .env("EUREKA_PORT", free_port())
        .env("NO_COLOR", "1")
        .env_remove("EDGETWIN_CONFIG")
        .env_remove("EDGETWIN_STATE")
        .env_remove("EDGETWIN_BROKER")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{} ended with {}\n{}{}",
        document.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

#[test]
fn every_command_of_the_readme_runs() {
    run(&root().join("README.md"), &["manifests"]);
}

#[test]
fn every_command_of_the_guides_runs() {
    for guide in files("docs/guides", &["md"]) {
        run(&guide, &[]);
    }
}

/// Commands outside of `sh` blocks would be run by nobody.
#[test]
fn commands_are_in_blocks_that_are_run() {
    for document in documents() {
        let name = document.strip_prefix(root()).unwrap().to_owned();
        if name.starts_with("docs/reference") {
            continue;
        }
        for block in blocks(&read(&document)) {
            assert!(
                ["sh", "yaml", "toml", "json", "text"].contains(&block.language.as_str()),
                "{}:{}: a block is one of sh, yaml, toml, json, text",
                name.display(),
                block.line
            );
            let command = block
                .text
                .lines()
                .find(|line| PROGRAMS.iter().any(|program| line.starts_with(program)));
            assert!(
                block.language == "sh" || command.is_none(),
                "{}:{}: `{}` is not in an sh block",
                name.display(),
                block.line,
                command.unwrap_or_default()
            );
            let run_nowhere =
                name.parent() == Some(Path::new("docs")) || name == Path::new("ARCHITECTURE.md");
            assert!(
                block.language != "sh" || !run_nowhere,
                "{}:{}: commands belong into the README or a guide",
                name.display(),
                block.line
            );
        }
    }
}

/// The YAML of the README is what is in the example manifests, word for word.
#[test]
fn examples_of_the_readme_are_in_the_manifests() {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let manifests: Vec<String> =
        files("manifests", &["yaml"]).iter().map(|path| squeeze(&read(path))).collect();
    for block in blocks(&read(&root().join("README.md"))) {
        if block.language != "yaml" {
            continue;
        }
        for object in block.text.split("\n---\n") {
            assert!(
                manifests.iter().any(|manifest| manifest.contains(&squeeze(object))),
                "README.md:{}: this is in no manifest:\n{object}",
                block.line
            );
        }
    }
}

/// The messages of the node protocol are test vectors of the firmware.
#[test]
fn examples_of_the_node_protocol_are_test_vectors() {
    let mut vectors = String::new();
    for name in ["commands.json", "frames.json", "uplinks.json"] {
        vectors.push_str(&read(&root().join("tests/firmware/vectors").join(name)));
    }
    let page = root().join("docs/reference/node-protocol.md");
    for block in blocks(&read(&page)) {
        for example in block.text.lines() {
            let quoted = serde_json::to_string(example).unwrap();
            assert!(vectors.contains(&quoted), "{}: no test vector: {example}", page.display());
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Reference

#[test]
fn the_reference_is_as_the_program_is() {
    let folder = root().join("docs/reference");
    let bless = std::env::var_os("EDGETWIN_BLESS").is_some();
    for (name, page) in edgetwin::testing::pages() {
        let path = folder.join(name);
        if bless {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &page).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        let differing = found.lines().zip(page.lines()).find(|(found, page)| found != page);
        assert!(
            found == page,
            "docs/reference/{name} is out of date; `EDGETWIN_BLESS=1 cargo test --test docs` \
             rewrites it. First difference (file, program): {differing:#?}"
        );
    }
}

// ---------------------------------------------------------------------------------------------
// Form

#[test]
fn the_first_documents_are_short() {
    for name in ["README.md", "ARCHITECTURE.md"] {
        let lines = read(&root().join(name)).lines().count();
        assert!(lines <= LINES_MAX, "{name} has {lines} lines, more than {LINES_MAX}");
    }
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        for part in text.split("](").skip(1) {
            let Some((target, _)) = part.split_once(')') else { continue };
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let found = file.exists()
                && (heading.is_empty()
                    || read(&file)
                        .lines()
                        .filter(|line| line.starts_with('#'))
                        .any(|line| anchor(line.trim_start_matches('#')) == heading));
            if !found {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere: {broken:#?}");
}

// ---------------------------------------------------------------------------------------------
// Words

/// Words that mean something to us alone or have a plainer one in the field, and that one.
const PRIVATE: [(&str, &str); 24] = [
    ("heard", "received"),
    ("hears", "receives"),
    ("said", "sent, reported"),
    ("told", "sent, reported"),
    ("take hold", "become active"),
    ("takes hold", "becomes active"),
    ("took hold", "became active"),
    ("in force", "active, effective"),
    ("kick", "wake"),
    ("kicks", "wakes"),
    ("rim", "I/O boundary"),
    ("born", "created"),
    ("teller", "reporter"),
    ("blame", "cause"),
    ("blamed", "cause"),
    ("wish", "override, desired value"),
    ("wishes", "overrides, desired values"),
    ("made-up", "synthetic"),
    ("nothing happened", "no events"),
    ("where all chance comes from", "random seed"),
    ("slip of the pen", "typing mistake"),
    ("talk", "transmit"),
    ("talks", "transmits"),
    ("talking", "transmitting"),
];

/// Private words that stay, each with its reason.
const KEPT: [(&str, &str); 1] =
    [("#[serde(rename = \"said\")]", "a key of stored documents, which later versions must read")];

/// The private words in a line of prose.
fn private_words(line: &str) -> Vec<&'static str> {
    let line = line.to_lowercase();
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: usize, word: &str| {
        !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside)
    };
    PRIVATE
        .iter()
        .filter(|(word, _)| line.match_indices(word).any(|(at, _)| whole(at, word)))
        .map(|(word, _)| *word)
        .collect()
}

/// What a line of Rust says to people: its comment and its literals.
fn prose(line: &str) -> String {
    let (code, comment) = line.split_once("//").unwrap_or((line, ""));
    let literals: Vec<&str> = code.split('"').skip(1).step_by(2).collect();
    format!("{} {comment}", literals.join(" "))
}

#[test]
fn documents_and_messages_use_the_words_of_the_field() {
    let mut found = Vec::new();
    let mut check = |path: &Path, at: usize, text: &str| {
        for word in private_words(text) {
            let plain = PRIVATE.iter().find(|(private, _)| *private == word).unwrap().1;
            let path = path.strip_prefix(root()).unwrap().display();
            found.push(format!("{path}:{}: `{word}`: write {plain}", at + 1));
        }
    };
    let others =
        files("manifests", &["yaml"]).into_iter().chain(files("templates", &["md", "yaml"]));
    for path in documents().into_iter().chain(others) {
        // What is generated has its words from the sources below.
        if path.starts_with(root().join("docs/reference")) {
            continue;
        }
        for (at, line) in read(&path).lines().enumerate() {
            check(&path, at, line);
        }
    }
    for path in files("src", &["rs"]) {
        if path.file_name().unwrap() == "tests.rs" {
            continue;
        }
        let text = read(&path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (at, line) in code.lines().enumerate() {
            if !KEPT.iter().any(|(kept, _)| line.contains(kept)) {
                check(&path, at, &prose(line));
            }
        }
    }
    assert!(found.is_empty(), "{} private words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn private_words_are_found_as_whole_words() {
    assert_eq!(private_words("the rule Takes hold: heard"), ["heard", "takes hold"]);
    assert!(private_words("trimmed, unheard_of, kicker").is_empty());
    assert_eq!(prose(r#"let said = format!("a {x} b"); // told"#), "a {x} b  told");
}
