from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.doctor.ssh_config import read_program


@given(st.text())
def test_any_block_names_a_program_or_none(text: str) -> None:
    assert read_program(text) is None
    assert read_program(f'Match originalhost x exec "exec {text} prepare %h"') is None
    assert read_program(f'Match originalhost x exec "exec /bin/sh {os.devnull} prepare %h"') is None
