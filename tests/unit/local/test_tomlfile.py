from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.local.tomlfile import line_of, parse

KEYS = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
# Values that take several lines, some of which look like settings.
VALUES = st.sampled_from(
    ["1", '"a"', '"""\na = 1\nb = 2\n"""', "'''\n[c]\n'''", "[\n  1, # a = 1\n  2,\n]", '"# a"']
)
BETWEEN = st.sampled_from(["", "\n", "# a = 1\n", "\n  # b\n\n"])


@given(
    st.dictionaries(KEYS, st.tuples(BETWEEN, VALUES), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_the_line_of_every_key_is_found(
    settings: dict[str, tuple[str, str]], newline: str, in_table: bool
) -> None:
    text = "[table]\n" if in_table else ""
    expected = {}
    for key, (before, value) in settings.items():
        text += before
        expected[key] = text.count("\n") + 1
        text += f"{key} = {value}\n"
    text = text.replace("\n", newline)
    parse(text)
    found = {key: line_of(text, ["table", key] if in_table else [key]) for key in settings}
    assert found == expected
