"""What a statement of one circuit can refer to, and the checks of names that all phases share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from circuitdsl.brief import quoted
from circuitdsl.circuit.changes import EdgePatch
from circuitdsl.circuit.claims import TaskUse
from circuitdsl.circuit.measurement import Kinds
from circuitdsl.circuit.nodes import ALONG, EMBED, EVERYWHERE, LOGITS, Ablation, Along, Node, Position, Positions
from circuitdsl.circuit.shapes import CONFIG, ModelShape, TaskShape
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.language import syntax as s
from circuitdsl.language.builder import TOO_LONG
from circuitdsl.language.diagnostics import Diagnostic, Fix, Sink, Span, listing, shorten, suggest
from circuitdsl.language.syntax_errors import as_node

if TYPE_CHECKING:
    from circuitdsl.circuit.roles import Body
    from circuitdsl.dictionaries.record import Dictionary

#: a node with the positions at which it acts; None where nothing says
Members = dict[Node, Positions | None]
T = TypeVar("T")


def complete(found: Iterable[T | None]) -> tuple[T, ...] | None:
    """All of them; None where one is None, for which a diagnostic was emitted."""
    every = list(found)
    known = tuple(each for each in every if each is not None)
    return known if len(known) == len(every) else None


def add(found: Members, more: Members) -> None:
    """Take nodes into others: one that is in both acts wherever either says, and everywhere if one says nothing."""
    for node, positions in more.items():
        known = found.get(node, positions)
        both = None if known is None or positions is None else tuple(dict.fromkeys((*known, *positions)))
        found[node] = (EVERYWHERE,) if both and EVERYWHERE in both else both


#: the most that a file may ask for, in steps of about half a microsecond: a short text can name very many nodes
MAX_WORK = 1_000_000


@dataclass
class Work:
    """The steps that a file may still ask for."""

    left: int = MAX_WORK


@dataclass
class Scope:
    """The names of one circuit."""

    sink: Sink
    #: what can be measured
    kinds: Kinds
    #: shared by the circuits of a file
    work: Work = field(default_factory=Work)
    model: ModelShape | None = None
    #: finds the model's size where that is not known without its files; asked where a set depends on it
    size: Callable[[], ModelShape | None] = lambda: None
    #: the model as its line names it; None where there is none, and empty where that was reported as wrong
    model_name: str | None = None
    #: the layers and heads a layer that sets were counted in
    counted: tuple[int, int] | None = None
    tasks: list[TaskUse] = field(default_factory=list)
    #: what is known of each task; a file's tasks are not known here, and may define any position
    shapes: dict[str, TaskShape | None] = field(default_factory=dict)
    #: some task line was wrong and was reported: nothing that depends on tasks is reported again
    tasks_broken: bool = False
    metric: Metric = field(default_factory=Metric)
    margin: float = 0.01
    definitions: dict[str, s.Group] = field(default_factory=dict)
    groups: dict[str, Members | None] = field(default_factory=dict)
    #: directions by their names; None where one is wrong
    directions: dict[str, Along | None] = field(default_factory=dict)
    #: names that broken lines would have defined
    broken: set[str] = field(default_factory=set)
    #: the dictionaries of features that it names; None for one that was wrong and was reported
    dictionaries: dict[str, Dictionary | None] = field(default_factory=dict)
    #: what features of a dictionary are called
    labels: dict[str, dict[int, str]] = field(default_factory=dict)
    roles: set[str] = field(default_factory=set)
    #: a used file could not be read, so that roles and circuits may be missing
    imports: bool = False
    #: where a node acts when it is named alone, by the groups of the circuit; with control groups as well
    homes: dict[Node, Positions] = field(default_factory=dict)
    any_homes: dict[Node, Positions] = field(default_factory=dict)
    #: every position at which some group of the circuit has a node
    places_of: dict[Node, set[Position]] = field(default_factory=dict)
    #: groups being worked out, in order
    resolving: dict[str, None] = field(default_factory=dict)
    no_task_reported: bool = False
    no_size_reported: bool = False
    #: edges that were worked out already, with what was warned of: one edge may stand in many lines
    effects: dict[Hashable, tuple[EdgePatch, tuple[Diagnostic, ...]]] = field(default_factory=dict)
    #: `edges via mlps` counts from its line on
    via_mlps: bool = False
    #: and `edges ablate mean`
    ablate: Ablation = "corrupt"
    #: whether the line stands in a 'when' block
    under: bool = False
    #: the head that `self` is, in the checks of a role
    itself: Members | None = None
    #: the checks of the file's own roles
    bodies: dict[str, Body] = field(default_factory=dict)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Everything that can be measured."""
        return self.kinds.words

    def affords(self, steps: int, span: Span) -> bool:
        """Whether the file may ask for so many more steps; else a diagnostic was emitted."""
        self.work.left -= steps
        if self.work.left < 0:
            help = "a set that stands in many lines counts in each: make several files, or fewer and smaller groups"
            self.sink.stop("this file names too many nodes, edges and checks in all", span, help)
        return self.work.left >= 0

    def defines(self, task: str, position: Position) -> bool:
        shape = self.shapes.get(task)
        return shape is None or position == EVERYWHERE or position.name in shape.positions

    @cached_property
    def position_names(self) -> tuple[list[str], bool]:
        """The positions of all tasks in their order, and whether there are no others; for when the tasks are known."""
        shapes = [self.shapes.get(task.name) for task in self.tasks]
        names = dict.fromkeys(name for shape in shapes if shape for name in shape.positions)
        return list(names), bool(self.tasks) and not self.tasks_broken and None not in shapes

    def positions_of_tasks(self, tasks: Iterable[str]) -> str:
        """`ioi has END, IO; flip has END`, for messages."""
        shapes = {name: self.shapes.get(name) for name in tasks}
        has = (f"has {listing(shape.positions)}" if shape else "may have any" for shape in shapes.values())
        return "; ".join(map(" ".join, zip(shapes, has, strict=True)))

    def position(self, place: s.Place) -> Position | None:
        """A position; None where it is wrong, after a diagnostic was emitted."""
        (names, known), code, guess = self.position_names, "E044", None
        if place.name == "*":
            return EVERYWHERE
        if not place.name.isupper():
            upper = place.name.upper()
            guess = upper if upper in names or not names else suggest(upper, names)
            message = "positions are written in capitals"
        elif place.name == "END" and place.offset > 0:
            code, message = "E045", f"END is the last token of a prompt: END+{place.offset} does not exist"
        elif abs(place.offset) > 10_000:
            code, message = "E045", f"no prompt is that long: {place.name}{place.offset:+d}"
        elif known and place.name not in names:
            if len(self.tasks) == 1:
                what, has = f"the task {self.tasks[0].name} has no", f"it has {listing(names)}"
            else:
                what, has = "no task has a", self.positions_of_tasks(task.name for task in self.tasks)
            guess = suggest(place.name, names)
            message = f"{what} position {shorten(place.name)} ({has})"
        else:
            return Position(place.name, place.offset)
        line, column, *_ = place.span
        fixes = (Fix(Span(line, column, line, column + len(place.name)), guess),) if guess else ()
        self.sink.error(code, message, place.span, meant=guess, fixes=fixes)
        return None

    def places(self, at: s.At | None) -> Positions | None:
        """All positions of an `at`, each once; None where one is wrong, after a diagnostic was emitted."""
        found: dict[Position | None, None] = {}
        for place in at.places if at else ():
            position = self.position(place)
            if position is not None and position in found:
                self.sink.error("E051", f"{position} is named twice", place.span)
            found[position] = None
        return complete(found)

    def node(self, written: s.Head | s.Mlp | s.Resid | s.Special) -> Node | None:
        """A node that exists in the model; None where there is none, after a diagnostic was emitted."""
        match written:
            case s.Head(layer=layer, head=head):
                node = Node("head", layer, head)
            case s.Mlp(layer=layer):
                node = Node("mlp", layer)
            case s.Resid(layer=layer):
                node = Node("resid", layer) if layer else EMBED
            case s.Special(name="embed" | "logits" as name):
                node = EMBED if name == "embed" else LOGITS
            case _:
                self.sink.error("E055", "'self' stands only in the checks of a role", written.span)
                return None
        part = self._part(node, written)
        return part if part is not None and self.in_range(part, written.span) else None

    def _part(self, node: Node, written: s.Head | s.Mlp | s.Resid | s.Special) -> Node | None:
        """The part of a node that is in its brackets; None where there is none, after a diagnostic was emitted."""
        match written.index:
            case None:
                return node
            case int() as index if node.kind in ("head", "mlp"):
                return node._replace(index=index)
            case int():
                help = "write the name of a direction in the brackets"
                self.sink.error("E061", f"{node} has no parts with numbers", written.span, help)
                return None
            case str() as name:
                if name in self.directions:
                    along = self.directions[name]
                    return None if along is None else node._replace(index=ALONG, along=along)
                if name not in self.broken:
                    help = f'add a line such as: direction {name} = file("{name}.safetensors")'
                    known = list(self.directions)
                    if known:
                        self.sink.unknown("E067", "direction", name, written.span, known)
                    else:
                        self.sink.error("E067", f"unknown direction '{name}'", written.span, help)
                return None

    def in_range(self, node: Node, span: Span, written: str = "") -> bool:
        """Whether the model has such a layer and head, and the node such a part; `written` is shown in its place."""
        model = self.model
        if model is None or node.kind in ("embed", "logits"):
            return True
        name, layers, heads = model.title, model.n_layers, model.n_heads
        if node.kind == "head":
            code, last, many, has = "E060", f"{layers - 1}.{heads - 1}", model.d_head, "singular components"
        else:
            code, last, many, has = "E061", f"m{layers - 1}", model.d_mlp, "neurons"
        if node.kind == "resid" and node.layer == layers:
            return True  # it enters the final norm
        if node.layer >= layers:
            last = f"resid{layers}, which enters the final norm" if node.kind == "resid" else last
            few, spread = f"{name} has {layers} layers", f"the last is {last}"
        elif node.kind == "head" and node.head >= heads:
            few, spread = f"{name} has {heads} heads a layer", f"{node.layer}.0 to {node.layer}.{heads - 1}"
        elif many is not None and node.along is None and node.index >= many:
            owner = "a head" if node.kind == "head" else "an MLP" if many else "a mixture of experts"
            few = f"{owner} of {name} has {many or 'no'} {has}"
            spread = f"{node.whole}[0] to {node.whole}[{many - 1}]" if many else f"{node.whole} is one term"
        else:
            return True
        too_long = TOO_LONG in (node.layer, node.head, node.index)  # its digits are no longer known
        shown = "one of so high a number" if too_long else written or str(node)
        self.sink.error(code, f"{few}: {shown} does not exist ({spread})", span)
        return False

    def sized(self, written: s.Set) -> ModelShape | None:
        """The size of the model, for a set that depends on it; None after a diagnostic was emitted."""
        shape = self.model or self.size()
        if shape is not None:
            self.counted = shape.n_layers, shape.n_heads
        elif not self.no_size_reported and self.model_name != "":
            self.no_size_reported = True
            message = f"which nodes '{written}' is depends on the model"
            if self.model_name is None:
                message, help = f"{message}, and none is named", 'add a line `model "…"`, or give --model'
            else:
                message += f", and the size of {quoted(self.model_name)} is not known"
                help = f"its {CONFIG} must be at hand: download it, or give --model a directory; or list the nodes"
            self.sink.error("E063", message, written.span, help)
        return shape

    def nodes_of_role(self, role: str) -> Members:
        """The members of all groups that have a role, by their own line or by their name."""
        found: Members = {}
        for name, group in self.definitions.items():
            if (group.roles[0].text if group.roles else name) == role:
                add(found, self.groups.get(name) or {})
        return found

    def unknown_group(self, ref: s.GroupRef) -> None:
        """Report a group that is not defined, but for one that a broken line would have defined."""
        if ref.name in self.broken:
            return
        if node := as_node(ref.name):
            self.sink.error("E040", f"unknown group '{ref.name}'", ref.span, meant=node)
        else:
            self.sink.unknown("E040", "group", ref.name, ref.span, chain(self.definitions, ("embed", "logits")))

    def check_task(self, word: s.Word | None) -> bool:
        """Whether `on TASK` names a task of the circuit."""
        if word is None or self.tasks_broken or word.text in self.broken:
            return True
        names = [task.name for task in self.tasks]
        if word.text not in names:
            self.sink.unknown("E042", "task", word.text, word.span, names)
        return word.text in names
