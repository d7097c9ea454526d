//! Greedy decoding with candle's Llama on the CPU, random weights in the shape of SmolLM2-135M. Takes and prints what
//! `benches/src/bin/decode.rs` does.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use candle_transformers::models::llama::{Cache, Config, Llama};
use std::time::Instant;

const CONFIG: Config = Config {
    hidden_size: 576,
    intermediate_size: 1536,
    vocab_size: 49152,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    use_flash_attn: false,
    rms_norm_eps: 1e-5,
    rope_theta: 100_000.0,
    bos_token_id: None,
    eos_token_id: None,
    rope_scaling: None,
    max_position_embeddings: 2048,
    tie_word_embeddings: true,
};

struct Options {
    threads: String,
    dtype: DType,
    prompt: u32,
    tokens: usize,
    runs: usize,
}

impl Options {
    /// From `--name value` pairs.
    fn read() -> Options {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str, default: &str| {
            let pair = args
                .chunks_exact(2)
                .find(|pair| pair[0].strip_prefix("--") == Some(name));
            pair.map_or(default, |pair| &pair[1]).to_owned()
        };
        let number = |name: &str, default| value(name, default).parse().expect("a number");
        Options {
            threads: value("threads", "1"),
            dtype: value("dtype", "f32").parse().expect("f32, f16 or bf16"),
            prompt: number("prompt", "16") as u32,
            tokens: number("tokens", "64"),
            runs: number("runs", "3"),
        }
    }
}

/// Reads the prompt, then decodes; the seconds of both.
fn run(model: &Llama, options: &Options) -> Result<[f64; 2]> {
    let device = Device::Cpu;
    let mut cache = Cache::new(true, options.dtype, &CONFIG, &device)?;
    let prompt: Vec<u32> = (0..options.prompt)
        .map(|i| i * 7919 % CONFIG.vocab_size as u32)
        .collect();
    let start = Instant::now();
    let logits = model.forward(&Tensor::new(&prompt[..], &device)?.unsqueeze(0)?, 0, &mut cache)?;
    let mut token = likeliest(&logits)?;
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for place in prompt.len()..prompt.len() + options.tokens {
        let input = Tensor::new(&[token], &device)?.unsqueeze(0)?;
        token = likeliest(&model.forward(&input, place, &mut cache)?)?;
    }
    Ok([prefill, start.elapsed().as_secs_f64()])
}

fn likeliest(logits: &Tensor) -> Result<u32> {
    logits.squeeze(0)?.argmax(D::Minus1)?.to_scalar()
}

fn main() -> Result<()> {
    let options = Options::read();
    // SAFETY: no other thread has been started that could read the environment.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", &options.threads) }
    let weights = VarMap::new();
    let builder = VarBuilder::from_varmap(&weights, options.dtype, &Device::Cpu);
    let model = Llama::load(builder, &CONFIG)?;
    run(&model, &options)?;
    for _ in 0..options.runs {
        let [prefill, decode] = run(&model, &options)?;
        println!(
            "{:.2} {:.2}",
            f64::from(options.prompt) / prefill,
            options.tokens as f64 / decode
        );
    }
    Ok(())
}
