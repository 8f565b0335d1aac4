"""Unit tests of the emulator: the rules that it holds every client to."""
