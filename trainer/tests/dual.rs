//! Dual encoders from a recipe: parts contrasted as one batch, runs gone on with, folders that hold all there is to use them.

use engine::Device;
use lenslet::course::Trained;
use lenslet::dual::DualSession;
use lenslet::phases::Phase;
use lenslet::phases::fit::{Flow, Step};
use lenslet::recipe::Recipe;
use model::hf::{self, Model};
use std::path::{Path, PathBuf};
use std::process::Command;

fn recipe(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../recipes/{name}.toml"))
}

/// Smaller towers, so that a debug build is quick.
const SMALL: [&str; 6] = [
    "dual.vision.num_hidden_layers=1",
    "dual.text.num_hidden_layers=1",
    "dual.vision.image_size=24",
    "contrast.steps=3",
    "contrast.warmup=0",
    "eval.limit=12",
];

fn steps(name: &str, more: &[&str]) -> Vec<Step> {
    trained(name, more).1
}

fn trained(name: &str, more: &[&str]) -> (DualSession, Vec<Step>) {
    let settings: Vec<String> = SMALL.iter().chain(more).map(|s| s.to_string()).collect();
    let recipe = Recipe::load(&recipe(name), &settings).expect("a recipe");
    let mut session = DualSession::new(recipe, &Device::cpu()).expect("a session");
    let mut steps = Vec::new();
    let seen = session.train(Phase::Contrast, None, &mut |step, _, _, _| {
        steps.push(step.clone());
        Ok(Flow::Continue)
    });
    seen.expect("trained");
    (session, steps)
}

#[test]
fn the_temperature_stays_within_its_bounds_however_it_is_stepped() {
    for name in ["clip", "siglip"] {
        for more in [
            &["contrast.accumulate=1"][..],
            &["contrast.accumulate=2", "contrast.ema=0.5"],
            &["contrast.accumulate=1", "contrast.shards=2", "run.dtype=bf16"],
        ] {
            // Steps so long that the scale would leave them at once, one way or the other.
            let far = ["contrast.rules=[{ match = \"logit_scale\", lr_scale = 1e5 }]", "contrast.batch_size=6"];
            let (session, steps) = trained(name, &[&far[..], more].concat());
            let id = session.params.find("logit_scale").expect("a temperature");
            for value in [session.params.master(id), session.params.tensor(id)] {
                let value = value.item().expect("a number");
                assert!((0.0..=100.0f64.ln() + 1e-6).contains(&value), "{name} {more:?}: {value}");
            }
            assert!(steps.iter().all(|step| step.loss.is_finite()), "{name} {more:?}");
        }
    }
}

#[test]
fn accumulated_parts_are_contrasted_as_one_batch() {
    for name in ["clip", "siglip"] {
        let whole = steps(name, &["contrast.batch_size=12", "contrast.accumulate=1"]);
        for cut in
            [["contrast.batch_size=4", "contrast.accumulate=3"], ["contrast.batch_size=2", "contrast.accumulate=6"]]
        {
            let cut = steps(name, &cut);
            for (a, b) in whole.iter().zip(&cut) {
                // Sums in f32, taken in another order; the third step sees what two steps made of it.
                assert!((a.loss / b.loss - 1.0).abs() < 1e-4, "{name}: {a:?} {b:?}");
                assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3, "{name}: {a:?} {b:?}");
            }
        }
    }
    let [whole, shards] = [1, 3].map(|n| {
        let shards = format!("contrast.shards={n}");
        steps("clip", &["contrast.batch_size=12", "contrast.accumulate=1", &shards])
    });
    let ratio = whole[0].loss / shards[0].loss;
    assert!((ratio - 1.0).abs() > 1e-2, "shards are contrasted by themselves: {ratio}");
}

fn lenslet(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lenslet")).args(arguments).output().expect("the binary starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_run_leaves_a_folder_to_compare_with_and_to_go_on_from() {
    let root = tempfile::tempdir().expect("a folder");
    for name in ["clip", "siglip"] {
        let (file, out) = (recipe(name), root.path().join(name));
        let (file, out) = (file.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
        let mut arguments = vec!["train", "--recipe", file, "--out", out, "--set", "contrast.batch_size=6"];
        SMALL.iter().for_each(|setting| arguments.extend(["--set", setting]));
        let said = lenslet(&arguments);
        assert!(said.contains("image -> text R@1") && said.contains("--tasks zeroshot"), "{said}");
        let (model, _) = hf::load(Path::new(out), &Device::cpu(), engine::DType::F32, true).expect("a model");
        let Model::Dual(model) = model else { panic!("{name}: not a dual encoder") };
        let tokenizer = model::Tokenizer::open(Path::new(out)).expect("a tokenizer");
        let texts = model.texts(&tokenizer, &["a red circle"]).expect("texts");
        let ends = (texts.ids[0] as u32, texts.ids[texts.lens[0] as usize - 1] as u32);
        let specials = tokenizer.specials();
        if name == "clip" {
            assert_eq!(ends, (specials.bos.expect("a beginning"), model.config.text.eos_token_id));
            assert_eq!(model.config.text.eos_token_id, specials.eos);
        } else {
            assert_eq!((texts.tokens, ends.1), (model.config.text.max_position_embeddings, specials.pad));
        }
        let table = |said: &str| said.lines().filter(|line| line.contains("R@")).map(String::from).collect::<Vec<_>>();
        assert_eq!(table(&lenslet(&["eval", "--model", out])), table(&said), "measured again");
        let again = lenslet(&["train", "--resume", "latest", "--out", out]);
        assert!(again.contains("goes on from") && table(&again) == table(&said), "{again}");
    }
}
