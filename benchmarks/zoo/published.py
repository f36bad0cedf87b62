"""Networks of torchvision, timm and transformers, in small configurations, from random weights as their makers draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.cases import CLASSES, Batch, Stock, images, words

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
"""torchvision's wheels are built for CUDA: beside a torch without it their detectors' operators, unused here, lack."""

TORCHVISION = """
alexnet:96 vgg11 vgg13 vgg16 vgg11_bn vgg16_bn resnet18 resnet34 resnet50 wide_resnet50_2 resnext50_32x4d densenet121
squeezenet1_0:64 squeezenet1_1:64 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large shufflenet_v2_x0_5
shufflenet_v2_x1_0 mnasnet0_5 mnasnet1_0 efficientnet_b0 regnet_x_400mf regnet_y_400mf convnext_tiny:64 swin_t:64
swin_v2_t:64
"""
"""Name and, where 32 is too small, the size of a picture."""

WITHOUT_NORM = frozenset({"alexnet", "vgg11", "vgg13", "vgg16", "squeezenet1_0", "squeezenet1_1"})
"""torchvision's own recipes train these with a tenth of the learning rate."""

TIMM = """
resnet26 resnet26d resnetv2_50 seresnet18 ecaresnet26t skresnet18 resnest14d gernet_s regnetx_002 regnety_002 dpn48b
dla34 dla46_c hrnet_w18_small selecsls42 vovnet39a res2net50_26w_4s densenet121
mobilenetv3_small_050 mobilenetv4_conv_small
mobilenetv2_050 efficientnet_lite0 ghostnet_050 fbnetc_100 mnasnet_small lcnet_050 tinynet_e mixnet_s semnasnet_075
repvgg_a0 rexnet_100 cspresnet50 darknet17 convnext_atto convnextv2_atto nf_regnet_b0 nfnet_l0 dm_nfnet_f0
edgenext_xx_small
mobileone_s0 fastvit_t8 repghostnet_050 starnet_s1 inception_next_atto
"""

TIMM_SIZED = """
vit_tiny_patch16_224 deit_tiny_patch16_224 cait_xxs24_224 mixer_s32_224 gmlp_ti16_224 resmlp_12_224 xcit_nano_12_p16_224
swin_tiny_patch4_window7_224 pit_ti_224 convmixer_1024_20_ks9_p14 poolformer_s12 poolformerv2_s12 coat_tiny levit_128s
vit_relpos_small_patch16_224 beit_base_patch16_224 eva02_tiny_patch14_224 crossvit_tiny_240 visformer_tiny
"""
"""These want pictures of the size in their name, or of 224."""

CAUSAL = "GPT2 GPTNeo GPTNeoX OPT Bloom Llama Mistral Qwen2 Gemma Phi CodeGen GPTJ Mpt Falcon StableLm Olmo XGLM BioGpt"
MASKED = "Bert Roberta Albert DistilBert Electra MPNet DebertaV2 ConvBert SqueezeBert FNet MobileBert"

WIDTH, HEADS, LAYERS, VOCABULARY = 64, 4, 4, 100


def torchvision() -> Iterator[Stock]:
    """The classifiers of torchvision."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torchvision = import_module("torchvision")

    for entry in TORCHVISION.split():
        name, _, size = entry.partition(":")
        make = partial(getattr(torchvision.models, name), num_classes=CLASSES)
        optimizer = "careful sgd" if name in WITHOUT_NORM else "sgd"
        yield Stock(f"torchvision.{name}", _family(name), make, partial(images, int(size or 32)), optimizer=optimizer)


def timm() -> Iterator[Stock]:
    """Those of timm."""
    timm = import_module("timm")

    for name in TIMM.split():
        make = partial(timm.create_model, name, num_classes=CLASSES)
        yield Stock(f"timm.{name}", _family(name), make, partial(images, 64))
    for name in TIMM_SIZED.split():
        size = next((int(part) for part in reversed(name.split("_")) if part.isdigit() and 100 < int(part) < 500), 224)
        make = partial(timm.create_model, name, num_classes=CLASSES)
        yield Stock(f"timm.{name}", _family(name), make, partial(images, size, samples=4))


def transformers() -> Iterator[Stock]:
    """Language models of transformers, of four layers of 64."""
    transformers = import_module("transformers")

    for kinds, suffix in ((CAUSAL, "ForCausalLM"), (MASKED, "ForMaskedLM")):
        for kind in kinds.split():
            head = "LMHeadModel" if kind == "GPT2" else suffix
            make = partial(_small, transformers, kind, head)
            yield Stock(f"transformers.{kind}", kind.lower(), make, _sentences, _own_loss)


def _small(library: Any, kind: str, head: str) -> nn.Module:
    sizes = {
        "vocab_size": VOCABULARY,
        **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "embedding_size", "word_embed_proj_dim"), WIDTH),
        **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), LAYERS),
        **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"), HEADS),
        **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "n_inner"), 4 * WIDTH),
        **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 64),
        **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), HEADS),
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    }
    own: dict[str, dict[str, Any]] = {
        "GPTNeo": {"attention_types": [[["global", "local"], LAYERS // 2]]},
        "MobileBert": {"true_hidden_size": WIDTH, "intra_bottleneck_size": WIDTH, "embedding_size": WIDTH},
        "Gemma": {"head_dim": WIDTH // HEADS},
        "GPTJ": {"rotary_dim": 8},
        "CodeGen": {"rotary_dim": 8},
        "FNet": {"tpu_short_seq_length": 24},
    }
    config = getattr(library, f"{kind}Config")
    known = set(config().to_dict()) | set(getattr(config, "attribute_map", {}))
    mapped = getattr(config, "attribute_map", {})
    given = {key: value for key, value in sizes.items() if key in known and mapped.get(key, key) in known}
    model: nn.Module = getattr(library, f"{kind}{head}")(config(**({**given, **own.get(kind, {})})))
    return model


def _sentences() -> Batch:
    # Words 0 to 3 stand for no word in one of them or another: the embedding of padding in the middle of a sentence is
    # zero, and the norm behind it multiplies its gradient by 1e6.
    tokens = 4 + words(vocabulary=VOCABULARY - 4)
    return {"input_ids": tokens, "labels": tokens}, None


def _own_loss(output: Any, _: Any) -> Tensor:
    loss: Tensor = output.loss
    return loss


def _family(name: str) -> str:
    """The architecture without its size: `resnet` of resnet26d."""
    return name.split("_")[0].rstrip("0123456789dtabcx") or name


PUBLISHED: tuple[Callable[[], Iterator[Stock]], ...] = (torchvision, timm, transformers)
