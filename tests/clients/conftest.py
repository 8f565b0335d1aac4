"""Fixtures of the client tests: those of the integration tests."""

from tests.integration.conftest import keyring, make_user, start_emulator, user

__all__ = ["keyring", "make_user", "start_emulator", "user"]
