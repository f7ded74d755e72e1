# SPDX-License-Identifier: Apache-2.0
"""A webhook is told all it asked for, signed, in order, at least once, whatever it answers and whoever restarts."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from junto.errors import InvalidInput, StorageFailed
from junto.link import methods
from junto.link.connection import Caller, Link
from junto.node import hookstore
from junto.node.hooks import DELAYS_SECONDS, GIVE_UP_SECONDS, Hooks, Pause
from junto.node.hookstore import HookStore
from junto.node.webhook import Reply, Webhook, attempt, checked_url, payload, read_secret, signature
from junto.tasks.notices import Kind, Notice
from junto.trust.names import parse_name
from junto.types import PartyId, TaskId

ACME = PartyId("acme")
SECRET = bytes(range(32))
NOON = 1_800_000_000.0
CALLER = Caller(parse_name("spiffe://sky/acme/user/olga"), "operator.hooks", 0.0, "", cast(Link, None))


def _notice(number: int, *, kind: Kind = "ended", at: float = NOON) -> Notice:
    return Notice(f"ntc_{number}", kind, TaskId("01jtask"), PartyId("bravo"), ACME, f"number {number}", at, "error")


@dataclass
class _Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return str(json.loads(self.body)["data"]["text"])


@dataclass
class _Receiver:
    """An HTTP server that answers as it is told, 204 by default, and keeps what it was sent."""

    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    got: list[_Request] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)  # while clear and `slow`, nothing is answered
    slow: bool = False
    url: str = ""

    @property
    def texts(self) -> list[str]:
        return [request.text for request in self.got]


@contextmanager
def _receiver(tls: ssl.SSLContext | None = None) -> Iterator[_Receiver]:
    receiver = _Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(_Request(self.path, headers, body))
            if receiver.slow:
                receiver.hold.wait(10)
            self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scheme = "http" if tls is None else "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/hooks/token?x=1"
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _World:
    """A node's webhooks with a clock of their own; a pause moves it, nobody sleeps."""

    def __init__(self, folder: Path, *urls: str, kinds: frozenset[Kind] = frozenset(("ended", "wait"))) -> None:
        self.now = NOON
        self.hooks = [Webhook(url, SECRET, kinds) for url in urls]
        self.jitter = b"\x80\0\0\0"  # in the middle: no jitter
        self.paused: list[float] = []
        self.store = HookStore(folder / "notices.db")
        self.taken = asyncio.Event()
        self.pause: Pause = self._pause

    def new(self) -> Hooks:
        """The webhooks of a node that starts."""
        return Hooks(
            ACME,
            self.hooks,
            self.store,
            unix_time=lambda: self.now,
            random=lambda count: self.jitter if count == 4 else bytes(count),
            attempt=self._attempt,
            pause=self.pause,
        )

    @asynccontextmanager
    async def node(self) -> AsyncIterator[Hooks]:
        """The webhooks from one start of the node to its end."""
        hooks = self.new()
        hooks.open()
        try:
            yield hooks
        finally:
            hooks.close()

    async def _attempt(self, hook: Webhook, id: str, body: bytes, now: float) -> Reply:
        reply = await attempt(hook, id, body, now, environ={})
        if reply.ok:
            self.taken.set()
        return reply

    async def run_until_taken(self, hooks: Hooks, notice: Notice) -> None:
        """Let everything run until this notice is taken."""
        running = asyncio.ensure_future(hooks.run())
        hooks.raised(notice)
        await self.taken.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def _pause(self, event: asyncio.Event, seconds: float) -> None:
        if seconds == float("inf"):
            await event.wait()
            return
        self.paused.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def send(self, hooks: Hooks, *given: Notice) -> float:
        """Raise these and try all that is due."""
        for notice in given:
            hooks.raised(notice)
        await hooks.keep()
        return min([await hooks.deliver(hook) for hook in self.hooks])

    async def status(self, hooks: Hooks) -> methods.HookStatus:
        """How the first of them does."""
        answer = await hooks.status(CALLER, b"")
        assert isinstance(answer, bytes)
        return msgspec.json.decode(answer, type=methods.Hooks).hooks[0]


class _FullOnce(HookStore):
    """On a disk that has no room the first time."""

    full = True

    def add(self, letters: Iterable[tuple[str, str, float, bytes]]) -> int:
        """As the disk allows."""
        if self.full:
            self.full = False
            raise StorageFailed("no space left")
        return super().add(letters)


