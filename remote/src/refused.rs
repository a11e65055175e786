//! A web server's "not now", and how long it asks to be left alone for (`Retry-After`). object_store's own
//! retries do not read that: so it passes them as an error of its own, and is heeded where all attempts
//! are counted.
use std::error::Error;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::HeaderMap;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use records::{EventTime, clock};

/// More than this is not waited for: whoever asked comes back later.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    status: u16,
    pub(crate) wait: Duration,
    until: EventTime,
}

impl Refused {
    /// Where an answer asks for a wait.
    fn of(status: u16, headers: &HeaderMap, wall_us: i64) -> Option<Self> {
        if !matches!(status, 429 | 503) {
            return None;
        }
        let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
        let date = |text| httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok();
        let asked = text("retry-after")?;
        let wait = match asked.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            // By the server's own clock, where it shows it.
            Err(_) => {
                let now = text("date").and_then(date);
                let now = now.unwrap_or(Duration::from_micros(u64::try_from(wall_us).unwrap_or(0)));
                date(asked)?.saturating_sub(now)
            }
        };
        let until = wall_us.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
        Some(Self { status, wait, until: EventTime(until) }).filter(|refused| !refused.wait.is_zero())
    }

    /// Among the causes of an error.
    pub(crate) fn among(error: &object_store::Error) -> Option<Self> {
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref() {
                return Some(*refused);
            }
            cause = error.source();
        }
        None
    }

    pub(crate) fn is_too_long(&self) -> bool {
        self.wait > LONGEST_ASKED
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, wait, until } = self;
        write!(f, "the server refuses for now ({status}) and asks to be left alone for {} s", wait.as_secs())?;
        if self.is_too_long() {
            write!(f, ", longer than the {} s that are waited for; come back after {until}", LONGEST_ASKED.as_secs())?;
        }
        Ok(())
    }
}

impl Error for Refused {}

/// For a server that is only read from: what else asks for less than this is object_store's to retry.
#[derive(Debug)]
pub(crate) struct Heeding;

impl HttpConnector for Heeding {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.execute(request).await?;
        match Refused::of(response.status().as_u16(), response.headers(), clock::wall_us()) {
            // Of a kind that is not tried again at once.
            Some(refused) => Err(HttpError::new(HttpErrorKind::Unknown, refused)),
            None => Ok(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2019-10-01 00:00:00 UTC.
    const NOW_US: i64 = 1_569_888_000_000_000;

    #[test]
    fn what_is_asked_for() {
        for (status, headers, seconds) in [
            (429, &[("retry-after", "7")][..], Some(7)),
            (503, &[("retry-after", " 7 ")], Some(7)),
            (429, &[("retry-after", "Tue, 01 Oct 2019 00:02:00 GMT")], Some(120)),
            // A clock that is an hour behind ours asks for no more than it means.
            (
                429,
                &[("retry-after", "Mon, 30 Sep 2019 23:00:09 GMT"), ("date", "Mon, 30 Sep 2019 23:00:00 GMT")],
                Some(9),
            ),
            (429, &[("retry-after", "Tue, 01 Oct 2019 00:00:00 GMT")], None),
            (429, &[("retry-after", "0")], None),
            (429, &[("retry-after", "soon")], None),
            (429, &[("retry-after", "-5")], None),
            (429, &[], None),
            (200, &[("retry-after", "7")], None),
            (500, &[("retry-after", "7")], None),
        ] {
            let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            let asked = Refused::of(status, &headers, NOW_US).map(|refused| refused.wait.as_secs());
            assert_eq!(asked, seconds, "{status} {headers:?}");
        }
    }

    #[test]
    fn it_is_found_among_the_causes_and_says_when_to_come_back() {
        for (seconds, too_long, says) in [
            ("300", false, "the server refuses for now (429) and asks to be left alone for 300 s"),
            ("7200", true, "longer than the 300 s that are waited for; come back after 2019-10-01 02:00:00"),
        ] {
            let headers = [("retry-after".parse().unwrap(), seconds.parse().unwrap())].into_iter().collect();
            let refused = Refused::of(429, &headers, NOW_US).unwrap();
            let source = Box::new(HttpError::new(HttpErrorKind::Unknown, refused));
            let found = Refused::among(&object_store::Error::Generic { store: "HTTP", source }).unwrap();
            assert_eq!((found, found.is_too_long()), (refused, too_long));
            assert!(found.to_string().contains(says), "{found}");
        }
        let other = object_store::Error::Generic { store: "HTTP", source: "it broke".into() };
        assert_eq!(Refused::among(&other), None);
    }
}
