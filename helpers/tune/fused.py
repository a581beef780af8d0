"""A decoder layer with its adapters as one step of autograd: the same numbers, fewer calls.

Small layers on a CPU spend their time between the matrix products: four bits are unpacked at each
use, each adapter takes six products of its own, and dozens of element-wise steps are recorded.
Here the linear layers that read the same input are one product, frozen weights are unpacked once,
and the gradients are written out by hand. The adapters stay PEFT's own parameters.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from torch.nn import functional

# read and compared; whatever else is different in one is caught by `agrees`
KNOWN = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer")
# the linear layers that read the same input
GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
KEPT_BYTES = 2**30  # unpacked weights that take more are made anew at each use


class Group:
    """Linear layers that read the same input, with their adapters, as one matrix.

    `matrix` is (outputs + ranks, inputs): the frozen weights, below them every A. `spread` is
    (ranks, outputs): every B at its place, transposed and scaled, zeros elsewhere.
    """

    def __init__(self, linears: Sequence[torch.nn.Module], dtype: torch.dtype) -> None:
        self.dtype, self.bases, self.places = dtype, [], []
        self.matrix: torch.Tensor | None = None
        self.outputs = self.ranks = 0
        for linear in linears:
            base = linear.base_layer if isinstance(linear, LoraLayer) else linear
            if isinstance(linear, LoraLayer):
                name = linear.active_adapters[0]
                rank = linear.r[name]
                self.places.append((linear, name, self.ranks, rank, self.outputs))
                self.ranks += rank
            self.bases.append(base)
            self.outputs += base.out_features
        self.inputs = self.bases[0].in_features

    def bytes(self) -> int:
        """Memory of `matrix`."""
        return (self.outputs + self.ranks) * self.inputs * self.dtype.itemsize

    def weights(self) -> list[torch.nn.Parameter]:
        """A and B of each adapter."""
        found = []
        for linear, name, *_ in self.places:
            found += [linear.lora_A[name].weight, linear.lora_B[name].weight]
        return found

    def unpack(self) -> None:
        """Make `matrix` from the frozen weights, unless it is kept."""
        if self.matrix is not None:
            return
        matrix = torch.empty(self.outputs + self.ranks, self.inputs, dtype=self.dtype)
        self.spread = torch.zeros(self.ranks, self.outputs, dtype=self.dtype)
        bias = torch.zeros(self.outputs, dtype=self.dtype)
        with_bias = any(base.bias is not None for base in self.bases)
        row = 0
        for base in self.bases:
            rows = slice(row, row + base.out_features)
            matrix[rows] = dequantize_module_weight(base)
            if base.bias is not None:
                bias[rows] = base.bias.detach()
            row += base.out_features
        self.matrix, self.bias = matrix, bias if with_bias else None

    def room(self, tokens: int) -> torch.Tensor:
        """Uninitialised (tokens, outputs + ranks), see `backward`."""
        return torch.empty(tokens, self.outputs + self.ranks, dtype=self.dtype)

    def take_adapters(self) -> None:
        """Copy the adapters' present values in, after `unpack`."""
        assert self.matrix is not None
        for linear, name, row, rank, column in self.places:
            a, b = linear.lora_A[name].weight, linear.lora_B[name].weight
            self.matrix[self.outputs + row : self.outputs + row + rank] = a
            place = self.spread[row : row + rank, column : column + b.shape[0]]
            torch.mul(b.t(), linear.scaling[name], out=place)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(tokens, outputs) of (tokens, inputs), and (tokens, ranks): what each B read."""
        y = functional.linear(x, self.matrix)
        out, low = y[:, : self.outputs], y[:, self.outputs :]
        if self.bias is not None:
            out += self.bias
        if self.ranks:
            out.addmm_(low, self.spread)
        return out, low.clone()  # a view would keep the whole of y

    def backward(
        self, x: torch.Tensor, low: torch.Tensor, back: torch.Tensor, needs_x: bool = True
    ) -> tuple[torch.Tensor | None, list[torch.Tensor]]:
        """Gradients of x and of `weights()`.

        `back` is (tokens, outputs + ranks): gradients of the outputs, then room for those of low.
        """
        gradients = []
        if self.ranks:
            out = back[:, : self.outputs]
            torch.mm(out, self.spread.t(), out=back[:, self.outputs :])
            of_a = (back[:, self.outputs :].t() @ x).float()
            of_b = (low.t() @ out).float()
            for linear, name, row, rank, column in self.places:
                width = linear.lora_B[name].weight.shape[0]
                piece = of_b[row : row + rank, column : column + width].t()
                gradients += [of_a[row : row + rank], piece * linear.scaling[name]]
        return back @ self.matrix if needs_x else None, gradients


def normed(x: torch.Tensor, norm: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(RMSNorm of (tokens, width), one over the root mean square of each token in float32)."""
    wide = x.float()
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.variance_epsilon)
    return (wide * inverse).to(x.dtype) * norm.weight, inverse


