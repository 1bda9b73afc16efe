"""What can be claimed of a circuit: a file for each word, and one list of them."""

from circuitdsl.circuit.measurement import Kinds
from circuitdsl.measurements.activation import Activation
from circuitdsl.measurements.attention import Attention
from circuitdsl.measurements.attribution import Attribution
from circuitdsl.measurements.behaviour import Behaviour
from circuitdsl.measurements.channel import Composition
from circuitdsl.measurements.copying import Copying
from circuitdsl.measurements.denoise import Denoise
from circuitdsl.measurements.edge import EdgeEffect
from circuitdsl.measurements.entropy import Entropy
from circuitdsl.measurements.fires import Fires
from circuitdsl.measurements.head_score import HeadScore
from circuitdsl.measurements.knockout import NodeEffect
from circuitdsl.measurements.overlap import Overlapping
from circuitdsl.measurements.path import PathEffect
from circuitdsl.measurements.property import Property
from circuitdsl.measurements.reconstruction import Reconstruction
from circuitdsl.measurements.role import RoleChecks
from circuitdsl.measurements.trace import Tracing
from circuitdsl.measurements.whole_circuit import WholeCircuit

KINDS = Kinds(
    (
        Behaviour, Attention, Entropy, Attribution, Activation, Fires, Reconstruction,
        NodeEffect, Denoise, Copying, HeadScore, RoleChecks,
        WholeCircuit, EdgeEffect, PathEffect, Composition, Tracing, Property, Overlapping,
    ),
    group="circuitdsl.measurements",
)  # fmt: skip
