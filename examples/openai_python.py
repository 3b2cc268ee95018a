"""The `openai` package: one argument changes."""

import os

import openai

client = openai.OpenAI(base_url=os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:11435") + "/v1", api_key="any")
question = [{"role": "user", "content": "Why is the sea salt?"}]

reply = client.chat.completions.create(model="llama3.2", messages=question)
print(reply.choices[0].message.content)

# What a single call asks of the cache goes into its body, and how the reply came about stands in its headers.
raw = client.chat.completions.with_raw_response.create(
    model="llama3.2", messages=question, extra_body={"cache": {"max-age": 3600}}
)
print(raw.parse().choices[0].message.content)
