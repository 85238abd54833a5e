//! Starting a server: its folder, its port, its end.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Server,
    programs::{self, User},
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Below the ports that systems give to outgoing connections, so that a restarted server finds its own free again.
const PORTS: std::ops::Range<u32> = 20_000..32_000;
const ATTEMPTS: usize = 3;

/// Ends a server and removes its folder when its input is closed, which is when the process of the tests is over.
const WATCHER: &str = r#"cat >/dev/null
kill -"$2" "$1" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$1" 2>/dev/null || break
    sleep 0.1
done
kill -KILL "$1" 2>/dev/null
rm -rf "$3""#;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sync {
    /// As the server does by itself.
    On,
    /// Not at all: for databases that nobody needs after the tests.
    Off,
}

/// A server of this process.
pub(crate) struct Launched {
    server: Server,
    sync: Sync,
    port: u16,
    user: Option<User>,
    running: Option<Running>,
    folder: TempDir,
}

struct Running {
    child: Child,
    watcher: Child,
}

impl Launched {
    /// Makes a server's folder and starts it, or says what is missing.
    pub(crate) fn new(server: Server, sync: Sync) -> Result<Self, String> {
        let mut failed = String::new();
        for _ in 0..ATTEMPTS {
            let mut launched = Self::prepare(server, sync)?;
            match launched.start() {
                Ok(()) => return Ok(launched),
                Err(why) => failed = why,
            }
        }
        Err(failed)
    }

    fn prepare(server: Server, sync: Sync) -> Result<Self, String> {
        let names: &[&str] = match server {
            Server::Postgres => &["postgres", "nobody"],
            Server::Timescale => return Err("it is never started by tests".to_owned()),
            Server::Mariadb => &["mysql", "mariadb", "nobody"],
            Server::Redis => &["redis", "nobody"],
        };
        need(server)?;
        let folder =
            tempfile::Builder::new().prefix("fathom-test-").tempdir().map_err(said("temporary folder"))?;
        let user = programs::user(names);
        if let Some(User { uid, gid }) = user {
            chown(folder.path(), Some(uid), Some(gid)).map_err(said("owner of the folder"))?;
        }
        let launched = Self { server, sync, port: free_port()?, user, running: None, folder };
        launched.fill()?;
        Ok(launched)
    }

    /// Makes the empty databases that a server starts from.
    fn fill(&self) -> Result<(), String> {
        let data = self.data();
        let mut command = match self.server {
            Server::Postgres | Server::Timescale => {
                let mut command = self.command(&programs::need(&["initdb"])?);
                command.args([
                    "--username=postgres",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                ]);
                command.arg("--pgdata").arg(data);
                command
            }
            Server::Mariadb => match programs::find(&["mariadb-install-db", "mysql_install_db"]) {
                Some(program) => {
                    let mut command = self.command(&program);
                    command.args([
                        "--no-defaults",
                        "--auth-root-authentication-method=normal",
                        "--skip-test-db",
                    ]);
                    command.arg(named("--datadir=", &data));
                    command
                }
                None => {
                    let mut command = self.command(&programs::need(&["mysqld"])?);
                    command.args(["--no-defaults", "--initialize-insecure"]).arg(named("--datadir=", &data));
                    command
                }
            },
            Server::Redis => return Ok(()),
        };
        let done = command.stdin(Stdio::null()).output().map_err(said("making the databases"))?;
        let text = String::from_utf8_lossy(&done.stderr);
        done.status.success().then_some(()).ok_or_else(|| format!("making the databases: {}", text.trim()))
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        if self.running.is_some() {
            return Err("it runs already".to_owned());
        }
        let mut command = self.serve()?;
        let log = File::options().create(true).append(true).open(self.log()).map_err(said("log"))?;
        let err = log.try_clone().map_err(said("log"))?;
        // In a group of its own, so that an interrupt of the tests reaches the watcher by its input only.
        let child = command.stdin(Stdio::null()).stdout(log).stderr(err).process_group(0).spawn();
        let child = child.map_err(said("starting the server"))?;
        let watcher = watch(child.id(), self.end_signal(), self.folder.path())?;
        self.running = Some(Running { child, watcher });
        self.await_ready()
    }

    fn serve(&self) -> Result<Command, String> {
        let (data, port) = (self.data(), self.port.to_string());
        let mut command = self.command(&need(self.server)?);
        match self.server {
            Server::Postgres | Server::Timescale => {
                command.arg("-D").arg(data).args(["-p", &port, "-h", "127.0.0.1"]);
                command.args(["-c", "unix_socket_directories=", "-c", "max_connections=200"]);
                if self.sync == Sync::Off {
                    command.args([
                        "-c",
                        "fsync=off",
                        "-c",
                        "full_page_writes=off",
                        "-c",
                        "synchronous_commit=off",
                    ]);
                }
            }
            Server::Mariadb => {
                command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
                command.arg(named("--datadir=", &data)).arg(format!("--port={port}"));
                command.arg(named("--socket=", &self.folder.path().join("socket")));
                command.arg(named("--pid-file=", &self.folder.path().join("pid")));
                command.arg(named("--tmpdir=", self.folder.path())).arg("--max-connections=300");
                if self.sync == Sync::Off {
                    command.args(["--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0"]);
                }
            }
            Server::Redis => {
                command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
                command.arg("--dir").arg(self.folder.path());
            }
        }
        Ok(command)
    }

