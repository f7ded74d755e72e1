# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3, both sides with certificates. The handshake only admits; `verify_peer` decides who it is.

A Python `ssl` context trusts all authorities of the charter alike, so a context alone would accept a certificate in
which one party's authority names another party. Therefore the name is taken only from `verify_peer`, which
checks the leaf against the authority of the one party that it names. Contexts are cheap: a rotated identity
gets new ones for new handshakes, and links that are up keep theirs.
"""

import os
import ssl
import tempfile
from collections.abc import Callable, Iterable
from typing import TypeAlias

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from junto.errors import InvalidInput
from junto.logs import logger
from junto.trust.certificates import Identity
from junto.trust.names import Name

ALPN = "junto/1"
_log = logger("junto.link")

VerifyPeer: TypeAlias = Callable[[bytes], Name]
"""The name that a leaf certificate (DER) proves. Raises a JuntoError that says why it proves none."""


def server_context(identity: Identity, authorities: Iterable[bytes]) -> ssl.SSLContext:
    """A context to accept with. Raises InvalidInput for a certificate, key or authority that does not load."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, identity, authorities)
    context.num_tickets = 0  # no resumption: each handshake proves the certificate anew
    return context


def client_context(identity: Identity, authorities: Iterable[bytes]) -> ssl.SSLContext:
    """A context to dial with. Raises InvalidInput as `server_context` does."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, identity, authorities)


def _context(protocol: int, identity: Identity, authorities: Iterable[bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # names are URIs of the consortium, not hosts
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([ALPN])
    context.sslobject_class = _Telling
    try:
        for pem in authorities:
            context.load_verify_locations(cadata=pem.decode("ascii"))
        _load_identity(context, identity)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidInput(
            "the node's certificate, key and the charter's authorities do not load: "
            "renew the certificate, or fetch the charter again"
        ) from error
    return context


class _Telling(ssl.SSLObject):
    """Lets the peer hear why its handshake failed.

    asyncio and uvloop close a failed handshake without sending the alert that OpenSSL wrote, so a peer whose
    certificate has expired would see nothing but the end. This asks for more bytes first, which sends the alert;
    the failure follows with the peer's next bytes, or its hanging up.
    """

    _failure: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """As in `ssl`, but a failure is raised the second time."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            self._failure = error
            if self.server_side:
                _log.warning("handshake refused", reason=in_plain_words(error, "the peer"))
                raise ssl.SSLWantReadError from error
            raise


def _load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    """`ssl` reads keys from files only: one that has no name and that no other user can open."""
    key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = key + identity.certificate.public_bytes(Encoding.PEM)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("junto", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        return
    with tempfile.NamedTemporaryFile() as file:  # created with mode 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)


def in_plain_words(error: BaseException, address: str) -> str:
    """The fault on the way to `address`, and the mend, in one line."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"{address}: {_certificate_fault(error.verify_code)}"
        case ssl.SSLError():
            return f"{address}: {_alert(error.reason or '')}"
        case ConnectionRefusedError():
            return f"{address} refuses connections: is the node running, and is this its port?"
        case TimeoutError():
            return f"{address} does not answer: check the address, and that a firewall lets this port through"
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError() | EOFError():
            return f"{address} hung up during the handshake: not a Junto node, or a proxy in between"
        case OSError():
            return f"{address} cannot be reached: {error.strerror or type(error).__name__}"
        case _:
            return f"{address}: {type(error).__name__}"


def _certificate_fault(code: int) -> str:
    match code:
        case 9:
            return "its certificate is not valid yet: compare both clocks"
        case 10:
            return "its certificate has expired: its node must renew it (or a clock is wrong)"
        case 18 | 19 | 20 | 21:
            return "its certificate is of a foreign authority: is this address in the charter, and the charter current?"
        case _:
            return f"its certificate does not verify (code {code})"


_ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know our certificate authority: do both hold the same charter?",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that our certificate has expired: renew it, or compare both clocks",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate: compare both clocks, and the charters",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it asks for a certificate, and we have shown none",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: not a Junto node",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not speak TLS 1.3: not a Junto node",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3: not a Junto node",
    "HTTP_REQUEST": "it speaks HTTP: not a Junto node",
}


def _alert(reason: str) -> str:
    return _ALERTS.get(reason, f"the TLS handshake failed ({reason.lower().replace('_', ' ') or 'no reason given'})")
