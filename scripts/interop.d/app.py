"""An ASGI application for responses that a web server's configuration cannot produce.

Hypercorn serves it directly. The other servers forward /app/ to it. Outside /app/ it serves the
same files as the other servers.
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
    # The client's port identifies the connection when hypercorn serves the request directly.
    connection_header = [(b"x-connection", str(scope["client"][1]).encode())]

    async def respond(status, body=b"", *more):
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": connection_header + length + list(more)})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def stream(chunks, *more):
        await send({"type": "http.response.start", "status": 200, "headers": connection_header + list(more)})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    path = scope["path"]
    if path == "/app/echo":
        return await respond(200, await read_body(receive), (b"x-method", scope["method"].encode()))
    if path == "/app/chunked":
        with open(os.path.join(ROOT, "1m.txt"), "rb") as opened:
            return await stream(iter(lambda: opened.read(9999), b""), (b"content-type", b"application/octet-stream"))
    if path == "/app/slow":
        await asyncio.sleep(float(parse_qs(scope["query_string"].decode())["seconds"][0]))
        return await respond(200, b"at last\n")
    if path == "/app/large-header":
        return await respond(200, b"", (b"x-large", b"x" * 8000))
    if path == "/app/header-length":
        return await respond(200, str(len(headers.get("x-large", ""))).encode())
    if path == "/app/error":
        return await respond(500, b"custom 500 body\n")
    if path.startswith("/30") and (status := int(path[1:])) in REDIRECTS:
        return await respond(status, b"", (b"location", REDIRECTS[status].encode()))
    if path.startswith("/auth/") and headers.get("authorization") != CREDENTIALS:
        return await respond(401, b"unauthorized\n", (b"www-authenticate", b'Basic realm="interop"'))
    return await serve_file(path, headers, respond, stream)


async def serve_file(path, headers, respond, stream):
    name = os.path.join(ROOT, os.path.basename(path))
    if not os.path.isfile(name):
        return await respond(404, b"custom 404 body\n")
    with open(name, "rb") as opened:
        body = opened.read()
    tag = b'"%s"' % hashlib.sha256(body).hexdigest().encode()
    if headers.get("if-none-match") == tag.decode():
        return await respond(304, b"", (b"etag", tag))
    if part := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
        first, last = int(part[1]), min(int(part[2] or len(body)), len(body) - 1)
        if first >= len(body):
            return await respond(416, b"", (b"content-range", b"bytes */%d" % len(body)))
        return await respond(206, body[first : last + 1], (b"content-range", b"bytes %d-%d/%d" % (first, last, len(body))))
    accepted = headers.get("accept-encoding", "")
    if "gzip" in accepted or "deflate" in accepted:
        coding, bits = ("gzip", 31) if "gzip" in accepted else ("deflate", 15)
        coder = zlib.compressobj(1, wbits=bits)
        coded = [coder.compress(body), coder.flush()]
        return await stream(coded, (b"content-encoding", coding.encode()))
    await respond(200, body, (b"etag", tag))


async def read_body(receive):
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
