//! Objects as files: by name, or by a glob.
use std::fmt;
use std::io;
use std::sync::Arc;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use tokio::runtime::Handle;

use crate::body::look;
use crate::error::told;
use crate::open::Place;
use crate::reader::Reader;

/// Objects that are read as files: one, or those whose names match a glob.
#[derive(Clone)]
pub struct Objects {
    /// As typed.
    url: String,
    /// What stands before `path` in it: `gs://bucket/`.
    base: String,
    /// In the store; the last part may be a glob's.
    path: String,
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
}

impl Objects {
    pub fn new(place: Place, runtime: Handle) -> Self {
        let Place { base, path, store } = place;
        Self { url: format!("{base}{path}"), base, path, store, runtime }
    }

    /// As errors name it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// One file, or all that match, in name order; and the member that `archive.zip!member` chooses.
    pub fn list(&self) -> io::Result<Vec<(String, Object, Option<String>)>> {
        let (path, member) = match self.path.split_once(".zip!") {
            Some((archive, member)) => (format!("{archive}.zip"), Some(member.to_owned())),
            None => (self.path.clone(), None),
        };
        if !path.contains(['*', '?', '[']) {
            let path = Path::from_url_path(&path).map_err(io::Error::other)?;
            return Ok(vec![(format!("{}{}", self.base, path), self.look(path)?, member)]);
        }
        let pattern = glob::Pattern::new(&path).map_err(|e| io::Error::other(format!("it is not a glob: {e}")))?;
        let plain = path.split(['*', '?', '[']).next().unwrap_or_default();
        let folder = Path::from(plain.rsplit_once('/').map_or("", |(folder, _)| folder));
        let strict = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
        let listed: Vec<object_store::Result<ObjectMeta>> =
            self.runtime.block_on(self.store.list(Some(&folder)).collect());
        let mut paths = Vec::new();
        for meta in listed {
            let meta = meta.map_err(|e| told(&e))?;
            if pattern.matches_with(meta.location.as_ref(), strict) {
                paths.push(meta.location);
            }
        }
        paths.sort_unstable();
        if paths.is_empty() {
            return Err(io::Error::other("no object matches it"));
        }
        paths.into_iter().map(|path| Ok((format!("{}{path}", self.base), self.look(path)?, member.clone()))).collect()
    }

    fn look(&self, path: Path) -> io::Result<Object> {
        let meta = self.runtime.block_on(look(self.store.as_ref(), &path))?;
        Ok(Object {
            store: Arc::clone(&self.store),
            path,
            size: meta.size,
            version: Version::of(&meta),
            runtime: self.runtime.clone(),
        })
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.url).finish()
    }
}

/// What tells an object from what its name named before or after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// A strong tag: the same bytes have it, and no others.
    Tag(String),
    /// A weak tag may be that of other bytes, and there may be none: with it, when the object was last
    /// changed, where the server says so.
    Weak(String),
}

impl Version {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        match meta.e_tag.as_deref() {
            Some(tag) if !tag.starts_with("W/") => Self::Tag(tag.to_owned()),
            weak => Self::Weak(format!("{} {}", weak.unwrap_or_default(), meta.last_modified.timestamp())),
        }
    }

    /// What a server may be asked to compare: a weak tag never matches (RFC 9110, 13.1.1).
    pub(crate) fn if_match(&self) -> Option<String> {
        if let Self::Tag(tag) = self { Some(tag.clone()) } else { None }
    }
}

/// One object, of a size and a version.
#[derive(Clone)]
pub struct Object {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) size: u64,
    pub(crate) version: Version,
    pub(crate) runtime: Handle,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Object").field(&self.path).finish()
    }
}

impl Object {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What tells this version of it from another of the same size.
    pub fn version(&self) -> &str {
        let (Version::Tag(version) | Version::Weak(version)) = &self.version;
        version
    }

