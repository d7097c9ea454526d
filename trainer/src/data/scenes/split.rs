//! Which scenes belong together, and how each follows from its number.

use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::scene::Scene;
use super::world::World;

/// A set of scenes. No scene is in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    Train,
    /// Of the same distribution as training, never trained on.
    HeldOut,
    /// Every scene has at least one of the pairs that training never shows nor names, and its questions whether
    /// something exists are about such pairs.
    Compositional,
}

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::HeldOut, Self::Compositional];
}

/// All scenes of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenes {
    /// What everything is drawn from.
    pub seed: u64,
    /// Width and height of an image, in pixels.
    pub image_size: u32,
    /// How rich they are.
    pub world: World,
}

impl Scenes {
    /// Scene number `index` of `split`. Every index has one.
    pub fn scene(&self, split: Split, index: u64) -> Scene {
        Scene::draw(self.world, split, &mut self.rng(split, index, 0))
    }

    /// Scene number `index` of `split` as pixels.
    pub fn image(&self, split: Split, index: u64) -> RgbImage {
        self.scene(split, index).render(self.image_size)
    }

    /// Randomness for the texts about a scene, the same each time for the same `pass` over the data.
    pub fn text_rng(&self, split: Split, index: u64, pass: u32) -> ChaCha8Rng {
        self.rng(split, index, 1 + u64::from(pass))
    }

    fn rng(&self, split: Split, index: u64, stream: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        for (bytes, word) in
            key.chunks_exact_mut(8).zip([self.seed, split as u64 | (self.world as u64) << 8, index, stream])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}
