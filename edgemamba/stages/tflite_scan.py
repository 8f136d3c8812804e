"""The selective scan as TFLite operators, in the order in which they use the cache.

Decays exp(dt A) are kept from the first pass for the second; the products dt x B are cheaper made again than
kept. Every operator has at most four axes.
"""

from __future__ import annotations

from edgemamba.stages.tflite_writer import GraphWriter, Value


def two_pass(
    w: GraphWriter, dt: Value, u: Value, A: Value, B: Value, C: Value, groups: int, state_axis: int = 1
) -> Value:
    """``ssm.export_forms.two_pass``, in both of its layouts."""
    chunk = dt.shape[2]
    time = 3 - state_axis
    dt_steps, u_steps = ([w.slice(x, 2, q, q + 1) for q in range(chunk)] for x in (dt, u))
    B_steps, C_steps = ([w.slice(x, time, q, q + 1) for q in range(chunk)] for x in (B, C))
    decays = [w.unary("EXP", w.mul(dt_steps[0], A))]
    state = w.mul(u_steps[0], B_steps[0])
    for q in range(1, chunk):
        decays.append(w.unary("EXP", w.mul(dt_steps[q], A)))
        state = w.add(w.mul(decays[q], state), w.mul(u_steps[q], B_steps[q]))
    start: Value | None = None
    if dt.shape[3] > groups:
        total = w.reduce("SUM", dt, [2], keep=True)
        start = _carry(w, state, w.unary("EXP", w.mul(total, A)), groups)
    outputs = []
    for q in range(chunk):
        added = w.mul(u_steps[q], B_steps[q])
        start = added if start is None else w.add(w.mul(decays[q], start), added)
        outputs.append(w.reduce("SUM", w.mul(C_steps[q], start), [state_axis], keep=True))
    return w.concat(outputs, 2)


def _carry(w: GraphWriter, end: Value, decay: Value, groups: int) -> Value:
    """Start state of every chunk from the end states of chunks started at zero, by doubling on the last
    axis."""
    positions = end.shape[3] - groups
    end, decay = w.slice(end, 3, 0, positions), w.slice(decay, 3, 0, positions)
    shift = groups
    while shift < positions:
        # Column i of ``decay`` is position positions - width + i: only the last ones are needed.
        width = positions - shift
        moved = w.mul(_last(w, decay, width), w.slice(end, 3, 0, width))
        end = w.concat([w.slice(end, 3, 0, shift), w.add(moved, _last(w, end, width))], 3)
        if 2 * shift < positions:
            now = decay.shape[3]
            earlier = w.slice(decay, 3, now - width, now - shift)
            decay = w.mul(_last(w, decay, positions - 2 * shift), earlier)
        shift *= 2
    return w.pad(end, [(0, 0), (0, 0), (0, 0), (groups, 0)])


def _last(w: GraphWriter, x: Value, width: int) -> Value:
    return w.slice(x, 3, x.shape[3] - width, x.shape[3])


def sequential(w: GraphWriter, dt: Value, u: Value, A: Value, B: Value, C: Value) -> Value:
    """``ssm.export_forms.sequential``: dt, u (L, G, 1, D), A (1, 1 or G, N, D), B, C (L, G, N, 1) -> (L, G, 1, D)."""
    state: Value | None = None
    outputs = []
    for t in range(dt.shape[0]):
        dt_t, u_t, B_t, C_t = (w.slice(x, 0, t, t + 1) for x in (dt, u, B, C))
        added = w.mul(u_t, B_t)
        state = added if state is None else w.add(w.mul(w.unary("EXP", w.mul(dt_t, A)), state), added)
        outputs.append(w.reduce("SUM", w.mul(state, C_t), [2], keep=True))
    return w.concat(outputs, 0)
