"""Client of a running troupe company.

    with troupe.Client() as client:                       # the company named "default"; or a name, or an endpoint
        print(client.generate("Once upon a time", max_tokens=32).text)
        for piece in client.stream("Once upon a time", max_tokens=32):
            print(piece.text, end="", flush=True)

AsyncClient has the same methods as coroutines and asynchronous iterators. Both keep the connection alive, connect again after
a restart and deliver every token and every byte once (docs/protocol.md)."""
from .aio import AsyncClient
from .client import Client
from .types import Failed, Figures, Info, Logprobs, Lost, Parameters, Piece, Result, TroupeError, Unavailable

__all__ = ["AsyncClient", "Client", "Failed", "Figures", "Info", "Logprobs", "Lost", "Parameters", "Piece", "Result",
           "TroupeError", "Unavailable"]
