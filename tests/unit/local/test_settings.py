from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest

from dcs_proxy.errors import ConfigError, UsageError
from dcs_proxy.local import settings as module
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings, config_path, load_settings
from dcs_proxy.names import MachineName

MANUAL = "man 5 dcs-proxy describes the file"


def load(tmp_path: Path, toml: str, **environment: str) -> Settings:
    path = tmp_path / "config.toml"
    path.write_text(toml)
    return load_settings({"XDG_CONFIG_HOME": str(tmp_path / "xdg"), **environment}, str(path))


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    settings = load_settings({"XDG_CONFIG_HOME": str(tmp_path)})
    assert settings.base_url == "https://dcs.dedaluslabs.ai"
    assert (settings.wake_seconds, settings.reuse_seconds, settings.agent) == (300, 60, "private")
    assert settings.key_file == str(tmp_path / "dcs-proxy" / "api-key")


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="does not exist") as typed:
        load_settings({"DCS_PROXY_CONFIG": "/other"}, missing)
    assert typed.value.hint.startswith("create it, or leave out --config; if ssh shows this,")
    with pytest.raises(ConfigError, match="does not exist") as inherited:
        load_settings({"DCS_PROXY_CONFIG": missing})
    assert inherited.value.hint == "create it, or unset DCS_PROXY_CONFIG"
    assert config_path({"DCS_PROXY_CONFIG": missing}) == missing
    assert config_path({"XDG_CONFIG_HOME": "/x"}) == "/x/dcs-proxy/config.toml"


