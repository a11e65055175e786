//! What is there: the dataset, the tables, the view; and making it.
use std::convert::identity;
use std::ops::RangeInclusive;

use google_cloud_bigquery_v2::model as api;
use google_cloud_gax::error::Error as ApiError;
use serde_json::{Map, Value};

use super::faults::{QUERY, Right, WRITE, fault_of};
use super::{BigQuery, CALL_WITHIN, Dataset};
use crate::columns::{PRICE_DIGITS, SUM_DIGITS};
use crate::warehouse::backend::{Fault, Seen};
use crate::warehouse::error::{Error, Result};
use crate::warehouse::schema::{Column, Difference, Kind, Mode, Table, VIEW, differences, view_query};

/// What the sink asks of a table, beside the making of it.
const NEEDED: [&str; 2] = ["bigquery.tables.get", WRITE];

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

impl BigQuery {
    /// Makes what is missing: the dataset (in `location`), the tables, the view. Columns are added
    /// to a table only if `add_columns`; nothing is ever taken away.
    pub fn init(&self, location: Option<&str>, add_columns: bool) -> Result<Vec<Made>> {
        let mut made = vec![self.make_dataset(location)?];
        for (i, table) in self.tables.iter().enumerate() {
            let name = format!("{}.{}", self.dataset, table.name);
            made.push(match self.looked(self.get(table.name), &name)? {
                None => {
                    self.looked(self.insert(api_table(&self.dataset, table)), &name)?;
                    Made::Made(name)
                }
                Some(there) => {
                    let differences = differences_of(table, &there);
                    if differences.is_empty() {
                        Made::AsItIs(name)
                    } else if add_columns && differences.iter().all(Difference::is_additive) {
                        self.add_columns(i, there, &differences)?;
                        Made::Extended(name, differences)
                    } else {
                        Made::Differs(name, differences)
                    }
                }
            });
        }
        let name = format!("{}.{VIEW}", self.dataset);
        made.push(match self.looked(self.get(VIEW), &name)? {
            Some(there) => match of_view(&self.view(), &there) {
                None => Made::AsItIs(name),
                Some(difference) => Made::Differs(name, vec![difference]),
            },
            None => {
                self.looked(self.insert(self.view()), &name)?;
                Made::Made(name)
            }
        });
        Ok(made)
    }

    /// Whether rows can be written: the dataset is there (in `location`, if one is given), and its
    /// tables are as they must be. Returns where it is.
    pub fn check(&self, location: Option<&str>) -> Result<String> {
        let dataset = &self.dataset;
        let there = self.looked(self.get_dataset(), &dataset.to_string())?.ok_or_else(|| no_dataset(dataset))?;
        in_location(dataset, &there, location)?;
        let location = there.location;
        let mut wrong = Vec::new();
        for table in &self.tables {
            let name = format!("{dataset}.{}", table.name);
            let Some(there) = self.looked(self.get(table.name), &name)? else {
                return Err(Error::Stop(format!("there is no table {name}. Make it: clickstream warehouse init")));
            };
            let (harmless, differences): (Vec<_>, Vec<_>) =
                differences_of(table, &there).into_iter().partition(Difference::is_harmless);
            for difference in harmless {
                tracing::warn!(
                    table = name,
                    "it is laid out differently: {}",
                    difference.to_string().replace('\n', " ")
                );
            }
            if !differences.is_empty() {
                wrong.push(drift(&name, &differences));
            }
            let missing = self.looked(self.call(self.own.missing(table.name, &NEEDED), identity), &name)?;
            if let Some(permission) = missing.and_then(|missing| missing.first().copied()) {
                let right = Right { permission, project: &dataset.project };
                return Err(Error::Stop(format!(
                    "{name}: {}",
                    right.is_missing("it was asked for, and is not granted")
                )));
            }
        }
        if wrong.is_empty() { Ok(location) } else { Err(Error::Stop(wrong.join("\n"))) }
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
        self.looked(self.call(patch.send(), self.fault("bigquery.tables.update")), &name).map(drop)
    }

    fn make_dataset(&self, location: Option<&str>) -> Result<Made> {
        let name = self.dataset.to_string();
        if let Some(there) = self.looked(self.get_dataset(), &name)? {
            in_location(&self.dataset, &there, location)?;
            return Ok(Made::AsItIs(name));
        }
        let Dataset { project, dataset } = &self.dataset;
        let reference = api::DatasetReference::new().set_project_id(project).set_dataset_id(dataset);
        let mut new = api::Dataset::new().set_dataset_reference(reference);
        if let Some(location) = location {
            new = new.set_location(location);
        }
        let insert = self.datasets.insert_dataset().set_project_id(project).set_dataset(new);
        match self.looked(self.call(insert.send(), self.fault("bigquery.datasets.create")), &name)? {
            Some(_) => Ok(Made::Made(name)),
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

    /// None if there is no such thing.
    fn looked<T>(&self, answer: Result<T, Fault>, name: &str) -> Result<Option<T>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Fault::Gone(_)) => Ok(None),
            Err(Fault::Stop(why)) => Err(Error::Stop(format!("{name}: {why}"))),
            Err(Fault::Retry(why) | Fault::Throttled(why)) => Err(Error::Unavailable(format!("{name}: {why}"))),
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
    let remedy = if differences.iter().all(Difference::is_additive) {
        "Add what is missing: clickstream warehouse init --add-columns"
    } else {
        "Name another dataset, or copy the table to one of the right schema"
    };
    format!("the table {name} has another schema (- as it is, + as it should be):\n{}\n{remedy}", lines.join("\n"))
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
    match column.kind {
        Kind::Money => field.set_precision(i64::from(PRICE_DIGITS)).set_scale(2),
        Kind::Sum => field.set_precision(i64::from(SUM_DIGITS)).set_scale(2),
        _ => field,
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

fn differences_of(table: &Table, there: &api::Table) -> Vec<Difference> {
    let columns: Vec<Column> =
        there.schema.as_ref().map(|schema| schema.fields.iter().map(column_of).collect()).unwrap_or_default();
    let mut found = differences(&table.columns, &columns);
    let partitions = there.time_partitioning.as_ref().and_then(|by| by.field.clone()).unwrap_or_default();
    if partitions != table.partition_by {
        found.push(Difference::Partitions { is: partitions, should: table.partition_by });
    }
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
        kind: Kind::of_api(&field.r#type),
        mode: Mode::of_api(&field.mode),
        fields: field.fields.iter().map(column_of).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warehouse::schema::tables;

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
