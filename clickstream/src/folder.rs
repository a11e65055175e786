//! The data folder: what lies in it, how it is emptied, and the address of the process that runs
//! on it.
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Everything that clickstream makes in its data folder. `--restart` deletes these and nothing else.
const OURS: [&str; 12] = [
    "broker.db",
    "broker.db-wal",
    "broker.db-shm",
    "broker.db.lock",
    "marts.db",
    "marts.db-wal",
    "marts.db-shm",
    "marts.db.lock",
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
        self.address_and_token().map(|(address, _)| address)
    }

    /// The same, with the token that it asks for beyond loopback.
    pub(crate) fn address_and_token(&self) -> Option<(String, Option<String>)> {
        let text = std::fs::read_to_string(self.0.join("address")).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        Some((lines.next()?, lines.next()))
    }

    /// Says where this process serves, and with which token, for its owner's eyes only; the file goes
    /// when the guard does.
    pub(crate) fn publish_address(&self, address: std::net::SocketAddr, token: Option<&str>) -> Result<AddressFile> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.0.join("address");
        let token = token.map(|token| format!("{token}\n")).unwrap_or_default();
        // A new file: one that lies there may be open to others. It is whole or not there.
        let part = self.0.join("address.part");
        let written = std::fs::remove_file(&part)
            .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
            .and_then(|()| std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part))
            .and_then(|mut file| file.write_all(format!("http://{}\n{token}", reachable(address)).as_bytes()))
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
