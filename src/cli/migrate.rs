//! `fathom migrate`.

use super::{CliError, ConfigArgs, block_on};
use crate::{app, telemetry};

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let config = args.load()?;
    telemetry::init(&config.log)?;
    block_on(async {
        let store = app::open_store(&config).await?;
        store.close().await;
        println!("{} is up to date", config.store.path.display());
        Ok(())
    })
}
