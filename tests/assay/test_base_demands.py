"""How much of a text a base model is let read at once, by its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assay.base_demands import context_tokens
from trainer.recipes.fit import read_limits

HALF = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 99}
LONG = {"rope_type": "longrope", **HALF}


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"model_type": "llama", "max_position_embeddings": 2048}, 2048),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "mpt"}, 1 << 30),
        # As Phi-3's files have it, and with one set of parameters for each type of layer.
        (
            {"model_type": "phi3", "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
             "pad_token_id": 0, "rope_scaling": {"type": "longrope", **HALF}},
            4096,
        ),
        ({"model_type": "llama", "max_position_embeddings": 8192,
          "rope_parameters": {**LONG, "original_max_position_embeddings": 1024, "factor": 8.0}}, 1024),
        ({"model_type": "llama", "max_position_embeddings": 8192,
          "rope_parameters": {**LONG, "original_max_position_embeddings": 16384, "factor": 1.0}}, 8192),
        # Llama 3 has one code for every length.
        ({"model_type": "llama", "max_position_embeddings": 131072,
          "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                              "original_max_position_embeddings": 8192}}, 131072),
    ],
)  # fmt: skip
def test_a_context_ends_where_the_models_one_code_of_positions_does(
    config: dict[str, Any], context: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, **config}))
    assert read_limits(tmp_path) == (99, context)


def test_layers_of_several_types_are_read_as_far_as_all_of_them_reach() -> None:
    class Config:
        max_position_embeddings = 8192
        rope_parameters = {  # noqa: RUF012
            "sliding_attention": {"rope_type": "default"},
            "full_attention": {**LONG, "original_max_position_embeddings": 512},
            "none": None,
        }

    assert context_tokens(Config()) == 512
