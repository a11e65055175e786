//! How the clouds are reached: flags of every command that reads from one or writes into it.
use std::path::PathBuf;

use clap::Args;
use remote::Access;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Clouds")]
pub(crate) struct CloudOptions {
    /// Google credentials: a service account's key file, or what `gcloud auth application-default
    /// login` wrote [default: GOOGLE_APPLICATION_CREDENTIALS, that login, the attached service account]
    #[arg(long, value_name = "FILE")]
    google_credentials: Option<PathBuf>,
}

impl CloudOptions {
    pub(super) fn google_credentials(&self) -> Option<&PathBuf> {
        self.google_credentials.as_ref()
    }

    pub(super) fn bucket(&self, endpoint: Option<&str>) -> Access {
        Access { endpoint: endpoint.map(str::to_owned), credentials: self.google_credentials.clone() }
    }
}
