"""The peer of bench/tune.ts for DPO: TRL's DPOTrainer with a LoRA of peft on a random model of the Nemotron-3-8B shape, bf16, the base
with its adapter off as the reference. One pair a step, as `bench/tune.ts --rows 2 --only dpo` has. Prints one JSON line.

usage: python bench/tune_peer.py [--length 4096] [--steps 6] [--checkpointing] [--tiny] [--cpu]
"""

import argparse
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
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import NemotronConfig, NemotronForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--length", type=int, default=4096, help="tokens of each side of a pair")
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--checkpointing", action="store_true")
parser.add_argument("--tiny", action="store_true", help="a model that only tries the script")
parser.add_argument("--cpu", action="store_true")
options = parser.parse_args()
device = "cpu" if options.cpu else "cuda"
num_warm = 2


class EncodedDPOTrainer(DPOTrainer):
    """Takes rows that are tokens already."""

    def _prepare_dataset(self, dataset, *_args, **_kwargs):
        return dataset


class StepTimes(TrainerCallback):
    def __init__(self):
        self.seconds = []
        self.start = 0.0

    def now(self):
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, *_args, **_kwargs):
        self.start = self.now()

    def on_step_end(self, *_args, **_kwargs):
        self.seconds.append(self.now() - self.start)


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
    return model


def random_pairs(vocab_size):
    torch.manual_seed(1)

    def ids(count):
        return torch.randint(3, vocab_size, (count,)).tolist()

    # The first token is the prompt: every other is scored.
    rows = [
        dict(prompt_ids=ids(1), chosen_ids=ids(options.length - 1), rejected_ids=ids(options.length - 1))
        for _ in range(options.steps)
    ]
    return Dataset(pyarrow.Table.from_pylist(rows), fingerprint="random-pairs")


def measure():
    torch.manual_seed(0)
    model = random_model()
    words = Tokenizer(WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        trainer = EncodedDPOTrainer(
            model=model,
            args=DPOConfig(
                output_dir=folder,
                per_device_train_batch_size=1,
                max_steps=options.steps,
                max_length=options.length,
                beta=0.1,
                learning_rate=1e-4,
                bf16=True,
                gradient_checkpointing=options.checkpointing,
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
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
            ),
            callbacks=[times],
        )
        trainer.train()
    seconds = statistics.median(times.seconds[num_warm:])
    return dict(
        tokens_per_s=2 * options.length / seconds,
        step_ms=1000 * seconds,
        trained=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
    )


try:
    figures = measure()
except torch.OutOfMemoryError as error:
    figures = dict(error=str(error)[:200])
print(
    json.dumps(dict(what="dpo", length=options.length, checkpointing=options.checkpointing, **figures)), flush=True
)
