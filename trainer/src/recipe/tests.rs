use super::paths::{as_written, variables};
use super::*;
use proptest::prelude::*;

const GOOD: &str = "\
[run]
name = \"first\"

[data]
source = \"scenes\"

[phase2]
steps = 100
batch_size = 8
lr = 1e-3

[[phase2.rules]]
match = \"vision_model.*\"
freeze = true
";

fn parse(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = overrides.iter().map(|s| s.to_string()).collect();
    Recipe::parse(text, Path::new("r.toml"), &overrides)
}

#[test]
fn defaults_are_filled_in_and_the_resolved_recipe_reads_back() {
    let recipe = parse(GOOD, &[]).unwrap();
    assert!(recipe.phase1.is_none());
    let training = recipe.phase2.as_ref().unwrap().training();
    assert_eq!(training.steps, 100);
    assert_eq!(training.clip, 1.0);
    assert!(training.rules[0].freeze && training.rules[0].lr_scale == 1.0);
    let text = recipe.to_toml();
    assert!(text.contains("beta2 = 0.98") && text.contains("patch_size = 8"), "{text}");
    assert_eq!(Recipe::parse(&text, Path::new("resolved"), &[]).unwrap(), recipe);
}

#[test]
fn overrides_replace_add_and_reach_into_lists() {
    let set = [
        "phase2.lr=2",
        "run.name=other",
        "phase2.rules.0={ match = \"vision_model.*\" }",
        "phase2.rules.0.lr_scale=0.5",
        "model.vision.hidden_size = 64",
        "phase2.questions_start={ count = 2.0 }",
        "data.image_size=32",
    ];
    let recipe = parse(GOOD, &set).unwrap();
    let phase = recipe.phase2.unwrap();
    assert_eq!((phase.lr, phase.rules[0].lr_scale), (2.0, 0.5));
    assert_eq!((phase.questions_start.count, phase.questions_start.colour), (2.0, 0.0));
    assert_eq!((recipe.run.name.as_str(), recipe.model.vision.hidden_size), ("other", 64));
    assert_eq!(recipe.data.image_size, Some(32));
}

