//! The lines of several recordings as one session: what each line is, and in which order they come.

use std::{collections::VecDeque, ops::Range, path::PathBuf};

use anyhow::anyhow;

use super::{
    Format,
    source::{Outcome, Source},
};

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// A frame as received, or a body of REST in its place.
    Frame(&'a [u8]),
    /// An answer of REST.
    Answer {
        /// What was asked.
        url: &'a str,
        /// What came.
        body: &'a [u8],
    },
    /// The recorder's own: its settings, connections, and what it sent.
    Recorder,
    /// Not in the format.
    Malformed,
}

/// A line and when it was received.
pub(super) struct Item<'a> {
    /// Nanoseconds since the epoch; `None` where the recording has no times.
    pub(super) recv_ns: Option<i64>,
    /// The position of its recording among those given.
    pub(super) file: usize,
    pub(super) line: Line<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Frame(Range<usize>),
    Answer { url: Range<usize>, body: Range<usize> },
    Recorder,
    Malformed,
}

/// A recording with the line that is next to be given out.
struct Reel {
    source: Source,
    file: usize,
    recv_ns: Option<i64>,
    part: Part,
    readable: bool,
    lines: u64,
}

impl Reel {
    /// Reads on; `None` at the end.
    fn advance(mut self, format: Format) -> anyhow::Result<Option<Self>> {
        loop {
            match self.source.read()? {
                Outcome::End => return self.finish(),
                Outcome::TooLong => (self.recv_ns, self.part) = (None, Part::Malformed),
                Outcome::Line if self.source.line().is_empty() => continue,
                Outcome::Line => (self.recv_ns, self.part) = parse(self.source.line(), format),
            }
            self.lines += 1;
            self.readable |= self.part != Part::Malformed;
            return Ok(Some(self));
        }
    }

    fn finish(self) -> anyhow::Result<Option<Self>> {
        if self.lines > 0 && !self.readable {
            let path = self.source.path().display();
            return Err(anyhow!("cannot read {path}: no line is in the given format"));
        }
        Ok(None)
    }

    fn item(&self) -> Item<'_> {
        let line = self.source.line();
        let line = match &self.part {
            Part::Frame(frame) => Line::Frame(&line[frame.clone()]),
            Part::Answer { url, body } => match std::str::from_utf8(&line[url.clone()]) {
                Ok(url) => Line::Answer { url, body: &line[body.clone()] },
                Err(_) => Line::Malformed,
            },
            Part::Recorder => Line::Recorder,
            Part::Malformed => Line::Malformed,
        };
        Item { recv_ns: self.recv_ns, file: self.file, line }
    }
}

/// The session.
pub(super) struct Feed {
    format: Format,
    waiting: VecDeque<(usize, PathBuf)>,
    reels: VecDeque<Reel>,
    given: Option<usize>,
}

impl Feed {
    /// A session of these recordings: one after the other, or, for cryptofeed, merged by time.
    ///
    /// # Errors
    /// When a recording cannot be read.
    pub(super) fn new(files: &[PathBuf], format: Format) -> anyhow::Result<Self> {
        let waiting = files.iter().cloned().enumerate().collect();
        let mut feed = Self { format, waiting, reels: VecDeque::new(), given: None };
        while format == Format::Cf && !feed.waiting.is_empty() {
            feed.open_next()?;
        }
        Ok(feed)
    }

    fn open_next(&mut self) -> anyhow::Result<()> {
        let Some((file, path)) = self.waiting.pop_front() else { return Ok(()) };
        let reel = Reel {
            source: Source::open(&path)?,
            file,
            recv_ns: None,
            part: Part::Recorder,
            readable: false,
            lines: 0,
        };
        self.reels.extend(reel.advance(self.format)?);
        Ok(())
    }

    /// The next line of the session; `None` at its end.
    ///
    /// # Errors
    /// When a recording cannot be read.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Item<'_>>> {
        if let Some(at) = self.given.take()
            && let Some(reel) = self.reels.remove(at)
            && let Some(reel) = reel.advance(self.format)?
        {
            self.reels.insert(at, reel);
        }
        while self.reels.is_empty() && !self.waiting.is_empty() {
            self.open_next()?;
        }
        // Of equal times the first file's comes first; a line without a time does not hold its file back.
        let earliest = self.reels.iter().enumerate().min_by_key(|(_, reel)| reel.recv_ns);
        let Some((at, _)) = earliest else { return Ok(None) };
        self.given = Some(at);
        Ok(self.reels.get(at).map(Reel::item))
    }
}

