"""Patching by brute force: the definitions written down, one prompt, head and term at a time.

Nothing is cached and nothing is skipped: every run starts at the tokens, every input is summed from all earlier
terms. It shares no code with the fast path but the weights.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Node, Position
from circuitdsl.engine.experiment import Experiment, Positions
from circuitdsl.models.parts import Attention, Linear, Norm, Port, Rotary, Transformer

#: the terms of one run of one prompt
RunTerms = dict[Node, Float[Tensor, "T d"]]
#: what an input (node, port) reads
Read = Callable[[Node, str], Float[Tensor, "T d"]]


@torch.inference_mode()
def logits(
    model: Transformer,
    clean_tokens: Int[Tensor, "n T"],
    corrupt_tokens: Int[Tensor, "n T"],
    experiment: Experiment,
    positions: Positions,
    means: Mapping[int, RunTerms] | None = None,
) -> Float[Tensor, "n vocab"]:
    """Logits at END of every prompt's patched run.

    Args:
        means: for mean ablation, the mean terms for each prompt, by the prompt's place.
    """
    rows = []
    for i, pair in enumerate(zip(clean_tokens, corrupt_tokens, strict=True)):
        at = _tokens_of(experiment, positions, i, len(pair[0]))
        read, _ = _patched(model, *pair, experiment, at, means[i] if means else {})
        rows.append(model.logits(read(LOGITS, "in")[-1]).float())
    return torch.stack(rows)


@torch.inference_mode()
def attention(
    model: Transformer,
    clean_tokens: Int[Tensor, "n T"],
    corrupt_tokens: Int[Tensor, "n T"],
    experiment: Experiment,
    positions: Positions,
    heads: Sequence[Node],
) -> Float[Tensor, "n heads T T"]:
    """Attention patterns of heads in every prompt's patched run."""
    rows = []
    for i, pair in enumerate(zip(clean_tokens, corrupt_tokens, strict=True)):
        read, _ = _patched(model, *pair, experiment, _tokens_of(experiment, positions, i, len(pair[0])), {})
        rows.append(torch.stack([_pattern(model, head, read) for head in heads]))
    return torch.stack(rows)


def _tokens_of(experiment: Experiment, positions: Positions, prompt: int, length: int) -> dict[Position, set[int]]:
    return {position: _tokens_at(positions, position, prompt, length) for position in experiment.positions}


def _tokens_at(positions: Positions, position: Position, prompt: int, length: int) -> set[int]:
    if position == EVERYWHERE:
        return set(range(length))
    return {int(t) for t in positions[position][prompt] if t >= 0}


def _patched(
    model: Transformer,
    clean: Tensor,
    corrupt: Tensor,
    experiment: Experiment,
    at: Mapping[Position, set[int]],
    means: RunTerms,
) -> tuple[Read, RunTerms]:
    """What every input reads in the patched run, and the terms that its nodes write."""
    if experiment.direction == "denoise":
        clean, corrupt = corrupt, clean
    writers = {edge.sender for edge in experiment.edges} | {site.node for site in experiment.sites}
    parts = [node for node in writers if node.is_part and not node.along]
    other = terms_of(model, corrupt, parts)
    plain = terms_of(model, clean, parts)
    value = {"corrupt": other, "mean": means}.get(experiment.ablate)
    now: RunTerms = {}
    held = {(edge.receiver.node, pos) for edge in experiment.edges for pos in at[edge.position]}
    held |= {(site.node, pos) for site in experiment.sites for pos in at[site.position]}

    def replace(node: Node, pos: int) -> None:
        """Exchange what a node writes at a token, and the neurons with their MLP."""
        new = torch.zeros_like(now[node.whole]) if value is None else share(model, value, node)
        now[node.whole][pos] += new[pos] - share(model, now, node)[pos]
        for part in parts:
            if node.kind == "mlp" and node in (part, part.whole):
                now[part][pos] = 0 if value is None else value[part][pos]

    def seen_by(reader: Node) -> RunTerms:
        """The terms that a node may read: those in a residual stream are replaced with it, the lowest stream first."""
        terms = {node: term.clone() for node, term in now.items()}
        streams = [site for site in sorted(experiment.sites) if site.node.kind == "resid"]
        for site in [each for each in streams if each.node.stage(model.parallel) < reader.stage(model.parallel)]:
            for node, pos in product(terms, at[site.position]):
                if site.node.whole.holds(node) and not (node.is_part and site.node.along):
                    new = torch.zeros_like(terms[node]) if value is None else value[node]
                    part = node._replace(index=site.node.index, along=site.node.along)
                    change = share(model, {node: new - terms[node]}, part) if site.node.along else new - terms[node]
                    terms[node][pos] += change[pos]
        return terms

    def read(node: Node, port: str) -> Float[Tensor, "T d"]:
        terms = seen_by(node)
        resid = residual(model, terms, node)
        edges = [edge for edge in experiment.edges if (edge.receiver.node, edge.receiver.port) == (node, port)]
        sent = {"corrupt": other, "mean": means}.get(experiment.sent)
        for sender, pos in _pairs(edges, at):
            new = 0 if sent is None else share(model, sent, sender)[pos]
            resid[pos] += new - share(model, terms, sender)[pos]
        if experiment.via_mlps and edges:
            resid += mediated(model, plain, other, node, _pairs(edges, at), held)
        return resid

    for stage in stages(model):
        now |= write(model, clean, stage, read)
        now |= {part: neuron(model, part, read) for part in parts if part.kind == "mlp" and part.whole in stage}
        for site in sorted(experiment.sites, key=lambda site: not site.node.is_part):
            if site.node.whole in stage:
                for pos in at[site.position]:
                    replace(site.node, pos)
    return read, seen_by(LOGITS)


