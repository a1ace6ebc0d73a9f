"""The real clients of the inference protocol against a Nautilus server: tritonclient over HTTP and gRPC, PyTriton's ModelClient, and
NeMo's query classes. Arguments: HTTP address, gRPC address, the answer that the server's model gives. Prints what it found as JSON."""

import json
import sys

import numpy as np
import tritonclient.grpc as tgrpc
import tritonclient.http as thttp
from google.protobuf import descriptor_pb2
from pytriton.client import DecoupledModelClient, ModelClient
from tritonclient.utils import InferenceServerException

http_url, grpc_url, wanted = sys.argv[1:4]
model = "Nemotron-3-8B-4K"
prompts = np.array([["The meaning of life is"], ["Grüße"]], dtype=object)
encoded = np.char.encode(prompts.astype(str), "utf-8")
rows = lambda value, dtype: np.full((2, 1), value, dtype=dtype)
card = {
    "max_output_token": rows(200, np.int64),
    "top_k": rows(1, np.int64),
    "top_p": rows(0.0, np.float32),
    "temperature": rows(0.1, np.float32),
}
found = {}


def texts(array):
    return np.char.decode(array.astype("bytes"), "utf-8").tolist()


def triton(lib, client):
    names = {"int64": "INT64", "float32": "FP32"}
    inputs = [lib.InferInput("prompts", [2, 1], "BYTES")]
    inputs[0].set_data_from_numpy(prompts)
    for name, values in card.items():
        tensor = lib.InferInput(name, list(values.shape), names[values.dtype.name])
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    assert not client.is_model_ready("nobody") or lib is tgrpc
    client.get_server_metadata(), client.get_model_metadata(model), client.get_model_config(model)
    client.get_model_repository_index(), client.get_trace_settings(), client.get_log_settings()
    answer = client.infer(model, inputs, outputs=[lib.InferRequestedOutput("outputs")], request_id="9")
    plain = client.infer(model, inputs)
    assert plain.as_numpy("outputs").tolist() == answer.as_numpy("outputs").tolist()
    client.get_inference_statistics(model)
    try:
        client.infer("nobody", inputs)
        found[lib.__name__ + ".unknown"] = "answered"
    except InferenceServerException as error:
        found[lib.__name__ + ".unknown"] = [error.status(), error.message()]
    return [[text.decode() for text in row] for row in answer.as_numpy("outputs")]


with thttp.InferenceServerClient(http_url) as client:
    found["tritonclient.http"] = triton(thttp, client)
    tensor = thttp.InferInput("prompts", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([["x"]], dtype=object))
    answer = client.infer(
        model, [tensor], request_compression_algorithm="gzip", response_compression_algorithm="deflate"
    )
    found["compressed"] = answer.as_numpy("outputs")[0, 0].decode()

with tgrpc.InferenceServerClient(grpc_url) as client:
    found["tritonclient.grpc"] = triton(tgrpc, client)
    parts, done = [], []
    client.start_stream(lambda result, error: (parts if error is None else done).append(error or result))
    tensor = tgrpc.InferInput("prompts", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([["x"]], dtype=object))
    client.async_stream_infer(model, [tensor], enable_empty_final_response=True)
    client.stop_stream()
    assert not done, done
    finals = [p.get_response().parameters["triton_final_response"].bool_param for p in parts]
    found["stream"] = {
        "texts": [p.as_numpy("outputs")[0, 0].decode() for p in parts[:-1]],
        "final": finals,
        "outputs_of_last": len(parts[-1].get_response().outputs),
    }
    try:
        client.infer(model, [tensor], client_timeout=0.001)
        found["deadline"] = "answered"
    except InferenceServerException as error:
        found["deadline"] = error.status()

for scheme, url in (("http", http_url), ("grpc", grpc_url)):
    with ModelClient(f"{scheme}://{url}", model) as client:
        found[f"pytriton.{scheme}"] = texts(client.infer_batch(prompts=encoded, **card)["outputs"])
