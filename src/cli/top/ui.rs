//! What the keys have made of the view: page, order, filter, place. Pure.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::{Line, Page, Tab};

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Stay,
    Quit,
}

/// The state of the view.
#[derive(Clone, Debug)]
pub(super) struct Ui {
    pub(super) tab: Tab,
    /// Column, and whether the greatest come first.
    pub(super) sort: Option<(usize, bool)>,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) typing: bool,
    /// Lines above the first that is shown.
    pub(super) offset: usize,
}

const PAGE: usize = 15;
/// Longer filters find nothing more.
const LONGEST_FILTER: usize = 60;

impl Ui {
    pub(super) const fn new(tab: Tab) -> Self {
        Self { tab, sort: None, filter: String::new(), typing: false, offset: 0 }
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Turn {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Turn::Quit;
        }
        if self.typing {
            self.typed(key.code);
            return Turn::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Turn::Quit,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='6') => self.open(Tab::ALL[digit as usize - '1' as usize]),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => self.sort = Some((self.sort.map_or(0, |(column, _)| column + 1), false)),
            KeyCode::Char('r') => {
                self.sort = self.sort.map(|(column, greatest)| (column, !greatest)).or(Some((0, true)))
            }
            KeyCode::Char('n') => self.sort = None,
            KeyCode::Down | KeyCode::Char('j') => self.offset += 1,
            KeyCode::Up | KeyCode::Char('k') => self.offset = self.offset.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.offset += PAGE,
            KeyCode::PageUp => self.offset = self.offset.saturating_sub(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.offset = 0,
            _ => {}
        }
        Turn::Stay
    }

    fn typed(&mut self, code: KeyCode) {
        self.offset = 0;
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() < LONGEST_FILTER => self.filter.push(letter),
            _ => {}
        }
    }

    fn turn(&mut self, by: usize) {
        let at = Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or(0);
        self.open(Tab::ALL[(at + by) % Tab::ALL.len()]);
    }

    const fn open(&mut self, tab: Tab) {
        self.tab = tab;
        self.sort = None;
        self.offset = 0;
    }

    /// The lines to be shown, filtered and in order.
    pub(super) fn lines<'a>(&self, page: &'a Page) -> Vec<&'a Line> {
        let wanted = self.filter.to_lowercase();
        let fits = |line: &&Line| line.cells.iter().any(|cell| cell.to_lowercase().contains(&wanted));
        let mut lines: Vec<&Line> = page.lines.iter().filter(fits).collect();
        if let Some((column, greatest)) = self.column(page) {
            lines.sort_by(|a, b| {
                let order = compare(&a.cells[column], &b.cells[column]);
                if greatest { order.reverse() } else { order }
            });
        }
        lines
    }

    /// The column of the order; counting on past the last begins anew.
    pub(super) fn column(&self, page: &Page) -> Option<(usize, bool)> {
        let columns = page.headers.len();
        self.sort.filter(|_| columns > 0).map(|(column, greatest)| (column % columns, greatest))
    }
}

/// Numbers by their value and before words, words by their letters.
fn compare(a: &str, b: &str) -> Ordering {
    let number = |text: &str| text.split('/').next().and_then(|first| first.parse::<i64>().ok());
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.trim_start().cmp(b.trim_start()),
    }
}
