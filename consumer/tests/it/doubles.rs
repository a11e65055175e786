//! A store and a broker that fail at a chosen call, as a killed process would have left things.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker::{
    Broker, Cancel, Commit, Committed, Membership, Offset, PollLimits, Polled, Reader, Records, Subscription, Topic,
    TopicInfo, TopicPartition, TopicSpec, Writer,
};
use consumer::lake::ObjectStore;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
    /// Of a commit: its place in the group is lost, and given back.
    Lost,
    /// Of the first transaction: it is lost before it is committed, or its answer is.
    LettersBefore,
    LettersAfter,
}

/// What happens at the `nth` call (from 0); earlier and later ones go through.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It ends there, before or after the call was done.
    Crash(When),
    /// It was done, and the answer is lost; asking again is right.
    AnswerLost,
    /// Somebody else stores these bytes under that name first.
    Taken(Vec<u8>),
    /// It takes so long.
    Slow(Duration),
}

/// What a store answers to lists, a page at a time and in the order of the names.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) paths: Vec<Path>,
    pub(crate) page: usize,
    pub(crate) page_takes: Duration,
    /// One request in so many fails.
    pub(crate) every: usize,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Pages {
    fn after(&self, prefix: Option<&Path>, after: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let wanted = |path: &&Path| prefix.is_none_or(|prefix| path.prefix_matches(prefix)) && Some(*path) > after;
        let paths: Vec<_> = self.paths.iter().filter(wanted).cloned().collect();
        let pages: Vec<_> = paths.chunks(self.page).map(<[Path]>::to_vec).collect();
        let (requests, every, takes) = (Arc::clone(&self.requests), self.every, self.page_takes);
        let answer = move |page: Vec<Path>| {
            let fails = (requests.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every);
            async move {
                tokio::time::sleep(takes).await;
                let fault = || object_store::Error::Generic { store: "test", source: "this page is lost".into() };
                if fails { Err(fault()) } else { Ok(stream::iter(page.into_iter().map(|path| Ok(object(path))))) }
            }
        };
        stream::iter(pages).then(answer).try_flatten().boxed()
    }
}

fn object(location: Path) -> ObjectMeta {
    ObjectMeta { location, last_modified: Default::default(), size: 1, e_tag: None, version: None }
}

#[derive(Debug)]
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) nth: usize,
    pub(crate) fault: Fault,
    pub(crate) calls: AtomicUsize,
    /// None: what is there.
    pub(crate) pages: Option<Pages>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, nth: usize, fault: Fault) -> Arc<Self> {
        Arc::new(Self { inner, nth, fault, calls: AtomicUsize::new(0), pages: None })
    }

    /// Only its lists are others.
    pub(crate) fn going_well(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, nth: usize::MAX, fault: Fault::AnswerLost, calls: AtomicUsize::new(0), pages: None }
    }

    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.calls.fetch_add(1, Ordering::SeqCst) != self.nth {
            return self.inner.put_opts(path, payload, options).await;
        }
        let crash =
            || object_store::Error::PermissionDenied { path: path.to_string(), source: "a crash on purpose".into() };
        match &self.fault {
            Fault::Crash(When::Before) => Err(crash()),
            Fault::Crash(_) => {
                self.inner.put_opts(path, payload, options).await?;
                Err(crash())
            }
            Fault::AnswerLost => {
                self.inner.put_opts(path, payload, options).await?;
                Err(object_store::Error::Generic { store: "test", source: "the answer was lost".into() })
            }
            Fault::Slow(takes) => {
                tokio::time::sleep(*takes).await;
                self.inner.put_opts(path, payload, options).await
            }
            Fault::Taken(bytes) => {
                self.inner.put_opts(path, bytes.clone().into(), options.clone()).await?;
                self.inner.put_opts(path, payload, options).await
            }
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

impl ObjectStore for FaultyStore {
    fn put_opts<'a, 'b, 'c>(
        &'a self,
        path: &'b Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> BoxFuture<'c, Result<PutResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(self.put(path, payload, options))
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        path: &'b Path,
        options: PutMultipartOptions,
    ) -> BoxFuture<'c, Result<Box<dyn MultipartUpload>>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.put_multipart_opts(path, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, path: &'b Path, options: GetOptions) -> BoxFuture<'c, Result<GetResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.get_opts(path, options)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match &self.pages {
            Some(pages) => pages.after(prefix, None),
            None => self.inner.list(prefix),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, after: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match &self.pages {
            Some(pages) => pages.after(prefix, Some(after)),
            None => self.inner.list_with_offset(prefix, after),
        }
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> BoxFuture<'c, Result<ListResult>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.inner.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'c, 'd>(
        &'a self,
        from: &'b Path,
        to: &'c Path,
        options: CopyOptions,
    ) -> BoxFuture<'d, Result<()>>
    where
        'a: 'd,
        'b: 'd,
        'c: 'd,
    {
        self.inner.copy_opts(from, to, options)
    }
}

