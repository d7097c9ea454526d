//! Batches of token ids on their way into a model.

use crate::error::{Result, input};
use engine::{Graph, Tensor};

/// The target that is not learned.
pub const IGNORE: i32 = -100;

/// Texts for the Q-Former, padded on the right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// How many.
    pub batch: usize,
    /// Length of the longest.
    pub tokens: usize,
    /// (batch, tokens), row by row.
    pub ids: Vec<i32>,
    /// Tokens of each text that count.
    pub lens: Vec<i32>,
}

impl Texts {
    /// Pads texts with `pad` to the longest.
    pub fn pad(rows: &[Vec<u32>], pad: u32) -> Texts {
        let tokens = rows.iter().map(Vec::len).max().unwrap_or(0);
        let ids = rows.iter().flat_map(|row| {
            let filler = std::iter::repeat_n(pad, tokens - row.len());
            row.iter().copied().chain(filler).map(|id| id as i32)
        });
        Texts { batch: rows.len(), tokens, ids: ids.collect(), lens: rows.iter().map(|row| row.len() as i32).collect() }
    }

    /// Several batches as one, all padded to the longest of them.
    pub fn join<'t>(batches: impl Iterator<Item = &'t Texts>) -> Texts {
        let row = |batch: &Texts, i: usize| {
            let start = i * batch.tokens;
            batch.ids[start..start + batch.lens[i] as usize].iter().map(|&id| id as u32).collect()
        };
        let rows: Vec<Vec<u32>> = batches.flat_map(|batch| (0..batch.batch).map(move |i| row(batch, i))).collect();
        Texts::pad(&rows, 0)
    }

    /// The next token at every place, [`IGNORE`] at each text's last and in the padding: targets for captioning.
    pub fn next_tokens(&self) -> Vec<i32> {
        let next = |i: usize| {
            let (row, place) = (i / self.tokens, i % self.tokens);
            let last = (self.lens[row] as usize).saturating_sub(1);
            if place < last { self.ids[i + 1] } else { IGNORE }
        };
        (0..self.ids.len()).map(next).collect()
    }

    /// These texts on the model's device, each with `before` tokens in front of it.
    pub(crate) fn place(&self, g: &Graph<'_>, before: usize) -> engine::Result<PlacedTexts> {
        let device = g.params().device();
        let lens: Vec<i32> = self.lens.iter().map(|len| len + before as i32).collect();
        Ok(PlacedTexts {
            tokens: self.tokens,
            ids: Tensor::from_slice(device, &self.ids, [self.batch, self.tokens])?,
            lens: Tensor::from_slice(device, &lens, [self.batch])?,
        })
    }
}

/// Texts on a device.
#[derive(Debug, Clone)]
pub(crate) struct PlacedTexts {
    /// Length of the longest.
    pub(crate) tokens: usize,
    /// (batch, tokens) I32.
    pub(crate) ids: Tensor,
    /// Tokens that count, those in front of the text included: (batch) I32.
    pub(crate) lens: Tensor,
}

impl PlacedTexts {
    /// The texts with these numbers, I32, some perhaps twice.
    pub(crate) fn select(&self, numbers: &Tensor) -> engine::Result<PlacedTexts> {
        Ok(PlacedTexts { tokens: self.tokens, ids: self.ids.select(numbers)?, lens: self.lens.select(numbers)? })
    }
}

impl Turn {
    /// Makes `slots` tokens of every token `image`: what a text says once takes as many places as an image has.
    ///
    /// ```
    /// use model::Turn;
    /// let mut turn = Turn { ids: vec![1, 9, 4], loss_mask: vec![false, false, true] };
    /// turn.expand(9, 3);
    /// assert_eq!(turn.ids, [1, 9, 9, 9, 4]);
    /// assert_eq!(turn.loss_mask, [false, false, false, false, true]);
    /// ```
    pub fn expand(&mut self, image: u32, slots: usize) {
        let times = |id: u32| if id == image { slots } else { 1 };
        let learn = self.ids.iter().zip(&self.loss_mask);
        self.loss_mask = learn.flat_map(|(&id, &l)| std::iter::repeat_n(l, times(id))).collect();
        let ids = self.ids.iter();
        self.ids = ids.flat_map(|&id| std::iter::repeat_n(id, times(id))).collect();
    }
}

