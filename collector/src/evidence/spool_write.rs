//! How fast the spool takes what is written, only where that is asked for (`--spool-write-test`): it
//! loads the disk. Member: `voipmonitor/spool-write.json`.

use std::path::PathBuf;
use std::time::Duration;

use bundle::Phase;
use serde::Serialize;

use super::{Context, Drawer, Preview, Source};
use crate::number::human;
use crate::voipmonitor::command_line;
use crate::voipmonitor::config::Config;
use crate::voipmonitor::write_test::{self, Limits, Measured};

/// The source.
#[derive(Debug)]
pub(crate) struct SpoolWrite;

/// `voipmonitor/spool-write.json`
#[derive(Debug, Serialize)]
struct Record {
    folder: PathBuf,
    /// When it began: wall clock with zone. Whatever was slow then may have been so because of it.
    started: String,
    #[serde(flatten)]
    measured: Measured,
}

impl Source for SpoolWrite {
    fn name(&self) -> &'static str {
        "spool-write"
    }

    fn about(&self) -> &'static str {
        "how fast the spool can be written to (with --spool-write-test)"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    /// One write may wait long for a disk that is busy.
    fn deadline(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let limits = Limits::default();
        let what = format!(
            "writing up to {} to {} for up to {} s, which loads its disk",
            human(limits.bytes),
            spool(context).display(),
            limits.time.as_secs()
        );
        let wanted = context.wishes.spool_write_test;
        let missing = (!wanted).then(|| "only with --spool-write-test".to_owned());
        vec![Preview { what, size: None, missing }]
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        if !context.wishes.spool_write_test {
            return Ok(());
        }
        let folder = spool(context);
        let started = jiff::Zoned::now().to_string();
        let stop = || out.is_given_up();
        match write_test::run(&context.files, &folder, Limits::default(), stop) {
            Ok(measured) => {
                let record = Record { folder, started, measured };
                let content = serde_json::to_vec_pretty(&record)?;
                out.put("voipmonitor/spool-write.json".into(), None, content);
            }
            Err(error) => out
                .gap(format!("how fast {} can be written to", folder.display()), error.to_string()),
        }
        Ok(())
    }
}

fn spool(context: &Context) -> PathBuf {
    Config::read(&context.files, &command_line(context.target.main)).spool()
}
