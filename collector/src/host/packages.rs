//! Which package a file is of, and which version: the databases of dpkg and apk as texts, and the
//! answer of rpm.

use std::collections::{BTreeMap, BTreeSet};

/// One package.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
    /// Which of the files that were asked for it owns.
    pub(crate) files: BTreeSet<String>,
}

/// The names under which a package manager may know a file: `/lib` is `/usr/lib` by now, but lists
/// of older packages say `/lib`.
pub(crate) fn aliases(path: &str) -> Vec<String> {
    let mut names = vec![path.to_owned()];
    for folder in ["/lib", "/lib64", "/bin", "/sbin"] {
        let inner =
            |whole: &str| path.strip_prefix(whole).is_some_and(|rest| rest.starts_with('/'));
        let usr = format!("/usr{folder}");
        if inner(folder) {
            names.push(format!("/usr{path}"));
        } else if inner(&usr) {
            names.extend(path.strip_prefix("/usr").map(str::to_owned));
        }
    }
    names
}

/// Which of the wanted names stand in a list of `/var/lib/dpkg/info`, a path a line.
pub(crate) fn listed<'a>(list: &[u8], wanted: &BTreeMap<String, &'a str>) -> Vec<&'a str> {
    let lines = list.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.filter_map(|line| wanted.get(line).copied()).collect()
}

/// The package that a list is of: `libc6:amd64.list`.
pub(crate) fn of_list_name(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".list")?;
    Some(name.split(':').next().unwrap_or(name))
}

/// Versions in `/var/lib/dpkg/status` of the packages of these names; one for each architecture.
pub(crate) fn dpkg(status: &str, names: &BTreeSet<String>) -> Vec<Package> {
    status
        .split("\n\n")
        .filter_map(|stanza| {
            let field = |name: &str| {
                stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            };
            let name = field("Package").filter(|name| names.contains(*name))?;
            let installed = field("Status").is_none_or(|status| status.ends_with(" installed"));
            installed.then(|| Package {
                name: name.to_owned(),
                version: field("Version").unwrap_or_default().to_owned(),
                architecture: field("Architecture").unwrap_or_default().to_owned(),
                files: BTreeSet::new(),
            })
        })
        .collect()
}

/// The owners of the wanted files in `/lib/apk/db/installed`.
pub(crate) fn apk(installed: &str, wanted: &BTreeMap<String, &str>) -> Vec<Package> {
    installed
        .split("\n\n")
        .filter_map(|stanza| {
            let mut package = Package::default();
            let mut folder = "";
            for line in stanza.lines() {
                match line.split_once(':') {
                    Some(("P", name)) => name.clone_into(&mut package.name),
                    Some(("V", version)) => version.clone_into(&mut package.version),
                    Some(("A", architecture)) => architecture.clone_into(&mut package.architecture),
                    Some(("F", path)) => folder = path,
                    Some(("R", name)) => {
                        let path = format!("/{folder}/{name}");
                        package.files.extend(wanted.get(&path).map(|path| (*path).to_owned()));
                    }
                    _ => {}
                }
            }
            (!package.files.is_empty()).then_some(package)
        })
        .collect()
}

/// What `rpm -qf` is asked to answer for each file; [`rpm`] reads it.
pub(crate) const RPM_FORMAT: &str = "%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\\n";

/// The answers of rpm to these files, a line each, in their order. A file of no package is answered
/// by a sentence.
pub(crate) fn rpm(answers: &str, files: &[String]) -> Vec<Package> {
    let mut packages: Vec<Package> = Vec::new();
    for (answer, file) in answers.lines().zip(files) {
        let words: Vec<&str> = answer.split(' ').collect();
        let [name, version, architecture] = words.as_slice() else { continue };
        let found = packages.iter_mut().find(|one| one.name == *name && one.version == *version);
        match found {
            Some(package) => {
                package.files.insert(file.clone());
            }
            None => packages.push(Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                architecture: (*architecture).to_owned(),
                files: BTreeSet::from([file.clone()]),
            }),
        }
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dpkg_tells_owner_and_version() {
        let path = "/usr/lib/x86_64-linux-gnu/libc.so.6";
        let wanted: BTreeMap<String, &str> =
            aliases(path).into_iter().map(|alias| (alias, path)).collect();
        assert!(wanted.contains_key("/lib/x86_64-linux-gnu/libc.so.6"));
        let list = b"/.\n/lib\n/lib/x86_64-linux-gnu/libc.so.6\n\xff\n/lib/x\n";
        assert_eq!(listed(list, &wanted), [path]);
        assert_eq!(of_list_name("libc6:amd64.list"), Some("libc6"));
        assert_eq!(of_list_name("kamailio.list"), Some("kamailio"));
        assert_eq!(of_list_name("kamailio.md5sums"), None);
        let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\n\
                      Multi-Arch: same\nVersion: 2.36-9\nDescription: x\n Version: no\n\n\
                      Package: libc6\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                      Package: other\nVersion: 3\n";
        let found = dpkg(status, &BTreeSet::from(["libc6".to_owned()]));
        let expected = Package {
            name: "libc6".into(),
            version: "2.36-9".into(),
            architecture: "amd64".into(),
            files: BTreeSet::new(),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn apk_tells_owner_and_version() {
        let text = "P:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:ld-musl-x86_64.so.1\nZ:Q1\n\n\
                    P:other\nV:1\nF:usr/bin\nR:x\n";
        let path = "/lib/ld-musl-x86_64.so.1";
        let found = apk(text, &BTreeMap::from([(path.to_owned(), path)]));
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].name, &*found[0].version), ("musl", "1.2.5-r0"));
        assert_eq!(found[0].files, BTreeSet::from([path.to_owned()]));
    }

    #[test]
    fn rpm_answers_in_the_order_of_the_files() {
        let answers = "kamailio 5.8.2-1.el9 x86_64\nfile /opt/x is not owned by any package\n\
                       kamailio 5.8.2-1.el9 x86_64\n";
        let files = ["/usr/sbin/kamailio", "/opt/x", "/usr/lib64/kamailio/modules/tm.so"];
        let found = rpm(answers, &files.map(str::to_owned));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].version, "5.8.2-1.el9");
        assert_eq!(found[0].files.len(), 2);
    }
}
