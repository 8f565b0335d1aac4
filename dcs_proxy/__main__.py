"""Run the program as ``python -m dcs_proxy``."""

from dcs_proxy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
