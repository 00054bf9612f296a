"""Tiny noisy models for the model tests of transformers; peer_suites.py copies this beside them.

Every model is noisy as soon as it is built, and all its forwards use the one draw that a fixed seed
gives, so that two models with the same parameters are the same function, as the tests expect.
"""

from __future__ import annotations

import functools
import importlib
import sys
import unittest
from types import ModuleType
from typing import Any

import torch
from benchmarks.hosts.peer_plugin import REPLACED

import noisynet

transformers: Any = importlib.import_module("transformers")

# The source distribution leaves out these two mixins, which the tests of models import.
for _name, _mixin in (
    ("tests.exporters.test_export", "ExportTesterMixin"),
    ("tests.generation.test_utils", "GenerationTesterMixin"),
):
    _package = _name.rpartition(".")[0]
    sys.modules.setdefault(_package, ModuleType(_package))
    sys.modules[_name] = ModuleType(_name)
    setattr(sys.modules[_name], _mixin, type(_mixin, (), {}))

ModelTesterMixin: Any = importlib.import_module("tests.test_modeling_common").ModelTesterMixin

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WORDS: dict[str, Any] = {
    "vocab_size": 99, "bos_token_id": 98, "eos_token_id": 98, "pad_token_id": 98,
}  # fmt: skip
CONFIGS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "GPT2": (
        transformers.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, n_inner=37, n_positions=64, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, **WORDS,
        ),
        (transformers.GPT2Model, transformers.GPT2LMHeadModel),
    ),
    "Llama": (
        transformers.LlamaConfig(num_key_value_heads=2, **SMALL, **WORDS),
        (transformers.LlamaModel, transformers.LlamaForCausalLM),
    ),
    "Bert": (
        transformers.BertConfig(
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **SMALL, **WORDS
        ),
        (transformers.BertModel, transformers.BertForMaskedLM),
    ),
    "ViT": (
        transformers.ViTConfig(
            image_size=30, patch_size=2, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0, **SMALL,
        ),
        (transformers.ViTModel, transformers.ViTForImageClassification),
    ),
}  # fmt: skip


def noisy(plain: Any) -> Any:
    """Return a model's class with noise in all linear layers, under one draw of a fixed seed."""
    if "transformers" not in REPLACED:
        return plain

    def build(self: Any, config: Any, *arguments: Any, **options: Any) -> None:
        plain.__init__(self, config, *arguments, **options)
        noisynet.noisify(self)

    @functools.wraps(plain.forward)
    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        device = next(self.parameters()).device
        generator = None if device.type == "meta" else torch.Generator(device).manual_seed(0)
        with noisynet.using(self, noisynet.draw(self, generator=generator)):
            return plain.forward(self, *arguments, **options)

    return type(plain.__name__, (plain,), {"__init__": build, "forward": forward})


class Tester:
    """What the mixin asks of a model: sizes, a config and a batch."""

    batch_size, seq_length, hidden_size, is_training = 3, 7, 32, True
    num_hidden_layers, num_attention_heads = 2, 4

    def __init__(self, config: Any) -> None:
        self.config = config
        if config.model_type == "vit":
            self.seq_length = (config.image_size // config.patch_size) ** 2 + 1

    def get_config(self) -> Any:
        """Return the config."""
        return self.config

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return the config and a batch of images or words."""
        if self.config.model_type == "vit":
            size = self.config.image_size
            return self.config, {"pixel_values": torch.rand(self.batch_size, 3, size, size)}
        words = torch.randint(self.config.vocab_size - 1, (self.batch_size, self.seq_length))
        return self.config, {"input_ids": words, "attention_mask": torch.ones_like(words)}


def build_tests(name: str) -> type[unittest.TestCase]:
    """Return the mixin's tests of a family's noisy models."""
    config, models = CONFIGS[name]

    def setUp(self: Any) -> None:
        self.model_tester = Tester(type(config)(**config.to_dict()))

    members = {
        "all_model_classes": tuple(noisy(one) for one in models),
        "test_resize_embeddings": False,  # it knows no σ, as the page says
        "setUp": setUp,
    }
    bases = [ModelTesterMixin, unittest.TestCase]
    if any(one.can_generate() for one in models):
        bases.insert(1, sys.modules["tests.generation.test_utils"].GenerationTesterMixin)
    return type(f"Noisy{name}Test", tuple(bases), members)


globals().update({f"Noisy{name}Test": build_tests(name) for name in CONFIGS})
