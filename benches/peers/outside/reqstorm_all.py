"""reqstorm's own way to fetch a list: URL REQUESTS IN_FLIGHT kept|dropped. It keeps all either way."""

import sys
from importlib.metadata import version

import reqstorm

if sys.argv[1] == "version":
    print(f"reqstorm {version('reqstorm')}, Python {sys.version.split()[0]}")
else:
    urls = [sys.argv[1]] * int(sys.argv[2])
    results = reqstorm.fetch_all_sync(urls, concurrency=int(sys.argv[3]))
    print(sum(result.status == 200 for result in results))
