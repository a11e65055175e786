//! What an error means, and what a person is told.
use google_cloud_bigquery::error::{AppendError, WriterBuilderError};
use google_cloud_bigquery::model_ext::AppendResponse;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Code;

use crate::warehouse::backend::{Answer, Fault};

/// How Google tells it.
pub(super) struct Told<'a> {
    code: Option<Code>,
    http: Option<u16>,
    text: &'a str,
}

/// What an account must be allowed to do, and where: what a refusal names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right<'a> {
    pub(super) permission: &'a str,
    pub(super) project: &'a str,
}

/// To ask how many rows a table has.
pub(super) const QUERY: &str = "bigquery.jobs.create";
/// To append rows.
pub(super) const WRITE: &str = "bigquery.tables.updateData";

impl<'a> Right<'a> {
    /// To write into a table or stream, by its path: `projects/PROJECT/datasets/…`.
    pub(super) fn to_write(path: &'a str) -> Self {
        Self { permission: WRITE, project: path.split('/').nth(1).unwrap_or_default() }
    }

    /// What is told where it is missing, and what mends it. `why` is what Google said: it refuses alike
    /// where the project has no such API, or nobody pays for it.
    pub(super) fn is_missing(self, why: &str) -> String {
        let Self { permission, project } = self;
        let why = why.trim_end_matches('.');
        let says = |any: &[&str]| any.iter().any(|text| why.contains(text));
        if says(&["SERVICE_DISABLED", "accessNotConfigured", "has not been used in project"]) {
            return format!(
                "the project {project} has not enabled the API ({why}). Enable it: gcloud services enable \
                 bigquery.googleapis.com bigquerystorage.googleapis.com --project={project}"
            );
        }
        if says(&["free tier", "billingNotEnabled", "BILLING_DISABLED", "enable billing"]) {
            return format!(
                "the project {project} has no billing account ({why}). Link one: gcloud billing projects link {project} \
                 --billing-account=ACCOUNT"
            );
        }
        // A job belongs to the project, whatever it reads.
        let (role, or) = if permission == QUERY {
            ("roles/bigquery.jobUser", "")
        } else {
            ("roles/bigquery.dataEditor", ", or grant it on the dataset alone")
        };
        format!(
            "permission denied: the account needs {permission} ({why}). The role {role} has it: gcloud projects \
             add-iam-policy-binding {project} --member=serviceAccount:ACCOUNT --role={role}{or}"
        )
    }
}

pub(super) const CREDENTIALS: &str = "Name a service account's key file (--google-credentials FILE), or log in (gcloud auth \
                           application-default login), or run where a service account is attached (workload identity)";

pub(super) fn fault_of(error: &Error, right: Right<'_>) -> Fault {
    let text = error.to_string();
    if error.is_authentication() {
        return Fault::Stop(format!("no credentials that Google takes: {text}. {CREDENTIALS}"));
    }
    let code = error.status().map(|status| status.code);
    fault(&Told { code, http: error.http_status_code(), text: &text }, right)
}

pub(super) fn of_builder(error: &WriterBuilderError, right: Right<'_>) -> Fault {
    match error {
        WriterBuilderError::Rpc { source, .. } => fault_of(source, right),
        other => Fault::Stop(other.to_string()),
    }
}

fn fault(told: &Told<'_>, right: Right<'_>) -> Fault {
    let text = told.text;
    match (told.code, told.http) {
        (Some(Code::NotFound), _) | (_, Some(404)) => Fault::Gone(text.to_owned()),
        (Some(Code::PermissionDenied), _) | (_, Some(403)) if !is_quota(text) => Fault::Stop(right.is_missing(text)),
        (Some(Code::Unauthenticated), _) | (_, Some(401)) => {
            Fault::Stop(format!("no credentials that Google takes: {text}. {CREDENTIALS}"))
        }
        // BigQuery says so of a stream that it does not know.
        (Some(Code::InvalidArgument | Code::FailedPrecondition), _) if says_gone(text) => Fault::Gone(text.to_owned()),
        (Some(Code::ResourceExhausted), _) | (_, Some(403 | 429)) => Fault::Throttled(text.to_owned()),
        (Some(Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::AlreadyExists), _)
        | (_, Some(400 | 405 | 409 | 412)) => Fault::Stop(text.to_owned()),
        _ => Fault::Retry(text.to_owned()),
    }
}

/// 403 is also said where a quota is used up.
fn is_quota(text: &str) -> bool {
    ["rateLimitExceeded", "quotaExceeded", "Exceeded rate limits"].iter().any(|reason| text.contains(reason))
}

/// What BigQuery says of a stream that takes no more rows.
fn says_gone(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let said = [
        "stream_finalized",
        "stream is finalized",
        "has been finalized",
        "already finalized",
        "stream_not_found",
        "invalid_stream_state",
        "invalid stream name",
        "stream has expired",
    ];
    said.iter().any(|said| text.contains(said))
}

