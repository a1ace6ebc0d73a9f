"""Compares every sample of several blends and splits with Megatron-LM itself, on token files that Nautilus wrote.

Needs a checkout of NVIDIA/Megatron-LM with megatron/core/datasets/helpers.cpp built (`make` there), numpy and torch.

    node test/interop/megatronSamples.ts FOLDER > FOLDER/ours.json
    PYTHONPATH=CHECKOUT python test/interop/megatron_samples.py FOLDER
"""

import json
import sys
import warnings
from hashlib import sha256
from pathlib import Path

import numpy

warnings.filterwarnings("ignore")

from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

FOLDER = Path(sys.argv[1])
A, B, C = (str(FOLDER / name) for name in "abc")
BLENDS = {
    "single": ([A], None),
    "two": ([A, B], [0.7, 0.3]),
    "three": ([A, B, C], [70, 15, 15]),
    "unweighted": ([A, B, C], None),
}


class Tokenizer:
    eod = 0
    pad = -1
    vocab_size = 70_000
    unique_identifiers = {"class": "Tokenizer"}


def digests():
    for name, (prefixes, weights) in BLENDS.items():
        for size, counts in {"sized": (5000, 40, 7), "whole": (None, None, None)}.items():
            if weights is not None and size == "whole":
                continue
            config = GPTDatasetConfig(
                random_seed=99, sequence_length=64, blend=(prefixes, weights), split="90,6,4", tokenizer=Tokenizer(),
                path_to_cache=str(FOLDER / "cache" / f"{name}-{size}"), create_attention_mask=False,
                reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=False,
            )
            parts = BlendedMegatronDatasetBuilder(GPTDataset, counts, lambda: True, config).build()
            for part, dataset in zip(("train", "valid", "test"), parts):
                digest = sha256()
                for index in range(len(dataset)):
                    sample = dataset[index]
                    ids = numpy.append(sample["tokens"].numpy(), sample["labels"].numpy()[-1])
                    digest.update(ids.astype("<i4").tobytes())
                yield f"{name} {size} {part}", [len(dataset), digest.hexdigest()]


ours = json.loads((FOLDER / "ours.json").read_text())
theirs = dict(digests())
for key in sorted(ours.keys() | theirs.keys()):
    print("equal " if ours.get(key) == theirs.get(key) else "DIFFER", key, (ours.get(key) or [0])[0], "samples")
sys.exit(ours != theirs)
