//! A model as a tree: modules, shapes, sizes, and what of it is trained.

use engine::Params;
use std::collections::BTreeMap;

/// Parameters below a part of their names, in the order they were made.
#[derive(Default)]
struct Node {
    children: Vec<(String, Node)>,
    places: BTreeMap<String, usize>,
    /// Of the parameter that ends here: its shape, its elements, whether it is frozen.
    leaf: Option<(String, usize, bool)>,
}

impl Node {
    fn child(&mut self, name: &str) -> &mut Node {
        let next = self.children.len();
        let place = *self.places.entry(name.to_string()).or_insert(next);
        if place == next {
            self.children.push((name.to_string(), Node::default()));
        }
        &mut self.children[place].1
    }

    /// Elements below, and those of them that are frozen.
    fn count(&self) -> (usize, usize) {
        let own = self.leaf.as_ref().map_or((0, 0), |(_, n, frozen)| (*n, if *frozen { *n } else { 0 }));
        let below = self.children.iter().map(|(_, node)| node.count());
        below.fold(own, |(all, frozen), (a, f)| (all + a, frozen + f))
    }

    /// What is below, names, shapes and whether it is frozen, to tell blocks that are alike.
    fn signature(&self) -> String {
        let own = self.leaf.as_ref().map(|(shape, _, frozen)| format!("{shape}{frozen}"));
        let below = self.children.iter().map(|(name, node)| format!("{name}{}", node.signature()));
        format!("{}{{{}}}", own.unwrap_or_default(), below.collect::<String>())
    }

    /// Children by name, those that are numbered and alike in a row together: `0-11`.
    fn runs(&self) -> Vec<(String, Vec<&Node>)> {
        let mut runs: Vec<(&str, &str, Vec<&Node>)> = Vec::new();
        for (name, node) in &self.children {
            let numbered = |name: &str| name.parse::<usize>().is_ok();
            match runs.last_mut() {
                Some((_, last, alike))
                    if numbered(name) && numbered(last) && alike[0].signature() == node.signature() =>
                {
                    *last = name;
                    alike.push(node);
                }
                _ => runs.push((name, name, vec![node])),
            }
        }
        let named = |(first, last, nodes): (&str, &str, Vec<_>)| match first == last {
            true => (first.to_string(), nodes),
            false => (format!("{first}-{last}"), nodes),
        };
        runs.into_iter().map(named).collect()
    }
}

/// The tree of a model; blocks that are alike are shown once. `frozen` says by their names which parameters a run left as
/// they were; without it nothing is said.
pub fn tree(kind: &str, params: &Params, frozen: Option<&dyn Fn(&str) -> bool>) -> String {
    let mut root = Node::default();
    for id in params.ids() {
        let name = params.name(id);
        let node = name.split('.').fold(&mut root, |node, part| node.child(part));
        let shape = params.shape(id);
        let is_frozen = frozen.is_some_and(|frozen| frozen(name));
        node.leaf = Some((shape.to_string(), shape.elements(), is_frozen));
    }
    let mut lines = vec![line(0, kind, &[&root], frozen.is_some())];
    below(&root, 1, frozen.is_some(), &mut lines);
    lines.join("\n")
}

fn below(node: &Node, depth: usize, says_frozen: bool, lines: &mut Vec<String>) {
    for (mut name, mut nodes) in node.runs() {
        // What is alone in its place is shown under both names.
        while let ([only], true) = (&nodes[..], nodes[0].leaf.is_none()) {
            let mut inner = only.runs();
            if inner.len() > 1 {
                break;
            }
            let Some((below, alike)) = inner.pop() else { break };
            (name, nodes) = (format!("{name}.{below}"), alike);
        }
        lines.push(line(depth, &name, &nodes, says_frozen));
        below(nodes[0], depth + 1, says_frozen, lines);
    }
}

/// A line for nodes that are alike, with what they have in all.
fn line(depth: usize, name: &str, nodes: &[&Node], says_frozen: bool) -> String {
    let counts = nodes.iter().map(|node| node.count());
    let (all, frozen) = counts.fold((0, 0), |(all, frozen), (a, f)| (all + a, frozen + f));
    let state = match (says_frozen, frozen) {
        (false, _) => "",
        (_, 0) => "trained",
        (_, frozen) if frozen == all => "frozen",
        _ => "partly frozen",
    };
    let shape = match (nodes, &nodes[0].leaf) {
        (_, Some((shape, ..))) => shape.clone(),
        ([_], None) => String::new(),
        (alike, None) => format!("{} alike", alike.len()),
    };
    let name = format!("{}{name}", "  ".repeat(depth));
    format!("{name:48} {shape:>20} {all:>14}  {state}").trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::tree;
    use engine::{DType, Device, Init, ParamBuilder};

    #[test]
    fn blocks_that_are_alike_are_one_line() {
        let mut builder = ParamBuilder::new();
        for i in 0..6 {
            let width = if i == 5 { 3 } else { 2 };
            for name in ["q", "k"] {
                let name = format!("encoder.layers.{i}.attn.{name}.weight");
                builder.add(&name, [width, 2], Init::Zeros).unwrap();
            }
        }
        builder.add("norm.weight", [2], Init::Ones).unwrap();
        let params = builder.build(&Device::cpu(), DType::F32, 0).unwrap();
        let frozen = |name: &str| name.contains("layers.0") || name.contains("layers.1");
        let shown = |frozen| tree("model", &params, frozen);
        let names = |shown: &str| -> Vec<String> {
            let words = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            words.collect()
        };
        assert_eq!(
            names(&shown(None)),
            [
                "model 54",
                "encoder.layers 52",
                "0-4 5 alike 40",
                "attn 8",
                "q.weight (2, 2) 4",
                "k.weight (2, 2) 4",
                "5.attn 12",
                "q.weight (3, 2) 6",
                "k.weight (3, 2) 6",
                "norm.weight (2) 2",
            ]
        );
        let shown = names(&shown(Some(&frozen)));
        assert!(shown.contains(&"0-1 2 alike 16 frozen".into()), "{shown:?}");
        assert!(shown.contains(&"2-4 3 alike 24 trained".into()), "{shown:?}");
    }
}
