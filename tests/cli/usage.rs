//! What all verbs share: usage errors, help, version, errors as JSON.

use expect_test::expect;

use crate::support::PATIENCE;
use crate::support::process::{Process, command, edgetwin, edgetwin_in};
use crate::support::runtime::Runtime;
use crate::support::snapshot::snapshot;
use crate::support::terminal::Terminal;

#[test]
fn a_usage_error_is_64_and_help_is_0() {
    let run = edgetwin(&["frobnicate"]);
    assert_eq!((run.code, run.stdout.as_str()), (64, ""));
    assert!(
        run.stderr.starts_with("error: unrecognized subcommand 'frobnicate'\n"),
        "{}",
        run.stderr
    );
    let run = edgetwin(&["--help"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    assert_eq!(edgetwin(&[]).code, 64);
}

#[test]
fn version_says_what_is_read() {
    snapshot(
        &edgetwin(&["version"]),
        expect![[r#"
        exit 0
        --- stdout
        edgetwin [VERSION]
    "#]],
    );
    snapshot(
        &edgetwin(&["--version"]),
        expect![[r#"
        exit 0
        --- stdout
        edgetwin [VERSION]
    "#]],
    );
}

#[test]
fn errors_are_json_if_data_is() {
    snapshot(
        &edgetwin(&["explain", "Twn", "-o", "json"]),
        expect![[r#"
        exit 1
        --- stderr
        {
          "error": {
            "causes": [],
            "hints": [
              "`edgetwin explain` lists the kinds"
            ],
            "kind": "failed",
            "message": "there is no kind `Twn`; did you mean `Twin`?"
          }
        }
    "#]],
    );
    let run = edgetwin(&["explain", "--nonsense", "--output=json"]);
    assert_eq!(run.code, 64);
    assert!(run.stderr.contains("\"kind\": \"usage\""), "{}", run.stderr);
}

#[test]
fn completion_scripts_know_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = edgetwin(&["completion", shell]);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{shell}");
        assert!(run.stdout.contains("validate"), "{shell}");
    }
}

#[test]
fn colour_is_for_terminals_or_on_demand() {
    let file = "tests/data/invalid/unknown-program.yaml";
    let plain = edgetwin(&["validate", file]);
    assert!(!plain.stderr.contains('\x1b'), "{}", plain.stderr);
    let coloured = edgetwin(&["validate", file, "--color", "always"]);
    assert!(
        coloured.stderr.contains("\x1b[1;31merror\x1b[0m")
            || coloured.stderr.contains("\x1b[1;31merror[")
    );
    // The words are the same without colour.
    let mut words = coloured.stderr;
    while let Some(start) = words.find('\x1b') {
        let end = start + words[start..].find('m').unwrap() + 1;
        words.replace_range(start..end, "");
    }
    assert_eq!(words, plain.stderr);
}

/// Lines of the help of a verb, or of all of them.
fn help(arguments: &[&str]) -> String {
    let run = edgetwin(arguments);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments:?}");
    run.stdout
}

#[test]
fn help_fits_a_screen_or_two_and_the_options_of_all_commands_have_their_own() {
    let options = help(&["options"]);
    let all = help(&["--help"]);
    let verbs = all.split("Commands:\n").nth(1).unwrap().lines().take_while(|l| !l.is_empty());
    // A description that is wrapped goes on further to the right.
    let verbs = verbs.filter(|line| !line.starts_with("   "));
    let verbs: Vec<&str> = verbs.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.len() > 15, "{verbs:?}");
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        for flag in ["-h", "--help"] {
            let text = help(&[verb, flag]);
            let lines = text.lines().count();
            assert!(lines <= 70, "{verb} {flag} has {lines} lines");
            for option in ["--server <", "--color <", "--log-format <", "-q, --quiet"] {
                assert!(!text.contains(option), "{verb} {flag} repeats {option}");
                assert!(options.contains(option), "{option}: {options}");
            }
        }
    }
    assert!(all.contains("`edgetwin options`"), "{all}");
    let script = help(&["completion", "bash"]);
    assert!(script.contains("--log-format"), "completion still knows them");
}

#[test]
fn a_full_disk_is_an_error_and_a_reader_that_goes_away_is_none() {
    for arguments in [&["version"][..], &["--help"], &["schema"], &["completion", "zsh"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command().args(arguments).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("the output could not be written"), "{stderr}");
        assert!(stderr.contains("No space left"), "{stderr}");

        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command().args(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{arguments:?}");
    }
}

#[test]
fn a_long_value_does_not_make_a_long_error() {
    let long = "x".repeat(340_000);
    let manifest =
        format!("kind: ContextRule\nmetadata: {{name: {long}}}\nspec: {{nodes: {long}}}\n");
    let run = edgetwin_in(std::path::Path::new("."), &["validate", "-"], &manifest);
    assert_eq!(run.code, 78);
    let longest = run.stderr.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest < 800, "{longest}");
    let rule = format!(
        "kind: ContextRule\nmetadata: {{name: r}}\n\
         spec: {{nodes: {{matchLabels: {{a: b}}}}, when: 't > 1 && {long} == 2', then: {{program: interval}}}}\n"
    );
    let run = edgetwin_in(std::path::Path::new("."), &["validate", "-"], &rule);
    assert_eq!(run.code, 78);
    assert!(run.stderr.len() < 4000, "{}", run.stderr.len());
    for arguments in [&["explain", &long[..100_000]][..], &["get", &long[..100_000]]] {
        let run = edgetwin(arguments);
        assert!(run.code != 0 && run.stderr.len() < 2000, "{}", run.stderr.len());
    }
}

/// A server that gives one answer to one request.
fn answering(answer: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(std::io::Read::read(&mut stream, &mut request).unwrap() > 0);
        std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
    });
    server
}

#[test]
fn every_exit_code_of_the_help_can_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::start();
    runtime.write("twin.yaml", "{kind: Twin, metadata: {name: a, namespace: lab}, spec: {}}\n");
    let service = "{kind: Service, metadata: {name: judge}, spec: {inputs: [a/x], external: true}}";
    runtime.write("service.yaml", service);
    assert_eq!(runtime.run(&["apply", "-f", "service.yaml"]).code, 0);
    let refused = answering(
        "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n\
         {\"error\":{\"code\":\"unauthorised\",\"message\":\"who is asking?\"}}",
    );
    let made = |code: &str| match code {
        "0" => edgetwin(&["version"]).code,
        "1" => runtime.run(&["get", "twin", "none"]).code,
        "2" => runtime.run(&["plan", "-f", "twin.yaml", "--detailed-exitcode"]).code,
        "3" => runtime.run(&["wait", "service/judge", "--timeout", "100ms"]).code,
        "5" => {
            edgetwin_in(directory.path(), &["init"], "");
            edgetwin_in(directory.path(), &["init"], "").code
        }
        "6" => edgetwin(&["get", "twins", "--server", &refused]).code,
        "64" => edgetwin(&["frobnicate"]).code,
        "69" => edgetwin(&["get", "twins", "--server", "http://127.0.0.1:1"]).code,
        "78" => edgetwin_in(directory.path(), &["validate", "-"], "kind: Twn\n").code,
        // `run::the_first_signal_drains_and_the_second_ends_at_once` makes it.
        "130" => 130,
        other => panic!("{other} is in the help, and nothing here makes it"),
    };
    let text = help(&["--help"]);
    let codes = text.split("Exit codes: ").nth(1).unwrap().replace(['\n', '.'], " ");
    let codes: Vec<&str> = codes.split(',').filter_map(|c| c.split_whitespace().next()).collect();
    assert_eq!(codes.len(), 10, "{codes:?}");
    for code in codes {
        assert_eq!(made(code).to_string(), code);
    }
}

