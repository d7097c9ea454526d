//! `lenslet eval --tasks` from outside, with small untrained models and pictures of noise.

mod benchmarks;
#[allow(unreachable_pub)]
#[path = "../../../model/tests/common/data.rs"]
mod data;
mod held_out;
mod models;

use benchmarks::Benchmarks;
use models::{published_model, vision_model};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn lenslet(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments).output().expect("the binary starts")
}

fn works(arguments: &[&str]) -> String {
    let output = lenslet(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a call that must fail says.
fn fails(arguments: &[&str]) -> String {
    let output = lenslet(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    errors
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Runs an evaluation into a new folder; returns what it printed and its results.
fn evaluate(model: &Path, arguments: &[String], more: &[&str]) -> (String, Value, TempDir) {
    let out = TempDir::new().expect("a folder");
    let mut all = vec!["eval", "--model", text(model), "--output", text(out.path()), "--log-samples"];
    all.extend(arguments.iter().map(String::as_str));
    all.extend(more);
    let shown = works(&all);
    let results = fs::read(out.path().join("results.json")).expect("results.json");
    (shown, serde_json::from_slice(&results).expect("JSON"), out)
}

fn samples(out: &TempDir, task: &str) -> Vec<Value> {
    let lines = fs::read_to_string(out.path().join(format!("samples_{task}.jsonl"))).expect("samples");
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn all_tasks_are_measured_with_intervals_and_controls() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    let tasks = "pope,vsr,nlvr,vqa,caption,chair,retrieval,zeroshot,matching";
    let arguments = benchmarks.arguments(tasks);
    let (shown, results, out) = evaluate(model.path(), &arguments, &["--max-tokens", "6", "--batch-size", "4"]);
    for (task, figure, control, items) in [
        ("pope", "random.f1", "text_only", 6),
        ("pope", "all.accuracy", "text_only", 12),
        ("vsr", "accuracy", "text_only", 6),
        ("vsr", "under", "text_only", 3),
        ("nlvr", "accuracy", "text_only", 36),
        ("nlvr", "consistency", "text_only", 3),
        ("vqa", "accuracy", "text_only", 6),
        ("caption", "cider", "text_only", 6),
        ("chair", "chair_i", "text_only", 6),
        // Equal captions are one.
        ("retrieval", "text_to_image.r1", "shuffled", 7),
        ("zeroshot", "top1", "shuffled", 6),
        ("matching", "accuracy", "shuffled", 12),
    ] {
        let found = &results["results"][task][figure];
        let number = |key: &str| found[key].as_f64().unwrap_or_else(|| panic!("{task} {figure} has no {key}: {found}"));
        for key in ["value", "blank", control] {
            assert!((0.0..=10.0).contains(&number(key)), "{task} {figure}: {found}");
        }
        if found["low"].is_number() {
            assert!(number("low") <= number("value") && number("value") <= number("high"), "{task} {figure}: {found}");
        }
        assert_eq!(found["items"], items, "{task} {figure}");
        assert!(shown.contains(figure), "{shown}");
    }
    for (task, count) in [("pope", 12), ("nlvr", 36), ("caption", 6), ("zeroshot", 6), ("retrieval", 6)] {
        let samples = samples(&out, task);
        assert_eq!(samples.len(), count, "{task}");
        assert!(samples.iter().all(|sample| sample["blank"].is_string() && sample["score"].is_number()), "{task}");
    }
    // What is logged is what the figure is made of.
    let right: f64 = samples(&out, "pope").iter().filter_map(|sample| sample["score"].as_f64()).sum();
    assert_eq!(results["results"]["pope"]["all.accuracy"]["value"], right / 12.0);
    // Without an image, and with a blank one, all are asked the same and answer the same.
    let answers = samples(&out, "caption");
    for key in ["blank", "without"] {
        assert!(answers.iter().all(|sample| sample[key] == answers[0][key]), "{key}");
    }

    // Items do not see each other.
    let (_, alone, _) = evaluate(model.path(), &arguments, &["--max-tokens", "6", "--batch-size", "1"]);
    assert_eq!(alone["results"], results["results"]);
}

#[test]
fn an_answer_is_what_generate_says() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    let arguments = benchmarks.arguments("caption");
    let prompt = "caption=What is there?";
    let (_, _, out) = evaluate(model.path(), &arguments, &["--prompt", prompt, "--max-tokens", "5", "--no-controls"]);
    for (i, sample) in samples(&out, "caption").iter().enumerate().take(3) {
        let image = benchmarks.path(&format!("images/{i}.png"));
        let generate = ["generate", "--model", text(model.path()), "--image", text(&image), "--max-tokens", "5"];
        let said = works(&[&generate[..], &["--prompt", "What is there?"]].concat());
        assert_eq!(sample["answer"], said.trim(), "{sample}");
        assert!(sample.get("blank").is_none(), "no controls were asked for");
    }
}

#[test]
fn published_models_that_compare_are_measured_and_nothing_else() {
    let benchmarks = Benchmarks::new();
    for (name, size) in [("clip-gelu", 15), ("siglip", 12), ("blip2-retrieval", 12)] {
        let model = published_model(name, size);
        let arguments = benchmarks.arguments("retrieval,zeroshot");
        let prompts = ["--prompt", "zeroshot=a photo of a {}", "--prompt", "zeroshot=the {}"];
        let (shown, results, _) = evaluate(model.path(), &arguments, &prompts);
        assert!(shown.contains("image_to_text.r10") && shown.contains("shuffled"), "{name}: {shown}");
        assert_eq!(results["results"]["zeroshot"]["top1"]["guess"], 0.5, "{name}");
        // With one image for all, each class has as many of them as it has images.
        assert_eq!(results["results"]["zeroshot"]["top1"]["blank"], 0.5, "{name}");
        let cannot = |tasks: &str| {
            let arguments = benchmarks.arguments(tasks);
            let mut all = vec!["eval", "--model", text(model.path())];
            all.extend(arguments.iter().map(String::as_str));
            fails(&all)
        };
        let said = cannot("retrieval,pope");
        assert!(said.contains("pope: this model cannot do it; it takes a vision-language model"), "{name}: {said}");
        if name != "blip2-retrieval" {
            let said = cannot("matching");
            assert!(said.contains("matching: this model cannot do it"), "{name}: {said}");
        }
    }
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is_computed() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    let (path, none) = (text(model.path()), text(&benchmarks.path("none.json")).to_string());
    let (images, pope) = (text(&benchmarks.path("images")).to_string(), text(&benchmarks.path(".")).to_string());
    let pope_data = format!("pope={pope}");
    fs::write(benchmarks.path("bad.json"), "{\"image\": \"9.png\", \"text\": \"?\", \"label\": \"yes\"}")
        .expect("written");
    let bad = format!("pope={}", text(&benchmarks.path("bad.json")));
    let eval = |more: &[&str]| fails(&[&["eval", "--model", path, "--tasks", "pope"], more].concat());
    for (more, naming) in [
        (vec![], "--data pope=PATH"),
        (vec!["--data", &pope_data], "--images pope=DIR"),
        (vec!["--data", &pope], "expected TASK=VALUE"),
        (vec!["--data", &pope_data, "--data", "vsr=x"], "`vsr` is not among --tasks"),
        (vec!["--data", &format!("pope={none}"), "--images", &images], "none.json"),
        (vec!["--data", &pope_data, "--images", &none], "none.json"),
        (vec!["--data", &bad, "--images", &images], "no image `9.png`"),
        (vec!["--data", &pope_data, "--images", &images, "--prompt", "pope=Yes or no?"], "the place of the question"),
        (vec!["--data", &pope_data, "--images", &images, "--device", "cuda:7"], "--device cpu works everywhere"),
        (vec!["--data", &pope_data, "--images", &images, "--images", &images], "--images is given twice"),
    ] {
        let said = eval(&more);
        assert!(said.contains(naming), "{more:?}: `{naming}` is not in {said}");
    }
    let twice = fails(&["eval", "--model", path, "--tasks", "pope,vqa,pope"]);
    assert!(twice.contains("`pope` is named twice"), "{twice}");
    let said = fails(&["eval", "--model", path]);
    assert!(said.contains("recipe.resolved.toml") && said.contains("--tasks"), "{said}");

    let out = TempDir::new().expect("a folder");
    let unmade = out.path().join("new");
    eval(&["--data", &bad, "--images", &images, "--output", text(&unmade)]);
    assert!(!unmade.exists(), "what is refused leaves nothing");
    fs::write(out.path().join("results.json"), "precious").expect("written");
    let below = out.path().join("results.json/below");
    let said = eval(&["--data", &pope_data, "--images", &images, "--output", text(&below)]);
    assert!(said.contains("cannot be made"), "{said}");
    let said = eval(&["--data", &pope_data, "--images", &images, "--output", text(out.path())]);
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(fs::read_to_string(out.path().join("results.json")).expect("there"), "precious");
}

#[test]
fn a_language_model_sees_nothing() {
    let benchmarks = Benchmarks::new();
    let model = published_model("llama2-grouped-tied", 12);
    let arguments = benchmarks.arguments("pope");
    let mut all = vec!["eval", "--model", text(model.path())];
    all.extend(arguments.iter().map(String::as_str));
    let said = fails(&all);
    assert!(said.contains("a language model, which sees no images"), "{said}");
}

#[test]
fn what_cannot_be_asked_is_counted_and_named_and_the_rest_is_measured() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    fs::write(benchmarks.path("images/3.png"), "no picture at all").expect("written");
    let long = ["what"; 200].join(" ");
    let lines = [("0.png", "how many"), ("3.png", "how many"), ("9.png", "how many"), ("1.png", &long)];
    let line = |(image, question): &(&str, &str)| {
        format!("{{\"image\": \"{image}\", \"question\": \"{question}\", \"answer\": \"two\"}}\n")
    };
    let unread = "{\"image\": \"0.png\", \"question\": \"how many\", \"answer\": null}\n{\"image\": 5\n";
    let vqa = lines.iter().map(line).collect::<String>() + unread;
    fs::write(benchmarks.path("vqa.jsonl"), vqa).expect("written");
    let more = |name: &str, record: &str| {
        let path = benchmarks.path(name);
        let text = fs::read_to_string(&path).expect("records");
        fs::write(path, text + record + "\n").expect("written");
    };
    more("vsr.jsonl", "{\"image\": \"0.png\", \"caption\": \"x\", \"label\": 7}");
    let arguments = benchmarks.arguments("vqa,vsr,retrieval,matching");
    let (shown, results, out) = evaluate(model.path(), &arguments, &["--no-controls"]);
    for (task, measured, of, why) in [
        (
            "vqa",
            1,
            6,
            vec![
                "not a PNG, JPEG or WebP",
                "no image `9.png`",
                "no room for an answer",
                "expected `question` with `answer`",
                "EOF while parsing",
            ],
        ),
        ("vsr", 5, 7, vec!["not a PNG, JPEG or WebP", "label: expected true or false"]),
        ("retrieval", 5, 6, vec!["not a PNG, JPEG or WebP"]),
    ] {
        let items = &results["items"][task];
        assert_eq!((&items["measured"], &items["of"]), (&measured.into(), &of.into()), "{task}");
        for (i, why) in why.iter().enumerate() {
            assert!(items["not_asked"][i]["why"].to_string().contains(why), "{items}");
            assert!(shown.contains(why), "{shown}");
        }
        assert!(shown.contains(&format!("{} of {of} items could not be measured", of - measured)), "{shown}");
    }
    assert_eq!(samples(&out, "vsr").last().map(|sample| sample["id"].clone()), Some(5.into()), "its place in the file");
    assert!(shown.contains("answers were cut at the longest"), "{shown}");
}

#[test]
fn settings_that_match_nothing_are_refused() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    for (tasks, more, naming) in [
        ("retrieval", ["--prompt", "retrieval=What?"], "retrieval asks no question"),
        ("zeroshot", ["--images", "zeroshot=x"], "in the folders of its classes"),
        ("retrieval", ["--max-tokens", "3"], "none of --tasks asks for an answer"),
        ("vqa", ["--prompt", "caption=What?"], "`caption` is not among --tasks"),
    ] {
        let arguments = benchmarks.arguments(tasks);
        let mut all = vec!["eval", "--model", text(model.path())];
        all.extend(arguments.iter().map(String::as_str));
        let said = fails(&[&all[..], &more[..]].concat());
        assert!(said.contains(naming), "{more:?}: `{naming}` is not in {said}");
    }
}

#[test]
fn equal_captions_are_one_and_words_that_are_unknown_are_named() {
    let (model, benchmarks) = (published_model("clip-gelu", 15), Benchmarks::new());
    let retrieval = |captions: [&str; 6]| {
        let line =
            |(i, caption): (usize, &&str)| format!("{{\"image\": \"{i}.png\", \"captions\": [\"{caption}\"]}}\n");
        fs::write(benchmarks.path("lines.jsonl"), captions.iter().enumerate().map(line).collect::<String>())
            .expect("written");
        evaluate(model.path(), &benchmarks.arguments("retrieval"), &["--no-controls"])
    };
    let (_, results, _) = retrieval(["a dog"; 6]);
    for figure in ["image_to_text.r1", "text_to_image.r1"] {
        let found = &results["results"]["retrieval"][figure];
        assert_eq!(
            (&found["value"], &found["guess"]),
            (&1.0.into(), &1.0.into()),
            "{figure}: one caption, true of all"
        );
    }
    // Images under two names are one, too.
    fs::copy(benchmarks.path("images/0.png"), benchmarks.path("images/1.png")).expect("a copy");
    let (shown, results, _) = retrieval(["a dog", "a cat", "two", "red", "the photo", "zorp"]);
    let guess = results["results"]["retrieval"]["image_to_text.r1"]["guess"].as_f64().expect("a number");
    assert!((guess - (2.0 * 2.0 + 4.0) / 36.0).abs() < 1e-9, "{guess}");
    assert!(shown.contains("1 of 9 words (11.1 %) are not in the vocabulary: `zorp` 1"), "{shown}");
}

#[test]
fn real_files_are_read() {
    let model = vision_model();
    let short = ["--limit", "3", "--max-tokens", "4", "--no-controls"];
    if let Some(nlvr) = data::folder("nlvr") {
        let (data, images) = (nlvr.join("dev.json"), nlvr.join("dev-images.zip"));
        let arguments = ["--tasks", "nlvr", "--data", &format!("nlvr={}", text(&data)), "--images", text(&images)];
        let (_, results, out) = evaluate(model.path(), &arguments.map(String::from), &short);
        assert_eq!(results["results"]["nlvr"]["accuracy"]["items"], 18);
        let llava = fs::read_to_string(nlvr.join("dev-llava.jsonl")).expect("conversations");
        let asked = &samples(&out, "nlvr")[0]["question"].to_string();
        assert!(llava.contains(asked.trim_matches('"')), "asked as models are trained to be: {asked}");
    }
    if let Some(coco) = data::folder("coco_cc") {
        let (lines, vsr) = (coco.join("coco_cc.jsonl"), coco.join("vsr_overlap.jsonl"));
        let mut arguments = vec!["--tasks".to_string(), "vsr,caption,chair,retrieval,matching".into()];
        arguments.extend([
            "--data".into(),
            format!("vsr={}", text(&vsr)),
            "--images".into(),
            text(&coco.join("images")).into(),
        ]);
        for task in ["caption", "chair", "retrieval", "matching"] {
            arguments.extend(["--data".into(), format!("{task}={}", text(&lines))]);
        }
        let (_, results, _) = evaluate(model.path(), &arguments, &short);
        let items = |task: &str, figure: &str| results["results"][task][figure]["items"].clone();
        assert_eq!(
            (items("caption", "bleu4"), items("chair", "recall"), items("vsr", "accuracy")),
            (3.into(), 3.into(), 3.into())
        );
        assert_eq!((items("retrieval", "text_to_image.r1"), items("matching", "f1")), (15.into(), 6.into()));
    }
}

/// Twelve images of one colour or the other, conversations and questions about them, and a recipe that learns the colours.
fn colours(root: &Path) {
    let (mut conversations, mut questions) = (Vec::new(), String::new());
    for i in 0..12u8 {
        let (name, red) = (format!("{i}.png"), i % 2 == 0);
        let colour = if red { [200 + i, 20, 20] } else { [20, 20, 200 + i] };
        image::RgbImage::from_pixel(20, 14, image::Rgb(colour)).save(root.join(&name)).expect("an image");
        let answer = if red { "red" } else { "blue" };
        conversations.push(serde_json::json!({ "id": i.to_string(), "image": name, "conversations": [
            { "from": "human", "value": "<image>\nwhat is it" }, { "from": "gpt", "value": answer },
        ] }));
        let line = serde_json::json!({ "image": name, "question": "what is it", "answer": format!("{answer}.") });
        questions += &format!("{line}\n");
    }
    fs::write(root.join("data.json"), Value::from(conversations).to_string()).expect("written");
    fs::write(root.join("vqa.jsonl"), questions).expect("written");
    let recipe = "[run]\nname = \"colours\"\n[data]\nsource = \"llava\"\npath = \"ROOT/data.json\"\nimages = \"ROOT\"\n\
        [model.vision]\nimage_size = 12\npatch_size = 6\nhidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
        [model.adapter]\nkind = \"mlp\"\n[model.decoder]\nhidden_size = 16\nnum_hidden_layers = 1\n\
        num_attention_heads = 2\nnum_key_value_heads = 2\nintermediate_size = 32\n\
        [phase2]\nsteps = 120\nbatch_size = 6\nlr = 1e-2\n[eval]\nsamples = 1\nattention = 0\n";
    fs::write(root.join("recipe.toml"), recipe.replace("ROOT", text(root))).expect("written");
}

#[test]
fn what_sees_exceeds_its_controls() {
    let root = TempDir::new().expect("a folder");
    colours(root.path());
    let (recipe, run) = (root.path().join("recipe.toml"), root.path().join("run"));
    works(&["train", "--recipe", text(&recipe), "--out", text(&run)]);
    let vqa = format!("vqa={}", text(&root.path().join("vqa.jsonl")));
    let arguments = ["--tasks", "vqa", "--data", &vqa, "--images", text(root.path())];
    let (_, results, _) = evaluate(&run, &arguments.map(String::from), &[]);
    let exact = &results["results"]["vqa"]["exact"];
    for (key, expected) in [("value", 1.0), ("blank", 0.5), ("text_only", 0.5), ("guess", 0.5)] {
        assert_eq!(exact[key], expected, "{key} of {exact}");
    }
    assert!(exact["low"].as_f64().is_some_and(|low| low > 0.7), "{exact}");

    // A caption is asked for in the words of training, and what is asked is said.
    let captions = format!("caption={}", text(&root.path().join("captions.jsonl")));
    fs::write(root.path().join("captions.jsonl"), "{\"image\": \"0.png\", \"captions\": [\"red\"]}").expect("written");
    let arguments = ["--tasks", "caption", "--data", &captions, "--images", text(root.path())];
    let (shown, results, _) = evaluate(&run, &arguments.map(String::from), &["--no-controls"]);
    assert!(shown.starts_with("caption asks \"what is it\""), "{shown}");
    assert_eq!(results["config"]["tasks"]["caption"]["prompt"][0], "what is it");
    assert_eq!(results["results"]["caption"]["bleu1"]["value"].as_f64().map(|b| b > 0.99), Some(true), "{results}");
}
