//! The thousand fragments: in every shape that a leak can have, and in every way to be held.

use testbed::plan::{Into, Kind, Place, Plan, Wanted};
use testbed::seed::Seed;

/// Lines of planted fragments begin here: no source of Kamailio's has so many.
pub(crate) const FIRST_LINE: u32 = 70_001;

/// How many fragments are planted.
pub(crate) const COUNT: usize = 1000;

/// What is planted, and what to look at.
#[derive(Debug)]
pub(crate) struct Shapes {
    pub(crate) plan: Plan,
    /// One of each way to be held.
    pub(crate) samples: Vec<Sample>,
    seed: Seed,
    owner: Wanted,
}

/// A fragment that is held, and how.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    /// What `forensics why` calls the root.
    pub(crate) root: &'static str,
    /// The planted words that lead to it, from the root.
    pub(crate) words: Vec<usize>,
}

/// All of it, by the choices of a seed.
pub(crate) fn thousand(seed: Seed) -> Shapes {
    let owner = Wanted { pool: Kind::Pkg, size: 0, owner: 0, line: FIRST_LINE - 1 };
    let mut shapes = Shapes { plan: Plan::default(), samples: Vec::new(), seed, owner };
    for pool in [Kind::Pkg, Kind::Shm] {
        shapes.forgotten(pool);
        shapes.cycles(pool);
        shapes.tree(pool, 40);
    }
    shapes.across();
    shapes.held_by_roots();
    shapes.held_through_others();
    shapes.held_on_the_stack();
    shapes.held_by_a_table();
    shapes
}

impl Shapes {
    /// The next fragments belong to an owner of their own.
    fn owner(&mut self, pool: Kind) {
        let owner = self.seed.number();
        self.owner = Wanted { pool, size: 0, owner, line: self.owner.line + 1 };
    }

    /// One more of the same owner, in the pool of the owner.
    fn take(&mut self) -> usize {
        self.take_from(self.owner.pool)
    }

    fn take_from(&mut self, pool: Kind) -> usize {
        let large = self.seed.between(1, 20) == 1;
        let size = if large { self.seed.between(600, 3000) } else { self.seed.between(24, 600) };
        self.plan.allocate(Wanted { pool, size, ..self.owner })
    }

    /// A pointer to a fragment's start, into its inside, or to its last byte.
    fn point(&mut self, at: Place, into: usize) -> usize {
        let inside = self.plan.fragments[into].size - 1;
        let plus = match self.seed.between(0, 3) {
            0 | 1 => Into::Plus(0),
            2 => Into::Plus(self.seed.between(1, inside)),
            _ => Into::Last,
        };
        self.plan.point(at, into, plus)
    }

    /// From the word with this number of one fragment to another.
    fn link(&mut self, from: usize, word: u32, into: usize) -> usize {
        self.point(Place::Fragment { index: from, offset: word * 8 }, into)
    }

    /// Fragments of which each points to the next, through its first word.
    fn chain(&mut self, length: usize) -> Vec<usize> {
        let all: Vec<usize> = (0..length).map(|_| self.take()).collect();
        for pair in all.windows(2) {
            self.link(pair[0], 0, pair[1]);
        }
        all
    }

    fn ring(&mut self, length: usize) -> Vec<usize> {
        let all = self.chain(length);
        self.link(all[length - 1], 0, all[0]);
        all
    }

    fn forgotten(&mut self, pool: Kind) {
        for number in 0..120 {
            if number % 20 == 0 {
                self.owner(pool);
            }
            self.take();
        }
        self.owner(pool);
        for _ in 0..5 {
            let length = self.seed.between(2, 15);
            self.chain(usize::try_from(length).unwrap());
        }
    }

    fn cycles(&mut self, pool: Kind) {
        self.owner(pool);
        for _ in 0..10 {
            self.ring(1);
        }
        self.owner(pool);
        for _ in 0..5 {
            self.ring(2);
        }
        self.owner(pool);
        self.ring(50);
        // A chain that hangs off a cycle, through second words, and one that leads into it.
        self.owner(pool);
        let ring = self.ring(3);
        let chain = self.chain(12);
        self.link(ring[1], 1, chain[0]);
        self.owner(pool);
        let ring = self.ring(4);
        let chain = self.chain(6);
        self.link(chain[5], 0, ring[2]);
    }

    /// A tree without a root that anything holds.
    fn tree(&mut self, pool: Kind, size: usize) {
        self.owner(pool);
        self.branches(size);
    }

