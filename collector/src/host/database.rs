//! Settings of a MySQL or MariaDB server in its option files.

use std::collections::BTreeMap;

/// What is worth a line of its own.
const WANTED: [&str; 12] = [
    "innodb_buffer_pool_size",
    "innodb_buffer_pool_instances",
    "innodb_log_file_size",
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_method",
    "innodb_io_capacity",
    "max_connections",
    "max_allowed_packet",
    "tmpdir",
    "datadir",
    "wait_timeout",
    "key_buffer_size",
];

/// Groups that a server reads.
fn is_servers(group: &str) -> bool {
    matches!(group, "server" | "mysqld" | "mariadb" | "mariadbd" | "galera")
        || group.starts_with("mysqld-")
        || group.starts_with("mariadb-")
}

/// What one file adds: settings of the server, and where it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OptionFile {
    /// The wanted settings, names with `_`; the last one counts.
    pub(crate) settings: BTreeMap<String, String>,
    /// Folders of `!includedir`.
    pub(crate) folders: Vec<String>,
    /// Files of `!include`.
    pub(crate) files: Vec<String>,
}

/// Reads an option file.
pub(crate) fn option_file(text: &str) -> OptionFile {
    let mut found = OptionFile::default();
    let mut of_server = false;
    for line in text.lines().map(str::trim) {
        if let Some(folder) = line.strip_prefix("!includedir") {
            found.folders.push(folder.trim().to_owned());
        } else if let Some(file) = line.strip_prefix("!include") {
            found.files.push(file.trim().to_owned());
        } else if let Some(group) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            of_server = is_servers(group.trim());
        } else if of_server && !line.starts_with(['#', ';']) {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let name = name.trim().replace('-', "_");
            let name = name.strip_prefix("loose_").unwrap_or(&name).to_owned();
            if WANTED.contains(&&*name) {
                let value = value.split('#').next().unwrap_or_default();
                found.settings.insert(name, value.trim().trim_matches(['"', '\'']).to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_settings_and_includes_are_read() {
        let text = "!includedir /etc/mysql/conf.d/\n!include /etc/mysql/own.cnf\n\
                    [client]\nmax-allowed-packet=1M\n[mysqld]\n# innodb_buffer_pool_size=1G\n\
                    innodb-buffer-pool-size = 8G # of 16\nmax_connections=\"500\"\n\
                    password=secret\n[mariadb-10.6]\nloose-innodb_io_capacity=2000\n";
        let found = option_file(text);
        let expected = [
            ("innodb_buffer_pool_size", "8G"),
            ("innodb_io_capacity", "2000"),
            ("max_connections", "500"),
        ];
        let settings: Vec<(&str, &str)> =
            found.settings.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(settings, expected);
        assert_eq!(found.folders, ["/etc/mysql/conf.d/"]);
        assert_eq!(found.files, ["/etc/mysql/own.cnf"]);
    }

    #[test]
    fn other_texts_have_no_settings() {
        for text in ["", "[", "[mysqld", "=\n[mysqld]\n=\n!\n", "\u{0}"] {
            assert_eq!(option_file(text).settings, BTreeMap::new(), "{text:?}");
        }
    }
}
