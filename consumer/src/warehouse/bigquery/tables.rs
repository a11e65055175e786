//! What is there: the dataset, the tables, the view; and making it.
use std::convert::identity;
use std::ops::RangeInclusive;
use std::time::Duration;

use broker::Cancel;
use google_cloud_bigquery_v2::model as api;
use google_cloud_gax::error::Error as ApiError;
use serde_json::{Map, Value};

use super::faults::{QUERY, Right, WRITE, fault_of};
use super::{BigQuery, CALL_WITHIN, Dataset, streams};
use crate::warehouse::backend::{Fault, Seen};
use crate::warehouse::error::{Error, Result};
use crate::warehouse::schema::{Column, Difference, Kind, Mode, Table, VIEW, differences, remedy, view_query};

/// What the sink asks of a table, beside the making of it.
const NEEDED: [&str; 2] = ["bigquery.tables.get", WRITE];

/// How often a fault that may pass is tried again; as a bucket is.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// What `init` did, or found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    Made(String),
    AsItIs(String),
    /// Columns were added.
    Extended(String, Vec<Difference>),
    /// It differs, and was left alone.
    Differs(String, Vec<Difference>),
}

/// What `check` found where rows can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Where the dataset is.
    pub location: String,
    /// What is otherwise than it should be all the same.
    pub otherwise: Vec<String>,
}

impl BigQuery {
    /// Makes what is missing: the dataset (in `location`), the tables, the view. Columns are added
    /// to a table only if `add_columns`; nothing is ever taken away.
    pub fn init(&self, location: Option<&str>, add_columns: bool) -> Result<Vec<Made>> {
        let mut made = vec![self.make_dataset(location)?];
        for (i, table) in self.tables.iter().enumerate() {
            let name = format!("{}.{}", self.dataset, table.name);
            let table_there = self.looked(&name, || self.get_or_make(table))?;
            let (there, is_new) = table_there.ok_or_else(|| no_dataset(&self.dataset))?;
            let mut differences = differences_of(table, &name, &there);
            if is_new {
                made.push(Made::Made(name.clone()));
            } else if add_columns && schema_is_additive(&differences) {
                let (missing, others): (Vec<_>, Vec<_>) = differences.into_iter().partition(Difference::is_additive);
                self.add_columns(i, there, &missing)?;
                made.push(Made::Extended(name.clone(), missing));
                differences = others;
            } else if differences.is_empty() {
                made.push(Made::AsItIs(name.clone()));
            }
            if !differences.is_empty() {
                made.push(Made::Differs(name, differences));
            }
        }
        let is_no_table = |made: &Made| match made {
            Made::Differs(_, differences) => differences.iter().any(|it| matches!(it, Difference::NoTable { .. })),
            _ => false,
        };
        if made.iter().any(is_no_table) {
            // There is nothing that the view could read.
            return Ok(made);
        }
        let name = format!("{}.{VIEW}", self.dataset);
        let view = self.looked(&name, || self.get_or_insert(self.view()))?;
        let (there, is_new) = view.ok_or_else(|| no_dataset(&self.dataset))?;
        made.push(match of_view(&self.view(), &there).filter(|_| !is_new) {
            Some(difference) => Made::Differs(name, vec![difference]),
            None if is_new => Made::Made(name),
            None => Made::AsItIs(name),
        });
        Ok(made)
    }

    /// Whether rows can be written: the dataset is there (in `location`, if one is given), and its
    /// tables are as they must be.
    pub fn check(&self, location: Option<&str>) -> Result<Checked> {
        let dataset = &self.dataset;
        let there = self.looked(&dataset.to_string(), || self.get_dataset())?.ok_or_else(|| no_dataset(dataset))?;
        in_location(dataset, &there, location)?;
        let location = there.location;
        let (mut wrong, mut otherwise) = (Vec::new(), Vec::new());
        for table in &self.tables {
            let name = format!("{dataset}.{}", table.name);
            let Some(there) = self.looked(&name, || self.get(table.name))? else {
                return Err(Error::Stop(format!("there is no table {name}. Make it: clickstream warehouse init")));
            };
            let (harmless, differences): (Vec<_>, Vec<_>) =
                differences_of(table, &name, &there).into_iter().partition(Difference::is_harmless);
            let told = |difference: &Difference| {
                format!("{name} is laid out differently: {}", difference.to_string().replace('\n', " "))
            };
            otherwise.extend(harmless.iter().map(told));
            if !differences.is_empty() {
                wrong.push(drift(&name, &differences));
            }
            let missing = self.looked(&name, || self.call(self.own.missing(table.name, &NEEDED), identity))?;
            if let Some(permission) = missing.and_then(|missing| missing.first().copied()) {
                let right = Right { permission, project: &dataset.project };
                return Err(Error::Stop(format!(
                    "{name}: {}",
                    right.is_missing("it was asked for, and is not granted")
                )));
            }
        }
        if wrong.is_empty() { Ok(Checked { location, otherwise }) } else { Err(Error::Stop(wrong.join("\n"))) }
    }

