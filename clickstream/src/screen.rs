//! What goes to stderr: the log, and below it the progress. The two never write over each other.
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{LogFormat, LogLevel, LogOptions};

/// A progress bar on a terminal, plain lines elsewhere, nothing under `--quiet`.
#[derive(Clone)]
pub(crate) struct Screen {
    bar: ProgressBar,
    mode: Mode,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Bar,
    Lines,
    Quiet,
}

/// How often a line is written where there is no terminal.
pub(crate) const LINE_EVERY: Duration = Duration::from_secs(5);

/// What the progress says.
pub(crate) struct Progress {
    /// 0 to 1; None where the input's size cannot be known.
    pub(crate) fraction: Option<f64>,
    pub(crate) text: String,
}

impl Screen {
    pub(crate) fn new(options: &LogOptions) -> Self {
        let mode = match (options.quiet, io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Bar,
            (false, false) => Mode::Lines,
        };
        let bar = ProgressBar::with_draw_target(
            Some(1000),
            match mode {
                Mode::Bar => ProgressDrawTarget::stderr_with_hz(5),
                _ => ProgressDrawTarget::hidden(),
            },
        );
        if let Ok(style) = ProgressStyle::with_template("{bar:24.cyan/blue} {percent:>3}% {msg}") {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let screen = Self { bar, mode };
        screen.start_log(options);
        screen
    }

    fn start_log(&self, options: &LogOptions) {
        let level = if options.quiet && options.log_level > LogLevel::Warn {
            "warn".to_owned()
        } else {
            format!("{:?}", options.log_level).to_lowercase()
        };
        let filter = EnvFilter::new(level);
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(self.clone()).with_ansi(colour);
        // A second start in one process (tests) keeps the first log.
        let _ = match options.log_format {
            LogFormat::Text => builder.with_target(false).try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
    }

    /// True where progress is lines: they come every [`LINE_EVERY`].
    pub(crate) fn writes_lines(&self) -> bool {
        self.mode == Mode::Lines
    }

    pub(crate) fn show(&self, progress: &Progress) {
        match self.mode {
            Mode::Quiet => {}
            Mode::Bar => {
                let fraction = progress.fraction.unwrap_or(0.0).clamp(0.0, 1.0);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
                self.bar.set_position((fraction * 1000.0) as u64);
                self.bar.set_message(progress.text.clone());
            }
            Mode::Lines => {
                let percent = progress.fraction.map_or_else(String::new, |f| format!("{:.1}% ", f * 100.0));
                let _ = writeln!(io::stderr(), "{percent}{}", progress.text);
            }
        }
    }

    /// A line for people, above the progress; not part of the log.
    pub(crate) fn say(&self, line: &str) {
        if self.mode != Mode::Quiet {
            self.bar.suspend(|| {
                let _ = writeln!(io::stderr(), "{line}");
            });
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// What ended the command, where there may be no log yet.
pub(crate) fn complain(why: &str) {
    let _ = writeln!(io::stderr(), "clickstream: {why}");
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Writes one event of the log with the bar out of the way.
pub(crate) struct Line<'a>(&'a Screen);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Where nobody can be told, the work goes on: the log's own answer to an error would be a panic.
        let _ = self.0.bar.suspend(|| io::stderr().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
