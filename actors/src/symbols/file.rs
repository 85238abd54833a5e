//! Operators' changes on disk: a small JSON file, replaced as a whole.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::wishes::Change;

const VERSION: u32 = 1;
/// A larger file is not ours.
const MAX_BYTES: u64 = 4 << 20;

/// Changes by market, `venue/market`.
pub type Changes = BTreeMap<String, Change>;

/// Why the file could not be used or written.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It can be read and makes no sense.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    markets: Changes,
}

/// Reads the changes; none where there is no file.
///
/// # Errors
/// When it cannot be read, or is of another version or form.
pub fn load(path: &Path) -> Result<Changes, FileError> {
    let bytes = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Changes::default()),
        Err(source) => return Err(FileError::Io { path: path.to_owned(), source }),
        Ok(facts) if facts.len() > MAX_BYTES => {
            return Err(content(path, format!("{} bytes are too many", facts.len())));
        }
        Ok(_) => fs::read(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?,
    };
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| content(path, error.to_string()))?;
    if saved.version != VERSION {
        return Err(content(path, format!("version {} is not {VERSION}", saved.version)));
    }
    Ok(saved.markets)
}

/// Reads the changes. A file that cannot be used is set aside and the service runs with its configuration.
pub fn load_or_set_aside(path: &Path) -> Changes {
    let error = match load(path) {
        Ok(changes) => return changes,
        Err(error) => error,
    };
    let aside = beside(path, "unreadable");
    match fs::rename(path, &aside) {
        Ok(()) => tracing::error!(
            %error, set_aside = %aside.display(),
            "the operators' changes of symbols cannot be read: running with the configuration"
        ),
        Err(failed) => tracing::error!(
            %error, %failed,
            "the operators' changes of symbols cannot be read nor set aside: running with the configuration"
        ),
    }
    Changes::default()
}

/// Replaces the file: after a crash at any moment it holds either the old or the new changes, whole.
///
/// # Errors
/// When it cannot be written; the old file then stands.
pub fn save(path: &Path, changes: &Changes) -> Result<(), FileError> {
    let saved = Saved { version: VERSION, markets: changes.clone() };
    let text = serde_json::to_vec_pretty(&saved).map_err(|error| content(path, error.to_string()))?;
    replace(path, &text).map_err(|source| FileError::Io { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let fresh = beside(path, "new");
    let mut file = File::create(&fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    // The new name has to outlive a power cut as well.
    File::open(folder)?.sync_all()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn content(path: &Path, why: String) -> FileError {
    FileError::Content { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbols::wishes::Wish;

    fn changes(symbol: &str) -> Changes {
        let mut change = Change::default();
        change.add(Wish { symbol: symbol.into(), tier: None });
        BTreeMap::from([("binance/spot".to_owned(), change)])
    }

    #[test]
    fn what_was_saved_is_read_again_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deeper/symbols.json");
        assert_eq!(load(&path).unwrap(), Changes::default());
        save(&path, &changes("SOLUSDT")).unwrap();
        save(&path, &changes("XRPUSDT")).unwrap();
        assert_eq!(load(&path).unwrap(), changes("XRPUSDT"));
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn an_unreadable_file_is_named_and_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("symbols.json");
        for bad in ["{", "{}", r#"{"version":2,"markets":{}}"#, r#"{"version":1,"markets":{"a":{"x":1}}}"#] {
            fs::write(&path, bad).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains("symbols.json"), "{error}");
            assert_eq!(load_or_set_aside(&path), Changes::default());
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(folder.path().join("symbols.json.unreadable")).unwrap(), bad);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = save(&file.join("symbols.json"), &Changes::default()).unwrap_err();
        assert!(error.to_string().contains("symbols.json"), "{error}");
    }
}
