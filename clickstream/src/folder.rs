//! The data folder: what lies in it, how it is emptied, and the address of the process that runs
//! on it.
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::http::replay::Token;

/// What clickstream makes in its data folder: `--restart` deletes these and nothing else. The locks
/// stay: on a new file one more process would have a lock of its own.
const OURS: [&str; 10] = [
    "broker.db",
    "broker.db-wal",
    "broker.db-shm",
    "marts.db",
    "marts.db-wal",
    "marts.db-shm",
    "lake",
    "index",
    "address",
    "address.part",
];

pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes it where it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| {
            format!("--data-dir {}: it cannot be made; choose a folder that can be written", path.display())
        })?;
        Ok(Self::at(path))
    }

    /// The same, untouched.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn broker_db(&self) -> PathBuf {
        self.0.join("broker.db")
    }

    pub(crate) fn marts_db(&self) -> PathBuf {
        self.0.join("marts.db")
    }

    pub(crate) fn lake(&self) -> PathBuf {
        self.0.join("lake")
    }

    /// Where gzip inputs can be entered.
    pub(crate) fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    /// `--restart`: asks unless `yes`, then deletes what is ours. The caller has both locks. Folders
    /// stay, empty: the lake has been opened.
    pub(crate) fn empty(&self, _log: &broker::embedded::Lock, _marts: &marts::Lock, yes: bool) -> Result<()> {
        let mut there = Vec::new();
        for path in OURS.map(|name| self.0.join(name)) {
            if path.is_dir() {
                for entry in std::fs::read_dir(&path).with_context(|| format!("--restart: {}", path.display()))? {
                    there.push(entry?.path());
                }
            } else if path.exists() {
                there.push(path);
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        if !yes && !confirmed(&self.0)? {
            bail!("--restart: nothing was deleted");
        }
        for path in there {
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            }
            .with_context(|| format!("--restart: {} cannot be deleted", path.display()))?;
        }
        Ok(())
    }

    /// Where the process serves that runs on it, and its token; None where none does.
    pub(crate) fn address(&self) -> Option<(String, String)> {
        let text = std::fs::read_to_string(self.0.join("address")).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        Some((lines.next()?, lines.next()?))
    }

    /// Says where this process serves, and its token, for its owner's eyes only; the file goes when the
    /// guard does.
    pub(crate) fn publish_address(&self, address: std::net::SocketAddr, token: &Token) -> Result<AddressFile> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.0.join("address");
        // A new file: one that lies there may be open to others. It is whole or not there.
        let part = self.0.join("address.part");
        let written = std::fs::remove_file(&part)
            .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .and_then(|()| std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part))
            .and_then(|mut file| writeln!(file, "http://{}\n{}", reachable(address), token.reveal()))
            .and_then(|()| std::fs::rename(&part, &path));
        written.with_context(|| path.display().to_string())?;
        Ok(AddressFile(path))
    }
}

/// Who listens on all addresses is spoken to on loopback.
fn reachable(address: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        other => other,
    }
}

fn confirmed(folder: &Path) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("--restart deletes everything in {}; without a terminal to ask on, say --yes too", folder.display());
    }
    write!(io::stderr(), "Delete the log, the marts and the lake in {}? [y/N] ", folder.display())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `<data-dir>/address`, while the process serves.
pub(crate) struct AddressFile(PathBuf);

impl Drop for AddressFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
