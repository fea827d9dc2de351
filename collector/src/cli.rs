//! The command line, and what its exit code means: 0 everything was collected, 1 the bundle lacks
//! something that was to be in it, 2 it could not run or was interrupted.

use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bundle::Holds;
use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::defect;
use crate::evidence::{WhichModules, Wishes};
use crate::group::{self, Wanted};
use crate::limits::LimitOptions;
use crate::post_mortem::PostMortem;
use crate::profile;
use crate::progress;
use crate::run;

/// Take the evidence of a hung process group before it is restarted.
///
/// Freezes all processes of the group for some tens of milliseconds, copies their registers and the
/// memory that exists, lets them go, and writes one .tar.zst file with cores, modules and /proc.
/// Needs root (or CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE).
#[derive(Clone, Debug, Parser)]
#[command(name = "collect-evidence", version, max_term_width = 100, args_override_self = true)]
pub struct Options {
    /// The group of this process [default: the known program that runs here]
    #[arg(long, group = "which", value_name = "PID")]
    pub pid: Option<u32>,
    /// The group of the program with this name
    #[arg(long, group = "which", value_name = "PROGRAM")]
    pub name: Option<String>,
    /// The group that runs in this systemd unit
    #[arg(long, group = "which", value_name = "NAME.service")]
    pub unit: Option<String>,
    /// The bundle's file, a folder for it, or - for standard output [default:
    /// evidence-HOST-PROGRAM-TIME.tar.zst here]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Names this collection in the bundle
    #[arg(long, value_name = "ID")]
    pub case: Option<String>,
    /// Why it is collected, in words
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Compression level
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// The most memory to use, for instance 512M or 2G [default: half of what is available]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Let everything go after so many seconds, finished or not
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = parse_seconds)]
    pub max_pause: f64,
    /// Read a thread without stopping it if it does not stop in so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub stop_timeout: u64,
    /// Time between the two samples of /proc, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub sample_gap: u64,
    /// Freeze nothing: only /proc, the modules and the system
    #[arg(long)]
    pub no_memory: bool,
    /// Only registers, stacks and /proc: no heap leaves the host, but stacks may hold secrets
    #[arg(long, conflicts_with_all = ["no_memory", "rings"])]
    pub stacks_only: bool,
    /// Mask known secrets in memory images, too: those of configuration and command lines, URLs, SIP
    /// credentials
    #[arg(long, conflicts_with_all = ["no_memory", "post_mortem"])]
    pub redact_memory: bool,
    /// Replace addresses, users and hosts in all texts, each by one of its form; the map stays here,
    /// in FILE.map.json
    #[arg(long, requires = "no_memory", conflicts_with_all = ["post_mortem", "samples"])]
    pub pseudonymize: bool,
    /// Save packet rings (mapped AF_PACKET sockets) too
    #[arg(long)]
    pub rings: bool,
    /// Which of the mapped ELF files to copy
    #[arg(long, value_enum, default_value_t = WhichModules::All, value_name = "WHICH")]
    pub modules: WhichModules,
    /// So many bundles of the same group, one after the other: FILE-1, FILE-2 and so on
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=9999))]
    pub samples: u32,
    /// From one freeze of the samples to the next, for instance 100ms, 30s, 5m or 1h
    #[arg(long, value_name = "TIME", requires = "samples", value_parser = parse_interval)]
    pub every: Option<Duration>,
    /// What the samples before the last one hold: all, or only Kamailio's memory pools
    #[arg(long, value_name = "WHAT", requires = "samples", value_enum,
        default_value_t = Earlier::Whole)]
    pub earlier: Earlier,
    /// Logs reach back so far, for instance 30m or 12h
    #[arg(long, value_name = "TIME", default_value = "2h", value_parser = parse_interval)]
    pub since: Duration,
    /// Keep so much of each log: its end
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = parse_size)]
    pub log_cap: u64,
    /// Take this log too, with what it was rotated to; may be given several times
    #[arg(long, value_name = "FILE")]
    pub log: Vec<PathBuf>,
    /// Ask for what holds the program's own locks while it answers, too
    #[arg(long)]
    pub allow_blocking_rpc: bool,
    /// Measure how fast the spool can be written to: this loads its disk for some seconds
    #[arg(long)]
    pub spool_write_test: bool,
    /// What the program is taken for [default: by the name of its executable]
    #[arg(long, value_name = "PROFILE",
        value_parser = PossibleValuesParser::new(profile::ALL.iter().map(|one| one.name)))]
    pub profile: Option<String>,
    /// What is looked for when the process is gone.
    #[command(flatten)]
    pub post_mortem: PostMortem,
    /// Leave this evidence out; a list with commas
    #[arg(long, value_name = "SOURCE", value_delimiter = ',',
        value_parser = PossibleValuesParser::new(profile::source_names()))]
    pub without: Vec<String>,
    /// Say what would be taken, how large it is and what not; take nothing
    #[arg(long, conflicts_with_all = ["samples", "post_mortem"])]
    pub list: bool,
    /// Do everything but freeze and write: ask all sources, and say what a bundle would have
    #[arg(long, conflicts_with_all = ["samples", "list", "post_mortem"])]
    pub dry_run: bool,
    /// How long, how large, for whom.
    #[command(flatten)]
    pub limits: LimitOptions,
    /// Go on where the disk looks too full, and in a folder where everybody may rename files
    #[arg(long)]
    pub force: bool,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// What the samples before the last one hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Earlier {
    /// The same as the last one.
    Whole,
    /// The shared and the private pools and what names their owners: no C heap, no stacks, no code.
    Pools,
}

