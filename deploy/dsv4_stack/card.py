"""The model card's own measurement, to hold ours against: one prompt at a time, nothing of it in the prefix cache.

Source: https://huggingface.co/endnai/DeepSeek-V4-Flash-W4A8-FP8
"""

from typing import Final

PROMPT_TOKENS: Final = 24_576
GPUS: Final = 2
TTFT_S: Final = 1.658
# Tokens per second and GPU, as the card has it: the tokens of the prompt over the time to the first token.
PREFILL: Final = 7410
LABEL: Final = f"model card: {PROMPT_TOKENS:,} tokens, {GPUS}x H200"