/// (what is changed in GOOD, into what, the message's beginning, what it contains)
const BAD: &[(&str, &str, &str, &[&str])] = &[
    ("lr = 1e-3", "learning = 1e-3", "r.toml:10: phase2.learning: ", &["unknown key `learning`", "`lr`"]),
    ("batch_size", "batchsize", "r.toml:9: phase2.batchsize: ", &["did you mean `batch_size`?"]),
    ("lr = 1e-3", "lr = \"quick\"", "r.toml:10: phase2.lr: ", &["\"quick\"", "expected a number"]),
    ("lr = 1e-3", "lr = -1", "r.toml:10: phase2.lr: ", &["above 0", "found -1"]),
    ("lr = 1e-3", "lr = nan", "r.toml:10: phase2.lr: ", &["found NaN"]),
    ("lr = 1e-3", "lr = 1e-3\nmuon_lr = nan", "r.toml:11: phase2.muon_lr: ", &["above 0", "found NaN"]),
    ("[phase2]", "[eval]\nlimit = 0\n[phase2]", "r.toml:8: eval.limit: ", &["expected 1 to", "found 0"]),
    ("lr = 1e-3\n", "", "r.toml:7: phase2.lr: ", &["key `lr` is missing"]),
    ("steps = 100", "steps = -100", "r.toml:8: phase2.steps: ", &["-100", "whole number, 0 or more"]),
    ("steps = 100", "steps = 0", "r.toml:8: phase2.steps: ", &["expected 1 to", "found 0"]),
    ("steps = 100", "steps = 1.5", "r.toml:8: phase2.steps: ", &["1.5", "whole number"]),
    (
        "steps = 100",
        "steps = 100\ncurve = \"cosin\"",
        "r.toml:9: phase2.curve: ",
        &["did you mean `cosine`?", "`linear`"],
    ),
    ("steps = 100", "steps = 100\nwarmup = 101", "r.toml:9: phase2.warmup: ", &["at most the phase's 100 steps"]),
    ("steps = 100", "steps = 100\nfloor = 1", "r.toml:9: phase2.floor: ", &["0 to 0.001"]),
    ("steps = 100", "steps = 100\nbeta2 = 1.0", "r.toml:9: phase2.beta2: ", &["less than 1"]),
    ("steps = 100", "steps = 100\nitc = 1.0", "r.toml:9: phase2.itc: ", &["unknown key `itc`"]),
    ("freeze = true", "freeze = 1", "r.toml:14: phase2.rules.0.freeze: ", &["true or false"]),
    ("freeze = true", "frozen = true", "r.toml:14: phase2.rules.0.frozen: ", &["did you mean `freeze`?"]),
    ("freeze = true", "lr_scale = -1", "r.toml:14: phase2.rules.0.lr_scale: ", &["found -1"]),
    ("\"vision_model.*\"", "\"\"", "r.toml:13: phase2.rules.0.match: ", &["found nothing"]),
    ("\"scenes\"", "\"scene\"", "r.toml:5: data.source: ", &["did you mean `scenes`?"]),
    ("\"scenes\"", "\"llava\"", "r.toml:4: data.path: ", &["key `path` is missing"]),
    ("\"scenes\"", "\"scenes\"\npath = \"x\"", "r.toml:6: data.path: ", &["source = \"llava\""]),
    ("\"scenes\"", "\"scenes\"\nimage_size = 4", "r.toml:6: data.image_size: ", &["16 to 1024"]),
    (
        "\"scenes\"",
        "\"coco\"\npath = \"x\"",
        "r.toml:4: data.images: ",
        &["key `images` is missing; `source = \"coco\"`"],
    ),
    (
        "\"scenes\"",
        "\"folder\"\npath = \"x\"\nimages = \"y\"",
        "r.toml:7: data.images: ",
        &["means nothing with `source = \"folder\"`"],
    ),
    (
        "\"scenes\"",
        "\"folder\"\npath = \"x\"\ntrain_split = \"y\"",
        "r.toml:7: data.train_split: ",
        &["the folders of a split"],
    ),
    ("\"scenes\"", "\"folder\"\npath = \"x\"\ntemplates = []", "r.toml:7: data.templates: ", &["at least one"]),
    (
        "\"scenes\"",
        "\"folder\"\npath = \"x\"\ntemplates = [\"a {}\", \"b\"]",
        "r.toml:7: data.templates.1: ",
        &["no place `{}`"],
    ),
    (
        "\"scenes\"",
        "\"webdataset\"\npath = \"x.tar\"\ntemplates = [\"a {}\"]",
        "r.toml:7: data.templates: ",
        &["belongs to `source = \"folder\"`"],
    ),
    (
        "\"scenes\"",
        "\"webdataset\"\npath = \"x.tar\"\nquestion = \" \"",
        "r.toml:7: data.question: ",
        &["asks nothing"],
    ),
    ("\"scenes\"", "\"webdataset\"\npath = \"x.tar\"\nmax_tokens = 0", "r.toml:7: data.max_tokens: ", &["found 0"]),
    ("\"scenes\"", "\"scenes\"\nkeep = true", "r.toml:6: data.keep: ", &["belongs to data on disk"]),
    (
        "\"scenes\"",
        "\"scenes\"\ngroup_by_length = true",
        "r.toml:6: data.group_by_length: ",
        &["belongs to data on disk"],
    ),
    ("\"scenes\"", "\"image-folder\"\npath = \"x\"", "r.toml:5: data.source: ", &["`webdataset`"]),
    ("\"first\"", "\"../first\"", "r.toml:2: run.name: ", &["`../first`"]),
    ("\"first\"", "\"first\"\nseed = -1", "r.toml:3: run.seed: ", &["-1"]),
    ("\"first\"", "\"first\"\nthreads = 0", "r.toml:3: run.threads: ", &["1 to 1024"]),
    ("\"first\"", "\"first\"\ndtype = \"f16\"", "r.toml:3: run.dtype: ", &["`f16`", "`bf16`"]),
    ("[run]\nname = \"first\"\n", "", "r.toml: run: ", &["key `run` is missing"]),
    ("[phase2]", "[phase3]\nsteps = 1\n[phase2]", "r.toml:7: phase3: ", &["unknown key `phase3`", "`phase2`"]),
    ("[phase2]", "[phase2", "r.toml:7: ", &["not TOML"]),
    ("steps = 100", "steps = 100\nsteps = 5", "r.toml:9: ", &["not TOML", "duplicate"]),
    (
        "[phase2]",
        "[model.vision]\npatch_size = 7\n[phase2]",
        "r.toml:8: model.vision.patch_size: ",
        &["7 does not divide"],
    ),
    (
        "[phase2]",
        "[model.decoder]\nhiddensize = 7\n[phase2]",
        "r.toml:8: model.decoder.hiddensize: ",
        &["`hidden_size`"],
    ),
    ("[phase2]", "[tokenizer]\nkind = \"file\"\n[phase2]", "r.toml:7: tokenizer.path: ", &["tokenizer.json"]),
    ("[phase2]", "[eval]\nsamples = 2\nattention = 3\n[phase2]", "r.toml:9: eval.attention: ", &["0 to 2"]),
    (
        "[phase2]",
        "[phase1]\nsteps = 1\nbatch_size = 2\nlr = 1\n[phase2]",
        "r.toml: model.qformer: ",
        &["trains a Q-Former"],
    ),
    (
        "steps = 100",
        "steps = 100\nshards = 3",
        "r.toml:9: phase2.shards: ",
        &["a divisor of the batch size 8, found 3"],
    ),
    ("steps = 100", "steps = 100\nshards = 0", "r.toml:9: phase2.shards: ", &["found 0"]),
    ("steps = 100", "steps = 100\nalign_every = 1", "r.toml:9: phase2.align_every: ", &["0 or at least 2"]),
    ("steps = 100", "steps = 100\nalign_every = 4", "r.toml:9: phase2.align_every: ", &["[phase1], which is missing"]),
    (
        "[phase2]",
        "[model.qformer]\n[phase1]\nsteps = 1\nbatch_size = 4\nshards = 4\nlr = 1\n[phase2]",
        "r.toml:10: phase1.batch_size: ",
        &["at least 8, found 4"],
    ),
    (
        "steps = 100",
        "steps = 100\nfloor = 1e-4\ncurve = \"constant\"",
        "r.toml:9: phase2.floor: ",
        &["would change nothing"],
    ),
    (
        "[phase2]",
        "[model.qformer]\n[phase2]",
        "r.toml:7: model.qformer: ",
        &["would change nothing", "model.adapter.kind"],
    ),
    ("\"scenes\"", "\"scenes\"\nfit = \"pad\"", "r.toml:6: data.fit: ", &["drawn square"]),
    ("[phase2]", "[tokenizer]\nkind = \"bpe\"\n[phase2]", "r.toml:8: tokenizer.kind: ", &["vocabulary of their own"]),
    (
        "[phase2]",
        "[tokenizer]\nkind = \"pretrained\"\n[phase2]",
        "r.toml:8: tokenizer.kind: ",
        &["no pretrained language model"],
    ),
    (
        "\"scenes\"",
        "\"coco\"\npath = \"x\"\nimages = \"y\"\nsplit_field = \"z\"",
        "r.toml:8: data.split_field: ",
        &["neither `train_split` nor `heldout_split`"],
    ),
];

