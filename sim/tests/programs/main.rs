//! `punchbag coord`, `relay`, `peer`, `status` and `ping` as processes of their own.
#![cfg(unix)]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "processes on real sockets, in real time"
)]

mod flags;
mod loopback;
mod manners;
#[cfg(target_os = "linux")]
mod namespaces;

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes when the test is over.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("punchbag-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where commands run: here, or in a network namespace.
#[derive(Clone)]
struct Place {
    prefix: Vec<String>,
    state: PathBuf,
}

impl Place {
    fn here(folder: &Path, name: &str) -> Place {
        Place { prefix: Vec::new(), state: folder.join(name) }
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut words = self.prefix.iter().map(String::as_str).chain([program]).chain(args.iter().copied());
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        command
    }

    fn punchbag(&self, args: &[&str]) -> Command {
        let program =
            std::env::var("PUNCHBAG_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_punchbag").to_owned());
        let mut command = self.command(&program, args);
        command.arg("--state").arg(&self.state).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command
    }

    /// Runs a command to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.punchbag(args).output().expect("it runs")
    }

    /// What the command prints; it must succeed.
    fn print(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.print(&["status", "--json"])).expect("JSON")
    }

    /// The path to another peer.
    fn path_to(&self, name: &str) -> Option<String> {
        let status = self.status();
        let peer = status["peers"].as_array()?.iter().find(|peer| peer["name"] == name)?;
        peer["path"].as_str().map(str::to_owned)
    }

    fn start(&self, args: &[&str]) -> Running {
        Running::start(self.punchbag(&[args, &["--log-format", "json"]].concat()))
    }
}

/// A process that ends with the test, and its log.
struct Running {
    child: Child,
    log: mpsc::Receiver<Value>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("its log"));
        let (sender, log) = mpsc::channel();
        // It ends with the process.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Running { child, log }
    }

    /// Waits until it says something, and returns the field of that.
    fn says(&self, message: &str, field: &str) -> String {
        let (by, mut heard) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let Ok(line) = self.log.recv_timeout(by.saturating_duration_since(Instant::now())) else {
                panic!("it did not say {message:?}: {heard:#?}");
            };
            if line["fields"]["message"] == message {
                return line["fields"][field].as_str().unwrap_or_default().to_owned();
            }
            heard.push(line);
        }
    }

    /// Waits until it says something with these words in it, and returns all of that.
    fn hears(&self, words: &str) -> String {
        let (by, mut heard) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let Ok(line) = self.log.recv_timeout(by.saturating_duration_since(Instant::now())) else {
                panic!("it did not speak of {words:?}: {heard:#?}");
            };
            let line = line.get("fields").unwrap_or(&line).to_string();
            if line.contains(words) {
                return line;
            }
            heard.push(line);
        }
    }

    fn address(&self, message: &str) -> SocketAddr {
        self.says(message, "address").parse().expect("an address")
    }

    /// Asks it to end, as systemd does, and waits for that.
    fn end(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let by = Instant::now() + PATIENCE;
        while Instant::now() < by {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let by = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < by, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