def test_every_key_is_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        base_url = "http://127.0.0.1:8080/"
        org_id = "org-1"
        key_file = "/k"
        proxy = "http://proxy.example:3128"
        wake_seconds = 10
        reuse_seconds = 0
        connect_seconds = 3
        agent = "user"
        wake = "never"
        [aliases]
        dm-web = "dm-0a1b"
        """,
    )
    assert settings == Settings(
        base_url="http://127.0.0.1:8080",
        org_id="org-1",
        key_file="/k",
        proxy=HttpProxy("proxy.example", 3128),
        wake_seconds=10,
        reuse_seconds=0,
        connect_seconds=3,
        agent="user",
        aliases={"dm-web": "dm-0a1b"},
        wake=(("*", "never"),),
    )
    assert settings.is_loopback
    assert settings.machine("dm-web") == "dm-0a1b"
    assert settings.machine("web") == settings.machine("0a1b") == "dm-0a1b"
    assert settings.machine("dm-other") == "dm-other"
    with pytest.raises(UsageError):
        settings.machine("dm-A_")


@pytest.mark.parametrize(
    ("value", "patterns"),
    [('"all"', ("*",)), ('"none"', ()), ("[]", ()), ('["dm-a", "ci-*"]', ("dm-a", "ci-*"))],
)
def test_listed_is_a_word_or_patterns(tmp_path: Path, value: str, patterns: object) -> None:
    assert load(tmp_path, f"listed = {value}").listed == patterns


NO_LIST = 'must be "all", "none" or a list of patterns of machine names'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("true", NO_LIST),
        ('"some"', NO_LIST),
        ("[1]", '"1" is not a pattern of machine names'),
        ('["dm-a", "b c"]', '"b c" is not a pattern of machine names'),
        ('[["dm-a"]]', "\"['dm-a']\" is not a pattern of machine names"),
    ],
)
def test_anything_else_as_listed_is_named(tmp_path: Path, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"listed = {value}")
    assert caught.value.message == f"{tmp_path}/config.toml: listed {said}"
    assert caught.value.hint == MANUAL


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://user:pass@example.com", "use DEDALUS_API_KEY"),
        ("https://example.com:port", module._BASE_URL_HINT),
        ("https://example.com:0", module._BASE_URL_HINT),
        ("https://", module._BASE_URL_HINT),
        ("https://example.com/a b", module._BASE_URL_HINT),
        ("http://example.com", "the service is at https://dcs.dedaluslabs.ai"),
    ],
)
def test_a_wrong_url_of_the_api_is_answered_with_a_right_one(
    tmp_path: Path, url: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"base_url = '{url}'")
    assert caught.value.hint == hint
    said = caught.value.message.removeprefix(f"{tmp_path}/config.toml: base_url ")
    assert said.startswith(("must ", "has an impossible host or port"))


@pytest.mark.parametrize("url", ["https://example.com/X", "https://[2001:db8::1]:8443"])
def test_a_url_of_the_api_loses_its_last_slash_and_outer_spaces_only(
    tmp_path: Path, url: str
) -> None:
    assert load(tmp_path, f"base_url = '{url}/'").base_url == url
    assert load(tmp_path, f"base_url = ' {url}/ '").base_url == url


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_an_api_on_loopback_needs_no_tls_and_no_proxy(tmp_path: Path, host: str) -> None:
    toml = f"base_url = 'http://{host}:8080'\nproxy = 'http://proxy.example:3128'\n"
    settings = load(tmp_path, toml)
    assert settings.is_loopback and settings.proxy_to(settings.api_host) is None


def test_a_config_file_that_others_can_change_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match=f"the config file {path} is writable by other users"):
        load_settings({}, str(path))


@pytest.mark.parametrize("length", [80, 81])
def test_a_long_key_is_cut(tmp_path: Path, length: int) -> None:
    key, sub = "x" * length, "x" * (length - len("wake."))
    for toml, name in ((f"{key} = 1", key), (f"[wake]\n{sub} = 1", f"wake.{sub}")):
        shown = name if length == 80 else f"{name[:77]}..."
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, toml)
        assert caught.value.message.startswith(f"{tmp_path}/config.toml: {shown} ")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        'base_url = "https://file.example"\norg_id = "file"\n',
        DEDALUS_BASE_URL="https://environment.example/",
        DEDALUS_ORG_ID="environment",
    )
    assert (settings.base_url, settings.org_id) == ("https://environment.example", "environment")


@pytest.mark.parametrize("toml", ["", 'key_file = "/file"\n'])
def test_the_key_file_may_be_named_by_the_environment(tmp_path: Path, toml: str) -> None:
    assert load(tmp_path, toml, DCS_PROXY_KEY_FILE="/a/../key").key_file == "/key"
    with pytest.raises(ConfigError, match="DCS_PROXY_KEY_FILE must be a complete path"):
        load(tmp_path, toml, DCS_PROXY_KEY_FILE="key")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("wake_seconds = ", "config.toml: "),
        ("wake_secs = 1", "wake_secs is not a setting"),
        ("wake_seconds = 0", "wake_seconds must be a whole number of seconds from 1 to 3600"),
        ("wake_seconds = true", "wake_seconds must be a whole number"),
        ("wake_seconds = 1.5", "wake_seconds must be a whole number"),
        ("agent = 'mine'", "agent must be"),
        ("destination_constraint = true", "destination_constraint is not a setting"),
        ("base_url = 'http://example.com'", "must begin with https://"),
        ("base_url = 'http://localhost.example.com'", "must begin with https://"),
        ("base_url = 'ftp://127.0.0.1'", "must begin with https://"),
        ("base_url = 'https://user:pass@example.com'", "must not contain a user or password"),
        ("base_url = 'https://user:pa/ss@example.com'", "must not contain a user or password"),
        ("base_url = 'https://example.com/?a=b'", "must not contain ?, # or spaces"),
        ("base_url = 'https://example.com/#a'", "must not contain ?, # or spaces"),
        ("base_url = 'https://example.com/a b'", "must not contain ?, # or spaces"),
        ("base_url = 'https://example.com:port'", "has an impossible host or port"),
        ("base_url = 'https://example.com:99999'", "has an impossible host or port"),
        ("base_url = 'https://example.com:0'", "has an impossible host or port"),
        ("base_url = 'https://a..b'", 'has an impossible host or port: "https://a..b"'),
        ("base_url = 'https://.example.com'", "has an impossible host or port"),
        ("base_url = 'https://*.example.com'", "has an impossible host or port"),
        ("base_url = 'https://exam ple.com'", "has an impossible host or port"),
        (f"base_url = 'https://{'a' * 64}.example.com'", "has an impossible host or port"),
        (f"base_url = 'https://{'a.' * 127}example.com'", "has an impossible host or port"),
        ("base_url = 'https://b\u00fccher.example'", "has an impossible host or port"),
        ("base_url = 'https://[fe80::1%eth0]'", "has an impossible host or port"),
        ("base_url = 'https://[x]'", "has an impossible host or port"),
        ("base_url = 'https://[::1'", "has an impossible host or port"),
        ("base_url = 'https://example.com/['", "has an impossible host or port"),
        ('base_url = "https://example.com/\\u0007"', "must not contain ?, # or spaces"),
        ("base_url = 'https://-a.example'", "has an impossible host or port"),
        ("base_url = 'https://'", "must begin with https:// and a host name"),
        ("base_url = 'example.com'", "must begin with https:// and a host name"),
        ("base_url = 1", "must be a string"),
        ("org_id = 'a b'", "org_id must be printable ASCII without spaces"),
        ("org_id = '\u00e9'", "org_id must be printable ASCII without spaces"),
        ('org_id = "a\\u000d"', "org_id must be printable ASCII without spaces"),
        ("proxy = 'proxy:3128'", 'proxy must be "http://host:port"'),
        ("proxy = 3128", "proxy must be a string"),
        ("proxy = 'http://a..b:3128'", "proxy has an impossible host or port"),
        ("proxy = 'http://me:a/b@proxy:3128'", "proxy has a user or password with #, / or ?"),
        ("ca_file = 1", "ca_file must be a string"),
        ("ca_file = ''", "ca_file must be the path of a file"),
        ('key_file = "a\\u0000b"', "key_file must be the path of a file"),
        # Of which directory?  Of the current one, which may be a repository of others.
        ('key_file = "api-key"', "key_file must be a complete path, or begin with ~/"),
        ('ca_file = "./ca.pem"', "ca_file must be a complete path, or begin with ~/"),
        ("aliases = 1", "aliases must be a table"),
        ("[aliases]\nweb = 'dm-a'", "aliases.web must look like a machine's name"),
        ("[aliases]\ndm-web = 'A_'", "aliases.dm-web is wrong: "),
        ("[aliases]\ndm-web = 1", "aliases.dm-web must be a string"),
        ("wake = 'sometimes'", 'wake must be "always" or "never"'),
        ("wake = true", 'wake must be "always" or "never"'),
        ("[wake]\n'dm-*' = 1", 'wake.dm-* must be "always"'),
        ("[wake]\n'DM-*' = 'never'", 'wake.DM-* is not a pattern'),
        ("[wake]\n'a\tb' = 'never'", 'wake.a b is not a pattern'),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, toml: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)
    assert said in caught.value.message
    assert str(tmp_path / "config.toml") in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\nwake_seconds = 100 # caf\xe9\n", "line 2 is not UTF-8 text"),
        ("wake_seconds = 100\n".encode("utf-16"), "line 1 is not UTF-8 text"),
        (b"a = " + b"[" * 5000, "it is nested too deeply"),
        (b"\0" * 100, "Invalid statement (at line 1, column 1)"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_settings({}, str(path))
    assert caught.value.message == f"{path}: {said}"
    hint = "save it as UTF-8 in your editor" if "UTF-8" in said else MANUAL
    assert caught.value.hint == hint
    path.write_bytes(b"\xef\xbb\xbfwake_seconds = 100\r\n")
    assert load_settings({}, str(path)).wake_seconds == 100


def test_a_setting_is_named_by_its_key_however_it_is_written(tmp_path: Path) -> None:
    for toml, key in (
        ("wake_secs = 1", "wake_secs"),
        ('"\\u0077ake_secs" = 1', "wake_secs"),
        ('[aliases]\ndm-a = "dm-b"\ndm-web = 1\n', "aliases.dm-web"),
        ('aliases.dm-a = "dm-b"\naliases."dm-web" = 1\n', "aliases.dm-web"),
        ('"a\\u001b[2J" = 1', "a [2J"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, toml)
        assert caught.value.message.startswith(f"{tmp_path}/config.toml: {key} "), caught.value


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml: .*line 2"):
        load(tmp_path, "wake_seconds = 1\nagent = \n")


@pytest.mark.parametrize("wrong", ["wake_second", "wake-seconds", "Wake_Seconds"])
def test_the_nearest_right_key_is_named(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{wrong} = 1")
    assert caught.value.hint == "did you mean wake_seconds?"


def test_a_key_like_no_other_is_answered_with_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "zzz = 1")
    names = ", ".join(field.name for field in fields(Settings))
    assert caught.value.hint == f"the settings are {names}"


def test_every_setting_has_a_check() -> None:
    assert list(module._CHECKS) == [field.name for field in fields(Settings)]


def test_the_page_of_settings_has_each_with_its_default(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "contrib" / "docs" / "settings.rst"
    tree = docutils.core.publish_doctree(page.read_text())
    rows = [
        [entry.astext() for entry in row.findall(docutils.nodes.entry)]
        for row in tree.findall(docutils.nodes.row)
    ]
    told = {row[0].strip("[]"): row[1] for row in rows if len(row) == 3}
    assert {field.name for field in fields(Settings)} <= set(told)
    defaults = {key: told[key] for key in module._CHECKS if told[key] != "none"}
    path = tmp_path / "config.toml"
    path.write_text("".join(f"{key} = {default}\n" for key, default in defaults.items()))
    environment = {"XDG_CONFIG_HOME": os.path.expanduser("~/.config")}
    assert load_settings(environment, str(path)) == load_settings(environment)
    unset = load_settings(environment)
    assert {key for key in module._CHECKS if getattr(unset, key)} == set(defaults)


def test_a_proxy_leads_everywhere_but_to_this_computer(tmp_path: Path) -> None:
    settings = load(tmp_path, 'proxy = "http://proxy.example:3128"')
    assert settings.proxy_to("ssh.dedaluslabs.ai") == HttpProxy("proxy.example", 3128)
    assert settings.proxy_to("localhost") is None
    assert settings.proxy_to("127.0.0.1") is None
    assert load(tmp_path, "").proxy_to("ssh.dedaluslabs.ai") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_proxys_password_is_for_its_owner_alone(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    path.write_text('proxy = "http://me:secret@proxy.example:3128"')
    path.chmod(mode)
    with pytest.raises(ConfigError, match="the proxy's password and is readable by") as caught:
        load_settings({}, str(path))
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    settings = load_settings({}, str(path))
    assert settings.proxy == HttpProxy("proxy.example", 3128, "me", "secret")
    assert "secret" not in repr(settings)


def test_a_wrong_proxy_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, 'proxy = "http://me:secret@proxy.example"')
    assert "secret" not in caught.value.one_line()


def test_a_wrong_base_url_in_the_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="DEDALUS_BASE_URL must begin with https"):
        load(tmp_path, "", DEDALUS_BASE_URL="http://example.com")


def test_a_wrong_variable_is_not_answered_with_the_manual_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "", DEDALUS_ORG_ID="a b")
    assert caught.value.hint == "correct or unset DEDALUS_ORG_ID"


def test_the_first_pattern_of_the_file_that_matches_decides_on_waking(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        aliases = {dm-night = "dm-0a1b"}
        [wake]
        "dm-ci-*" = "never"
        "dm-night" = "never"
        "dm-0a??" = "always"
        "dm-*" = "never"
        "dm-ci-1" = "always"
        """,
    )
    policies = [settings.wake_policy(MachineName(name))
                for name in ("dm-ci-1", "dm-0a1b", "dm-0a1c", "dm-0a1", "dm-x")]  # fmt: skip
    assert policies == ["never", "never", "always", "never", "never"]
    one = load(tmp_path, '[wake]\n"dm-a" = "never"')
    assert one.wake_policy(MachineName("dm-b")) == "always"


