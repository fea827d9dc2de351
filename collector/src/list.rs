//! `--list`: what would be taken, how large it is and what would not be taken. Nothing is stopped,
//! asked or written.

use std::fmt::Write as _;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bundle::Phase;

use crate::budget::Disk;
use crate::cli::Options;
use crate::estimate::{self, Estimate};
use crate::evidence::{Context, Preview, Source};
use crate::header;
use crate::number::{human, plain};
use crate::part::Part;
use crate::place::Place;
use crate::privilege::Rights;
use crate::profile;
use crate::room;
use crate::survey::Choices;
use crate::target::Target;

/// A look that takes longer is left behind.
const PATIENCE: Duration = Duration::from_secs(2);

/// The whole list.
pub(crate) fn list(options: &Options, target: &Target) -> String {
    let rights = Rights::of(target);
    let part = Part::find(options.holds(), target.main);
    let choices = Choices { rings: options.rings, map_files: rights.map_files, part };
    let may_look = !options.no_memory && rights.refused < target.processes.len();
    let estimate = if may_look { estimate::estimate(target, choices) } else { Estimate::default() };
    let mut text = format!(
        "{}: {} processes, main {}, profile {}\n",
        target.program,
        target.processes.len(),
        target.main,
        target.profile
    );
    let context = Arc::new(Context {
        target: target.clone(),
        modules: options.modules,
        wishes: options.wishes(),
        files: target.root().unwrap_or_default(),
        ..Context::default()
    });
    text += &phase("Before the freeze", Phase::BeforeFreeze, options, &context);
    text += "Frozen\n";
    text += &memory(options, target, &rights, &estimate);
    text += &phase("After the thaw", Phase::AfterThaw, options, &context);
    text += &left_out(options, &rights);
    let need = room::need(options, &estimate).bundle();
    let place = Place::open(&header::output(options, target), options.force);
    let place = place.map_err(|error| error.to_string());
    let disk = place.and_then(|place| {
        room::disk(options, &place).map_err(|error| format!("how full its disk is: {error}"))
    });
    let room = match disk {
        Err(words) => words,
        Ok(disk) if !disk.spool => "it goes to standard output".to_owned(),
        Ok(Disk { usable, kept, .. }) => {
            format!("its disk has {} besides {} that stay free", human(usable), human(kept))
        }
    };
    text + &format!("The bundle needs at most about {}; {room}\n", human(need))
}

fn phase(heading: &str, phase: Phase, options: &Options, context: &Arc<Context>) -> String {
    let mut text = format!("{heading}\n");
    let sources = profile::named(context.target.profile).sources.iter();
    for source in sources.filter(|source| source.phase() == phase) {
        if options.without.iter().any(|name| name == source.name()) {
            continue;
        }
        text += &line(source.name(), source.about());
        for preview in look(*source, context) {
            text += &format!("    {}\n", of_preview(&preview));
        }
    }
    text
}

/// What a source would take; one that does not answer costs only itself.
fn look(source: &'static dyn Source, context: &Arc<Context>) -> Vec<Preview> {
    let (sender, receiver) = mpsc::channel();
    let context = Arc::clone(context);
    let looking = std::thread::Builder::new().name(source.name().into()).spawn(move || {
        sender.send(source.preview(&context)).unwrap_or_default();
    });
    let failed =
        |why: String| Preview { what: "a look at it".into(), size: None, missing: Some(why) };
    match looking {
        Err(error) => vec![failed(error.to_string())],
        Ok(_) => receiver
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| vec![failed(format!("nothing came for {} s", PATIENCE.as_secs()))]),
    }
}

fn of_preview(preview: &Preview) -> String {
    let mut text = plain(&preview.what);
    if let Some(size) = preview.size {
        let exact = if size < 1024 { String::new() } else { format!(" ({size} bytes)") };
        write!(text, ", {}{exact}", human(size)).unwrap_or_default();
    }
    if let Some(why) = &preview.missing {
        write!(text, ": not taken: {why}").unwrap_or_default();
    }
    text
}

fn memory(options: &Options, target: &Target, rights: &Rights, estimate: &Estimate) -> String {
    if options.no_memory {
        return line("memory", "not wanted (--no-memory)");
    }
    let threads: usize = target.processes.iter().map(|process| process.facts.threads.len()).sum();
    let mut text = line(
        "memory",
        &format!(
            "registers of {threads} threads and existing pages of {} processes, about {} ({} bytes)",
            target.processes.len().saturating_sub(rights.refused),
            human(estimate.bytes),
            estimate.bytes
        ),
    );
    let words = rights.words.iter().chain(&rights.map_files_words);
    for words in words {
        text += &format!("    {words}\n");
    }
    for gap in &estimate.gaps {
        text += &format!("    {}: {}\n", gap.what, gap.why);
    }
    text
}

fn left_out(options: &Options, rights: &Rights) -> String {
    let mut text = "Not taken\n".to_owned();
    text += &line("environment", "environment variables of the processes: they hold secrets");
    if !options.rings {
        text += &line("rings", "packet rings of sockets (--rings takes them)");
    }
    if rights.refused > 0 {
        text += &line("memory", &format!("of {} processes: not allowed", rights.refused));
    }
    for name in &options.without {
        text += &line(name, "left out as wanted (--without)");
    }
    text
}

fn line(name: &str, words: &str) -> String {
    format!("  {name:<20} {words}\n")
}
