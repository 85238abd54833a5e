//! Draws the view into a buffer. Pure: model in, cells out; fits 80 columns and 24 rows.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line as TextLine, Span},
    widgets::{Cell, Row, Table, Widget},
};

use super::{
    model::{Line, Model, Mood, Page, Tab},
    ui::Ui,
};

/// The way to the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// It was not asked yet.
    #[default]
    Starting,
    Up,
    /// It does not answer; what is shown is from before.
    Away {
        for_s: u64,
        why: String,
    },
}

/// What is drawn.
pub(super) struct View<'a> {
    pub(super) url: &'a str,
    pub(super) model: Option<&'a Model>,
    pub(super) link: &'a Link,
    pub(super) ui: &'a Ui,
}

const fn style(mood: Mood) -> Style {
    let style = Style::new();
    match mood {
        Mood::Plain => style,
        Mood::Good => style.fg(Color::Green),
        Mood::Doubtful => style.fg(Color::Yellow),
        Mood::Bad => style.fg(Color::Red),
    }
}

/// Draws everything.
pub(super) fn draw(view: &View<'_>, area: Rect, buffer: &mut Buffer) {
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [title, tabs, _, body, foot] = rows.areas(area);
    headline(view).render(title, buffer);
    tab_line(view.ui.tab).render(tabs, buffer);
    if let Some(model) = view.model {
        table(view, model.page(view.ui.tab), body, buffer);
    }
    foot_line(view).render(foot, buffer);
}

fn headline<'a>(view: &View<'a>) -> TextLine<'a> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut spans = vec![Span::styled("fathom ", bold)];
    match view.link {
        Link::Starting => spans.push(Span::raw("asking ")),
        Link::Up => {}
        Link::Away { for_s, .. } => {
            spans.push(Span::styled(format!("AWAY for {for_s} s "), style(Mood::Bad)))
        }
    }
    if let Some(model) = view.model {
        spans.push(Span::styled(format!("{} ", model.verdict), style(model.mood)));
        spans.push(Span::raw(format!("{} ", model.process)));
    }
    spans.push(Span::raw(view.url));
    TextLine::from(spans)
}

fn tab_line(open: Tab) -> TextLine<'static> {
    let of = |(at, tab): (usize, Tab)| {
        let name = format!("{} {}", at + 1, tab.title());
        let shown = if tab == open { format!("[{name}]") } else { format!(" {name} ") };
        let style = if tab == open { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        Span::styled(shown, style)
    };
    TextLine::from(Tab::ALL.into_iter().enumerate().map(of).collect::<Vec<_>>())
}

fn table(view: &View<'_>, page: &Page, area: Rect, buffer: &mut Buffer) {
    let lines = view.ui.lines(page);
    let fitting = usize::from(area.height.saturating_sub(1));
    let offset = view.ui.offset.min(lines.len().saturating_sub(fitting));
    let sorted = view.ui.column(page);
    let header = page.headers.iter().enumerate().map(|(at, name)| match sorted {
        Some((column, greatest)) if column == at => format!("{name}{}", if greatest { " v" } else { " ^" }),
        _ => (*name).to_owned(),
    });
    let header: Vec<String> = header.collect();
    let widths = widths(&header, &lines, area.width);
    let shown = lines.iter().skip(offset).take(fitting);
    let rows = shown
        .map(|line| Row::new(line.cells.iter().map(|cell| Cell::new(cell.as_str()))).style(style(line.mood)));
    let bold = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
    Table::new(rows, widths.into_iter().map(Constraint::Length))
        .header(Row::new(header).style(bold))
        .render(area, buffer);
}

/// Narrowest that a column is made.
const NARROW: u16 = 8;

/// As wide as the contents; where that is too much, the widest give way.
fn widths(header: &[String], lines: &[&Line], width: u16) -> Vec<u16> {
    let wide = |text: &str| u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    let of = |(at, name): (usize, &String)| {
        let cells = lines.iter().filter_map(|line| line.cells.get(at)).map(|cell| wide(cell));
        cells.max().unwrap_or(0).max(wide(name))
    };
    let mut widths: Vec<u16> = header.iter().enumerate().map(of).collect();
    let gaps = u16::try_from(widths.len().saturating_sub(1)).unwrap_or(0);
    let room = width.saturating_sub(gaps);
    loop {
        let total: u32 = widths.iter().map(|width| u32::from(*width)).sum();
        let over = total.saturating_sub(u32::from(room));
        let Some(widest) = widths.iter_mut().max().filter(|widest| over > 0 && **widest > NARROW) else {
            return widths;
        };
        *widest -= u16::try_from(over).unwrap_or(u16::MAX).min(*widest - NARROW).min(1 + *widest / 8);
    }
}

fn foot_line<'a>(view: &View<'a>) -> TextLine<'a> {
    if view.ui.typing {
        return TextLine::raw(format!("filter: {}_", view.ui.filter));
    }
    if let Link::Away { why, .. } = view.link {
        return TextLine::styled(why.as_str(), style(Mood::Bad));
    }
    if view.ui.filter.is_empty() {
        return TextLine::raw("tab page  s sort  r reverse  n natural  / filter  j k scroll  q quit");
    }
    TextLine::raw(format!("filter: {}  esc clears it  tab page  s sort  q quit", view.ui.filter))
}
