"""Random tensors under the names that DeepSeek-V4 checkpoints use, quantized as the config says."""

from pathlib import Path
from typing import Any, Final

import torch
from gpu import distributions
from safetensors.torch import save_file
from torch import Tensor

BLOCK: Final = 128
Tensors = dict[str, Tensor]


class Weights:
    """Of a model with this config; every tensor is drawn anew, on the GPU where there is one."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.hidden: int = config["hidden_size"]
        self.inner: int = config["moe_intermediate_size"]
        self.streams: int = config["hc_mult"]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.generator = torch.Generator(self.device).manual_seed(0)

    def save(self, file: Path, tensors: Tensors) -> list[str]:
        """Their names."""
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, file)
        return list(tensors)

    def outer(self) -> Tensors:
        """What no layer holds."""
        vocabulary = self.config["vocab_size"]
        return {
            "embed.weight": self._normal(vocabulary, self.hidden, spread=distributions.EMBEDDING).bfloat16(),
            "head.weight": self._normal(vocabulary, self.hidden),
            "norm.weight": self._ones(self.hidden),
            "hc_head_fn": self._normal(self.streams, self.streams * self.hidden),
            "hc_head_base": self._normal(self.streams),
            "hc_head_scale": self._normal(1),
        }

    def layer(self, number: int) -> Tensors:
        hashed = number < self.config["num_hash_layers"]
        return _below(f"layers.{number}.", self._block(self.config["compress_ratios"][number], hashed=hashed))

    def draft(self, *, quantized: bool) -> Tensors:
        """The MTP layer, with an embedding and a head of its own."""
        tensors = self._block(0, hashed=False, quantized=quantized)
        tensors |= {f"{name}.weight": self._bf16(self.hidden, self.hidden) for name in ("e_proj", "h_proj")}
        tensors |= {f"{name}.weight": self._ones(self.hidden) for name in ("enorm", "hnorm")}
        outer = self.outer()
        tensors["emb.tok_emb.weight"] = outer.pop("embed.weight")
        return _below("mtp.0.", tensors | outer)

    def _block(self, ratio: int, *, hashed: bool, quantized: bool = True) -> Tensors:
        mixes = (2 + self.streams) * self.streams
        tensors = {"attn_norm.weight": self._ones(self.hidden), "ffn_norm.weight": self._ones(self.hidden)}
        for part in ("attn", "ffn"):
            tensors[f"hc_{part}_fn"] = self._normal(mixes, self.streams * self.hidden)
            tensors[f"hc_{part}_base"] = self._normal(mixes)
            tensors[f"hc_{part}_scale"] = self._normal(3)
        tensors |= _below("attn.", self._attention(ratio, quantized=quantized))
        return tensors | _below("ffn.", self._experts(hashed=hashed, quantized=quantized))

    def _attention(self, ratio: int, *, quantized: bool) -> Tensors:
        config = self.config
        heads, head, rank = config["num_attention_heads"], config["head_dim"], config["q_lora_rank"]
        groups, wide = config["o_groups"], config["o_groups"] * config["o_lora_rank"]
        linear = self._fp8 if quantized else self._plain
        tensors = linear("wq_a", rank, self.hidden)
        tensors |= linear("wq_b", heads * head, rank)
        tensors |= linear("wkv", head, self.hidden)
        tensors |= linear("wo_a", wide, heads * head // groups)
        tensors |= linear("wo_b", self.hidden, wide)
        tensors |= {
            "q_norm.weight": self._ones(rank),
            "kv_norm.weight": self._ones(head),
            "attn_sink": self._normal(heads),
        }
        if ratio:
            tensors |= _below("compressor.", self._compressor(head, ratio))
        if ratio == 4:
            tensors |= _below("indexer.", self._indexer(ratio))
        return tensors

    def _compressor(self, head: int, ratio: int) -> Tensors:
        """Neighbouring windows overlap where four tokens become one, and then both halves are kept."""
        wide = 2 * head if ratio == 4 else head
        return {
            "wkv.weight": self._bf16(wide, self.hidden),
            "wgate.weight": self._bf16(wide, self.hidden),
            "ape": self._normal(ratio, wide),
            "norm.weight": self._ones(head),
        }

    def _indexer(self, ratio: int) -> Tensors:
        heads, head = self.config["index_n_heads"], self.config["index_head_dim"]
        return {
            "wq_b.weight": self._bf16(heads * head, self.config["q_lora_rank"]),
            "weights_proj.weight": self._bf16(heads, self.hidden),
            **_below("compressor.", self._compressor(head, ratio)),
        }

    def _experts(self, *, hashed: bool, quantized: bool) -> Tensors:
        linear = self._int4 if quantized else self._plain
        experts = self.config["n_routed_experts"]
        shapes = {"w1": (self.inner, self.hidden), "w2": (self.hidden, self.inner), "w3": (self.inner, self.hidden)}
        tensors = {"gate.weight": self._bf16(experts, self.hidden)}
        if hashed:
            tensors["gate.tid2eid"] = self._experts_of_tokens(experts)
        else:
            tensors["gate.bias"] = self._normal(experts)
        for name, shape in shapes.items():
            tensors[f"shared_experts.{name}.weight"] = self._bf16(*shape)
            for expert in range(experts):
                tensors |= linear(f"experts.{expert}.{name}", *shape)
        return tensors

    def _experts_of_tokens(self, experts: int) -> Tensor:
        """[vocabulary, k] different experts each."""
        order = torch.rand(self.config["vocab_size"], experts, generator=self.generator, device=self.device)
        return order.topk(self.config["num_experts_per_tok"]).indices.int()

    def _fp8(self, name: str, rows: int, columns: int) -> Tensors:
        """One scale, a power of two, for each block of 128 by 128."""
        blocks = self._normal(rows, columns).view(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
        scale = torch.exp2(torch.ceil(torch.log2(blocks.abs().amax((1, 3)) / 448)))
        weight = (blocks / scale[:, None, :, None]).view(rows, columns).to(torch.float8_e4m3fn)
        return {f"{name}.weight": weight, f"{name}.weight_scale": scale}

    def _int4(self, name: str, rows: int, columns: int) -> Tensors:
        """Eight numbers to an int32, one scale for each 128 of a row."""
        bits, draw = (rows, columns // 8), {"generator": self.generator, "device": self.device}
        scale = torch.rand(rows, columns // BLOCK, **draw) * 0.004 + 0.002
        packed = torch.randint(-(2**31), 2**31, bits, dtype=torch.int32, **draw)
        return {
            f"{name}.weight_packed": distributions.centred(packed),
            f"{name}.weight_scale": scale.bfloat16(),
            f"{name}.weight_shape": torch.tensor([rows, columns]),
        }

    def _plain(self, name: str, rows: int, columns: int) -> Tensors:
        return {f"{name}.weight": self._bf16(rows, columns)}

    def _normal(self, *shape: int, spread: float = distributions.WEIGHTS) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device) * spread

    def _bf16(self, *shape: int) -> Tensor:
        return self._normal(*shape).bfloat16()

    def _ones(self, size: int) -> Tensor:
        return torch.ones(size, dtype=torch.bfloat16)


def _below(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
