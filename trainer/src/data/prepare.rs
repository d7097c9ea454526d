//! Images and text on their way into the model.

use anyhow::Result;
use engine::{Params, Tensor};
use image::RgbImage;
use model::{Chat, ImageProcessor, Message, Part, Role, TextBatch, Tokenizer, Turn, VlmConfig};

/// Rows of text are padded to a multiple of this, so that few shapes occur and memory is used again.
const LENGTH_STEP: usize = 16;

/// What turns samples into the model's input.
#[derive(Debug, Clone)]
pub struct Prepare {
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Images to pixels.
    pub processor: ImageProcessor,
    /// Conversations to text.
    pub chat: Chat,
    /// The token that stands for an image in texts and the slots it takes; None: images come in front of texts.
    pub image: Option<(u32, usize)>,
}

impl Prepare {
    /// For a model with this configuration.
    pub fn new(tokenizer: Tokenizer, processor: ImageProcessor, chat: Chat, config: &VlmConfig) -> Prepare {
        Prepare {
            tokenizer,
            processor,
            chat,
            image: config.image_token.map(|token| (token, config.image_tokens())),
        }
    }

    /// Images, one after another: (batch, size, size, 3).
    pub fn pixels<'i>(&self, images: impl IntoIterator<Item = &'i RgbImage>) -> Result<Vec<u8>> {
        Ok(self.processor.bytes(images)?)
    }

    /// What [`Prepare::pixels`] gave, on the model's device in the model's type: (batch, 3, size, size).
    pub fn tensor(&self, params: &Params, pixels: &[u8]) -> Result<Tensor> {
        Ok(self.processor.tensor(pixels, params.device(), params.dtype())?)
    }

    /// Questions and answers about each image; independent ones do not see each other.
    pub fn text(&self, rows: &[Vec<(String, String)>], independent: bool) -> Result<TextBatch> {
        let row = |turns: &Vec<(String, String)>| match independent {
            true => turns.chunks(1).map(|turn| self.turn(turn)).collect(),
            false => self.turn(turns).map(|whole| vec![whole]),
        };
        let rows: Vec<Vec<Turn>> = rows.iter().map(row).collect::<Result<_>>()?;
        let mut batch = TextBatch::pack(&rows, self.tokenizer.specials().pad, LENGTH_STEP)?;
        if self.image.is_some() {
            let images = rows.iter().enumerate();
            batch.images = images
                .flat_map(|(i, row)| std::iter::repeat_n(i as i32, row.len()))
                .collect();
        }
        Ok(batch)
    }

    /// A question about an image, up to where the answer starts; with one token for the image where it has one.
    pub fn prompt(&self, question: &str) -> Result<Vec<u32>> {
        Ok(self.chat.prompt(&self.tokenizer, &[asked(question, true)])?)
    }

    /// A conversation as the model reads it, with what it learns in brackets and an image's slots as one.
    pub fn shown(&self, exchanges: &[(String, String)]) -> Result<String> {
        let turn = self.turn(exchanges)?;
        let image = self.image.map(|(token, _)| token);
        let kind = |i: usize| (turn.learn[i], Some(turn.ids[i]) == image);
        let places: Vec<usize> = (0..turn.ids.len()).collect();
        let mut text = String::new();
        for run in places.chunk_by(|&a, &b| kind(a) == kind(b)) {
            let ids = &turn.ids[run[0]..=run[run.len() - 1]];
            text += &match kind(run[0]) {
                (_, true) => format!("{} × {}", self.tokenizer.token(ids[0]).unwrap_or_default(), ids.len()),
                (true, _) => format!("[{}]", self.tokenizer.decode_with_specials(ids)?),
                _ => self.tokenizer.decode_with_specials(ids)?,
            };
            text.push(' ');
        }
        Ok(text.trim_end().to_string())
    }

    /// A conversation about one image.
    fn turn(&self, exchanges: &[(String, String)]) -> Result<Turn> {
        let both = |(i, (question, answer)): (usize, &(String, String))| {
            [asked(question, i == 0), Message::text(Role::Assistant, answer)]
        };
        let messages: Vec<Message> = exchanges.iter().enumerate().flat_map(both).collect();
        let mut turn = self.chat.turn(&self.tokenizer, &messages)?;
        if let Some((token, slots)) = self.image {
            turn.expand(token, slots);
        }
        Ok(turn)
    }
}

/// A question, the first with the image in front of it.
fn asked(question: &str, first: bool) -> Message {
    let image = first.then_some(Part::Image);
    Message {
        role: Role::User,
        content: image.into_iter().chain([Part::Text(question.into())]).collect(),
    }
}
