"""Dictionaries that a spec names, and their features as nodes: parts of what their dictionary writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from circuitdsl.circuit.nodes import ERROR, Node
from circuitdsl.circuit.paths import leaves
from circuitdsl.circuit.scope import Scope
from circuitdsl.dictionaries import is_shipped, place_of, read_dictionary
from circuitdsl.dictionaries.known import is_known, known, name_of, register
from circuitdsl.dictionaries.labels import read_labels
from circuitdsl.dictionaries.record import Dictionary, DictionaryError, hook_named
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import suggest

#: the words by which a dictionary is named, and whether it is one from one place to another
KINDS = {"transcoder": True, "sae": False}


def whole_of(found: Dictionary) -> Node:
    """What the features of a dictionary are parts of: an MLP, the heads of a layer together, or a residual stream.

    Raises:
        DictionaryError: features at its place cannot be patched.
    """
    hook, reads = found.writes[0], found.reads
    if found.crossing is not None:
        raise DictionaryError(f"{found.name} is a cross-layer transcoder, whose features write into several MLPs")
    if hook.kind == "mlp_out" and reads.kind in ("mlp_in", "mlp_out") and reads.layer == hook.layer:
        return Node("mlp", hook.layer)
    own = {
        "resid_pre": Node("resid", hook.layer),
        "resid_post": Node("resid", hook.layer + 1),
        "resid_mid": Node("mid", hook.layer),
        "attn_out": Node("attn", hook.layer),
        "z": Node("attn", hook.layer),
    }
    if reads == hook and hook.kind in own and own[hook.kind] != Node("resid", 0):
        return own[hook.kind]
    between = f"{reads} to {hook}" if found.is_transcoder else str(hook)
    raise DictionaryError(
        f"{found.name} sits at {between}, where features cannot be patched yet",
        hint="nodes are features of hook_mlp_out, hook_attn_out, attn.hook_z, the stream, and of what an MLP reads",
    )


def stands_in(found: Dictionary) -> Node:
    """The same, and of a cross-layer transcoder the MLP of the layer at which it is encoded."""
    if found.crossing is None:
        return whole_of(found)
    if found.reads.kind not in ("mlp_in", "resid_mid") or {hook.kind for hook in found.writes} != {"mlp_out"}:
        raise DictionaryError(
            f"{found.name} is a cross-layer transcoder from {found.reads} to {found.writes[0]}",
            hint="its features are nodes where it reads what an MLP reads and writes what MLPs write",
        )
    return Node("mlp", found.reads.layer)


def feature(name: str, found: Dictionary, index: int) -> Node:
    """A feature of a dictionary, or with `ERROR` what its features leave.

    Raises:
        DictionaryError: there is no such feature, or it cannot be patched.
    """
    if index != ERROR:
        found.check_feature(index)
    node = stands_in(found)._replace(index=index, of=register(name, found))
    if found.crossing is None:
        return node
    if index == ERROR:
        raise DictionaryError(
            f"{node} is no node: {found.name} is a cross-layer transcoder",
            hint="what is left of an MLP depends on the features of all layers below as well",
        )
    return node._replace(reads=node.layer)


def dictionary_of(node: Node) -> Dictionary:
    """The dictionary that a feature is one of."""
    return known(node.of).dictionary


# --- as a spec names them -----------------------------------------------------------------------------


def find_dictionaries(scope: Scope, statements: Iterable[s.Statement], spec: str, trusted: bool) -> None:
    """Read every dictionary that some lines define; one that is wrong is reported, and counts as defined.

    Args:
        spec: the path of the spec, in whose folder a dictionary may lie.
        trusted: it may lie elsewhere.
    """
    for statement in statements:
        if isinstance(statement, s.Broken) and statement.keyword == "dictionary":
            scope.dictionaries.setdefault(statement.name, None)
        if not isinstance(statement, s.Dictionary):
            continue
        name = statement.name
        if name.text in scope.dictionaries:
            scope.sink.error("E050", f"the dictionary {name.text} is defined twice", name.span)
            continue
        scope.dictionaries[name.text] = _read(scope, statement, Path(spec).parent, trusted)


def _read(scope: Scope, line: s.Dictionary, folder: Path, trusted: bool) -> Dictionary | None:
    """The dictionary of a line; None after a diagnostic was emitted."""
    path = next((each for each in line.arguments if isinstance(each, s.Text)), None)
    at, labels = (
        next((each for each in line.arguments if isinstance(each, s.Option) and each.key.text == key), None)
        for key in ("at", "labels")
    )
    if line.kind.text not in KINDS:
        scope.sink.unknown("E064", "kind of dictionary", line.kind.text, line.kind.span, KINDS)
        return None
    if path is None or any(each not in (path, at, labels) for each in line.arguments):
        message = (
            "a dictionary has one path, and may say where it writes and what its features are called: "
            f'{line.kind}("…", at = "blocks.1.hook_mlp_out", labels = "labels.json")'
        )
        scope.sink.error("E064", message, line.span)
        return None
    called = getattr(labels.value, "text", "") if labels else ""
    files = [] if trusted or is_shipped(path.text) else [(path.text, path.span, "a dictionary lies")]
    files += [] if trusted or labels is None else [(called, labels.span, "labels lie")]
    for name, span, what in files:
        if problem := leaves(name, folder, folder):
            scope.sink.error("E032", f"{problem}: {what} in the spec's own folder or below", span)
            return None
    span = path.span
    try:
        hook = hook_named(getattr(at.value, "text", ""), "the option") if at else None
        found = read_dictionary(path.text, hook, folder)
        if found.is_transcoder != KINDS[line.kind.text]:
            right = next(word for word, transcoder in KINDS.items() if transcoder == found.is_transcoder)
            raise DictionaryError(f"{found.name} is a {found.kind}", hint=f"write {right}({path})")
        whole = stands_in(found)
        place = str(place_of(path.text, folder).absolute())
        register(line.name.text, found, place, str(hook) if hook else "")
        if labels:
            span = labels.span
            scope.labels[line.name.text] = read_labels(folder / called, found.d_sae)
    except DictionaryError as error:
        scope.sink.error("E064", error.message, span, error.hint)
        return None
    model = scope.model
    width = model and (model.d_model or (model.d_head and model.n_heads * model.d_head))
    at_z = found.writes[0].kind == "z"
    width = model.d_head * model.n_heads if at_z and model and model.d_head else None if at_z else width
    if width and width != found.d_out:
        made = f" (made for {found.model})" if found.model else ""
        message = f"{found.name} has {found.d_out} numbers{made}, and {scope.model_name} has {width}"
        scope.sink.error("E064", f"{message}: it is not of this model", path.span)
        return None
    return found if scope.in_range(whole, path.span) else None


def of_dictionary(scope: Scope, written: s.GroupRef) -> str | None:
    """What nodes of a dictionary carry; None where there is none of that name, after a diagnostic was emitted."""
    if written.name not in scope.dictionaries:
        if written.name not in scope.broken:
            scope.sink.unknown("E065", "dictionary", written.name, written.span, scope.dictionaries)
        return None
    found = scope.dictionaries[written.name]
    return None if found is None else register(written.name, found)


def places_of(scope: Scope) -> tuple[tuple[str, str, str], ...]:
    """The dictionaries of a circuit: what their nodes carry, where each lies, and the hook that was given for it."""
    named = [register(name, found) for name, found in scope.dictionaries.items() if found]
    return tuple((of, known(of).place, known(of).at) for of in named)


def reopen(places: Iterable[tuple[str, str, str]]) -> None:
    """Make the dictionaries of a circuit known that was resolved in another process; raises `DictionaryError`."""
    for of, place, at in places:
        if not is_known(of):
            found = read_dictionary(place, hook_named(at, "the option") if at else None)
            if register(name_of(of), found, place, at) != of:
                raise DictionaryError(f"{place} is another dictionary than the one that was asked for")


def feature_of(scope: Scope, written: s.Feature) -> Node | None:
    """`t1[17]` or `t1[error]`; None where there is no such feature, after a diagnostic was emitted."""
    name, which = written.dictionary, written.which.text
    if name not in scope.dictionaries:
        if name in scope.broken:
            return None
        known_ones = list(scope.dictionaries)
        meant = suggest(name, known_ones)
        if name == "all" or name in scope.definitions:
            message = f"{name} is no dictionary and no node: nothing of it is called {which}"
            scope.sink.error("E065", message, written.span, f"brackets stand behind a node: m1[{which}]")
            return None
        help = None if known_ones else f'define it: dictionary {name} = transcoder("…")'
        scope.sink.error(
            "E065", f"there is no dictionary {name}", written.span, help, meant=meant and f"{meant}[{which}]"
        )
        return None
    found = scope.dictionaries[name]
    if found is None:
        return None
    if which == "error":
        try:
            return feature(name, found, ERROR)
        except DictionaryError as error:
            scope.sink.error("E065", error.message, written.span, error.hint)
            return None
    if not which.isdigit():
        message = f"'{which}' is no feature: a number is one, and 'error' what is left"
        scope.sink.error("E065", message, written.which.span)
        return None
    index = int(which[:12])
    if index >= found.d_sae:
        message = f"{name} has features 0 to {found.d_sae - 1}, so there is no {written}"
        scope.sink.error("E065", message, written.span)
        return None
    return feature(name, found, index)
