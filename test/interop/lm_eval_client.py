"""lm-evaluation-harness' local-completions: URL, tokenizer folder, JSON pairs -> log-likelihoods as one line of JSON."""

import json
import sys

from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI

url, tokenizer, pairs, text = sys.argv[1:]
model = LocalCompletionsAPI(
    base_url=url + "/v1/completions",
    model="fake",
    tokenizer=tokenizer,
    tokenizer_backend="huggingface",
    batch_size=3,
    max_length=512,
)
requests = [
    Instance(request_type="loglikelihood", doc={}, arguments=tuple(pair), idx=i)
    for i, pair in enumerate(json.loads(pairs))
]
scored = model.loglikelihood(requests)
until = Instance(
    request_type="generate_until", doc={}, arguments=(text, {"until": ["\n\n"], "max_gen_toks": 12}), idx=0
)
generated = model.generate_until([until])
encoded = [
    [model.tok_encode(context + continuation), len(model.tok_encode(context))]
    for context, continuation in json.loads(pairs)
]
print(json.dumps(dict(scored=scored, generated=generated, encoded=encoded)))
