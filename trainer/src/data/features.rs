//! What a frozen image encoder says of every image of a data set, kept on disk: an adapter trains without running it again.

use super::corpus::{Corpus, hex};
use super::{Prepare, blank};
use crate::memory;
use anyhow::{Context, Result, ensure};
use engine::{DType, Graph, Params, Shape, Tensor};
use image::RgbImage;
use kernels::gpu::cache::Cache;
use model::Vlm;
use model::weights::{Entry, TensorFile, write_tensors};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Images encoded at once.
const BATCH: usize = 16;
/// The tensor's name in the file.
const NAME: &str = "features";

/// The encoder's output for each image, (images, tokens, dim), in a mapped file.
#[derive(Debug)]
pub struct Features {
    file: TensorFile,
    dtype: DType,
    /// (tokens, dim).
    shape: [usize; 2],
}

impl Features {
    /// Reads what is kept of these images by this encoder, or runs it once over all of them and keeps that, in the folder
    /// `features` of the cache that compiled kernels are kept in.
    ///
    /// # Errors
    /// Those of files and of the model. The encoder has to be frozen and without dropout ([`crate::preflight::vlm`]).
    pub fn of(vlm: &Vlm, params: &Params, prepare: &Prepare, corpus: &Corpus) -> Result<Features> {
        let path = folder()?.join(format!("{}.safetensors", key(vlm, params, prepare, corpus)?));
        if !path.is_file() {
            encode(vlm, params, prepare, corpus, &path)?;
        }
        let file = TensorFile::open(&path)?;
        let config = &vlm.config.vision;
        let shape = [config.tokens(), config.hidden_size];
        let dtype = file.stored(NAME)?.dtype;
        let expected = [corpus.images.len(), shape[0], shape[1]];
        ensure!(
            file.shape(NAME) == Some(&expected[..]) && dtype == params.dtype(),
            "{}: not what was kept there; remove it",
            path.display()
        );
        Ok(Features { file, dtype, shape })
    }

    /// The features of some images as they lie on disk, one after another.
    ///
    /// # Errors
    /// When an image is none of those.
    pub fn bytes(&self, places: impl Iterator<Item = usize>) -> Result<Vec<u8>> {
        let all = self.file.stored(NAME)?.bytes;
        let size = self.shape[0] * self.shape[1] * self.dtype.size();
        let mut bytes = Vec::new();
        for place in places {
            let found = all.get(place * size..(place + 1) * size);
            bytes.extend_from_slice(found.with_context(|| format!("no features of image {place}"))?);
        }
        Ok(bytes)
    }

    /// What [`Features::bytes`] gave on the model's device: (batch, tokens, dim).
    pub fn tensor(&self, params: &Params, bytes: &[u8]) -> Result<Tensor> {
        let [tokens, dim] = self.shape;
        let batch = bytes.len() / (tokens * dim * self.dtype.size());
        Ok(Tensor::from_bytes(params.device(), self.dtype, bytes, [batch, tokens, dim])?)
    }
}

/// An image; a blank one where it is broken, as no sample that is drawn shows it.
fn seen(prepare: &Prepare, corpus: &Corpus, place: usize) -> RgbImage {
    corpus.images.get(place).unwrap_or_else(|_| blank(&prepare.processor))
}

fn folder() -> Result<PathBuf> {
    let cache = Cache::open()?;
    let folder = cache.folder().context("there is no folder for caches; set LENSLET_CACHE")?;
    let folder = folder.join("features");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// A hash of all that features depend on: the encoder's configuration and weights, the type it computes in, the pixels.
fn key(vlm: &Vlm, params: &Params, prepare: &Prepare, corpus: &Corpus) -> Result<String> {
    let mut hash = Sha256::new();
    let settings = (&vlm.config.vision, &prepare.processor, params.dtype());
    hash.update(format!("{settings:?}"));
    for id in params.ids().filter(|&id| params.name(id).starts_with("vision_model.")) {
        hash.update(params.name(id));
        hash.update(params.master(id).to_bytes()?);
    }
    for place in 0..corpus.images.len() {
        hash.update(seen(prepare, corpus, place).as_raw());
    }
    Ok(hex(hash))
}

/// Runs the encoder over all images, writing as it goes.
fn encode(vlm: &Vlm, params: &Params, prepare: &Prepare, corpus: &Corpus, path: &Path) -> Result<()> {
    let config = &vlm.config.vision;
    let shape = Shape::from([corpus.images.len(), config.tokens(), config.hidden_size]);
    let size = memory::size((shape.elements() * params.dtype().size()) as u64);
    outln!("features    {} images, {size} in {}", corpus.images.len(), path.display());
    let failed = |error: anyhow::Error| model::Error::Input { what: "features", message: format!("{error:#}") };
    let entry = Entry {
        name: NAME.into(),
        dtype: params.dtype(),
        shape,
        parts: Box::new(|out| {
            for start in (0..corpus.images.len()).step_by(BATCH) {
                let places = start..corpus.images.len().min(start + BATCH);
                let images: Vec<RgbImage> = places.into_par_iter().map(|place| seen(prepare, corpus, place)).collect();
                let graph = Graph::inference(params);
                let pixels = prepare.pixels(&images).and_then(|bytes| prepare.tensor(params, &bytes));
                let pixels = graph.input(pixels.map_err(failed)?);
                out(vlm.vision.forward(&graph, &pixels)?.tensor())?;
            }
            Ok(())
        }),
    };
    write_tensors(path, &[entry], &[]).with_context(|| format!("{size} of features cannot be kept"))
}
