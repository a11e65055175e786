//! A process's name among its like: what its place in a group and its transactions go by.
use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;

use anyhow::{Context, Result, bail};
use clap::Args;

/// So many processes of one kind on a machine name themselves.
const NUMBERS: u32 = 1000;

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct InstanceOptions {
    /// This process's name among its like on Kafka; started again under the same name it takes its
    /// own place at once. To be given where processes of one host have temporary folders of their own
    /// or are of several users [default: the host's name and the lowest number that is free on it]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

/// The name, and the lock that keeps it while the process lives.
pub(crate) struct Instance {
    pub(crate) name: String,
    _lock: Option<File>,
}

impl InstanceOptions {
    pub(crate) fn given(&self) -> Option<&str> {
        self.instance.as_deref()
    }

    /// The name within a group: the one that was given, or one that no other process of this
    /// machine has.
    pub(crate) fn within(&self, group: &str) -> Result<Instance> {
        if let Some(name) = &self.instance {
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
                bail!("--instance {name}: a name is letters, digits, dots, dashes and underscores");
            }
            return Ok(Instance { name: name.clone(), _lock: None });
        }
        let folder = std::env::temp_dir().join(format!("clickstream-{}", rustix::process::getuid().as_raw()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(|| {
            format!("{}: it cannot be made; say --instance, and no lock is needed", folder.display())
        })?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for number in 0..NUMBERS {
            let path = folder.join(format!("{group}-{number}.lock"));
            let file = File::options().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("{}: say --instance, and no lock is needed", path.display()))?;
            match file.try_lock() {
                Ok(()) => return Ok(Instance { name: format!("{host}-{number}"), _lock: Some(file) }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error).context(path.display().to_string()),
            }
        }
        bail!("{NUMBERS} processes of {group} run on this machine; --instance names another")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken_and_given_back() {
        let options = InstanceOptions { instance: None };
        let group = format!("test-{}", std::process::id());
        let (first, second) = (options.within(&group).unwrap(), options.within(&group).unwrap());
        assert!(first.name.ends_with("-0") && second.name.ends_with("-1"), "{} {}", first.name, second.name);
        let name = first.name.clone();
        drop(first);
        assert_eq!(options.within(&group).unwrap().name, name);
        let named = InstanceOptions { instance: Some("blue".to_owned()) };
        assert_eq!(named.within(&group).unwrap().name, "blue");
        assert!(InstanceOptions { instance: Some("a/b".to_owned()) }.within(&group).is_err());
    }
}
