//! Greedy decoding on the CPU, random weights in the shape of SmolLM2-135M; `benches/peers/decode.py` runs it in turn
//! with a peer.
//!
//! Prints a line per run: tokens per second in the prompt, then while decoding. The first run warms up and is not shown.

use engine::ops::{self, Attend};
use engine::{DType, Device, Element, Graph, ParamBuilder, Params, Result, Tensor};
use model::{Decoder, DecoderConfig, KvCache};
use std::time::Instant;

const VOCAB: usize = 49152;

fn config() -> DecoderConfig {
    DecoderConfig {
        hidden_size: 576,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        intermediate_size: 1536,
        rope_theta: 100_000.0,
        max_position_embeddings: 2048,
        ..DecoderConfig::default()
    }
}

struct Options {
    threads: usize,
    dtype: DType,
    prompt: usize,
    tokens: usize,
    runs: usize,
}

impl Options {
    /// From `--name value` pairs.
    fn read() -> Options {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            let pair = args.chunks_exact(2).find(|pair| pair[0].strip_prefix("--") == Some(name));
            pair.map(|pair| pair[1].as_str())
        };
        let number = |name: &str, default| value(name).map_or(default, |text| text.parse().expect("a number"));
        Options {
            threads: number("threads", 1),
            dtype: match value("dtype") {
                None | Some("f32") => DType::F32,
                Some("bf16") => DType::BF16,
                Some(other) => panic!("--dtype {other}: f32 or bf16"),
            },
            prompt: number("prompt", 16),
            tokens: number("tokens", 64),
            runs: number("runs", 3),
        }
    }
}

struct Session<'a> {
    params: &'a Params,
    decoder: &'a Decoder,
    cache: KvCache,
}

impl Session<'_> {
    /// The likeliest token behind `ids`, which follow those seen before.
    fn next(&mut self, ids: &[i32]) -> Result<i32> {
        let (g, device) = (Graph::inference(self.params), self.params.device());
        let (first, shape) = (self.cache.len() as i32, [1, ids.len()]);
        let positions: Vec<i32> = (first..first + ids.len() as i32).collect();
        let positions = Tensor::from_slice(device, &positions, shape)?;
        let x = self.decoder.embed(&g, &Tensor::from_slice(device, ids, shape)?)?;
        let states = self.decoder.step(&g, &x, &positions, &Attend::causal(), &mut self.cache)?;
        let last = ops::slice(&states, ids.len() - 1, 1)?;
        let logits = self.decoder.logits(&g, &last)?;
        Ok(match logits.dtype() {
            DType::BF16 => likeliest(logits.tensor().view().slice::<half::bf16>()),
            _ => likeliest(logits.tensor().view().slice::<f32>()),
        })
    }
}

fn likeliest<T: Element<Acc = f32>>(logits: &[T]) -> i32 {
    let (mut best, mut most) = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if logit.widen() > most {
            (best, most) = (id, logit.widen());
        }
    }
    best as i32
}

/// Reads the prompt, then decodes; the seconds of both.
fn run(params: &Params, decoder: &Decoder, options: &Options) -> Result<[f64; 2]> {
    let cache = decoder.cache(&Graph::inference(params), 1, options.prompt + options.tokens)?;
    let mut session = Session { params, decoder, cache };
    let prompt: Vec<i32> = (0..options.prompt).map(|i| (i * 7919 % VOCAB) as i32).collect();
    let start = Instant::now();
    let mut token = session.next(&prompt)?;
    let prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    for _ in 0..options.tokens {
        token = session.next(&[token])?;
    }
    Ok([prefill, start.elapsed().as_secs_f64()])
}

fn main() -> Result<()> {
    let options = Options::read();
    let mut builder = ParamBuilder::new();
    let decoder = Decoder::new(&mut builder, &config(), VOCAB, None)?;
    let params = builder.build(&Device::cpu(), options.dtype, 0)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads);
    pool.build().expect("a thread pool").install(|| {
        run(&params, &decoder, &options)?;
        for _ in 0..options.runs {
            let [prefill, decode] = run(&params, &decoder, &options)?;
            let (prompt, tokens) = (options.prompt as f64, options.tokens as f64);
            println!("{:.2} {:.2}", prompt / prefill, tokens / decode);
        }
        Ok(())
    })
}
