"""The emulator against the service's contract, judged by programs that are not ours."""
