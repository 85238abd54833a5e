//! `fathom top`: a running service in the terminal, over its HTTP interface. A thread of its own asks once a second, so a slow
//! answer never holds up a key; while the service is away that is said, and asked again. On a dumb terminal, or with
//! `--once`, one plain frame is printed.

mod fetch;
mod model;
mod screen;
#[cfg(test)]
mod tests;
mod ui;

use std::{
    io::IsTerminal,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use ratatui::{
    buffer::Buffer,
    crossterm::event::{self, Event, KeyEventKind},
    layout::Rect,
};
use tokio::time::Instant;

use self::{
    fetch::{Answers, Fetcher},
    model::{Model, Tab},
    screen::{Link, View, draw},
    ui::{Turn, Ui},
};
use super::{CliError, block_on};

const EVERY: Duration = Duration::from_secs(1);
/// How soon a key shows.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Address of the service.
    #[arg(long, default_value = "http://127.0.0.1:8000", env = "FATHOM_URL")]
    url: String,
    /// Print one plain frame and end.
    #[arg(long)]
    once: bool,
    /// What to show first.
    #[arg(long, value_enum, default_value = "overview")]
    tab: Tab,
    /// Size of a plain frame.
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "80x24", value_parser = size)]
    size: (u16, u16),
}

fn size(text: &str) -> Result<(u16, u16), String> {
    let parsed =
        text.split_once('x').and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
    let sane = parsed.filter(|(columns, rows)| (20..=500).contains(columns) && (5..=1000).contains(rows));
    sane.ok_or_else(|| format!("{text}: expected COLUMNSxROWS, from 20x5 to 500x1000"))
}

pub(super) fn run(args: &TopArgs) -> Result<(), CliError> {
    fathom_transport::install_provider();
    let dumb = std::env::var("TERM").is_ok_and(|term| term.is_empty() || term == "dumb");
    if args.once || dumb || !std::io::stdout().is_terminal() {
        return Ok(once(args)?);
    }
    Ok(watch(args)?)
}

/// One plain frame; asks twice, since rates need two answers.
fn once(args: &TopArgs) -> anyhow::Result<()> {
    let model = block_on(async {
        let fetcher = Fetcher::new(&args.url)?;
        let first = fetcher.ask().await?;
        tokio::time::sleep(EVERY).await;
        let second = fetcher.ask().await?;
        anyhow::Ok(Model::read(&second, Some(&first)))
    })?;
    let view = View { url: &args.url, model: Some(&model), link: &Link::Up, ui: &Ui::new(args.tab) };
    println!("{}", plain(&view, args.size));
    Ok(())
}

/// A frame as text.
fn plain(view: &View<'_>, (columns, rows): (u16, u16)) -> String {
    let area = Rect::new(0, 0, columns, rows);
    let mut buffer = Buffer::empty(area);
    draw(view, area, &mut buffer);
    let line = |row: u16| {
        let cells: String = (0..columns).map(|column| buffer[(column, row)].symbol()).collect();
        cells.trim_end().to_owned()
    };
    (0..rows).map(line).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// What the asking thread last found.
#[derive(Default)]
struct Shared {
    model: Option<Arc<Model>>,
    link: Link,
}

fn watch(args: &TopArgs) -> anyhow::Result<()> {
    let (shared, over) = (Arc::new(Mutex::new(Shared::default())), Arc::new(AtomicBool::new(false)));
    let fetcher = Fetcher::new(&args.url)?;
    let asking = (shared.clone(), over.clone());
    std::thread::Builder::new()
        .name("top-fetch".to_owned())
        .spawn(move || block_on(keep_asking(fetcher, &asking.0, &asking.1)))
        .context("start a thread")?;
    let mut terminal = ratatui::try_init().context("set up the terminal")?;
    let outcome = show(args, &shared, &mut terminal);
    over.store(true, Ordering::Release);
    ratatui::try_restore().context("restore the terminal")?;
    outcome
}

async fn keep_asking(fetcher: Fetcher, shared: &Mutex<Shared>, over: &AtomicBool) {
    let mut before: Option<Answers> = None;
    let mut away_since: Option<Instant> = None;
    while !over.load(Ordering::Acquire) {
        let next = Instant::now() + EVERY;
        match fetcher.ask().await {
            Ok(answers) => {
                let model = Arc::new(Model::read(&answers, before.as_ref()));
                away_since = None;
                before = Some(answers);
                set(shared, |shared| *shared = Shared { model: Some(model), link: Link::Up });
            }
            Err(error) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                let link = Link::Away { for_s: since.elapsed().as_secs(), why: format!("{error:#}") };
                set(shared, |shared| shared.link = link);
            }
        }
        tokio::time::sleep_until(next).await;
    }
}

fn set(shared: &Mutex<Shared>, change: impl FnOnce(&mut Shared)) {
    change(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
}

fn show(
    args: &TopArgs,
    shared: &Mutex<Shared>,
    terminal: &mut ratatui::DefaultTerminal,
) -> anyhow::Result<()> {
    let mut ui = Ui::new(args.tab);
    loop {
        let (model, link) = {
            let shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            (shared.model.clone(), shared.link.clone())
        };
        let view = View { url: &args.url, model: model.as_deref(), link: &link, ui: &ui };
        terminal.draw(|frame| draw(&view, frame.area(), frame.buffer_mut())).context("draw")?;
        if !event::poll(LOOK).context("read the keyboard")? {
            continue;
        }
        if let Event::Key(key) = event::read().context("read the keyboard")?
            && key.kind == KeyEventKind::Press
            && ui.key(key) == Turn::Quit
        {
            return Ok(());
        }
    }
}
