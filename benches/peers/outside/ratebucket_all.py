"""ratebucket's client for OpenAI's API, as its README shows: SERVER REQUESTS_PER_MINUTE TOKENS_PER_MINUTE PROMPTS."""

import asyncio
import json
import random
import sys
from importlib.metadata import version

import httpx
from ratebucket import Gate, MultiResourceLimiter, RealClock, RetryPolicy, TokenBucket
from ratebucket.adapters.openai_compat import OpenAICompatClient


async def main(server, requests, tokens, prompts):
    clock = RealClock()
    buckets = {"requests": TokenBucket.per_minute(requests, clock), "tokens": TokenBucket.per_minute(tokens, clock)}
    limiter = MultiResourceLimiter(buckets, clock)
    limiter.start()
    async with httpx.AsyncClient(base_url=server, timeout=httpx.Timeout(60.0, connect=5.0)) as http:
        client = OpenAICompatClient(http, limiter, Gate(clock), RetryPolicy(clock, random.Random()), clock, model="any",
                                    endpoint="/v1/completions")
        answers = await asyncio.gather(*(
            client.complete([{"role": "user", "content": each["prompt"]}], **each) for each in prompts),
            return_exceptions=True)
    await limiter.aclose()
    print(sum(isinstance(answer, dict) for answer in answers))


if sys.argv[1] == "version":
    print(version("ratebucket"))
else:
    with open(sys.argv[4]) as file:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), [json.loads(line) for line in file]))
