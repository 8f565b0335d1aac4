from __future__ import annotations

import sys

import pytest

from dcs_proxy.local.alias_editor import remove_alias, set_alias
from dcs_proxy.names import MachineName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

WEB, DB, FOO = MachineName("dm-web"), MachineName("dm-db"), MachineName("dm-foo")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine\nwake_seconds = 20 # long\n",
        "[wake]\n'dm-*' = \"never\"\n",
        "[aliases]\n# the data base\ndm-db = 'dm-0a1b'   # old\n\n[wake]\n'*' = 'always'\n",
        "aliases = { dm-db = 'dm-0a1b' }\n",
        "aliases.dm-db = 'dm-0a1b'\nagent = 'user'\n",
        "agent = 'user'\r\n[aliases]\r\ndm-db = 'dm-0a1b'\r\n",
    ],
)
def test_an_alias_is_set_and_removed_and_the_rest_stays(text: str) -> None:
    before = tomllib.loads(text)
    with_alias = set_alias(text, WEB, FOO)
    parsed = tomllib.loads(with_alias)
    assert parsed.pop("aliases") == {**before.get("aliases", {}), WEB: FOO}
    assert parsed == {key: value for key, value in before.items() if key != "aliases"}
    for comment in ("# mine", "# long", "# the data base", "# old"):
        assert (comment in with_alias) == (comment in text)
    without = tomllib.loads(remove_alias(with_alias, WEB))
    assert {**without, "aliases": without["aliases"]} == {"aliases": {}, **before}


def test_what_is_not_touched_stays_to_the_byte() -> None:
    text = "# a\n\n[aliases]\ndm-db  =  'dm-0a1b' # b\n\n# c\n[wake]\n\"*\"='never'\n"
    assert remove_alias(set_alias(text, WEB, FOO), WEB) == text
    changed = set_alias(text, DB, FOO)
    assert [line for line in changed.splitlines() if "dm-db" not in line] == [
        line for line in text.splitlines() if "dm-db" not in line
    ]


def test_a_byte_order_mark_does_not_prevent_an_alias() -> None:
    text = set_alias("\ufeff# mine\n", MachineName("dm-web"), MachineName("dm-foo"))
    assert text == '# mine\n\n[aliases]\ndm-web = "dm-foo"\n'
    assert remove_alias(f"\ufeff{text}", WEB) == "# mine\n\n[aliases]\n"
