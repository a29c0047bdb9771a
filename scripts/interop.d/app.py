"""What no configuration of a web server can do: an ASGI application, served by hypercorn and behind the other servers.

Without /app/ it also has what the other servers have as files.
"""

import asyncio
import base64
import hashlib
import os
import re
import zlib
from urllib.parse import parse_qs

ROOT = os.path.join(os.environ["STATE"], "root")
CREDENTIALS = "Basic " + base64.b64encode(b"user:pass").decode()
REDIRECTS = {301: "/small.txt", 302: "/small.txt", 303: "/small.txt", 307: "/app/echo", 308: "/app/echo"}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    # Of each connection its own, where the server is asked directly.
    own = [(b"x-connection", str(scope["client"][1]).encode())]

    async def answer(status, body=b"", *more):
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": own + length + list(more)})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def pieces(bodies, *more):
        await send({"type": "http.response.start", "status": 200, "headers": own + list(more)})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    path = scope["path"]
    if path == "/app/echo":
        return await answer(200, await whole_body(receive), (b"x-method", scope["method"].encode()))
    if path == "/app/chunked":
        with open(os.path.join(ROOT, "1m.txt"), "rb") as opened:
            return await pieces(iter(lambda: opened.read(9999), b""), (b"content-type", b"application/octet-stream"))
    if path == "/app/slow":
        await asyncio.sleep(float(parse_qs(scope["query_string"].decode())["seconds"][0]))
        return await answer(200, b"at last\n")
    if path == "/app/large-header":
        return await answer(200, b"", (b"x-large", b"x" * 8000))
    if path == "/app/header-length":
        return await answer(200, str(len(headers.get("x-large", ""))).encode())
    if path == "/app/unwell":
        return await answer(500, b"unwell, and says why\n")
    if path.startswith("/30") and (status := int(path[1:])) in REDIRECTS:
        return await answer(status, b"", (b"location", REDIRECTS[status].encode()))
    if path.startswith("/auth/") and headers.get("authorization") != CREDENTIALS:
        return await answer(401, b"who are you?\n", (b"www-authenticate", b'Basic realm="interop"'))
    return await file(path, headers, answer, pieces)


async def file(path, headers, answer, pieces):
    name = os.path.join(ROOT, os.path.basename(path))
    if not os.path.isfile(name):
        return await answer(404, b"not found, and says so\n")
    with open(name, "rb") as opened:
        body = opened.read()
    tag = b'"%s"' % hashlib.sha256(body).hexdigest().encode()
    if headers.get("if-none-match") == tag.decode():
        return await answer(304, b"", (b"etag", tag))
    if part := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
        first, last = int(part[1]), min(int(part[2] or len(body)), len(body) - 1)
        if first >= len(body):
            return await answer(416, b"", (b"content-range", b"bytes */%d" % len(body)))
        return await answer(206, body[first : last + 1], (b"content-range", b"bytes %d-%d/%d" % (first, last, len(body))))
    accepted = headers.get("accept-encoding", "")
    if "gzip" in accepted or "deflate" in accepted:
        coding, bits = ("gzip", 31) if "gzip" in accepted else ("deflate", 15)
        coder = zlib.compressobj(1, wbits=bits)
        coded = [coder.compress(body), coder.flush()]
        return await pieces(coded, (b"content-encoding", coding.encode()))
    await answer(200, body, (b"etag", tag))


async def whole_body(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def lifespan(receive, send):
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
