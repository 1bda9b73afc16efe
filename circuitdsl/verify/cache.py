"""What is known already of a task on a model: which numbers a store holds, and under which names.

A number is found again only if everything that it depends on is the same:

- the weights, and what the model computes with them
- the code that measures, ours and that of the package that a measurement or metric is from
- torch, numpy, TransformerLens, the device and the number format; not the number of threads (`engine.workers`)
- the metric and the patch
- the prompt's tokens, its answers, and the places of the positions in question
- for mean ablation, the prompts that the means are taken over
- for features, their dictionary's content, and the first prompts, by which it is settled how its hook is read
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from circuitdsl.circuit.nodes import Position
from circuitdsl.circuit.vocabulary import CHANCE, METRICS, Metric
from circuitdsl.dictionaries.known import FEW
from circuitdsl.engine.prompts import Means
from circuitdsl.installed import code_of, version
from circuitdsl.measurements.requests import Request
from circuitdsl.models.model import Model, map_of
from circuitdsl.models.record import code_digest
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.verify.store import Known, Store, digest

Array = np.ndarray
#: the first prompts of a generator, which tell its other prompts: another word list would have changed them
RECOGNISED = 32
#: what is known of a number: that it is known, that its patch changed something, that this run has not measured it
KNOWN, CHANGED, EARLIER = 1, 2, 4


@dataclass
class Memory:
    """The numbers of one task on one model that a store knows.

    Attributes:
        model: hash of the model, of the code that measures, and of the machine.
        context: hash of everything but the request and the prompt.
        means: makes the prompts that means are taken over.
        means_are: a text that tells which prompts these are, given that `pairs` come first; empty if there is none.
        asked, found: numbers asked for, without those that this run has measured, and those of them that were known.
    """

    store: Store
    model: bytes
    context: bytes
    pairs: Sequence[PromptPair]
    means: Callable[[], Means]
    means_are: str = ""
    asked: int = 0
    found: int = 0
    _names: dict[Request, bytes] = field(default_factory=dict, repr=False)
    _prompts: dict[tuple[object, ...], list[bytes]] = field(default_factory=dict, repr=False)
    _read: dict[bytes, tuple[Array, Array]] = field(default_factory=dict, repr=False)

    def again(self) -> Memory:
        """The same for another run: what was measured until now counts as known."""
        self.store.written.clear()
        return replace(self, asked=0, found=0, _read={})

    def name(self, request: Request) -> bytes:
        """The hash under which a request's numbers are kept."""
        if request not in self._names:
            means, kind = self._digest_of_means if request.uses_means else b"", type(request)
            what = f"{kind.__module__}.{kind.__qualname__} {request!r}".encode()
            code = code_of(kind.__module__) + code_of(request.reader)
            reading = self._reading if b"of='" in what else b""
            self._names[request] = digest(self.context, what, code, means, reading)
        return self._names[request]

    @cached_property
    def _reading(self) -> bytes:
        """A hash of the first prompts, by which it is settled how the hooks of dictionaries are read."""
        return _hash([pair.clean_tokens for pair in self.pairs[:FEW]])

    def prompts(self, request: Request) -> list[bytes]:
        """Hashes of all prompts, as far as a request depends on them."""
        key = (request.positions, request.uses_means)
        if key not in self._prompts:
            self._prompts[key] = [self._prompt(pair, *key) for pair in self.pairs]
        return self._prompts[key]

    def _prompt(self, pair: PromptPair, positions: Sequence[Position], means: bool) -> bytes:
        places = [(str(position), list(pair.positions.get(position.name, ()))) for position in positions]
        return _hash([_scored(pair), sorted(places), pair.stratum if means else ""])

    @cached_property
    def _digest_of_means(self) -> bytes:
        """A hash of the prompts that means are taken over, without making thousands of them if that can be avoided."""
        known = bool(self.means_are) and len(self.pairs) >= RECOGNISED
        prompts = [(pair.corrupt_tokens, pair.stratum) for pair in (self.pairs if known else self.means())]
        return _hash([self.means_are if known else "", prompts])

    def read(self, requests: Sequence[Request], indices: Array) -> Iterator[tuple[Request, Array, Array, Array]]:
        """For each request its numbers on some prompts, whether anything was changed there, and which are known."""
        new = {name: request for request in requests if (name := self.name(request)) not in self._read}
        stored = self.store.read(list(new))
        self._read |= {name: self._numbers(request, stored.get(name, {})) for name, request in new.items()}
        for request in requests:
            values, state = (each[indices] for each in self._read[self.name(request)])
            known, earlier = state & KNOWN > 0, int(np.count_nonzero(state & EARLIER))
            self.asked += earlier + int(np.count_nonzero(~known))
            self.found += earlier
            yield request, values, state & CHANGED > 0, known

    def _numbers(self, request: Request, stored: Mapping[bytes, Known]) -> tuple[Array, Array]:
        """A request's numbers on all prompts, and what is known of each."""
        values, state = np.full(len(self.pairs), np.nan), np.zeros(len(self.pairs), np.uint8)
        for i, prompt in enumerate(self.prompts(request)) if stored else ():
            if prompt in stored:
                values[i], changed, earlier = stored[prompt]
                state[i] = KNOWN | CHANGED * changed | EARLIER * earlier
        return values, state

    def write(self, found: Mapping[Request, tuple[Array, Array]], indices: Array) -> None:
        """Keep what was measured on some prompts: for each request its numbers, and whether anything was changed."""
        numbers, prompts = dict[bytes, tuple[Array, Array]](), dict[bytes, Sequence[bytes]]()
        chosen: dict[int, list[bytes]] = {}  # requests of the same positions share their list
        for request, (values, changed) in found.items():
            name, every = self.name(request), self.prompts(request)
            if id(every) not in chosen:
                chosen[id(every)] = [every[i] for i in indices]
            numbers[name], prompts[name] = (values, changed), chosen[id(every)]
            if name in self._read:
                known, state = self._read[name]
                known[indices], state[indices] = values, KNOWN | CHANGED * changed
        self.store.write(numbers, prompts)

    def of_means(self, what: str, compute: Callable[[], float]) -> float:
        """Something about the prompts that means are taken over, known or computed."""
        name = digest(self.context, what.encode(), self._digest_of_means)
        return float(self._all(name, [_hash(what)], lambda: np.asarray([compute()]))[0])

    def scores(self, side: str, metric: Metric, compute: Callable[[], Array]) -> Array:
        """A metric of the unpatched runs of all prompts, known or computed."""
        name = digest(self.context, f"{side} run: ".encode(), _of_metric(metric))
        return self._all(name, [_hash(_scored(pair)) for pair in self.pairs], compute)

    def of_model(self, what: bytes, pairs: Sequence[PromptPair], compute: Callable[[], Array]) -> Array:
        """Something about the unpatched runs of some prompts that does not depend on the metric, known or computed."""
        prompts = [_hash([pair.clean_tokens, pair.corrupt_tokens]) for pair in pairs]
        return self._all(digest(self.model, what), prompts, compute)

    def of_answers(self, what: str, pairs: Sequence[PromptPair], compute: Callable[[], Array]) -> Array:
        """Something about the scored tokens of some prompts, on the unpatched runs, known or computed."""
        return self._all(digest(self.model, what.encode()), [_hash(_scored(pair)) for pair in pairs], compute)

    def of_prompts(self, request: Request, compute: Callable[[], Array]) -> Array:
        """A request's numbers on all prompts, known or computed."""
        return self._all(self.name(request), self.prompts(request), compute)

    def firing(self, of: str, d_sae: int, position: Position, indices: Array, compute: Callable[[], Array]) -> Array:
        """On how many of some clean prompts each feature of a dictionary fires at a position, known or computed."""
        pairs = [self.pairs[i] for i in indices]
        places = [(pair.clean_tokens, pair.positions.get(position.name, ())) for pair in pairs]
        name = digest(self.model, f"features of {of} at {position}".encode(), _hash(places), self._reading)
        return self._all(name, [_hash(i) for i in range(d_sae)], compute)

    def explained(self, of: str, compute: Callable[[], float]) -> float:
        """What a dictionary explains of the first prompts, known or computed."""
        name = digest(self.model, f"{of} explains of the first prompts".encode(), self._reading)
        return float(self._all(name, [_hash(of)], lambda: np.asarray([compute()]))[0])

    def _all(self, name: bytes, prompts: Sequence[bytes], compute: Callable[[], Array]) -> Array:
        known = self.store.read([name]).get(name, {})
        if all(prompt in known for prompt in prompts):
            return np.asarray([known[prompt][0] for prompt in prompts])
        values = compute()
        self.store.write({name: (values, np.ones(len(values), bool))}, {name: prompts})
        return values


