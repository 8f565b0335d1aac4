"""A user and group database that the test chooses."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest


class Groups:
    """Who is in the group of every file: the user alone, unless a test says otherwise.

    The files of the test belong to group "ours".  `first_groups` is the group of each user, by
    number ("me" is 1000), in the list of all users; `members` are those that group "ours" lists
    itself; `is_known` says whether it has an entry.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first_groups = {1000: "ours"}
        self.members: list[str] = []
        self.is_known = True
        monkeypatch.setattr("grp.getgrgid", self._group)
        monkeypatch.setattr("pwd.getpwuid", self._user)
        monkeypatch.setattr("pwd.getpwall", self._users)
        self._gid = os.getegid()

    def _user(self, uid: int) -> SimpleNamespace:
        return SimpleNamespace(pw_name="me", pw_dir=os.path.expanduser("~"))

    def _group(self, gid: int) -> SimpleNamespace:
        if not self.is_known:
            raise KeyError(gid)
        return SimpleNamespace(gr_mem=self.members)

    def _users(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                pw_uid=os.geteuid() if uid == 1000 else 2**31 - 1,
                pw_gid=self._gid if group == "ours" else 2**31 - 1,
            )
            for uid, group in self.first_groups.items()
        ]
