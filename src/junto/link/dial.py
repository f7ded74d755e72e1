# SPDX-License-Identifier: Apache-2.0
"""Reaching a node: its name, TCP (through a proxy where the environment says so), TLS, Hello.

Each step is a function of its own, because `probe.py` tries them one by one.
"""

import asyncio
import base64
import ipaddress
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from socket import SOCK_STREAM, gaierror, socket
from urllib.parse import unquote, urlsplit

from junto import __version__
from junto.errors import InvalidInput, JuntoError, Unavailable
from junto.link.connection import Handler, Link, Opening
from junto.link.frames import Hello
from junto.link.greeting import HIGHEST, LOWEST
from junto.link.settings import LinkSettings
from junto.link.tls import VerifyPeer, client_context, in_plain_words
from junto.trust import identity as trust_identity
from junto.trust.certificates import Identity
from junto.trust.charter import Charter
from junto.trust.names import Address
from junto.types import Digest, PartyId

_ANSWER_BYTES = 8192
_STAGGER_SECONDS = 0.5
TLS_GOODBYE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Here:
    """Our identity towards peers, and the judgement of theirs."""

    identity: Identity
    authorities: tuple[bytes, ...]
    consortium: str
    charter_version: int
    charter_digest: Digest
    verify_peer: VerifyPeer
    instance: str
    unix_time: Callable[[], float] = time.time
    software: str = __version__

    def hello(self, settings: LinkSettings, *, trial: bool = False) -> Hello:
        """Our introduction, as of now."""
        return Hello(
            lowest=LOWEST,
            highest=HIGHEST,
            software=self.software,
            consortium=self.consortium,
            charter_version=self.charter_version,
            charter_digest=self.charter_digest,
            name=self.identity.name.uri,
            instance=self.instance,
            unix_seconds=self.unix_time(),
            calls=settings.calls,
            streams=settings.streams,
            trial=trial,
        )


def here_of(identity: Identity, charter: Charter, instance: str, unix_time: Callable[[], float] = time.time) -> Here:
    """The identity of a member of this charter towards peers; `instance` differs at each start of the process."""
    return Here(
        identity=identity,
        authorities=tuple(trust_identity.authorities_pem(charter)),
        consortium=charter.consortium,
        charter_version=charter.version,
        charter_digest=charter.digest,
        verify_peer=lambda leaf: trust_identity.verify(leaf, charter, unix_time()),
        instance=instance,
        unix_time=unix_time,
    )


def opening_of(
    here: Here,
    handlers: Mapping[str, Handler],
    settings: LinkSettings,
    address: str,
    expected: PartyId | None = None,
    *,
    trial: bool = False,
) -> Opening:
    """The needs of one more connection to become a link; a trial replaces no link that there is."""
    return Opening(
        lambda: here.hello(settings, trial=trial),
        here.verify_peer,
        handlers,
        settings,
        address,
        expected,
        here.unix_time,
    )


