//! Launches of `contrastive.cu`.

use crate::contrastive::{Contrastive, Features, Gradients};
use crate::gemm::{Epilogue, Gemm, Layout, gemm};
use crate::gpu::score::{MOST_THREADS, Space, threads, typed};
use crate::gpu::{Arg, Grid, Module, args, launch};
use crate::{DType, Result, View, ViewMut, elementwise};
use std::ops::Range;

/// Texts and threads of a block of `clip_columns`.
const COLUMNS: usize = 32;
const COLUMN_THREADS: usize = 256;

/// The specialisations that launches choose from, with the most threads of a block.
pub(crate) fn modules() -> Vec<(Module, usize)> {
    typed("contrastive").map(|module| (module, MOST_THREADS)).into()
}

/// The arguments that all the losses have, and memory for some images' dot products with all texts.
struct Scores<'a> {
    p: &'a Contrastive,
    f: Features<'a>,
    module: Module,
    space: Space,
}

impl<'a> Scores<'a> {
    fn new(op: &'static str, p: &'a Contrastive, f: Features<'a>, gradient: bool) -> Result<Scores<'a>> {
        let dtype = f.image.dtype();
        crate::gpu::refuse_f64(op, dtype)?;
        Ok(Scores {
            p,
            f,
            module: Module::new("contrastive").stored_as("TYPE_T", dtype),
            space: Space::new(f.image.device(), dtype, p.n, p.groups, p.n, gradient)?,
        })
    }

    /// The rows of some images.
    fn rows(&self, images: &Range<usize>) -> View<'a> {
        let width = self.p.groups * self.p.dim;
        self.f.image.part(images.start * width, images.len() * width)
    }

    /// Computes the dot products of a slice of a chunk of images. Where they are, and where their gradient goes.
    fn compute(&mut self, chunk: &Range<usize>, slice: &Range<usize>) -> Result<[Arg; 2]> {
        let rows = self.rows(slice);
        let (mut dots, gradient) = self.space.of_slice(chunk, slice);
        let shape = Gemm::new(Layout::Nt, slice.len() * self.p.groups, self.p.n, self.p.dim);
        gemm(shape, rows, self.f.text, &mut dots, Epilogue::default())?;
        Ok([Arg::from(&dots), gradient])
    }

    /// All images by slices, of which only one is held at a time.
    fn slices(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.space.slices(&(0..self.p.n))
    }

    /// Sizes that end the arguments of kernels for some images.
    fn sizes(&self, images: &Range<usize>) -> [i32; 3] {
        [self.p.n, self.p.groups, images.start].map(|size| size as i32)
    }

    /// A block for each of some images.
    fn launch_rows(&self, kernel: &'static str, images: &Range<usize>, args: &[Arg]) -> Result<()> {
        self.launch(kernel, Grid::new(images.len(), threads(self.p.n)), args)
    }

    /// One block that sums over all images.
    fn launch_sum(&self, kernel: &'static str, args: &[Arg]) -> Result<()> {
        self.launch(kernel, Grid::new(1, threads(self.p.n)), args)
    }

    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        launch(self.f.image.device(), &self.module, kernel, grid, args)
    }

    /// `dimage = G·text` and `dtext = Gᵀ·image`, with `derive` writing G over a slice of images.
    fn backward(
        &mut self,
        Gradients { dimage, dtext, .. }: &mut Gradients,
        derive: impl Fn(&Scores, [Arg; 2], &Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let Contrastive { n, dim, groups } = *self.p;
        // Several chunks add up in F32.
        let wide = dtext.dtype() != DType::F32 && self.space.chunk() < n;
        let wide_len = if wide { n * dim } else { 0 };
        let mut sum = self.f.image.device().allocate(wide_len * size_of::<f32>())?;
        let mut sum = ViewMut::new(&mut sum, DType::F32, 0, wide_len);
        for chunk in self.space.chunks(n) {
            for slice in self.space.slices(&chunk) {
                let args = self.compute(&chunk, &slice)?;
                derive(self, args, &slice)?;
            }
            let (rows, gradient) = (chunk.len() * groups, self.space.gradient(&chunk));
            let mut dimage = dimage.part(chunk.start * groups * dim, rows * dim);
            let shape = Gemm::new(Layout::Nn, rows, dim, n);
            gemm(shape, gradient, self.f.text, &mut dimage, Epilogue::default())?;
            let epilogue = Epilogue { accumulate: chunk.start > 0, ..Epilogue::default() };
            let mut dtext = if wide { sum.part(0, n * dim) } else { dtext.part(0, n * dim) };
            let shape = Gemm::new(Layout::Tn, n, dim, rows);
            gemm(shape, gradient, self.rows(&chunk), &mut dtext, epilogue)?;
        }
        if wide {
            elementwise::cast(sum.read(), dtext)?;
        }
        Ok(())
    }
}

