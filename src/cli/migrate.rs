//! `fathom migrate`.

use clap::Args;
use fathom_storage::{Check, Store};

use super::{CliError, ConfigArgs, block_on};
use crate::{stores, telemetry};

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Change nothing; print everything that the store should hold, and whether it does.
    #[arg(long)]
    validate: bool,
}

pub(super) fn run(args: &MigrateArgs) -> Result<(), CliError> {
    let config = args.config.load()?;
    telemetry::init(&config.log)?;
    block_on(async {
        let (store, shown) = (stores::open_store(&config).await?, config.store.shown());
        let done = if args.validate {
            validate(&*store, &shown).await
        } else {
            stores::migrated(&*store, &shown).await.map(|()| println!("{shown} is up to date"))
        };
        store.close().await;
        Ok(done?)
    })
}

async fn validate(store: &dyn Store, shown: &str) -> anyhow::Result<()> {
    let checks = store.validate().await?;
    let (table, wrong) = table(&checks);
    print!("{table}");
    anyhow::ensure!(wrong == 0, "{wrong} of {} things in {shown} are missing or different", checks.len());
    println!("{shown} holds all {} things", checks.len());
    Ok(())
}

/// One line a thing, what is wrong told at its end; and how many are wrong.
fn table(checks: &[Check]) -> (String, usize) {
    let width = |of: fn(&Check) -> &str| checks.iter().map(|check| of(check).len()).max().unwrap_or(0);
    let (kinds, names) = (width(|check| &check.kind), width(|check| &check.name));
    let line = |check: &Check| {
        let words = match &check.found {
            None => "missing".to_owned(),
            Some(_) if check.is_ok() => "found".to_owned(),
            Some(found) => {
                format!("different: found {}, expected {}", one_line(found), one_line(&check.expected))
            }
        };
        format!("{:kinds$}  {:names$}  {words}\n", check.kind, check.name)
    };
    let wrong = checks.iter().filter(|check| !check.is_ok()).count();
    (checks.iter().map(line).collect(), wrong)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_a_line_that_says_what_is_wrong() {
        let check = |name: &str, found: Option<&str>| Check {
            kind: "table".into(),
            name: name.into(),
            expected: "as\n it is".into(),
            found: found.map(Into::into),
        };
        let (text, wrong) =
            table(&[check("a", Some("as\n it is")), check("long", None), check("b", Some("else"))]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            (lines.as_slice(), wrong),
            (
                [
                    "table  a     found",
                    "table  long  missing",
                    "table  b     different: found else, expected as it is"
                ]
                .as_slice(),
                2
            )
        );
    }
}
