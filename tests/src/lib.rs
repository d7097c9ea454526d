//! Cases that the reference computed (tests/fixtures/parity.py): their inputs, their losses, and what came out.

use engine::ops;
use engine::{DType, Device, Graph, Pairs, Params, Tensor, Var};
use model::hf::{Inputs, Model, Trace};
use model::weights::TensorFile;
use model::{Decoder, QFormer, Texts};
use std::path::{Path, PathBuf};

/// The folders of all cases.
///
/// # Panics
/// When one is missing.
pub fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/parity");
    let folders = std::fs::read_dir(root).expect("tests/fixtures/parity");
    let mut cases: Vec<PathBuf> = folders.map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    assert_eq!(cases.len(), 20, "a case is missing");
    cases
}

/// What the reference was given and what it computed.
pub struct Expected {
    file: TensorFile,
}

impl Expected {
    /// Of the case in a folder.
    pub fn open(case: &Path) -> Expected {
        let file = TensorFile::open(&case.join("expected.safetensors")).expect("expected.safetensors");
        Expected { file }
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.file.names()
    }

    /// A tensor's numbers.
    pub fn numbers(&self, name: &str) -> Vec<f64> {
        let tensor = self.file.tensor(name, &Device::cpu()).expect(name);
        match tensor.dtype() {
            DType::I32 => self.ids(name).0.into_iter().map(f64::from).collect(),
            _ => tensor.to_f64().expect(name),
        }
    }

    /// A tensor of ids and its sizes.
    pub fn ids(&self, name: &str) -> (Vec<i32>, Vec<usize>) {
        let tensor = self.file.tensor(name, &Device::cpu()).expect(name);
        (tensor.to_vec().expect(name), tensor.shape().to_vec())
    }

    /// The case's inputs, for a model with these parameters.
    pub fn inputs(&self, params: &Params) -> Inputs {
        let pixels = self.file.shape("pixel_values").map(|_| {
            let pixels = self.file.tensor("pixel_values", params.device());
            pixels.and_then(|x| Ok(x.cast(params.dtype())?)).expect("pixels")
        });
        let (ids, shape) = self.ids("input_ids");
        let lens = match self.file.shape("lengths") {
            Some(_) => self.ids("lengths").0,
            None => vec![shape[1] as i32; shape[0]],
        };
        let texts = Texts { batch: shape[0], tokens: shape[1], ids, lens };
        Inputs { pixels, texts: Some(texts) }
    }

    /// The case's loss, from what [`Model::trace`] gave.
    pub fn loss(&self, g: &Graph<'_>, model: &Model, trace: &Trace) -> model::Result<Var> {
        let last = |name: &str| {
            let found = trace.iter().rev().find(|(found, _)| found.starts_with(name));
            found.map(|(_, x)| x).expect(name)
        };
        match model {
            Model::Decoder(decoder) => self.language(g, decoder, last("hidden_states.")),
            Model::Vlm(vlm) => self.language(g, &vlm.decoder, last("hidden_states.")),
            Model::Dual(dual) => Ok(dual.loss(last("image_embeds"), last("text_embeds"), &dual.scalars(g))?),
            Model::Retrieval(_, qformer) => {
                let image = last("vision_model_output.last_hidden_state");
                self.retrieval(g, qformer, image, [last("image_embeds"), last("text_embeds")])
            }
        }
    }

    fn language(&self, g: &Graph<'_>, decoder: &Decoder, out: &Var) -> model::Result<Var> {
        let rows = out.shape().rows();
        let flat = ops::reshape(out, [rows, out.shape().last()])?;
        let targets = Tensor::from_slice(g.params().device(), &targets(self.ids("labels")), [rows])?;
        Ok(ops::linear_cross_entropy(&flat, &g.param(decoder.head()), &targets)?.loss)
    }

    fn retrieval(&self, g: &Graph<'_>, qformer: &QFormer, image: &Var, embeds: [&Var; 2]) -> model::Result<Var> {
        let texts = self.inputs(g.params()).texts.expect("texts");
        let itc = ops::clip_loss(embeds[0], embeds[1], &qformer.logit_scale(g)?)?;
        let numbers = |x: &[i32]| Tensor::from_slice(g.params().device(), x, [x.len()]);
        let all: Vec<i32> = (0..texts.batch as i32).collect();
        let pairs = Pairs { images: numbers(&all)?, texts: numbers(&all)?, labels: numbers(&self.ids("labels").0)? };
        Ok(ops::add(&itc, &qformer.itm_loss(g, image, &texts, &pairs)?.loss)?)
    }
}

/// Labels, each moved to the place before it, where it is predicted.
fn targets((labels, shape): (Vec<i32>, Vec<usize>)) -> Vec<i32> {
    let next = |row: &[i32]| row[1..].iter().copied().chain([model::IGNORE]).collect::<Vec<_>>();
    labels.chunks(shape[1]).flat_map(next).collect()
}
