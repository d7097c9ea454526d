//! Where training samples come from: scenes drawn on the fly, or conversations about images on disk.

use super::scenes::{QuestionWeights, Scene, Scenes, Split, dialogue, is_true};
use anyhow::Result;
use image::RgbImage;

/// Training samples without end, each the same whenever it is asked for.
pub trait Source: Sync {
    /// An image with a caption that is true of it: phase 1.
    fn pair(&self, index: u64) -> Result<Pair>;
    /// An image with questions and answers: phase 2. `progress` runs from 0 to 1 over the phase.
    fn conversation(&self, index: u64, progress: f64) -> Result<Conversation>;
}

/// An image and a caption.
pub struct Pair {
    pub image: RgbImage,
    pub caption: String,
    /// Other captions that are as true of it, where they are known.
    pub others: Vec<String>,
    /// What the image shows, where that is known.
    pub scene: Option<Scene>,
}

impl Pair {
    /// Whether `caption` would be true of this image: of a scene by its geometry, else when it is the very text of one of
    /// its captions.
    pub fn could_say(&self, caption: &str) -> bool {
        match &self.scene {
            Some(scene) => is_true(caption, scene),
            None => caption == self.caption || self.others.iter().any(|other| caption == other),
        }
    }
}

/// What is said about images.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The images: one in front of the first question, or one for each mark `<image>` in the questions.
    pub images: Vec<RgbImage>,
    /// Their places among the images of a data set on disk.
    pub places: Vec<usize>,
    /// What the model is told before.
    pub system: Option<String>,
    /// Questions and answers.
    pub turns: Vec<(String, String)>,
}

impl Conversation {
    /// Questions and answers about images that are in no data set.
    pub fn about(images: Vec<RgbImage>, turns: Vec<(String, String)>) -> Conversation {
        Conversation { images, places: Vec::new(), system: None, turns }
    }
}

/// The built-in scenes as a source.
pub struct SceneSource {
    pub scenes: Scenes,
    /// Questions per scene.
    pub turns: usize,
    /// Whether each is answered without the others in sight.
    pub independent: bool,
    /// How often each kind is asked at the start.
    pub start: QuestionWeights,
    /// How often from `until` on.
    pub end: QuestionWeights,
    /// The share of training after which the weights stay at `end`.
    pub until: f64,
}

impl Scenes {
    /// A scene that is kept from training, with questions about it asked as often as `weights` say.
    pub fn held_out_talk(
        &self,
        index: u64,
        weights: &QuestionWeights,
        turns: usize,
        independent: bool,
    ) -> Conversation {
        let scene = self.scene(Split::HeldOut, index);
        let mut rng = self.text_rng(Split::HeldOut, index, 9);
        let turns = dialogue(&scene, weights, turns, independent, &mut rng);
        let turns = turns.into_iter().map(|turn| (turn.question, turn.answer)).collect();
        Conversation::about(vec![scene.render(self.image_size)], turns)
    }

    /// A scene that is kept from training, with a caption that is true of it.
    pub fn held_out(&self, index: u64) -> Pair {
        let scene = self.scene(Split::HeldOut, index);
        let caption = scene.any_caption(&mut self.text_rng(Split::HeldOut, index, 7));
        Pair {
            image: scene.render(self.image_size),
            caption: caption.to_string(),
            others: Vec::new(),
            scene: Some(scene),
        }
    }
}

/// Phase 2 draws other scenes than phase 1.
const PHASE2: u64 = 1 << 40;

impl Source for SceneSource {
    fn pair(&self, index: u64) -> Result<Pair> {
        let scene = self.scenes.scene(Split::Train, index);
        let caption = scene.any_caption(&mut self.scenes.text_rng(Split::Train, index, 0)).to_string();
        Ok(Pair { image: scene.render(self.scenes.image_size), caption, others: Vec::new(), scene: Some(scene) })
    }

    fn conversation(&self, index: u64, progress: f64) -> Result<Conversation> {
        let index = PHASE2 + index;
        let scene = self.scenes.scene(Split::Train, index);
        let weights = self.start.lerp(self.end, (progress / self.until.max(f64::MIN_POSITIVE)).min(1.0));
        let mut rng = self.scenes.text_rng(Split::Train, index, 1);
        let turns = dialogue(&scene, &weights, self.turns, self.independent, &mut rng);
        let turns = turns.into_iter().map(|turn| (turn.question, turn.answer)).collect();
        Ok(Conversation::about(vec![scene.render(self.scenes.image_size)], turns))
    }
}
