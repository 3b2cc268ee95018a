"""The `ollama` package: one argument changes."""

import os

import ollama

client = ollama.Client(host=os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:11435"))
question = [{"role": "user", "content": "Why is the sky blue?"}]

reply = client.chat(model="llama3.2", messages=question)
print(reply.message.content)

# This client cannot send headers with a single call; what it asks of the cache goes into the options.
fresh = client.chat(model="llama3.2", messages=question, options={"cache": {"no-cache": True}})
print(fresh.message.content)
