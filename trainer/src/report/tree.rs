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
        let own = self
            .leaf
            .as_ref()
            .map_or((0, 0), |(_, n, frozen)| (*n, if *frozen { *n } else { 0 }));
        let below = self.children.iter().map(|(_, node)| node.count());
        below.fold(own, |(all, frozen), (a, f)| (all + a, frozen + f))
    }

    /// The node, or the only one below it in its place, under both names.
    fn only(&self, name: &str) -> (String, &Node) {
        match (&self.children[..], &self.leaf) {
            ([(inner, node)], None) if inner.parse::<usize>().is_err() => node.only(&format!("{name}.{inner}")),
            _ => (name.to_string(), self),
        }
    }

    /// What is below, names and shapes, to tell blocks that are alike.
    fn signature(&self) -> String {
        let shape = self.leaf.as_ref().map_or("", |(shape, ..)| shape);
        let below = self
            .children
            .iter()
            .map(|(name, node)| format!("{name}{}", node.signature()));
        format!("{shape}{{{}}}", below.collect::<String>())
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
    let mut lines = vec![line(0, kind, &root, frozen.is_some())];
    below(&root, 1, frozen.is_some(), &mut lines);
    lines.join("\n")
}

fn below(node: &Node, depth: usize, says_frozen: bool, lines: &mut Vec<String>) {
    let mut shown: Option<(&str, String)> = None;
    let mut alike = 0;
    for (i, (name, child)) in node.children.iter().enumerate() {
        let numbered = name.parse::<usize>().is_ok();
        let signature = if numbered { child.signature() } else { String::new() };
        if numbered && shown.as_ref().is_some_and(|(_, last)| *last == signature) {
            alike += 1;
        } else {
            shown = numbered.then_some((name, signature));
            let (name, child) = child.only(name);
            lines.push(line(depth, &name, child, says_frozen));
            below(child, depth + 1, says_frozen, lines);
        }
        let next_is_alike = node.children.get(i + 1).is_some_and(|(next, child)| {
            next.parse::<usize>().is_ok() && shown.as_ref().is_some_and(|(_, last)| *last == child.signature())
        });
        if alike > 0 && !next_is_alike {
            lines.push(format!(
                "{}… {alike} more like {}",
                "  ".repeat(depth),
                shown.as_ref().map_or("", |s| s.0)
            ));
            alike = 0;
        }
    }
}

fn line(depth: usize, name: &str, node: &Node, says_frozen: bool) -> String {
    let (all, frozen) = node.count();
    let state = match (says_frozen, frozen) {
        (false, _) => "",
        (_, 0) => "trained",
        (_, frozen) if frozen == all => "frozen",
        _ => "partly frozen",
    };
    let shape = node.leaf.as_ref().map_or("", |(shape, ..)| shape);
    let name = format!("{}{name}", "  ".repeat(depth));
    format!("{name:48} {shape:>20} {all:>14}  {state}")
        .trim_end()
        .to_string()
}
