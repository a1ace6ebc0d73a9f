"""How low the loss on a set of answers can get while a model's final norm and head stay as they are, whatever the blocks before them give.

usage: python bench/head_floor.py MODEL DATA TOKENIZER   (a Hugging Face folder, JSON lines with "output", tokenizer.json; needs torch, tokenizers)
For each distinct token of the answers the best input of the final norm is searched by gradient; the losses are weighted by how often it occurs.
An adapter of the blocks, and virtual tokens, can only choose that input: this is a bound for all of them.
"""
import collections
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

folder, data, tokenizer_path = map(Path, sys.argv[1:])
weights = {}
for path in sorted(folder.glob("*.safetensors")):
    weights |= load_file(path)
weights = {name: tensor.float() for name, tensor in weights.items()}
head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
config = json.loads((folder / "config.json").read_text())
if config["model_type"] != "nemotron":
    sys.exit(f"expected a nemotron model (layer norm with gains stored minus one), got {config['model_type']}")
gain, bias = weights["model.norm.weight"] + 1, weights["model.norm.bias"]

tokenizer = Tokenizer.from_file(str(tokenizer_path))
counts = collections.Counter()
for line in data.read_text().splitlines():
    counts.update(tokenizer.encode(" " + json.loads(line)["output"]).ids)
ids = torch.tensor(sorted(counts))
shares = torch.tensor([float(counts[int(i)]) for i in ids])
shares /= shares.sum()

inputs = (10 * head[ids]).requires_grad_(True)
optimizer = torch.optim.Adam([inputs], lr=0.05)
for _ in range(400):
    hidden = torch.nn.functional.layer_norm(inputs, (head.shape[1],)) * gain + bias
    losses = torch.nn.functional.cross_entropy(hidden @ head.T, ids, reduction="none")
    optimizer.zero_grad()
    losses.sum().backward()
    optimizer.step()
losses = losses.detach()
print(f"head {tuple(head.shape)}, median row norm {head.norm(dim=1).median():.3f}, mean gain {gain.mean():.3f}")
print(f"{len(ids)} distinct tokens; lowest mean loss {(losses * shares).sum():.3f}, of the worst token {losses.max():.3f}")
