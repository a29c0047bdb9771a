"""What is measured, and what is to come of it."""

from dataclasses import dataclass

H1, H2C, TLS, H2 = "18080", "18082", "18443", "18444"
LATE = "18090"

CURRENT, DEFAULT = "current-thread", "default"


@dataclass(frozen=True)
class Case:
    """The same work for every client; the first is the one the others are compared with."""

    name: str
    title: str
    clients: tuple
    protocol: str = "h1"
    target: str = f"{H1}/100"
    keep: bool = False
    runtime: str = CURRENT
    in_flight: int = 64
    requests: int = 100_000
    hosts: int = 1
    rounds: int = 5

    @property
    def pinned(self):
        """One core for the server and one for the client; the default runtime gets both."""
        return self.runtime == CURRENT

    @property
    def url(self):
        scheme = {"h1": "http", "h2c": "http", "tls": "https", "h2": "https"}[self.protocol]
        port, path = self.target.split("/", 1)
        return f"{scheme}://127.0.0.1:{port}/{path}"


OURS = ("gather", "as_completed")
RUST = ("reqwest-buffered", "reqwest-spawn", "hyper-util")
OUTSIDE = ("oha", "wrk", "go", "curl", "aiohttp", "reqstorm")
# Slow clients fetch fewer URLs, because the cost per request is compared.
FEWER = {"curl": 20_000, "aiohttp": 10_000, "reqstorm": 10_000}


def cases():
    for runtime in (CURRENT, DEFAULT):
        short = "ct" if runtime == CURRENT else "mt"
        yield Case(f"kept-{short}", f"100 bytes, 64 in flight, kept, {runtime}",
                   ("gather", "as_completed", *RUST, "go", "aiohttp", "reqstorm"), keep=True, runtime=runtime)
        outside = OUTSIDE if runtime == CURRENT else ("go",)
        yield Case(f"dropped-{short}", f"100 bytes, 64 in flight, dropped, {runtime}",
                   ("as_completed", *RUST, *outside), runtime=runtime)
        yield Case(f"tls-dropped-{short}", f"TLS, 100 bytes, 64 in flight, dropped, {runtime}",
                   ("as_completed", *RUST), protocol="tls", target=f"{TLS}/100", runtime=runtime, requests=50_000)
        yield Case(f"tls-kept-{short}", f"TLS, 100 bytes, 64 in flight, kept, {runtime}",
                   ("gather", "reqwest-buffered"), protocol="tls", target=f"{TLS}/100", runtime=runtime, keep=True,
                   requests=50_000)
        for protocol, port, title in (("h2c", H2C, "HTTP/2 in the clear"), ("h2", H2, "HTTP/2 over TLS")):
            yield Case(f"{protocol}-{short}", f"{title}, 100 bytes, 64 in flight, dropped, {runtime}",
                       ("as_completed", "reqwest-buffered", "hyper-util"), protocol=protocol, target=f"{port}/100",
                       runtime=runtime, requests=50_000)
        yield Case(f"10k-{short}", f"10 KB, 64 in flight, dropped, {runtime}",
                   ("as_completed", *RUST), target=f"{H1}/10k", runtime=runtime, requests=50_000, rounds=3)
        yield Case(f"1m-{short}", f"1 MB, 8 in flight, dropped, {runtime}",
                   ("as_completed", "reqwest-buffered", "hyper-util"), target=f"{H1}/1m", runtime=runtime, in_flight=8,
                   requests=2_000)
        yield Case(f"one-{short}", f"100 bytes, one at a time, {runtime}",
                   ("fetch", "reqwest-one", "hyper-util-one"), runtime=runtime, in_flight=1, requests=20_000)
        yield Case(f"1000-{short}", f"100 bytes, 1,000 in flight, dropped, {runtime}",
                   ("as_completed", "reqwest-buffered", "hyper-util"), runtime=runtime, in_flight=1_000, rounds=3)
    yield Case("late", "an answer after 100 ms, 1,000 in flight, dropped, current-thread",
               ("as_completed", "reqwest-buffered", "hyper-util"), target=f"{LATE}/", in_flight=1_000, requests=20_000,
               rounds=3)
    yield Case("10000", "an answer after 1 s, 10,000 in flight, dropped, default",
               ("as_completed", "reqwest-buffered", "hyper-util"), target="18091/", in_flight=10_000, requests=20_000,
               runtime=DEFAULT, rounds=3)
    for requests in (10_000, 100_000, 1_000_000):
        yield Case(f"grow-{requests}", f"100 bytes, 64 in flight, dropped, {requests:,} requests, current-thread",
                   ("as_completed",), requests=requests, rounds=5 if requests < 1_000_000 else 3)
    for hosts in (1, 1_000):
        yield Case(f"hosts-{hosts}", f"100 bytes, 64 in flight, dropped, {hosts:,} hosts, current-thread",
                   ("as_completed", "reqwest-buffered"), hosts=hosts, rounds=3)
    yield Case("rate", "1,000/s for 10 s, as the server sees it", ("rate",), target=f"{LATE}/", requests=10_000,
               rounds=3)


