//! The data folder: what lies in it, how it is emptied, and the address of the process that runs
//! on it.
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Everything that clickstream makes in its data folder. `--restart` deletes these and nothing else.
const OURS: [&str; 10] = [
    "broker.db",
    "broker.db-wal",
    "broker.db-shm",
    "broker.db.lock",
    "marts.db",
    "marts.db-wal",
    "marts.db-shm",
    "marts.db.lock",
    "lake",
    "address",
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

    /// `--restart`: asks unless `yes`, then deletes what is ours.
    pub(crate) fn empty(&self, yes: bool) -> Result<()> {
        let there: Vec<_> = OURS.iter().map(|name| self.0.join(name)).filter(|path| path.exists()).collect();
        if there.is_empty() {
            return Ok(());
        }
        if !yes && !confirmed(&self.0)? {
            bail!("--restart: nothing was deleted");
        }
        for path in there {
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) }
                .with_context(|| format!("--restart: {} cannot be deleted", path.display()))?;
        }
        Ok(())
    }

    /// Where the process serves that runs on it; None where none does.
    pub(crate) fn address(&self) -> Option<String> {
        std::fs::read_to_string(self.0.join("address")).ok()?.lines().next().map(str::to_owned)
    }

    /// Says where this process serves; the file goes when the guard does.
    pub(crate) fn publish_address(&self, address: std::net::SocketAddr) -> Result<AddressFile> {
        let path = self.0.join("address");
        std::fs::write(&path, format!("http://{address}\n")).with_context(|| path.display().to_string())?;
        Ok(AddressFile(path))
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
