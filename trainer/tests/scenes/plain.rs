//! A second reading of scenes and texts that shares no code with the library: f64, strings and sampled silhouettes.

use lenslet::data::scenes::{Object, Scene, Shape};

pub(crate) const HELD_OUT: [&str; 5] = ["red ring", "green triangle", "blue cross", "yellow circle", "purple square"];

const COLOURS: [&str; 6] = ["red", "green", "blue", "yellow", "purple", "orange"];
const NUMBERS: [&str; 5] = ["zero", "one", "two", "three", "four"];
const RELATIONS: [&str; 6] = ["left of", "right of", "above", "below", "in front of", "behind"];

/// `red circle`
pub(crate) fn name(object: &Object) -> String {
    format!("{:?} {:?}", object.pair.colour, object.pair.shape).to_lowercase()
}

/// `a red circle`, `an orange ring`
fn named(object: &Object) -> String {
    let name = name(object);
    format!("{} {name}", if name.starts_with('o') { "an" } else { "a" })
}

fn colour(object: &Object) -> String {
    format!("{:?}", object.pair.colour).to_lowercase()
}

fn shape(object: &Object) -> String {
    format!("{:?}", object.pair.shape).to_lowercase()
}

fn plural(shape: &str) -> String {
    if shape == "cross" { "crosses".to_string() } else { format!("{shape}s") }
}

/// Whether the point is inside the shape.
pub(crate) fn inside(object: &Object, x: f64, y: f64) -> bool {
    let r = f64::from(object.radius);
    let (dx, dy) = (x - f64::from(object.x), y - f64::from(object.y));
    let from_centre = dx.hypot(dy);
    let in_box = |w: f64, h: f64| dx.abs() < w && dy.abs() < h;
    match object.pair.shape {
        Shape::Circle => from_centre < r,
        Shape::Ring => from_centre < r && from_centre > 0.46 * r,
        Shape::Square => in_box(0.82 * r, 0.82 * r),
        Shape::Cross => in_box(r, 0.36 * r) || in_box(0.36 * r, r),
        Shape::Triangle => {
            // Corners at 90, 210 and 330 degrees on a circle of 1.2 r; inside is on the same side of every edge.
            let corner = |degrees: f64| (1.2 * r * degrees.to_radians().cos(), -1.2 * r * degrees.to_radians().sin());
            let corners = [corner(90.0), corner(210.0), corner(330.0)];
            (0..3).all(|i| {
                let ((ax, ay), (bx, by)) = (corners[i], corners[(i + 1) % 3]);
                (bx - ax) * (dy - ay) - (by - ay) * (dx - ax) < 0.0
            })
        }
    }
}

/// Share of object `a` that `b` leaves uncovered, on a fine grid.
pub(crate) fn uncovered(a: &Object, b: &Object) -> f64 {
    const GRID: usize = 80;
    let at =
        |centre: f32, i: usize| f64::from(centre) + f64::from(a.radius) * 1.25 * (2.0 * i as f64 / GRID as f64 - 1.0);
    let points = (0..GRID * GRID).map(|i| (at(a.x, i % GRID), at(a.y, i / GRID)));
    let own: Vec<_> = points.filter(|&(x, y)| inside(a, x, y)).collect();
    own.iter().filter(|&&(x, y)| !inside(b, x, y)).count() as f64 / own.len() as f64
}

/// Whether `a` is `relation` `b`; `None` if undecided.
fn related(scene: &Scene, a: usize, relation: &str, b: usize) -> Option<bool> {
    let (p, q) = (&scene.objects[a], &scene.objects[b]);
    let along = |d: f64| if d.abs() < 0.15 { None } else { Some(d > 0.0) };
    let (right, down) = (f64::from(p.x) - f64::from(q.x), f64::from(p.y) - f64::from(q.y));
    match relation {
        "left of" => along(-right),
        "right of" => along(right),
        "above" => along(-down),
        "below" => along(down),
        "in front of" => (uncovered(p, q) < 1.0).then_some(a > b),
        "behind" => (uncovered(p, q) < 1.0).then_some(a < b),
        other => panic!("no relation: {other}"),
    }
}

fn find(scene: &Scene, wanted: &str) -> usize {
    scene.objects.iter().position(|object| name(object) == wanted).unwrap_or_else(|| panic!("no {wanted} in the scene"))
}

fn split_relation(text: &str) -> Option<(&str, &str, &str)> {
    RELATIONS.iter().find_map(|relation| {
        let (a, b) = text.split_once(&format!(" {relation} "))?;
        Some((a, *relation, b))
    })
}

fn count(scene: &Scene, noun: &str) -> usize {
    let counted = |object: &&Object| match noun.strip_suffix(" shapes") {
        Some(wanted) => colour(object) == wanted,
        None => noun == "shapes" || noun == "shape" || plural(&shape(object)) == noun || shape(object) == noun,
    };
    scene.objects.iter().filter(counted).count()
}

