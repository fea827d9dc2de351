//! Where syslog daemons write the lines that are wanted: their rules, parsed only as far as that
//! takes. A rule that is not understood names no file.
//!
//! Wanted is what names the program, and the facilities that servers log with: `local0` to
//! `local7`, `daemon`, `kern`, `user` and `*`. Files of `auth` and `mail` are never asked for.

/// Facilities that a program may log with.
const FACILITIES: [&str; 11] = [
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7", "daemon",
    "kern", "user",
];

/// The files that rules of rsyslog, or of a classic syslogd, lead to.
pub(crate) fn of_rsyslog(text: &str, program: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in logical_lines(text) {
        let by_script = line.starts_with(['i', '&', 'a', ':', '}', '{']);
        let selector = line.split_whitespace().next().unwrap_or_default();
        if !mentions(&line, program) && (by_script || !selects(selector)) {
            continue;
        }
        if line.contains("omfile") {
            found.extend(parameter(&line, "file"));
        } else {
            found.extend(last_path(&line));
        }
    }
    cleaned(found)
}

/// The files that log paths of syslog-ng lead to: all of a configuration whose statement, or whose
/// name, speaks of the program or of a wanted facility, and those without any filter.
pub(crate) fn of_syslog_ng(text: &str, program: &str) -> Vec<String> {
    let statements: Vec<String> = statements(text);
    let of_kind = |kind: &str| {
        let found: Vec<(String, &str)> = statements
            .iter()
            .filter_map(|one| {
                let rest = one.trim().strip_prefix(kind)?;
                let (name, body) = rest.split_once('{')?;
                Some((name.trim().to_owned(), body))
            })
            .collect();
        found
    };
    let filters = of_kind("filter ");
    let destinations = of_kind("destination ");
    let wanted_filter = |name: &str| {
        let body = filters.iter().find(|(filter, _)| filter == name).map(|(_, body)| *body);
        body.is_none_or(|body| {
            mentions(body, program) || FACILITIES.iter().any(|one| mentions(body, one))
        })
    };
    let mut found = Vec::new();
    for (_, path) in of_kind("log ").into_iter().chain(of_kind("log")) {
        let used = |kind: &str| references(path, kind);
        let filters = used("filter");
        if !filters.is_empty() && !filters.iter().any(|name| wanted_filter(name)) {
            continue;
        }
        for name in used("destination") {
            let body = destinations.iter().find(|(destination, _)| *destination == name);
            found.extend(body.and_then(|(_, body)| quoted_after(body, "file(")));
        }
    }
    cleaned(found)
}

/// Lines without comments; a line that ends with `\` goes on.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut whole = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                whole += part;
                whole.push(' ');
            }
            None => lines.push(std::mem::take(&mut whole) + line),
        }
    }
    lines.push(whole);
    lines
}

/// Statements that end with `};` of syslog-ng, without comments.
fn statements(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim()).filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join(" ");
    text.split("};").map(str::to_owned).collect()
}

