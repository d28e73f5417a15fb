//! The binary as a person types it: exit statuses and what is printed where.

use std::net::TcpListener;
use std::process::{Command, Output};

fn kvorum(words: &[&str]) -> (i32, String, String) {
    let program = env!("CARGO_BIN_EXE_kvorum");
    let Output { status, stdout, stderr } = Command::new(program).args(words).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().expect("it was not killed"), text(stdout), text(stderr))
}

#[test]
fn help_and_version_go_to_standard_output() {
    for words in [&["--help"][..], &["help"], &["server", "--help"], &["local", "--help"], &["cluster", "--help"]] {
        let (code, shown, errors) = kvorum(words);
        assert!(code == 0 && shown.contains("Usage:") && errors.is_empty(), "{words:?}: {code} {errors}");
    }
    assert_eq!(kvorum(&["--version"]), (0, format!("kvorum {}\n", env!("CARGO_PKG_VERSION")), String::new()));
}

#[test]
fn wrong_usage_is_exit_status_2_with_a_hint() {
    let table = [
        (&["--prot", "7001"][..], "'--port'"),
        (&["server", "--port", "70000"], "70000"),
        (&["srever"], "'server'"),
        (&["server", "--heartbeat-ms", "300"], "election-timeout-max-ms: 400 is too short"),
        (&["local", "--", "--appendfsyn", "no"], "'--appendfsync'"),
    ];
    for (words, hint) in table {
        let (code, shown, errors) = kvorum(words);
        assert!(code == 2 && shown.is_empty() && errors.contains(hint), "{words:?}: {code} {errors}");
    }
}

#[test]
fn an_unreadable_config_file_is_named() {
    let (code, _, errors) = kvorum(&["--config", "no-such-file.toml"]);
    assert!(code == 2 && errors.contains("cannot read no-such-file.toml"), "{code} {errors}");
}

#[test]
fn asking_a_node_that_is_not_there_fails_with_its_address() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").to_string();
    for words in [&["health", "--node", &closed][..], &["cluster", "status", "--node", &closed]] {
        let (code, shown, errors) = kvorum(words);
        assert!(code == 1 && shown.is_empty() && errors.contains(&closed), "{words:?}: {code} {errors}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_one_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, b"").expect("writes");
    for path in [file.clone(), file.join("below")] {
        let (code, _, errors) = kvorum(&["server", "--data-dir", &path.display().to_string()]);
        assert!(code == 1 && errors.contains(&format!("error: {}", file.display())), "{code} {errors}");
    }
}