impl From<Earlier> for Holds {
    fn from(earlier: Earlier) -> Self {
        match earlier {
            Earlier::Whole => Self::Whole,
            Earlier::Pools => Self::Pools,
        }
    }
}

impl Options {
    /// Parses the command line; ends the program with words and code 2 if it makes no sense.
    fn parse_or_exit() -> Self {
        let options = Self::parse();
        if let Err(words) = options.check() {
            Self::command().error(ErrorKind::ArgumentConflict, words).exit();
        }
        options
    }

    /// What no single option shows.
    fn check(&self) -> Result<(), &'static str> {
        if self.samples > 1 && self.every.is_none() {
            return Err("--samples needs --every: the time from one sample to the next");
        }
        if self.earlier == Earlier::Pools && self.stacks_only {
            return Err("--earlier pools cannot be used with --stacks-only: pools are heaps");
        }
        if self.earlier == Earlier::Pools && self.no_memory {
            return Err("--earlier pools cannot be used with --no-memory: pools are memory");
        }
        Ok(())
    }

    /// How much of the memory a bundle by itself holds, and the last one of a series.
    pub fn holds(&self) -> Holds {
        if self.stacks_only { Holds::Stacks } else { Holds::Whole }
    }

    /// From one freeze of a series to the next.
    pub fn interval(&self) -> Duration {
        self.every.unwrap_or(Duration::from_secs(1))
    }

    /// Which group is wanted.
    pub fn wanted(&self) -> Wanted {
        match (self.pid, &self.name, &self.unit) {
            (Some(pid), ..) => Wanted::Pid(group::process_of(pid)),
            (_, Some(name), _) => Wanted::Name(name.clone()),
            (_, _, Some(unit)) if unit.contains('.') => Wanted::Unit(unit.clone()),
            (_, _, Some(unit)) => Wanted::Unit(format!("{unit}.service")),
            _ => Wanted::Known,
        }
    }

    /// What the sources are to do.
    pub fn wishes(&self) -> Wishes {
        Wishes {
            since: self.since,
            log_cap: self.log_cap,
            logs: self.log.iter().filter_map(|path| std::path::absolute(path).ok()).collect(),
            allow_blocking_rpc: self.allow_blocking_rpc,
            spool_write_test: self.spool_write_test,
        }
    }

    /// [`Options::max_pause`] as a duration.
    pub fn pause_limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.max_pause).unwrap_or(Duration::from_secs(60))
    }
}

