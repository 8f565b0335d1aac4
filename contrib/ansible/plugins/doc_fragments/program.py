"""Documentation of the options with which the program dcs-proxy is found and run."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that every plugin which runs dcs-proxy has."""

    DOCUMENTATION = r"""
options:
  program:
    description:
      - The program C(dcs-proxy), a name in C(PATH) or a path; C(~) is the home directory.
      - It need not be installed for the Python that runs Ansible.
    type: str
    default: dcs-proxy
  home:
    description:
      - The state directory of C(dcs-proxy), if it is not the default one (C(--home)).
    type: path
  config:
    description:
      - The config file of C(dcs-proxy), if it is not the default one (C(--config)).
      - Give the same to C(dcs-proxy config-ssh), so that ssh knows the same aliases.
    type: path
  timeout:
    description:
      - How many seconds the program may take to list the machines.
    type: int
    default: 60
requirements:
  - the program C(dcs-proxy), with an API key as C(dcs-proxy login) or C(DEDALUS_API_KEY) gives it
  - C(dcs-proxy config-ssh) has written its block into the ssh config
"""
