"""What a client is given. Times are in seconds."""
from __future__ import annotations

import dataclasses
from typing import Optional, TypedDict

FINISH = {1: "stop", 2: "length", 3: "abort"}  # tr_finish of transport/schema.h


Logprobs = list[tuple[int, float]]  # token ids and log-probabilities: the token itself, then the likeliest


class Parameters(TypedDict, total=False):
    """Of a request; the fields of `add` in docs/messages.md, whose bounds the company checks. None is as absent."""
    max_tokens: Optional[int]  # 64
    temperature: Optional[float]  # 0 or absent: greedy
    top_p: Optional[float]
    top_k: Optional[int]
    min_p: Optional[float]
    seed: Optional[int]
    presence_penalty: Optional[float]
    frequency_penalty: Optional[float]
    repetition_penalty: Optional[float]
    bias_tokens: Optional[list[int]]
    bias: Optional[list[float]]  # on the logits of bias_tokens, one each
    stop: Optional[list[str]]
    stop_tokens: Optional[list[int]]
    include_stop: Optional[bool]
    ignore_eos: Optional[bool]
    min_tokens: Optional[int]
    show_special: Optional[bool]
    logprobs: Optional[int]  # 0, or 1 + how many of the likeliest are told with each token
    n: Optional[int]  # samples of the prompt
    parse_special: Optional[bool]
    marked: Optional[bool]
    no_bos: Optional[bool]
    forced: Optional[int]
    save: Optional[str]
    restore: Optional[str]
    restore_end: Optional[int]
    cache_salt: Optional[str]
    priority: Optional[int]  # the smaller comes first
    timeout_ms: Optional[int]


class TroupeError(Exception):
    """Whatever goes wrong in this package."""


class Unavailable(TroupeError):
    """No company runs there, or it takes nothing new."""


class Lost(TroupeError):
    """The company ended, was started anew, or is silent: the request may be added again."""


class Failed(TroupeError):
    """The company's answer to one request. code: 64 a value that is not allowed, 65 the prompt, 69 full or draining (try
    again later), 70 it failed at this request, 75 its time is over."""

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
    logprobs: Optional[list[Optional[Logprobs]]] = None  # one a token, where asked for; None: lost with a restart


@dataclasses.dataclass(frozen=True)
class Result:
    """All of a sample."""
    text: str
    tokens: list[int]
    finish: str
    figures: Figures
    sample: int = 0
    logprobs: Optional[list[Optional[Logprobs]]] = None