def norm_gradient(
    x: torch.Tensor, inverse: torch.Tensor, norm: torch.nn.Module, back: torch.Tensor
) -> torch.Tensor:
    """Gradient of x, in float32."""
    back = (back * norm.weight).float()
    unit = x.float() * inverse
    along = (back * unit).mean(-1, keepdim=True)
    return back.addcmul_(unit, along, value=-1).mul_(inverse)


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor) -> None:
    """Rotary positions: (batch, tokens, heads, width) turned by (batch, tokens, 1, width / 2)."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half:]).addcmul_(first, sin)


class _Layer(torch.autograd.Function):
    """One decoder layer. The weights are passed so that autograd hands them their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        mask: torch.Tensor | None,
        cos: torch.Tensor,
        sin: torch.Tensor,
        plan: "Plan",
        *weights: torch.Tensor,
    ) -> torch.Tensor:
        batch, tokens, width = hidden.shape
        x = hidden.reshape(-1, width)
        joint, onto, gates, down = plan.open()
        read, scale_1 = normed(x, plan.norms[0])
        projected, low_1 = joint.forward(read)
        heads = projected.view(batch, tokens, -1, plan.head_width)
        turned = torch.empty_like(heads[:, :, : plan.turned])
        turn(heads[:, :, : plan.turned], cos, sin, turned)
        parts = [turned[:, :, : plan.heads], turned[:, :, plan.heads :], heads[:, :, plan.turned :]]
        parts = [part.transpose(1, 2).detach().requires_grad_() for part in parts]
        query, key, value = parts
        with torch.enable_grad():  # the gradient of attention is torch's own
            seen = functional.scaled_dot_product_attention(
                query,
                key,
                value,
                mask,
                is_causal=mask is None,
                scale=plan.scale,
                enable_gqa=True,
            )
        attended = seen.detach().transpose(1, 2).reshape(x.shape[0], -1)
        out, low_2 = onto.forward(attended)
        middle = x + out
        read_2, scale_2 = normed(middle, plan.norms[1])
        gated, low_3 = gates.forward(read_2)
        half = gates.outputs // 2
        acted = functional.silu(gated[:, :half]).mul_(gated[:, half:])
        out, low_4 = down.forward(acted)
        plan.close()
        ctx.plan, ctx.parts, ctx.seen = plan, parts, seen
        kept = (x, scale_1, read, low_1, attended, low_2, middle, scale_2, read_2, low_3, gated)
        ctx.save_for_backward(cos, sin, *kept, acted, low_4, *weights)
        return (middle + out).view(hidden.shape)

    @staticmethod
    def backward(ctx: Any, back: torch.Tensor) -> tuple:
        plan = ctx.plan
        cos, sin, x, scale_1, read, low_1, attended, low_2, *more = ctx.saved_tensors
        middle, scale_2, read_2, low_3, gated, acted, low_4, *_ = more
        shape, back = back.shape, back.reshape(x.shape)
        joint, onto, gates, down = plan.open()
        room = down.room(len(x))
        room[:, : down.outputs] = back
        of_acted, of_down = down.backward(acted, low_4, room)
        half, room = gates.outputs // 2, gates.room(len(x))
        gate, up = gated[:, :half], gated[:, half:]
        torch.mul(of_acted, functional.silu(gate), out=room[:, half : gates.outputs])
        torch.ops.aten.silu_backward.grad_input(of_acted.mul_(up), gate, grad_input=room[:, :half])
        of_read, of_gates = gates.backward(read_2, low_3, room)
        back = back + norm_gradient(middle, scale_2, plan.norms[1], of_read).to(back.dtype)
        room = onto.room(len(x))
        room[:, : onto.outputs] = back
        of_seen, of_onto = onto.backward(attended, low_2, room)
        of_seen = of_seen.view(*shape[:2], plan.heads, -1).transpose(1, 2)
        of_parts = torch.autograd.grad(ctx.seen, ctx.parts, of_seen)
        query, key, value = (part.transpose(1, 2) for part in of_parts)
        room = joint.room(len(x))
        heads = room[:, : joint.outputs].view(*shape[:2], -1, plan.head_width)
        turn(query, cos, -sin, heads[:, :, : plan.heads])
        turn(key, cos, -sin, heads[:, :, plan.heads : plan.turned])
        heads[:, :, plan.turned :] = value
        needs_x = ctx.needs_input_grad[0]
        of_read, of_joint = joint.backward(read, low_1, room, needs_x)
        if needs_x:
            back = back + norm_gradient(x, scale_1, plan.norms[0], of_read).to(back.dtype)
        plan.close()
        of_hidden = back.view(shape) if needs_x else None
        return of_hidden, None, None, None, None, *of_joint, *of_onto, *of_gates, *of_down


