//! Into a folder: under another name until it is whole, and taken up again where it stopped.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::check::{HEAD_BYTES, check};
use super::{CHUNK_BYTES, Error, Fetched, Progress, Result, Source};

/// Fetches into `folder`, beside which `…part` (the bytes so far) and `…part.of` (what they are of) lie.
pub fn to_folder(source: &Source, folder: &Path, progress: Progress<'_>) -> Result<Fetched> {
    fs::create_dir_all(folder).map_err(|e| Error::new(folder.display(), e))?;
    let path = folder.join(&source.name);
    let (part, of) = (folder.join(format!("{}.part", source.name)), folder.join(format!("{}.part.of", source.name)));
    let at_path = |e: std::io::Error| Error::new(path.display(), e);
    let at_part = |e: std::io::Error| Error::new(part.display(), e);
    let size = source.size();
    let is_there = || match fs::metadata(&path) {
        Ok(there) if there.len() == size => Ok(true),
        Ok(there) => {
            let why = format!("it is there with {} bytes, and the server has {size}: move it away", there.len());
            Err(Error::new(path.display(), why))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at_path(e)),
    };
    if is_there()? {
        return Ok(Fetched::AlreadyThere);
    }
    // What follows is for one process only, whichever version it fetches.
    let mut file = claim(&part)?;
    match is_there() {
        Ok(false) => {}
        // Another process has come to its end meanwhile.
        there => {
            let _ = fs::remove_file(&part);
            return there.map(|_| Fetched::AlreadyThere);
        }
    }
    let begun = fs::read_to_string(&of).is_ok_and(|version| version == source.version());
    let mut there = file.metadata().map_err(at_part)?.len();
    if !begun || there > size {
        // Emptied first: what is here is never said to be of a version that it is not of.
        file.set_len(0).map_err(at_part)?;
        fs::write(&of, source.version()).map_err(|e| Error::new(of.display(), e))?;
        there = 0;
    }
    let came = copy(source, &mut file, there, progress)?;
    file.sync_all().map_err(at_part)?;
    let Some(bytes) = came else { return Ok(Fetched::Stopped) };
    let is = file.metadata().map_err(at_part)?.len();
    if is != size {
        return Err(Error::new(&source.url, format!("{is} bytes came of {size}; the same command goes on")));
    }
    file.seek(SeekFrom::Start(0)).map_err(at_part)?;
    let mut head = Vec::new();
    Read::take(&mut file, HEAD_BYTES as u64).read_to_end(&mut head).map_err(at_part)?;
    if let Err(why) = check(&head, source.month) {
        // It would only be found wrong again.
        let _ = fs::remove_file(&part);
        let _ = fs::remove_file(&of);
        return Err(Error::new(&source.url, why));
    }
    fs::rename(&part, &path).map_err(at_path)?;
    let _ = fs::remove_file(&of);
    Ok(Fetched::Done { bytes })
}

/// Opens the file that the bytes go to, locked until it is closed.
fn claim(part: &Path) -> Result<File> {
    let at_part = |e: std::io::Error| Error::new(part.display(), e);
    let taken = || Error::new(part.display(), "another process is fetching it; wait for that one");
    let file = OpenOptions::new().read(true).append(true).create(true).open(part).map_err(at_part)?;
    file.try_lock().map_err(|e| match e {
        TryLockError::WouldBlock => taken(),
        TryLockError::Error(e) => at_part(e),
    })?;
    // Between the two it may have been given its final name: then it is no longer ours to write to.
    let (ours, now) = (file.metadata().map_err(at_part)?, fs::metadata(part));
    if now.is_ok_and(|now| (now.dev(), now.ino()) == (ours.dev(), ours.ino())) { Ok(file) } else { Err(taken()) }
}

/// The bytes that came, or None when `progress` stopped it.
fn copy(source: &Source, file: &mut File, from: u64, progress: Progress<'_>) -> Result<Option<u64>> {
    let fault = |e: std::io::Error| Error::new(&source.url, e);
    let mut bytes = source.read_from(from).map_err(fault)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = from;
    loop {
        if !progress(at, source.size()) {
            return Ok(None);
        }
        let n = match bytes.read(&mut chunk) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(fault)?,
        };
        if n == 0 {
            return Ok(Some(at - from));
        }
        file.write_all(&chunk[..n]).map_err(|e| Error::new(&source.name, e))?;
        at += n as u64;
    }
}
