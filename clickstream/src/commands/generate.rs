//! `clickstream generate`: rows that look like the store's, to a file or to standard output; or how
//! near they come to the real ones.
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dataset::generate::Generated;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::process::say;
use crate::exit::Exit;
use crate::screen::{LINE_EVERY, Progress, Screen};
use crate::settings::GenerateOptions;
use crate::signals;

const CHUNK_BYTES: usize = 1 << 20;
const BAR_EVERY: Duration = Duration::from_millis(200);
/// Of gzip: text like this hardly gets smaller above it, and takes much longer.
const GZIP_LEVEL: Compression = Compression::new(4);
const ZSTD_LEVEL: i32 = 3;

pub(crate) fn generate(options: &GenerateOptions) -> Result<Exit> {
    let screen = Screen::new(&options.log);
    let signals = signals::first_signal()?;
    let generated = Generated::new(options.plan());
    if options.report {
        return report(&generated, &screen, &signals);
    }
    let written = match &options.output {
        None => copy(&generated, io::stdout().lock(), &screen, &signals).map(|(_, done)| done),
        Some(path) => to_file(&generated, path, &screen, &signals).with_context(|| path.display().to_string()),
    };
    screen.clear();
    match written {
        Ok(true) => Ok(Exit::Done),
        Ok(false) => Ok(Exit::Drained),
        // `clickstream generate … | head`: the reader has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(Exit::Done)
        }
        Err(error) => Err(error),
    }
}

fn report(generated: &Generated, screen: &Screen, signals: &Signals) -> Result<Exit> {
    let mut shown = Shown::begin(generated);
    let report = generated.report(&mut |rows, of| {
        shown.rows = of;
        shown.at(rows, None, screen);
        signals.try_recv().is_err()
    });
    screen.clear();
    let Some(report) = report else { return Ok(Exit::Drained) };
    say(&report.to_string())?;
    Ok(if report.holds() { Exit::Done } else { Exit::Failed })
}

/// Under another name until it is whole, beside the file itself where `path` is a link to one. What is
/// no regular file, a pipe or a device, is written to as it is.
fn to_file(generated: &Generated, path: &Path, screen: &Screen, signals: &Signals) -> Result<bool> {
    let write = |file| write_packed(generated, path, file, screen, signals);
    let done = match fs::metadata(path) {
        Ok(there) if !there.is_file() => write(File::options().write(true).open(path)?)?.1,
        _ => {
            let target = at_end_of_links(path);
            let mut unfinished = OsString::from(&target);
            unfinished.push(".part");
            let done = write(File::create(&unfinished)?).and_then(|(file, done)| {
                file.sync_all()?;
                if done {
                    fs::rename(&unfinished, &target)?;
                }
                Ok(done)
            });
            if !matches!(done, Ok(true)) {
                let _ = fs::remove_file(&unfinished);
            }
            done?
        }
    };
    if done {
        screen.say(&format!("{}: {} rows", path.display(), generated.plan().rows));
    }
    Ok(done)
}

/// Also where the last link leads to what is not there yet.
fn at_end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // More than that the system does not follow either.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

/// Packed as the name asks for.
fn write_packed(
    generated: &Generated,
    path: &Path,
    file: File,
    screen: &Screen,
    signals: &Signals,
) -> Result<(File, bool)> {
    let file = BufWriter::new(file);
    let (file, done) = match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => {
            let (packed, done) = copy(generated, GzEncoder::new(file, GZIP_LEVEL), screen, signals)?;
            (packed.finish()?, done)
        }
        Some("zst") => {
            let (packed, done) = copy(generated, zstd::Encoder::new(file, ZSTD_LEVEL)?, screen, signals)?;
            (packed.finish()?, done)
        }
        _ => copy(generated, file, screen, signals)?,
    };
    Ok((file.into_inner().map_err(io::IntoInnerError::into_error)?, done))
}

type Signals = crossbeam_channel::Receiver<i32>;

/// Writes header and rows; false where a signal came before the last one.
fn copy<W: Write>(generated: &Generated, mut to: W, screen: &Screen, signals: &Signals) -> Result<(W, bool)> {
    let mut text = generated.text();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut shown = Shown::begin(generated);
    let mut bytes = 0;
    loop {
        let n = text.read(&mut chunk)?;
        if n == 0 {
            to.flush()?;
            return Ok((to, true));
        }
        to.write_all(&chunk[..n])?;
        bytes += n as u64;
        if signals.try_recv().is_ok() {
            return Ok((to, false));
        }
        shown.at(text.rows_made(), Some(bytes), screen);
    }
}

/// The progress, now and then.
struct Shown {
    rows: u64,
    begun: Instant,
    last: Instant,
}

impl Shown {
    fn begin(generated: &Generated) -> Self {
        let now = records::clock::now();
        Self { rows: generated.plan().rows, begun: now, last: now }
    }

    fn at(&mut self, made: u64, bytes: Option<u64>, screen: &Screen) {
        let now = records::clock::now();
        let every = if screen.writes_lines() { LINE_EVERY } else { BAR_EVERY };
        if now - self.last >= every {
            self.last = now;
            screen.show(&progress(made, self.rows, bytes, (now - self.begun).as_secs_f64()));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn progress(made: u64, rows: u64, bytes: Option<u64>, seconds: f64) -> Progress {
    let (share, rate) = (made as f64 / rows.max(1) as f64, made as f64 / seconds);
    let left = (rows - made.min(rows)) as f64 / rate.max(1.0);
    let size = bytes.map_or_else(String::new, |bytes| format!("{:.0} MB  ", bytes as f64 / 1e6));
    let text = format!("{made} rows  {size}{rate:.0} rows/s  {left:.0} s left");
    Progress { fraction: Some(share), text }
}
