# SPDX-License-Identifier: Apache-2.0
"""One webhook, and one attempt to tell it something: signed, over verified TLS, within a time limit.

Headers, signature and payload are those of the Standard Webhooks specification 1.0.0 (standardwebhooks.com), symmetric
scheme `v1`: HMAC-SHA256 over `id.timestamp.body`. Redirects are not followed, and nothing of an answer is used but its
status and how long it asks us to wait.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from junto import __version__
from junto.errors import InvalidInput, JuntoError
from junto.link.dial import Proxies, connect
from junto.node.files import read_private
from junto.tasks.notices import Kind, Notice
from junto.trust.names import Address

ATTEMPT_SECONDS = 20.0
"""The limit of one attempt, from the name's resolution to the last header; the specification recommends 15 to 30 s."""

_HEAD_BYTES = 16_384
_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)
_TARGET = re.compile(r"/[!-~]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told of notices of some kinds. Its path and its secret are nobody's business."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    kinds: frozenset[Kind]

    @property
    def name(self) -> str:
        """Tells it from the others, and survives a restart."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:12]

    @property
    def to(self) -> str:
        """Scheme, host and port: as much of the address as is shown."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{_address(parts)}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one attempt: an HTTP status, or 0 and what went wrong before there was one."""

    status: int
    words: str
    wait_seconds: float = 0.0  # as `Retry-After` asks

    @property
    def ok(self) -> bool:
        """True if the message was taken."""
        return 200 <= self.status < 300


def checked_url(text: str) -> str:
    """The address of a webhook. Raises InvalidInput, which does not repeat its path: that may hold a token."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidInput("the url of a webhook is none: write https://HOST/PATH") from None
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not host or port == 0:
        raise InvalidInput("the url of a webhook is none: write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"the url of the webhook at {host} holds a name or password; the signature is what proves us"
        )
    if parts.scheme == "http" and not _is_loopback(host):
        raise InvalidInput(f"the webhook at {host} is reached over plain http: write https (http is for loopback)")
    if parts.fragment or _TARGET.fullmatch(_target(parts)) is None or not host.isascii():
        raise InvalidInput(f"the url of the webhook at {host} holds characters that must be written %XX, or a #")
    return text


def read_secret(path: Path) -> bytes:
    """The key in a file: `whsec_` and 24 to 64 bytes in base64. Raises InvalidInput, which never quotes it."""
    text = read_private(path, 256, "webhook secret").decode("ascii", "replace").strip()
    mend = f"write whsec_ and the base64 of {_SECRET_BYTES[0]} to {_SECRET_BYTES[-1]} random bytes"
    if not text.startswith(_PREFIX):
        raise InvalidInput(f"webhook secret {path} does not begin with {_PREFIX}: {mend}")
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"webhook secret {path} is not base64: {mend}") from None
    if len(key) not in _SECRET_BYTES:
        raise InvalidInput(f"webhook secret {path} holds {len(key)} bytes: {mend}")
    return key


def payload(notice: Notice) -> bytes:
    """The body that tells of a notice: the same bytes at every attempt."""
    moment = datetime.fromtimestamp(notice.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"type": f"junto.{notice.kind}", "timestamp": moment, "data": notice})


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of one attempt."""
    mac = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(mac).decode()}"


async def attempt(
    hook: Webhook,
    id: str,
    body: bytes,
    now: float,
    *,
    seconds: float = ATTEMPT_SECONDS,
    environ: Mapping[str, str] = os.environ,
) -> Reply:
    """Tell a webhook once; `now` in unix seconds is signed with it. Never raises for what the other side does."""
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(hook, _request(hook, id, body, int(now)), Proxies.of(environ))
    except TimeoutError:
        return Reply(0, f"did not answer within {seconds:g} s")
    except (JuntoError, OSError, EOFError, ValueError) as error:
        return Reply(0, _words(error))


def _request(hook: Webhook, id: str, body: bytes, timestamp: int) -> bytes:
    parts = urlsplit(hook.url)
    default = 443 if parts.scheme == "https" else 80
    host = str(_address(parts)).removesuffix(f":{default}")
    lines = (
        f"POST {_target(parts)} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: junto/{__version__}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        f"webhook-id: {id}",
        f"webhook-timestamp: {timestamp}",
        f"webhook-signature: {signature(hook.secret, id, timestamp, body)}",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


async def _exchange(hook: Webhook, request: bytes, proxies: Proxies) -> Reply:
    parts = urlsplit(hook.url)
    address = _address(parts)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    if proxies.proxy_of(address.host):
        tunnel = await connect(address, proxies)
        reader, writer = await asyncio.open_connection(
            sock=tunnel, ssl=tls, server_hostname=address.host if tls is not None else None, limit=_HEAD_BYTES
        )
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=tls, limit=_HEAD_BYTES)
    try:
        writer.write(request)
        await writer.drain()
        return await _reply(reader)
    finally:
        writer.transport.abort()


async def _reply(reader: asyncio.StreamReader) -> Reply:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return Reply(0, f"answered with more than {_HEAD_BYTES} bytes of headers")
        first, *headers = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.[01] ([1-5][0-9]{2})(?: .*)?", first, re.ASCII)
        if found is None:
            return Reply(0, "answered with something that is not HTTP")
        status = int(found[1])
        if status >= 200:  # those below say that the answer is still to come
            return Reply(status, f"answered {status}", _retry_after(headers))


def _retry_after(headers: list[str]) -> float:
    """The seconds a `Retry-After` asks for (RFC 9110, 10.2.3); dates are not honoured."""
    for header in headers:
        name, _, value = header.partition(":")
        if name.strip().lower() == "retry-after" and re.fullmatch(r"[0-9]{1,6}", value.strip(), re.ASCII):
            return float(value.strip())
    return 0.0


def _words(error: Exception) -> str:
    match error:
        case JuntoError():
            return str(error)
        case ssl.SSLCertVerificationError():
            return f"its certificate does not verify: {error.verify_message}"
        case ssl.SSLError():
            return "does not speak TLS as we do"
        case ConnectionRefusedError():
            return "refuses connections"
        case EOFError() | ConnectionError():
            return "hung up without an answer"
        case OSError():
            return f"cannot be reached: {(error.strerror or type(error).__name__).lower()}"
        case _:
            return f"cannot be reached: {type(error).__name__}"


def _address(parts: SplitResult) -> Address:
    return Address(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