with DecoupledModelClient(f"grpc://{grpc_url}", model + ":streaming") as client:
    found["pytriton.decoupled"] = [texts(p["outputs"]) for p in client.infer_batch(prompts=encoded, **card)][-1]

# NeMo 2.2's helpers name a class of zarr 2 when they are imported; the query classes need nothing of it.
import zarr.storage

if not hasattr(zarr.storage, "BaseStore"):
    zarr.storage.BaseStore = object
from nemo.deploy.nlp import NemoQueryLLM, NemoQueryLLMPyTorch
from nemo_deploy.llm import NemoQueryLLM as NewQueryLLM
from nemo_deploy.llm import NemoQueryLLMHF, NemoQueryTRTLLMAPI, NemoQueryvLLM
from nemo_deploy.llm import NemoQueryLLMPyTorch as NewQueryPyTorch

asked = ["The meaning of life is", "Grüße"]
first = NemoQueryLLM(url=http_url, model_name=model)
found["NemoQueryLLM"] = first.query_llm(
    prompts=asked,
    max_output_len=50,
    top_k=1,
    top_p=0.0,
    temperature=0.1,
    random_seed=3,
    stop_words_list=["STOP", "never", "said"],
    end_strings=["<|endoftext|>"],
).tolist()
logits = first.query_llm(
    prompts=asked[:1], max_output_len=4, openai_format_response=True, output_generation_logits=True
)
found["generation_logits"] = list(logits["choices"][0]["generation_logits"].shape)
streaming = NemoQueryLLM(url=f"grpc://{grpc_url}", model_name=model + ":streaming")
found["NemoQueryLLM.streaming"] = [part.tolist() for part in streaming.query_llm_streaming(prompts=asked, max_output_len=50, stop_words_list=["STOP"])][-1]
found["NewQueryLLM"] = NewQueryLLM(url=http_url, model_name=model).query_llm(prompts=asked, max_output_len=50).tolist()
options = {"prompts": asked, "max_length": 50}
text_of = lambda answer: answer["choices"][0]["text"].tolist()
found["NemoQueryLLMPyTorch"] = text_of(NemoQueryLLMPyTorch(url=http_url, model_name=model).query_llm(**options, compute_logprob=True, end_strings=["STOP"]))
scored = NewQueryPyTorch(url=http_url, model_name=model).query_llm(**options, compute_logprob=True, n_top_logprobs=2)
found["NewQueryPyTorch"] = text_of(scored)
found["top_logprobs"] = [len(entry) for entry in scored["choices"][0]["logprobs"]["top_logprobs"]]
found["token_logprobs"] = list(scored["choices"][0]["logprobs"]["token_logprobs"].shape)
found["NemoQueryLLMHF"] = text_of(NemoQueryLLMHF(url=http_url, model_name=model).query_llm(**options))
found["NemoQueryTRTLLMAPI"] = NemoQueryTRTLLMAPI(url=http_url, model_name=model).query_llm(**options).tolist()
vllm = NemoQueryvLLM(url=http_url, model_name=model).query_llm(prompts=asked, max_tokens=50, n_log_probs=1, n_prompt_log_probs=1)
found["NemoQueryvLLM"] = text_of(vllm)
found["vllm.log_probs"] = len(json.loads(vllm["log_probs"][0][0]))

# The published descriptors, to compare our .proto with.
numbers = {}


def collect(prefix, message):
    numbers[prefix] = {f.name: f.number for f in message.field}
    for nested in message.nested_type:
        if not nested.options.map_entry:
            collect(f"{prefix}.{nested.name}", nested)


for file in (tgrpc.service_pb2.DESCRIPTOR, tgrpc.model_config_pb2.DESCRIPTOR):
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        collect(message.name, message)
found["numbers"] = numbers
print(json.dumps(found))
