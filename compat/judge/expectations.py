r"""Known failures as data: TOML files say which gap is expected, whose it is and until when.

One file per hardware below ``fixtures/expectations/``::

    [[expect]]
    case = "whisper-*/qualcomm-*/int8-a8w8"   # pattern on case ids; * also crosses the slashes
    check = "accuracy.*"                      # pattern on check names
    owner = "vendor"                          # ours | vendor | never
    error = "SNR 1\\d"                        # expected in the reason: a substring or a regex
    link = "https://..."                      # required for the vendor's
    version = "onnxruntime < 1.33"            # optional: one requirement or a list, all must hold
    expires = 2027-03-01                      # required unless never
    reason = "..."                            # what is wrong and what would end it

An expectation is strict: a case that passes although one matches is reported, so that a fix is
noticed, and one that matches no case at all, or has expired, is a problem of the file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase, translate
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from compat.contract.errors import CompatError
from compat.judge.entries import Format

Owner = Literal["ours", "vendor", "never"]
OWNERS: tuple[str, ...] = get_args(Owner)

FORMAT = Format(
    name="expectation",
    table="expect",
    required=("case", "check", "owner", "error", "reason"),
    optional=("link", "version", "expires"),
    if_absent="Check the path; one file per hardware lies below fixtures/expectations/.",
    if_broken=". A backslash in a regular expression needs single quotes ('\\d') or doubling.",
)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One known failure."""

    id: str
    """File and number of the entry, as ``qualcomm#2``."""
    case: str
    check: str
    owner: Owner
    """Who can close the gap: this project, the vendor, or nobody."""
    error: str
    reason: str
    link: str = ""
    versions: tuple[str, ...] = ()
    expires: date | None = None
    """The first day on which the expectation no longer holds."""
    origin: str = ""
    """Path and line, for messages."""

    def covers(self, case_id: str, check: str) -> bool:
        """Whether the patterns match a check of a case; versions and date do not count here."""
        return fnmatchcase(case_id, self.case) and fnmatchcase(check, self.check)

    def holds(self, versions: Mapping[str, str], today: date) -> bool:
        """Whether the expectation has not expired and every version requirement is met.

        A package that is not in ``versions``, or whose version is not one, meets no requirement.
        """
        return not self.expired(today) and all(_met(text, versions) for text in self.versions)

    def expired(self, today: date) -> bool:
        """Whether the date of expiry has come."""
        return self.expires is not None and today >= self.expires

    def explains(self, reason: str) -> bool:
        """Whether the expected error, as a substring or a regular expression, is in the reason."""
        if self.error in reason:
            return True
        try:
            return re.search(self.error, reason) is not None
        except re.error:
            return False


@dataclass(frozen=True, slots=True)
class Expectations:
    """All known failures, in the order in which they were read."""

    entries: tuple[Expectation, ...] = ()

    def match(
        self,
        case_id: str,
        check: str,
        versions: Mapping[str, str],
        today: date,
        reason: str | None = None,
    ) -> Expectation | None:
        """Return the first expectation that holds for a check of a case.

        Args:
            case_id: as in :attr:`compat.contract.case.Case.id`.
            check: name of the check.
            versions: installed versions by package name.
            today: the date to judge expiry by.
            reason: why the check failed. If it is given, only an expectation whose error is found
                in it matches, so that a case with two known failures finds the right one and an
                unexpected error finds none.
        """
        for entry in self.entries:
            if (
                entry.covers(case_id, check)
                and entry.holds(versions, today)
                and (reason is None or entry.explains(reason))
            ):
                return entry
        return None

    def audit(
        self, case_ids: Iterable[str], today: date, checks: Collection[str] | None = None
    ) -> tuple[str, ...]:
        """Return a sentence for each entry that matches nothing in the catalog, or has expired.

        Args:
            case_ids: every case of the catalog, not only the selected ones.
            today: the date to judge expiry by.
            checks: names of all checks; None leaves the check patterns unexamined.
        """
        known = tuple(case_ids)
        problems: list[str] = []
        for entry in self.entries:
            # A catalog has twenty thousand cases: the loop over them must not be Python's.
            if not any(map(re.compile(translate(entry.case)).match, known)):
                problems.append(
                    f"{entry.origin}: case = {entry.case!r} matches no case of the catalog. "
                    "Correct the pattern, or delete the entry."
                )
            if checks is not None and not any(fnmatchcase(check, entry.check) for check in checks):
                problems.append(
                    f"{entry.origin}: check = {entry.check!r} matches no check "
                    f"({', '.join(sorted(checks))}). Correct the pattern, or delete the entry."
                )
            if entry.expired(today):
                problems.append(
                    f"{entry.origin}: expired on {entry.expires}. Look whether the gap is closed; "
                    "then delete the entry, or set a later date with the reason."
                )
        return tuple(problems)


