"""RTTM files: audio, RTTM and UEM files that match by name (AMI, VoxConverse)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from compat.inputs.audio import AUDIO, CorpusError, audio_seconds
from compat.inputs.layouts.layout import Entry, Layout, Part, files, inside
from compat.inputs.rttm import Said, Turns, by_plain_name, read_turns, read_uem


def claims(path: Path) -> bool:
    """Return whether a path has this form."""
    return path.is_dir() and any(files(path, (".rttm",)))


def read(folder: Path, corpus: Path) -> Sequence[Part]:
    """Match RTTM and UEM files below a folder with audio files, by the recording's name."""
    audio = list(files(folder, AUDIO))
    rttm = _gather(folder, ".rttm", lambda path: read_turns(path) or {path.stem: Turns()})
    uem = _gather(folder, ".uem", read_uem)
    unknown = sorted(uem.keys() - rttm.keys())
    if unknown:
        raise CorpusError(
            f"{uem[unknown[0]][1]} speaks of {unknown[0]}, of which there is no RTTM: add one (an "
            f"empty file {unknown[0]}.rttm if nobody speaks), or remove the line."
        )
    entries = []
    for name, (turns, file) in sorted(rttm.items(), key=lambda one: one[0]):
        recording = _recording(audio, name, file)
        inside(folder, recording.relative_to(folder).as_posix(), str(file))
        if uem and name not in uem:
            raise CorpusError(
                f"{folder}: there are UEM files, and none of them speaks of {name}. Add a line "
                f'to one: "{name} 1 0.000 {audio_seconds(recording):.3f}" scores all of it.'
            )
        fields: dict[str, Any] = {
            "id": name,
            "audio_filepath": recording.relative_to(folder).as_posix(),
            "segments": turns.segments,
            "noscore": turns.noscore,
        }
        if uem:
            fields["uem"] = uem[name][0]
        entries.append(Entry(str(file), fields))
    return [Part(folder, entries)]


def _gather(
    folder: Path, ending: str, read: Callable[[Path], Mapping[str, Said]]
) -> dict[str, tuple[Said, Path]]:
    """Read every file with an ending; return each recording's content and the file it is from."""
    found: dict[str, tuple[Said, Path]] = {}
    for path in files(folder, (ending,)):
        inside(folder, path.relative_to(folder).as_posix(), str(folder))
        for name, said in by_plain_name(read(path), path).items():
            if name in found:
                raise CorpusError(
                    f"{found[name][1]} and {path} both speak of {name}: keep one of them."
                )
            found[name] = said, path
    return found


def _recording(audio: Sequence[Path], name: str, file: Path) -> Path:
    """Return the audio file of a recording that an RTTM file names.

    File names of AMI include the microphone (``ES2004a.Mix-Headset.wav``). If a recording has
    several files, the mix of the headsets is taken, because published diarization results use it.
    """
    fitting = [path for path in audio if path.stem == name]
    if not fitting:
        fitting = [path for path in audio if path.stem.startswith(f"{name}.")]
        mixed = [path for path in fitting if path.stem == f"{name}.Mix-Headset"]
        fitting = mixed or fitting
    if not fitting:
        raise CorpusError(
            f"{file} speaks of {name}, of which there is no audio file: add {name}.wav (or "
            f"{', '.join(AUDIO[1:])}), or remove what is said of it."
        )
    if len(fitting) > 1:
        several = ", ".join(map(str, fitting[:3]))
        raise CorpusError(f"{file} speaks of {name}, which may be {several}: keep one of them.")
    return fitting[0]


LAYOUT = Layout("RTTM files", claims, read, deep=True, splits=False)
