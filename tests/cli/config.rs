//! `edgetwin config view`: which settings are in force, and where they are from.

use crate::support::process::{Run, edgetwin_in};

fn view(toml: &str, arguments: &[&str]) -> Run {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("edgetwin.toml"), toml).unwrap();
    edgetwin_in(directory.path(), arguments, "")
}

#[test]
fn each_setting_says_where_it_is_from() {
    let toml = "http = \"127.0.0.1:8090\"\nserver = \"http://127.0.0.1:8090\"\n\n\
                [broker]\nurl = \"mqtt://broker:1884\"\n";
    let arguments = ["config", "view", "--show-origin", "--server", "http://127.0.0.1:1"];
    let run = view(toml, &arguments);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        run.stdout,
        "SETTING     VALUE               ORIGIN\n\
         server      http://127.0.0.1:1  --server\n\
         state       edgetwin-state      default\n\
         http        127.0.0.1:8090      edgetwin.toml:1\n\
         mqtt        127.0.0.1:1883      default\n\
         eureka      127.0.0.1:8761      default\n\
         allow-host  -                   default\n\
         broker.url  mqtt://broker:1884  edgetwin.toml:5\n"
    );
}

#[test]
fn a_file_that_is_none_is_told_by_every_verb() {
    let run = view("[broker]\nurl = 7\n", &["get", "twins"]);
    assert_eq!(run.code, 64);
    assert!(run.stderr.contains("edgetwin.toml:2: invalid type: integer `7`"), "{}", run.stderr);
    let run = edgetwin_in(&std::env::temp_dir(), &["version", "--config", "/none.toml"], "");
    assert_eq!(run.code, 64);
    assert!(run.stderr.contains("/none.toml cannot be read"), "{}", run.stderr);
}

#[test]
fn the_file_decides_where_a_runtime_listens() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "server = \"http://127.0.0.1:1\"\nhttp = \"192.0.2.1:80\"\n";
    std::fs::write(directory.path().join("edgetwin.toml"), toml).unwrap();
    let run = edgetwin_in(directory.path(), &["get", "twins"], "");
    assert_eq!(run.code, 69, "{}", run.stderr);
    let run = edgetwin_in(directory.path(), &["run", "--mqtt", "127.0.0.1:0"], "");
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("HTTP on 192.0.2.1:80"), "{}", run.stderr);
}

#[test]
fn clients_find_a_runtime_where_the_file_has_it_listen() {
    let view = |toml: &str, arguments: &[&str]| view(toml, arguments).stdout;
    let shown = view("http = \"127.0.0.1:8090\"\n", &["config", "view", "--show-origin"]);
    assert!(shown.contains("server      http://127.0.0.1:8090  edgetwin.toml:1\n"), "{shown}");
    let runtime = crate::support::runtime::Runtime::start();
    let toml = format!("http = \"{}\"\nmqtt = \"127.0.0.1:2883\"\n", runtime.http);
    std::fs::write(runtime.path().join("edgetwin.toml"), toml).unwrap();
    let run = edgetwin_in(runtime.path(), &["get", "twins", "-A"], "");
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = edgetwin_in(runtime.path(), &["simulate", "--help"], "");
    assert!(run.stdout.contains("mqtt://127.0.0.1:2883"), "{}", run.stdout);
}
