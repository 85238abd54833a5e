//! Installed programs, and the users that servers run as.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// Where distributions keep servers that are not on the path of every user.
const BESIDES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec"];
/// Debian keeps PostgreSQL's own programs by version.
const POSTGRES: &str = "/usr/lib/postgresql";

/// The first of these programs that is installed.
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = versions()
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(BESIDES.map(PathBuf::from))
        .collect();
    let place = |name: &&str| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    names.iter().find_map(place)
}

/// The first of these programs, or which are missing.
pub(crate) fn need(names: &[&str]) -> Result<PathBuf, String> {
    find(names).ok_or_else(|| format!("nothing listens, and {} is not installed", names.join(" or ")))
}

/// Folders of PostgreSQL, the newest first.
fn versions() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(POSTGRES) else { return Vec::new() };
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let mut found: Vec<_> =
        entries.flatten().filter_map(|entry| Some((version(&entry.path())?, entry.path()))).collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path.join("bin")).collect()
}

/// A user to run a server as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The first of these users that exists, where this process is root, which servers refuse to run as.
pub(crate) fn user(names: &[&str]) -> Option<User> {
    static ROOT: LazyLock<bool> = LazyLock::new(|| id("-u", None) == Some(0));
    if !*ROOT {
        return None;
    }
    names.iter().find_map(|name| Some(User { uid: id("-u", Some(name))?, gid: id("-g", Some(name))? }))
}

fn id(option: &str, name: Option<&str>) -> Option<u32> {
    let asked = Command::new("id").arg(option).args(name).stderr(Stdio::null()).output().ok()?;
    asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().parse().ok())?
}