    /// What no row needs: that the view is there, and is ours. And what is wrong with it.
    pub fn check_view(&self) -> Result<Option<String>> {
        let name = format!("{}.{VIEW}", self.dataset);
        let Some(there) = self.looked(&name, || self.get(VIEW))? else {
            return Ok(Some(format!("there is no view {name}. Make it: clickstream warehouse init")));
        };
        Ok(of_view(&self.view(), &there).map(|difference| {
            let difference = difference.to_string().replace('\n', " ");
            format!("{name} is something else: {difference}. Rename or drop it, or name another dataset")
        }))
    }

    /// Whether the Storage API answers, through which rows go.
    pub fn check_streams(&self) -> Result<()> {
        let reached = self.call(streams::reach(&self.write, self.path(0)), identity);
        reached.map_err(|why| Error::Stop(format!("the Storage API does not answer as it should: {why}")))
    }

    /// And whether it was made just now.
    fn get_or_insert(&self, table: api::Table) -> Result<(api::Table, bool), Fault> {
        let name = table.table_reference.as_ref().map(|reference| reference.table_id.clone()).unwrap_or_default();
        match self.get(&name) {
            Err(Fault::Gone(_)) => self.insert(table).map(|made| (made, true)),
            there => there.map(|there| (there, false)),
        }
    }

    /// The same; what is made keeps its rows, whatever the dataset gives to its tables.
    fn get_or_make(&self, table: &Table) -> Result<(api::Table, bool), Fault> {
        let (there, is_new) = self.get_or_insert(api_table(&self.dataset, table))?;
        if !is_new || expiries(&there, "").is_empty() {
            return Ok((there, is_new));
        }
        self.call(self.own.never_expires(table), identity)?;
        self.get(table.name).map(|there| (there, true))
    }

    pub(super) fn seen(&self, table: usize) -> Result<Seen, Fault> {
        let there = self.get(self.tables[table].name)?;
        let buffered = there.streaming_buffer.is_some_and(|buffer| buffer.estimated_rows > 0);
        Ok(Seen { rows: there.num_rows.is_some_and(|rows| rows > 0) || buffered, made_ms: there.creation_time })
    }

    pub(super) fn count(&self, table: usize, partition: u32, offsets: &RangeInclusive<i64>) -> Result<i64, Fault> {
        let (name, first, last) = (self.tables[table].name, offsets.start(), offsets.end());
        let sql = format!(
            "SELECT COUNT(*) FROM `{}.{name}` WHERE topic_partition = {partition} AND topic_offset BETWEEN {first} AND {last}",
            self.dataset
        );
        // It shall answer before the call is given up.
        let within_ms = u32::try_from(CALL_WITHIN.as_millis() / 2).unwrap_or(u32::MAX);
        let query = api::QueryRequest::new().set_query(&sql).set_use_legacy_sql(false);
        let query = query.set_use_query_cache(false).set_timeout_ms(within_ms);
        let ask = self.jobs.query().set_project_id(&self.dataset.project).set_query_request(query);
        let answer = self.call(ask.send(), self.fault(QUERY))?;
        if answer.job_complete != Some(true) {
            return Err(Fault::Retry(format!("{sql}: it has not ended")));
        }
        let count = answer.rows.first().and_then(cell).and_then(|cell| cell.parse().ok());
        count.ok_or_else(|| Fault::Stop(format!("{sql}: the answer is no number")))
    }

    fn get(&self, table: &str) -> Result<api::Table, Fault> {
        let Dataset { project, dataset } = &self.dataset;
        let get = self.rest.get_table().set_project_id(project).set_dataset_id(dataset).set_table_id(table);
        self.call(get.send(), self.fault("bigquery.tables.get"))
    }

