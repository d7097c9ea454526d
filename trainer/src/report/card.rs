//! The model card: `README.md` in Hugging Face's form, with what a model is made of, how it was trained and what it can do.

use crate::dual::DualSession;
use crate::eval::{Figures, table};
use crate::recipe::Recipe;
use crate::session::{Dataset, Session};
use model::DualKind;
use model::hf::Format;

/// The card of a session's model, with the figures it was measured at.
pub fn card(session: &Session, figures: &Figures) -> String {
    let (recipe, format) = (&session.recipe, model::hf::format(&session.vlm.config));
    let (all, trained) = session.params.count();
    format!(
        "{front}\n# {name}\n\nA vision-language model of {all} parameters, {trained} of them trained by Lenslet.\n\n\
         {usage}\n## Data\n\n{data}\n\n## Evaluation\n\n```\n{figures}\n```\n\n## Recipe\n\n```toml\n{toml}```\n",
        front = front(recipe, &format),
        name = recipe.run.name,
        usage = usage(recipe, &format),
        data = data(recipe, &session.data),
        figures = table::text(figures),
        toml = recipe.to_toml(),
    )
}

/// The card of a dual encoder.
pub fn of_dual(session: &DualSession, figures: &Figures) -> String {
    let class = match session.model.config.kind {
        DualKind::Clip => "CLIPModel",
        DualKind::Siglip => "SiglipModel",
    };
    format!(
        "---\nlibrary_name: transformers\npipeline_tag: zero-shot-image-classification\ntags:\n- lenslet\n---\n\n\
         # {name}\n\nA dual encoder of {all} parameters, trained by Lenslet.\n\n\
         ```python\nfrom transformers import AutoProcessor, {class}\nmodel = {class}.from_pretrained(\"DIR\")\n```\n\n\
         ## Data\n\n{data}\n\n## Evaluation\n\n```\n{figures}\n```\n\n## Recipe\n\n```toml\n{toml}```\n",
        name = session.recipe.run.name,
        all = session.params.count().0,
        data = data(&session.recipe, &session.data),
        figures = table::text(figures),
        toml = session.recipe.to_toml(),
    )
}

/// The table that the hub reads.
fn front(recipe: &Recipe, format: &Format) -> String {
    let library = match format {
        Format::Transformers(_) => "transformers",
        Format::Own(_) => "lenslet",
    };
    let parts = &recipe.pretrained;
    let named = [&parts.model, &parts.vision, &parts.qformer, &parts.decoder].into_iter().flatten();
    // Folders of one machine mean nothing on another.
    let bases: Vec<&String> = named.filter(|name| !std::path::Path::new(name).exists()).collect();
    let bases = match bases.is_empty() {
        true => String::new(),
        false => bases.iter().fold("base_model:\n".into(), |list, name| format!("{list}- {name}\n")),
    };
    format!("---\nlibrary_name: {library}\npipeline_tag: image-text-to-text\n{bases}tags:\n- lenslet\n---\n")
}

fn usage(recipe: &Recipe, format: &Format) -> String {
    let ask = "lenslet chat --model DIR --image FILE";
    let adapter = match recipe.model.lora.decoder {
        Some(_) if recipe.pretrained.text().is_some() => {
            "\nThe low-rank adapters are folded in here; by themselves they are in `adapter/`, for `peft`.\n"
        }
        _ => "",
    };
    match format {
        Format::Transformers(class) => format!(
            "```python\nfrom transformers import AutoProcessor, {class}\n\
             model = {class}.from_pretrained(\"DIR\")\nprocessor = AutoProcessor.from_pretrained(\"DIR\")\n```\n\n\
             or `{ask}`.\n{adapter}"
        ),
        Format::Own(why) => format!("`{ask}`; other libraries have no class for it ({why}).\n{adapter}"),
    }
}

fn data(recipe: &Recipe, set: &Dataset) -> String {
    let data = &recipe.data;
    match set {
        Dataset::Corpus { train, heldout } => {
            let path = data.path.as_ref().map_or(String::new(), |path| path.display().to_string());
            let heldout = heldout.as_ref().map_or("nothing".into(), |corpus| corpus.summary());
            format!("`{path}`: {}. Held out: {heldout}.", train.corpus.summary())
        }
        Dataset::Scenes(_) => "Scenes of coloured shapes, drawn from the run's seed; evaluated on others.".into(),
    }
}
