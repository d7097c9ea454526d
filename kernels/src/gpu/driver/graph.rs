//! Work recorded as a CUDA graph: done again by one call, with the addresses and numbers that have changed put in first.

use super::{Context, Function};
use crate::Result;
use cudarc::driver::sys;
use std::ffi::c_void;

/// One piece of work on a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A kernel.
    Launch(Launch),
    /// A copy on the GPU.
    Copy(Copy),
}

/// A kernel's launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The kernel.
    pub function: Function,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
    /// The parameters' values, each in the lowest bytes.
    pub params: Vec<u64>,
}

/// A copy from one address to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Where from.
    pub from: u64,
    /// Where to.
    pub to: u64,
    /// How much.
    pub bytes: usize,
}

impl Node {
    /// Whether a graph can take this in the place of `other`.
    fn is_like(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::Launch(a), Node::Launch(b)) => a.function == b.function,
            (Node::Copy(a), Node::Copy(b)) => a.bytes == b.bytes,
            _ => false,
        }
    }

    /// Whether two courses of work differ in no more than addresses, numbers and sizes of grids.
    pub fn are_alike(a: &[Node], b: &[Node]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_like(b))
    }
}

/// Recorded work, to be done again and again.
#[derive(Debug)]
pub struct Graph {
    context: Context,
    plan: sys::CUgraph,
    graph: sys::CUgraphExec,
    /// The plan's nodes, and what each does at present.
    handles: Vec<sys::CUgraphNode>,
    nodes: Vec<Node>,
}

// SAFETY: the driver takes a graph from any thread as long as one at a time uses it, which `&mut` in `replay` sees to.
unsafe impl Send for Graph {}
// SAFETY: a shared reference does nothing with the handles.
unsafe impl Sync for Graph {}

impl Graph {
    /// Whether it can do this, see [`Node::are_alike`].
    pub fn is_like(&self, nodes: &[Node]) -> bool {
        Node::are_alike(&self.nodes, nodes)
    }
}

impl Context {
    /// Does one piece of work after all earlier work; the host does not wait.
    ///
    /// # Safety
    /// As [`launch`](Context::launch) and [`copy`](Context::copy) ask for.
    pub unsafe fn run(&self, node: &Node) -> Result<()> {
        // SAFETY: the caller's promise; the parameters live until the call is over.
        unsafe {
            match node {
                Node::Launch(launch) => {
                    let (threads, mut params) = ([launch.threads, 1, 1], pointers(&launch.params));
                    self.launch(launch.function, launch.grid, threads, launch.shared, &mut params)
                }
                Node::Copy(copy) => self.copy(copy.from, copy.to, copy.bytes),
            }
        }
    }

    /// Records work that is to be done in this order.
    ///
    /// # Safety
    /// The kernels' modules are loaded in this context, and each node has one value for each of its kernel's parameters.
    pub unsafe fn record(&self, nodes: Vec<Node>) -> Result<Graph> {
        let functions = self.0.enter()?;
        let mut plan = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one handle.
        let code = unsafe { (functions.cuGraphCreate)(&mut plan, 0) };
        self.0.check("cuGraphCreate", code)?;
        // From here on dropped, and with it destroyed, whatever fails.
        let mut graph = Graph {
            context: self.clone(),
            plan,
            graph: std::ptr::null_mut(),
            handles: Vec::with_capacity(nodes.len()),
            nodes,
        };
        for node in &graph.nodes {
            // SAFETY: the caller's promise.
            let handle = unsafe { self.add(plan, graph.handles.last(), node)? };
            graph.handles.push(handle);
        }
        // SAFETY: the plan is complete and live.
        let code = unsafe { (functions.cuGraphInstantiateWithFlags)(&mut graph.graph, plan, 0) };
        self.0.check("cuGraphInstantiateWithFlags", code)?;
        Ok(graph)
    }

    /// Adds a node after `last`.
    ///
    /// # Safety
    /// As [`record`](Context::record); `plan` is live and `last` of it.
    unsafe fn add(&self, plan: sys::CUgraph, last: Option<&sys::CUgraphNode>, node: &Node) -> Result<sys::CUgraphNode> {
        let functions = self.0.enter()?;
        let mut handle = std::ptr::null_mut();
        let (before, count) = (last.map_or(std::ptr::null(), std::ptr::from_ref), usize::from(last.is_some()));
        // SAFETY: the caller's promise; the driver copies the parameters during the call.
        unsafe {
            let (call, code) = match node {
                Node::Launch(launch) => {
                    self.grant_shared(launch.function, launch.shared)?;
                    let (call, mut params) = ("cuGraphAddKernelNode", pointers(&launch.params));
                    let kernel = kernel(launch, &mut params);
                    let code = (functions.cuGraphAddKernelNode_v2)(&mut handle, plan, before, count, &kernel);
                    (call, code)
                }
                Node::Copy(copy) => {
                    let (call, context) = ("cuGraphAddMemcpyNode", self.0.context);
                    let add = functions.cuGraphAddMemcpyNode;
                    (call, add(&mut handle, plan, before, count, &memcpy(copy), context))
                }
            };
            self.0.check(call, code)?;
        }
        Ok(handle)
    }

