//! Images and text on their way into the model.

use super::record::MARK;
use super::source::Conversation;
use anyhow::{Result, ensure};
use engine::{Params, Tensor};
use image::RgbImage;
use model::{Chat, ImageProcessor, Message, Part, Role, TextBatch, Tokenizer, Turn, VlmConfig};
use std::cmp::Reverse;

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
    /// The longest conversation in tokens; None: not cut.
    pub max_tokens: Option<usize>,
    /// The longest sequence the decoder takes.
    pub room: usize,
    /// Slots of an image in front of texts; 0 where images stand within them.
    pub front: usize,
}

/// What becomes of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Tokens to predict that are cut off.
    pub lost: usize,
    /// Tokens to predict that are left.
    pub targets: usize,
    /// Tokens behind those that the decoder has positions for.
    pub beyond: usize,
}

/// How conversations are laid out in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// The turns of a conversation do not see each other.
    pub independent: bool,
    /// A row holds as many conversations as there is room for; they do not see each other.
    pub packing: bool,
}

/// A conversation as ids, and the numbers of the images in it.
struct Laid {
    turns: Vec<Turn>,
    images: Vec<i32>,
}

impl Laid {
    fn len(&self) -> usize {
        self.turns.iter().map(|turn| turn.ids.len()).sum()
    }

    /// Tokens to predict: the first of a turn has nothing in front of it.
    fn targets(&self) -> usize {
        let learned = |turn: &Turn| turn.loss_mask.iter().skip(1).filter(|learn| **learn).count();
        self.turns.iter().map(learned).sum()
    }
}

/// A grey image: what is left to answer by when there is nothing to see.
pub fn blank(processor: &ImageProcessor) -> RgbImage {
    let size = processor.size as u32;
    RgbImage::from_pixel(size, size, image::Rgb([64; 3]))
}

impl Prepare {
    /// For a model with this configuration.
    pub fn new(tokenizer: Tokenizer, processor: ImageProcessor, chat: Chat, config: &VlmConfig) -> Prepare {
        Prepare {
            tokenizer,
            processor,
            chat,
            image: config.image_token.map(|token| (token, config.image_tokens())),
            max_tokens: None,
            room: config.decoder.max_position_embeddings,
            front: config.image_token.map_or(config.image_tokens(), |_| 0),
        }
    }

