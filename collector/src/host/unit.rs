//! The systemd unit of a process, and what `systemctl show` says of it.

/// The service that a control group belongs to: the innermost part that ends with `.service`.
/// Names that would be an option of a program, or no name of a unit, are none.
pub(crate) fn of_control_groups(text: &str) -> Option<String> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut parts = paths.flat_map(|path| path.rsplit('/'));
    parts.find(|part| part.ends_with(".service") && is_unit_name(part)).map(str::to_owned)
}

/// Whether this can be a unit's name, as systemd.unit(5) has it.
pub(crate) fn is_unit_name(name: &str) -> bool {
    !name.starts_with('-')
        && name.len() < 256
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
}

/// The value of a property in the output of `systemctl show`.
pub(crate) fn property<'a>(show: &'a str, name: &str) -> Option<&'a str> {
    let value = show.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.filter(|value| !value.is_empty())
}

/// How the unit is restarted, if it is one that is loaded.
pub(crate) fn restart_command(unit: &str, show: Option<&str>) -> Option<String> {
    let state = show.and_then(|show| property(show, "LoadState"));
    let known = state.is_none_or(|state| state == "loaded");
    (known && is_unit_name(unit) && unit.ends_with(".service"))
        .then(|| format!("systemctl restart {unit}"))
}

/// The files of a unit in the output of `systemctl show`, or where they are by custom.
pub(crate) fn files(unit: &str, show: Option<&str>) -> Vec<String> {
    let named = |name: &str| {
        let value = show.and_then(|show| property(show, name)).unwrap_or_default();
        value.split_whitespace().filter(|path| path.starts_with('/')).map(str::to_owned)
    };
    let mut files: Vec<String> = named("FragmentPath").chain(named("DropInPaths")).collect();
    if files.is_empty() {
        let folders = [
            "/etc/systemd/system",
            "/run/systemd/system",
            "/run/systemd/generator.late",
            "/usr/local/lib/systemd/system",
            "/usr/lib/systemd/system",
            "/lib/systemd/system",
        ];
        // An instance `a@b.service` is made from `a@.service`.
        let template = unit.split_once('@').map(|(name, _)| format!("{name}@.service"));
        let names: Vec<String> = std::iter::once(unit.to_owned()).chain(template).collect();
        files.extend(
            folders
                .iter()
                .flat_map(|folder| names.iter().map(move |name| format!("{folder}/{name}"))),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOW: &str = include_str!("../../tests/fixtures/systemctl-show.txt");

    #[test]
    fn the_innermost_service_is_the_unit() {
        let text = "9:name=systemd:/\n0::/system.slice/kamailio.service/helpers\n";
        assert_eq!(of_control_groups(text).as_deref(), Some("kamailio.service"));
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sip@a.service\n";
        assert_eq!(of_control_groups(user).as_deref(), Some("sip@a.service"));
        assert_eq!(of_control_groups("0::/\n1:cpu:/docker/abc\n"), None);
        assert_eq!(of_control_groups("0::/--root=x.service\n0::/a b.service\n"), None);
    }

    #[test]
    fn what_systemctl_shows_is_understood() {
        assert_eq!(property(SHOW, "ActiveState"), Some("active"));
        assert_eq!(property(SHOW, "MainPID"), Some("812"));
        assert_eq!(property(SHOW, "Nothing"), None);
        assert_eq!(
            restart_command("kamailio.service", Some(SHOW)).as_deref(),
            Some("systemctl restart kamailio.service")
        );
        let expected = [
            "/lib/systemd/system/kamailio.service",
            "/etc/systemd/system/kamailio.service.d/limits.conf",
        ];
        assert_eq!(files("kamailio.service", Some(SHOW)), expected);
    }

    #[test]
    fn where_systemd_does_not_answer_files_are_looked_for_by_custom() {
        assert_eq!(
            restart_command("a.service", None).as_deref(),
            Some("systemctl restart a.service")
        );
        assert_eq!(restart_command("a.service", Some("LoadState=not-found\n")), None);
        assert_eq!(restart_command("a.scope", None), None);
        let files = files("sip@a.service", None);
        assert!(files.contains(&"/etc/systemd/system/sip@.service".to_owned()));
        assert!(files.contains(&"/usr/lib/systemd/system/sip@a.service".to_owned()));
    }
}
