//! A process of the program. It ends with its owner; what it printed is shown when the test fails.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use super::eventually;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fathom");
/// Lines shown of a failed process.
const TAIL: usize = 60;

/// A command of the program in an environment of its own, so that the names of old services that are set around the
/// tests change nothing.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs the program to its end.
pub(crate) fn fathom(folder: &Path, args: &[&str]) -> Output {
    command(folder).args(args).output().expect("the program runs")
}

/// See the head of the module.
pub(crate) struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts the program; its output goes to files in the folder, named after it.
    pub(crate) fn start(name: &str, folder: &Path, args: &[String], envs: &[(&str, &str)]) -> Self {
        let out = folder.join(format!("{name}.out"));
        let err = folder.join(format!("{name}.err"));
        let child = command(folder)
            .args(args)
            .envs(envs.iter().copied())
            .stdout(File::create(&out).expect("output file"))
            .stderr(File::create(&err).expect("output file"))
            .spawn()
            .expect("the program starts");
        Self { name: name.to_owned(), child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of which something can be read.
    pub(crate) fn line<T>(&mut self, deadline: Duration, read: impl Fn(&str) -> Option<T>) -> T {
        let name = self.name.clone();
        eventually(&format!("{name} prints what is waited for"), deadline, || {
            if let Some(status) = self.child.try_wait().expect("waiting works") {
                panic!("{name} ended early: {status}");
            }
            let printed = self.printed();
            let complete = printed.rfind('\n').map_or("", |end| &printed[..end]);
            complete.lines().find_map(&read).ok_or_else(|| format!("{} lines", complete.lines().count()))
        })
    }

    /// Sends a signal by its name: `TERM`, `INT`, `KILL`.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{} takes no {signal}", self.name);
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), deadline, || {
            self.child.try_wait().expect("waiting works").ok_or_else(|| "it is running".to_owned())
        })
    }

    fn tail(&self) -> String {
        let tail = |path: &Path| {
            let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        };
        format!("--- {} printed\n{}\n{}\n---", self.name, tail(&self.out), tail(&self.err))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
