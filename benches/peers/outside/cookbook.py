"""The OpenAI cookbook's parallel processor: SCRIPT SERVER REQUESTS_PER_MINUTE TOKENS_PER_MINUTE PROMPTS.

Two things differ from a run of the script itself. It accepts https URLs only, so its check of the URL is replaced. It
counts tokens with tiktoken, which downloads its vocabulary, so four characters count as a token, as at the server.
"""

import asyncio
import importlib.util
import json
import sys
import tempfile
import types
from pathlib import Path

script, server, requests, tokens, prompts = sys.argv[1:]
encoding = types.SimpleNamespace(encode=lambda text: text[::4])
sys.modules["tiktoken"] = types.SimpleNamespace(get_encoding=lambda name: encoding)
spec = importlib.util.spec_from_file_location("cookbook", script)
cookbook = importlib.util.module_from_spec(spec)
sys.modules["cookbook"] = cookbook
spec.loader.exec_module(cookbook)
cookbook.api_endpoint_from_url = lambda url: "completions"

with tempfile.TemporaryDirectory() as folder:
    saved = Path(folder) / "results.jsonl"
    asyncio.run(cookbook.process_api_requests_from_file(
        requests_filepath=prompts, save_filepath=str(saved), request_url=f"{server}/v1/completions", api_key="key",
        max_requests_per_minute=float(requests), max_tokens_per_minute=float(tokens),
        token_encoding_name="cl100k_base", max_attempts=5, logging_level=40))
    results = [json.loads(line) for line in saved.read_text().splitlines()]
print(sum(isinstance(result[1], dict) and "usage" in result[1] for result in results))
