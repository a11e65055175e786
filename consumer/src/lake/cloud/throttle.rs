//! What every request to a bucket passes: it is counted, and none is sent while the store asks for
//! less (429, 503). One refusal holds back all requests, so that many writers slow down together.
//! A PUT is given time by its size.
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use records::clock;

use super::{REQUEST_TIMEOUT, late, upload_time};

use crate::lake::Metrics;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A store that asks for more than this (`Retry-After`) is asked again all the same.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// How much the store has asked for less. Pure: the time is an argument.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Nothing is sent before.
    until: Option<Instant>,
    /// What the last refusal cost; the next costs twice as much, each success halves it.
    pause: Duration,
}

impl Pace {
    fn refused(&mut self, now: Instant, asked: Option<Duration>) {
        // Those that were sent together are refused together: that is one refusal.
        if self.until.is_some_and(|until| now < until) {
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.until = Some(now + self.pause.max(asked.unwrap_or_default().min(LONGEST_ASKED)));
    }

    fn accepted(&mut self) {
        self.pause /= 2;
    }

    fn wait(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[derive(Debug)]
struct Shared {
    pace: Mutex<Pace>,
    metrics: Metrics,
}

impl Shared {
    fn pace<T>(&self, with: impl FnOnce(&mut Pace) -> T) -> T {
        with(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug)]
pub(super) struct Connector(Arc<Shared>);

impl Connector {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self(Arc::new(Shared { pace: Mutex::default(), metrics: metrics.clone() }))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let connect = |options: &ClientOptions| ReqwestConnector::default().connect(options);
        let (inner, uploads) = (connect(options)?, connect(&options.clone().with_timeout_disabled())?);
        Ok(HttpClient::new(Service { inner, uploads, timeout: REQUEST_TIMEOUT, shared: Arc::clone(&self.0) }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    /// Has no time-out of its own,
    uploads: HttpClient,
    /// but this one, beside what its bytes may take.
    timeout: Duration,
    shared: Arc<Shared>,
}

#[derive(Debug, thiserror::Error)]
#[error("{}", late(*bytes))]
struct Late {
    bytes: usize,
}

impl Service {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.method() != "PUT" {
            return self.inner.execute(request).await;
        }
        let bytes = request.body().content_length();
        let sent = tokio::time::timeout(self.timeout + upload_time(bytes), self.uploads.execute(request)).await;
        sent.unwrap_or_else(|_| Err(HttpError::new(HttpErrorKind::Timeout, Late { bytes })))
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let now = clock::now();
        let wait = self.shared.pace(|pace| pace.wait(now));
        if !wait.is_zero() {
            // Up to half as long again, so that they do not all come back in one moment.
            let jitter = u32::try_from(RandomState::new().hash_one(now) % 512).unwrap_or_default();
            tokio::time::sleep(wait + wait * jitter / 1024).await;
        }
        self.shared.metrics.requests.with_label_values(&[method(&request)]).inc();
        let response = self.send(request).await?;
        match response.status().as_u16() {
            429 | 503 => {
                self.shared.metrics.throttles.inc();
                let asked = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                self.shared.pace(|pace| pace.refused(clock::now(), asked.map(Duration::from_secs)));
            }
            200..400 => self.shared.pace(Pace::accepted),
            _ => {}
        }
        Ok(response)
    }
}

/// A bounded set of labels.
fn method(request: &HttpRequest) -> &'static str {
    match request.method().as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "PUT" => "put",
        "POST" => "post",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers after so long.
    #[derive(Debug)]
    struct Slow(Duration);

    #[async_trait]
    impl HttpService for Slow {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            tokio::time::sleep(self.0).await;
            Ok(HttpResponse::new(bytes::Bytes::new().into()))
        }
    }

    #[test]
    fn an_upload_has_time_by_its_size() {
        let ms = Duration::from_millis;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        for (bytes, answers_after, says) in
            [(2 << 20, ms(50), None), (0, ms(60_000), Some("no answer")), (256 << 10, ms(60_000), Some("no answer"))]
        {
            let slow = || HttpClient::new(Slow(answers_after));
            let service =
                Service { inner: slow(), uploads: slow(), timeout: ms(1), shared: Connector::new(&metrics).0 };
            let mut request = HttpRequest::new(bytes::Bytes::from(vec![0; bytes]).into());
            *request.method_mut() = "PUT".parse().unwrap();
            let answer = runtime.block_on(service.call(request));
            assert_eq!(
                answer.err().map(|why| why.to_string().contains(says.unwrap_or("?"))),
                says.map(|_| true),
                "{bytes}"
            );
        }
    }

    #[test]
    fn refusals_slow_down_and_successes_speed_up() {
        let start = clock::now();
        let at = |ms| start + Duration::from_millis(ms);
        let waits = |pace: &Pace, ms| u64::try_from(pace.wait(at(ms)).as_millis()).unwrap();
        let mut pace = Pace::default();
        assert_eq!(waits(&pace, 0), 0);
        pace.refused(at(0), None);
        pace.refused(at(10), None);
        assert_eq!((waits(&pace, 0), waits(&pace, 100), waits(&pace, 250)), (250, 150, 0), "two at once are one");
        pace.refused(at(250), None);
        assert_eq!(waits(&pace, 250), 500, "twice as long");
        pace.accepted();
        pace.accepted();
        pace.refused(at(1000), None);
        assert_eq!(waits(&pace, 1000), 250, "a success halves it");
        pace.refused(at(2000), Some(Duration::from_secs(3)));
        assert_eq!(waits(&pace, 2000), 3000, "as long as the store asked for");
        pace.refused(at(6000), Some(Duration::from_secs(3600)));
        assert_eq!(waits(&pace, 6000), 30_000, "but no longer than that");
        for i in 1..20 {
            pace.refused(at(100_000 * i), None);
        }
        assert_eq!(waits(&pace, 1_900_000), 8_000);
    }
}