class Plan:
    """What the fused forward and backward of one decoder layer need."""

    def __init__(self, layer: torch.nn.Module, dtype: torch.dtype, keep: bool) -> None:
        config, attention = layer.self_attn.config, layer.self_attn
        self.dtype, self.keep, self.scale = dtype, keep, attention.scaling
        self.heads, self.head_width = config.num_attention_heads, attention.head_dim
        self.turned = self.heads + config.num_key_value_heads  # queries and keys
        self.norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self.linears, self.groups = linear_layers(layer), []
        for names in GROUPS:
            self.groups.append(Group([layer.get_submodule(name) for name in names], dtype))

    def open(self) -> list[Group]:
        """The groups, ready to compute."""
        for group in self.groups:
            group.unpack()
            group.take_adapters()
        return self.groups

    def close(self, keep: bool | None = None) -> None:
        """Forget the unpacked weights where they are not to be kept."""
        if not (self.keep if keep is None else keep):
            for group in self.groups:
                group.matrix = None

    def run(self, hidden: torch.Tensor, mask: Any, positions: Sequence[torch.Tensor]) -> Any:
        """The layer's output, (batch, tokens, width) like `hidden`."""
        half = self.head_width // 2
        # both halves of cos and of sin are the same
        cos, sin = (table[..., None, :half].to(self.dtype) for table in positions)
        weights = [weight for group in self.groups for weight in group.weights()]
        with torch.autocast("cpu", enabled=False):
            return _Layer.apply(hidden, mask, cos, sin, self, *weights)


def linear_layers(layer: torch.nn.Module) -> list[torch.nn.Module]:
    """The linear layers of a decoder layer, in the order of GROUPS."""
    return [layer.get_submodule(name) for names in GROUPS for name in names]


def usable(layer: torch.nn.Module) -> bool:
    """Whether the computation of this decoder layer is the one written out here."""
    import bitsandbytes

    if type(layer).__name__ not in KNOWN:
        return False
    if layer.self_attn.config.hidden_act != "silu" or layer.self_attn.attention_dropout:
        return False
    for linear in linear_layers(layer):
        if isinstance(linear, LoraLayer):
            active = linear.active_adapters
            if len(active) != 1 or linear.merged or linear.disable_adapters:
                return False
            if linear.lora_variant or linear.lora_bias.get(active[0]):
                return False
            if not isinstance(linear.lora_dropout[active[0]], torch.nn.Identity):
                return False
            linear = linear.base_layer
        if type(linear) not in (torch.nn.Linear, bitsandbytes.nn.Linear4bit):
            return False
        # bitsandbytes has repacked this weight for answering, see training.linear4bit_layers
        if getattr(getattr(linear.weight, "quant_state", None), "packing_format_for_cpu", False):
            return False
        if linear.weight.requires_grad or linear.weight.device.type != "cpu":
            return False
    return True


