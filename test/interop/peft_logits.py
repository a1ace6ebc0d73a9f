"""Logits of a model with each of several adapters, as Python's peft loads and computes them.

usage: python peft_logits.py BASE TOKENS ADAPTER...   (TOKENS: rows of ids as JSON; prints a JSON list of flat logits, one for each adapter)
"""
import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

base, tokens, *adapters = sys.argv[1:]
ids = torch.tensor(json.loads(tokens))
logits = []
for adapter in adapters:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        result = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    logits.append(result[:, -ids.shape[1]:].flatten().tolist())
print(json.dumps(logits))