    /// A command as the server's user, in an environment without the settings of the one who tests.
    fn command(&self, program: &Path) -> Command {
        let mut command = match self.user {
            Some(User { uid, gid }) => {
                let mut command = Command::new("setpriv");
                command
                    .args([format!("--reuid={uid}"), format!("--regid={gid}")])
                    .args(["--clear-groups", "--"]);
                command.arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("HOME", self.folder.path())
            .current_dir(self.folder.path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    fn await_ready(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        while !self.is_ready() {
            let ended = self.running.as_mut().and_then(|running| running.child.try_wait().ok().flatten());
            if ended.is_some() || begun.elapsed() > READY_WITHIN {
                let how = ended.map_or_else(|| "it does not answer".to_owned(), |status| status.to_string());
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                self.end();
                return Err(format!("{how}: {}", lines[lines.len().saturating_sub(20)..].join("\n")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        match self.server {
            // The eighth line is its state; while it recovers it takes connections and refuses them.
            Server::Postgres | Server::Timescale => fs::read_to_string(self.data().join("postmaster.pid"))
                .is_ok_and(|text| text.lines().nth(7).is_some_and(|state| state.trim() == "ready")),
            // It greets first, with its protocol's version behind the packet's length and number.
            Server::Mariadb => self.said(b"", 5).is_some_and(|said| said.get(4) == Some(&10)),
            Server::Redis => self.said(b"PING\r\n", 5).is_some_and(|said| said == b"+PONG"),
        }
    }

    fn said(&self, question: &[u8], length: usize) -> Option<Vec<u8>> {
        let mut stream =
            TcpStream::connect_timeout(&([127, 0, 0, 1], self.port).into(), ANSWERS_WITHIN).ok()?;
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
        stream.write_all(question).ok()?;
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).ok()?;
        Some(answer)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// What `pg_ctl stop -m immediate` sends, which ends the processes of all sessions too; the others are one process.
    const fn end_signal(&self) -> &'static str {
        match self.server {
            Server::Postgres | Server::Timescale => "QUIT",
            Server::Mariadb | Server::Redis => "KILL",
        }
    }

    /// Ends the server at once, as a crash does, and waits until it is gone.
    pub(crate) fn end(&mut self) {
        let Some(Running { mut child, mut watcher }) = self.running.take() else { return };
        // The watcher goes first: it would remove the folder.
        let _ = watcher.kill();
        let _ = watcher.wait();
        signal(self.end_signal(), &[child.id()]);
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if begun.elapsed() > ENDS_WITHIN {
                let _ = child.kill();
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // One that was stopped would not hear of its end.
            signal("CONT", &family(pid));
        }
        self.end();
    }
}

/// The server's own program, or what is missing.
fn need(server: Server) -> Result<PathBuf, String> {
    match server {
        Server::Postgres | Server::Timescale => programs::need(&["postgres"]),
        Server::Mariadb => programs::need(&["mariadbd", "mysqld"]),
        Server::Redis => programs::need(&["redis-server"]),
    }
}

fn watch(pid: u32, signal: &str, folder: &Path) -> Result<Child, String> {
    let mut command = Command::new("sh");
    command.args(["-c", WATCHER, "watcher", &pid.to_string(), signal]).arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().map_err(said("starting the watcher"))
}

/// Sends a signal; processes that are gone do not matter.
pub(crate) fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status();
}

/// A process and its children: PostgreSQL has one for each session.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let parent = |text: &str| text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let Ok(entries) = fs::read_dir("/proc") else { return vec![pid] };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |child: &u32| {
        fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|text| parent(&text) == Some(pid))
    };
    std::iter::once(pid).chain(numbers.filter(is_child)).collect()
}

fn free_port() -> Result<u16, String> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let span = PORTS.end - PORTS.start;
    let candidates = (0..span).map(|_| {
        let nth = TAKEN.fetch_add(1, Ordering::Relaxed);
        PORTS.start + (std::process::id().wrapping_mul(37).wrapping_add(nth)) % span
    });
    let mut free = candidates.filter_map(|port| u16::try_from(port).ok());
    free.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| "no port is free".to_owned())
}

fn named(option: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(option);
    text.push(path);
    text
}

fn said(what: &str) -> impl Fn(std::io::Error) -> String + '_ {
    move |error| format!("{what}: {error}")
}