pub(super) fn answer_of(result: Result<AppendResponse, AppendError>, right: Right<'_>) -> Answer {
    match result {
        Ok(_) => Answer::Appended,
        Err(AppendError::RowErrors { row_errors, .. }) => Answer::RowErrors(
            row_errors
                .into_iter()
                .map(|error| (usize::try_from(error.index).unwrap_or(usize::MAX), error.message))
                .collect(),
        ),
        Err(AppendError::Rpc { source, .. }) => {
            let text = source.to_string();
            let code = source.status().map(|status| status.code);
            let told = Told { code, http: source.http_status_code(), text: &text };
            answer(&told, source.is_authentication(), right)
        }
        Err(other) => Answer::Unknown(other.to_string()),
    }
}

fn answer(told: &Told<'_>, is_authentication: bool, right: Right<'_>) -> Answer {
    let text = told.text.to_owned();
    match told.code {
        Some(Code::AlreadyExists) => Answer::AlreadyExists,
        Some(Code::OutOfRange) => Answer::OutOfRange,
        Some(Code::ResourceExhausted) => Answer::Throttled(text),
        Some(Code::NotFound) => Answer::StreamGone(text),
        Some(Code::InvalidArgument | Code::FailedPrecondition) if says_gone(&text) => Answer::StreamGone(text),
        Some(Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented) => Answer::Refused(text),
        Some(Code::PermissionDenied) => Answer::Refused(right.is_missing(&text)),
        Some(Code::Unauthenticated) => {
            Answer::Refused(format!("no credentials that Google takes: {text}. {CREDENTIALS}"))
        }
        None if is_authentication => {
            Answer::Refused(format!("no credentials that Google takes: {text}. {CREDENTIALS}"))
        }
        _ => Answer::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let right = Right::to_write("projects/shop/datasets/clicks/tables/events/streams/s");
        let told = |code, text| answer(&Told { code: Some(code), http: None, text }, false, right);
        for (code, text, expected) in [
            (Code::AlreadyExists, "", Answer::AlreadyExists),
            (Code::OutOfRange, "", Answer::OutOfRange),
            (Code::ResourceExhausted, "x", Answer::Throttled("x".into())),
            (Code::NotFound, "x", Answer::StreamGone("x".into())),
            (Code::InvalidArgument, "Stream is finalized", Answer::StreamGone("Stream is finalized".into())),
            (Code::FailedPrecondition, "code: STREAM_FINALIZED", Answer::StreamGone("code: STREAM_FINALIZED".into())),
            (Code::InvalidArgument, "schema mismatch", Answer::Refused("schema mismatch".into())),
            (Code::Unavailable, "x", Answer::Unknown("x".into())),
            (Code::Internal, "x", Answer::Unknown("x".into())),
            (Code::Aborted, "x", Answer::Unknown("x".into())),
            (Code::DeadlineExceeded, "x", Answer::Unknown("x".into())),
        ] {
            assert_eq!(told(code, text), expected, "{code:?}");
        }
        let Answer::Refused(why) = told(Code::PermissionDenied, "x.") else { panic!("it is refused for good") };
        for says in [WRITE, "(x)", "roles/bigquery.dataEditor", "add-iam-policy-binding shop "] {
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_project_that_is_not_set_up() {
        let right = Right::to_write("projects/shop/datasets/clicks/tables/events/streams/s");
        for (text, says) in [
            ("BigQuery Storage API has not been used in project 7 before or it is disabled", "services enable"),
            ("Streaming insert is not allowed in the free tier", "billing projects link shop"),
            ("Permission TABLES_UPDATE_DATA denied", "add-iam-policy-binding shop"),
        ] {
            let told = Told { code: Some(Code::PermissionDenied), http: None, text };
            assert!(matches!(answer(&told, false, right), Answer::Refused(why) if why.contains(says)), "{text}");
            assert!(
                matches!(fault(&told, right), Fault::Stop(why) if why.contains(says) && why.contains(text)),
                "{text}"
            );
        }
    }

    #[test]
    fn faults() {
        let right = Right { permission: "bigquery.tables.get", project: "shop" };
        let told = |http, text| fault(&Told { code: None, http: Some(http), text }, right);
        assert_eq!(told(404, "x"), Fault::Gone("x".into()));
        assert!(matches!(told(403, "x"), Fault::Stop(why) if why.contains("needs bigquery.tables.get (x)")));
        let exhausted = Told { code: Some(Code::ResourceExhausted), http: None, text: "x" };
        assert_eq!(fault(&exhausted, right), Fault::Throttled("x".into()));
        for (http, text) in [(403, "reason: rateLimitExceeded"), (403, "reason: quotaExceeded"), (429, "x")] {
            assert_eq!(told(http, text), Fault::Throttled(text.into()), "{http}");
        }
        let asking = Right { permission: QUERY, project: "shop" };
        let denied = fault(&Told { code: None, http: Some(403), text: "x" }, asking);
        assert!(
            matches!(denied, Fault::Stop(why) if why.contains(QUERY) && why.ends_with("--role=roles/bigquery.jobUser"))
        );
        assert!(matches!(told(401, "x"), Fault::Stop(why) if why.contains("--google-credentials")));
        assert!(matches!(told(400, "x"), Fault::Stop(_)));
        for http in [500, 502, 503, 504] {
            assert!(matches!(told(http, "x"), Fault::Retry(_)), "{http}");
        }
    }
}
