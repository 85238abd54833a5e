//! Recordings as lines, uncompressed on the fly. A line beyond the limit is passed over, not held in memory.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};

const READ_BUFFER: usize = 128 * 1024;
/// An `exchangeInfo` of all instruments has about 20 MB.
const MAX_LINE: usize = 64 * 1024 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// By the first bytes, or else by the name: a `.gz` that is none is to be an error, not text.
    fn of(path: &Path, first: &[u8]) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match first {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Self::Zstd,
            [] => Self::Plain,
            _ if extension.eq_ignore_ascii_case("gz") => Self::Gzip,
            _ if extension.eq_ignore_ascii_case("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// The lines of one recording.
pub(super) struct Source {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
}

/// What reading a line came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// There is a line.
    Line,
    /// There was one, too long to be a record.
    TooLong,
    /// The recording is over.
    End,
}

impl Source {
    /// Opens a recording.
    ///
    /// # Errors
    /// When it cannot be opened or is no regular file; the message names it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let reader = open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), reader, line: Vec::new() })
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The line that was read last, without its end.
    pub(super) fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged; the message names it.
    pub(super) fn read(&mut self) -> anyhow::Result<Outcome> {
        self.read_within(MAX_LINE).with_context(|| format!("cannot read {}", self.path.display()))
    }

    fn read_within(&mut self, limit: usize) -> io::Result<Outcome> {
        self.line.clear();
        let most = u64::try_from(limit).unwrap_or(u64::MAX);
        let read = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(Outcome::End);
        }
        if read == limit && self.line.last() != Some(&b'\n') {
            self.line.clear();
            self.reader.skip_until(b'\n')?;
            return Ok(Outcome::TooLong);
        }
        let length = self.line.trim_ascii_end().len();
        self.line.truncate(length);
        Ok(Outcome::Line)
    }
}

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(anyhow!("not a regular file"));
    }
    let mut first = Vec::new();
    file.by_ref().take(4).read_to_end(&mut first)?;
    file.rewind()?;
    let packed = BufReader::with_capacity(READ_BUFFER, file);
    Ok(match Packing::of(path, &first) {
        Packing::Plain => Box::new(packed),
        Packing::Gzip => {
            Box::new(BufReader::with_capacity(READ_BUFFER, flate2::bufread::MultiGzDecoder::new(packed)))
        }
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            Box::new(BufReader::with_capacity(READ_BUFFER, decoder))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beyond_the_limit_is_passed_over() {
        let text: &[u8] = b"one\r\n0123456789\ntwo";
        let mut source =
            Source { path: PathBuf::new(), reader: Box::new(BufReader::new(text)), line: Vec::new() };
        let mut seen = Vec::new();
        loop {
            match source.read_within(6).unwrap() {
                Outcome::End => break,
                Outcome::Line => seen.push(String::from_utf8(source.line().to_vec()).unwrap()),
                Outcome::TooLong => seen.push("too long".to_owned()),
            }
        }
        assert_eq!(seen, ["one", "too long", "two"]);
    }
}
