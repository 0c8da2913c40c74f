"""Profiles: how much of the catalog a run measures, and on how many inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Profile:
    """The thoroughness of a run. Results of a quick run never replace those of a fuller one."""

    name: str
    rank: int
    """Order of thoroughness, 0 for the least. Evidence of a higher rank counts first."""
    rounds: int
    """Timed rounds. 44 are the fewest that bound the 90th percentile at 99 % confidence."""
    examples: int
    """Hard inputs that the search beyond the fixed list tries."""
    first_look: bool = False
    """Whether it is to end within minutes, with beginnings of recordings and no costly checks."""
    brief: bool = False
    """Whether it keeps only a part of a first look's inputs, for targets that are slow."""
    whole: bool = False
    """Whether it takes every variant, recipe, check and hard input, as the full profile does."""

    def pick(self, quick: T, core: T, full: T) -> T:
        """Return one of three values: that of a first look, of the usual run, of a whole one."""
        if self.whole:
            return full
        return quick if self.first_look else core


BRIEF = Profile("brief", 0, 4, 5, first_look=True, brief=True)
QUICK = Profile("quick", 0, 4, 5, first_look=True)
CORE = Profile("core", 1, 8, 15)
FULL = Profile("full", 2, 44, 100, whole=True)
PROFILES = {profile.name: profile for profile in (BRIEF, QUICK, CORE, FULL)}
"""Every profile by its name; requests and results files hold the name."""
