//! `clickstream fetch`: months of the real data, to a folder or a bucket.
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use crossbeam_channel::{Receiver, bounded, select};
use dataset::fetch::{Fetched, Origin, Source, to_bucket, to_folder};
use dataset::generate::Month;

use crate::exit::Exit;
use crate::screen::{LINE_EVERY, Progress, Screen};
use crate::settings::{Destination, FetchOptions};
use crate::signals;

const BAR_EVERY: Duration = Duration::from_millis(200);
/// The rate that is shown is of the last so many seconds.
const RATE_OVER: Duration = Duration::from_secs(10);

pub(crate) fn fetch(options: &FetchOptions) -> Result<Exit> {
    let screen = Screen::new(&options.log);
    let signals = signals::first_signal()?;
    let (origin, destination) = (Arc::new(options.origin()?), options.destination()?);
    for month in &options.months {
        let Some(source) = find(&origin, *month, &signals)? else { return Ok(Exit::Drained) };
        let mut shown = Shown::new(&source, &screen);
        let mut progress = |at: u64, size: u64| {
            shown.at(at, size);
            signals.try_recv().is_err()
        };
        let fetched = match &destination {
            Destination::Folder(folder) => to_folder(&source, folder, &mut progress)?,
            Destination::Bucket(place) => to_bucket(&source, place, &mut progress)?,
        };
        screen.clear();
        match fetched {
            Fetched::Done { bytes } => screen.say(&format!("{}: {} of {}", source.name, megabytes(bytes), source.url)),
            Fetched::AlreadyThere => screen.say(&format!("{}: it is there already", source.name)),
            Fetched::Stopped => {
                screen.say(&format!("{}: stopped; the same command goes on", source.name));
                return Ok(Exit::Drained);
            }
        }
    }
    Ok(Exit::Done)
}

/// Looks at the source on a thread of its own: a server may take its time to answer, and is left alone
/// when a signal comes. Then None.
fn find(origin: &Arc<Origin>, month: Month, signals: &Receiver<i32>) -> Result<Option<Source>> {
    let (found, finding) = bounded(1);
    let origin = Arc::clone(origin);
    std::thread::Builder::new().name("find".into()).spawn(move || {
        // Nobody listens any more where a signal came first.
        let _ = found.send(Source::find(&origin, month));
    })?;
    select! {
        recv(finding) -> source => Ok(Some(source??)),
        recv(signals) -> _ => Ok(None),
    }
}

struct Shown<'s> {
    screen: &'s Screen,
    name: &'s str,
    last: Instant,
    /// Where a rate is counted from.
    since: (Instant, Option<u64>),
}

impl<'s> Shown<'s> {
    fn new(source: &'s Source, screen: &'s Screen) -> Self {
        let now = records::clock::now();
        Self { screen, name: &source.name, last: now, since: (now, None) }
    }

    fn at(&mut self, at: u64, size: u64) {
        let now = records::clock::now();
        // What an earlier run brought is none of this one's rate.
        let from = *self.since.1.get_or_insert(at);
        let every = if self.screen.writes_lines() { LINE_EVERY } else { BAR_EVERY };
        if now - self.last < every {
            return;
        }
        self.last = now;
        self.screen.show(&progress(self.name, at, size, at - from, now - self.since.0));
        if now - self.since.0 >= RATE_OVER {
            self.since = (now, Some(at));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn progress(name: &str, at: u64, size: u64, came: u64, within: Duration) -> Progress {
    let rate = came as f64 / within.as_secs_f64().max(1e-9);
    let left = match came {
        0 => "-".to_owned(),
        _ => format!("{:.0} s", size.saturating_sub(at) as f64 / rate),
    };
    let text = format!("{name}  {} of {}  {:.1} MB/s  {left} left", megabytes(at), megabytes(size), rate / 1e6);
    Progress { fraction: Some(at as f64 / size.max(1) as f64), text }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