@dataclass(frozen=True, slots=True)
class Proxies:
    """The HTTPS proxy to dial through, and the hosts to reach without it. Loopback is always reached without."""

    https: str = ""
    exceptions: tuple[str, ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "Proxies":
        """The proxies that HTTPS_PROXY and NO_PROXY name, in either case."""
        https = environ.get("HTTPS_PROXY") or environ.get("https_proxy") or ""
        exceptions = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
        return cls(https, tuple(e.strip().lower().lstrip(".") for e in exceptions.split(",") if e.strip()))

    def proxy_of(self, host: str) -> str:
        """The proxy's URL for this host, empty for none."""
        host = host.lower().rstrip(".")
        if not self.https or host == "localhost" or self._is_loopback(host):
            return ""
        excepted = any(e in ("*", host) or host.endswith("." + e) for e in self.exceptions)
        return "" if excepted else self.https

    @staticmethod
    def _is_loopback(host: str) -> bool:
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


async def resolve(address: Address) -> list[tuple[int, tuple[str, int]]]:
    """The socket families and addresses that a host name stands for. Raises Unavailable, InvalidInput."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=SOCK_STREAM)
    except gaierror as error:
        raise Unavailable(
            f"{address.host}: no such name here ({error.strerror}): check the charter's address, and this machine's DNS"
        ) from error
    return [(family, target) for family, _, _, _, target in found]  # type: ignore[misc]  # typeshed: any tuple


async def connect(address: Address, proxies: Proxies) -> socket:
    """A TCP connection to the address, through the proxy that is meant for it. Raises Unavailable."""
    proxy = proxies.proxy_of(address.host)
    if not proxy:
        return await _connect(address)
    url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if url.scheme != "http" or not url.hostname:
        raise InvalidInput(f"HTTPS_PROXY with scheme {url.scheme!r}: write http://HOST:PORT")
    via = Address(url.hostname, url.port or 8080)
    connection = await _connect(via)
    try:
        await _ask_proxy(connection, address, via, url.username, url.password)
    except BaseException:
        connection.close()
        raise
    return connection


async def _connect(address: Address) -> socket:
    failure: Exception | None = None
    for family, target in await resolve(address):
        connection = socket(family, SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, target)
        except OSError as error:
            connection.close()
            failure = failure or error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise Unavailable(in_plain_words(failure or EOFError(), str(address))) from failure


async def _ask_proxy(
    connection: socket, address: Address, via: Address, user: str | None, password: str | None
) -> None:
    """HTTP CONNECT (RFC 9110, 9.3.6)."""
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if user is not None:
        token = base64.b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {token}")
    await loop.sock_sendall(connection, ("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        # One byte at a time: what follows the answer belongs to TLS.
        piece = await loop.sock_recv(connection, 1)
        answer += piece
        if not piece or len(answer) > _ANSWER_BYTES:
            raise Unavailable(f"the proxy {via} hung up, or is none: check HTTPS_PROXY")
    status = answer.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or not status[1].startswith(b"2"):
        code = status[1].decode("ascii", "replace")[:3] if len(status) > 1 else "?"
        raise Unavailable(f"the proxy {via} refuses {address} with status {code}: ask who runs it, or set NO_PROXY")


async def start_tls(connection: socket, context: ssl.SSLContext, opening: Opening) -> Link:
    """A link whose TLS handshake is done; `opened` tells of its Hello. Raises Unavailable."""
    link = Link(opening, dialled=True)
    try:
        await begun(
            asyncio.get_running_loop().create_connection(
                lambda: link,
                sock=connection,
                ssl=context,
                server_hostname="",
                ssl_handshake_timeout=opening.settings.connect_seconds,
                ssl_shutdown_timeout=TLS_GOODBYE_SECONDS,
            )
        )
    except OSError as error:
        _let_go(connection)
        raise Unavailable(in_plain_words(error, opening.address)) from error
    except BaseException:
        _let_go(connection)
        raise
    return link


def _let_go(connection: socket) -> None:
    """Close a socket that was handed to the event loop, which has closed it already, or will.

    uvloop closes the descriptor by its number. If the peer resets in the first turn of the loop, the socket object
    is not told, and closing it too would close whatever has that number by then: another link, or the journal.
    """
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        connection.close()
    else:
        connection.detach()


async def begun(handshake: Coroutine[None, None, object]) -> None:
    """Wait for a TLS handshake; when cancelled, let it begin first.

    asyncio leaks the transport of a handshake that is cancelled between its creation and its first step.
    """
    task = asyncio.ensure_future(handshake)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen: nobody waits for it any more
        raise


async def dial(
    here: Here,
    address: Address,
    *,
    handlers: Mapping[str, Handler] | None = None,
    settings: LinkSettings | None = None,
    expected: PartyId | None = None,
    proxies: Proxies | None = None,
    context: ssl.SSLContext | None = None,
) -> Link:
    """An open link to the node at this address, of the party `expected` if one is named.

    Raises Unavailable (cannot be reached), Refused or PeerFault (reached, but it is not who or what we need),
    each saying in one line what failed and the mend.
    """
    settings = settings or LinkSettings.for_lan()
    opening = opening_of(here, handlers or {}, settings, str(address), expected)
    context = context or client_context(here.identity, here.authorities)
    doing = "connecting"
    link: Link | None = None
    ready = False
    try:
        async with asyncio.timeout(settings.connect_seconds):
            connection = await connect(address, proxies or Proxies())
            doing = "the TLS handshake"
            link = await start_tls(connection, context, opening)
            doing = "the greeting"
            await link.opened
        ready = True
    except TimeoutError:
        raise Unavailable(
            f"{address}: {doing} did not end within {settings.connect_seconds:g} s: check the address, "
            "and that a firewall lets this port through"
        ) from None
    except JuntoError:
        if link is not None:
            await link.close("it did not open")
        raise
    except OSError as error:
        raise Unavailable(in_plain_words(error, str(address))) from error
    finally:
        if link is not None and not ready:
            link.abort("it did not open")
    return link


async def first_open(
    addresses: Sequence[Address],
    attempt: Callable[[Address], Coroutine[None, None, Link]],
    failed: Callable[[JuntoError], None],
) -> Link | None:
    """The first link that opens; None when no attempt succeeds. `failed` hears why each did not.

    The addresses of a party are its nodes', of which one answers. They are tried in turn, the next as soon as the one
    before has failed, or has said nothing for half a second: a machine that is gone, or a process that hangs, refuses
    nothing (RFC 8305, section 5).
    """
    trying: set[asyncio.Task[Link]] = set()
    waiting = list(addresses)
    try:
        while trying or waiting:
            if waiting:
                trying.add(asyncio.create_task(attempt(waiting.pop(0))))
            ended, trying = await asyncio.wait(
                trying, timeout=_STAGGER_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            opened: list[Link] = []
            for task in ended:
                try:
                    opened.append(task.result())
                except JuntoError as error:
                    failed(error)
            if opened:
                for link in opened[1:]:
                    link.abort("another address of its party opened")
                return opened[0]
        return None
    finally:
        for task in trying:
            task.cancel()
        for done in await asyncio.gather(*trying, return_exceptions=True):
            if isinstance(done, Link):
                done.abort("another address of its party opened")