    /// Images, one after another: (batch, size, size, 3).
    pub fn pixels<'i>(&self, images: impl IntoIterator<Item = &'i RgbImage>) -> Result<Vec<u8>> {
        pixels(&self.processor, images)
    }

    /// What [`Prepare::pixels`] gave, on the model's device in the model's type: (batch, 3, size, size).
    pub fn tensor(&self, params: &Params, pixels: &[u8]) -> Result<Tensor> {
        Ok(self.processor.tensor(pixels, params.device(), params.dtype())?)
    }

    /// Conversations, each about images of its own, cut at [`Prepare::max_tokens`].
    ///
    /// # Errors
    /// When packing is wanted of a model whose image slots come in front of the text, or a cut goes through an image.
    pub fn conversations(&self, conversations: &[Conversation], layout: Layout) -> Result<TextBatch> {
        let mut laid = Vec::with_capacity(conversations.len());
        let mut image = 0;
        for talk in conversations {
            let images = image..image + talk.images.len() as i32;
            image = images.end;
            let mut one = self.lay(talk.system.as_deref(), &talk.turns, images, layout.independent)?;
            self.cut(&mut one)?;
            laid.push(one);
        }
        let rows = match layout.packing {
            true => {
                ensure!(self.image.is_some(), "phase2.packing: {}", Prepare::NO_PACKING);
                pack(laid, self.max_tokens.unwrap_or(self.room))
            }
            false => laid.into_iter().map(|one| vec![one]).collect(),
        };
        self.batch(rows)
    }

    /// What is said where packing is wanted and the model cannot have it.
    pub const NO_PACKING: &str = "this model takes an image's slots in front of a row of text, so a row has \
                                  one image; packing needs a model with an image token, as pretrained.decoder gives it";

    /// Rows of conversations as one batch.
    fn batch(&self, rows: Vec<Vec<Laid>>) -> Result<TextBatch> {
        let mut images = Vec::new();
        let mut row = |row: Vec<Laid>| -> Vec<Turn> {
            row.into_iter()
                .flat_map(|one| {
                    images.extend(one.images);
                    one.turns
                })
                .collect()
        };
        let turns: Vec<Vec<Turn>> = rows.into_iter().map(&mut row).collect();
        let mut batch = TextBatch::pack(&turns, self.tokenizer.specials().pad, LENGTH_STEP)?;
        if self.image.is_some() {
            batch.images = images;
        }
        Ok(batch)
    }

    /// One conversation about these images; independent turns each show the only one.
    fn lay(
        &self,
        system: Option<&str>,
        turns: &[(String, String)],
        images: std::ops::Range<i32>,
        independent: bool,
    ) -> Result<Laid> {
        let size = if independent { 1 } else { turns.len().max(1) };
        let (mut laid, mut shown) = (Vec::new(), Vec::new());
        for part in turns.chunks(size) {
            laid.push(self.turn(system, part)?);
            shown.extend(images.clone());
        }
        Ok(Laid { turns: laid, images: shown })
    }

    /// What becomes of a conversation about so many images.
    ///
    /// # Errors
    /// When it cannot be laid out, or a cut goes through an image.
    pub fn extent(
        &self,
        system: Option<&str>,
        turns: &[(String, String)],
        images: usize,
        layout: Layout,
    ) -> Result<Extent> {
        let mut laid = self.lay(system, turns, 0..images as i32, layout.independent)?;
        let all = laid.targets();
        self.cut(&mut laid)?;
        let (targets, longest) = (laid.targets(), laid.turns.iter().map(|turn| turn.ids.len()).max());
        Ok(Extent {
            lost: all - targets,
            targets,
            beyond: (self.front + longest.unwrap_or(0)).saturating_sub(self.room),
        })
    }

    /// Keeps the first [`Prepare::max_tokens`] tokens of a conversation, and of independent turns those that are whole.
    fn cut(&self, laid: &mut Laid) -> Result<()> {
        let Some(most) = self.max_tokens.filter(|most| laid.len() > *most) else {
            return Ok(());
        };
        let each = laid.images.len() / laid.turns.len().max(1);
        let mut length = 0;
        let fits = laid.turns.iter().take_while(|turn| {
            length += turn.ids.len();
            length <= most
        });
        let whole = fits.count().max(1);
        laid.turns.truncate(whole);
        laid.images.truncate(whole * each);
        let over = laid.len() > most;
        if let (Some(turn), true) = (laid.turns.first_mut(), over) {
            turn.ids.truncate(most);
            turn.loss_mask.truncate(most);
            let (token, slots) = self.image.unwrap_or_default();
            let found = turn.ids.iter().filter(|id| self.image.is_some() && **id == token).count();
            ensure!(
                self.image.is_none() || found == each * slots,
                "data.max_tokens: {most} cuts through the images of a conversation: it has {each}, of {slots} slots each"
            );
        }
        Ok(())
    }

    /// A conversation up to where its answer number `turn` starts; one token for each image where the model has one for it,
    /// and how many images are shown by then. See [`question`].
    pub fn prompt(&self, talk: &Conversation, turn: usize, independent: bool) -> Result<(Vec<u32>, usize)> {
        let messages = question(talk, turn, independent);
        let parts = messages.iter().flat_map(|message| &message.content);
        let images = parts.filter(|part| **part == Part::Image).count();
        Ok((self.chat.prompt(&self.tokenizer, &messages)?, images))
    }

    /// A conversation as the model reads it, cut as it is: each stretch of text with what it learns in brackets and an image's
    /// slots as one.
    pub fn shown(
        &self,
        system: Option<&str>,
        turns: &[(String, String)],
        images: usize,
        layout: Layout,
    ) -> Result<Vec<String>> {
        let mut laid = self.lay(system, turns, 0..images as i32, layout.independent)?;
        let whole = laid.len();
        self.cut(&mut laid)?;
        let mut shown: Vec<String> = laid.turns.iter().map(|turn| self.turn_shown(turn)).collect::<Result<_>>()?;
        if laid.len() < whole {
            let (length, most) = (laid.len(), self.max_tokens.unwrap_or_default());
            shown.push(format!("({length} of {whole} tokens: cut at data.max_tokens = {most})"));
        }
        Ok(shown)
    }

    fn turn_shown(&self, turn: &Turn) -> Result<String> {
        let image = self.image.map(|(token, _)| token);
        let kind = |i: usize| (turn.loss_mask[i], Some(turn.ids[i]) == image);
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

    /// A conversation as ids, with as many tokens for an image as it has slots.
    fn turn(&self, system: Option<&str>, exchanges: &[(String, String)]) -> Result<Turn> {
        let mut turn = self.chat.turn(&self.tokenizer, &messages(system, exchanges))?;
        if let Some((token, slots)) = self.image {
            turn.expand(token, slots);
        }
        Ok(turn)
    }
}

