//! What the sniffer's threads do, from its own list: all of them have the program's name.

use std::collections::BTreeMap;

/// Roles by thread ID, as the sniffer counts, from an answer to `sniffer_threads`: rows of
/// `ROLE ( TID) : CPU …`. Other rows are passed over.
pub fn roles(answer: &[u8]) -> BTreeMap<u32, String> {
    let text = String::from_utf8_lossy(answer);
    let role = |line: &str| {
        let (head, _) = line.split_once(") :")?;
        let (role, tid) = head.rsplit_once('(')?;
        let role = role.trim();
        (!role.is_empty()).then_some((tid.trim().parse().ok()?, role.to_owned()))
    };
    text.lines().filter_map(role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_a_thread_are_read_and_the_sum_is_not() {
        let answer = b"t2 sip preprocess find_call                   (  24604) :   6.7  10\n\
            rtp (read)                                    (  24610) : 100.0\n\
            CPU ALL :     0\nnonsense (x) : 1\n";
        let roles = roles(answer);
        let roles: Vec<_> = roles.iter().map(|(tid, role)| (*tid, role.as_str())).collect();
        assert_eq!(roles, [(24604, "t2 sip preprocess find_call"), (24610, "rtp (read)")]);
    }
}
