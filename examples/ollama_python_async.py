"""The `ollama` package, asynchronous and streamed: a repeated question streams from the cache."""

import asyncio
import os

import ollama


async def main() -> None:
    client = ollama.AsyncClient(host=os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:11435"))
    question = [{"role": "user", "content": "Why is the sea salty?"}]
    async for part in await client.chat(model="llama3.2", messages=question, stream=True):
        print(part.message.content, end="", flush=True)
    print()


asyncio.run(main())
