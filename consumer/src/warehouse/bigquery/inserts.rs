//! Streaming inserts (`tabledata.insertAll`): each row with an insertId, by which BigQuery drops
//! repeats for about a minute.
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Decimal64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use records::{Cents, EventTime};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::faults::{Right, WRITE};
use super::rest::Rest;
use crate::warehouse::backend::{Answer, Connection, Done, Fault, Request};
use crate::warehouse::rows::offsets;

pub(super) struct Inserter {
    pub(super) rest: Rest,
    pub(super) project: String,
    pub(super) table: &'static str,
    pub(super) runtime: Handle,
}

impl Connection for Inserter {
    fn append(&mut self, request: Request, done: Done) -> usize {
        let body = body(&request.rows, &request.origin).to_string();
        let bytes = body.len();
        let (rest, project, path) = (self.rest.clone(), self.project.clone(), format!("{}/insertAll", self.table));
        let rows = request.rows.num_rows();
        self.runtime.spawn(async move {
            done(match rest.post(&path, body).await {
                Ok((status, text)) => answer(status, &text, &project, rows),
                Err(Fault::Retry(why) | Fault::Gone(why)) => Answer::Unknown(why),
                Err(Fault::Throttled(why)) => Answer::Throttled(why),
                Err(Fault::Stop(why)) => Answer::Refused(why),
            });
        });
        bytes
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

/// To a request of so many rows.
fn answer(status: u16, text: &str, project: &str, rows: usize) -> Answer {
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
        // BigQuery does not find a table at once that was made just now.
        404 => Answer::Unknown(format!("{}. If the table is gone, make it: clickstream warehouse init", short())),
        413 if rows == 1 => Answer::RowErrors(vec![(0, format!("it is too large for a request ({})", short()))]),
        401 => Answer::Refused(format!("no credentials that Google takes ({})", short())),
        403 => Answer::Refused(Right { permission: WRITE, project }.is_missing(&short())),
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
        let answer = |status, text: &str| super::answer(status, text, "shop", 2);
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
        let alone = super::answer(413, "too large", "shop", 1);
        assert!(matches!(alone, Answer::RowErrors(rows) if rows[0].0 == 0 && rows[0].1.contains("too large")));
        for status in [500, 502, 503, 504, 408, 404] {
            assert!(matches!(answer(status, ""), Answer::Unknown(_)), "{status}");
        }
        for status in [400, 401, 403, 413] {
            assert!(matches!(answer(status, ""), Answer::Refused(_)), "{status}");
        }
    }

    #[test]
    fn a_refusal_names_the_permission() {
        let Answer::Refused(why) = super::answer(403, "Access Denied", "shop", 1) else { panic!("refused for good") };
        assert!(why.contains(WRITE) && why.contains("binding shop ") && why.contains("Access Denied"), "{why}");
    }

    #[test]
    fn times() {
        assert_eq!(time(1), "1970-01-01 00:00:00.000001 UTC");
        assert_eq!(time(-1), "1969-12-31 23:59:59.999999 UTC");
    }
}
