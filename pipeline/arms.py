"""What an experiment file says of an arm, with its defaults."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

Entry = Literal["generator", "collision", "both"]
Input = Literal["replace", "append", "rerendered", "observed"]
# What only an arm with a command has.
_OF_COMMANDS = ("command", "frame", "version", "timeout", "directory")


class FrozenModel(BaseModel):
    """A part of an experiment file: read once, never changed, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def split_command(command: Any) -> Any:
    """Split a command into words, if it is a text, and see to it that it names both of its folders."""
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"`command` cannot be split into words ({error}); write it as a list") from None
    if isinstance(command, list | tuple):
        for place in ("{input}", "{output}"):
            if not any(place in str(word) for word in command):
                raise ValueError(f"`command` must name {place}, the folder it is to find or to fill")
        return [str(word) if isinstance(word, int | float) else word for word in command]
    return command


def version_text(version: Any) -> Any:
    return str(version) if isinstance(version, int | float) else version  # YAML reads 1.2 as a number


Command = Annotated[tuple[str, ...], BeforeValidator(split_command)]
VersionText = Annotated[str, BeforeValidator(version_text)]


class Arm(FrozenModel):
    """One way of completing. Arms of one experiment should differ in one thing only.

    Attributes:
        name: letters, digits, ``.``, ``_`` and ``-``; names the arm's folder.
        completion: ``none`` (the partial cloud itself), ``truth`` (the true model), ``checkpoint`` or ``command``;
            left out: ``command`` where there is a command, else ``checkpoint``.
        checkpoint: a checkpoint folder, or the name of one that ships with us.
        checkpoints: several of them instead, alike in everything but the training seed: the arm is then their mean, and
            its intervals count seeds as well as scenes. Arms with equally many are paired by place in the list: give
            the same seeds in the same order.
        merge: ``replace`` (the completion's points only) or ``append`` (the observation kept beside them); left out:
            what the checkpoint declares, and ``replace`` of a command.
        entry: where completion enters, overriding the experiment's ``entry`` for this arm.
        command: a program that completes clouds, and its arguments, as one text or a list; no shell is between.
            ``{input}`` and ``{output}`` become the folders of :mod:`pipeline.command_completer`.
        frame: in which the command wants its clouds and gives them back: ``camera``, ``table`` or ``canonical``.
        version: of the method behind the command. What it made is stale when the command line, a file that it names
            or this changes; other files of the method are not looked at.
        timeout: seconds that the command may take for one unit (a scene and camera).
        directory: where the command runs; relative paths count from the experiment file, whose folder it is by default.
    """

    name: str
    completion: Literal["none", "truth", "checkpoint", "command"] = "checkpoint"
    checkpoint: str | None = None
    checkpoints: tuple[str, ...] | None = None
    merge: Literal["replace", "append"] | None = None
    entry: Entry | None = None
    command: Command | None = None
    frame: Literal["camera", "table", "canonical"] | None = None
    version: VersionText | None = None
    timeout: Annotated[float, Field(gt=0)] | None = None
    directory: Path | None = None

    @model_validator(mode="before")
    @classmethod
    def _command_defaults(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("command") is None:
            return content
        defaults = {"completion": "command", "merge": "replace", "frame": "camera", "timeout": 3600.0}
        return {**content, **{key: value for key, value in defaults.items() if content.get(key) is None}}

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"arm name {name!r} names a folder: use letters, digits, '.', '_' and '-'")
        return name

    @model_validator(mode="after")
    def _checkpoint_named(self) -> Arm:
        if self.checkpoints is not None:
            if self.checkpoint is not None:
                raise ValueError(f"arm {self.name!r}: give either `checkpoint` or `checkpoints`, not both")
            if len(self.checkpoints) < 2:
                raise ValueError(f"arm {self.name!r}: `checkpoints` lists two or more; one goes under `checkpoint`")
            if len(set(self.checkpoints)) < len(self.checkpoints):
                raise ValueError(f"arm {self.name!r}: `checkpoints` names one twice; each counts once")
        if self.completion == "checkpoint" and self.checkpoint is None and self.checkpoints is None:
            raise ValueError(
                f"arm {self.name!r} needs `checkpoint:` (a folder or a shipped name), `command:`, or `completion: none`"
            )
        if self.completion == "command" and self.command is None:
            raise ValueError(f"arm {self.name!r} needs `command:`, a program that completes {{input}} into {{output}}")
        if self.completion != "checkpoint" and (self.checkpoint or self.checkpoints) is not None:
            raise ValueError(f"arm {self.name!r}: `checkpoint` goes with `completion: checkpoint`")
        if self.completion in ("none", "truth") and self.merge is not None:
            raise ValueError(f"arm {self.name!r}: `merge` goes with a checkpoint or a command")
        if self.completion != "command":
            for key in _OF_COMMANDS:
                if getattr(self, key) is not None:
                    raise ValueError(f"arm {self.name!r}: `{key}` goes with `command:`")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Arms without a command or seeds are what they were before there were any: their runs stay current.
        content: dict[str, Any] = handler(self)
        for key in (*_OF_COMMANDS, "checkpoints"):
            if content.get(key) is None:
                content.pop(key, None)
        return content

    @property
    def is_learned(self) -> bool:
        """Whether it stands between ``partial`` and the true model: a checkpoint or a command."""
        return self.completion in ("checkpoint", "command")

    def members(self) -> tuple[Arm, ...]:
        """Return what is completed, generated and scored for this arm: itself, or one arm a training seed.

        A member's name, ``<arm>@<place>``, names its folder; no arm of a file can be called so.
        """
        if self.checkpoints is None:
            return (self,)
        return tuple(
            self.model_copy(update={"name": f"{self.name}@{place}", "checkpoint": checkpoint, "checkpoints": None})
            for place, checkpoint in enumerate(self.checkpoints)
        )
