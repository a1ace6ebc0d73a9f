"""What transformers makes of a model folder and some prompts: ids, float32 logits of each place, and the greedy continuation.

usage: python generate.py MODEL PROMPTS COUNT   (PROMPTS: a JSON list of texts; prints a JSON list of {ids, logits, greedy}, logits flat)
"""
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, prompts, count = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
answers = []
for prompt in json.loads(prompts):
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[0]
        output = model.generate(**inputs, max_new_tokens=int(count), do_sample=False)[0]
    numPrompt = inputs.input_ids.shape[1]
    answers.append({
        "ids": output[:numPrompt].tolist(),
        "logits": logits.flatten().tolist(),
        "greedy": output[numPrompt:].tolist(),
    })
print(json.dumps(answers))