pub(crate) fn clip_loss(
    p: &Contrastive,
    f: Features,
    loss: &mut ViewMut,
    row_lse: &mut ViewMut,
    col_lse: &mut ViewMut,
) -> Result<()> {
    let mut scores = Scores::new("clip_loss", p, f, false)?;
    let mut space = f.image.device().allocate(3 * p.n * size_of::<f32>())?;
    let mut space = ViewMut::new(&mut space, DType::F32, 0, 3 * p.n);
    let [own, excess, col_sum] = [0, 1, 2].map(|part| Arg::from(&space.part(part * p.n, p.n)));
    for images in scores.slices() {
        let [dots, _] = scores.compute(&images, &images)?;
        let [n, groups, first] = scores.sizes(&images);
        let args = args![dots, f.log_scale, &*row_lse, own, excess, n, groups, first];
        scores.launch_rows("clip_rows", &images, args)?;
        let count = images.len() as i32;
        let args = args![dots, f.log_scale, &*col_lse, col_sum, count, n, groups, first];
        let grid = Grid::new(p.n.div_ceil(COLUMNS), COLUMN_THREADS);
        scores.launch("clip_columns", grid, args)?;
    }
    scores.launch_sum("clip_loss", args![own, excess, &*col_lse, col_sum, &*loss, p.n as i32])
}

pub(crate) fn clip_loss_backward(
    p: &Contrastive,
    f: Features,
    row_lse: View,
    col_lse: View,
    mut g: Gradients,
) -> Result<()> {
    let mut scores = Scores::new("clip_loss_backward", p, f, true)?;
    let mut moments = f.image.device().allocate(p.n * size_of::<f32>())?;
    let moments = ViewMut::new(&mut moments, DType::F32, 0, p.n);
    scores.backward(&mut g, |scores, [dots, gradient], images| {
        let [n, groups, first] = scores.sizes(images);
        let args = args![dots, gradient, f.log_scale, row_lse, col_lse, &moments, n, groups, first];
        scores.launch_rows("clip_gradient", images, args)
    })?;
    let nothing = None::<&View>;
    let args = args![&moments, nothing, &g.dlog_scale, nothing, p.n as i32];
    scores.launch_sum("scalar_gradients", args)
}

pub(crate) fn siglip_loss(p: &Contrastive, f: Features, bias: View, loss: &mut ViewMut) -> Result<()> {
    let mut scores = Scores::new("siglip_loss", p, f, false)?;
    let mut losses = f.image.device().allocate(p.n * size_of::<f32>())?;
    let losses = ViewMut::new(&mut losses, DType::F32, 0, p.n);
    for images in scores.slices() {
        let [dots, _] = scores.compute(&images, &images)?;
        let [n, groups, first] = scores.sizes(&images);
        let args = args![dots, f.log_scale, bias, &losses, n, groups, first];
        scores.launch_rows("siglip_rows", &images, args)?;
    }
    scores.launch_sum("siglip_loss", args![&losses, &*loss, p.n as i32])
}

pub(crate) fn siglip_loss_backward(
    p: &Contrastive,
    f: Features,
    bias: View,
    mut g: Gradients,
    dbias: &mut ViewMut,
) -> Result<()> {
    let mut scores = Scores::new("siglip_loss_backward", p, f, true)?;
    let mut space = f.image.device().allocate(2 * p.n * size_of::<f32>())?;
    let mut space = ViewMut::new(&mut space, DType::F32, 0, 2 * p.n);
    let [moments, sums] = [0, 1].map(|part| Arg::from(&space.part(part * p.n, p.n)));
    scores.backward(&mut g, |scores, [dots, gradient], images| {
        let [n, groups, first] = scores.sizes(images);
        let args = args![dots, gradient, f.log_scale, bias, moments, sums, n, groups, first];
        scores.launch_rows("siglip_gradient", images, args)
    })?;
    let args = args![moments, sums, &g.dlog_scale, &*dbias, p.n as i32];
    scores.launch_sum("scalar_gradients", args)
}
