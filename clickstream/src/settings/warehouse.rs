//! The warehouse: where it is, and how rows are written.
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use consumer::warehouse::{BigQuery, Checked, Dataset, Metrics, Mode, Settings, schema};
use prometheus::Registry;
use records::Format;
use tokio::runtime::Handle;

use super::cloud::CloudOptions;
use super::lake::{RETRIES, within};
use crate::exit::Wrong;
use crate::pipeline::Warehouse;

/// As many rows as BigQuery advises for a streaming insert.
const INSERT_ROWS: usize = 500;
const INSERT_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Warehouse")]
pub(crate) struct WarehouseOptions {
    #[command(flatten)]
    pub(crate) at: DatasetOptions,

    /// How rows are written
    #[arg(long, value_enum, default_value_t = WriteMode::StorageWrite)]
    mode: WriteMode,

    /// How long rows are gathered before they are sent
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = humantime::parse_duration)]
    warehouse_linger: Duration,

    /// How long a BigQuery that does not answer is tried, 1s to 1h, until that is an outage: then `run`
    /// goes on without the warehouse and tries on until it can be reached, and `consume warehouse` ends
    /// [default: 60s, 5m on Kafka]
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| within(text, RETRIES))]
    warehouse_retry: Option<Duration>,

    /// A request without an answer for so long is sent again; tests want it short
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration, hide = true)]
    warehouse_answer_within: Duration,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Warehouse")]
pub(crate) struct DatasetOptions {
    /// BigQuery's project and dataset; `clickstream warehouse init` makes its tables
    #[arg(long, value_name = "PROJECT.DATASET")]
    warehouse: Option<Dataset>,

    /// Where the dataset is, as in EU: `warehouse init` makes one that is missing there, and one that is
    /// elsewhere is refused [default: wherever it is; Google makes it in US]
    #[arg(long)]
    location: Option<String>,

    /// Another server than Google's for BigQuery's REST API, such as an emulator's; then it goes
    /// without credentials unless they are named
    #[arg(long, value_name = "URL")]
    bigquery_endpoint: Option<String>,

    /// The same for its Storage Write API
    #[arg(long, value_name = "URL")]
    bigquery_storage_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum, PartialEq, Eq)]
enum WriteMode {
    /// Committed streams with offsets: every row once, whatever is killed
    StorageWrite,
    /// Streaming inserts: every row at least once. BigQuery drops repeats by insertId for about a
    /// minute; a row that is sent again later stands twice
    InsertAll,
}

impl From<WriteMode> for Mode {
    fn from(mode: WriteMode) -> Self {
        match mode {
            WriteMode::StorageWrite => Self::StorageWrite,
            WriteMode::InsertAll => Self::InsertAll,
        }
    }
}

impl DatasetOptions {
    pub(crate) fn dataset(&self) -> Option<&Dataset> {
        self.warehouse.as_ref()
    }

    pub(crate) fn required(&self) -> Result<&Dataset> {
        self.dataset().ok_or_else(|| anyhow!(Wrong("--warehouse PROJECT.DATASET says where".to_owned())))
    }

    pub(crate) fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    pub(crate) fn open(
        &self,
        dataset: &Dataset,
        mode: Mode,
        cloud: &CloudOptions,
        runtime: &Handle,
    ) -> Result<BigQuery> {
        let access = consumer::warehouse::Access {
            endpoint: self.bigquery_endpoint.clone(),
            storage_endpoint: self.bigquery_storage_endpoint.clone(),
            credentials: cloud.google_credentials().cloned(),
        };
        Ok(BigQuery::open(dataset, mode, &access, runtime)?)
    }
}

impl WarehouseOptions {
    /// How long BigQuery is tried, if not for as long as usual.
    pub(crate) fn retry_for(&self, usual: Duration) -> Duration {
        self.warehouse_retry.unwrap_or(usual)
    }

    /// What the warehouse is told; None where there is none. Its tables are looked at here: what is
    /// wrong with them is said before anything is sent.
    pub(crate) fn warehouse(
        &self,
        prefix: &str,
        format: Format,
        cloud: &CloudOptions,
        runtime: &Handle,
        registry: &Registry,
    ) -> Result<Option<Warehouse>> {
        let Some(dataset) = self.at.dataset() else { return Ok(None) };
        let mode = self.mode.into();
        let backend = self.at.open(dataset, mode, cloud, runtime)?;
        let Checked { location, otherwise } = backend.check(self.at.location())?;
        otherwise.iter().for_each(|otherwise| tracing::warn!("{otherwise}"));
        let defaults = Settings::default();
        let retry_for = self.retry_for(defaults.retry_for);
        let (max_rows, max_bytes) = match mode {
            Mode::StorageWrite => (defaults.max_rows, defaults.max_bytes),
            Mode::InsertAll => (INSERT_ROWS, INSERT_BYTES),
        };
        let settings = Settings {
            prefix: prefix.to_owned(),
            dataset: dataset.to_string(),
            format,
            linger: self.warehouse_linger,
            answer_within: self.warehouse_answer_within.min(retry_for),
            retry_for,
            max_rows,
            max_bytes,
            ..defaults
        };
        Ok(Some(Warehouse { settings, backend, location, metrics: Metrics::register(registry)? }))
    }
}

/// What `warehouse init` and `warehouse ddl` take, and `lake ddl`.
#[derive(Clone, Debug, Args)]
pub(crate) struct InitOptions {
    #[command(flatten)]
    pub(crate) at: DatasetOptions,
    #[command(flatten)]
    pub(crate) cloud: CloudOptions,

    /// Adds columns that are missing to tables that are there
    #[arg(long, help_heading = "Warehouse")]
    pub(crate) add_columns: bool,

    #[command(flatten)]
    pub(crate) log: super::output::LogOptions,
    #[command(flatten)]
    pub(crate) config: super::config::ConfigOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DdlOptions {
    /// BigQuery's project and dataset
    #[arg(long, value_name = "PROJECT.DATASET")]
    pub(crate) warehouse: Dataset,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LakeDdlOptions {
    /// Where the lake is, as in gs://bucket/prefix
    #[arg(long, value_name = "URL")]
    pub(crate) lake: consumer::lake::Bucket,

    /// BigQuery's project and dataset, for the tables over it
    #[arg(long, value_name = "PROJECT.DATASET")]
    pub(crate) warehouse: Dataset,

    /// The partitioned, clustered table that is made from it. The batch pipelines had it under the name
    /// clickstream_partitioned_clustered, which is a view's in a dataset of `clickstream warehouse init`:
    /// name it so in a dataset without one
    #[arg(long, value_name = "NAME", default_value = schema::LAKE_TABLE, value_parser = table_name)]
    pub(crate) table: String,
}

fn table_name(text: &str) -> Result<String, String> {
    let right = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if right { Ok(text.to_owned()) } else { Err("it takes a table's name: letters, digits and _".to_owned()) }
}