@dataclass(frozen=True)
class Goal:
    """Ours over the peer's, in one case: at most (or at least) so much."""

    text: str
    case: str
    ours: str
    figure: str
    peer: str | None
    bound: float
    at_least: bool = False
    peer_case: str | None = None


def goals():
    buffered = "reqwest-buffered"
    yield Goal("CPU, kept, default", "kept-mt", "gather", "cpu", buffered, 0.40)
    yield Goal("CPU, kept, current-thread", "kept-ct", "gather", "cpu", buffered, 0.45)
    yield Goal("CPU, dropped, default", "dropped-mt", "as_completed", "cpu", buffered, 0.50)
    yield Goal("CPU, dropped, default", "dropped-mt", "as_completed", "cpu", "hyper-util", 0.85)
    for peer, bound in ((buffered, 0.75), ("hyper-util", 1.10), ("oha", 1.05), ("wrk", 1.50), ("go", 0.65),
                        ("curl", 0.30), ("aiohttp", 0.10), ("reqstorm", 0.10)):
        yield Goal("CPU, dropped, current-thread", "dropped-ct", "as_completed", "cpu", peer, bound)
    yield Goal("CPU, `as_completed` over `gather`, default", "kept-mt", "as_completed", "cpu", "gather", 1.15)
    yield Goal("CPU, TLS, dropped, default", "tls-dropped-mt", "as_completed", "cpu", buffered, 0.60)
    yield Goal("CPU, TLS, kept, default", "tls-kept-mt", "gather", "cpu", buffered, 0.45)
    for protocol in ("h2c", "h2"):
        for short, bound in (("mt", 0.90), ("ct", 1.0)):
            case = f"{protocol}-{short}"
            runtime = DEFAULT if short == "mt" else CURRENT
            yield Goal(f"user CPU, {protocol}, {runtime}", case, "as_completed", "user", buffered, 0.60)
            yield Goal(f"CPU, {protocol}, {runtime}", case, "as_completed", "cpu", buffered, bound)
    for short in ("ct", "mt"):
        for peer in (buffered, "hyper-util"):
            yield Goal(f"bytes/s, 1 MB, {short}", f"1m-{short}", "as_completed", "per_second", peer, 1.0, True)
    yield Goal("peak memory, 100,000 kept", "kept-ct", "gather", "peak", buffered, 0.27)
    yield Goal("peak memory a result, 100,000 kept, KiB", "kept-ct", "gather", "peak_each", None, 1.4)
    yield Goal("peak memory, 1,000,000 less 100,000, MB", "grow-1000000", "as_completed", "peak_more", None, 5,
               peer_case="grow-100000")
    yield Goal("peak memory, 10,000 in flight", "10000", "as_completed", "peak", buffered, 0.65)
    yield Goal("CPU, 1,000,000 over 10,000", "grow-1000000", "as_completed", "cpu", "as_completed", 1.05,
               peer_case="grow-10000")
    yield Goal("CPU, 1,000 hosts over one", "hosts-1000", "as_completed", "cpu", "as_completed", 1.25,
               peer_case="hosts-1")
    for short in ("ct", "mt"):
        yield Goal(f"wall, one at a time, {short}", f"one-{short}", "fetch", "wall", "hyper-util-one", 1.0)
    yield Goal("system calls a request", "dropped-ct", "as_completed", "calls", None, 2.05)
    yield Goal("rate: starts in 10 s over 10,000", "rate", "rate", "rate", None, 1.01)
    yield Goal("rate: starts in 10 s over 10,000", "rate", "rate", "rate", None, 0.99, True)
    yield Goal("rate: most starts over burst + rate × time", "rate", "rate", "excess", None, 2)