fn region(object: &Object) -> String {
    let third = |v: f32, names: [&'static str; 3]| {
        let v = f64::from(v);
        assert!((v - 1.0 / 3.0).abs() > 0.0299 && (v - 2.0 / 3.0).abs() > 0.0299, "on a boundary");
        names[if v < 1.0 / 3.0 {
            0
        } else if v < 2.0 / 3.0 {
            1
        } else {
            2
        }]
    };
    let words = format!("{} {}", third(object.y, ["top", "", "bottom"]), third(object.x, ["left", "", "right"]));
    if words.trim().is_empty() { "centre".to_string() } else { words.trim().to_string() }
}

/// The only right answer to a question, `None` for `describe a relation .`; panics if it has no clear answer.
pub(crate) fn answer(scene: &Scene, question: &str) -> Option<String> {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_string();
    let only = |objects: Vec<&Object>| {
        assert_eq!(objects.len(), 1, "{question}");
        *objects[0]
    };
    let having = |is: &dyn Fn(&Object) -> bool| only(scene.objects.iter().filter(|object| is(object)).collect());
    let asked = question.strip_suffix(" ?").unwrap_or(question);
    Some(if let Some(pair) = asked.strip_prefix("is there a ").or_else(|| asked.strip_prefix("is there an ")) {
        yes_no(scene.objects.iter().any(|object| name(object) == pair))
    } else if let Some(noun) = asked.strip_prefix("how many ").and_then(|rest| rest.strip_suffix(" are there")) {
        NUMBERS[count(scene, noun)].to_string()
    } else if let Some(wanted) = asked.strip_prefix("what colour is the ") {
        colour(&having(&|object| shape(object) == wanted))
    } else if let Some(wanted) = asked.strip_prefix("what shape is the ").and_then(|rest| rest.strip_suffix(" one")) {
        shape(&having(&|object| colour(object) == wanted))
    } else if let Some((first, rest)) = asked.strip_prefix("is the ").and_then(|rest| rest.split_once(" or ")) {
        let (second, b) = rest.split_once(" the ").expect("an object");
        let mut words = first.splitn(3, ' ');
        let a = [words.next(), words.next()].map(|word| word.expect("a pair")).join(" ");
        let first = words.next().expect("a relation");
        let (a, b) = (find(scene, &a), find(scene, b));
        let held = |relation: &&str| related(scene, a, relation, b).expect("a decisive relation");
        let held: Vec<&str> = [first, second].into_iter().filter(held).collect();
        assert_eq!(held.len(), 1, "{question}");
        held[0].to_string()
    } else if let Some(rest) = asked.strip_prefix("is the ") {
        let (a, relation, b) = split_relation(rest).expect("a relation");
        let b = find(scene, b.strip_prefix("the ").expect("the"));
        yes_no(related(scene, find(scene, a), relation, b).expect("a decisive relation"))
    } else if let Some(pair) = asked.strip_prefix("where is the ") {
        region(&scene.objects[find(scene, pair)])
    } else if let Some(rest) = asked.strip_prefix("what is ") {
        let (relation, b) = rest.split_once(" the ").expect("an object");
        let b = find(scene, b);
        let others: Vec<_> = (0..scene.objects.len()).filter(|&a| a != b).collect();
        let depth = relation == "in front of" || relation == "behind";
        assert!(depth || others.iter().all(|&a| related(scene, a, relation, b).is_some()), "{question}");
        let fit = others.iter().filter(|&&a| related(scene, a, relation, b) == Some(true));
        named(&only(fit.map(|&a| &scene.objects[a]).collect()))
    } else if question == "describe the image ." {
        list(scene)
    } else {
        assert_eq!(question, "describe a relation .");
        return None;
    })
}

fn list(scene: &Scene) -> String {
    let mut objects: Vec<_> = scene.objects.iter().collect();
    objects.sort_by(|a, b| a.x.partial_cmp(&b.x).expect("a number"));
    let names: Vec<_> = objects.iter().map(|object| named(object)).collect();
    let (last, others) = names.split_last().expect("an object");
    if others.is_empty() { format!("{last} .") } else { format!("{} and {last} .", others.join(" , ")) }
}

/// Whether what a well-formed caption claims is so; `None` if undecided.
pub(crate) fn judge(scene: &Scene, caption: &str) -> Option<bool> {
    let text = caption.strip_suffix(" .").expect("a full stop");
    let bare = |text: &str| text.split_once(' ').expect("an article").1.to_string();
    let shown = |pair: &str| scene.objects.iter().any(|object| name(object) == pair);
    if let Some((number, noun)) = text.split_once(' ').filter(|(first, _)| NUMBERS.contains(first)) {
        return Some(NUMBERS[count(scene, noun)] == number);
    }
    if let Some((a, relation, b)) = split_relation(text) {
        let (a, b) = (bare(a), bare(b));
        return if shown(&a) && shown(&b) {
            related(scene, find(scene, &a), relation, find(scene, &b))
        } else {
            Some(false)
        };
    }
    Some(text.split(" , ").flat_map(|item| item.split(" and ")).all(|item| shown(&bare(item))))
}

/// Every `colour shape` in a text.
pub(crate) fn names(text: &str) -> Vec<String> {
    let words: Vec<_> = text.split(' ').collect();
    let is_name = |two: &&[&str]| {
        COLOURS.contains(&two[0]) && Shape::ALL.iter().any(|s| format!("{s:?}").to_lowercase() == two[1])
    };
    words.windows(2).filter(is_name).map(|two| two.join(" ")).collect()
}
