use super::*;
use engine::{AdamW, DType, Device, Graph, Optimizer};
use model::{DecoderConfig, IGNORE, ImageAttention, ImagePositions, VisionConfig, Vlm};

const TEMPLATE: &str = "{% for message in messages %}{{ message.role }} {{ message.content }} \
    {% if message.role == 'assistant' %}<eos>{% endif %}{% endfor %}{% if add_generation_prompt %}assistant {% endif %}";

/// A tiny model that takes images within the text.
fn model() -> (Vlm, Params, Prepare) {
    let words = ["user", "assistant", "system", "what", "is", "it", "red", "blue", "and", "be", "brief"];
    let tokenizer = Tokenizer::word_level(words).unwrap().with_token("<image>").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), TEMPLATE).unwrap();
    let chat = Chat::with_images(folder.path(), &tokenizer, "<image>").unwrap();
    let config = VlmConfig {
        vision: VisionConfig {
            image_size: 8,
            patch_size: 4,
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 12,
            ..VisionConfig::default()
        },
        decoder: DecoderConfig {
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 64,
            image_attention: ImageAttention::Causal,
            image_positions: ImagePositions::Sequential,
            ..DecoderConfig::default()
        },
        vocab_size: tokenizer.vocab_size(),
        image_token: tokenizer.id("<image>"),
        ..VlmConfig::default()
    };
    let processor = ImageProcessor { size: 8, ..ImageProcessor::default() };
    let (vlm, params) = Vlm::build(&config, &Device::cpu(), DType::F32, 3).unwrap();
    (vlm, params, Prepare::new(tokenizer, processor, chat, &config))
}

fn talk(images: &[u8], turns: &[(&str, &str)]) -> Conversation {
    let picture = |shade: &u8| RgbImage::from_fn(8, 8, |x, y| image::Rgb([*shade, (30 * x) as u8, (20 * y) as u8]));
    Conversation {
        images: images.iter().map(picture).collect(),
        places: Vec::new(),
        system: None,
        turns: turns.iter().map(|(q, a)| (q.to_string(), a.to_string())).collect(),
    }
}

/// Conversations of one image, of two in two turns, of one that comes late, and with a system.
fn talks() -> Vec<Conversation> {
    let mut all = vec![
        talk(&[10], &[("what is it", "red")]),
        talk(&[200, 90], &[("<image> and <image> what is it", "blue and red"), ("and", "it is blue")]),
        talk(&[50], &[("be brief", "red"), ("<image> what", "it is red and blue")]),
        talk(&[120], &[("what", "blue")]),
    ];
    all[3].system = Some("be brief".into());
    all
}

/// The loss of conversations and all its gradients.
fn learn(conversations: &[Conversation], layout: Layout) -> (f64, Vec<f64>, TextBatch) {
    let (vlm, params, prepare) = model();
    let text = prepare.conversations(conversations, layout).unwrap();
    let mut optimizer = Optimizer::new(&params, AdamW::default()).unwrap();
    let graph = Graph::training(&params, 0);
    let pixels = prepare.pixels(conversations.iter().flat_map(|talk| &talk.images)).unwrap();
    let pixels = graph.input(prepare.tensor(&params, &pixels).unwrap());
    let loss = vlm.loss(&graph, &pixels, &text).unwrap().loss;
    graph.backward(&loss, optimizer.gradients()).unwrap();
    (loss.tensor().item().unwrap(), optimizer.gradients().tensor().unwrap().to_f64().unwrap(), text)
}

/// A conversation as a dry run shows it.
fn shown(prepare: &Prepare, talk: &Conversation) -> String {
    let (system, images) = (talk.system.as_deref(), talk.images.len());
    let lines = prepare.shown(system, &talk.turns, images, Layout::default());
    lines.unwrap().join("")
}

#[test]
fn packed_rows_give_the_losses_and_gradients_of_separate_ones() {
    for independent in [false, true] {
        let talks = match independent {
            false => talks(),
            // Independent turns are about one image.
            true => {
                vec![talk(&[10], &[("what is it", "red"), ("and", "blue")]), talk(&[90], &[("what", "it is blue")])]
            }
        };
        let layout = |packing| Layout { independent, packing };
        let (loss, gradients, separate) = learn(&talks, layout(false));
        let (packed_loss, packed_gradients, packed) = learn(&talks, layout(true));
        assert_eq!(separate.batch, talks.len());
        assert!(packed.batch < separate.batch && packed.tokens <= 64, "{} of {}", packed.batch, packed.tokens);
        let learned = |text: &TextBatch| text.targets.iter().filter(|target| **target != IGNORE).count();
        assert_eq!(learned(&separate), learned(&packed));
        assert!((loss - packed_loss).abs() < 1e-6 * loss, "{loss} {packed_loss}");
        let largest = gradients.iter().fold(0.0, |most: f64, g| most.max(g.abs()));
        assert!(largest > 1e-3, "there is something to learn: {largest}");
        for (a, b) in gradients.iter().zip(&packed_gradients) {
            assert!((a - b).abs() < 1e-5 * largest, "{a} {b}");
        }
    }
}

