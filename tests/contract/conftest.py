"""Fixtures of the contract tests: those of the integration tests."""

from tests.integration.conftest import ids, make_user, start_emulator, user

__all__ = ["ids", "make_user", "start_emulator", "user"]