    /// A tree, through the first two words of each.
    fn branches(&mut self, size: usize) -> Vec<usize> {
        let mut all = vec![self.take()];
        while all.len() < size {
            let next = self.take();
            let parent = all[(all.len() - 1) / 2];
            let word = u32::try_from((all.len() - 1) % 2).unwrap();
            self.link(parent, word, next);
            all.push(next);
        }
        all
    }

    /// Lost fragments of one pool hold the other's.
    fn across(&mut self) {
        for (from, into) in [(Kind::Pkg, Kind::Shm), (Kind::Shm, Kind::Pkg)] {
            self.owner(from);
            let heads: Vec<usize> = (0..10).map(|_| self.take()).collect();
            self.owner(into);
            for head in heads {
                let behind = self.take();
                self.link(head, 2, behind);
            }
        }
    }

    fn held(&mut self, name: &'static str, root: &'static str, words: &[usize]) {
        self.samples.push(Sample { name, root, words: words.to_owned() });
    }

    fn held_by_roots(&mut self) {
        for pool in [Kind::Pkg, Kind::Shm] {
            let pointers =
                [("start", Into::Plus(0)), ("start + 24", Into::Plus(24)), ("end", Into::Last)];
            for (name, plus) in pointers {
                self.owner(pool);
                let chunk = self.plan.chunk(64);
                let wanted = Wanted { size: self.seed.between(40, 600), ..self.owner };
                let fragment = self.plan.allocate(wanted);
                let place = Place::Chunk { index: chunk, offset: 16 };
                let word = self.plan.point(place, fragment, plus);
                self.held(name, "heap", &[word]);
            }
        }
        // Variables that nothing in these tests reads: of the program, and of a module that would
        // use them if its tables were in a database.
        let symbols = [("chroot_dir", Kind::Pkg), ("ht_db_url", Kind::Shm)];
        for (name, pool) in symbols.into_iter().chain([("ht_db_value_column", Kind::Pkg)]) {
            self.owner(pool);
            let fragment = self.take();
            let word = self.point(Place::Symbol { name }, fragment);
            self.held(name, "data", &[word]);
        }
        self.owner(Kind::Shm);
        let fragment = self.take();
        let word = self.point(Place::Thread, fragment);
        self.held("thread-local storage", "data", &[word]);
    }

    fn held_by_a_chunk(&mut self, fragment: usize) -> usize {
        let index = self.plan.chunk(32);
        self.point(Place::Chunk { index, offset: 8 }, fragment)
    }

    fn held_through_others(&mut self) {
        // From pool to pool and back.
        self.owner(Kind::Pkg);
        let pools = [Kind::Pkg, Kind::Shm].into_iter().cycle().take(15);
        let chain: Vec<usize> = pools.map(|pool| self.take_from(pool)).collect();
        let mut words = vec![self.held_by_a_chunk(chain[0])];
        for pair in chain.windows(2) {
            let word = self.seed.between(0, 2);
            words.push(self.link(pair[0], word, pair[1]));
        }
        self.held("through PKG into SHM", "heap", &words[..2]);
        self.held("through PKG and SHM back into PKG", "heap", &words[..3]);
        self.held("through fourteen fragments", "heap", &words);

        self.owner(Kind::Shm);
        let tree = self.branches(60);
        self.held_by_a_chunk(tree[0]);
        self.owner(Kind::Pkg);
        let ring = self.ring(10);
        self.held_by_a_chunk(ring[3]);
        // Held as a whole, with a chain that leads into it and is lost.
        self.owner(Kind::Pkg);
        let chain = self.chain(8);
        self.link(chain[7], 0, ring[5]);
    }

    fn held_on_the_stack(&mut self) {
        self.owner(Kind::Pkg);
        let chain = self.chain(3);
        let word = self.point(Place::Environment, chain[0]);
        self.held("environment", "stack", &[word]);
    }

    /// All that are left, by a table in one chunk.
    fn held_by_a_table(&mut self) {
        let left = COUNT.saturating_sub(self.plan.fragments.len());
        let index = self.plan.chunk(u32::try_from(left * 8).unwrap());
        for entry in 0..left {
            if entry % 50 == 0 {
                let pool = if entry % 100 == 0 { Kind::Pkg } else { Kind::Shm };
                self.owner(pool);
            }
            let fragment = self.take();
            let offset = u32::try_from(entry * 8).unwrap();
            self.point(Place::Chunk { index, offset }, fragment);
        }
        assert_eq!(self.plan.fragments.len(), COUNT, "the other shapes leave some");
    }
}
