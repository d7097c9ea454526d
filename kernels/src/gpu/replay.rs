//! Launches and copies that come again in the same order, run as one CUDA graph from the second time on.

use super::driver::{Context, Copy, Graph, Node};
use crate::Result;

/// Courses kept at a time: each step of training has a few, whose lengths of texts may differ.
const KEPT: usize = 16;
/// Fewer nodes than this are quicker one by one.
const LEAST: usize = 4;
/// What is uploaded together starts at whole lines of the GPU's cache.
const LINE: usize = 128;

/// The last used graphs, and memory that data from the host passes through: one copy brings all of it.
#[derive(Debug)]
pub(super) struct Replay {
    context: Context,
    /// The last used comes first.
    graphs: Vec<CachedGraph>,
    staging: Option<Staging>,
}

/// Work in its order.
#[derive(Debug)]
enum CachedGraph {
    /// Done once.
    Seen(Vec<Node>),
    Recorded(Graph),
}

#[derive(Debug)]
struct Staging {
    context: Context,
    address: u64,
    bytes: usize,
}

impl CachedGraph {
    fn is_like(&self, nodes: &[Node]) -> bool {
        match self {
            CachedGraph::Seen(seen) => Node::are_alike(seen, nodes),
            CachedGraph::Recorded(graph) => graph.is_like(nodes),
        }
    }
}

impl Replay {
    pub(super) fn new(context: Context) -> Replay {
        Replay { context, graphs: Vec::new(), staging: None }
    }

    /// Brings data to the GPU at once, after all earlier work; the nodes that copy each part to its place. The host waits.
    pub(super) fn stage(&mut self, uploads: &[(u64, &[u8])]) -> Result<Vec<Node>> {
        if uploads.is_empty() {
            return Ok(Vec::new());
        }
        let total = uploads.iter().map(|(_, data)| data.len().next_multiple_of(LINE)).sum();
        let staging = self.staging(total)?;
        let (mut all, mut nodes) = (Vec::with_capacity(total), Vec::with_capacity(uploads.len()));
        for &(to, data) in uploads {
            let (from, bytes) = (staging + all.len() as u64, data.len());
            nodes.push(Node::Copy(Copy { from, to, bytes }));
            all.extend_from_slice(data);
            all.resize(all.len().next_multiple_of(LINE), 0);
        }
        // SAFETY: the staging memory is as large as all of this.
        unsafe { self.context.upload(staging, &all)? };
        Ok(nodes)
    }

    fn staging(&mut self, bytes: usize) -> Result<u64> {
        if self.staging.as_ref().is_none_or(|staging| staging.bytes < bytes) {
            // The old goes first: there may be no room for both.
            self.staging = None;
            self.staging =
                Some(Staging { address: self.context.allocate(bytes)?, bytes, context: self.context.clone() });
        }
        Ok(self.staging.as_ref().map_or(0, |staging| staging.address))
    }

    /// Does work in its order; the host does not wait.
    ///
    /// # Safety
    /// As [`Context::run`] for each node; modules stay loaded as long as this lives.
    pub(super) unsafe fn run(&mut self, nodes: Vec<Node>) -> Result<()> {
        if nodes.len() < LEAST {
            // SAFETY: the caller's promise, here and below.
            return nodes.iter().try_for_each(|node| unsafe { self.context.run(node) });
        }
        let known = self.graphs.iter().position(|graph| graph.is_like(&nodes));
        let graph = match known.map(|place| self.graphs.remove(place)) {
            None => {
                // SAFETY: as above.
                nodes.iter().try_for_each(|node| unsafe { self.context.run(node) })?;
                CachedGraph::Seen(nodes)
            }
            Some(graph) => {
                let mut graph = match graph {
                    CachedGraph::Recorded(graph) => graph,
                    // SAFETY: as above.
                    CachedGraph::Seen(_) => unsafe { self.context.record(nodes.clone())? },
                };
                // SAFETY: as above; the nodes are like those recorded, or the very same.
                unsafe { self.context.replay(&mut graph, nodes)? };
                CachedGraph::Recorded(graph)
            }
        };
        self.graphs.insert(0, graph);
        self.graphs.truncate(KEPT);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A failure here is that of earlier work, or of a process that ends.
        // SAFETY: only nodes made for one run copy from it, and the driver lets running work finish first.
        let _ = unsafe { self.context.free(self.address) };
    }
}
