"""Documentation of the options that say how to run dcs-proxy and with which account."""

from __future__ import annotations


class ModuleDocFragment:
    """Options of all plugins that run dcs-proxy."""

    DOCUMENTATION = r"""
options:
  program:
    description:
      - The program C(dcs-proxy), as a name in C(PATH) or a path. C(~) is the home directory.
      - It need not be installed for the Python that runs Ansible.
    type: str
    default: dcs-proxy
  home:
    description:
      - The state directory (C(dcs-proxy --home)), if it is not the default one.
    type: path
  config:
    description:
      - The config file (C(dcs-proxy --config)), if it is not the default one.
      - The ssh config must be written with the same one.
    type: path
  api_key:
    description:
      - The API key, usually from a vault or a lookup.
      - Only C(dcs-proxy) as run by this plugin gets it, in its environment. The C(ssh) that
        Ansible runs does not, so an account whose key is only given here must wake its machines
        before each session ends. Prefer C(key_file) in the O(config) file.
    type: str
  api_key_file:
    description:
      - A file that contains only the API key. Excludes O(api_key), and the same applies.
      - C(dcs-proxy) refuses a file that other users can read, change or replace.
    type: path
  base_url:
    description:
      - The base URL of the API. Overrides that of the O(config) file.
    type: str
  org_id:
    description:
      - The organisation. Overrides that of the O(config) file.
    type: str
requirements:
  - the program C(dcs-proxy)
  - an API key, as C(dcs-proxy login), a key file or C(DEDALUS_API_KEY) provides it
  - an ssh config written by C(dcs-proxy config-ssh)
"""
