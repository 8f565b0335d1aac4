"""How to reach the API from this computer: the HTTP proxy and the CA file, checked before use.

Settings in the config file override environment variables.  The HTTP library would read these
variables itself, but with errors that do not name them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import stat
from dataclasses import dataclass, field

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.http_proxy import HttpProxy, parse_http_proxy
from dcs_proxy.local.settings import Settings
from dcs_proxy.local.trusted_file import find_distrust, judge, read_trusted

# In the order in which requests reads them.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_MAX_CA_FILE = 16 * 1024 * 1024
_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
# The file names by which OpenSSL finds certificates in a directory (openssl rehash).
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+\Z")
# How a DER file begins: a SEQUENCE with a length of two bytes.
_DER = b"\x30\x82"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Network:
    """`proxy` is the proxy to the API, None if it is reached directly.

    `proxy_url` is the same for the HTTP library, "" if there is none.  `ca` is a file or directory
    with certificate authorities, "" for the usual ones.  `proxy_source` and `ca_source` name the
    setting or variable.
    """

    proxy: HttpProxy | None = None
    proxy_url: str = field(default="", repr=False)
    proxy_source: str = ""
    ca: str = ""
    ca_source: str = ""


def find_network(settings: Settings) -> Network:
    """Return how to reach the API of `settings`, from the config file and the environment.

    Raises ConfigError, which names the setting or variable that cannot be used.
    """
    source, ca = find_ca(settings)
    if ca and settings.base_url.startswith("https:"):
        check_ca(ca, source)
    proxy = settings.proxy_to(settings.api_host)
    if proxy is not None:
        return Network(proxy, proxy.url(), "proxy in the config file", ca, source)
    variable, value = ("", "") if settings.is_loopback else _proxy_variable(settings.base_url)
    if not value:
        return Network(ca=ca, ca_source=source)
    proxy, url = _parse_variable(variable, value, settings.api_host)
    return Network(proxy, url, variable, ca, source)


def find_ca(settings: Settings) -> tuple[str, str]:
    """Return the setting or variable that names a CA file, and the path; ("", "") if none does."""
    if settings.ca_file:
        return "ca_file in the config file", settings.ca_file
    for name in CA_VARIABLES:
        if path := os.environ.get(name):
            return name, path
    return "", ""


def check_ca(path: str, source: str) -> None:
    """Raise ConfigError unless `path` is a file of PEM certificates, or a directory of them.

    A broken certificate is found only when the file is used.
    """
    if source in CA_VARIABLES:
        data = _read_variable(os.path.abspath(path), path, source)
    else:
        file = read_trusted(path, "the CA file", ConfigError, limit=_MAX_CA_FILE)
        if file is None:
            raise _wrong_ca(source, path, "does not exist")
        data = file.data
    if data is None or _CERTIFICATE.search(data):
        return
    if not data.strip():
        raise _wrong_ca(source, path, "is empty")
    hint = ""
    if data.startswith(_DER):
        pem = shlex.quote(f"{path}.pem")
        hint = f"convert it: openssl x509 -inform der -in {shlex.quote(path)} -out {pem}"
    raise _wrong_ca(source, path, "has no PEM certificate", hint)


def _read_variable(absolute: str, path: str, variable: str) -> bytes | None:
    """Return the file that a variable names as `path`; None for a directory of certificates."""
    try:
        status = os.stat(path)
        mode = status.st_mode
        distrust = find_distrust(absolute, status)
        if stat.S_ISDIR(mode):
            hashed = [os.path.join(path, each) for each in os.listdir(path) if _HASHED.match(each)]
            judged = (judge(each, os.stat(each)) for each in hashed)
            distrust = distrust or next(filter(None, judged), None)
        if distrust:
            problem = f"is not trusted: {distrust.place} {distrust.problem}"
            raise _wrong_ca(variable, path, problem, distrust.hint)
        if stat.S_ISDIR(mode):
            if not hashed:
                raise _wrong_ca(variable, path, "is a directory without hashed certificates",
                                f"openssl rehash {shlex.quote(path)}")  # fmt: skip
            return None
        if not stat.S_ISREG(mode):
            raise _wrong_ca(variable, path, "is not a file")
        with open(path, "rb") as file:
            return file.read(_MAX_CA_FILE)
    except FileNotFoundError:
        raise _wrong_ca(variable, path, "does not exist") from None
    except OSError as error:
        raise _wrong_ca(variable, path, f"cannot be read: {error.strerror}") from None


def _wrong_ca(source: str, path: str, problem: str, hint: str = "") -> ConfigError:
    if path.startswith(("~", "'", '"')):
        hint = "write the complete path, without ~ and quotation marks"
    what = f"unset {source}, or name" if source in CA_VARIABLES else "name"
    return ConfigError(
        f"{source} names {path}, which {problem}",
        hint=hint or f"{what} a file with PEM certificates",
    )


def _proxy_variable(url: str) -> tuple[str, str]:
    """Return the variable with the proxy for `url`, and its value; ("", "") if none applies."""
    from requests.utils import get_environ_proxies, select_proxy

    value = select_proxy(url, get_environ_proxies(url)) or ""
    names = (name for name in PROXY_VARIABLES if os.environ.get(name) == value)
    # On macOS, Python also reads the system's settings.
    return next(names, "the proxy of the system's settings"), value


def _parse_variable(variable: str, value: str, host: str) -> tuple[HttpProxy | None, str]:
    """Return the proxy in an environment variable, and its URL for the HTTP library."""
    # As in curl and requests, a proxy without a scheme is an HTTP proxy.
    value = value.strip()
    url = value if "://" in value else f"http://{value}"
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme.startswith("socks"):
        if importlib.util.find_spec("socks") is not None:
            return None, url
        raise ConfigError(
            f"{variable} names a SOCKS proxy, which is not supported",
            hint="name an HTTP proxy in HTTPS_PROXY; or, to connect without a proxy, add "
            f"{host} to NO_PROXY",
        )
    if scheme not in _DEFAULT_PORTS:
        raise ConfigError(f'{variable} must begin with "http://"', hint=_proxy_hint(variable))
    try:
        proxy = parse_http_proxy(f"http://{rest}", _DEFAULT_PORTS[scheme])
    except ValueError as error:
        raise ConfigError(f"{variable} {error}", hint=_proxy_hint(variable)) from None
    return proxy, proxy.url().replace("http:", f"{scheme}:", 1)


def _proxy_hint(variable: str) -> str:
    return f"for example: export {variable}=http://proxy.example:3128"