#[test]
fn every_bad_recipe_is_named_by_file_line_key_and_expectation() {
    for (from, to, start, parts) in BAD {
        assert!(GOOD.contains(from), "{from}");
        let message = parse(&GOOD.replacen(from, to, 1), &[]).expect_err(to).to_string();
        assert!(message.starts_with(start), "`{to}` gave: {message}\nexpected: {start}…");
        for part in *parts {
            assert!(message.contains(part), "`{to}` gave: {message}\nexpected in it: {part}");
        }
    }
}

#[test]
fn a_bad_override_is_named_as_written() {
    for (set, part) in [
        ("phase2.lr=-1", "above 0"),
        ("phase2.lrr=1", "did you mean `lr`?"),
        ("phase2.rules.1.freeze=true", "the list has 1"),
        ("phase2.rules.zero.freeze=true", "not a table"),
        ("phase2.lr", "expected KEY=VALUE"),
        ("phase2.lr.x=1", "not a table"),
        ("phase1.lr=1", "the recipe has no [phase1]"),
        ("contrast.steps=1", "the recipe has no [contrast]"),
        ("model.qformer.text=false", "the recipe has no [model.qformer]"),
        ("phase2.rules.0.lr_scale=2", "the rule freezes what it fits"),
        ("phase2.stochastic_rounding=true", "run.dtype is bf16"),
        (".=1", "is not a key"),
    ] {
        let message = parse(GOOD, &["run.seed=3", set]).expect_err(set).to_string();
        assert!(message.starts_with(&format!("--set {set}: ")) && message.contains(part), "{message}");
    }
}

