//! `lenslet generate`: have a model answer once.

use super::assistant::{Assistant, say};
use crate::cli::GenerateArgs;
use crate::compute;
use crate::data::formats::place_images;
use crate::data::{Conversation, question};
use anyhow::{Result, anyhow};
use engine::Device;
use model::{Generator, Message, Prompt, Request, Role};

pub(super) fn run(args: &GenerateArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    compute::with_threads(args.compute.threads, || answer(args, &device))
}

fn answer(args: &GenerateArgs, device: &Device) -> Result<()> {
    let assistant = Assistant::open(&args.model, device, args.dtype)?;
    assistant.takes_images(args.image.len())?;
    assistant.hint(args.system.iter().chain([&args.prompt]).map(String::as_str))?;
    let mut generator = assistant.generator();
    for file in &args.image {
        generator.see(&assistant.pixels(file)?)?;
    }
    let prompt = Prompt {
        ids: match args.raw {
            true => raw(args, &assistant, &generator)?,
            false => assistant.chat()?.prompt(&assistant.tokenizer, &messages(args)?)?,
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
    let image_tokens = generator.image_token().into_iter().flat_map(|id| vec![id; args.image.len()]);
    let text = assistant.tokenizer.tokenize(&args.prompt, true)?;
    Ok(image_tokens.chain(text).collect())
}

/// The system's text and the question, with the images where training had them: at their marks, or in front.
fn messages(args: &GenerateArgs) -> Result<Vec<Message>> {
    if args.image.is_empty() {
        let system = args.system.iter().map(|text| Message::text(Role::System, text));
        return Ok(system.chain([Message::text(Role::User, &args.prompt)]).collect());
    }
    let placed = place_images(&args.prompt, args.image.len()).map_err(|why| anyhow!("--prompt: {why}"))?;
    let talk =
        Conversation { system: args.system.clone(), ..Conversation::about(Vec::new(), vec![(placed, String::new())]) };
    Ok(question(&talk, 0, true))
}