#[test]
fn a_hint_names_the_program_as_it_was_called() {
    let program = env!("CARGO_BIN_EXE_edgetwin");
    let mut command = std::process::Command::new(program);
    let output = command.args(["get", "twins", "--server", "http://127.0.0.1:1"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&format!("start one with `{program} run`")), "{stderr}");
}

#[test]
fn no_events_are_no_events() {
    let runtime = Runtime::start();
    let run = runtime.run(&["events", "-n", "nowhere"]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (0, "", "No events.\n"));
}

#[test]
fn tables_fit_the_terminal_and_stay_aligned() {
    let runtime = Runtime::start();
    let long = "a-twin-with-a-name-that-takes-most-of-a-line-of-the-terminal";
    let twin = |name: &str| {
        format!("{{kind: Twin, metadata: {{name: {name}, namespace: lab}}, spec: {{}}}}")
    };
    runtime.write("lab.yaml", &format!("{}\n---\n{}\n", twin(long), twin("b")));
    assert_eq!(runtime.run(&["apply", "-f", "lab.yaml", "--wait"]).code, 0);
    let mut list = command();
    let mut terminal =
        Terminal::spawn(list.args(["get", "twins", "-A", "--server", &runtime.server]));
    assert_eq!(terminal.end().0, Some(0));
    let screen = terminal.until(|screen| screen.matches('\n').count() == 3);
    for line in screen.lines() {
        assert!(line.chars().count() <= 80, "{screen}");
    }
    assert!(screen.contains('…'), "{screen}");

    let watch = ["get", "twins", "-n", "lab", "-w", "--server", &runtime.server];
    let process = Process::start(&watch);
    let rows: Vec<String> =
        (0..3).map(|_| process.stdout.recv_timeout(PATIENCE).unwrap()).collect();
    let column = rows[0].find("READY").unwrap();
    for row in &rows[1..] {
        assert!(row.len() > column && row[column..].starts_with("True"), "{rows:?}");
    }
}