#[test]
fn a_dual_encoder_that_no_class_can_hold_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    for (name, set, key, part) in [
        ("clip", "dual.vision.pre_layernorm=false", "dual.vision.pre_layernorm: ", "must be true for CLIP"),
        (
            "clip",
            "dual.vision={ class_token = true }",
            "dual.vision.pre_layernorm: ",
            "must be true, patch_bias false for CLIP",
        ),
        ("clip", "dual.vision.patch_margin=2", "dual.vision.patch_margin: ", "cannot be written"),
        ("clip", "dual.vision.patch_hidden=8", "dual.vision.patch_hidden: ", "cannot be written"),
        ("clip", "dual.vision.positions=sinusoidal", "dual.vision.positions: ", "learned"),
        ("clip", "dual.vision.feature_layer=-2", "dual.vision.feature_layer: ", "would change nothing"),
        ("siglip", "dual.vision.class_token=true", "dual.vision.class_token: ", "must be false for SigLIP"),
        ("siglip", "dual.vision.patch_bias=false", "dual.vision.patch_bias: ", "must be true for SigLIP"),
    ] {
        let error = Recipe::load(&folder.join(format!("{name}.toml")), &[set.to_string()]).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(key) && message.contains(part), "{set}: {message}");
    }
}

#[test]
fn nothing_to_train_and_no_file_are_errors() {
    let (head, _) = GOOD.split_once("[phase2]").unwrap();
    assert!(parse(head, &[]).unwrap_err().to_string().contains("neither [phase1] nor [phase2]"));
    let missing = Recipe::load(Path::new("no/such.toml"), &[]).unwrap_err().to_string();
    assert!(missing.starts_with("no/such.toml: cannot be read"), "{missing}");
}

