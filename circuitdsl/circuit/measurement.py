"""What the language knows of a measurement. The kinds are in `circuitdsl.measurements`, a file for each word.

Resolution is given the list of kinds (`Kinds`) and asks them; no phase knows which kinds there are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from circuitdsl.circuit.changes import Both, Intervention, Member, Patch
from circuitdsl.circuit.criteria import Test
from circuitdsl.circuit.nodes import Positions
from circuitdsl.errors import UserError
from circuitdsl.installed import loaded, registered, the_entry
from circuitdsl.language import syntax as s

if TYPE_CHECKING:
    from circuitdsl.circuit.claims import Circuit, Claim, Membership
    from circuitdsl.circuit.scope import Scope
    from circuitdsl.language.diagnostics import Sink

#: what is measured, and what is claimed of it
Expected = tuple["Measurement", tuple[Test, ...]]
#: finds the tasks that define some positions: (`on TASK`, the positions, the statement) -> their names
FindTasks = Callable[[s.Word | None, Positions | None, s.Syntax], tuple[str, ...] | None]


class Measurement:
    """One thing that can be claimed of a circuit: a subclass is a kind, its instances are frozen records.

    Attributes:
        words: the words that name the kind in an `expect` line.
        statement: the statement that makes a claim of this kind, where it is no `expect` line.
        claim_kind: what reports call a claim that such a statement makes.
        usage: `how it is written | what it is | what it takes`: rows of the table in docs/language.md.
        options: the options that stand in its brackets, each with its values.
        examples: lines that claim such a thing of the embedded model, for `testing.check_measurement`; `false_examples`
            are false.
        elsewhere: words that look like measurements and are not, with a sentence that says what to write.
        instead_of_chance: for figures that are not said to be `above chance`, what to write.
        under_condition: whether it may stand in a `when` block or below an intervention.
        not_on_changed_model: why it cannot stand below an intervention, and what to write; empty where it can.
        not_compared: why its figure is not compared with another of its kind; empty where it can be.
        per_prompt: whether it has a value on a single prompt, so that a property may be about it.
        signed: whether its figure is an effect or a difference, which has a sign.
        level: whether its figure is a level of behaviour, for which 0 does not mean that something is absent.
        of_whole: whether it is about the whole circuit, in which every group takes part that is not `outside`.
    """

    __slots__ = ()

    words: ClassVar[tuple[str, ...]] = ()
    statement: ClassVar[type[s.Syntax] | None] = None
    claim_kind: ClassVar[str] = "expect"
    usage: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    examples: ClassVar[tuple[str, ...]] = ()
    false_examples: ClassVar[tuple[str, ...]] = ()
    elsewhere: ClassVar[Mapping[str, str]] = {}
    instead_of_chance: ClassVar[Mapping[str, str]] = {}
    under_condition: ClassVar[bool] = False
    not_on_changed_model: ClassVar[tuple[str, str] | None] = None
    not_compared: ClassVar[str] = ""
    per_prompt: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    level: ClassVar[bool] = False
    of_whole: ClassVar[bool] = False

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All words of the kind, those of other packages included."""
        return cls.words

    @classmethod
    def resolve(cls, scope: Scope, statement: s.Statement) -> Expected | None:
        """The record of a statement and its tests; None where something is wrong, after a diagnostic was emitted."""
        raise NotImplementedError(f"{cls.__name__} is not written as a statement")

    @classmethod
    def between(
        cls, block: s.Compare, known: Mapping[str, Circuit], missing: bool, kinds: Kinds, sink: Sink
    ) -> list[Claim]:
        """The claims of a block that compares two circuits.

        Args:
            known: every circuit that can be compared, by its name.
            missing: whether some used file could not be read, so that circuits may be missing.
        """
        raise NotImplementedError(f"{cls.__name__} compares no circuits")

    @property
    def positions(self) -> Positions:
        """Every position that it needs."""
        return self.patch.positions if self.patch else ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The pairs of edges that it is about."""
        return getattr(self.patch, "members", ())

    @property
    def patch(self) -> Patch | None:
        """What is patched to measure it, where something is."""
        return None

    @property
    def subject(self) -> Hashable:
        """What it is about: equal for two spellings of the same."""
        return self

    @property
    def needs_task(self) -> bool:
        """Whether it is measured on a task's prompts."""
        return True

    def is_void_under(self, change: Patch | Both | Intervention) -> bool:
        """Whether a condition leaves nothing of what it would patch."""
        return False

    def lacks(self, whole: Membership) -> str:
        """What the circuit does not have that it needs, in a sentence; empty where nothing is missing."""
        return ""

    def takes(self, whole: Membership) -> Hashable:
        """Of a measurement of the whole circuit, what it takes of it: where that is the same, the same is run."""
        return whole.sites, whole.edges, whole.mlps, tuple(whole.groups.items())

    def tasks(
        self, scope: Scope, find: FindTasks, statement: s.Statement, positions: Positions
    ) -> tuple[str, ...] | None:
        """The tasks on which it can be measured; None where there is none, after a diagnostic was emitted."""
        return find(getattr(statement, "on", None), positions, statement)


class Kinds(Sequence[type[Measurement]]):
    """The list of all kinds: those given, and those that other packages register as entry points.

    An entry point's name is the word; it is loaded when a spec uses that word.
    """

    def __init__(self, kinds: Sequence[type[Measurement]], group: str = "") -> None:
        self._kinds, self._group = tuple(kinds), group
        self._words = {word: kind for kind in self._kinds for word in kind.words}
        #: kinds whose words are not known before other packages are looked at
        self._open = [kind for kind in self._kinds if "names" in vars(kind)]
        self._statements = {kind.statement: kind for kind in self._kinds if kind.statement}

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._kinds[index]

    def __len__(self) -> int:
        return len(self._kinds)

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that an `expect` line may begin with."""
        own = (name for kind in self._kinds for name in kind.names())
        return tuple(dict.fromkeys((*self._words, *own, *(entry.name for entry in registered(self._group)))))

    def word(self, name: str) -> type[Measurement] | None:
        """The kind of a word.

        Raises:
            UserError: another package registers the word, and its kind cannot be loaded, or several packages do.
        """
        found = self._words.get(name) or next((kind for kind in self._open if name in kind.names()), None)
        if found is None and (entry := the_entry(self._group, name, "measurement")):
            found = loaded(entry, "measurement")
            if not (isinstance(found, type) and issubclass(found, Measurement)):
                raise UserError(f"{entry.value}, registered as the measurement {name}, is no kind of measurement")
            self._words[name] = found
        return found

    def of_statement(self, statement: s.Statement) -> type[Measurement] | None:
        """The kind that a statement of its own makes claims of."""
        return self._statements.get(type(statement))

    def that(self, wanted: Callable[[type[Measurement]], bool]) -> tuple[str, ...]:
        """The words of some kinds."""
        known = dict.fromkeys((*self._kinds, *self._words.values()))
        return tuple(name for kind in known if wanted(kind) for name in kind.names())

    def instead_of_chance(self, figure: str) -> str | None:
        """What to write in place of `above chance`, of a figure that is not said to be."""
        known = (kind.instead_of_chance for kind in self._kinds)
        return next((instead[figure] for instead in known if figure in instead), None)

    def elsewhere(self, word: str) -> str | None:
        """What to write in place of a word that is no measurement."""
        return next((kind.elsewhere[word] for kind in self._kinds if word in kind.elsewhere), None)
