//! A process of the program. It ends with its owner; what it printed is shown when the test fails.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use super::eventually;

/// Lines shown of a failed process.
const TAIL: usize = 60;

/// The program: a built `fathom`.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// The program in this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// A command of it in an environment of its own, so that the names of old services that are set around the tests
    /// change nothing.
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.0);
        command.env_clear().current_dir(folder).stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Runs it to its end.
    pub fn output(&self, folder: &Path, args: &[&str]) -> Output {
        self.command(folder).args(args).output().expect("the program runs")
    }
}

/// A running process; it is killed when it is dropped.
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts the program; its output goes to files in the folder, named after it.
    pub fn start(
        program: &Program,
        name: &str,
        folder: &Path,
        args: &[String],
        envs: &[(&str, &str)],
    ) -> Self {
        let out = folder.join(format!("{name}.out"));
        let err = folder.join(format!("{name}.err"));
        let child = program
            .command(folder)
            .args(args)
            .envs(envs.iter().copied())
            .stdout(File::create(&out).expect("output file"))
            .stderr(File::create(&err).expect("output file"))
            .spawn()
            .expect("the program starts");
        Self { name: name.to_owned(), child, out, err }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of which something can be read.
    pub fn line<T>(&mut self, deadline: Duration, read: impl Fn(&str) -> Option<T>) -> T {
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
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{} takes no {signal}", self.name);
    }

    /// Waits for its end.
    pub fn ended(&mut self, deadline: Duration) -> ExitStatus {
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