#[test]
fn each_image_of_a_packed_row_stands_at_its_own_mark() {
    let layout = Layout { packing: true, ..Layout::default() };
    let mut talks = talks();
    let (before, ..) = learn(&talks, layout);
    let [a, b] = [0, 1].map(|i| talks[1].images[i].clone());
    talks[1].images = vec![b, a];
    let (after, ..) = learn(&talks, layout);
    assert_ne!(before, after, "which of two images stands where is seen");
}

#[test]
fn conversations_are_laid_out_with_their_system_and_images_in_place() {
    let (.., prepare) = model();
    let talks = talks();
    let shown = |talk: &Conversation| shown(&prepare, talk);
    assert_eq!(shown(&talks[0]), "user <image> × 4 what is it assistant [red <eos>]");
    assert_eq!(
        shown(&talks[1]),
        "user <image> × 4 and <image> × 4 what is it assistant [blue and red <eos>] user and assistant [it is blue <eos>]"
    );
    assert_eq!(
        shown(&talks[2]),
        "user be brief assistant [red <eos>] user <image> × 4 what assistant [it is red and blue <eos>]"
    );
    assert_eq!(shown(&talks[3]), "system be brief user <image> × 4 what assistant [blue <eos>]");
}

#[test]
fn long_conversations_are_cut_but_not_within_an_image() {
    let (.., mut prepare) = model();
    let text = |prepare: &Prepare, talks: &[Conversation], independent| {
        let layout = Layout { independent, packing: false };
        prepare.conversations(talks, layout)
    };
    let talks = [talk(&[10], &[("what is it", "red and blue"), ("and", "blue")])];
    prepare.max_tokens = Some(10);
    let cut = text(&prepare, &talks, false).unwrap();
    let count = |batch: &TextBatch| batch.segments.iter().filter(|segment| **segment > 0).count();
    assert_eq!(count(&cut), 10);
    // Independent turns are kept as long as they are whole: user, 4 slots, 3 words, assistant, 3 words and the end.
    prepare.max_tokens = Some(14);
    let whole = text(&prepare, &talks, true).unwrap();
    assert_eq!((count(&whole), whole.images.len()), (13, 1));
    prepare.max_tokens = Some(4);
    let message = text(&prepare, &talks, false).unwrap_err().to_string();
    assert!(message.contains("data.max_tokens: 4 cuts through"), "{message}");
}

#[test]
fn a_model_with_images_in_front_of_texts_is_not_packed() {
    let tokenizer = Tokenizer::word_level(["what", "red", "brief"]).unwrap();
    let chat = Chat::own(&tokenizer).unwrap();
    let config = VlmConfig { vocab_size: tokenizer.vocab_size(), ..VlmConfig::default() };
    let prepare = Prepare::new(tokenizer, ImageProcessor::default(), chat, &config);
    let mut talk = talk(&[10], &[("what", "red")]);
    talk.system = Some("brief".into());
    let layout = Layout { packing: true, ..Layout::default() };
    let message = prepare.conversations(&[talk.clone()], layout).unwrap_err().to_string();
    assert!(message.starts_with("phase2.packing: this model"), "{message}");
    // Its layout has no place for a system: that goes in front of the question.
    let shown = shown(&prepare, &talk);
    assert!(shown.contains("brief what"), "{shown}");
}

#[test]
fn an_image_that_was_cropped_is_not_cropped_again() {
    let resize = Some(model::Resize::ShortestEdge(12));
    let processor = ImageProcessor {
        size: 8,
        fit: model::Fit::Steps(model::Steps { pad: None, resize, crop: Some([8, 8]) }),
        ..ImageProcessor::default()
    };
    processor.validate().unwrap();
    let image = RgbImage::from_fn(40, 20, |x, y| image::Rgb([x as u8 * 6, y as u8 * 12, 7]));
    let once = processor.square(&image).unwrap();
    assert_ne!(processor.square(&once).unwrap(), once, "another crop would show");
    let expected = once.as_raw().repeat(2);
    assert_eq!(pixels(&processor, [&image, &once]).unwrap(), expected);
}
