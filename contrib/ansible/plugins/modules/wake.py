#!/usr/bin/python
"""Documentation of the action plugin wake, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: wake
short_description: Wake machines before anything connects to them
version_added: 0.2.0
author: dcs-proxy maintainers (@dedalus)
description:
  - Runs C(dcs-proxy wake) on the computer that runs Ansible, and waits until each machine is
    ready. The next C(ssh) to each begins at once.
  - One run of the program wakes the machines of all hosts of the play (of the batch, with
    C(serial)) that have the same account, eight at a time, under any strategy. Each host gets
    the result of its own machine.
  - A host for which the task is skipped (C(when)) does not wake its machine.
  - Hosts that are not machines are skipped. A host is a machine if its C(dcs_name), which the
    inventory plugin sets, else its C(ansible_host), else its name is that of a machine.
  - Runs in check mode too, because tasks in check mode connect as well. Never reports a change.
  - Wakes under any wake policy, as C(dcs-proxy wake) does.
  - Options that are not given come from the variables C(dcs_program), C(dcs_home),
    C(dcs_config), C(dcs_api_key_file), C(dcs_base_url) and C(dcs_org_id) of the host, which
    the inventory plugin sets. So one task serves several accounts.
extends_documentation_fragment:
  - dedalus.dcs.program
options:
  names:
    description:
      - Names, short names or aliases of the machines to wake, instead of those of the hosts.
      - A host that is none of them gets the result of those that are not hosts of the play.
    type: list
    elements: str
seealso:
  - plugin: dedalus.dcs.machines
    plugin_type: inventory
attributes:
  check_mode:
    support: full
    description: Runs in check mode as it does otherwise.
  action:
    support: full
    description: Runs on the controller.
"""

EXAMPLES = r"""
- name: Wake the machines of the play
  dedalus.dcs.wake:
  register: wake

- name: Say how long it took
  ansible.builtin.debug:
    msg: "{{ wake.msg }}"
  when: wake.woken | default(false)

- name: Wake machines that are not hosts of the play
  dedalus.dcs.wake:
    names: [dm-db, dm-cache]
"""

RETURN = r"""
msg:
  description: The outcome in words, for example C(dm-a; woken, ready after 3.2 s).
  returned: always
  type: str
woken:
  description: Whether a machine had to wake up.
  returned: when a machine was woken or found ready
  type: bool
seconds:
  description: How long it took until the machine was ready. Null if that is not known.
  returned: when a machine was woken or found ready
  type: float
machines:
  description: The outcome for each machine, here usually one.
  returned: when the program ran
  type: list
  elements: dict
  contains:
    machine:
      description: The full name, if it is known.
      type: str
    failed:
      description: Whether it is not ready.
      type: bool
    woken:
      description: Whether it had to wake up.
      type: bool
    seconds:
      description: How long it took until it was ready.
      type: float
    msg:
      description: The outcome in words.
      type: str
"""
