//! Log lines: `2025-10-23 12:45:30 [INFO] [stream] text field=value`, or one JSON object a line.

use std::{fmt, fs::OpenOptions, sync::Mutex};

use anyhow::Context;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// Starts logging, to standard output and to the file that the configuration names. Only the first call counts.
///
/// # Errors
/// When the file cannot be opened, or `RUST_LOG` is not a filter.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let level = log.level.as_str();
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) => EnvFilter::try_new(&text).with_context(|| format!("RUST_LOG={text}"))?,
        Err(_) => EnvFilter::try_new(format!("{level},sqlx=warn,actix_server=warn,hyper=warn,reqwest=warn"))?,
    };
    let file = log.file.as_ref().map(|path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.map(|file| layer(log.format, Mutex::new(file)))
            .with_context(|| format!("log file {}", path.display()))
    });
    let layers = [Some(layer(log.format, std::io::stdout)), file.transpose()?];
    let layers: Vec<_> = layers.into_iter().flatten().collect();
    // A second start in one process, as in tests, keeps the first one's log.
    let _ = tracing_subscriber::registry().with(layers.with_filter(filter)).try_init();
    Ok(())
}

fn layer(
    format: LogFormat,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    match format {
        LogFormat::Human => layer.event_format(Human).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// The human form.
struct Human;

impl<S, N> FormatEvent<S, N> for Human
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let now = wall_clock().format("%Y-%m-%d %H:%M:%S");
        write!(writer, "{now} [{}] [{}] ", meta.level(), component(meta.target()))?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

#[allow(clippy::disallowed_methods, reason = "a log line tells the operator's own time")]
fn wall_clock() -> chrono::DateTime<chrono::Local> {
    chrono::Local::now()
}

/// `fathom_actors::stream::line` is `stream`, `fathom::http` is `http`.
fn component(target: &str) -> &str {
    let mut parts = target.split("::");
    let package = parts.next().unwrap_or(target);
    parts.next().unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_component_is_the_part_of_the_program() {
        assert_eq!(component("fathom_actors::stream::line"), "stream");
        assert_eq!(component("fathom::http"), "http");
        assert_eq!(component("statistics"), "statistics");
    }
}
