#!/usr/bin/env python3
"""Folders that Lenslet writes, loaded by the tools they are for: the same logits.

    pip install torch==2.5.1 transformers==4.57.6 safetensors==0.8.0 peft==0.21.2
    python3 tests/round_trip.py

Trains every case of tests/fixtures/parity two steps by the example `round_trip`, loads what it wrote with `transformers`
(and, for adapters, `peft`), and compares. No weight may be missing, left over or of another shape.
"""

import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers as tf
from peft import PeftModel
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parent
CASES = ROOT / "fixtures" / "parity"
# Sums of f32 in another order.
TOLERANCE = 1e-4


def load(folder, cls=None):
    """The model, by the class its configuration names; complains of anything that does not fit."""
    cls = cls or getattr(tf, tf.AutoConfig.from_pretrained(folder).architectures[0])
    model, report = cls.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True, trust_remote_code=False
    )
    wrong = {key: value for key, value in report.items() if value}
    assert not wrong, f"{folder}: {wrong}"
    return model.eval()


def outputs(model, computed):
    """What the reference computes from the same input, under the names Lenslet gives it."""
    inputs = {"input_ids": computed["input_ids"].long()}
    if "pixel_values" in computed:
        inputs["pixel_values"] = computed["pixel_values"]
    if "lengths" in computed:
        tokens = inputs["input_ids"].shape[1]
        inputs["attention_mask"] = (torch.arange(tokens) < computed["lengths"].long()[:, None]).long()
        out = model(**inputs, use_image_text_matching_head=True)
        return {"itm_logits": out.logits_per_image}
    out = model(**inputs)
    names = ["logits", "logits_per_image", "image_embeds", "text_embeds"]
    return {name: getattr(out, name) for name in names if getattr(out, name, None) is not None}


def compare(what, model, folder, same=True):
    computed = load_file(folder / "computed.safetensors")
    with torch.no_grad():
        found = outputs(model, computed)
    for name, expected in found.items():
        ours = computed[name].float()
        off = ((ours - expected).norm() / expected.norm()).item()
        assert (off <= TOLERANCE) == same, f"{what}: {name} is {off:.1e} off"
        print(f"{what:32} {name:18} {off:.1e} off")


def decoder_of(case):
    """The language model of a LLaVA by itself, as it was before adapters."""
    whole = load(case)
    decoder = tf.LlamaForCausalLM(whole.config.text_config)
    decoder.model.load_state_dict(whole.model.language_model.state_dict())
    decoder.lm_head.load_state_dict(whole.lm_head.state_dict())
    return decoder.eval()


def main():
    with tempfile.TemporaryDirectory() as out:
        out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else out)
        command = ["cargo", "run", "--release", "--locked", "-q", "-p", "lenslet-tests", "--example", "round_trip", "--", out]
        subprocess.run(command, check=True, cwd=ROOT.parent)
        for case in sorted(CASES.iterdir()):
            compare(case.name, load(out / case.name), out / case.name)
        lora = out / "llava-lora"
        compare("llava without its adapter", load(CASES / "llava"), lora, same=False)
        compare("llava + adapter by PEFT", PeftModel.from_pretrained(load(CASES / "llava"), lora / "adapter"), lora)
        compare("llava, adapter folded in", load(lora / "merged"), lora)
        lora = out / "llava-siglip-lora"
        decoder = PeftModel.from_pretrained(decoder_of(CASES / "llava-siglip"), lora / "adapter")
        compare("its decoder + adapter by PEFT", decoder, lora)
        compare("its decoder, adapter folded in", decoder_of(lora / "merged"), lora)
    print("every folder gives the same")


if __name__ == "__main__":
    main()
