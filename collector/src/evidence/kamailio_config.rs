//! Kamailio's configuration: the main file, what it includes, and small files that modules read.
//!
//! Members: `config/ABSOLUTE/PATH`, as the process sees the path.

use bundle::Phase;

use super::{Context, Drawer, Needs, Preview, Source};
use crate::kamailio::files::{Configuration, LONGEST, Started};
use crate::number::human;

#[derive(Debug)]
pub(crate) struct KamailioConfig;

impl Source for KamailioConfig {
    fn name(&self) -> &'static str {
        "kamailio-config"
    }

    fn about(&self) -> &'static str {
        "Kamailio's configuration with its includes"
    }

    fn phase(&self) -> Phase {
        Phase::AfterThaw
    }

    fn needs(&self) -> Needs {
        Needs::Files
    }

    fn preview(&self, context: &Context) -> Vec<Preview> {
        let configuration = read(context);
        let files = configuration.files.iter().map(|file| Preview {
            what: file.path.display().to_string(),
            size: Some(file.total.min(LONGEST)),
            missing: None,
        });
        let missing = configuration.missing.iter().map(|(path, why)| Preview {
            what: path.display().to_string(),
            size: None,
            missing: Some(why.clone()),
        });
        files.chain(missing).collect()
    }

    fn collect(&self, context: &Context, out: &Drawer) -> anyhow::Result<()> {
        let configuration = read(context);
        for file in configuration.files {
            let path = file.path.display().to_string();
            if file.total > LONGEST {
                let what = format!("{path} beyond its first {}", human(LONGEST));
                out.gap(what, format!("the file has {} ({} bytes)", human(file.total), file.total));
            }
            out.put(format!("config{path}"), Some(path), file.content);
        }
        for (path, why) in configuration.missing {
            out.gap(path.display().to_string(), why);
        }
        Ok(())
    }
}

fn read(context: &Context) -> Configuration {
    let started = match &context.remains {
        Some(remains) => Started::read(
            remains.command_line.join("\0").as_bytes(),
            remains.working_directory.clone().unwrap_or_default().into(),
        ),
        None => Started::of(context.target.main),
    };
    Configuration::read(&started, &context.files)
}
