//! `fathom migrate`.

use super::{CliError, ConfigArgs, block_on};
use crate::{stores, telemetry};

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let config = args.load()?;
    telemetry::init(&config.log)?;
    block_on(async {
        let (store, shown) = (stores::open_store(&config).await?, config.store.shown());
        let migrated = stores::migrated(&*store, &shown).await;
        store.close().await;
        migrated?;
        println!("{shown} is up to date");
        Ok(())
    })
}
