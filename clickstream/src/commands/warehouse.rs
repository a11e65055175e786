//! `clickstream warehouse init|ddl` and `clickstream lake ddl`: tables, made or told.
use std::fmt::Write as _;

use anyhow::{Result, bail};
use consumer::lake::Scheme;
use consumer::warehouse::{Made, Mode, schema};

use super::process::{Process, say};
use crate::exit::Exit;
use crate::settings::{DdlOptions, InitOptions, LakeDdlOptions};

/// Makes what is missing, says what there is, and fails where a table differs.
pub(crate) fn init(options: &InitOptions) -> Result<Exit> {
    let dataset = options.at.required()?;
    let process = Process::start(&options.log)?;
    let bigquery = options.at.open(dataset, Mode::StorageWrite, &options.cloud, process.runtime.handle())?;
    let made = bigquery.init(options.at.location(), options.add_columns)?;
    let (mut text, mut wrong) = (String::new(), 0);
    for made in &made {
        match made {
            Made::Made(name) => writeln!(text, "made      {name}")?,
            Made::AsItIs(name) => writeln!(text, "is there  {name}")?,
            Made::Extended(name, differences) => {
                writeln!(text, "extended  {name}")?;
                differences.iter().try_for_each(|difference| writeln!(text, "  {difference}"))?;
            }
            Made::Differs(name, differences) => {
                wrong += 1;
                writeln!(text, "differs   {name} (- as it is, + as it should be)")?;
                for difference in differences {
                    writeln!(text, "  {}", difference.to_string().replace('\n', "\n  "))?;
                }
            }
        }
    }
    say(&text)?;
    if wrong > 0 {
        bail!(
            "{wrong} of them differ, and were left alone: --add-columns adds columns that are only missing; rows go in \
             all the same where only partitions or clusters differ; what else has these names is yours to mend, rename \
             or drop, or name another dataset"
        );
    }
    Ok(Exit::Done)
}

pub(crate) fn ddl(options: &DdlOptions) -> Result<Exit> {
    say(&schema::ddl(&options.warehouse.to_string()))?;
    Ok(Exit::Done)
}

pub(crate) fn lake_ddl(options: &LakeDdlOptions) -> Result<Exit> {
    if options.lake.scheme != Scheme::Gs {
        bail!("BigQuery reads external tables from gs:// buckets; {} is not one", options.lake);
    }
    say(&schema::lake_ddl(&options.warehouse.to_string(), &options.lake.to_string(), &options.table))?;
    Ok(Exit::Done)
}
