//! Whether a bucket can be used, found out before anything is sent; and what a person is told when
//! it cannot.
use std::error::Error as _;
use std::time::Duration;

use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use super::{Access, Bucket, Credentials, Scheme};
use crate::lake::error::{Error, Result};

/// An object without bytes that says: objects may be created here. It stays; readers' globs
/// (`events/*/*.parquet`) do not meet it.
const MARKER: &str = "_clickstream";

/// How often a fault that may pass is tried again.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn check(
    bucket: &Bucket,
    access: &Access,
    store: &dyn ObjectStore,
    credentials: &Credentials,
) -> Result<()> {
    if let Err(why) = trying(credentials).await {
        return Err(Error::Stop(format!("{bucket}: {}", no_credentials(bucket, &why))));
    }
    let refused = |right| {
        move |e: object_store::Error| Error::Stop(format!("{bucket}: {}", told(bucket, access, &e, Some(right))))
    };
    let list = || async { store.list(Some(&Path::from(MARKER))).next().await.transpose().map(|_| ()) };
    trying(list).await.map_err(refused(Right::List))?;
    let marker = Path::from(MARKER);
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let create = || async {
        match store.put_opts(&marker, PutPayload::default(), options.clone()).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    };
    trying(create).await.map_err(refused(Right::Create))?;
    // Footers are read: where the answer to a PUT was lost, and at a restart.
    let read = || async { store.head(&marker).await.map(|_| ()) };
    trying(read).await.map_err(refused(Right::Get))
}

/// What the lake does with objects.
#[derive(Clone, Copy, Debug)]
pub(in crate::lake) enum Right {
    List,
    Create,
    Get,
}

impl Right {
    const fn permission(self, scheme: Scheme) -> &'static str {
        match (scheme, self) {
            (Scheme::Gs, Self::List) => "storage.objects.list",
            (Scheme::Gs, Self::Create) => "storage.objects.create",
            (Scheme::Gs, Self::Get) => "storage.objects.get",
            (Scheme::S3, Self::List) => "s3:ListBucket",
            (Scheme::S3, Self::Create) => "s3:PutObject",
            (Scheme::S3, Self::Get) => "s3:GetObject",
        }
    }
}

async fn trying<F>(call: impl Fn() -> F) -> object_store::Result<()>
where
    F: Future<Output = object_store::Result<()>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let late = || object_store::Error::Generic { store: "bucket", source: "no answer".into() };
        let answer = tokio::time::timeout(ANSWER_WITHIN, call()).await.unwrap_or_else(|_| Err(late()));
        match answer {
            Err(e) if tries < TRIES && !matches!(status(&e), Some(400..=404)) => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

/// What is wrong, and what mends it.
pub(in crate::lake) fn told(
    bucket: &Bucket,
    access: &Access,
    error: &object_store::Error,
    right: Option<Right>,
) -> String {
    let name = &bucket.name;
    let denied = || {
        let missing = right.map(|right| format!(": {} is missing", right.permission(bucket.scheme)));
        format!("permission denied{}", missing.unwrap_or_default())
    };
    match (status(error), bucket.scheme) {
        (Some(404), Scheme::Gs) => {
            format!("there is no bucket {name}. Make it (gcloud storage buckets create gs://{name}), or name another")
        }
        (Some(404), Scheme::S3) => {
            format!("there is no bucket {name}. Make it (aws s3 mb s3://{name}), or name another")
        }
        (Some(403), Scheme::Gs) => format!(
            "{}. The account needs storage.objects.list, .get and .create on the bucket (the role \
             roles/storage.objectUser): gcloud storage buckets add-iam-policy-binding gs://{name} \
             --member=serviceAccount:ACCOUNT --role=roles/storage.objectUser ({})",
            denied(),
            reason(error)
        ),
        (Some(403), Scheme::S3) => format!(
            "{}. The credentials need s3:ListBucket on arn:aws:s3:::{name} and s3:GetObject and \
             s3:PutObject on arn:aws:s3:::{name}/* ({})",
            denied(),
            reason(error)
        ),
        (Some(401), _) => no_credentials(bucket, error),
        _ => match &access.endpoint {
            Some(endpoint) => format!("{endpoint} does not answer as a store should: {}", reason(error)),
            None => reason(error),
        },
    }
}

/// The HTTP status behind an error. object_store keeps it to itself for lists, and only says it in
/// the text.
pub(in crate::lake) fn status(error: &object_store::Error) -> Option<u16> {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => return Some(404),
        E::PermissionDenied { .. } => return Some(403),
        E::Unauthenticated { .. } => return Some(401),
        _ => {}
    }
    let text = reason(error);
    text.split_once("status code: ")?.1.get(..3)?.parse().ok()
}

fn no_credentials(bucket: &Bucket, error: &object_store::Error) -> String {
    let remedy = match bucket.scheme {
        Scheme::Gs => {
            "no credentials that Google takes. Name a service account's key file (--google-credentials FILE), or log in \
             (gcloud auth application-default login), or run where a service account is attached (workload identity)"
        }
        Scheme::S3 => {
            "no credentials that the store takes. Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or run \
             where a role is attached"
        }
    };
    format!("{remedy} ({})", reason(error))
}

/// The innermost cause: the others only wrap it.
pub(in crate::lake) fn reason(error: &object_store::Error) -> String {
    const LONGEST: usize = 300;
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        reason = inner.to_string();
        source = inner.source();
    }
    if let Some((at, _)) = reason.char_indices().nth(LONGEST) {
        reason.truncate(at);
        reason.push('…');
    }
    reason.replace('\n', " ")
}
