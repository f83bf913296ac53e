"""A function replayed as one CUDA graph: small mini-batches leave a GPU waiting for its next launch."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

ONE_AT_A_TIME = threading.Lock()  # what several threads of a process must not do at once, such as a capture
WARM_UP = 3  # calls before the capture: they make optimisers' state and choose algorithms


class Captured:
    """``function(*inputs)`` for CUDA tensors of the same shapes, captured at the fourth call and replayed from then on.

    The first calls run as they are, so nothing is computed twice or for nothing. What the function changes must be
    tensors changed in place (weights, ``rng_state``, learning rates), it must not wait for the device, and its result
    is overwritten by the next call.

    It is captured on the stream that is the thread's when this is made, or on a new one where that is the default one,
    which cannot be captured. torch has 32 streams and then hands out the first again, so with two for each thread, the
    17th thread would capture on a stream on which another works.
    (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)

    Attributes:
        function: takes tensors and returns one.
    """

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function
        current = torch.cuda.current_stream()
        self._stream = torch.cuda.Stream() if current == torch.cuda.default_stream() else current
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._graph is None:
            self._calls += 1
            if self._calls <= WARM_UP:
                return self._aside(inputs)
            self._capture(inputs)
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._output

    def _aside(self, inputs: tuple[Tensor, ...]) -> Tensor:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            result = self.function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = [torch.empty_like(given) for given in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # "thread_local": other instances train in other threads meanwhile
        with ONE_AT_A_TIME, torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._output = self.function(*self._inputs)