    fn get_dataset(&self) -> Result<api::Dataset, Fault> {
        let Dataset { project, dataset } = &self.dataset;
        let get = self.datasets.get_dataset().set_project_id(project).set_dataset_id(dataset);
        self.call(get.send(), self.fault("bigquery.datasets.get"))
    }

    fn insert(&self, table: api::Table) -> Result<api::Table, Fault> {
        let Dataset { project, dataset } = &self.dataset;
        let insert = self.rest.insert_table().set_project_id(project).set_dataset_id(dataset).set_table(table);
        self.call(insert.send(), self.fault("bigquery.tables.create"))
    }

    fn add_columns(&self, table: usize, there: api::Table, missing: &[Difference]) -> Result<()> {
        let name = format!("{}.{}", self.dataset, self.tables[table].name);
        let mut schema = there.schema.unwrap_or_default();
        add(&mut schema.fields, missing);
        let Dataset { project, dataset } = &self.dataset;
        let patch = self.rest.patch_table().set_project_id(project).set_dataset_id(dataset);
        let patch = patch.set_table_id(self.tables[table].name).set_table(api::Table::new().set_schema(schema));
        let patch = || self.call(patch.clone().send(), self.fault("bigquery.tables.update"));
        self.looked(&name, patch).map(drop)
    }

    fn make_dataset(&self, location: Option<&str>) -> Result<Made> {
        let name = self.dataset.to_string();
        let Dataset { project, dataset } = &self.dataset;
        let reference = api::DatasetReference::new().set_project_id(project).set_dataset_id(dataset);
        let mut new = api::Dataset::new().set_dataset_reference(reference);
        if let Some(location) = location {
            new = new.set_location(location);
        }
        let insert = self.datasets.insert_dataset().set_project_id(project).set_dataset(new);
        let get_or_insert = || match self.get_dataset() {
            Err(Fault::Gone(_)) => {
                self.call(insert.clone().send(), self.fault("bigquery.datasets.create")).map(|made| (made, true))
            }
            there => there.map(|there| (there, false)),
        };
        match self.looked(&name, get_or_insert)? {
            Some((_, true)) => Ok(Made::Made(name)),
            Some((there, false)) => {
                in_location(&self.dataset, &there, location)?;
                Ok(Made::AsItIs(name))
            }
            None => Err(Error::Stop(format!("there is no project {project}: gcloud projects list shows yours"))),
        }
    }

    fn view(&self) -> api::Table {
        let query = view_query(&format!("{}.events", self.dataset));
        let view = api::ViewDefinition::new().set_query(query).set_use_legacy_sql(false);
        api::Table::new().set_table_reference(reference(&self.dataset, VIEW)).set_view(view)
    }

