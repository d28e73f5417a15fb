//! Random bytes: the one place that draws them, so that a simulation can seed them.

/// Fills `bytes` from the operating system's source.
#[cfg(not(test))]
pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system's random source works");
}

pub fn draw<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

pub fn draw_u64() -> u64 {
    u64::from_le_bytes(draw())
}

#[cfg(test)]
pub use simulated::fill;

#[cfg(test)]
pub mod simulated {
    //! Numbers that look random and are the same for the same seed (SplitMix64).

    use std::cell::Cell;

    thread_local! {
        static SEED: Cell<Option<u64>> = const { Cell::new(None) };
    }

    #[derive(Debug, Clone, Copy)]
    pub struct Chance(pub u64);

    impl Chance {
        pub fn draw(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }

        pub fn below(&mut self, limit: u64) -> u64 {
            self.draw() % limit
        }
    }

    /// What this thread draws from now on; `None`: the operating system's.
    pub fn seed(seed: Option<u64>) {
        SEED.set(seed);
    }

    pub fn fill(bytes: &mut [u8]) {
        let Some(seed) = SEED.get() else {
            return getrandom::fill(bytes).expect("the operating system's random source works");
        };
        let mut chance = Chance(seed);
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&chance.draw().to_le_bytes()[..chunk.len()]);
        }
        SEED.set(Some(chance.0));
    }
}
