//! Calls of the REST API that Google's client does not have: streaming inserts, and what an account
//! may do with a table.
use std::time::Duration;

use google_cloud_auth::credentials::{CacheableResource, Credentials};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::json;

use super::{Access, Dataset};
use crate::warehouse::backend::Fault;
use crate::warehouse::schema::Table;

const JSON: &str = "application/json";
const ENDPOINT: &str = "https://bigquery.googleapis.com";
/// Later, nobody listens for the answer any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Rest {
    client: reqwest::Client,
    credentials: Credentials,
    /// Up to the table's name.
    tables: String,
}

/// Status and text.
pub(super) type Told = (u16, String);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Permissions {
    permissions: Vec<String>,
}

impl Rest {
    pub(super) fn new(dataset: &Dataset, access: &Access, credentials: Credentials) -> reqwest::Result<Self> {
        let endpoint = access.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/');
        let Dataset { project, dataset } = dataset;
        let tables = format!("{endpoint}/bigquery/v2/projects/{project}/datasets/{dataset}/tables");
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { client, credentials, tables })
    }

    /// `path` begins with the table's name; the body is JSON.
    pub(super) async fn post(&self, path: &str, body: String) -> Result<Told, Fault> {
        self.send(Method::POST, path, body).await
    }

    /// The table's own rows and partitions stay, whatever the dataset gives to its tables. Google's
    /// client has no word for null, which takes a value away.
    pub(super) async fn never_expires(&self, table: &Table) -> Result<Told, Fault> {
        let partitions = json!({"type": "DAY", "field": table.partition_by, "expirationMs": null});
        let body = json!({"timePartitioning": partitions, "expirationTime": null}).to_string();
        self.send(Method::PATCH, table.name, body).await
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Told, Fault> {
        let headers = match self.credentials.headers(Default::default()).await {
            Ok(CacheableResource::New { data, .. }) => data,
            Ok(CacheableResource::NotModified) => Default::default(),
            Err(e) if e.is_transient() => return Err(Fault::Retry(e.to_string())),
            Err(e) => return Err(Fault::Stop(format!("no credentials that Google takes: {e}"))),
        };
        let lost = |e: reqwest::Error| Fault::Retry(e.without_url().to_string());
        let url = format!("{}/{path}", self.tables);
        let request = self.client.request(method, url).headers(headers).header(CONTENT_TYPE, JSON).body(body);
        let response = request.send().await.map_err(lost)?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(lost)?))
    }

    /// Which of these permissions the account does not have on a table. A server that cannot say is
    /// taken to grant them all: then the first rows tell.
    pub(super) async fn missing<'a>(&self, table: &str, permissions: &[&'a str]) -> Result<Vec<&'a str>, Fault> {
        let (status, text) =
            self.post(&format!("{table}:testIamPermissions"), json!({"permissions": permissions}).to_string()).await?;
        match serde_json::from_str::<Permissions>(&text) {
            Ok(has) if status == 200 => {
                let is_missing = |permission: &&str| !has.permissions.iter().any(|has| has == permission);
                Ok(permissions.iter().copied().filter(is_missing).collect())
            }
            _ => {
                tracing::debug!(table, status, "the server does not say what this account may do");
                Ok(Vec::new())
            }
        }
    }
}
