//! Parameters: ordered names over flat arenas.
//!
//! Trainable parameters lie in one arena of accumulator type (the master weights), group after group, so that one
//! kernel steps a whole group; in bf16 a second arena of the same layout holds what the model computes with.
//! Frozen parameters lie in an arena of their own, in the model's type, without gradients or optimiser state.

use crate::error::{Error, Result};
use crate::{DType, Device, Kind, Shape, Tensor};
use kernels::{ViewMut, elementwise};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// A parameter's place in its [`Params`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

impl ParamId {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// One value everywhere.
    Constant(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Uniform in ±bound.
    Uniform(f64),
}

/// What a parameter is for, said where it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A product's matrix, or in one dimension a scale or a shift.
    Weight,
    /// Rows that enter the model as they are: embeddings of tokens and positions, learned queries.
    Embedding,
}

/// A parameter as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Its full name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// What it is for.
    pub role: Role,
    /// The least and the largest value it may have: each step of the optimiser brings it back within.
    pub bounds: Option<[f64; 2]>,
}

impl ParamSpec {
    /// Whether it is the matrix of a product, which weight decay and Muon are for: an embedding's rows are seen too rarely,
    /// everything else is a scale or a shift.
    pub fn is_matrix(&self) -> bool {
        self.role == Role::Weight && self.shape.len() > 1
    }
}

/// Collects parameters by name; [`ParamBuilder::build`] allocates them.
#[derive(Debug, Default)]
pub struct ParamBuilder {
    entries: Vec<ParamSpec>,
    inits: Vec<Init>,
    by_name: HashMap<String, usize>,
    prefix: Vec<String>,
}

impl ParamBuilder {
    /// An empty collection.
    pub fn new() -> ParamBuilder {
        ParamBuilder::default()
    }

    /// Adds a parameter under the current prefix.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<ParamId> {
        self.add_spec(name, shape.into(), init, Role::Weight, None)
    }

    /// As [`ParamBuilder::add`], rows that enter the model as they are.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_embedding(&mut self, name: &str, shape: impl Into<Shape>, init: Init) -> Result<ParamId> {
        self.add_spec(name, shape.into(), init, Role::Embedding, None)
    }

    /// As [`ParamBuilder::add`], one number that each step of the optimiser keeps within bounds.
    ///
    /// # Errors
    /// When the name is taken.
    pub fn add_bounded(&mut self, name: &str, init: f64, bounds: [f64; 2]) -> Result<ParamId> {
        self.add_spec(name, Shape::from([1]), Init::Constant(init), Role::Weight, Some(bounds))
    }

    fn add_spec(
        &mut self,
        name: &str,
        shape: Shape,
        init: Init,
        role: Role,
        bounds: Option<[f64; 2]>,
    ) -> Result<ParamId> {
        let name = self.prefix.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
        if self.by_name.insert(name.clone(), self.entries.len()).is_some() {
            return Err(Error::Param { name, message: "the name is already taken".into() });
        }
        self.inits.push(init);
        self.entries.push(ParamSpec { name, shape, role, bounds });
        Ok(ParamId(self.entries.len() - 1))
    }

    /// Runs `build` with `prefix` in front of every name.
    pub fn scope<T>(
        &mut self,
        prefix: impl Into<String>,
        build: impl FnOnce(&mut ParamBuilder) -> Result<T>,
    ) -> Result<T> {
        self.prefix.push(prefix.into());
        let result = build(self);
        self.prefix.pop();
        result
    }

    /// Allocates and initialises everything, all trainable in one group without decay. Each parameter draws from a
    /// stream of its own (seed and name), so adding one does not change the others.
    pub fn build(self, device: &Device, dtype: DType, seed: u64) -> Result<Params> {
        self.build_with_weights(device, dtype, seed, (vec![GroupSpec::default()], |_| 0), |_| false)
    }

    /// All parameters so far.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.entries
    }

    /// As [`ParamBuilder::build`], in the groups that [`Params::regroup`] takes, without values for those parameters that
    /// `comes` from elsewhere: [`Params::load_rows`] has to write them.
    pub fn build_with_weights(
        self,
        device: &Device,
        dtype: DType,
        seed: u64,
        (groups, assign): (Vec<GroupSpec>, impl Fn(&ParamSpec) -> usize),
        comes: impl Fn(&str) -> bool,
    ) -> Result<Params> {
        let ParamBuilder { entries, inits, by_name, .. } = self;
        let mut values = Vec::with_capacity(entries.len());
        for (spec, init) in entries.iter().zip(inits) {
            let value = || initial(device, dtype.accumulator(), spec.shape, init, seed, &spec.name);
            values.push((!comes(&spec.name)).then(value).transpose()?);
        }
        let entry = |spec| Entry { spec, group: 0, offset: 0 };
        let entries = entries.into_iter().map(entry).collect();
        let mut params = Params {
            device: device.clone(),
            dtype,
            entries,
            by_name,
            groups: Vec::new(),
            ranges: Vec::new(),
            master: Tensor::empty(device, dtype.accumulator(), [0])?,
            low: None,
            frozen: Tensor::empty(device, dtype, [0])?,
        };
        params.assign(groups, assign);
        params.allocate(|i| values[i].clone())?;
        // The values lie in the arenas now; whole models of them would stay in the pool, in sizes that no step asks for.
        drop(values);
        device.trim();
        Ok(params)
    }
}

