"""`python -m gpu.checkpoint DIR [--layers N] [--experts N] [--draft KIND] …`: a random W4A16 checkpoint.

It has the names, dimensions and quantization_config of DeepSeek-V4-Flash-W4A16-FP8 with fewer layers and experts and a
small vocabulary. Its W4A8 twin is the same weights below `dsv4 convert`'s config.json.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

BASE: Final = Path(__file__).resolve().parents[1] / "data" / "config_base.json"
VOCABULARY: Final = 4096
LAYER_TYPES: Final = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
Config = dict[str, Any]
Draft = Literal["none", "bf16", "quantized"]
"""The MTP layer: none, BF16 as the published checkpoint has it, or quantized as the other layers are."""


def config(
    *, layers: int, experts: int, hash_layers: int = 1, rank_of_tp2: bool = False, draft: Draft = "none"
) -> Config:
    """The base's config.json for a smaller model; `rank_of_tp2` halves what two GPUs share."""
    ratios = [0, *([4, 128] * layers)][:layers]
    small: Config = json.loads(BASE.read_bytes())
    small.update(
        num_hidden_layers=layers,
        num_hash_layers=hash_layers,
        n_routed_experts=experts,
        vocab_size=VOCABULARY,
        num_nextn_predict_layers=int(draft != "none"),
        compress_ratios=[*ratios, 0],
        mlp_layer_types=["hash_moe"] * hash_layers + ["moe"] * (layers - hash_layers),
        layer_types=[LAYER_TYPES[ratio] for ratio in ratios],
    )
    if rank_of_tp2:
        small.update({key: small[key] // 2 for key in ("num_attention_heads", "o_groups", "moe_intermediate_size")})
    if draft != "none":
        # The base excludes its draft under both of its names, of which one has the number of layers in it.
        ignored = (name.replace(r"\.43\.", rf"\.{layers}\.") for name in small["quantization_config"]["ignore"])
        excluded = (rf"re:.*\.layers\.{layers}\..*", "re:.*mtp.*")
        small["quantization_config"]["ignore"] = [name for name in ignored if draft == "bf16" or name not in excluded]
    return small


def write(directory: Path, small: Config, draft: Draft) -> None:
    """Weights of `small`, one file a layer, and the index. Needs torch and safetensors; a GPU makes it quick."""
    from gpu.weights import Weights

    weights = Weights(small)
    # Made one at a time: together they may be more than a GPU holds.
    files = {"model-embed.safetensors": weights.outer}
    files |= {f"model-layer-{n}.safetensors": partial(weights.layer, n) for n in range(small["num_hidden_layers"])}
    if draft != "none":
        files["model-mtp.safetensors"] = partial(weights.draft, quantized=draft == "quantized")
    index = {name: file for file, make in files.items() for name in weights.save(directory / file, make())}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--hash-layers", type=int, default=1)
    parser.add_argument("--rank-of-tp2", action="store_true")
    parser.add_argument("--draft", choices=get_args(Draft), default="none")
    args = parser.parse_args()
    small = config(
        layers=args.layers,
        experts=args.experts,
        hash_layers=args.hash_layers,
        rank_of_tp2=args.rank_of_tp2,
        draft=args.draft,
    )
    args.directory.mkdir(parents=True, exist_ok=True)
    (args.directory / "config.json").write_text(json.dumps(small, indent=2))
    write(args.directory, small, args.draft)


if __name__ == "__main__":
    main()