    /// What an error means, where this permission was needed.
    fn fault(&self, permission: &'static str) -> impl Fn(ApiError) -> Fault + '_ {
        move |error| fault_of(&error, Right { permission, project: &self.dataset.project })
    }

    /// Asks, and again for what may pass. None if there is no such thing.
    fn looked<T>(&self, name: &str, ask: impl Fn() -> Result<T, Fault>) -> Result<Option<T>> {
        let mut tries = 1;
        loop {
            match ask() {
                Ok(answer) => return Ok(Some(answer)),
                Err(Fault::Gone(_)) => return Ok(None),
                Err(Fault::Stop(why)) => return Err(Error::Stop(format!("{name}: {why}"))),
                Err(Fault::Retry(why) | Fault::Throttled(why)) if tries == TRIES => {
                    return Err(Error::Unavailable(format!("{name}: {why}")));
                }
                Err(_) => {}
            }
            tries += 1;
            Cancel::new().wait(PAUSE);
        }
    }
}

/// The only one of a row: `{"f": [{"v": "3"}]}`.
fn cell(row: &Map<String, Value>) -> Option<&str> {
    row.get("f")?.get(0)?.get("v")?.as_str()
}

fn no_dataset(dataset: &Dataset) -> Error {
    Error::Stop(format!(
        "there is no dataset {dataset}, or no such project. Make it: clickstream warehouse init --warehouse {dataset} \
         [--location EU]"
    ))
}

fn in_location(dataset: &Dataset, there: &api::Dataset, location: Option<&str>) -> Result<()> {
    match location {
        Some(location) if !there.location.eq_ignore_ascii_case(location) => Err(Error::Stop(format!(
            "the dataset {dataset} is in {}, not in {location}: a dataset cannot be moved. Name another dataset, or \
             --location {}",
            there.location, there.location
        ))),
        _ => Ok(()),
    }
}

/// A diff, and what mends it.
pub(super) fn drift(name: &str, differences: &[Difference]) -> String {
    let lines: Vec<_> = differences.iter().map(ToString::to_string).collect();
    let (lines, remedy) = (lines.join("\n"), remedy(differences));
    format!("the table {name} has another schema (- as it is, + as it should be):\n{lines}\n{remedy}")
}

fn reference(dataset: &Dataset, table: &str) -> api::TableReference {
    api::TableReference::new().set_project_id(&dataset.project).set_dataset_id(&dataset.dataset).set_table_id(table)
}

fn api_table(dataset: &Dataset, table: &Table) -> api::Table {
    let partitions = api::TimePartitioning::new().set_type("DAY").set_field(table.partition_by);
    api::Table::new()
        .set_table_reference(reference(dataset, table.name))
        .set_schema(api::TableSchema::new().set_fields(table.columns.iter().map(api_field)))
        .set_time_partitioning(partitions)
        .set_clustering(api::Clustering::new().set_fields(table.cluster_by))
}

fn api_field(column: &Column) -> api::TableFieldSchema {
    let field = api::TableFieldSchema::new()
        .set_name(&column.name)
        .set_type(column.kind.api_name())
        .set_mode(column.mode.api_name())
        .set_fields(column.fields.iter().map(api_field));
    match column.kind.digits() {
        (0, _) => field,
        (precision, scale) => field.set_precision(precision).set_scale(scale),
    }
}

/// What is missing, in records too.
fn add(fields: &mut Vec<api::TableFieldSchema>, missing: &[Difference]) {
    for difference in missing {
        match difference {
            Difference::Missing(column) => {
                // Rows that are there already have no value for it.
                let mode = if column.mode == Mode::Repeated { Mode::Repeated } else { Mode::Nullable };
                fields.push(api_field(&Column { mode, ..column.clone() }));
            }
            Difference::Other { is, should } => {
                if let Some(field) = fields.iter_mut().find(|field| field.name == is.name) {
                    add(&mut field.fields, &differences(&should.fields, &is.fields));
                }
            }
            _ => {}
        }
    }
}

/// Whether all that is wrong with the columns is that some are missing.
fn schema_is_additive(differences: &[Difference]) -> bool {
    let mut of_columns = differences.iter().filter(|difference| difference.is_of_columns()).peekable();
    of_columns.peek().is_some() && of_columns.all(Difference::is_additive)
}

/// By what, as DDL has it; nothing if it is not.
fn partitions_of(there: &api::Table) -> String {
    if let Some(by) = &there.range_partitioning {
        return format!("RANGE_BUCKET({}, …)", by.field);
    }
    let Some(by) = &there.time_partitioning else { return String::new() };
    let field = by.field.as_deref().unwrap_or("_PARTITIONTIME");
    match by.r#type.as_str() {
        "DAY" => format!("DATE({field})"),
        other => format!("TIMESTAMP_TRUNC({field}, {other})"),
    }
}

/// What takes rows, or the table itself, away by itself.
fn expiries(there: &api::Table, name: &str) -> Vec<Difference> {
    #[allow(clippy::cast_precision_loss, reason = "days for people")]
    let days = |ms: i64| ms as f64 / 86_400_000.0;
    let of_partitions = there.time_partitioning.as_ref().and_then(|by| by.expiration_ms);
    let of_partitions = of_partitions.map(|ms| ("partition_expiration_days", days(ms).to_string()));
    let of_table = there.expiration_time.map(|ms| ("expiration_timestamp", format!("TIMESTAMP_MILLIS({ms})")));
    let expires = |(option, is)| Difference::Expires { table: name.to_owned(), option, is };
    of_partitions.into_iter().chain(of_table).map(expires).collect()
}