    /// Does what was recorded after all earlier work, with `nodes` in the place of what it did before; the host does not
    /// wait.
    ///
    /// # Safety
    /// As [`run`](Context::run) for each node; they are [alike](Node::are_alike) those that were recorded.
    pub unsafe fn replay(&self, graph: &mut Graph, nodes: Vec<Node>) -> Result<()> {
        for (i, node) in nodes.into_iter().enumerate() {
            if graph.nodes[i] != node {
                // SAFETY: the caller's promise.
                unsafe { self.replace(graph, i, &node)? };
                graph.nodes[i] = node;
            }
        }
        let functions = self.0.enter()?;
        // SAFETY: the graph is live as long as it is borrowed, by nobody else; the caller promises the rest.
        self.0.check("cuGraphLaunch", unsafe { (functions.cuGraphLaunch)(graph.graph, self.0.stream) })
    }

    /// Has the graph's `i`-th node do something else from now on.
    ///
    /// # Safety
    /// As [`replay`](Context::replay).
    unsafe fn replace(&self, graph: &mut Graph, i: usize, node: &Node) -> Result<()> {
        let (functions, handle) = (self.0.enter()?, graph.handles[i]);
        // SAFETY: the caller's promise; the driver copies the parameters during the call.
        unsafe {
            let (call, code) = match node {
                Node::Launch(launch) => {
                    self.grant_shared(launch.function, launch.shared)?;
                    let (call, mut params) = ("cuGraphExecKernelNodeSetParams", pointers(&launch.params));
                    let kernel = kernel(launch, &mut params);
                    (call, (functions.cuGraphExecKernelNodeSetParams_v2)(graph.graph, handle, &kernel))
                }
                Node::Copy(copy) => {
                    let (call, context) = ("cuGraphExecMemcpyNodeSetParams", self.0.context);
                    let set = functions.cuGraphExecMemcpyNodeSetParams;
                    (call, set(graph.graph, handle, &memcpy(copy), context))
                }
            };
            self.0.check(call, code)
        }
    }
}

/// Where the driver finds each parameter.
fn pointers(params: &[u64]) -> Vec<*mut c_void> {
    let pointer = |value: &u64| std::ptr::from_ref(value).cast_mut().cast();
    params.iter().map(pointer).collect()
}

/// A launch in the driver's words.
fn kernel(launch: &Launch, pointers: &mut [*mut c_void]) -> sys::CUDA_KERNEL_NODE_PARAMS {
    let [x, y, z] = launch.grid;
    sys::CUDA_KERNEL_NODE_PARAMS {
        func: launch.function.0,
        gridDimX: x,
        gridDimY: y,
        gridDimZ: z,
        blockDimX: launch.threads,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared as u32,
        kernelParams: pointers.as_mut_ptr(),
        extra: std::ptr::null_mut(),
        kern: std::ptr::null_mut(),
        ctx: std::ptr::null_mut(),
    }
}

/// A copy in the driver's words: one row of one slice.
fn memcpy(copy: &Copy) -> sys::CUDA_MEMCPY3D {
    let device = sys::CUmemorytype::CU_MEMORYTYPE_DEVICE;
    let nowhere = std::ptr::null_mut();
    sys::CUDA_MEMCPY3D {
        srcXInBytes: 0,
        srcY: 0,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: device,
        srcHost: nowhere,
        srcDevice: copy.from,
        srcArray: std::ptr::null_mut(),
        reserved0: nowhere,
        srcPitch: copy.bytes,
        srcHeight: 1,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: device,
        dstHost: nowhere,
        dstDevice: copy.to,
        dstArray: std::ptr::null_mut(),
        reserved1: nowhere,
        dstPitch: copy.bytes,
        dstHeight: 1,
        WidthInBytes: copy.bytes,
        Height: 1,
        Depth: 1,
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let Ok(functions) = self.context.0.enter() else { return };
        // SAFETY: neither is used again, and the driver lets running work finish first.
        unsafe {
            if !self.graph.is_null() {
                (functions.cuGraphExecDestroy)(self.graph);
            }
            (functions.cuGraphDestroy)(self.plan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(function: usize, param: u64) -> Node {
        Node::Launch(Launch {
            function: Function(function as sys::CUfunction),
            grid: [param as u32, 1, 1],
            threads: 32,
            shared: 0,
            params: vec![param],
        })
    }

    fn copy(to: u64, bytes: usize) -> Node {
        Node::Copy(Copy { from: 64, to, bytes })
    }

    #[test]
    fn courses_are_alike_when_kernels_and_sizes_of_copies_are() {
        let course = [launch(1, 5), copy(128, 8), launch(2, 6)];
        let moved = [launch(1, 7), copy(256, 8), launch(2, 6)];
        assert!(Node::are_alike(&course, &moved) && course != moved);
        let others: [&[Node]; 4] = [
            &course[..2],
            &[launch(1, 5), copy(128, 16), launch(2, 6)],
            &[launch(1, 5), copy(128, 8), launch(3, 6)],
            &[launch(1, 5), launch(2, 6), copy(128, 8)],
        ];
        for other in others {
            assert!(!Node::are_alike(&course, other), "{other:?}");
        }
    }
}
