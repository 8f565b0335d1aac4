"""Fixtures of the contract tests: those of the integration tests."""

from tests.integration.conftest import make_user, start_emulator, user

__all__ = ["make_user", "start_emulator", "user"]
