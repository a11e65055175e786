//! A URL to its store. Credentials are found as the clouds' own tools find them: environment, key
//! files, the machine's own.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{ClientOptions, HeaderMap, ObjectStore, RetryConfig};
use url::Url;

use crate::access::Access;
use crate::refused::Heeding;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer; the whole of one may take hours.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Of a single request that the server refuses for now.
const RETRIES: usize = 5;
const RETRY_FOR: Duration = Duration::from_secs(60);

/// What a URL names.
#[derive(Clone, Debug)]
pub struct Place {
    /// The URL up to the path: `gs://bucket/`.
    pub base: String,
    /// In the store; may be a glob.
    pub path: String,
    pub store: Arc<dyn ObjectStore>,
}

/// Whether it is for [`open`] to say what it is.
pub fn is_url(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    })
}

/// `gs://bucket/path`, `s3://bucket/path`, `https://host/path`, and `http://` on this machine.
pub fn open(url: &str, access: &Access) -> Result<Place, String> {
    place(url, access, HeaderMap::new())
}

/// With headers that every request to a web server carries. They do not follow to another host.
pub fn open_with(url: &str, headers: HeaderMap) -> Result<Place, String> {
    place(url, &Access::default(), headers)
}

fn place(url: &str, access: &Access, headers: HeaderMap) -> Result<Place, String> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("{url}: it is not a URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        return Err(format!("{url}: it names no bucket or host"));
    }
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
    let options = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT);
    let wrong = |e: object_store::Error| format!("{url}: {}", crate::explain(&e));
    let store: Arc<dyn ObjectStore> = match scheme {
        "gs" => {
            // The metadata server, which has the machine's own credentials, is plain HTTP.
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(host).with_retry(retry);
            Arc::new(access.gs(builder).with_client_options(options.with_allow_http(true)).build().map_err(wrong)?)
        }
        "s3" => {
            let here = std::env::var("AWS_ENDPOINT_URL").or_else(|_| std::env::var("AWS_ENDPOINT"));
            let plain = access.is_plain() || here.is_ok_and(|endpoint| endpoint.starts_with("http://"));
            let builder = AmazonS3Builder::from_env().with_bucket_name(host).with_retry(retry);
            Arc::new(access.s3(builder).with_client_options(options.with_allow_http(plain)).build().map_err(wrong)?)
        }
        "https" | "http" => {
            if path.contains('?') {
                return Err(format!(
                    "{url}: a web server's URL is read without a query and without globs; \
                     download a signed URL first, and name each file"
                ));
            }
            let plain = scheme == "http";
            if plain && !is_loopback(url) {
                return Err(format!("{url}: plain http is read from this machine only; give https"));
            }
            let options = options.with_allow_http(plain).with_default_headers(headers);
            let builder = HttpBuilder::new().with_url(format!("{scheme}://{host}")).with_retry(retry);
            let builder = builder.with_http_connector(Heeding).with_client_options(options);
            Arc::new(builder.build().map_err(wrong)?)
        }
        _ => return Err(format!("{url}: {scheme}:// is not read; gs://, s3:// and https:// are")),
    };
    Ok(Place { base: format!("{scheme}://{host}/"), path: path.to_owned(), store })
}

fn is_loopback(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, base, path) in [
            ("https://host/a/b.csv.gz", "https://host/", "a/b.csv.gz"),
            ("http://127.0.0.1:8000/x.csv", "http://127.0.0.1:8000/", "x.csv"),
            ("http://[::1]:80/x.csv", "http://[::1]:80/", "x.csv"),
            ("http://localhost/x.csv", "http://localhost/", "x.csv"),
        ] {
            let place = open(url, &Access::default()).unwrap();
            assert_eq!((place.base.as_str(), place.path.as_str()), (base, path));
        }
        for (url, says) in [
            ("http://example.com/x.csv", "plain http"),
            ("http://127.0.0.1.example.com/x.csv", "plain http"),
            ("https://host/x.csv?X-Goog-Signature=1", "without a query"),
            ("ftp://host/x.csv", "ftp:// is not read"),
            ("gs:///x.csv", "no bucket"),
        ] {
            let why = open(url, &Access::default()).unwrap_err();
            assert!(why.contains(says) && why.contains(url), "{why}");
        }
        for (text, expected) in
            [("gs://b/x", true), ("a:b", false), ("://x", false), ("a b://x", false), ("x.csv", false)]
        {
            assert_eq!(is_url(text), expected, "{text}");
        }
    }
}
