//! Streaming inserts (`tabledata.insertAll`): each row with an insertId, by which BigQuery drops
//! repeats for about a minute. Google's client does not have this call.
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use google_cloud_auth::credentials::{CacheableResource, Credentials};
use records::{Cents, EventTime};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::{Access, Dataset};
use crate::warehouse::backend::{Answer, Connection, Done, Request};
use crate::warehouse::rows::offsets;

const ENDPOINT: &str = "https://bigquery.googleapis.com";

pub(super) struct Inserts {
    client: reqwest::Client,
    credentials: Credentials,
    /// Up to the table's name.
    tables: String,
}

impl Inserts {
    pub(super) fn new(dataset: &Dataset, access: &Access, credentials: Credentials) -> Self {
        let endpoint = access.endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/');
        let Dataset { project, dataset } = dataset;
        let tables = format!("{endpoint}/bigquery/v2/projects/{project}/datasets/{dataset}/tables");
        Self { client: reqwest::Client::new(), credentials, tables }
    }

    pub(super) fn connect(&self, runtime: &Handle, table: &str) -> Inserter {
        Inserter {
            client: self.client.clone(),
            credentials: self.credentials.clone(),
            url: format!("{}/{table}/insertAll", self.tables).into(),
            runtime: runtime.clone(),
        }
    }
}

pub(super) struct Inserter {
    client: reqwest::Client,
    credentials: Credentials,
    url: Arc<str>,
    runtime: Handle,
}

impl Connection for Inserter {
    fn append(&mut self, request: Request, done: Done) {
        let body = body(&request.rows, &request.origin);
        let (client, credentials, url) = (self.client.clone(), self.credentials.clone(), Arc::clone(&self.url));
        self.runtime.spawn(async move { done(insert(&client, &credentials, &url, &body).await) });
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    insert_errors: Vec<InsertErrors>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct InsertErrors {
    index: usize,
    errors: Vec<RowError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RowError {
    reason: String,
    location: String,
    message: String,
}

async fn insert(client: &reqwest::Client, credentials: &Credentials, url: &str, body: &Value) -> Answer {
    let headers = match credentials.headers(Default::default()).await {
        Ok(CacheableResource::New { data, .. }) => data,
        Ok(CacheableResource::NotModified) => Default::default(),
        Err(e) if e.is_transient() => return Answer::Unknown(e.to_string()),
        Err(e) => return Answer::Refused(format!("no credentials that Google takes: {e}")),
    };
    let sent = client.post(url).headers(headers).json(body).send().await;
    let (status, text) = match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.text().await {
                Ok(text) => (status, text),
                Err(e) => return Answer::Unknown(e.without_url().to_string()),
            }
        }
        Err(e) => return Answer::Unknown(e.without_url().to_string()),
    };
    answer(status, &text)
}

fn answer(status: u16, text: &str) -> Answer {
    const LONGEST: usize = 500;
    let short = || format!("HTTP {status}: {}", text.chars().take(LONGEST).collect::<String>().replace('\n', " "));
    let is_quota = ["rateLimitExceeded", "quotaExceeded"].iter().any(|reason| text.contains(reason));
    match status {
        200 => match serde_json::from_str::<Response>(text) {
            Ok(response) => inserted(response),
            Err(e) => Answer::Unknown(format!("the answer cannot be read: {e}")),
        },
        429 => Answer::Throttled(short()),
        403 if is_quota => Answer::Throttled(short()),
        500.. | 408 => Answer::Unknown(short()),
        401 => Answer::Refused(format!("no credentials that Google takes ({})", short())),
        403 => Answer::Refused(format!(
            "permission denied: the account needs the role roles/bigquery.dataEditor on the dataset ({})",
            short()
        )),
        _ => Answer::Refused(short()),
    }
}

/// One wrong row, and none is inserted: the others are only `stopped`.
fn inserted(response: Response) -> Answer {
    if response.insert_errors.is_empty() {
        return Answer::Appended;
    }
    let wrong: Vec<_> = response
        .insert_errors
        .iter()
        .filter_map(|row| {
            let error = row.errors.iter().find(|error| error.reason != "stopped")?;
            Some((row.index, format!("{} {}: {}", error.reason, error.location, error.message)))
        })
        .collect();
    match wrong.is_empty() {
        true => Answer::Unknown("all rows were stopped, and none is wrong".into()),
        false => Answer::RowErrors(wrong),
    }
}

fn body(batch: &RecordBatch, origin: &str) -> Value {
    let offsets = offsets(batch);
    let rows: Vec<Value> = (0..batch.num_rows())
        .map(|row| json!({"insertId": format!("{origin}-{}", offsets[row]), "json": object(batch, row)}))
        .collect();
    json!({"rows": rows})
}

fn object(batch: &RecordBatch, row: usize) -> Value {
    let fields = batch.schema_ref().fields().iter().zip(batch.columns());
    Value::Object(fields.filter_map(|(field, column)| Some((field.name().clone(), value(column, row)?))).collect())
}

/// None for NULL. Integers and money are text: a JSON number may lose digits.
fn value(array: &dyn Array, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string().into(),
        DataType::Decimal64(..) => Cents(array.as_primitive::<Decimal64Type>().value(row)).to_string().into(),
        DataType::Timestamp(..) => time(array.as_primitive::<TimestampMicrosecondType>().value(row)).into(),
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).filter_map(|item| value(&items, item)).collect()
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let fields: Map<String, Value> =
                columns.filter_map(|(field, column)| Some((field.name().clone(), value(column, row)?))).collect();
            fields.into()
        }
        // The tables have no other.
        _ => return None,
    })
}

/// `2019-10-01 00:00:00.000000 UTC`.
fn time(us: i64) -> String {
    let text = EventTime(us).to_string();
    let seconds = text.strip_suffix(" UTC").unwrap_or(&text);
    format!("{seconds}.{:06} UTC", us.rem_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let errors = |reason: &str| {
            format!(
                r#"{{"insertErrors": [{{"index": 0, "errors": [{{"reason": "stopped"}}]}}, {{"index": 2, "errors":
                [{{"reason": "{reason}", "location": "price", "message": "no"}}]}}]}}"#
            )
        };
        let invalid = Answer::RowErrors(vec![(2, "invalid price: no".into())]);
        assert_eq!(answer(200, "{}"), Answer::Appended);
        assert_eq!(answer(200, &errors("invalid")), invalid);
        assert!(matches!(answer(200, &errors("stopped")), Answer::Unknown(_)));
        assert!(matches!(answer(200, "<html>"), Answer::Unknown(_)));
        for (status, text) in [(429, ""), (403, "rateLimitExceeded"), (403, "quotaExceeded")] {
            assert!(matches!(answer(status, text), Answer::Throttled(_)), "{status}");
        }
        for status in [500, 502, 503, 504, 408] {
            assert!(matches!(answer(status, ""), Answer::Unknown(_)), "{status}");
        }
        for status in [400, 401, 403, 404, 413] {
            assert!(matches!(answer(status, ""), Answer::Refused(_)), "{status}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(1), "1970-01-01 00:00:00.000001 UTC");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999999 UTC");
    }
}
