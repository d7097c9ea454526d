//! Images from bytes to numbers on the CPU.

use crate::Element;
use crate::cpu::parallel::for_chunks;
use crate::cpu::simd::Real;
use crate::pixels::Normalise;

pub(crate) fn normalise<T: Element>(p: &Normalise, bytes: &[u8], out: &mut [T]) {
    // There are only 256 results a colour.
    let table: [[T; 256]; 3] =
        [0, 1, 2].map(|colour| std::array::from_fn(|byte| T::narrow(T::Acc::of(p.value(colour, byte as u8)))));
    if out.is_empty() {
        return;
    }
    let image = 3 * p.area;
    for_chunks(out.len() / image, ((bytes, image), (out, image)), |_, (bytes, out)| {
        for (plane, (out, table)) in out.chunks_exact_mut(p.area).zip(&table).enumerate() {
            for (out, pixel) in out.iter_mut().zip(bytes.as_chunks::<3>().0) {
                *out = table[pixel[plane] as usize];
            }
        }
    });
}
