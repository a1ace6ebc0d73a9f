"""The PyTorch side of bench/curve.ts: the same weights, batches and schedule through transformers and torch.optim.AdamW.

usage: python bench/curve_peer.py OUT    (the folder that bench/curve.ts wrote)
float32 weights under bf16 autocast, as PyTorch users train; prints how far the two loss curves lie apart and writes OUT/torch.json.
"""
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import NemotronForCausalLM

out = Path(sys.argv[1])
device = "cuda" if torch.cuda.is_available() else "cpu"
run = json.loads((out / "nautilus.json").read_text())
steps, sequences, length = run["steps"], run["numSequences"], run["sequenceLength"]
batches = np.fromfile(out / "batches.i32", dtype=np.int32).reshape(len(steps), sequences, length + 1)
model = NemotronForCausalLM.from_pretrained(out / "model", dtype=torch.float32, attn_implementation="sdpa").to(device).train()
decayed = [p for p in model.parameters() if p.dim() == 2]
plain = [p for p in model.parameters() if p.dim() != 2]
optimizer = torch.optim.AdamW(
    [{"params": decayed, "weight_decay": run["weightDecay"]}, {"params": plain, "weight_decay": 0.0}],
    lr=1e-3, betas=tuple(run["betas"]), eps=run["eps"], fused=device == "cuda")
micro = 16
losses, start = [], time.perf_counter()
for index, step in enumerate(steps):
    for group in optimizer.param_groups:
        group["lr"] = step["learningRate"]
    total = 0.0
    for begin in range(0, sequences, micro):
        ids = torch.from_numpy(batches[index, begin:begin + micro].astype(np.int64)).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = model(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()) * (ids.shape[0] / sequences)
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.parameters(), run["clip"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(float(total))
seconds = time.perf_counter() - start
(out / "torch.json").write_text(json.dumps({"losses": losses, "tokensPerSecond": len(steps) * sequences * length / seconds}))
apart = np.abs(np.array(losses) - np.array([step["loss"] for step in steps]))
print(json.dumps({
    "steps": len(steps), "torch_first": losses[0], "torch_last": losses[-1], "nautilus_last": steps[-1]["loss"],
    "mean_apart": float(apart.mean()), "largest_apart": float(apart.max()), "torch_tokens_per_s": len(steps) * sequences * length / seconds,
    "nautilus_tokens_per_s": float(np.median([step["tokensPerSecond"] for step in steps]))}))
