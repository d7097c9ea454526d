//! Shapes of up to five dimensions, held inline.

use std::fmt;
use std::ops::Deref;

const MAX_RANK: usize = 5;

/// Sizes of a tensor's dimensions, outermost first; tensors are contiguous and row-major, so strides follow from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The shape with these sizes.
    ///
    /// # Panics
    /// With more than five dimensions.
    pub fn new(sizes: &[usize]) -> Shape {
        assert!(sizes.len() <= MAX_RANK, "at most {MAX_RANK} dimensions, found {}", sizes.len());
        let mut dims = [1; MAX_RANK];
        dims[..sizes.len()].copy_from_slice(sizes);
        Shape { dims, rank: sizes.len() }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Size of the last dimension; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.deref().last().copied().unwrap_or(1)
    }

    /// Product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self[..self.rank.saturating_sub(1)].iter().product()
    }

    /// The same shape with another last dimension.
    pub fn with_last(&self, size: usize) -> Shape {
        let mut shape = *self;
        shape.dims[self.rank.saturating_sub(1)] = size;
        shape
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank]
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Shape {
        Shape::new(&sizes)
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Shape {
        Shape::new(sizes)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.iter().map(usize::to_string).collect();
        write!(f, "({})", sizes.join(", "))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
