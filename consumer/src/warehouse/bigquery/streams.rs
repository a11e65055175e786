//! Committed write streams: appends with an offset, of Arrow rows.
use std::sync::Arc;

use bytes::Bytes;
use google_cloud_bigquery::client::Write;
use google_cloud_bigquery::model::{ArrowRecordBatch, ArrowSchema};
use google_cloud_bigquery::write::format::Arrow;
use google_cloud_bigquery::write::{AppendFuture, CommittedWriter, DefaultWriter};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::faults::{Right, answer_of, fault_of, of_builder};
use crate::warehouse::backend::{Answer, Connection, Done, Fault, Request};
use crate::warehouse::rows::{rows_message, schema_message};
use crate::warehouse::schema::Table;

/// Requests on a connection that are not sent yet. A partition has no more under way.
const QUEUE: usize = 64;

fn schema_of(table: &Table) -> Result<ArrowSchema, Fault> {
    let message = schema_message(&table.arrow).map_err(|e| Fault::Stop(format!("{}: {e}", table.name)))?;
    Ok(ArrowSchema::new().set_serialized_schema(message))
}

pub(super) async fn create(write: &Write, path: String, table: &Table) -> Result<String, Fault> {
    let writer: CommittedWriter<Arrow> = write
        .create_stream(&path)
        .build_arrow(schema_of(table)?)
        .await
        .map_err(|e| of_builder(&e, Right::to_write(&path)))?;
    Ok(writer.write_stream().to_owned())
}

/// Asks the Storage API for the stream that every table has.
pub(super) async fn reach(write: &Write, path: String) -> Result<(), Fault> {
    // It is asked for only where its connections are shared.
    let open = write.open_default_stream(&path).with_multiplexing(true);
    let opened: Result<DefaultWriter<Arrow>, _> = open.build_arrow(ArrowSchema::new()).await;
    opened.map(drop).map_err(|e| of_builder(&e, Right::to_write(&path)))
}

pub(super) async fn finalize(write: &Write, stream: &str) -> Result<i64, Fault> {
    let right = Right::to_write(stream);
    let writer: CommittedWriter<Arrow> =
        write.attach_to_stream(stream).build_arrow(ArrowSchema::new()).await.map_err(|e| of_builder(&e, right))?;
    Ok(writer.finalize().await.map_err(|e| fault_of(&e, right))?.row_count)
}

/// One AppendRows call that lives as long as this.
pub(super) struct StreamConnection {
    queue: mpsc::Sender<(i64, Bytes, Done)>,
}

pub(super) fn connect(runtime: &Handle, write: &Arc<Write>, stream: &str, table: &Table) -> StreamConnection {
    let (queue, requests) = mpsc::channel(QUEUE);
    runtime.spawn(serve(Arc::clone(write), stream.into(), schema_of(table), requests));
    StreamConnection { queue }
}

async fn serve(
    write: Arc<Write>,
    stream: Arc<str>,
    schema: Result<ArrowSchema, Fault>,
    mut requests: mpsc::Receiver<(i64, Bytes, Done)>,
) {
    let attached = match schema {
        Ok(schema) => {
            let attached: Result<CommittedWriter<Arrow>, _> =
                write.attach_to_stream(stream.as_ref()).build_arrow(schema).await;
            attached.map_err(|e| of_builder(&e, Right::to_write(&stream)))
        }
        Err(fault) => Err(fault),
    };
    let writer = match attached {
        Ok(writer) => writer,
        Err(fault) => {
            let answer = match fault {
                Fault::Retry(why) => Answer::Unknown(why),
                Fault::Throttled(why) => Answer::Throttled(why),
                Fault::Gone(why) => Answer::StreamGone(why),
                Fault::Stop(why) => Answer::Refused(why),
            };
            while let Some((.., done)) = requests.recv().await {
                done(answer.clone());
            }
            return;
        }
    };
    // Answers are told in order too: where a connection ends, the first of them says why.
    let (tell, mut told) = mpsc::channel::<(AppendFuture, Done)>(QUEUE);
    tokio::spawn(async move {
        while let Some((appended, done)) = told.recv().await {
            done(answer_of(appended.await, Right::to_write(&stream)));
        }
    });
    while let Some((offset, rows, done)) = requests.recv().await {
        let rows = ArrowRecordBatch::new().set_serialized_record_batch(rows);
        // Queued as this returns, so in order; the answers are awaited beside.
        let appended = writer.append(rows).set_offset(offset).send();
        if tell.send((appended, done)).await.is_err() {
            return;
        }
    }
}

impl Connection for StreamConnection {
    fn append(&mut self, request: Request, done: Done) -> usize {
        let rows = match rows_message(&request.rows) {
            Ok(rows) => rows,
            Err(e) => {
                done(Answer::Refused(format!("rows cannot be encoded: {e}")));
                return 0;
            }
        };
        let bytes = rows.len();
        if let Err(unsent) = self.queue.try_send((request.offset, rows, done)) {
            let (.., done) = unsent.into_inner();
            done(Answer::Unknown("the connection has ended".into()));
        }
        bytes
    }
}
