"""LlamaIndex: `base_url` changes (it does not read OLLAMA_HOST)."""

import os

from llama_index.llms.ollama import Ollama

model = Ollama(model="llama3.2", base_url=os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:11435"))
print(model.complete("Why is snow white?"))
