//! The log: what happens in the background, on stderr, for people or as JSON.
//!
//! Levels: errors with `-q`; warnings too by default; what goes as intended with `-v`; every
//! detail with `-vv`. `EDGETWIN_LOG` takes filters such as `info,edgetwin::broker=debug`. Times are
//! RFC 3339 in UTC. Warnings and errors are folded (`fold`), so a failure that repeats is shown once
//! and then counted.
//!
//! Until [`Log::redirect`] lines are written straight to stderr; a process that serves redirects
//! them to a thread of its own, so that a stderr that nobody reads holds nothing up.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt as layers};

use super::fold::{Fold, Summary};
use crate::base::clock::now_us;
use crate::base::time::rfc3339;

/// The variable that holds filters.
pub const VARIABLE: &str = "EDGETWIN_LOG";
/// The target of summaries: filters let them pass, since what they count did.
const FOLDED: &str = "edgetwin::folded";

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What to log, and how.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Negative for less, positive for more.
    pub verbosity: i8,
    /// Filters in place of the default level; `verbosity` outranks them.
    pub filters: Option<String>,
    /// The form.
    pub format: LogFormat,
    /// Whether levels are coloured.
    pub colour: bool,
}

/// Filters that cannot be read: what is wrong with them.
#[derive(Debug)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

/// The filters that options ask for.
fn filters(options: &LogOptions) -> &str {
    match (options.verbosity, &options.filters) {
        (..0, _) => "error",
        (0, Some(filters)) => filters,
        (0, None) => "warn",
        (1, _) => "warn,edgetwin=info",
        (2, _) => "info,edgetwin=debug",
        (3.., _) => "trace",
    }
}

/// Takes a whole line.
type Sink = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The installed log.
#[derive(Clone)]
pub struct Log {
    sink: Arc<ArcSwap<Sink>>,
    fold: Arc<Mutex<Fold<Group, Line>>>,
}

impl Log {
    /// Installs the log for this process. A second one is not installed, and takes nothing.
    ///
    /// # Errors
    /// The filters cannot be read.
    pub fn install(options: &LogOptions) -> Result<Self, FilterError> {
        let (log, layer) = Self::layer(options)?;
        // Only tests install a second one.
        drop(tracing_subscriber::registry().with(layer).try_init());
        Ok(log)
    }

    fn layer(options: &LogOptions) -> Result<(Self, impl Layer<Registry> + use<>), FilterError> {
        let filters = EnvFilter::builder()
            .parse(filters(options))
            .map_err(|error| FilterError(error.to_string()))?;
        let sink: Sink = Box::new(to_stderr);
        let log = Self { sink: Arc::new(ArcSwap::from_pointee(sink)), fold: Arc::default() };
        let gate = Gate { filters, fold: log.fold.clone() };
        let layer =
            layers::layer().with_writer(log.clone()).with_ansi(options.colour).with_timer(Utc);
        let details = options.verbosity >= 2 || options.filters.is_some();
        let layer = layer.with_target(details);
        let layer: Box<dyn Layer<Registry> + Send + Sync> = match options.format {
            LogFormat::Text => layer.boxed(),
            LogFormat::Json => layer.json().flatten_event(true).with_target(true).boxed(),
        };
        Ok((log, layer.with_filter(gate)))
    }

    /// Has lines taken by `sink`, which must not block.
    pub fn redirect(&self, sink: impl Fn(&[u8]) + Send + Sync + 'static) {
        self.sink.store(Arc::new(Box::new(sink)));
    }

    /// Has lines written straight to stderr again.
    pub fn direct(&self) {
        self.redirect(to_stderr);
    }

    /// Logs what was counted in windows that are over; to be called about once a second.
    pub fn tick(&self, now: Instant) {
        let due = self.fold.lock().unwrap_or_else(PoisonError::into_inner).due(now);
        due.into_iter().for_each(summarise);
    }

    /// Logs what was counted until now, at the end of the process.
    pub fn finish(&self) {
        let now = Instant::now();
        let all = self.fold.lock().unwrap_or_else(PoisonError::into_inner).finish(now);
        all.into_iter().for_each(summarise);
    }
}

fn to_stderr(line: &[u8]) {
    // There is no other place to report that it failed.
    drop(io::stderr().lock().write_all(line));
}

/// Logs one summary. It is logged without the lock, since logging takes it.
fn summarise(summary: Summary<Group, Line>) {
    let Summary { more, over, last, .. } = summary;
    let Line { error, message, about } = last;
    let text = format!("{message} ({more} more in {} s)", over.as_secs().max(1));
    if error {
        tracing::error!(target: FOLDED, more, about, "{text}");
    } else {
        tracing::warn!(target: FOLDED, more, about, "{text}");
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { log: self, line: Vec::new() }
    }
}

/// Collects a line and hands it on whole.
pub struct LineWriter<'a> {
    log: &'a Log,
    line: Vec<u8>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        (self.log.sink.load())(&self.line);
    }
}

/// RFC 3339 in UTC, as everywhere else.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&rfc3339(now_us()))
    }
}

/// What is folded together: the same reason, or else the same place in the code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Group {
    Reason(String),
    Place(tracing::callsite::Identifier),
}

/// What a summary says of the last message.
#[derive(Debug)]
struct Line {
    error: bool,
    message: String,
    about: String,
}

