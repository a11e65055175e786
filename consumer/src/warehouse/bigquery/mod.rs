//! BigQuery, by Google's own client.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | where it is, who asks, and the clients |
//! | `streams` | committed write streams: appends with an offset (storage-write) |
//! | `rest` | calls that Google's client does not have |
//! | `inserts` | streaming inserts with an insertId (insert-all) |
//! | `tables` | what is there, and making it |
//! | `faults` | what an error means |
mod faults;
mod inserts;
mod rest;
mod streams;
mod tables;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker::Cancel;
use google_cloud_auth::credentials::{self, Credentials};
use google_cloud_bigquery::client::Write;
use google_cloud_bigquery_v2::client::{DatasetService, JobService, TableService};
use google_cloud_gax::retry_policy::NeverRetry;
use tokio::runtime::Handle;

use self::faults::CREDENTIALS;
use super::backend::{Backend, Connection, Fault, Seen};
use super::error::{Error, Result};
use super::schema::{Table, tables};

pub use tables::{Checked, Made};

const SCOPES: [&str; 1] = ["https://www.googleapis.com/auth/bigquery"];
/// A call without rows.
const CALL_WITHIN: Duration = Duration::from_secs(20);
/// And one that is under way when it is to drain, or begun then: a drain takes less than ten seconds.
const CALL_WITHIN_DRAIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `PROJECT.DATASET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    pub project: String,
    pub dataset: String,
}

impl FromStr for Dataset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not PROJECT.DATASET, as in my-project.clickstream");
        let (project, dataset) = text.rsplit_once('.').ok_or_else(wrong)?;
        let of_project = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-:.".contains(&b);
        let of_dataset = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let right = !project.is_empty() && !dataset.is_empty() && project.bytes().all(of_project);
        if !right || !dataset.bytes().all(of_dataset) {
            return Err(wrong());
        }
        Ok(Self { project: project.to_owned(), dataset: dataset.to_owned() })
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.project, self.dataset)
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Committed streams with offsets: every row once.
    #[default]
    StorageWrite,
    /// Streaming inserts with an insertId: at least once.
    InsertAll,
}

/// How BigQuery is reached. Without credentials of its own: application default credentials, down to
/// the attached service account.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Other servers than Google's: of the REST API, and of the Storage API. Without credentials
    /// then, unless they are named.
    pub endpoint: Option<String>,
    pub storage_endpoint: Option<String>,
    pub credentials: Option<PathBuf>,
}

/// The clients, and what they are asked about.
pub struct BigQuery {
    dataset: Dataset,
    mode: Mode,
    tables: [Table; 3],
    runtime: Handle,
    rest: TableService,
    datasets: DatasetService,
    jobs: JobService,
    write: Arc<Write>,
    /// For what `rest` and `datasets` lack.
    own: rest::Rest,
    /// How long the sink waits, once it runs, and what ends it.
    waits: OnceLock<(Duration, Cancel)>,
}

impl BigQuery {
    /// `runtime` must be multi-threaded; this and all else is called from outside it.
    pub fn open(dataset: &Dataset, mode: Mode, access: &Access, runtime: &Handle) -> Result<Self> {
        let credentials = {
            // They keep themselves fresh by a task of their own.
            let _entered = runtime.enter();
            credentials(access).map_err(|why| Error::Stop(format!("{dataset}: {why}")))?
        };
        let failed = |e: &dyn fmt::Display| Error::Stop(format!("{dataset}: the client cannot be made: {e}"));
        let (mut rest, mut datasets) = (TableService::builder(), DatasetService::builder());
        let (mut jobs, mut write) = (JobService::builder(), Write::builder());
        if let Some(endpoint) = &access.endpoint {
            (rest, datasets) = (rest.with_endpoint(endpoint), datasets.with_endpoint(endpoint));
            jobs = jobs.with_endpoint(endpoint);
        }
        if let Some(endpoint) = &access.storage_endpoint {
            write = write.with_endpoint(endpoint);
        }
        // What is tried again, and for how long, is decided in one place: the loop.
        let rest = rest.with_credentials(credentials.clone()).with_retry_policy(NeverRetry);
        let datasets = datasets.with_credentials(credentials.clone()).with_retry_policy(NeverRetry);
        let jobs = jobs.with_credentials(credentials.clone()).with_retry_policy(NeverRetry);
        let write = write.with_credentials(credentials.clone());
        let (rest, datasets, jobs, write) =
            runtime.block_on(async { tokio::join!(rest.build(), datasets.build(), jobs.build(), write.build()) });
        Ok(Self {
            dataset: dataset.clone(),
            mode,
            tables: tables(),
            runtime: runtime.clone(),
            rest: rest.map_err(|e| failed(&e))?,
            datasets: datasets.map_err(|e| failed(&e))?,
            jobs: jobs.map_err(|e| failed(&e))?,
            write: Arc::new(write.map_err(|e| failed(&e))?),
            own: rest::Rest::new(dataset, access, credentials).map_err(|e| failed(&e))?,
            waits: OnceLock::new(),
        })
    }

    fn path(&self, table: usize) -> String {
        let Dataset { project, dataset } = &self.dataset;
        format!("projects/{project}/datasets/{dataset}/tables/{}", self.tables[table].name)
    }

    /// A call, with a bound on its time.
    fn call<T, E>(&self, call: impl Future<Output = Result<T, E>>, fault: impl Fn(E) -> Fault) -> Result<T, Fault> {
        let late = |within| Fault::Retry(format!("no answer within {within:?}"));
        let within = self.waits.get().map_or(CALL_WITHIN, |(within, _)| CALL_WITHIN.min(*within));
        self.runtime.block_on(async {
            tokio::select! {
                answer = tokio::time::timeout(within, call) => match answer {
                    Ok(answer) => answer.map_err(fault),
                    Err(_) => Err(late(within)),
                },
                () = self.drained() => Err(late(CALL_WITHIN_DRAIN)),
            }
        })
    }

    /// Ends a while after a drain was asked for.
    async fn drained(&self) {
        while !self.waits.get().is_some_and(|(_, cancel)| cancel.is_cancelled()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(CALL_WITHIN_DRAIN).await;
    }
}

fn credentials(access: &Access) -> Result<Credentials, String> {
    match &access.credentials {
        Some(file) => from_file(file).map_err(|why| format!("--google-credentials {}: {why}", file.display())),
        None if access.endpoint.is_some() || access.storage_endpoint.is_some() => {
            Ok(credentials::anonymous::Builder::new().build())
        }
        None => credentials::Builder::default()
            .with_scopes(SCOPES)
            .build()
            .map_err(|e| format!("no credentials: {e}. {CREDENTIALS}")),
    }
}

/// Whatever kind of file it is.
fn from_file(file: &Path) -> Result<Credentials, String> {
    use credentials::{external_account, impersonated, service_account, user_account};
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("it is not JSON: {e}"))?;
    let kind = json.get("type").and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
    let built = match kind.as_str() {
        "service_account" => {
            let scopes = service_account::AccessSpecifier::from_scopes(SCOPES);
            service_account::Builder::new(json).with_access_specifier(scopes).build()
        }
        "authorized_user" => user_account::Builder::new(json).with_scopes(SCOPES).build(),
        "external_account" => external_account::Builder::new(json).with_scopes(SCOPES).build(),
        "impersonated_service_account" => impersonated::Builder::new(json).with_scopes(SCOPES).build(),
        other => {
            return Err(format!(
                "its \"type\" is {other:?}: service_account, authorized_user, external_account or \
                 impersonated_service_account would be right"
            ));
        }
    };
    built.map_err(|e| e.to_string())
}

impl Backend for BigQuery {
    fn has_streams(&self) -> bool {
        self.mode == Mode::StorageWrite
    }

    fn waits(&self, within: Duration, cancel: &Cancel) {
        let _ = self.waits.set((within, cancel.clone()));
    }

    fn create_stream(&self, table: usize) -> Result<String, Fault> {
        self.call(streams::create(&self.write, self.path(table), &self.tables[table]), std::convert::identity)
    }

    fn finalize_stream(&self, stream: &str) -> Result<i64, Fault> {
        self.call(streams::finalize(&self.write, stream), std::convert::identity)
    }

    fn count_rows(&self, table: usize, partition: u32, offsets: RangeInclusive<i64>) -> Result<i64, Fault> {
        self.count(table, partition, &offsets)
    }

    fn look(&self, table: usize) -> Result<Seen, Fault> {
        self.seen(table)
    }

    fn connect(&self, table: usize, stream: Option<&str>) -> Box<dyn Connection> {
        match stream {
            Some(stream) => Box::new(streams::connect(&self.runtime, &self.write, stream, &self.tables[table])),
            None => Box::new(inserts::Inserter {
                rest: self.own.clone(),
                project: self.dataset.project.clone(),
                table: self.tables[table].name,
                runtime: self.runtime.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets() {
        for (text, project, dataset) in
            [("shop-1.clicks", "shop-1", "clicks"), ("example.com:shop.clicks_2", "example.com:shop", "clicks_2")]
        {
            let read: Dataset = text.parse().unwrap();
            assert_eq!((read.project.as_str(), read.dataset.as_str()), (project, dataset));
            assert_eq!(read.to_string(), text);
        }
        for wrong in ["", "clicks", ".clicks", "shop.", "Shop.clicks", "shop.click-s", "shop.clicks.events x"] {
            assert!(wrong.parse::<Dataset>().unwrap_err().contains("PROJECT.DATASET"), "{wrong}");
        }
    }

    #[test]
    fn credentials_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        for (text, says) in [
            ("", "not JSON"),
            ("{}", "service_account, authorized_user"),
            (r#"{"type": "service_account"}"#, "client_email"),
        ] {
            let file = dir.path().join("key.json");
            std::fs::write(&file, text).unwrap();
            let access = Access { credentials: Some(file), ..Access::default() };
            let why = super::credentials(&access).unwrap_err();
            assert!(why.contains(says) && why.contains("key.json"), "{why}");
        }
    }
}