def share(model: Transformer, terms: RunTerms, node: Node) -> Float[Tensor, "T d"]:
    """What a node writes, or what a part of one does: of a component, the part of `z` that goes along its direction.

    A head's components add up to its term: `b_V` is inside its `z`, and `b_O` in none of them. Of a residual stream it
    is the sum of all terms in it.
    """
    if node.along:
        unit = torch.tensor(struct.unpack(f"<{node.along.width}f", node.along.unit))
        return torch.outer(share(model, terms, node.whole) @ unit, unit)
    if node.kind == "resid":
        return torch.stack([term for each, term in terms.items() if node.holds(each) and not each.is_part]).sum(dim=0)
    if node.kind != "head" or not node.is_part:
        return terms[node]
    block = model.blocks[node.layer]
    attn, rows = block.attn, slice(node.head * block.attn.d_head, (node.head + 1) * block.attn.d_head)
    group = slice(node.head // attn.group * attn.d_head, (node.head // attn.group + 1) * attn.d_head)
    W_V = (attn.v.weight[group] * block.attn_norm.gain).T.double()
    W_O = seen = attn.o.weight[:, rows].T.double() * (1 if attn.post is None else attn.post.gain.double())
    term = terms[node.whole].double()
    if block.attn_norm.kind == "layer":  # norms do not see a constant over all dimensions, but a stream holds it
        seen, term = (x - x.mean(-1, keepdim=True) for x in (W_O, term))
    v = torch.linalg.svd(W_V @ seen).Vh[node.index]
    return torch.outer(term @ v, v @ torch.linalg.pinv(seen) @ W_O).to(terms[node.whole].dtype)


def neuron(model: Transformer, node: Node, read: Read) -> Float[Tensor, "T d"]:
    """What a neuron writes: its activation times its output weights."""
    block = model.blocks[node.layer]
    mlp, x = block.mlp, block.mlp_norm(read(node.whole, "in"))
    hidden = mlp.act(mlp.up(x)) if mlp.gate is None else mlp.act(mlp.gate(x)) * mlp.up(x)
    term = torch.outer(hidden[:, node.index], mlp.down.weight[:, node.index])
    return term if mlp.post is None else term * _post(mlp.post, mlp.down(hidden))


def _pairs(edges: list[Edge], at: Mapping[Position, set[int]]) -> set[tuple[Node, int]]:
    """The (sender, token) pairs of the edges into one input; a part goes with its whole where that is patched too.

    So does a term with a residual stream in which it is.
    """
    pairs = {(edge.sender, pos) for edge in edges for pos in at[edge.position]}
    alone = {(node, pos) for node, pos in pairs if not node.is_part or (node.whole, pos) not in pairs}
    return {(node, pos) for node, pos in alone if not any(s.holds(node) and pos == there for s, there in pairs)}


def stages(model: Transformer) -> list[list[Node]]:
    """Every node that writes, in an order in which they can be computed; the heads of a layer stand together."""
    out = [[EMBED]]
    for layer in range(model.n_layers):
        out += [[Node("head", layer, head) for head in range(model.n_heads)], [Node("mlp", layer)]]
    return out


def nodes(model: Transformer) -> list[Node]:
    """Every node, in that order."""
    return [*(node for stage in stages(model) for node in stage), LOGITS]


def residual(model: Transformer, terms: RunTerms, node: Node) -> Float[Tensor, "T d"]:
    """What a node's inputs read: the sum of every strictly earlier term, and the output biases before it."""
    stage = node.stage(model.parallel)
    total = torch.zeros_like(terms[EMBED])
    for sender, term in terms.items():
        if sender.stage(model.parallel) < stage and not sender.is_part:
            total = total + term
    for layer, block in enumerate(model.blocks):
        if block.attn.o.bias is not None and Node("head", layer).stage(model.parallel) < stage:
            total = total + block.attn.o.bias
    return total


def terms_of(model: Transformer, tokens: Int[Tensor, " T"], parts: Sequence[Node] = ()) -> RunTerms:
    """The terms of a run that nothing is done to, and of some neurons of it."""
    terms: RunTerms = {}

    def read(node: Node, port: str) -> Float[Tensor, "T d"]:
        return residual(model, terms, node)

    for stage in stages(model):
        terms |= write(model, tokens, stage, read)
        terms |= {part: neuron(model, part, read) for part in parts if part.kind == "mlp" and part.whole in stage}
    return terms


def write(model: Transformer, tokens: Tensor, stage: Sequence[Node], read: Read) -> RunTerms:
    """The terms of the nodes of a stage, given what their inputs read."""
    first = stage[0]
    if first == EMBED:
        term = model.W_E[tokens] * model.embed_scale
        term = term if model.embed_norm is None else model.embed_norm(term)
        return {first: term if model.W_pos is None else term + model.W_pos[: len(tokens)]}
    block = model.blocks[first.layer]
    if first.kind == "mlp":
        return {first: block.mlp(block.mlp_norm(read(first, "in")))}
    terms = {node: _gathered(model, node, read) for node in stage}
    if block.attn.post is None:
        return terms
    scale = _post(block.attn.post, torch.stack(list(terms.values())).sum(dim=0))
    return {node: term * scale for node, term in terms.items()}


def _gathered(model: Transformer, node: Node, read: Read) -> Float[Tensor, "T d"]:
    """What a head writes, before any post-norm."""
    block, head = model.blocks[node.layer], node.head
    attn = block.attn
    v = _own(attn, "v", head // attn.group, block.attn_norm(read(node, "v")))
    return _pattern(model, node, read) @ v @ attn.o.weight[:, head * attn.d_head : (head + 1) * attn.d_head].T


def _post(norm: Norm, whole: Float[Tensor, "T d"]) -> Float[Tensor, "T d"]:
    """What a post-norm multiplies every share of a sum by: its gain over the root mean square of the whole sum.

    Where it is no norm, there is the gain alone.
    """
    if norm.kind == "none":
        return norm.gain
    return norm.gain / (whole.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()


def _pattern(model: Transformer, node: Node, read: Read) -> Float[Tensor, "T T"]:
    """Where a head attends, given what its inputs read."""
    block, head = model.blocks[node.layer], node.head
    attn = block.attn
    q = _own(attn, "q", head, block.attn_norm(read(node, "q")))
    k = _own(attn, "k", head // attn.group, block.attn_norm(read(node, "k")))
    if attn.rotary is not None:
        q, k = _turn(attn.rotary, q), _turn(attn.rotary, k)
    scores = q @ k.T * attn.scale
    if attn.softcap is not None:
        scores = attn.softcap * (scores / attn.softcap).tanh()
    here = torch.arange(len(q), device=q.device)
    if attn.distances is not None:
        fall = torch.tensor(attn.distances.slopes[head], device=q.device)
        far = (fall.bfloat16()[None] * here).float() if attn.distances.rounded else fall * here
        scores = scores + far * attn.distances.scale
    back = here[:, None] - here[None, :]
    sees = (back >= 0) & (back < (attn.window or len(q)))
    return scores.masked_fill(~sees, float("-inf")).softmax(dim=1)


def _own(attn: Attention, port: Port, head: int, x: Tensor) -> Float[Tensor, "T d_head"]:
    """A head's queries, keys or values before positions turn them; a norm may be of all heads together."""
    linear: Linear = getattr(attn, port)
    columns = slice(head * attn.d_head, (head + 1) * attn.d_head)
    norm = {"q": attn.q_norm, "k": attn.k_norm}.get(port)
    out = x @ linear.weight.T
    out = out if linear.bias is None else out + linear.bias
    if norm is not None and len(norm.gain) == out.shape[1]:
        out = norm(out)[:, columns]
    else:
        out = out[:, columns] if norm is None else norm(out[:, columns])
    return out if attn.clip is None else out.clamp(-attn.clip, attn.clip)


def _turn(rotary: Rotary, x: Float[Tensor, "T d_head"]) -> Float[Tensor, "T d_head"]:
    """Rotary positions, as a rotation of each pair of dimensions."""
    half = len(rotary.inv_freq)
    angle = torch.outer(torch.arange(len(x), device=x.device).to(x.dtype), rotary.inv_freq.to(x.dtype))
    cos, sin = angle.cos() * rotary.scaling, angle.sin() * rotary.scaling
    a, b, rest = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=1)


def mediated(
    model: Transformer,
    clean: RunTerms,
    other: RunTerms,
    receiver: Node,
    pairs: set[tuple[Node, int]],
    held: set[tuple[Node, int]],
) -> Float[Tensor, "T d"]:
    """What MLPs add to the change that a receiver sees when its senders change and attention is frozen to clean.

    MLPs and neurons at the tokens in `held` are frozen as well: they are patched or knocked out themselves. Where a
    residual stream is, what reads it sees nothing of what changed before.
    """
    frozen: RunTerms = {}
    streams = {(node, pos) for node, pos in held if node.kind == "resid" and not node.along}
    parts_of_streams = {(node, pos) for node, pos in pairs if node.kind == "resid" and node.along}

    def seen_by(reader: Node) -> Float[Tensor, "T d"]:
        terms = {node: term.clone() for node, term in frozen.items()}
        for stream, pos in streams:
            if stream.stage(model.parallel) < reader.stage(model.parallel):
                for node in terms:
                    if stream.holds(node):
                        terms[node][pos] = clean[node][pos]
        for stream, pos in parts_of_streams:  # its change begins where it enters
            if stream.whole.holds(reader):
                for node in terms:
                    terms[node][pos] = clean[node][pos]
        return residual(model, terms, reader)

    def goes_on(sender: Node, pos: int) -> bool:
        """Whether what a sender writes is not replaced on its way."""
        early = (s for s, there in streams if there == pos and s.stage(model.parallel) < receiver.stage(model.parallel))
        return not any(stream == sender or stream.holds(sender) for stream in early)

    for node in nodes(model)[:-1]:
        term = clean[node].clone()
        if node.kind == "mlp":
            block = model.blocks[node.layer]
            term = block.mlp(block.mlp_norm(seen_by(node)))

            def frozen_read(reader: Node, port: str) -> Float[Tensor, "T d"]:
                return seen_by(reader)

            for part, pos in held - pairs:
                if part.along and part.whole == node:
                    term[pos] += share(model, {node: clean[node] - term}, part)[pos]
                elif part.is_part and part.whole == node:
                    term[pos] += clean[part][pos] - neuron(model, part, frozen_read)[pos]
            for whole, pos in held:
                if whole == node:
                    term[pos] = clean[node][pos]
        for sender, pos in pairs:
            if sender == node or sender.holds(node):
                term[pos] = other[node][pos]
            elif sender.along and (sender.whole == node or sender.whole.holds(node)):
                part = node._replace(index=sender.index, along=sender.along)
                term[pos] += share(model, {node: other[node] - term}, part)[pos]
            elif sender.whole == node:
                own_term = share(model, clean, sender)
                if node.kind == "mlp" and (node, pos) not in held:
                    own_term = neuron(model, sender, frozen_read)
                term[pos] += share(model, other, sender)[pos] - own_term[pos]
        frozen[node] = term
    change = seen_by(receiver) - residual(model, clean, receiver)
    own = torch.zeros_like(change)
    senders = {(s, pos) for s, pos in pairs if s.kind != "resid"}
    senders |= {
        (node._replace(index=s.index, along=s.along), pos)
        for node in clean
        for s, pos in pairs
        if s.whole.holds(node) and not node.is_part
    }
    for sender, pos in [pair for pair in senders if goes_on(*pair)]:
        own[pos] += share(model, other, sender)[pos] - share(model, clean, sender)[pos]
    return change - own
