//! Where a bucket is. `object_store` does not ask, and the lake itself does without the right to see it.
use std::fmt::Display;
use std::time::Duration;

use object_store::gcp::GoogleCloudStorageBuilder;
use serde::Deserialize;

use super::{Access, Bucket, Scheme};

const WITHIN: Duration = Duration::from_secs(10);
const ENDPOINT: &str = "https://storage.googleapis.com";

#[derive(Deserialize)]
struct Told {
    location: String,
}

/// As Google names it: `EU`, `EUROPE-WEST1`. None where it cannot be seen (the account lacks
/// `storage.buckets.get`), or where the bucket is none of Google's.
pub fn location(bucket: &Bucket, access: &Access, runtime: &tokio::runtime::Handle) -> Option<String> {
    if bucket.scheme != Scheme::Gs {
        return None;
    }
    let asked = runtime.block_on(async { tokio::time::timeout(WITHIN, ask(bucket, access)).await });
    let told = asked.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")));
    told.inspect_err(|why| tracing::debug!(%bucket, why, "where it is cannot be seen")).ok()
}

async fn ask(bucket: &Bucket, access: &Access) -> Result<String, String> {
    let store = access.gs(GoogleCloudStorageBuilder::from_env().with_bucket_name(&bucket.name));
    let store = store.build().map_err(told)?;
    let credential = store.credentials().get_credential().await.map_err(told)?;
    let endpoint = access.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/');
    let url = format!("{endpoint}/storage/v1/b/{}?fields=location", bucket.name);
    let request = reqwest::Client::new().get(url).bearer_auth(&credential.bearer);
    let response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(told)?;
    Ok(response.json::<Told>().await.map_err(told)?.location)
}

fn told(error: impl Display) -> String {
    error.to_string()
}
