"""What a client is given. Times are in seconds."""
from __future__ import annotations

import dataclasses
from typing import Optional

FINISH = {1: "stop", 2: "length", 3: "abort"}  # tr_finish of transport/schema.h


class TroupeError(Exception):
    """Whatever goes wrong in this package."""


class Unavailable(TroupeError):
    """No company runs there, or it takes nothing new."""


class Lost(TroupeError):
    """The company ended, was started anew, or is silent: the request may be added again."""


class Failed(TroupeError):
    """The company's answer to one request. code: 64 a value that is not allowed, 65 the prompt, 69 full or draining (try
    again later), 70 it failed at this request."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(frozen=True)
class Info:
    model: str
    vocab: int
    context: int
    instruct: bool
    company: int  # random id of this start of the company


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of a sample that has ended, from the moment the company had accepted the request."""
    prompt_tokens: int
    cached_tokens: int  # of the prompt, taken from the prefix cache
    generated_tokens: int
    queue: float
    first_token: float
    total: float
    handoff: float  # inside the resharder
    handoff_visible: float  # of that, what the prefill did not hide
    handoff_bytes: int
    saved_bytes: int
    note: str  # what became of save and restore


@dataclasses.dataclass(frozen=True)
class Piece:
    """More of a sample's output; the last one has finish and figures."""
    text: str
    tokens: list[int]
    index: int = 0  # of the first token, counted in the sample
    sample: int = 0
    finish: Optional[str] = None  # "stop", "length", "abort"
    figures: Optional[Figures] = None


@dataclasses.dataclass(frozen=True)
class Result:
    """All of a sample."""
    text: str
    tokens: list[int]
    finish: str
    figures: Figures
    sample: int = 0
