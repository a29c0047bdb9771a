"""asyncio.gather over aiohttp, as its documentation shows: URL REQUESTS IN_FLIGHT kept|dropped."""

import asyncio
import sys

import aiohttp


async def get(session, url):
    async with session.get(url) as response:
        return response.status, response.headers, await response.read()


async def get_and_drop(session, url):
    status, _headers, _body = await get(session, url)
    return status


async def main(url, requests, in_flight, keep):
    connector = aiohttp.TCPConnector(limit=in_flight, limit_per_host=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:
        one = get if keep else get_and_drop
        answers = await asyncio.gather(*(one(session, url) for _ in range(requests)))
        statuses = (answer[0] if keep else answer for answer in answers)
        print(sum(status == 200 for status in statuses))


if sys.argv[1] == "version":
    print(f"aiohttp {aiohttp.__version__}, Python {sys.version.split()[0]}")
else:
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "kept"))