/// Brings ranges of an arena within bounds.
pub(crate) fn clamp(arena: &mut Tensor, bounded: &[([f64; 2], std::ops::Range<usize>)]) -> Result<()> {
    for ([least, most], place) in bounded {
        let mut numbers = arena.range_mut("a bounded parameter", place.start, place.len())?;
        elementwise::clamp(&mut numbers, *least, *most)?;
    }
    Ok(())
}

fn initial(device: &Device, dtype: DType, shape: Shape, init: Init, seed: u64, name: &str) -> Result<Tensor> {
    let constant = match init {
        Init::Zeros => 0.0,
        Init::Ones => 1.0,
        Init::Constant(value) => value,
        Init::Normal(_) | Init::Uniform(_) if device.kind() == Kind::Trace => 0.0,
        Init::Normal(_) | Init::Uniform(_) => {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(name));
            let values: Vec<f64> = (0..shape.elements()).map(|_| draw(&mut rng, init)).collect();
            return Tensor::from_slice(device, &values, shape)?.cast(dtype);
        }
    };
    Tensor::full(device, dtype, shape, constant)
}

fn draw(rng: &mut ChaCha8Rng, init: Init) -> f64 {
    match init {
        Init::Uniform(bound) => bound * (2.0 * rng.random::<f64>() - 1.0),
        // Box and Muller's transform of two uniforms.
        Init::Normal(deviation) => {
            let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
            deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        }
        Init::Zeros | Init::Ones | Init::Constant(_) => 0.0,
    }
}

/// FNV-1a of a name: a hash that never changes between versions of Rust.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3))
}

/// The rule a group's weights are stepped by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Update {
    /// AdamW (Loshchilov and Hutter 2019).
    #[default]
    AdamW,
    /// Muon (Jordan et al. 2024): orthogonalised momentum. For matrices; others in the group take AdamW.
    Muon,
}

/// How a group of parameters is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSpec {
    /// How its weights are stepped.
    pub update: Update,
    /// Factor on the schedule's learning rate.
    pub lr_scale: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Not trained: no gradient, no optimiser state.
    pub frozen: bool,
}

impl Default for GroupSpec {
    fn default() -> GroupSpec {
        GroupSpec { update: Update::AdamW, lr_scale: 1.0, weight_decay: 0.0, frozen: false }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    spec: ParamSpec,
    group: usize,
    /// In elements, from the start of the trainable or the frozen arena.
    offset: usize,
}

/// A model's parameters.
#[derive(Debug)]
pub struct Params {
    device: Device,
    dtype: DType,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    groups: Vec<GroupSpec>,
    /// Elements of the trainable arena each group covers; empty for frozen ones.
    ranges: Vec<std::ops::Range<usize>>,
    master: Tensor,
    low: Option<Tensor>,
    frozen: Tensor,
}

impl Params {
    /// Where they live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type the model computes in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All parameters in the order they were added.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.entries.len()).map(ParamId)
    }