    pub fn open(&self) -> Reader {
        Reader::new(self.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use futures::stream::{self, BoxStream};
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetResultPayload, ListResult, MultipartUpload, ObjectStoreExt, PutMultipartOptions, PutOptions,
        PutPayload, PutResult,
    };
    use object_store::{GetOptions, GetResult};
    use std::io::Read;

    /// Breaks each body after some bytes, and refuses some requests.
    #[derive(Debug)]
    struct Broken {
        inner: InMemory,
        requests: AtomicU32,
        body_bytes: usize,
    }

    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Broken")
        }
    }

    fn broke() -> object_store::Error {
        object_store::Error::Generic { store: "test", source: "it broke".into() }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Broken {
        async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
            if self.requests.fetch_add(1, Relaxed) % 3 == 1 {
                return Err(broke());
            }
            let result = self.inner.get_opts(at, options).await?;
            let (meta, range, attributes) = (result.meta.clone(), result.range.clone(), result.attributes.clone());
            let extensions = result.extensions.clone();
            let bytes = result.bytes().await?;
            let cut = bytes.len() > self.body_bytes;
            let kept = bytes.slice(..bytes.len().min(self.body_bytes));
            let body = stream::iter([Ok(kept)].into_iter().chain(cut.then(|| Err(broke()))));
            Ok(GetResult { payload: GetResultPayload::Stream(body.boxed()), meta, range, attributes, extensions })
        }
        async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
            self.inner.put_opts(at, body, options).await
        }
        async fn put_multipart_opts(
            &self,
            at: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(at, options).await
        }
        fn delete_stream(
            &self,
            locations: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            self.inner.delete_stream(locations)
        }
        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.inner.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }

    pub(crate) fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    pub(crate) fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
    }

    pub(crate) fn objects(
        runtime: &tokio::runtime::Runtime,
        files: &[(&str, usize)],
        body_bytes: usize,
        path: &str,
    ) -> Objects {
        let inner = InMemory::new();
        for (name, len) in files {
            runtime.block_on(inner.put(&Path::from(*name), content(*len).into())).unwrap();
        }
        let store = Broken { inner, requests: AtomicU32::new(2), body_bytes };
        let place = Place { base: "test://bucket/".into(), path: path.into(), store: Arc::new(store) };
        Objects::new(place, runtime.handle().clone())
    }

    #[test]
    fn a_broken_connection_loses_nothing() {
        let runtime = runtime();
        let listed = objects(&runtime, &[("a/x.csv", 10_000)], 1_000, "a/x.csv").list().unwrap();
        let (url, remote, member) = &listed[0];
        assert_eq!((url.as_str(), member), ("test://bucket/a/x.csv", &None));
        let mut all = Vec::new();
        remote.open().read_to_end(&mut all).unwrap();
        assert_eq!(all, content(10_000));
    }

    #[test]
    fn one_that_brings_nothing_is_given_up() {
        let runtime = runtime();
        let listed = objects(&runtime, &[("x.csv", 100)], 0, "x.csv").list().unwrap();
        let error = listed[0].1.open().read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("it broke") && error.contains("8 attempts"), "{error}");
    }

    #[test]
    fn a_file_that_changes_is_refused() {
        let runtime = runtime();
        let objects = objects(&runtime, &[("x.csv", 100)], 10, "x.csv");
        let listed = objects.list().unwrap();
        runtime.block_on(objects.store.put(&Path::from("x.csv"), content(100).into())).unwrap();
        let error = listed[0].1.open().read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("changed while it was read"), "{error}");
    }

    #[test]
    fn globs_and_members() {
        let runtime = runtime();
        let files =
            [("raw/2019-Nov.csv", 3), ("raw/2019-Oct.csv", 3), ("raw/2020-Jan.csv", 3), ("raw/x/2019-Dec.csv", 3)];
        for (path, expected) in [
            ("raw/2019-*.csv", Ok(vec!["test://bucket/raw/2019-Nov.csv", "test://bucket/raw/2019-Oct.csv"])),
            ("raw/2020-Jan.csv", Ok(vec!["test://bucket/raw/2020-Jan.csv"])),
            ("*/x/*", Ok(vec!["test://bucket/raw/x/2019-Dec.csv"])),
            ("raw/2021-*", Err("no object matches")),
            ("raw/none.csv", Err("no such object")),
        ] {
            let listed = objects(&runtime, &files, 100, path).list();
            match (listed, expected) {
                (Ok(listed), Ok(expected)) => {
                    assert_eq!(listed.iter().map(|(url, ..)| url.as_str()).collect::<Vec<_>>(), expected);
                }
                (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
                (listed, _) => panic!("{path}: {:?}", listed.map(|l| l.len())),
            }
        }
        let zip = objects(&runtime, &[("a.zip", 3)], 100, "a.zip!b.csv").list().unwrap();
        assert_eq!((zip[0].0.as_str(), zip[0].2.as_deref()), ("test://bucket/a.zip", Some("b.csv")));
    }
}
