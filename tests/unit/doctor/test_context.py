"""What the checks share."""

from __future__ import annotations

import base64
from pathlib import Path

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import Options
from dcs_proxy.doctor.context import Context
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings


def test_every_secret_is_known_wherever_it_was_found(tmp_path: Path) -> None:
    environment = {
        "DEDALUS_API_KEY": " dsk-1\n",
        "DEDALUS_X_API_KEY": "dsk-2",
        "DEDALUS_BASE_URL": "https://me:dsk-3@api.example",
        "all_proxy": "http://me:dsk-4@proxy.example",
        "HTTPS_PROXY": "http://me:dsk-5@proxy.example",
    }
    context = Context(Options(str(tmp_path)), environment, "/c", False, None)
    assert {f"dsk-{number}" for number in range(1, 6)} <= context.secrets()
    context.credentials = Credentials("dsk-6", "dsk-7", "elsewhere")
    key_file = tmp_path / "key"
    key_file.write_text("dsk-8\n")
    proxy = HttpProxy("proxy.example", 3128, "me", "dsk-9")
    context.settings = Settings(key_file=str(key_file), proxy=proxy)
    sent = base64.b64encode(b"me:dsk-9").decode()
    assert {*(f"dsk-{number}" for number in range(1, 10)), sent} <= context.secrets()