/// The command.
pub fn main() -> ExitCode {
    let options = Options::parse_or_exit();
    defect::keep_quiet();
    // By the time a panic is caught here, its way has let the group go.
    let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| run::run(&options)));
    match ended.unwrap_or_else(|panic| Err(anyhow::Error::msg(defect::words(&*panic)))) {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(error) => {
            progress::failed(&options, &error);
            ExitCode::from(2)
        }
    }
}

/// `512M`, `2G`, `4096`; powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.trim_end_matches("ib").trim_end_matches('b');
    let end = lower.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(end);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("{text} is no size; try 512M or 2G")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text} is no size; try 512M or 2G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too much"))
}

pub(crate) fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err(format!("{text} is no number of seconds above 0")),
    }
}

/// `100ms`, `30s`, `5m`, `1.5h`; a number alone is seconds. At least a tenth of a second, at most a week.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text} is no interval from 0.1s to 168h; try 100ms, 30s, 5m or 1h");
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(letters, unit)| Some((text.strip_suffix(letters)?, unit)))
        .unwrap_or((text, 1.0));
    // A number as people write it: no sign, no exponent, no "inf".
    if !number.starts_with(|first: char| first.is_ascii_digit())
        || !number.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
    {
        return Err(bad());
    }
    let seconds = number.parse::<f64>().map_err(|_| bad())? * unit;
    match Duration::try_from_secs_f64(seconds) {
        Ok(interval) if (0.1..=604_800.0).contains(&seconds) => Ok(interval),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
        let options = Options::parse_from(["collect-evidence", "--unit", "kamailio"]);
        assert_eq!(options.wanted(), Wanted::Unit("kamailio.service".into()));
        assert!(Options::try_parse_from(["x", "--pid", "1", "--name", "y"]).is_err());
    }

    #[test]
    fn intervals_are_seconds_minutes_or_hours() {
        let seconds = |text: &str| parse_interval(text).map(|interval| interval.as_secs_f64());
        assert_eq!(seconds("90"), Ok(90.0));
        assert_eq!(seconds("0.5s"), Ok(0.5));
        assert_eq!(seconds("200ms"), Ok(0.2));
        assert_eq!(seconds("5m"), Ok(300.0));
        assert_eq!(seconds("1.5h"), Ok(5400.0));
        for bad in ["", "s", "0", "0.01s", "-1s", "5d", "1e9", "169h", "inf", "nan", "1 m", "5ms"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_a_series_need_one_another() {
        let check = |words: &[&str]| {
            let all = std::iter::once("x").chain(words.iter().copied());
            Options::try_parse_from(all)
                .map_err(|error| error.exit_code())
                .and_then(|options| options.check().map_err(|_| 2))
        };
        assert_eq!(check(&["--samples", "1"]), Ok(()));
        assert_eq!(check(&["--samples", "1", "--every", "2s", "--earlier", "pools"]), Ok(()));
        assert_eq!(check(&["--samples", "3", "--every", "2s"]), Ok(()));
        assert_eq!(check(&["--stacks-only", "--samples", "3", "--every", "100ms"]), Ok(()));
        for bad in [
            &["--samples", "0"][..],
            &["--samples", "10000", "--every", "2s"],
            &["--samples", "3"],
            &["--every", "2s"],
            &["--earlier", "pools"],
            &["--samples", "3", "--every", "2s", "--earlier", "half"],
            &["--samples", "3", "--every", "2s", "--earlier", "pools", "--no-memory"],
            &["--samples", "3", "--every", "2s", "--earlier", "pools", "--stacks-only"],
            &["--stacks-only", "--no-memory"],
            &["--stacks-only", "--rings"],
        ] {
            assert_eq!(check(bad), Err(2), "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert!(parse_size("2X").is_err());
        assert!(parse_size("").is_err());
        assert!(parse_size("99999999T").is_err());
    }
}
