"""What urllib3, TLS and the socket raise, as errors of ours. Messages name hosts, never addresses."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
from collections.abc import Iterator

from ..errors import BadSource
from . import reach
from .errors import Unreachable

__all__ = ["causes", "nobody_answers", "translated"]


@contextlib.contextmanager
def translated(host: str) -> Iterator[None]:
    """Turn what is raised inside into Unreachable, or into BadSource where waiting does not help."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise _judged(host, error) from error
    except Exception as error:
        import urllib3.exceptions as u

        if not isinstance(error, u.HTTPError):
            raise
        raise _judged(host, error) from error


def _judged(host: str, error: BaseException) -> Exception:
    import urllib3.exceptions as u

    for cause in causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return BadSource(f"the certificate of {host} is not trusted: {cause.verify_message}", host=host)
        if type(cause).__name__ == "SOCKS5AuthError":
            return BadSource("the proxy wants a login, or refuses the one it got")
        if type(cause) is OSError and (refused := re.match("Tunnel connection failed: ([0-9]{3})", str(cause))):
            if refused[1] == "407":
                return BadSource("the proxy wants a login, or refuses the one it got", status=407)
            if refused[1][0] == "4":
                return BadSource(f"the proxy refuses to connect to {host} ({refused[1]})", host=host)
            return Unreachable(f"{host}: the proxy cannot reach it ({refused[1]})")
    if isinstance(error, u.LocationParseError | u.InvalidHeader | u.URLSchemeUnknown):
        return BadSource(f"{host}: {error}", host=host)
    return Unreachable(f"{host}: {_reason(error)}")


def nobody_answers(error: Unreachable, names_work: bool) -> bool:
    """Whether it is this machine that has no network: nobody answered, and there is no route to anywhere, or no name
    can be looked up at all. `names_work`: some could."""
    import urllib3.exceptions as u

    found = list(causes(error))
    if not any(isinstance(each, u.NewConnectionError | u.ConnectTimeoutError) for each in found):
        return False
    if any(isinstance(each, ConnectionRefusedError) for each in found):
        return False  # by somebody
    lost = any(isinstance(each, socket.gaierror) and each.errno == socket.EAI_AGAIN for each in found)
    return (lost and not names_work) or not reach.online()


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of, each once."""
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [e for e in (*each.args, each.__cause__, each.__context__) if isinstance(e, BaseException)]


def _reason(error: BaseException) -> str:
    import urllib3.exceptions as u

    if isinstance(error, u.ProxyError):
        return f"the proxy: {_reason(error.original_error)}"
    if isinstance(error, u.NameResolutionError):
        return "its name cannot be resolved"
    if isinstance(error, u.NewConnectionError):
        return "no connection"  # a subclass of the next
    if isinstance(error, u.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, u.ReadTimeoutError | TimeoutError):
        return "it stopped sending"
    if isinstance(error, u.ProtocolError | ConnectionError | http.client.HTTPException):
        return "the connection broke"
    return str(error) or type(error).__name__