    /// The parameter called `name`.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied().map(ParamId)
    }

    /// A parameter's full name.
    pub fn name(&self, id: ParamId) -> &str {
        &self.entries[id.0].spec.name
    }

    /// All parameters as they were declared.
    pub fn specs(&self) -> impl Iterator<Item = &ParamSpec> {
        self.entries.iter().map(|entry| &entry.spec)
    }

    /// A parameter's shape.
    pub fn shape(&self, id: ParamId) -> Shape {
        self.entries[id.0].spec.shape
    }

    /// Whether it is frozen.
    pub fn is_frozen(&self, id: ParamId) -> bool {
        self.groups[self.entries[id.0].group].frozen
    }

    /// Numbers in all parameters, and in the trainable ones.
    pub fn count(&self) -> (usize, usize) {
        let trainable = self.trainable_elements();
        (self.entries.iter().map(|e| e.spec.shape.elements()).sum(), trainable)
    }

    /// A parameter as the model computes with it, sharing the arena.
    pub fn tensor(&self, id: ParamId) -> Tensor {
        let entry = &self.entries[id.0];
        let arena = match self.is_frozen(id) {
            true => &self.frozen,
            false => self.low.as_ref().unwrap_or(&self.master),
        };
        arena.slice_flat(entry.offset, entry.spec.shape)
    }

    /// A parameter at full precision: the master weights where it is trained.
    pub fn master(&self, id: ParamId) -> Tensor {
        let entry = &self.entries[id.0];
        let arena = if self.is_frozen(id) { &self.frozen } else { &self.master };
        arena.slice_flat(entry.offset, entry.spec.shape)
    }

    /// Overwrites a parameter.
    ///
    /// # Errors
    /// When `value` has another shape, or a graph still uses the parameters.
    pub fn set(&mut self, id: ParamId, value: &Tensor) -> Result<()> {
        let ParamSpec { name, shape, .. } = &self.entries[id.0].spec;
        if value.shape() != *shape {
            let message = format!("a value of shape {}, expected {shape}", value.shape());
            let name = name.clone();
            return Err(Error::Param { name, message });
        }
        self.overwrite(id, 0..shape.elements(), |out| elementwise::cast(value.view(), out))
    }

    /// Overwrites a parameter's rows from `first` on (parts of its outermost dimension) with the little-endian numbers of
    /// type `from` in `bytes`, without a copy in between.
    ///
    /// # Errors
    /// When `bytes` are no whole rows, or more than there are, or a graph still uses the parameters.
    pub fn load_rows(&mut self, id: ParamId, first: usize, bytes: &[u8], from: DType) -> Result<()> {
        let ParamSpec { name, shape, .. } = &self.entries[id.0].spec;
        let row: usize = shape.iter().skip(1).product();
        let (start, count) = (first * row, bytes.len() / from.size());
        if count % row.max(1) != 0 || start + count > shape.elements() {
            let message = format!("{count} numbers from row {first} on, expected rows of {shape}");
            let name = name.clone();
            return Err(Error::Param { name, message });
        }
        self.overwrite(id, start..start + count, |out| elementwise::load(bytes, from, out))
    }

    /// Writes a range of a parameter's elements wherever it is kept.
    fn overwrite(
        &mut self,
        id: ParamId,
        range: std::ops::Range<usize>,
        write: impl Fn(&mut ViewMut<'_>) -> kernels::Result<()>,
    ) -> Result<()> {
        let offset = self.entries[id.0].offset + range.start;
        let kept = match self.is_frozen(id) {
            true => [Some(&mut self.frozen), None],
            false => [Some(&mut self.master), self.low.as_mut()],
        };
        for arena in kept.into_iter().flatten() {
            write(&mut arena.range_mut("a parameter", offset, range.len())?)?;
        }
        Ok(())
    }

    /// Assigns every parameter to one of `groups` and, where that changes their places, lays the arenas out anew. Those that
    /// are trained and have bounds are brought within them.
    pub fn regroup(&mut self, groups: Vec<GroupSpec>, assign: impl Fn(&ParamSpec) -> usize) -> Result<()> {
        let before: Vec<Tensor> = self.ids().map(|id| self.master(id)).collect();
        let place = |params: &Params, id: ParamId| (params.is_frozen(id), params.entries[id.0].offset);
        let places: Vec<_> = self.ids().map(|id| place(self, id)).collect();
        self.assign(groups, assign);
        if self.ids().all(|id| place(self, id) == places[id.0]) {
            drop(before);
            return self.apply_bounds();
        }
        self.allocate(|i| Some(before[i].clone()))?;
        self.apply_bounds()
    }

    /// Brings trained parameters within their bounds, on the device.
    pub(crate) fn apply_bounds(&mut self) -> Result<()> {
        let bounded: Vec<_> = self.trainable_bounds().collect();
        let arenas = [Some(&mut self.master), self.low.as_mut()];
        arenas.into_iter().flatten().try_for_each(|arena| clamp(arena, &bounded))
    }

    /// Bounds of trained parameters, and where in the arena those are.
    pub(crate) fn trainable_bounds(&self) -> impl Iterator<Item = ([f64; 2], std::ops::Range<usize>)> {
        let bounded = self.entries.iter().zip(self.places());
        bounded.filter_map(|(entry, place)| Some((entry.spec.bounds.filter(|_| !place.is_empty())?, place)))
    }

    /// Gives every parameter its group and its place.
    fn assign(&mut self, groups: Vec<GroupSpec>, assign: impl Fn(&ParamSpec) -> usize) {
        for entry in &mut self.entries {
            entry.group = assign(&entry.spec);
        }
        self.ranges.clear();
        let (mut trainable, mut frozen) = (0, 0);
        for (g, group) in groups.iter().enumerate() {
            let start = trainable;
            let end = if group.frozen { &mut frozen } else { &mut trainable };
            for entry in self.entries.iter_mut().filter(|e| e.group == g) {
                entry.offset = *end;
                *end += entry.spec.shape.elements();
            }
            self.ranges.push(start..trainable);
        }
        self.groups = groups;
    }

    /// Makes the arenas that the places are in, and fills them with the values there are.
    fn allocate(&mut self, value: impl Fn(usize) -> Option<Tensor>) -> Result<()> {
        let total = |frozen: bool| {
            let mine = self.entries.iter().filter(|e| self.groups[e.group].frozen == frozen);
            mine.map(|e| e.spec.shape.elements()).sum::<usize>()
        };
        let (trainable, frozen) = (total(false), total(true));
        self.master = Tensor::empty(&self.device, self.dtype.accumulator(), [trainable])?;
        self.frozen = Tensor::empty(&self.device, self.dtype, [frozen])?;
        self.low = match self.dtype == self.dtype.accumulator() {
            true => None,
            false => Some(Tensor::empty(&self.device, self.dtype, [trainable])?),
        };
        for i in 0..self.entries.len() {
            if let Some(value) = value(i) {
                self.set(ParamId(i), &value)?;
            }
        }
        Ok(())
    }

    /// Length of the trainable arena.
    pub(crate) fn trainable_elements(&self) -> usize {
        self.ranges.iter().map(|r| r.len()).sum()
    }

    /// Each parameter's range of the trainable arena, in the order of their numbers; none of it for a frozen one.
    pub(crate) fn places(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.entries.iter().map(|e| match self.groups[e.group].frozen {
            true => 0..0,
            false => e.offset..e.offset + e.spec.shape.elements(),
        })
    }

    /// Trainable groups with their ranges of the arena.
    pub(crate) fn trainable_groups(&self) -> Vec<(GroupSpec, std::ops::Range<usize>)> {
        let all = self.groups.iter().cloned().zip(self.ranges.iter().cloned());
        all.filter(|(group, range)| !group.frozen && !range.is_empty()).collect()
    }

    /// Shapes of a trainable group's parameters with their ranges of the arena.
    pub(crate) fn entries_within(&self, range: &std::ops::Range<usize>) -> Vec<(Shape, std::ops::Range<usize>)> {
        let trained = self.entries.iter().filter(|e| !self.groups[e.group].frozen);
        let ranges = trained.map(|e| (e.spec.shape, e.offset..e.offset + e.spec.shape.elements()));
        ranges.filter(|(_, r)| range.contains(&r.start)).collect()
    }

    /// Trainable parameters with their shapes and where they start in the arena.
    pub(crate) fn trainable_places(&self) -> impl Iterator<Item = (&str, Shape, usize)> {
        let trained = self.entries.iter().filter(|e| !self.groups[e.group].frozen);
        trained.map(|e| (e.spec.name.as_str(), e.spec.shape, e.offset))
    }

    /// Master weights and, in bf16, the copy the model computes with.
    pub(crate) fn arenas(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.master, self.low.as_ref())
    }

    /// The arenas the optimiser writes: master weights and, in bf16, the copy the model computes with.
    pub(crate) fn arenas_mut(&mut self) -> (&mut Tensor, Option<&mut Tensor>) {
        (&mut self.master, self.low.as_mut())
    }
}