fn parse(line: &[u8], format: Format) -> (Option<i64>, Part) {
    let parsed = match format {
        Format::Hb => hftbacktest(line),
        Format::Cf => cryptofeed(line),
        Format::Raw => {
            let is_json = matches!(line.trim_ascii_start().first(), Some(b'{' | b'['));
            is_json.then_some((None, Part::Frame(0..line.len())))
        }
    };
    parsed.unwrap_or((None, Part::Malformed))
}

/// `<receive time, ns> <json>`.
fn hftbacktest(line: &[u8]) -> Option<(Option<i64>, Part)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let at = std::str::from_utf8(&line[..space]).ok()?;
    let recv_ns = at.bytes().all(|byte| byte.is_ascii_digit()).then(|| at.parse().ok())??;
    Some((Some(recv_ns), Part::Frame(space + 1..line.len())))
}

/// The forms of `cryptofeed/util/async_file.py` and its playback: see the format's description in [`Format::Cf`].
fn cryptofeed(line: &[u8]) -> Option<(Option<i64>, Part)> {
    if line.starts_with(b"configuration:") {
        return Some((None, Part::Recorder));
    }
    if line.first()?.is_ascii_digit() {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let recv_ns = seconds(&line[..colon])?;
        return Some((Some(recv_ns), Part::Frame(after_colon(line, colon)..line.len())));
    }
    let url = line.iter().position(|byte| *byte == b' ')?;
    let rest = &line[url + 1..];
    let (mark, rest) = rest.split_at(rest.iter().position(|byte| *byte == b' ')?);
    let start = line.len() - rest.len() + 1;
    match mark {
        b"<->" => Some((Some(seconds(&line[start..])?), Part::Recorder)),
        b"<-" | b"->" => {
            let colon = start + line[start..].iter().position(|byte| *byte == b':')?;
            let recv_ns = Some(seconds(&line[start..colon])?);
            if mark == b"<-" {
                return Some((recv_ns, Part::Recorder));
            }
            Some((recv_ns, Part::Answer { url: 0..url, body: after_colon(line, colon)..line.len() }))
        }
        _ => None,
    }
}

fn after_colon(line: &[u8], colon: usize) -> usize {
    if line.get(colon + 1) == Some(&b' ') { colon + 2 } else { colon + 1 }
}

/// Seconds with a fraction as nanoseconds; digits beyond the ninth are cut.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = nanos.fold(0_i64, |nanos, digit| nanos * 10 + i64::from(digit - b'0'));
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_exactly() {
        assert_eq!(seconds(b"1633998512.0633569"), Some(1_633_998_512_063_356_900));
        assert_eq!(seconds(b"1626992741"), Some(1_626_992_741_000_000_000));
        assert_eq!(seconds(b"1.0000000019"), Some(1_000_000_001));
        assert_eq!(
            (seconds(b""), seconds(b"-1"), seconds(b"1e3"), seconds(b"1.2.3")),
            (None, None, None, None)
        );
    }

    #[test]
    fn lines_of_cryptofeed_are_told_apart() {
        let frame = b"1633998512.5: {\"a\":1}";
        assert_eq!(cryptofeed(frame), Some((Some(1_633_998_512_500_000_000), Part::Frame(14..21))));
        let answer = b"https://h/depth?symbol=A -> 1.5: {}";
        let (at, part) = cryptofeed(answer).unwrap();
        let Part::Answer { url, body } = part else { panic!("{part:?}") };
        assert_eq!(at, Some(1_500_000_000));
        assert_eq!((&answer[url], &answer[body]), (&b"https://h/depth?symbol=A"[..], &b"{}"[..]));
        for recorder in ["configuration: {}", "wss://h/ws <-> 1.5", "wss://h/ws <- 1.5: {\"method\":1}"] {
            assert_eq!(cryptofeed(recorder.as_bytes()).unwrap().1, Part::Recorder, "{recorder}");
        }
        for garbled in ["", "garbage", "1x: {}", "wss://h/ws ?? 1.5", "https://h -> nothing"] {
            assert_eq!(cryptofeed(garbled.as_bytes()), None, "{garbled}");
        }
    }

    #[test]
    fn lines_of_hftbacktest_have_nanoseconds() {
        let line = b"1723161253937085768 {}";
        assert_eq!(hftbacktest(line), Some((Some(1_723_161_253_937_085_768), Part::Frame(20..22))));
        for garbled in [&b"{}"[..], b"1723 ", b"+5 {}", b"99999999999999999999 {}"] {
            let parsed = hftbacktest(garbled);
            assert!(parsed.is_none() || parsed == Some((Some(1723), Part::Frame(5..5))), "{parsed:?}");
        }
    }
}