def load(paths: Iterable[Path]) -> Expectations:
    """Read expectations from files, and from every ``*.toml`` of folders.

    Raises:
        CompatError: a file cannot be read, is not TOML, or has an entry that is not valid.
    """
    entries: list[Expectation] = []
    for given in paths:
        for path in sorted(given.glob("*.toml")) if given.is_dir() else [given]:
            read = FORMAT.entries(path, FORMAT.read(path))
            entries += [
                _entry(f"{path.stem}#{number}", *found) for number, found in enumerate(read, 1)
            ]
    return Expectations(tuple(entries))


def _entry(identity: str, origin: str, row: Mapping[str, Any]) -> Expectation:
    owner = row["owner"]
    if owner not in OWNERS:
        raise CompatError(
            f"{origin}: owner = {owner!r}; it is ours (this project can close the gap), vendor "
            "(upstream must) or never (it cannot be closed)."
        )
    _check_error(origin, row["error"])
    link = row.get("link", "")
    if not isinstance(link, str) or (link and not re.match(r"https?://\S+$", link)):
        raise CompatError(f"{origin}: link must be an http or https address.")
    if owner == "vendor" and not link:
        raise CompatError(
            f'{origin}: a gap of the vendor\'s needs link = "https://...", the upstream report.'
        )
    expires = row.get("expires")
    if expires is not None and (not isinstance(expires, date) or isinstance(expires, datetime)):
        raise CompatError(f"{origin}: expires must be a date without quotes, as 2027-03-01.")
    if expires is None and owner != "never":
        raise CompatError(
            f"{origin}: add expires = 2027-03-01 (a date by which somebody looks again); only "
            'owner = "never" does without.'
        )
    return Expectation(
        id=identity,
        case=row["case"],
        check=row["check"],
        owner=owner,
        error=row["error"],
        reason=row["reason"].strip(),
        link=link,
        versions=tuple(_requirements(origin, row.get("version", []))),
        expires=expires,
        origin=origin,
    )


def _check_error(origin: str, error: str) -> None:
    try:
        vague = re.search(error, "") is not None
    except re.error:
        return  # Not a regular expression: a plain substring.
    if vague:
        raise CompatError(
            f"{origin}: error = {error!r} matches every failure. Quote the part of the message "
            "that tells this failure from another."
        )


def _requirements(origin: str, given: Any) -> Iterator[str]:
    for text in [given] if isinstance(given, str) else given if isinstance(given, list) else [None]:
        try:
            requirement = Requirement(text) if isinstance(text, str) else None
        except InvalidRequirement:
            requirement = None
        if (
            requirement is None
            or not requirement.specifier
            or requirement.url
            or requirement.marker
        ):
            raise CompatError(
                f"{origin}: version = {text!r} is no requirement; write it as "
                '"onnxruntime >= 1.30, < 1.33".'
            )
        yield str(requirement)


def _met(text: str, versions: Mapping[str, str]) -> bool:
    requirement = Requirement(text)
    wanted = canonicalize_name(requirement.name)
    for name, version in versions.items():
        if canonicalize_name(name) == wanted:
            try:
                return requirement.specifier.contains(version, prereleases=True)
            except InvalidVersion:
                return False
    return False
