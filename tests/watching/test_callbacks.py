"""The callbacks on the real packages: a tiny training of Lightning's Trainer, and one of Hugging Face's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab

torch.set_num_threads(1)

# What frameworks warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


def batches(count: int = 6) -> Any:
    torch.manual_seed(0)
    inputs = torch.randn(count, 16, 6)
    return [(one, one[:, :3].argmax(1)) for one in inputs]


def test_lightning(tmp_path: Path) -> None:
    lightning: Any = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from gradlab.watching.lightning import Watch

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

        def training_step(self, batch: Any, _: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    watch = Watch(every=2, out=tmp_path / "out", quiet=True, report=False)
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[watch],
        accelerator="cpu",
        gradient_clip_val=0.1,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(batches(), batch_size=None))
    frames = gradlab.load(watch.folder)
    assert len(frames.steps) == trainer.global_step == 6
    assert frames.steps["grad_norm_clipped"].tolist() == pytest.approx([0.1] * 6, rel=1e-3)
    assert (frames.steps["grad_norm"] > 0.1).all()
    assert frames.steps["loss"].between(0.1, 3).all()
    assert sorted(set(frames.layers["step"])) == [0, 2, 4]
    assert frames.layers["name"].tolist()[:3] == ["input", "net.0", "net.2"]
    assert frames.runs[["optim.name", "optim.lr"]].to_numpy().tolist() == [["adam", 0.01]]


def test_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from gradlab.watching.transformers import Watch

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    tokens = torch.randint(0, 32, (24, 12))
    data = [{"input_ids": one, "labels": one} for one in tokens]
    watch = Watch(every=2, out=tmp_path / "out", quiet=True, report=False)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        max_steps=5,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=0.5,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, callbacks=[watch])
    trainer.train()
    frames = gradlab.load(watch.folder)
    assert len(frames.steps) == 5
    assert frames.steps["grad_norm_clipped"].tolist() == pytest.approx([0.5] * 5, rel=1e-3)
    assert frames.steps["loss"].between(2, 5).all()
    rows = frames.layers[frames.layers["step"] == 2]
    assert "transformer.h.0.attn.c_attn" in rows["name"].tolist()
    assert (rows[rows["calls"] > 0]["signal_grad_norm"] > 0).all()
    assert rows["attention_entropy"].notna().any()
    assert frames.runs["optim.name"].tolist() == ["adamw"]
