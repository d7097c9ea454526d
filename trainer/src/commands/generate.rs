//! `lenslet generate`: have a model answer once.

use super::assistant::{Assistant, say};
use crate::cli::GenerateArgs;
use crate::compute;
use anyhow::Result;
use engine::Device;
use model::{Generator, Message, Part, Prompt, Request, Role};

pub(super) fn run(args: &GenerateArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    compute::with_threads(args.compute.threads, || answer(args, &device))
}

fn answer(args: &GenerateArgs, device: &Device) -> Result<()> {
    let assistant = Assistant::open(&args.model, device, args.dtype)?;
    let mut generator = assistant.generator();
    for file in &args.image {
        generator.see(&assistant.pixels(file)?)?;
    }
    let prompt = Prompt {
        ids: match args.raw {
            true => raw(args, &assistant, &generator)?,
            false => assistant.chat()?.prompt(&assistant.tokenizer, &messages(args))?,
        },
        images: (0..args.image.len()).collect(),
    };
    let settings = assistant.settings(&args.answer, &generator, &prompt)?;
    say(|listener| {
        let answers = generator.run(&[Request { prompt, settings }], listener)?;
        Ok(answers.into_iter().next().unwrap_or_default())
    })?;
    Ok(())
}

/// The images, then the text just as it is.
fn raw(args: &GenerateArgs, assistant: &Assistant, generator: &Generator<'_>) -> Result<Vec<u32>> {
    let image_tokens = generator
        .image_token()
        .into_iter()
        .flat_map(|id| vec![id; args.image.len()]);
    let text = assistant.tokenizer.tokenize(&args.prompt, true)?;
    Ok(image_tokens.chain(text).collect())
}

fn messages(args: &GenerateArgs) -> Vec<Message> {
    let system = args.system.iter().map(|text| Message::text(Role::System, text));
    let mut content = vec![Part::Image; args.image.len()];
    content.push(Part::Text(args.prompt.clone()));
    let question = Message {
        role: Role::User,
        content,
    };
    system.chain([question]).collect()
}
