from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcs_proxy.api.network import CA_VARIABLES, Network, find_network
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings

SETTINGS = Settings(base_url="https://api.test")
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)


def refusal(settings: Settings = SETTINGS) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        find_network(settings)
    return caught.value


def test_without_settings_and_variables_the_api_is_reached_directly() -> None:
    assert find_network(SETTINGS) == Network()


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "host", "port", "url"),
    [
        ("http://proxy:3128", "proxy", 3128, "http://proxy:3128"),
        ("localhost:3128", "localhost", 3128, "http://localhost:3128"),
        ("proxy", "proxy", 80, "http://proxy:80"),
        ("http://proxy/", "proxy", 80, "http://proxy:80"),
        ("HTTP://me:a%23b@proxy:80", "proxy", 80, "http://me:a%23b@proxy:80"),
        ("https://proxy", "proxy", 443, "https://proxy:443"),
    ],
)
def test_a_proxy_in_a_variable_is_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, host: str, port: int, url: str
) -> None:
    monkeypatch.setenv(variable, value)
    network = find_network(SETTINGS)
    assert network.proxy is not None
    assert (network.proxy.host, network.proxy.port, network.proxy_url) == (host, port, url)
    assert network.proxy_source == variable
    assert "a#b" not in repr(network) and "a%23b" not in repr(network)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5h://localhost:1080", "ALL_PROXY names a SOCKS proxy, which is not supported"),
        ("SOCKS4://localhost:1080", "ALL_PROXY names a SOCKS proxy, which is not supported"),
        ("ftp://proxy:21", 'ALL_PROXY must begin with "http://"'),
        ("http://me:s3cret#x@proxy:3128", "ALL_PROXY has a user or password with #, / or ?"),
        ("me:s3cret/x@proxy:3128", "ALL_PROXY has a user or password with #, / or ?"),
        ("http://me:s3cret@a..b:3128", "ALL_PROXY has an impossible host or port"),
        ("http://proxy:99999", "ALL_PROXY has an impossible host or port"),
        ("http:/proxy:3128", "ALL_PROXY has something after the port"),
        ("http://", 'ALL_PROXY must be "http://host:port"'),
        ("proxy:3128\u00fc", "ALL_PROXY has an impossible host or port"),
    ],
)
def test_a_proxy_variable_that_cannot_work_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    error = refusal()
    assert error.message.startswith(said) and error.hint
    assert "s3cret" not in error.one_line()
    # Where it does not apply it is not looked at.
    monkeypatch.setenv("NO_PROXY", "api.test")
    assert find_network(SETTINGS) == Network()
    assert find_network(Settings(base_url="http://localhost:1")) == Network()
    proxy = HttpProxy("mine", 3128)
    network = find_network(Settings(base_url="https://api.test", proxy=proxy))
    assert (network.proxy, network.proxy_source) == (proxy, "proxy in the config file")


def make_ca(tmp_path: Path, kind: str) -> str:
    path = tmp_path / "ca.pem"
    match kind:
        case "empty":
            path.touch()
        case "unreadable":
            path.symlink_to(path)
        case "text":
            path.write_text("<html>log in</html>")
        case "der":
            path.write_bytes(b"\x30\x82\x01\x02")
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    return str(path)


BROKEN_CA = [
    ("missing", "does not exist"),
    ("empty", "is empty"),
    ("unreadable", "cannot be read: Too many levels of symbolic links"),
    ("text", "has no PEM certificate"),
    ("der", "has no PEM certificate"),
]


def test_space_around_a_proxy_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", " proxy:3128 ")
    assert find_network(SETTINGS).proxy == HttpProxy("proxy", 3128)


def test_a_socks_proxy_is_left_to_the_http_library_if_it_can_use_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: {"socks": object()}[name])
    monkeypatch.setenv("ALL_PROXY", "socks5h://localhost:1080")
    assert find_network(SETTINGS).proxy is None


def test_a_directory_with_other_files_has_no_hashed_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ca.pem", "5ed36f99.0.old", "README"):
        (tmp_path / name).write_text(PEM)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert "is a directory without hashed certificates" in refusal().message


@pytest.mark.parametrize("variable", CA_VARIABLES)
@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        *BROKEN_CA,
        ("fifo", "is not a file"),
        ("directory", "is a directory without hashed certificates"),
    ],
)
def test_a_ca_variable_that_cannot_work_is_named_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, kind: str, problem: str
) -> None:
    path = make_ca(tmp_path, kind)
    monkeypatch.setenv(variable, path)
    error = refusal()
    assert error.message == f"{variable} names {path}, which {problem}"
    assert error.hint.startswith({"der": "convert it: openssl x509", "directory": "openssl rehash"}
                                 .get(kind, f"unset {variable}, or name"))  # fmt: skip
    # An API without TLS needs none.
    assert find_network(Settings(base_url="http://localhost:1")).proxy is None


@pytest.mark.parametrize(("kind", "problem"), BROKEN_CA)
def test_a_ca_file_in_the_settings_that_cannot_work_is_named(
    tmp_path: Path, kind: str, problem: str
) -> None:
    path = make_ca(tmp_path, kind)
    error = refusal(Settings(base_url="https://api.test", ca_file=path))
    assert path in error.message and problem in error.message
    assert error.message.startswith(("ca_file in the config file names", "the CA file"))


def test_a_ca_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(PEM)
    path.chmod(0o666)
    error = refusal(Settings(base_url="https://api.test", ca_file=str(path)))
    assert error.message == f"the CA file {path} is writable by other users (mode 0666)"


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_a_variable_that_names_what_others_can_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The file, a directory of certificates or one of them, or a directory on the way."""
    hashed = tmp_path / "certificates"
    hashed.mkdir()
    path = hashed / "5ed36f99.0"
    path.write_text(PEM)
    for named in (path, hashed):
        monkeypatch.setenv(variable, str(named))
        assert find_network(SETTINGS).ca_source == variable
        for changed in (path, hashed, tmp_path):
            mode = changed.stat().st_mode & 0o777
            changed.chmod(0o666 | mode)
            error = refusal()
            written = (0o666 | mode) & 0o7777
            assert error.message == (
                f"{variable} names {named}, which is not trusted: {changed} is writable by other"
                f" users (mode {written:04o})"
            )
            assert error.hint == f"chmod go-w {changed}"
            changed.chmod(mode)


@pytest.mark.parametrize("path", ["~/ca.pem", "'/ca.pem'", '"/ca.pem"'])
def test_a_path_that_no_shell_has_expanded_gets_a_hint(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", path)
    error = refusal()
    assert error.message == f"REQUESTS_CA_BUNDLE names {path}, which does not exist"
    assert error.hint == "write the complete path, without ~ and quotation marks"


def test_a_large_bundle_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of some companies have several megabytes of comments first."""
    path = tmp_path / "ca.pem"
    path.write_text("# a comment\n" * 700_000 + PEM)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    assert find_network(SETTINGS).ca == str(path)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    settings = Settings(base_url="https://api.test", ca_file=str(path))
    assert find_network(settings).ca == str(path)


def test_the_setting_comes_before_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(PEM)
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "c"))
    assert find_network(SETTINGS).ca == str(tmp_path / "c")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "b"))
    assert find_network(SETTINGS).ca == str(tmp_path / "b")
    settings = Settings(base_url="https://api.test", ca_file=str(tmp_path / "a"))
    assert find_network(settings).ca == str(tmp_path / "a")


def test_a_directory_of_hashed_certificates_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "5ed36f99.0").write_text(PEM)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert find_network(SETTINGS).ca == str(tmp_path)
