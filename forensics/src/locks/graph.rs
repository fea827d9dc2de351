//! The wait-for graph. A thread waits for one lock at most and a lock has one holder at most, so
//! from each wait one way leads on, and a circle is found by following it.

/// For each wait: which wait its lock's holder is in, if it waits for a lock itself.
///
/// Each circle is given once, from its lowest wait on, in the order of the waits.
pub(super) fn cycles(next: &[Option<usize>]) -> Vec<Vec<usize>> {
    // The walk that first came by; a wait that an earlier walk passed leads to nothing new.
    let mut passed: Vec<Option<usize>> = vec![None; next.len()];
    let mut cycles = Vec::new();
    for start in 0..next.len() {
        let mut at = Some(start);
        while let Some(wait) = at {
            match passed.get(wait).copied().flatten() {
                Some(walk) if walk == start => {
                    cycles.push(circle(next, wait));
                    break;
                }
                Some(_) => break,
                None => {}
            }
            if let Some(mark) = passed.get_mut(wait) {
                *mark = Some(start);
            }
            at = next.get(wait).copied().flatten();
        }
    }
    cycles.sort();
    cycles
}

/// The circle through `wait`, from its lowest member on.
fn circle(next: &[Option<usize>], wait: usize) -> Vec<usize> {
    let mut members = vec![wait];
    let mut at = next.get(wait).copied().flatten();
    while let Some(other) = at.filter(|other| *other != wait && members.len() <= next.len()) {
        members.push(other);
        at = next.get(other).copied().flatten();
    }
    let lowest = members.iter().enumerate().min_by_key(|(_, wait)| **wait).map(|(index, _)| index);
    members.rotate_left(lowest.unwrap_or(0));
    members
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::cycles;

    #[test]
    fn two_that_wait_for_each_other_are_a_circle() {
        assert_eq!(cycles(&[Some(1), Some(0)]), [[0, 1]]);
    }

    #[test]
    fn one_that_waits_for_itself_is_a_circle() {
        assert_eq!(cycles(&[None, Some(1)]), [[1]]);
    }

    #[test]
    fn those_that_wait_for_a_circle_are_not_in_it() {
        // 0 and 4 wait for the circle 1 → 3 → 2.
        assert_eq!(cycles(&[Some(1), Some(3), Some(1), Some(2), Some(0)]), [[1, 3, 2]]);
    }

    #[test]
    fn a_chain_that_ends_is_no_circle() {
        assert_eq!(cycles(&[Some(1), Some(2), None]), Vec::<Vec<usize>>::new());
        assert_eq!(cycles(&[Some(7)]), Vec::<Vec<usize>>::new());
    }

    proptest! {
        #[test]
        fn a_circle_closes_and_is_found_once(
            next in proptest::collection::vec(proptest::option::of(0_usize..12), 0..12)
        ) {
            let found = cycles(&next);
            for circle in &found {
                let mut following = circle.iter().skip(1).chain(circle.first());
                for wait in circle {
                    prop_assert_eq!(next[*wait], following.next().copied());
                }
            }
            let mut in_circles: Vec<usize> = found.concat();
            in_circles.sort_unstable();
            // By the definition: a wait is in a circle if the way from it leads back to it.
            let back = |start: usize| {
                let mut at = next[start];
                for _ in 0..next.len() {
                    match at {
                        Some(wait) if wait == start => return true,
                        Some(wait) if wait < next.len() => at = next[wait],
                        _ => return false,
                    }
                }
                false
            };
            let expected: Vec<usize> = (0..next.len()).filter(|wait| back(*wait)).collect();
            prop_assert_eq!(in_circles, expected);
        }
    }
}