def _forward(
    self: torch.nn.Module,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    position_embeddings: Sequence[torch.Tensor] | None = None,
    past_key_values: Any = None,
    **more: Any,
) -> torch.Tensor:
    """The fused layer while it trains, the layer as it was everywhere else."""
    dtype, plan = hidden_states.dtype, self.fused_plan
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != dtype:
        dtype = None
    training = self.training and past_key_values is None
    if training and dtype == plan.dtype and plan.linears == linear_layers(self) and usable(self):
        return plan.run(hidden_states, attention_mask, position_embeddings)
    plan.close(keep=False)
    return type(self).forward(
        self,
        hidden_states,
        attention_mask=attention_mask,
        position_embeddings=position_embeddings,
        past_key_values=past_key_values,
        **more,
    )


def sees_all(model: torch.nn.Module) -> bool:
    """Whether every token may see all before it, with nothing random: a known model as it comes."""
    config = model.config
    if not any(type(module).__name__ in KNOWN for module in model.modules()):
        return False
    if {"full_attention"} != set(getattr(config, "layer_types", None) or ["full_attention"]):
        return False
    if getattr(config, "sliding_window", None) and not hasattr(config, "layer_types"):
        return False
    adapters = (getattr(model, "peft_config", None) or {}).values()
    dropped = [getattr(adapter, "lora_dropout", 0) for adapter in adapters]
    return not any(dropped) and not getattr(config, "attention_dropout", 0)


def fuse(model: torch.nn.Module, dtype: torch.dtype) -> int:
    """Let the decoder layers of a model with adapters train fused; returns how many do.

    `dtype` is what the layers compute in. Nothing is changed where a layer is another one than
    those known here, or where its gradients differ from the plain way's.
    """
    layers = [layer for layer in model.modules() if type(layer).__name__ in KNOWN]
    layers = [layer for layer in layers if usable(layer) and "forward" not in vars(layer)]
    plans = [Plan(layer, dtype, keep=True) for layer in layers]
    room = sum(group.bytes() for plan in plans for group in plan.groups)
    for layer, plan in zip(layers, plans):
        plan.keep = room <= KEPT_BYTES
        if layer is layers[0] and not agrees(layer, plan):
            return 0
        layer.fused_plan = plan
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def agrees(layer: torch.nn.Module, plan: Plan) -> bool:
    """Whether output and gradients of the fused layer are those of the plain one, on noise."""
    noise = torch.Generator().manual_seed(0)
    weights = [weight for group in plan.groups for weight in group.weights()]
    before = [weight.detach().clone() for weight in weights]
    hidden = torch.randn(1, 12, plan.groups[0].inputs, generator=noise).to(plan.dtype)
    angles = torch.rand(1, 12, plan.head_width // 2, generator=noise).repeat(1, 1, 2)
    positions = (angles.cos().to(plan.dtype), angles.sin().to(plan.dtype))
    mask = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    mask[..., 6:, 2:6] = False  # two rows of a pack that share a beginning
    back = torch.randn(hidden.shape, generator=noise).to(plan.dtype)
    found = []
    try:
        with torch.no_grad():
            for weight in weights:  # B begins at zero, and A has no gradient then
                weight.copy_(torch.randn(weight.shape, generator=noise) * 0.05)
        for fused in (False, True):
            x = hidden.clone().requires_grad_()
            if fused:
                y = plan.run(x, mask, positions)
            else:
                half = torch.autocast("cpu", plan.dtype, enabled=plan.dtype != torch.float32)
                with half:
                    y = layer(x, attention_mask=mask, position_embeddings=positions)
            found.append([y.detach(), *torch.autograd.grad(y, [x, *weights], back)])
    except Exception:  # whatever another version of a library does differently
        return False
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before):
                weight.copy_(value)
    for one, other in zip(*found):
        one, other = one.float(), other.float()
        if not (one - other).norm() <= 0.05 * one.norm():
            return False
    return True
