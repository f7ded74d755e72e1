# SPDX-License-Identifier: Apache-2.0
"""The link beside grpc.aio: mutual TLS 1.3, two processes, loopback, payloads of 100 bytes and of 1 MB.

    python benchmarks/bench_link.py [--quick]

The two take turns for several rounds; each figure is the median of its rounds. gRPC moves raw bytes
(no protobuf) and has ECDSA certificates, because it accepts no Ed25519; the handshake is not measured.
"""

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import msgspec
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from junto.link.connection import Answer, Caller
from junto.link.dial import Here, dial, here_of
from junto.link.links import Links
from junto.trust.certificates import create_authority, issue, key_pem, load_identity, pem
from junto.trust.charter import Charter, Member
from junto.trust.names import Address, Name, parse_address
from junto.types import NodeId, PartyId

SMALL = b"x" * 100
LARGE = bytes(1_000_000)
IN_FLIGHT = 64
_LIMITS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20)]


class Keys(msgspec.Struct):
    """What one side of a benchmark needs to prove who it is."""

    charter: Charter
    certificate: str
    key: bytes
    grpc_root: bytes
    grpc_certificate: bytes
    grpc_key: bytes


@dataclass
class Work:
    """What is measured, of either peer."""

    call: Callable[[], Awaitable[bytes]]
    fetch: Callable[[], Awaitable[bytes]]
    stream: Callable[[int], AsyncIterator[bytes]]


# ── servers ──


async def _echo(caller: Caller, payload: bytes) -> Answer:
    return payload


async def _large(caller: Caller, payload: bytes) -> Answer:
    return LARGE


async def _pieces(caller: Caller, payload: bytes) -> Answer:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(int(payload)):
            yield LARGE

    return pieces()


