//! Into a bucket: sent on as it comes, in parts, and there only when it is whole. What breaks off
//! before leaves nothing behind, and begins anew.
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use remote::Place;

use super::check::{HEAD_BYTES, check};
use super::{CHUNK_BYTES, Error, Fetched, Progress, Result, Source};

/// 10,000 parts are allowed: enough for 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts on their way at once; with the one that is filled they are all that is held.
const PARTS_AHEAD: usize = 3;

/// Fetches to `place`, a folder in a bucket.
pub fn to_bucket(source: &Source, place: &Place, progress: Progress<'_>) -> Result<Fetched> {
    let folder = place.path.trim_matches('/');
    let path = if folder.is_empty() { source.name.clone() } else { format!("{folder}/{}", source.name) };
    let url = format!("{}{path}", place.base);
    let path = Path::parse(&path).map_err(|e| Error::new(&url, e))?;
    let fault = |e: object_store::Error| Error::new(&url, remote::explain(&e));
    let runtime = remote::runtime().map_err(|e| Error::new(&url, e))?;
    let store: &Arc<dyn ObjectStore> = &place.store;
    match runtime.block_on(store.head(&path)) {
        Ok(there) if there.size == source.size() => return Ok(Fetched::AlreadyThere),
        Ok(there) => {
            let why =
                format!("it is there with {} bytes, and the server has {}: move it away", there.size, source.size());
            return Err(Error::new(&url, why));
        }
        Err(object_store::Error::NotFound { .. }) => {}
        Err(e) => return Err(fault(e)),
    }
    // Parts are sent by tasks of the runtime.
    let _entered = runtime.enter();
    let upload = runtime.block_on(store.put_multipart(&path)).map_err(fault)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    let copied = copy(source, progress, |bytes| {
        runtime.block_on(upload.wait_for_capacity(PARTS_AHEAD)).map_err(fault)?;
        upload.write(bytes);
        Ok(())
    });
    match copied {
        Ok(Some(bytes)) => {
            runtime.block_on(upload.finish()).map_err(fault)?;
            Ok(Fetched::Done { bytes })
        }
        stopped => {
            runtime.block_on(upload.abort()).map_err(fault)?;
            stopped.map(|_| Fetched::Stopped)
        }
    }
}

/// Checks the beginning as soon as it is there, and the size at the end.
fn copy(source: &Source, progress: Progress<'_>, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<Option<u64>> {
    let fault = |e: std::io::Error| Error::new(&source.url, e);
    let wrong = |why: String| Error::new(&source.url, why);
    let mut bytes = source.read_from(0).map_err(fault)?;
    let (mut chunk, mut head, mut at) = (vec![0; CHUNK_BYTES], Vec::new(), 0);
    loop {
        if !progress(at, source.size()) {
            return Ok(None);
        }
        let n = match bytes.read(&mut chunk) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(fault)?,
        };
        if head.len() < HEAD_BYTES {
            head.extend_from_slice(&chunk[..n]);
            if head.len() >= HEAD_BYTES || n == 0 {
                check(&head, source.month).map_err(wrong)?;
            }
        }
        if n == 0 {
            return match at == source.size() {
                true => Ok(Some(at)),
                false => Err(wrong(format!("{at} bytes came of {}", source.size()))),
            };
        }
        write(&chunk[..n])?;
        at += n as u64;
    }
}