/// Whether the word stands in the text, not as a part of another one.
fn mentions(text: &str, word: &str) -> bool {
    let is_word = |one: char| one.is_alphanumeric() || one == '_';
    !word.is_empty()
        && text.match_indices(word).any(|(at, _)| {
            let before = text.get(..at).and_then(|text| text.chars().next_back());
            let after = text.get(at.saturating_add(word.len())..);
            let after = after.and_then(|text| text.chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
}

/// Whether a selector (`*.info;auth.none`, `local0.*,daemon.err`) takes a wanted facility.
fn selects(selector: &str) -> bool {
    selector.split(';').any(|part| {
        let Some((facilities, priority)) = part.split_once('.') else { return false };
        priority != "none"
            && facilities.split(',').any(|one| one == "*" || FACILITIES.contains(&one))
    })
}

/// The path at the end of a rule; `-` in front means no sync. A path with `%` or `$` is a pattern.
fn last_path(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().rev();
    words.find_map(|word| {
        let path = word.trim_start_matches('-').trim_matches(['"', '\'']);
        path.starts_with('/').then(|| path.split(';').next().unwrap_or(path).to_owned())
    })
}

/// The value of `name="…"`.
fn parameter(line: &str, name: &str) -> Option<String> {
    let lower = line.to_ascii_lowercase();
    let key = format!("{name}=\"");
    let at = lower
        .match_indices(&key)
        .map(|(at, _)| at)
        .find(|at| !lower.get(..*at).is_some_and(|head| head.ends_with(char::is_alphanumeric)))?;
    let rest = line.get(at.checked_add(key.len())?..)?;
    Some(rest.split('"').next()?.to_owned())
}

/// The names in `kind(NAME)`.
fn references(text: &str, kind: &str) -> Vec<String> {
    let key = format!("{kind}(");
    let mut parts = text.split(key.as_str());
    parts.next();
    parts.filter_map(|part| Some(part.split(')').next()?.trim().to_owned())).collect()
}

fn quoted_after(text: &str, key: &str) -> Option<String> {
    let (_, rest) = text.split_once(key)?;
    let rest = rest.trim_start().strip_prefix(['"', '\''])?;
    Some(rest.split(['"', '\'']).next()?.to_owned())
}

/// Absolute paths, each once; no patterns, no devices, and no logs of who logged in or wrote mail.
fn cleaned(found: Vec<String>) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for path in found {
        let name = path.rsplit('/').next().unwrap_or_default();
        let private = ["auth", "secure", "mail", "sudo"].iter().any(|one| name.starts_with(one));
        let usable = path.starts_with('/')
            && !path.starts_with("/dev/")
            && !path.contains(['%', '$', '*'])
            && !path.split('/').any(|part| part == "..");
        if usable && !private && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_rsyslog_lead_to_files() {
        let text = r#"
# local0.*  /var/log/commented.log
module(load="imuxsock")
auth,authpriv.*                 /var/log/auth.log
*.*;auth,authpriv.none          -/var/log/syslog
mail.*                          -/var/log/mail.log
cron.*                          /var/log/cron.log
local0.*                        -/var/log/kamailio.log
local1.info;local2.none         /var/log/sip \
local3.*                        /var/log/joined.log
daemon.err                      |/dev/xconsole
*.emerg                         :omusrmsg:*
:programname, isequal, "kamailio" /srv/logs/proxy.log;RSYSLOG_FileFormat
:programname, isequal, "sshd"   /srv/logs/sshd.log
if $programname == 'kamailio' then action(type="omfile" dynaFile="x" file="/srv/logs/action.log")
if $programname == 'cron' then action(type="omfile" file="/srv/logs/crontab.log")
local5.* action(type="omfile" File="/srv/logs/local5.log")
local6.* ?DynamicFile
local7.* /var/log/%HOSTNAME%/all.log
"#;
        let expected = [
            "/var/log/syslog",
            "/var/log/kamailio.log",
            "/var/log/joined.log",
            "/srv/logs/proxy.log",
            "/srv/logs/action.log",
            "/srv/logs/local5.log",
        ];
        assert_eq!(of_rsyslog(text, "kamailio"), expected);
    }

    #[test]
    fn log_paths_of_syslog_ng_lead_to_files() {
        let text = r#"
@version: 3.38
source s_src { system(); internal(); };
destination d_syslog { file("/var/log/syslog"); };
destination d_auth { file("/var/log/auth.log"); };
destination d_cron { file("/var/log/cron.log"); };
destination d_sip { file("/srv/sip/proxy.log" owner("root")); };
destination d_local { file("/srv/sip/local.log"); };
filter f_auth { facility(auth, authpriv); };
filter f_cron { facility(cron); };
filter f_sip { program("kamailio"); };
filter f_local { facility(local0) and not level(debug); };
log { source(s_src); destination(d_syslog); };
log { source(s_src); filter(f_auth); destination(d_auth); };
log { source(s_src); filter(f_cron); destination(d_cron); };
log { source(s_src); filter(f_sip); destination(d_sip); };
log { source(s_src); filter(f_local); destination(d_local); };
"#;
        let expected = ["/var/log/syslog", "/srv/sip/proxy.log", "/srv/sip/local.log"];
        assert_eq!(of_syslog_ng(text, "kamailio"), expected);
    }

    #[test]
    fn hostile_rules_lead_nowhere() {
        for text in ["", "{", "};};", "local0.*", "local0.* ../../x", "*.* /", "file=\"", "log {"] {
            let found = of_rsyslog(text, "kamailio");
            assert!(found.iter().all(|path| path.starts_with('/')), "{text}: {found:?}");
            assert_eq!(of_syslog_ng(text, "kamailio"), Vec::<String>::new(), "{text}");
        }
        assert_eq!(of_rsyslog("local0.* /var/../etc/shadow", ""), Vec::<String>::new());
    }
}
