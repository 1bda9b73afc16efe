"""What dictionaries do on a task: how much they explain of a model, and which features tell clean from corrupt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from circuitdsl.api import as_task
from circuitdsl.circuit.nodes import Position
from circuitdsl.dictionaries import read_dictionaries
from circuitdsl.dictionaries.record import DictionaryError, Hook, hook_named
from circuitdsl.discover.asked import circuit_of, name_of, opening
from circuitdsl.engine.dictionaries import Firing, Seen, firing, foreign, seen_on
from circuitdsl.report.dictionaries import Described, Dictionaries, Example, Feature
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.tasks.tokens import Tokens
from circuitdsl.verify.prompts import make_data
from circuitdsl.verify.session import Session

#: prompts that are shown of a feature
EXAMPLES = 3


def described(
    session: Session,
    name: str | Path,
    task: str,
    prompts: int = 128,
    seed: int = 0,
    at: str | None = None,
    top: int = 10,
) -> Dictionaries:
    """What the dictionaries that a name means do on a task.

    Args:
        name: a directory, a file, a shipped dictionary or one in the hub's cache.
        task: as in a spec; it may be the path of a prompt file.
        at: the hook that is written, where the files do not say so.
        top: features that are told of, by how much they differ between clean and corrupt prompts.

    Raises:
        DictionaryError: there is no such dictionary, or it is not of this model.
        UsageError: the task, or an option of it, does not exist.
        UserError: the model or a prompt file cannot be read.
    """
    hook: Hook | None = hook_named(at, "--at") if at else None
    found, task = read_dictionaries(str(name), hook), as_task(task)
    lines = opening(session.name or "pocket", name_of(task), "logit_diff", task, prompts, seed, ())
    circuit = circuit_of(lines)
    model, use = session.model_of(circuit), circuit.tasks[0]
    data = make_data(circuit, use, model)
    tokens = None if model.tokenizer is None else Tokens(model.tokenizer, model.name, use.bos, use.chat)
    with session.busy("running the model"):
        told = tuple(_told(each, data.pairs, tokens, top) for each in seen_on(model, found, data.pairs))
    return Dictionaries(model.name, use.name, len(data.pairs), data.seed, told)


def _told(seen: Seen, pairs: Sequence[PromptPair], tokens: Tokens | None, top: int) -> Described:
    found, names = seen.found, list(dict.fromkeys(name for pair in pairs for name in pair.positions))
    result = firing(seen, pairs, [Position(name) for name in names])
    if result.explained < 0:
        raise DictionaryError(foreign(found, seen.model, result.explained))
    order = result.differs.argsort(descending=True, stable=True)[:top].tolist()
    strongest = tuple(_feature(result, i, names, pairs, tokens) for i in order if float(result.differs[i]) > 0)
    return Described(
        found.name,
        found.form,
        found.kind,
        str(found.encoding),
        found.model,
        dict(found.about),
        str(found.reads),
        str(found.writes[0]),
        str(seen.reading),
        found.sha256,
        result.explained,
        found.d_sae,
        int((result.prompts > 0).sum()),
        result.fire,
        strongest,
    )


def _feature(
    result: Firing, index: int, names: Sequence[str], pairs: Sequence[PromptPair], tokens: Tokens | None
) -> Feature:
    strengths = result.strongest[:, index]
    best = [i for i in strengths.argsort(descending=True, stable=True)[:EXAMPLES].tolist() if float(strengths[i]) > 0]
    clean, corrupt = (
        {name: float(values[place, index]) for place, name in enumerate(names)}
        for values in (result.clean, result.corrupt)
    )
    examples = tuple(_example(pairs[i], int(result.where[i, index]), float(strengths[i]), tokens) for i in best)
    return Feature(
        index, int(result.prompts[index]) / len(pairs), float(result.differs[index]), clean, corrupt, examples
    )


def _example(pair: PromptPair, place: int, activation: float, tokens: Tokens | None) -> Example:
    words = [tokens.text_of(token) if tokens else f" {token}" for token in pair.clean_tokens[: place + 1]]
    return Example("".join(words[:-1]), words[-1], activation)
