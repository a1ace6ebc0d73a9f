"""The peers of bench/tune.ts, with a LoRA of peft on a random model of the Nemotron-3-8B shape, bf16, its layers compiled:
  dpo   TRL's DPOTrainer, the base with its adapter off as the reference, one pair a step, as `bench/tune.ts --rows 2 --only dpo` has
  lora  a plain step of next-token loss, `--rows` rows a step, as `bench/tune.ts --only lora` has
`--prompt` is what `bench/tune.ts --prompt` is: of `--length` tokens of each side of a pair, how many are the prompt, which both begin with. Rates are
of tokens of both sides. Of what TRL 1.16 has for this work, on is what pays: its chunked head over answers alone (always there). Not on: padding_free, which 1.16
switches off (and both sides are of one length); precompute_ref_log_probs, which takes the reference out of the timed steps, as our
objective.precomputeReference would; use_liger_kernel, deprecated there and of layers' kernels alone, which are compiled here;
activation_offloading, which saves memory alone. Nothing in it computes a pair's prompt once.
Prints a JSON line for each; where memory does not suffice, tries again with the layers recomputed.

usage: python bench/tune_peer.py [dpo] [lora] [--length 4096] [--prompt 1] [--rows 2] [--steps 5] [--eager] [--checkpointing] [--tiny] [--cpu]
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import NemotronConfig, NemotronForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("what", nargs="*", help="dpo, lora; both where nothing is said")
parser.add_argument("--length", type=int, default=4096, help="tokens of a row, and of each side of a pair")
parser.add_argument("--prompt", type=int, default=1, help="of them, tokens of a pair's prompt, which both sides begin with")
parser.add_argument("--rows", type=int, default=2, help="rows of a step of `lora`")
parser.add_argument("--steps", type=int, default=5, help="steps that are timed; three more come before")
parser.add_argument("--eager", action="store_true", help="layers as they are, not compiled")
parser.add_argument("--checkpointing", action="store_true", help="recompute layers from the start")
parser.add_argument("--tiny", action="store_true", help="a model that only tries the script")
parser.add_argument("--cpu", action="store_true")
options = parser.parse_args()
device = "cpu" if options.cpu else "cuda"
num_warm = 3


class EncodedDPOTrainer(DPOTrainer):
    """Takes rows that are tokens already."""

    def _prepare_dataset(self, dataset, *_args, **_kwargs):
        return dataset


def now():
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class StepTimes(TrainerCallback):
    def __init__(self):
        self.seconds = []
        self.start = 0.0

    def on_step_begin(self, *_args, **_kwargs):
        self.start = now()

    def on_step_end(self, *_args, **_kwargs):
        self.seconds.append(now() - self.start)


def adapter():
    return LoraConfig(
        r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
    )


def random_model():
    sizes = (
        dict(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
        if options.tiny
        else dict(vocab_size=256000, hidden_size=4096, intermediate_size=16384, num_hidden_layers=32, num_attention_heads=32)
    )
    config = NemotronConfig(
        **sizes,
        num_key_value_heads=sizes["num_attention_heads"],
        hidden_act="relu2",
        max_position_embeddings=options.length,
        norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = NemotronForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    if not options.eager:
        for layer in model.model.layers:
            layer.forward = torch.compile(layer.forward)
    return model


def figures_of(seconds, num_tokens, model):
    seconds = statistics.median(seconds[num_warm:])
    return dict(
        tokens_per_s=num_tokens / seconds,
        step_ms=1000 * seconds,
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    )


def random_pairs(vocab_size):
    torch.manual_seed(1)

    def ids(count):
        return torch.randint(3, vocab_size, (count,)).tolist()

    # What follows the prompt is scored.
    answer = options.length - options.prompt
    rows = [
        dict(prompt_ids=ids(options.prompt), chosen_ids=ids(answer), rejected_ids=ids(answer))
        for _ in range(options.steps + num_warm)
    ]
    return Dataset(pyarrow.Table.from_pylist(rows), fingerprint="random-pairs")


def dpo(checkpointing):
    model = random_model()
    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = EncodedDPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=folder,
                per_device_train_batch_size=1,
                max_steps=options.steps + num_warm,
                max_length=options.length,
                beta=0.1,
                learning_rate=1e-4,
                bf16=True,
                gradient_checkpointing=checkpointing,
                optim="adamw_torch_fused" if device == "cuda" else "adamw_torch",
                use_cpu=device == "cpu",
                remove_unused_columns=False,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=random_pairs(model.config.vocab_size),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
            ),
            peft_config=adapter(),
            callbacks=[times],
        )
        trainer.train()
    return figures_of(times.seconds, 2 * options.length, trainer.model)


def lora(checkpointing):
    model = get_peft_model(random_model(), adapter(), autocast_adapter_dtype=False)
    model.train()
    base = model.base_model.model
    if checkpointing:
        base.gradient_checkpointing_enable()
        base.enable_input_require_grads()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=device == "cuda"
    )
    ids = torch.randint(3, base.config.vocab_size, (options.rows, options.length), device=device)
    targets = ids[:, 1:].reshape(-1)
    seconds = []
    for _ in range(options.steps + num_warm):
        start = now()
        hidden = base.model(ids, use_cache=False).last_hidden_state[:, :-1]
        logits = base.lm_head(hidden.reshape(-1, hidden.shape[-1]))
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        del logits, hidden
        seconds.append(now() - start)
    return figures_of(seconds, options.rows * options.length, model)


def measured(step):
    """The step's figures; those with recomputed layers where memory does not suffice without."""
    for checkpointing in [True] if options.checkpointing else [False, True]:
        torch.manual_seed(0)
        try:
            return dict(checkpointing=checkpointing, **step(checkpointing))
        except torch.OutOfMemoryError as problem:
            error = str(problem)[:200]
        # The frames that held the model are gone with the exception.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return dict(checkpointing=True, error=error)


steps = dict(dpo=dpo, lora=lora)
for name in options.what or list(steps):
    rows = 2 if name == "dpo" else options.rows
    shape = dict(what=name, length=options.length, prompt=options.prompt if name == "dpo" else None, rows=rows, compiled=not options.eager)
    print(json.dumps(dict(**shape, **measured(steps[name]))), flush=True)
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