def test_the_environment_decides_on_waking_for_one_run(tmp_path: Path) -> None:
    toml = '[wake]\n"dm-a" = "always"\n"*" = "never"\n'
    for policy in ("always", "never"):
        settings = load(tmp_path, toml, DCS_PROXY_WAKE=policy)
        assert {settings.wake_policy(MachineName(n)) for n in ("dm-a", "dm-b")} == {policy}
    assert load(tmp_path, toml, DCS_PROXY_WAKE="").wake_policy(MachineName("dm-b")) == "never"
    with pytest.raises(ConfigError, match="DCS_PROXY_WAKE must be"):
        load(tmp_path, toml, DCS_PROXY_WAKE="maybe")


@pytest.mark.parametrize(
    ("toml", "environment", "place"),
    [
        ('wake = "ask"', {}, "config.toml: wake"),
        ('[wake]\n"dm-ci-*" = "never"\n"*" = "ask"', {}, "config.toml: wake.*"),
        ("", {"DCS_PROXY_WAKE": "ask"}, "DCS_PROXY_WAKE"),
    ],
)
def test_ask_is_refused_with_what_to_write_instead(
    tmp_path: Path, toml: str, environment: dict[str, str], place: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml, **environment)
    assert caught.value.message.endswith(f'{place} can no longer be "ask"')
    assert caught.value.hint.startswith('write "never": ')


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [("wake_seconds", 1, 3600), ("reuse_seconds", 0, 3600), ("connect_seconds", 1, 300)],
)
def test_seconds_have_a_first_and_a_last_value(
    tmp_path: Path, key: str, low: int, high: int
) -> None:
    for value in (low, high):
        assert getattr(load(tmp_path, f"{key} = {value}"), key) == value
    for value in (low - 1, high + 1):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, f"{key} = {value}")
        said = f"{key} must be a whole number of seconds from {low} to {high}"
        assert caught.value.message == f"{tmp_path}/config.toml: {said}"