def memory(
    store: Store,
    model: Model,
    pairs: Sequence[PromptPair],
    metric: Metric,
    means: Callable[[], Means],
    means_are: str = "",
) -> Memory:
    """What a store knows of some prompts on a model, scored by a metric."""
    libraries = " ".join(map(version, ("torch", "numpy", "transformer-lens")))
    of_model = digest(code_digest(), libraries.encode(), machine_of(model).encode(), model.digest)
    return Memory(store, of_model, digest(of_model, _of_metric(metric)), pairs, means, means_are)


def machine_of(model: Model) -> str:
    """What computes a model's numbers, and in which number format."""
    if model.machine:
        return model.machine
    name = ""
    if model.device.startswith("cuda"):
        import torch

        places = range(torch.cuda.device_count()) if map_of(model.device) else [model.device]
        name = ", ".join(map(torch.cuda.get_device_name, places))
    return f"{model.device} {name} {model.dtype} {model.products}"


def _of_metric(metric: Metric) -> bytes:
    """What a metric is: its text, and the code of the package that it is from."""
    return str(metric).encode() + code_of(METRICS[metric.name.removeprefix(CHANCE)].scorer)


def _scored(pair: PromptPair) -> list[Sequence[int]]:
    return [pair.clean_tokens, pair.corrupt_tokens, pair.answers, pair.distractors, pair.corrupt_answers]


def _hash(value: object) -> bytes:
    return digest(json.dumps(value).encode())