#[test]
fn variables_in_paths_are_replaced() {
    let lookup = |name: &str| match name {
        "A" => Some("x".to_string()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    assert_eq!(variables("${A}/b/${B:-c/d}${EMPTY:-e}", lookup).unwrap(), "x/b/c/de");
    assert!(variables("${B}/x", lookup).unwrap_err().contains("variable B is not set"));
    assert!(variables("${A/x", lookup).unwrap_err().contains("without `}`"));
    let llava = "source = \"llava\"\npath = \"${NO_SUCH_VARIABLE}/a\"\nimages = \"b\"";
    let message = parse(&GOOD.replace("source = \"scenes\"", llava), &[]).unwrap_err().to_string();
    assert!(message.starts_with("r.toml:6: data.path: ") && message.contains("NO_SUCH_VARIABLE"), "{message}");
}

#[test]
fn the_recipes_that_come_along_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let recipes: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(recipes.len() >= 2, "{recipes:?}");
    for path in recipes {
        let recipe = Recipe::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(path.file_stem().unwrap().to_str(), Some(recipe.run.name.as_str()));
    }
}

proptest! {
    #[test]
    fn any_text_and_any_override_give_a_recipe_or_an_error(text in "[\\[\\]a-z0-9=.\"\n ]{0,200}", set in "\\PC{0,40}") {
        let _ = parse(&text, &[&set]);
        let _ = parse(GOOD, &[&set]);
    }

    #[test]
    fn a_damaged_recipe_never_panics(at in 0..GOOD.len(), with in "\\PC{0,3}") {
        let text = format!("{}{with}{}", &GOOD[..at], &GOOD[(at + 1).min(GOOD.len())..]);
        let _ = parse(&text, &[]);
    }
}

#[test]
fn a_dollar_is_written_twice_where_it_names_no_variable() {
    let lookup = |name: &str| (name == "A").then(|| "x".to_string());
    for (text, expected) in [("${A}/b", "x/b"), ("$${A}/${A}", "${A}/x"), ("$A/$", "$A/$"), ("$$${A}", "$${A}")] {
        assert_eq!(variables(text, lookup).unwrap(), expected);
    }
    for path in ["${A}", "$${A}${", "$", "a$", "$$${"] {
        assert_eq!(variables(&as_written(path), lookup).unwrap(), path);
    }
}

#[test]
fn paths_lead_to_the_same_place_from_any_folder_and_names_of_the_hub_stay() {
    let here = std::env::current_dir().unwrap();
    let absolute = |path: &str| here.join(path).to_str().unwrap().to_string();
    let data = |source: &str, path: &str| {
        let set = [format!("data.source={source}"), format!("data.path={path}")];
        parse(GOOD, &set.each_ref().map(String::as_str)).unwrap().anchored()
    };
    let shards = data("webdataset", "a-{0..3}.tar::$${X}/b.tar");
    let expected = format!("{}::{}", absolute("a-{0..3}.tar"), absolute("${X}/b.tar"));
    assert_eq!(shards.data.path.as_deref(), Some(Path::new(&expected)));
    assert_eq!(data("folder", "a::b").data.path.unwrap().to_str(), Some(absolute("a::b").as_str()));
    let again = Recipe::parse(&shards.to_toml(), Path::new("resolved"), &[]).unwrap();
    assert_eq!(again.anchored(), shards);
    let mut recipe = parse(GOOD, &["pretrained.vision=src", "pretrained.decoder=org/name"]).unwrap();
    (recipe.data.images, recipe.data.heldout_path, recipe.data.heldout_images) =
        (Some("i".into()), Some("h".into()), Some("j.zip".into()));
    recipe.tokenizer.path = Some("t.json".into());
    let recipe = recipe.anchored();
    let paths = [recipe.data.images, recipe.data.heldout_path, recipe.data.heldout_images, recipe.tokenizer.path];
    assert_eq!(
        paths.map(|path| path.unwrap().to_str().unwrap().to_string()),
        ["i", "h", "j.zip", "t.json"].map(absolute)
    );
    assert_eq!(recipe.pretrained.vision, Some(absolute("src")));
    assert_eq!(recipe.pretrained.decoder.as_deref(), Some("org/name"));
}

#[test]
fn fewer_samples_are_enough_to_say() {
    let eval = |set: &[&str]| parse(GOOD, set).map(|recipe| (recipe.eval.samples, recipe.eval.attention));
    for (samples, attention) in [(2, 2), (0, 0), (9, 4)] {
        assert_eq!(eval(&[&format!("eval.samples={samples}")]), Ok((samples, attention)));
    }
    let error = eval(&["eval.samples=2", "eval.attention=3"]).unwrap_err().to_string();
    assert!(error.contains("eval.attention: expected 0 to 2, found 3"), "{error}");
}

#[test]
fn every_key_that_is_listed_is_accepted_and_every_other_is_not() {
    let sections = keys::sections();
    assert!(sections.len() > 25, "{}", sections.len());
    for section in &sections {
        let listed = section.keys.iter().map(|key| key.name.as_str());
        let mut listed: Vec<&str> = listed.chain(section.tables.iter().map(String::as_str)).collect();
        assert!(section.keys.iter().all(|key| !key.about.is_empty()), "{section:?}");
        if section.path.ends_with("rope_scaling") {
            continue;
        }
        let place = section.path.replace("rules", "rules.0");
        let override_ = format!("{place}.zzz=1");
        let [vlm, dual] = keys::SMALLEST.map(String::from);
        // What these tables say where they are empty is something else than where they are not there.
        let towers = dual.clone() + "[dual.vision]\n[dual.text]\n";
        let kinds = vlm.clone() + "[phase2.questions_start]\n[phase2.questions_end]\n";
        let errors = [vlm, dual, towers, kinds].map(|text| {
            let error = Recipe::parse(&text, Path::new("r.toml"), std::slice::from_ref(&override_));
            error.expect_err(&override_).to_string()
        });
        let error = errors
            .iter()
            .find(|error| error.contains("unknown key `zzz`"))
            .unwrap_or_else(|| panic!("{}", errors.concat()));
        let (_, known) = error.rsplit_once("xpected one of ").expect(error);
        let mut known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known, "[{}]", section.path);
    }
}

