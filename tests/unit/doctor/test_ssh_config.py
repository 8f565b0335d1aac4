from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.doctor.ssh_config import parse_program
from dcs_proxy.openssh.config_text import Program, render_top
from dcs_proxy.openssh.version import Version

SSH = Version(9, 6)
PATHS = st.lists(
    st.text(alphabet="abc xyz.-_%/é+$#&;()~", min_size=1).map(lambda text: f"/{text}"),
    min_size=1, max_size=3,
)  # fmt: skip


@given(PATHS, PATHS, st.booleans())
def test_the_program_that_a_block_runs_is_read_back(
    words: list[str], more: list[str], named: bool
) -> None:
    program = Program((*words, "-I"), more[0], more[-1] if named else None)
    assert parse_program(render_top(program, [], SSH)) == program


@given(st.text())
def test_any_text_is_a_program_or_none(text: str) -> None:
    parse_program(text)
    parse_program(f'Match originalhost x exec "exec {text} prepare %h"')
