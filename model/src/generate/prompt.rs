//! What to continue: token ids and images, and the places that images take.

use super::generator::Generator;
use crate::error::{Result, input};

/// Token ids, and which of the images a [`Generator`] has seen they are about, in order.
///
/// Where a model has an image token, `ids` hold one of it per image; otherwise images stand in front of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prompt {
    /// The ids.
    pub ids: Vec<u32>,
    /// Numbers of images.
    pub images: Vec<usize>,
}

impl Prompt {
    /// Text alone.
    pub fn text(ids: &[u32]) -> Prompt {
        Prompt { ids: ids.to_vec(), images: Vec::new() }
    }

    /// Text about one image.
    pub fn about(ids: &[u32], image: usize) -> Prompt {
        Prompt { images: vec![image], ..Prompt::text(ids) }
    }
}

/// A token as the decoder takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: u32,
    /// The image of which this is a slot.
    pub(super) image: Option<usize>,
}

impl Token {
    pub(super) fn word(id: u32) -> Token {
        Token { id, image: None }
    }
}

/// A prompt in which each image has as many places as slots.
pub(super) struct Expanded<'p> {
    /// Images in front of the text.
    pub(super) leading: &'p [usize],
    pub(super) tokens: Vec<Token>,
}

impl<'p> Expanded<'p> {
    pub(super) fn new(generator: &Generator<'_>, prompt: &'p Prompt) -> Result<Expanded<'p>> {
        let Prompt { ids, images } = prompt;
        if ids.is_empty() {
            return input("prompt", "is empty");
        }
        let (vocab, seen) = (generator.vocab_size(), generator.images());
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return input("prompt", format!("id {id} is not among the model's {vocab}"));
        }
        if let Some(image) = images.iter().find(|&&image| image >= seen) {
            return input("prompt", format!("is about image {image} of {seen}"));
        }
        let Some(image_token) = generator.image_token() else {
            let tokens = ids.iter().copied().map(Token::word).collect();
            return Ok(Expanded { leading: images, tokens });
        };
        let places = ids.iter().filter(|&&id| id == image_token).count();
        if places != images.len() {
            let message =
                format!("{places} image tokens (id {image_token}) for {} images, expected one per image", images.len());
            return input("prompt", message);
        }
        let (mut tokens, mut next) = (Vec::new(), images.iter());
        for &id in ids {
            match next.as_slice().first().filter(|_| id == image_token) {
                Some(&image) => {
                    let slot = Token { id, image: Some(image) };
                    tokens.extend(std::iter::repeat_n(slot, generator.slots()));
                    next.next();
                }
                None => tokens.push(Token::word(id)),
            }
        }
        Ok(Expanded { leading: &[], tokens })
    }

    /// Fails when images, prompt and an answer of `max_new` tokens are more than the decoder takes.
    pub(super) fn fits(&self, generator: &Generator<'_>, max_new: usize) -> Result<()> {
        let (slots, tokens) = (self.leading.len() * generator.slots(), self.tokens.len());
        let limit = generator.decoder().config().max_position_embeddings;
        if slots + tokens + max_new > limit {
            let message = format!("{slots} image slots, {tokens} tokens and an answer of {max_new}: more than {limit}");
            return input("prompt", message);
        }
        Ok(())
    }
}