#[test]
fn defaults_are_those_that_hold_and_needed_keys_are_needed() {
    let key = |place: &str| {
        let section = keys::sections_at(place).unwrap().remove(0);
        (section.keys.len(), section.keys[0].clone())
    };
    for (place, kind, default) in [
        ("run.name", "text", "needed"),
        ("phase2.steps", "whole number", "needed"),
        ("phase2.rules.match", "text", "needed"),
        ("contrast.weight_decay", "number", "0.05"),
        ("data.max_tokens", "whole number", "none"),
        ("data.templates", "list of texts", "none"),
        ("data.group_by_length", "true or false", "false"),
        ("phase2.independent_turns", "true or false", "depends"),
        ("tokenizer.kind", "\"words\", \"bpe\", \"file\", \"pretrained\"", "depends"),
        ("phase1.curve", "\"constant\", \"cosine\", \"linear\"", "\"cosine\""),
        ("dual.vision.class_token", "true or false", "false"),
        ("model.vision.class_token", "true or false", "false"),
        ("model.lora.decoder.r", "whole number", "8"),
        ("model.decoder.rope_scaling.rope_type", "\"linear\", \"llama3\"", "needed"),
    ] {
        let (count, found) = key(place);
        assert_eq!((count, found.kind.as_str(), found.default.as_str()), (1, kind, default), "{place}");
    }
    for needed in ["run.name", "data.source", "phase2.steps", "phase2.batch_size", "phase2.lr"] {
        let (_, name) = needed.rsplit_once('.').unwrap();
        let lines = GOOD.lines().filter(|line| !line.starts_with(&format!("{name} =")));
        let error = parse(&lines.collect::<Vec<_>>().join("\n"), &[]).unwrap_err().to_string();
        assert!(error.contains(&format!("key `{name}` is missing")) && key(needed).1.default == "needed", "{error}");
    }
    let error = keys::sections_at("phase3").unwrap_err().to_string();
    assert!(error.contains("`phase3` is no section or key of a recipe; did you mean `phase1`?"), "{error}");
    assert!(error.contains("`model.vision`"), "{error}");
}

#[test]
fn the_page_of_keys_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recipe.md");
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(page == keys::markdown(), "make it again: `lenslet recipe keys --markdown > docs/recipe.md`");
}