/// A broker whose `nth` commit (from 0) is the last thing that happens.
pub(crate) struct FaultyBroker {
    inner: Arc<dyn Broker>,
    nth: usize,
    when: When,
    writers: AtomicUsize,
}

impl FaultyBroker {
    pub(crate) fn new(inner: Arc<dyn Broker>, nth: usize, when: When) -> Self {
        Self { inner, nth, when, writers: AtomicUsize::new(0) }
    }
}

struct FaultyReader {
    inner: Box<dyn Reader>,
    nth: usize,
    when: When,
    commits: usize,
    broker: Arc<dyn Broker>,
    subscription: Subscription,
}

/// Its first commit is lost.
struct FaultyWriter {
    inner: Box<dyn Writer>,
    when: Option<When>,
}

impl Broker for FaultyBroker {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn create_topics(&self, topics: &[TopicSpec]) -> broker::Result<()> {
        self.inner.create_topics(topics)
    }

    fn describe(&self, topic: &Topic) -> broker::Result<Option<TopicInfo>> {
        self.inner.describe(topic)
    }

    fn register_group(&self, group: &str, topics: &[Topic]) -> broker::Result<Vec<(TopicPartition, u64)>> {
        self.inner.register_group(group, topics)
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> broker::Result<Vec<Option<Committed>>> {
        self.inner.committed(group, partitions)
    }

    fn writer(&self, id: &str) -> broker::Result<Box<dyn Writer>> {
        let inner = self.inner.writer(id)?;
        let is_first = self.writers.fetch_add(1, Ordering::SeqCst) == 0;
        let when = (is_first && matches!(self.when, When::LettersBefore | When::LettersAfter)).then_some(self.when);
        Ok(Box::new(FaultyWriter { inner, when }))
    }

    fn subscribe(&self, subscription: &Subscription) -> broker::Result<Box<dyn Reader>> {
        let (inner, nth, when) = (self.inner.subscribe(subscription)?, self.nth, self.when);
        let (broker, subscription) = (Arc::clone(&self.inner), subscription.clone());
        Ok(Box::new(FaultyReader { inner, nth, when, commits: 0, broker, subscription }))
    }

    fn assign(&self, group: Option<&str>, at: &[(TopicPartition, Offset)]) -> broker::Result<Box<dyn Reader>> {
        self.inner.assign(group, at)
    }
}

impl Reader for FaultyReader {
    fn poll(&mut self, limits: &PollLimits) -> broker::Result<Polled> {
        self.inner.poll(limits)
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> broker::Result<()> {
        self.inner.seek(partition, offset)
    }

    fn commit(&mut self, commits: &[Commit]) -> broker::Result<()> {
        let crash = || Err(broker::Error::Stop("a crash on purpose".into()));
        let at = self.commits;
        self.commits += 1;
        match (at.cmp(&self.nth), self.when) {
            (std::cmp::Ordering::Equal, When::After) => {
                self.inner.commit(commits)?;
                crash()
            }
            (std::cmp::Ordering::Equal, When::Lost) => {
                self.inner.leave()?;
                self.inner = self.broker.subscribe(&self.subscription)?;
                Err(broker::Error::Abort("lost on purpose".into()))
            }
            (std::cmp::Ordering::Equal | std::cmp::Ordering::Greater, When::Before | When::After) => crash(),
            _ => self.inner.commit(commits),
        }
    }

    fn release(&mut self) -> broker::Result<()> {
        self.inner.release()
    }

    fn membership(&self) -> Option<Membership> {
        self.inner.membership()
    }

    fn leave(&mut self) -> broker::Result<()> {
        self.inner.leave()
    }
}

impl Writer for FaultyWriter {
    fn wait_for_room(&mut self, cancel: &Cancel) -> broker::Result<()> {
        self.inner.wait_for_room(cancel)
    }
    fn wait_for_readers(&mut self, cancel: &Cancel) -> broker::Result<()> {
        self.inner.wait_for_readers(cancel)
    }

    fn begin(&mut self) -> broker::Result<()> {
        self.inner.begin()
    }

    fn append(&mut self, topic: &Topic, partition: u32, records: &Records) -> broker::Result<()> {
        self.inner.append(topic, partition, records)
    }

    fn commit_offsets(&mut self, membership: &Membership, commits: &[Commit]) -> broker::Result<()> {
        self.inner.commit_offsets(membership, commits)
    }

    fn commit(&mut self) -> broker::Result<()> {
        let lost = || Err(broker::Error::Abort("lost on purpose".into()));
        match self.when.take() {
            Some(When::LettersBefore) => {
                self.inner.abort()?;
                lost()
            }
            Some(_) => {
                self.inner.commit()?;
                lost()
            }
            None => self.inner.commit(),
        }
    }

    fn abort(&mut self) -> broker::Result<()> {
        self.inner.abort()
    }
}