/// One stretch of text and which of its tokens are to be learned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Per token: whether the model learns to say it.
    pub loss_mask: Vec<bool>,
}

/// Texts about a batch of images, for the decoder.
///
/// Several independent turns about one image lie one after another in its row; they share the image and do not see
/// each other. An ordinary conversation is a single turn.
///
/// ```
/// use model::{TextBatch, Turn};
/// let turn = |ids: &[u32]| Turn { ids: ids.to_vec(), loss_mask: vec![false, true] };
/// let batch = TextBatch::pack(&[vec![turn(&[5, 6]), turn(&[7, 8])], vec![turn(&[5, 9])]], 0, 1)?;
/// assert_eq!(batch.ids, [5, 6, 7, 8, 5, 9, 0, 0]);
/// assert_eq!(batch.positions, [0, 1, 0, 1, 0, 1, 0, 0]);
/// assert_eq!(batch.segments, [1, 1, 2, 2, 1, 1, -1, -1]);
/// assert_eq!(batch.targets, [6, -100, 8, -100, 9, -100, -100, -100]);
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextBatch {
    /// Images.
    pub batch: usize,
    /// Tokens per row.
    pub tokens: usize,
    /// (batch, tokens), row by row.
    pub ids: Vec<i32>,
    /// (batch, tokens): counted from 0 at the start of each turn; the model puts the image before.
    pub positions: Vec<i32>,
    /// (batch, tokens): turn i has segment i + 1, padding −1.
    pub segments: Vec<i32>,
    /// (batch·tokens): the token to predict at each place, or [`IGNORE`].
    pub targets: Vec<i32>,
    /// Which image each run of image slots in the ids shows, row by row; empty where there are no such slots, as row i is
    /// then about image i.
    pub images: Vec<i32>,
}

impl TextBatch {
    /// Lays out each row's turns and pads with `pad` to the longest row, rounded up to a multiple of `multiple`
    /// (few different shapes let memory be reused).
    ///
    /// # Errors
    /// When a turn's `loss_mask` is not as long as its `ids`.
    pub fn pack(rows: &[Vec<Turn>], pad: u32, multiple: usize) -> Result<TextBatch> {
        let length = |row: &Vec<Turn>| row.iter().map(|turn| turn.ids.len()).sum::<usize>();
        let tokens = rows.iter().map(length).max().unwrap_or(0);
        let tokens = tokens.next_multiple_of(multiple.max(1));
        let size = rows.len() * tokens;
        let mut batch = TextBatch {
            batch: rows.len(),
            tokens,
            ids: vec![pad as i32; size],
            positions: vec![0; size],
            segments: vec![-1; size],
            targets: vec![IGNORE; size],
            images: Vec::new(),
        };
        for (r, row) in rows.iter().enumerate() {
            let mut start = r * tokens;
            for (t, turn) in row.iter().enumerate() {
                batch.place(turn, start, t as i32 + 1)?;
                start += turn.ids.len();
            }
        }
        Ok(batch)
    }

    fn place(&mut self, turn: &Turn, start: usize, segment: i32) -> Result<()> {
        if turn.loss_mask.len() != turn.ids.len() {
            return input("turn", format!("{} ids, {} marks", turn.ids.len(), turn.loss_mask.len()));
        }
        for (i, &id) in turn.ids.iter().enumerate() {
            self.ids[start + i] = id as i32;
            self.positions[start + i] = i as i32;
            self.segments[start + i] = segment;
            if i > 0 && turn.loss_mask[i] {
                self.targets[start + i - 1] = id as i32;
            }
        }
        Ok(())
    }
}