/// Levels, and folding behind them.
struct Gate {
    filters: EnvFilter,
    fold: Arc<Mutex<Fold<Group, Line>>>,
}

impl<S: Subscriber> Filter<S> for Gate {
    fn enabled(&self, meta: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        meta.target() == FOLDED || Filter::enabled(&self.filters, meta, context)
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        let never = meta.target() != FOLDED
            && <EnvFilter as Filter<S>>::callsite_enabled(&self.filters, meta).is_never();
        // Never `always`: what is asked for each event takes part in the pass that `enabled` begins.
        if never { Interest::never() } else { Interest::sometimes() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let filters = <EnvFilter as Filter<S>>::max_level_hint(&self.filters);
        filters.map(|level| level.max(LevelFilter::WARN))
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let meta = event.metadata();
        if meta.target() == FOLDED || *meta.level() > Level::WARN {
            return true;
        }
        let mut read = Read::default();
        event.record(&mut read);
        let group = match read.reason {
            Some(reason) => Group::Reason(reason),
            None => Group::Place(meta.callsite()),
        };
        let error = *meta.level() == Level::ERROR;
        let line = Line { error, message: read.message, about: read.about };
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        fold.take(&group, read.subject.finish(), line, Instant::now()).is_some()
    }
}

/// Reads what folding needs of an event.
#[derive(Default)]
struct Read {
    reason: Option<String>,
    message: String,
    about: String,
    subject: DefaultHasher,
}

impl Read {
    fn take(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            "reason" => self.reason = Some(text),
            // These differ from one time to the next, and say nothing about whom it is about.
            "error" | "cause" | "remedy" | "took" | "missed" | "lines" => {}
            name => {
                (name, &text).hash(&mut self.subject);
                self.about = text;
            }
        }
    }
}

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is logged while `act` runs.
    fn logged(options: &LogOptions, act: impl FnOnce(&Log)) -> String {
        let (log, layer) = Log::layer(options).unwrap();
        let text = Arc::new(Mutex::new(Vec::new()));
        let taken = text.clone();
        log.redirect(move |line| taken.lock().unwrap().extend_from_slice(line));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || act(&log));
        String::from_utf8(text.lock().unwrap().clone()).unwrap()
    }

    fn options(verbosity: i8, filters: Option<&str>, format: LogFormat) -> LogOptions {
        let filters = filters.map(str::to_owned);
        LogOptions { verbosity, filters, format, colour: false }
    }

    fn at_each_level(_log: &Log) {
        tracing::error!("an error");
        tracing::warn!("a warning");
        tracing::info!("a notice");
        tracing::debug!("a detail");
        tracing::error!(target: "hyper::proto", "a library's error");
        tracing::info!(target: "hyper::proto", "a library's notice");
    }

    #[test]
    fn levels_are_chosen_by_flags_and_then_by_filters() {
        for (verbosity, filters, lines) in [
            (-1, None, "an error,a library's error"),
            (0, None, "an error,a warning,a library's error"),
            (1, None, "an error,a warning,a notice,a library's error"),
            (2, None, "an error,a warning,a notice,a detail,a library's error,a library's notice"),
            (0, Some("edgetwin=debug"), "an error,a warning,a notice,a detail"),
            (0, Some("off"), ""),
            (1, Some("off"), "an error,a warning,a notice,a library's error"),
        ] {
            let text = logged(&options(verbosity, filters, LogFormat::Json), at_each_level);
            let messages: Vec<String> = text
                .lines()
                .map(|line| {
                    let line: serde_json::Value = serde_json::from_str(line).unwrap();
                    line["message"].as_str().unwrap().to_owned()
                })
                .collect();
            assert_eq!(messages.join(","), lines, "{verbosity} {filters:?}");
        }
        assert!(Log::layer(&options(0, Some("edgetwin=loud"), LogFormat::Text)).is_err());
    }

    #[test]
    fn a_line_has_its_time_with_the_zone_and_its_fields() {
        let act = |_: &Log| {
            tracing::warn!(reason = "LineLost", object = "Serial/ttyACM0", "the line is closed");
        };
        let text = logged(&options(0, None, LogFormat::Text), act);
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(crate::base::time::time_us(time).is_some() && time.ends_with('Z'), "{text}");
        assert_eq!(
            rest.trim(),
            "WARN the line is closed reason=\"LineLost\" object=\"Serial/ttyACM0\""
        );
        let text = logged(&options(0, None, LogFormat::Json), act);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["object"]), (&"WARN".into(), &"Serial/ttyACM0".into()));
        assert!(
            crate::base::time::time_us(line["timestamp"].as_str().unwrap()).is_some(),
            "{line}"
        );
    }

    #[test]
    fn what_repeats_is_shown_once_and_counted() {
        let text =
            logged(&options(0, Some("edgetwin::base::telemetry=warn"), LogFormat::Text), |log| {
                for n in 0..500 {
                    let object = if n % 2 == 0 { "Twin/lab/a" } else { "Twin/lab/b" };
                    tracing::warn!(reason = "NotJson", object, "reading {n} was refused");
                }
                log.tick(Instant::now());
                log.finish();
            });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("reading 0 was refused"), "{text}");
        assert!(lines[1].contains("reading 1 was refused"), "{text}");
        assert!(lines[2].contains("reading 499 was refused (498 more in 1 s)"), "{text}");
    }
}
