"""Which certificates are trusted: the system's, and those of the settings beside them."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from ..errors import BadSource

__all__ = ["TLSSocket", "tls_context"]

_LARGEST = 16 << 20
_SETTING = "the setting `certificates`"
_SUFFIXES = (".pem", ".crt", ".cer")


def tls_context(certificates: str) -> ssl.SSLContext:
    """TLS 1.2 or later with certificates checked, against the system's authorities and those at `certificates` (a file,
    or a folder of files, as PEM; "" for none). `SSL_CERT_FILE` and `SSL_CERT_DIR` say where the system's are, as
    OpenSSL has it.

    Raises BadSource when what is at `certificates` cannot be used.
    """
    context = ssl.create_default_context()
    context.sslsocket_class = TLSSocket
    if certificates:
        for path in _files(Path(certificates).expanduser()):
            _load(context, path)
        # An authority of one's own often lacks what strict checking (the default since Python 3.13) wants of it.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class TLSSocket(ssl.SSLSocket):
    """The standard library's is left open where it finds, before its handshake, that its peer has gone."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except OSError:
            if self.version() is None:
                self.close()
            raise


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in _SUFFIXES and each.is_file())
    if not found:
        raise BadSource(f"{_SETTING}: there is no certificate ({', '.join(_SUFFIXES)}) in the folder {path}")
    yield from found


def _load(context: ssl.SSLContext, path: Path) -> None:
    try:
        if path.stat().st_size > _LARGEST:
            raise BadSource(f"{_SETTING}: {path} is too large to be certificates")
        text = path.read_bytes().decode("ascii", "ignore")  # comments may be in any language
        if "-----BEGIN" not in text:
            raise BadSource(f"{_SETTING}: {path} is not a certificate in PEM form (-----BEGIN CERTIFICATE-----)")
        context.load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise BadSource(f"{_SETTING}: {path} has a certificate that cannot be read: {error.reason or error}") from None
    except OSError as error:
        raise BadSource(f"{_SETTING}: {path} cannot be read: {error.strerror or error}") from None