/// A conversation's question number `turn` as training asked it: with what came before, or where turns are independent without.
pub fn question(talk: &Conversation, turn: usize, independent: bool) -> Vec<Message> {
    let (first, exchanges) = match independent {
        true => (turn, &talk.turns[turn..=turn]),
        false => (0, &talk.turns[..]),
    };
    let mut messages = messages(talk.system.as_deref(), exchanges);
    messages.truncate(usize::from(talk.system.is_some()) + 2 * (turn - first) + 1);
    messages
}

/// A conversation with an image at each mark, or in front of the first question where there is no mark.
fn messages(system: Option<&str>, exchanges: &[(String, String)]) -> Vec<Message> {
    let marked = exchanges.iter().any(|(question, _)| question.contains(MARK));
    let mut messages: Vec<Message> = system.map(|text| Message::text(Role::System, text)).into_iter().collect();
    for (i, (question, answer)) in exchanges.iter().enumerate() {
        messages.push(asked(question, i == 0 && !marked));
        messages.push(Message::text(Role::Assistant, answer));
    }
    messages
}

/// A question with an image at each mark, and one in front if wanted.
fn asked(question: &str, front: bool) -> Message {
    let mut content: Vec<Part> = front.then_some(Part::Image).into_iter().collect();
    for (i, text) in question.split(MARK).enumerate() {
        if i > 0 {
            content.push(Part::Image);
        }
        if !text.is_empty() {
            content.push(Part::Text(text.into()));
        }
    }
    Message { role: Role::User, content }
}

/// Rows of at most `room` tokens: the longest conversation first, each into the first row that has room (first-fit
/// decreasing, which takes at most 11/9 of the fewest rows possible; Johnson 1973).
fn pack(mut laid: Vec<Laid>, room: usize) -> Vec<Vec<Laid>> {
    laid.sort_by_key(|one| Reverse(one.len()));
    let mut rows: Vec<(usize, Vec<Laid>)> = Vec::new();
    for one in laid {
        let length = one.len();
        match rows.iter_mut().find(|(taken, _)| taken + length <= room) {
            Some((taken, row)) => {
                *taken += length;
                row.push(one);
            }
            None => rows.push((length, vec![one])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

/// Images of a source, one after another: (batch, size, size, 3). Those of a data set on disk were brought to that size when
/// they were read, and what was cropped must not be cropped again; scenes may be drawn at another.
pub fn pixels<'i>(processor: &ImageProcessor, images: impl IntoIterator<Item = &'i RgbImage>) -> Result<Vec<u8>> {
    let mut pixels = Vec::new();
    for image in images {
        match image.dimensions() == (processor.size as u32, processor.size as u32) {
            true => pixels.extend_from_slice(image.as_raw()),
            false => pixels.extend(processor.square(image)?.into_raw()),
        }
    }
    Ok(pixels)
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