fn differences_of(table: &Table, name: &str, there: &api::Table) -> Vec<Difference> {
    if !["", "TABLE"].contains(&there.r#type.as_str()) {
        return vec![Difference::NoTable { is: there.r#type.clone() }];
    }
    let columns: Vec<Column> =
        there.schema.as_ref().map(|schema| schema.fields.iter().map(column_of).collect()).unwrap_or_default();
    let mut found = differences(&table.columns, &columns);
    let (partitions, should) = (partitions_of(there), format!("DATE({})", table.partition_by));
    if partitions != should {
        found.push(Difference::Partitions { is: partitions, should });
    }
    found.extend(expiries(there, name));
    let clusters = there.clustering.as_ref().map(|by| by.fields.join(", ")).unwrap_or_default();
    if clusters != table.cluster_by.join(", ") {
        found.push(Difference::Clusters { is: clusters, should: table.cluster_by.join(", ") });
    }
    found
}

/// How what has the view's name differs from it: it may be a table, as the batch pipelines had it.
fn of_view(view: &api::Table, there: &api::Table) -> Option<Difference> {
    let told = |table: &api::Table| match &table.view {
        Some(view) => format!("VIEW AS {}", view.query.trim().trim_end_matches(';')),
        None => there.r#type.clone(),
    };
    let (is, should) = (told(there), told(view));
    let same = is.split_whitespace().eq(should.split_whitespace());
    (!same).then_some(Difference::View { is, should })
}

fn column_of(field: &api::TableFieldSchema) -> Column {
    Column {
        name: field.name.clone(),
        kind: Kind::of_api(&field.r#type, field.precision, field.scale),
        mode: Mode::of_api(&field.mode),
        fields: field.fields.iter().map(column_of).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::schema::tables;

    #[test]
    fn layouts_and_expiries() {
        let events = &tables()[0];
        let dataset = Dataset { project: "shop".into(), dataset: "clicks".into() };
        let whole = api_table(&dataset, events);
        let by = |kind: &str| api::TimePartitioning::new().set_type(kind).set_field("event_time");
        let expiring = by("DAY").set_expiration_ms(5_184_000_000_i64);
        let keep = |option: &str| format!("+ ALTER TABLE `shop.clicks.events` SET OPTIONS ({option} = NULL)");
        for (there, says, harmless) in [
            (whole.clone(), String::new(), true),
            (whole.clone().set_type("TABLE"), String::new(), true),
            (whole.clone().set_type("VIEW"), "- VIEW\n+ TABLE".into(), false),
            (
                whole.clone().set_time_partitioning(by("MONTH")),
                "- PARTITION BY TIMESTAMP_TRUNC(event_time, MONTH)\n+ PARTITION BY DATE(event_time)".into(),
                true,
            ),
            (
                whole.clone().set_or_clear_time_partitioning(None::<api::TimePartitioning>),
                "- (no PARTITION BY)\n+ PARTITION BY DATE(event_time)".into(),
                true,
            ),
            (
                whole.clone().set_time_partitioning(expiring),
                format!(
                    "- OPTIONS (partition_expiration_days = 60): what is older is deleted\n{}",
                    keep("partition_expiration_days")
                ),
                false,
            ),
            (
                whole.set_expiration_time(1_700_000_000_000_i64),
                format!(
                    "- OPTIONS (expiration_timestamp = TIMESTAMP_MILLIS(1700000000000)): what is older is deleted\n{}",
                    keep("expiration_timestamp")
                ),
                false,
            ),
        ] {
            let found = differences_of(events, "shop.clicks.events", &there);
            let told: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(told.join("\n"), says);
            assert!(found.iter().all(|difference| difference.is_harmless() == harmless), "{found:?}");
        }
    }

    #[test]
    fn columns_are_added_where_they_are_missing() {
        let sessions = &tables()[2];
        let whole: Vec<_> = sessions.columns.iter().map(api_field).collect();
        let mut there = whole.clone();
        there.retain(|field| field.name != "revenue");
        let list = there.iter_mut().find(|field| field.name == "left_in_cart").unwrap();
        list.fields.retain(|field| field.name != "value");
        let missing = |there: &[api::TableFieldSchema]| {
            differences(&sessions.columns, &there.iter().map(column_of).collect::<Vec<_>>())
        };
        let found = missing(&there);
        assert!(found.len() == 2 && found.iter().all(Difference::is_additive), "{found:?}");
        add(&mut there, &found);
        assert_eq!((missing(&there), there.len()), (vec![], whole.len()));
        let list = there.iter().find(|field| field.name == "left_in_cart").unwrap();
        let value = list.fields.last().unwrap();
        assert_eq!((value.name.as_str(), value.mode.as_str(), list.fields.len()), ("value", "NULLABLE", 4));
    }
}
