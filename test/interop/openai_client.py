"""Python's openai library against a server: URL -> one line of JSON."""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="secret", max_retries=0)
request = dict(model="fake", prompt="The ship", max_tokens=24, seed=7, logprobs=2)
whole = client.completions.create(**request)
streamed = "".join(
    choice.text for chunk in client.completions.create(**request, stream=True) for choice in chunk.choices
)
chat = dict(model="fake", messages=[{"role": "user", "content": "Hello"}], max_tokens=16, seed=3)
answer = client.chat.completions.create(**chat)
pieces = "".join(
    choice.delta.content or "" for chunk in client.chat.completions.create(**chat, stream=True) for choice in chunk.choices
)
try:
    client.models.retrieve("none")
    refused = None
except openai.NotFoundError as error:
    refused = error.code
try:
    openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="wrong", max_retries=0).models.list()
    unknown = None
except openai.AuthenticationError as error:
    unknown = error.status_code
print(
    json.dumps(
        dict(
            whole=whole.choices[0].text,
            streamed=streamed,
            answer=answer.choices[0].message.content,
            pieces=pieces,
            models=[model.id for model in client.models.list()],
            width=len(client.embeddings.create(model="fake", input="one").data[0].embedding),
            refused=refused,
            unknown=unknown,
        )
    )
)
