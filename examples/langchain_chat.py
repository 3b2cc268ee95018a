"""LangChain: `base_url` changes."""

import os

from langchain_ollama import ChatOllama

chat = ChatOllama(model="llama3.2", base_url=os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:11435"))
print(chat.invoke("Why is grass green?").content)