async def serve_link(keys: Keys) -> None:
    """Answer until the end of input."""
    handlers = {"echo": _echo, "large": _large, "pieces": _pieces}
    async with Links(_here(keys), keys.charter.members, handlers=handlers, listen=Address("127.0.0.1", 0)) as links:
        print(links.listening[0], flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def serve_grpc(keys: Keys) -> None:
    """Answer until the end of input."""

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    async def large(request: bytes, context: Any) -> bytes:
        return LARGE

    async def pieces(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(int(request)):
            yield LARGE

    server = grpc.aio.server(options=_LIMITS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "bench",
                {
                    "echo": grpc.unary_unary_rpc_method_handler(echo),
                    "large": grpc.unary_unary_rpc_method_handler(large),
                    "pieces": grpc.unary_stream_rpc_method_handler(pieces),
                },
            ),
        )
    )
    credentials = grpc.ssl_server_credentials(
        [(keys.grpc_key, keys.grpc_certificate)], keys.grpc_root, require_client_auth=True
    )
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    print(f"localhost:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


# ── measuring ──


async def _measure(work: Work, *, calls: int, sequential: int, megabytes: int) -> dict[str, float]:
    for _ in range(50):
        await work.call()

    async def worker(count: int) -> None:
        for _ in range(count):
            await work.call()

    begun = time.perf_counter()
    await asyncio.gather(*(worker(calls // IN_FLIGHT) for _ in range(IN_FLIGHT)))
    calls_per_second = calls // IN_FLIGHT * IN_FLIGHT / (time.perf_counter() - begun)

    times = []
    for _ in range(sequential):
        begun = time.perf_counter()
        await work.call()
        times.append(time.perf_counter() - begun)

    begun, taken = time.perf_counter(), 0
    async for piece in work.stream(megabytes):
        taken += len(piece)
    bulk = taken / (time.perf_counter() - begun)

    begun = time.perf_counter()
    for _ in range(megabytes // 4):
        await work.fetch()
    fetched = megabytes // 4 * len(LARGE) / (time.perf_counter() - begun)
    return {
        "calls": calls_per_second,
        "p50": statistics.median(times) * 1e6,
        "p99": sorted(times)[len(times) * 99 // 100] * 1e6,
        "bulk": bulk / 1e6,
        "fetch": fetched / 1e6,
    }


async def measure_link(keys: Keys, address: str, **sizes: int) -> dict[str, float]:
    """One round of the link."""
    link = await dial(_here(keys), parse_address(address))
    work = Work(
        call=lambda: link.call("echo", SMALL, timeout_seconds=30),
        fetch=lambda: link.call("large", timeout_seconds=30),
        stream=lambda count: link.stream("pieces", str(count).encode(), timeout_seconds=60),
    )
    found = await _measure(work, **sizes)
    await link.close("measured")
    return found


async def measure_grpc(keys: Keys, address: str, **sizes: int) -> dict[str, float]:
    """One round of gRPC."""
    credentials = grpc.ssl_channel_credentials(keys.grpc_root, keys.grpc_key, keys.grpc_certificate)
    async with grpc.aio.secure_channel(address, credentials, options=_LIMITS) as channel:
        echo, large = channel.unary_unary("/bench/echo"), channel.unary_unary("/bench/large")
        pieces = channel.unary_stream("/bench/pieces")
        work = Work(
            call=lambda: echo(SMALL, timeout=30),
            fetch=lambda: large(b"", timeout=30),
            stream=lambda count: pieces(str(count).encode(), timeout=60),
        )
        return await _measure(work, **sizes)


def run(*, rounds: int = 5, calls: int = 20_000, sequential: int = 2_000, megabytes: int = 400) -> list[dict[str, Any]]:
    """Each figure beside grpc.aio's, and whether the aim is met."""
    server_keys, client_keys = make_keys()
    found: dict[str, list[dict[str, float]]] = {"link": [], "grpc": []}
    with _server("link", server_keys) as link_at, _server("grpc", server_keys) as grpc_at:
        for _ in range(rounds):
            sizes = {"sequential": sequential, "megabytes": megabytes}
            one = uvloop.run(measure_link(client_keys, link_at, calls=calls, **sizes))
            other = asyncio.run(measure_grpc(client_keys, grpc_at, calls=max(640, calls // 8), **sizes))
            found["link"].append(one)
            found["grpc"].append(other)
    rows = [
        ("link: calls/s, 64 in flight", "calls", "1/s", 8.0),
        ("link: p50 of sequential calls", "p50", "µs", 0.25),
        ("link: p99 of sequential calls", "p99", "µs", 1.0),
        ("link: stream, 1 MB pieces", "bulk", "MB/s", 1.0),
        ("link: calls answered with 1 MB", "fetch", "MB/s", 1.0),
    ]
    return [_row(name, unit, aim, *(statistics.median(r[key] for r in found[who]) for who in ("link", "grpc")))
            for name, key, unit, aim in rows]  # fmt: skip


def _row(name: str, unit: str, aim: float, value: float, peer: float) -> dict[str, Any]:
    ratio = value / peer
    met = ratio <= aim if unit == "µs" else ratio >= aim
    return {
        "name": name,
        "value": round(value, 1),
        "unit": unit,
        "peer": f"grpc.aio {grpc.__version__}, mutual TLS",
        "peer_value": round(peer, 1),
        "ratio": round(ratio, 3),
        "aim": f"{'≤' if unit == 'µs' else '≥'} {aim:g} ×",
        "met": met,
    }


# ── keys and processes ──


def make_keys() -> tuple[Keys, Keys]:
    """Keys of a server's party and of a client's."""
    now = time.time()
    authorities = {name: create_authority(PartyId(name), now) for name in ("server", "client")}
    charter = Charter(
        consortium="bench",
        version=1,
        created=datetime.fromtimestamp(0, UTC),
        quorum=2,
        members=tuple(Member(PartyId(n), authorities[n].certificate_pem, ()) for n in ("client", "server")),
    )
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _ecdsa("bench root", root_key.public_key(), "bench root", root_key, ca=True)
    found = []
    for party in ("server", "client"):
        name = Name("bench", PartyId(party), NodeId("main"))
        key, grpc_key = Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
        found.append(
            Keys(
                charter=charter,
                certificate=pem(issue(authorities[party], name, key.public_key(), now)),
                key=key_pem(key),
                grpc_root=root,
                grpc_certificate=_ecdsa("localhost", grpc_key.public_key(), "bench root", root_key, ca=False),
                grpc_key=grpc_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            )
        )
    return found[0], found[1]


def _ecdsa(
    name: str, key: ec.EllipticCurvePublicKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, ca: bool
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name.replace(" ", "-"))]), critical=False)
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def _here(keys: Keys) -> Here:
    return here_of(load_identity(keys.key, keys.certificate), keys.charter, secrets.token_hex(8))


@contextmanager
def _server(kind: str, keys: Keys) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(keys) + b"\n")
        process.stdin.flush()
        yield process.stdout.readline().decode().strip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def main() -> None:
    """Print the figures as JSON, or serve."""
    parser = argparse.ArgumentParser(description="the link beside grpc.aio")
    parser.add_argument("--serve", choices=("link", "grpc"))
    parser.add_argument("--quick", action="store_true", help="one short round")
    chosen = parser.parse_args()
    if chosen.serve:
        keys = msgspec.json.decode(sys.stdin.readline(), type=Keys)
        (uvloop.run(serve_link(keys)) if chosen.serve == "link" else asyncio.run(serve_grpc(keys)))
        return
    quick = {"rounds": 1, "calls": 6_400, "sequential": 500, "megabytes": 100}
    print(json.dumps(run(**quick) if chosen.quick else run(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