def _run(world: _World, claim: Callable[[Hooks], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20), world.node() as hooks:
            await claim(hooks)

    asyncio.run(within())


# ── one attempt ─────────────────────────────────────────────────────────────────────────────────────


def test_a_notice_is_posted_with_the_headers_and_the_signature_of_the_specification(tmp_path: Path) -> None:
    with _receiver() as receiver:
        world = _World(tmp_path, receiver.url)
        _run(world, lambda hooks: _sent(world, hooks, _notice(1)))
        (got,) = receiver.got
    assert got.path == "/hooks/token?x=1"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "ntc_1"
    assert got.headers["webhook-timestamp"] == str(int(NOON))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    mac = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{mac}"
    assert json.loads(got.body) == {
        "type": "junto.ended",
        "timestamp": "2027-01-15T08:00:00.000Z",
        "data": {
            "id": "ntc_1",
            "kind": "ended",
            "task": "01jtask",
            "party": "bravo",
            "by": "acme",
            "text": "number 1",
            "at": NOON,
            "severity": "error",
        },
    }


async def _sent(world: _World, hooks: Hooks, *given: Notice) -> None:
    await world.send(hooks, *given)


def test_the_signature_is_that_of_the_specifications_own_library() -> None:
    """The vector of the specification's reference libraries (`test_sign_function` and its like)."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_server_that_does_not_answer_is_left_in_time() -> None:
    async def claim(url: str) -> Reply:
        return await attempt(Webhook(url, SECRET, frozenset()), "ntc_1", b"{}", NOON, seconds=0.05, environ={})

    with _receiver() as receiver:
        receiver.slow = True
        reply = asyncio.run(claim(receiver.url))
    assert (reply.status, reply.words) == (0, "did not answer within 0.05 s")


def test_what_is_no_http_and_what_is_nobody_is_said_in_words() -> None:
    async def claim(answer: bytes | None) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if answer is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            hook = Webhook(f"http://127.0.0.1:{port}/", SECRET, frozenset())
            return (await attempt(hook, "ntc_1", b"{}", NOON, seconds=5, environ={})).words

    assert asyncio.run(claim(b"SSH-2.0-x\r\n\r\n")) == "answered with something that is not HTTP"
    assert (
        asyncio.run(claim(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9000))
        == "answered with more than 16384 bytes of headers"
    )
    assert asyncio.run(claim(None)) == "hung up without an answer"
    assert asyncio.run(claim(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n")) == "answered 202"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    hook = Webhook(f"http://127.0.0.1:{port}/", SECRET, frozenset())
    assert asyncio.run(attempt(hook, "ntc_1", b"{}", NOON, environ={})).words == "refuses connections"


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = _self_signed(tmp_path, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def claim(url: str) -> Reply:
        return await attempt(Webhook(url, SECRET, frozenset()), "ntc_1", payload(_notice(1)), NOON, environ={})

    with _receiver(context) as receiver:
        monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
        reply = asyncio.run(claim(receiver.url))
        assert reply.status == 0
        assert reply.words.startswith("its certificate does not verify")
        assert receiver.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert asyncio.run(claim(receiver.url)).ok
        named = replace(Webhook(receiver.url, SECRET, frozenset()), url=receiver.url.replace("127.0.0.1", "localhost"))
        reply = asyncio.run(attempt(named, "ntc_1", b"{}", NOON, environ={}))
        assert reply.words.startswith("its certificate does not verify")  # it is another's name


def _self_signed(folder: Path, address: str) -> tuple[Path, Path]:
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "receiver.pem", folder / "receiver.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


# ── deliveries ──────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_fails_is_tried_at_the_stated_pace_until_it_takes_the_notice(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [500, 503, 301]
        world = _World(tmp_path, receiver.url)

        _run(world, lambda hooks: world.run_until_taken(hooks, _notice(1)))
        assert [request.headers["webhook-id"] for request in receiver.got] == ["ntc_1"] * 4
        stamps = [int(request.headers["webhook-timestamp"]) for request in receiver.got]
    assert world.paused == list(DELAYS_SECONDS[:3])
    assert stamps == [int(NOON), int(NOON) + 5, int(NOON) + 305, int(NOON) + 2105]
    assert len({request.body for request in receiver.got}) == 1


def test_what_a_server_missed_arrives_in_order_once_it_is_back(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [500]
        world = _World(tmp_path, receiver.url)

        async def claim(hooks: Hooks) -> None:
            due = await world.send(hooks, _notice(1))
            assert due == NOON + 5
            assert await world.send(hooks, _notice(2), _notice(3)) == due  # they wait, too
            assert receiver.texts == ["number 1"]
            world.now = due
            assert await world.send(hooks) == float("inf")

        _run(world, claim)
        assert receiver.texts == ["number 1", "number 1", "number 2", "number 3"]


def test_a_notice_that_a_server_refuses_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [422]
        world = _World(tmp_path, receiver.url)

        async def claim(hooks: Hooks) -> None:
            due = await world.send(hooks, _notice(1), _notice(2))
            assert receiver.texts == ["number 1", "number 2"]
            world.now = due
            await world.send(hooks)

        _run(world, claim)
        assert receiver.texts == ["number 1", "number 2", "number 1"]


def test_a_server_that_says_gone_is_sent_nothing_any_more_until_a_test_reaches_it(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [410]
        world = _World(tmp_path, receiver.url)

        async def claim(hooks: Hooks) -> None:
            assert await world.send(hooks, _notice(1), _notice(2)) == float("inf")
            assert await world.send(hooks, _notice(3)) == float("inf")
            assert len(receiver.got) == 1
            found = await world.status(hooks)
            assert (found.gone, found.pending, found.given_up) == (True, 0, 2)
            world.now += 60
            await hooks.test(CALLER, b"")
            await world.send(hooks, _notice(4, at=world.now))

        _run(world, claim)
        assert receiver.texts == ["number 1", "olga at acme asked for a test notice", "number 4"]


def test_a_server_may_ask_for_more_patience(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers, receiver.headers = [429], {"Retry-After": "90"}
        world = _World(tmp_path, receiver.url)

        async def claim(hooks: Hooks) -> None:
            assert await world.send(hooks, _notice(1)) == NOON + 90

        _run(world, claim)


def test_attempts_are_spread_by_a_fifth_either_way(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [500, 500]
        world = _World(tmp_path, receiver.url)

        async def claim(hooks: Hooks) -> None:
            world.jitter = bytes(4)
            assert await world.send(hooks, _notice(1)) == pytest.approx(NOON + 4)
            world.now, world.jitter = NOON + 5, b"\xff" * 4
            assert await world.send(hooks) == pytest.approx(NOON + 5 + 360)

        _run(world, claim)


def test_a_restart_between_attempts_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [204, 500]
        world = _World(tmp_path, receiver.url)

        async def before(hooks: Hooks) -> None:
            await world.send(hooks, _notice(1), _notice(2))

        async def after(hooks: Hooks) -> None:
            found = await world.status(hooks)
            assert (found.pending, found.failures, found.next_at) == (1, 1, NOON + 5)
            await world.send(hooks, _notice(1), _notice(2))  # derived again from the journal
            assert len(receiver.got) == 2
            world.now = NOON + 5
            await world.send(hooks)

        _run(world, before)
        world.now += 1
        _run(world, after)
        assert receiver.texts == ["number 1", "number 2", "number 2"]


def test_what_happened_before_a_webhook_was_set_up_is_not_sent_to_it(tmp_path: Path) -> None:
    with _receiver() as receiver:
        world = _World(tmp_path, receiver.url)
        _run(world, lambda hooks: _sent(world, hooks, _notice(1, at=NOON - 60), _notice(2)))
        assert receiver.texts == ["number 2"]


def test_a_webhook_hears_of_the_kinds_it_asked_for(tmp_path: Path) -> None:
    with _receiver() as receiver:
        world = _World(tmp_path, receiver.url, kinds=frozenset(["away"]))
        _run(world, lambda hooks: _sent(world, hooks, _notice(1), _notice(2, kind="away")))
        assert receiver.texts == ["number 2"]


def test_one_server_that_fails_does_not_hold_up_another(tmp_path: Path) -> None:
    with _receiver() as broken, _receiver() as sound:
        broken.answers = [500]
        world = _World(tmp_path, broken.url, sound.url)
        _run(world, lambda hooks: _sent(world, hooks, _notice(1)))
        assert sound.texts == ["number 1"]


def test_a_notice_is_given_up_when_it_was_tried_for_days_and_the_next_has_its_turn(tmp_path: Path) -> None:
    with _receiver() as receiver:
        receiver.answers = [500]
        world = _World(tmp_path, receiver.url)

        async def claim(hooks: Hooks) -> None:
            await world.send(hooks, _notice(1))
            world.now += GIVE_UP_SECONDS + 1
            await world.send(hooks, _notice(2, at=world.now))
            assert (await world.status(hooks)).given_up == 1

        _run(world, claim)
        assert receiver.texts == ["number 1", "number 2"]


def test_a_webhook_that_never_answers_cannot_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookstore, "MOST_PENDING", 3)
    store = HookStore(tmp_path / "notices.db")
    store.open(["a", "b"], NOON)
    pushed = store.add([("a", f"ntc_{number}", NOON, b"{}") for number in range(5)] + [("b", "ntc_0", NOON, b"{}")])
    found = store.next("a")
    assert found is not None
    assert (pushed, store.state("a").pending, found[0].id, store.state("b").pending) == (2, 3, "ntc_2", 1)
    store.close()


def test_letters_of_a_webhook_that_is_no_longer_set_are_dropped(tmp_path: Path) -> None:
    store = HookStore(tmp_path / "notices.db")
    store.open(["a"], NOON)
    store.add([("a", "ntc_1", NOON, b"{}")])
    store.close()
    store.open(["b"], NOON)
    store.close()
    store.open(["a"], NOON)
    assert store.state("a").pending == 0
    store.close()


def test_a_store_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "notices.db").write_bytes(b"something else " * 100)
    with pytest.raises(StorageFailed, match=r"notices\.db cannot be opened"):
        HookStore(tmp_path / "notices.db").open(["a"], NOON)


def test_notices_that_cannot_be_stored_wait_in_memory_until_there_is_room(tmp_path: Path) -> None:
    with _receiver() as receiver:
        world = _World(tmp_path, receiver.url)

        world.store = _FullOnce(tmp_path / "notices.db")
        _run(world, lambda hooks: world.run_until_taken(hooks, _notice(1)))
        assert receiver.texts == ["number 1"]
        assert world.paused[0] == 5.0


def test_a_store_that_cannot_be_opened_is_tried_again_and_the_operator_is_told(tmp_path: Path) -> None:
    place = tmp_path / "notices.db"
    place.mkdir()
    said: list[str] = []
    with _receiver() as receiver:
        world = _World(tmp_path, receiver.url)

        async def claim() -> None:
            async def attempts(event: asyncio.Event, seconds: float) -> None:
                if place.is_dir():
                    with pytest.raises(StorageFailed) as refused:
                        await hooks.status(CALLER, b"")
                    said.append(str(refused.value))
                    place.rmdir()
                else:
                    await event.wait()

            world.pause = attempts
            hooks = world.new()
            async with asyncio.timeout(20):
                await world.run_until_taken(hooks, _notice(1))

        asyncio.run(claim())
        assert receiver.texts == ["number 1"]
    assert said == [f"{place} is not open: the log of the node says why"]


def test_a_test_says_what_came_back_from_each(tmp_path: Path) -> None:
    with _receiver() as good, _receiver() as bad:
        bad.answers = [404]
        world = _World(tmp_path, good.url, bad.url)

        async def claim(hooks: Hooks) -> None:
            answer = await hooks.test(CALLER, b"")
            assert isinstance(answer, bytes)
            tests = msgspec.json.decode(answer, type=methods.HookTests).tests
            assert [(test.ok, test.reply) for test in tests] == [(True, "answered 204"), (False, "answered 404")]
            assert [test.to for test in tests] == [url.split("/hooks")[0] for url in (good.url, bad.url)]

        _run(world, claim)


def test_where_no_webhook_is_set_a_test_says_how_to_set_one(tmp_path: Path) -> None:
    async def claim(hooks: Hooks) -> None:
        await hooks.test(CALLER, b"")

    with pytest.raises(InvalidInput, match=r"write a \[\[webhook\]\] into node.toml"):
        _run(_World(tmp_path), claim)


# ── settings ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("ftp://ops.example/x", "write https://HOST/PATH"),
        ("https://", "write https://HOST/PATH"),
        ("https://ops.example:port/x", "write https://HOST/PATH"),
        ("http://ops.example/x", "over plain http"),
        ("https://ana:word@ops.example/x", "name or password"),
        ("https://ops.example/a b", "%XX"),
        ("https://ops.example/a\r\nx: y", "%XX|write https"),
        ("https://ops.example/é", "%XX"),
        ("https://ops.example/a#b", "%XX"),
    ],
)
def test_an_address_that_cannot_be_told_safely_is_refused_without_repeating_it(url: str, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault) as refused:
        checked_url(url)
    assert "word" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    "url", ["https://ops.example/x?y=1", "http://localhost:9/x", "http://[::1]:9/", "https://o:8443"]
)
def test_an_address_that_can_is_taken(url: str) -> None:
    assert checked_url(url) == url


def test_a_webhook_shows_neither_its_path_nor_its_secret() -> None:
    hook = Webhook("https://ops.example:8443/services/T0/B0/token", SECRET, frozenset(["ended"]))
    assert hook.to == "https://ops.example:8443"
    assert "token" not in repr(hook)
    assert str(SECRET) not in repr(hook)
    assert hook.name == replace(hook, secret=b"other").name


def test_a_secret_is_base64_of_enough_bytes_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "hook.key"

    def write(text: str, mode: int = 0o600) -> None:
        path.write_text(text)
        path.chmod(mode)

    write(f"whsec_{base64.b64encode(SECRET).decode()}\n")
    assert read_secret(path) == SECRET
    for text, fault in (
        (base64.b64encode(SECRET).decode(), "does not begin with whsec_"),
        ("whsec_not base64 at all!", "is not base64"),
        (f"whsec_{base64.b64encode(SECRET[:23]).decode()}", "holds 23 bytes"),
    ):
        write(text)
        with pytest.raises(InvalidInput, match=fault) as refused:
            read_secret(path)
        assert text.removeprefix("whsec_") not in str(refused.value)
    write("whsec_", 0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_secret(path)
