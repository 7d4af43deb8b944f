//! Where decisions come from: a seeded stream, or the bytes of a fuzzer.

/// Words from which every decision is made. The same words make the same specimen.
pub trait Choices {
    /// The next word.
    fn word(&mut self) -> u64;

    /// A number in `0..bound`, 0 when `bound` is 0. Takes one word.
    fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.word()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half of a 128-bit product has 64 bits")
    }

    /// A number in `low..=high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in one of `of` cases.
    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// One of some values.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T
    where
        Self: Sized,
    {
        from[index(self.below(len(from)))]
    }

    /// Puts items into another order.
    fn shuffle<T>(&mut self, items: &mut [T])
    where
        Self: Sized,
    {
        for last in (1..items.len()).rev() {
            let pick = index(self.below(len(&items[..=last])));
            items.swap(last, pick);
        }
    }

    /// 16 bytes of an identifier, none of them zero.
    fn id(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (place, byte) in bytes.iter_mut().zip(self.word().to_le_bytes().repeat(2)) {
            *place = byte.rotate_left(3) | 1;
        }
        bytes
    }
}

/// The bytes of a fuzzer, through `arbitrary`. Behind their end every word is zero, so that the first of all alternatives
/// is taken: short inputs make plain specimens.
impl Choices for arbitrary::Unstructured<'_> {
    fn word(&mut self) -> u64 {
        // Two bytes decide as much as eight for the small numbers that are mostly asked for, and mutate better.
        let short = self.arbitrary::<u16>().unwrap_or(0);
        (u64::from(short) << 48) | u64::from(short)
    }
}

/// A function that gives words, such as the stream of a simulator.
#[derive(Debug)]
pub struct Stream<F>(pub F);

impl<F: FnMut() -> u64> Choices for Stream<F> {
    fn word(&mut self) -> u64 {
        (self.0)()
    }
}

/// A length as 64 bits.
pub(crate) fn len<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).expect("lengths fit 64 bits")
}

/// A number that is known to be an index.
pub(crate) fn index(number: u64) -> usize {
    usize::try_from(number).expect("specimens are small enough for every machine")
}
