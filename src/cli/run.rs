//! `fathom run`.

use super::{CliError, ConfigArgs, block_on};
use crate::{app, telemetry};

pub(super) fn run(args: &ConfigArgs) -> Result<(), CliError> {
    let config = args.load()?;
    telemetry::init(&config.log)?;
    Ok(block_on(app::run(&config, app::signals()))?)
}
