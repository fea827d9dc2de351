//! Chance that can be had again: every choice follows from one number, which a test prints.

/// The variable that gives the number of an earlier run.
pub const VARIABLE: &str = "TEST_SEED";

/// A source of choices (SplitMix64: every number is as good a seed as any other).
#[derive(Clone, Debug)]
pub struct Seed {
    state: u64,
}

impl Seed {
    /// The seed that [`VARIABLE`] names, else one of the clock's.
    #[track_caller]
    pub fn choose() -> u64 {
        match std::env::var(VARIABLE) {
            Ok(text) => match text.parse() {
                Ok(seed) => seed,
                Err(error) => panic!("{VARIABLE}={text}: {error}"),
            },
            Err(_) => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                u64::from(now.unwrap().subsec_nanos()) ^ (u64::from(std::process::id()) << 32)
            }
        }
    }

    /// The choices of `seed` for the case of this name: those of one case do not depend on what
    /// other cases took.
    pub fn of(seed: u64, case: &str) -> Self {
        let mix = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self { state: case.bytes().fold(seed, mix) }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u32, high: u32) -> u32 {
        let choices = u64::from(high.saturating_sub(low)) + 1;
        low + u32::try_from(self.number() % choices).unwrap()
    }

    /// One of `things`; `None` if there are none.
    pub fn pick<T: Copy>(&mut self, things: &[T]) -> Option<T> {
        let count = u64::try_from(things.len()).unwrap();
        let index = self.number().checked_rem(count)?;
        things.get(usize::try_from(index).unwrap()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_case_give_the_same_choices_again() {
        let numbers = |seed, case| {
            let mut seed = Seed::of(seed, case);
            [seed.number(), seed.number(), seed.number()]
        };
        assert_eq!(numbers(7, "qm"), numbers(7, "qm"));
        assert_ne!(numbers(7, "qm"), numbers(8, "qm"));
        assert_ne!(numbers(7, "qm"), numbers(7, "fm"));
        assert_eq!(Seed::of(7, "").pick::<u8>(&[]), None);
    }
}
